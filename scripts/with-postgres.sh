#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own, which is empty, listens on a socket in a temporary folder only, and is gone
# afterwards. Its URL is in PMESH_TEST_POSTGRES.
#
#   scripts/with-postgres.sh cargo test -p onramp-server
set -u -o pipefail

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb || echo /)")
if ! [ -x "$bin/initdb" ] || ! [ -x "$bin/postgres" ]; then
  echo "MISSING: PostgreSQL (apt-get install postgresql)" >&2
  exit 1
fi

folder=$(mktemp -d) || exit 1
server=
finish() {
  if [ -n "$server" ]; then
    kill -INT "$server" 2>/dev/null
    wait "$server" 2>/dev/null
  fi
  rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

# PostgreSQL does not run as root.
as=()
if [ "$(id -u)" = 0 ]; then
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups --)
  chown postgres: "$folder" || exit 1
fi
cd "$folder" || exit 1
"${as[@]}" "$bin/initdb" -D "$folder/data" -U pmesh -A trust -E UTF8 --locale=C >"$folder/log" 2>&1 || { cat "$folder/log" >&2; exit 1; }
"${as[@]}" "$bin/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= >>"$folder/log" 2>&1 &
server=$!
for _ in $(seq 100); do
  "$bin/pg_isready" -q -h "$folder" && break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.1
done
"$bin/pg_isready" -q -h "$folder" || { cat "$folder/log" >&2; exit 1; }

cd "$OLDPWD" || exit 1
PMESH_TEST_POSTGRES="postgres://pmesh@localhost/postgres?host=$folder" "$@"

#!/usr/bin/env bash
# The project's one test command: everything that has to hold, on a Debian machine that has Rust.
#
#   scripts/test.sh                          all of it
#   PMESH_SKIP_BROWSER=1 scripts/test.sh     without the browser suite (and the result says so)
#
# It installs what the tests need (PostgreSQL, Chromium and node by apt, when it may; npm packages into
# tests/browser/node_modules). What it cannot do it names, and then it fails.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
exec </dev/null
[ -d "${HOME:-}/.cargo/bin" ] && PATH="$PATH:$HOME/.cargo/bin"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}" DEBIAN_FRONTEND=noninteractive

summary=()
failed=0
started=$SECONDS

heading() { printf '\n=== %s\n' "$1"; }
have() { command -v "$1" >/dev/null 2>&1; }
note() { # note RESULT STEP [REMARK]: a line of the closing summary
  local line
  line=$(printf '%-9s %s' "$1" "$2")
  [ $# -gt 2 ] && line="$line: $3"
  summary+=("$line")
  [ "$1" = FAILED ] && failed=1
  return 0
}
step() { # step NAME COMMAND...
  local name=$1 from=$SECONDS result
  shift
  heading "$name"
  if "$@"; then result=ok; else result=FAILED; fi
  note "$result" "$name" "$((SECONDS - from)) s"
  printf -- '--- %s: %s, %s s\n' "$name" "$result" "$((SECONDS - from))"
  [ "$result" = ok ]
}

# --- what the machine has -------------------------------------------------------------------------------------------

node_is_new_enough() { have node && node -e '
  const [major, minor] = process.versions.node.split(".").map(Number);
  process.exit(major > 18 || (major === 18 && minor >= 19) ? 0 : 1)'; }
browser_is_there() {
  [ -x "${CHROMIUM:-}" ] || [ -x /usr/bin/chromium ] || [ -x /usr/bin/chromium-browser ] || [ -x /usr/bin/google-chrome ]
}
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo && sudo -n true 2>/dev/null; then sudo -n --preserve-env=DEBIAN_FRONTEND "$@"
  else echo "this needs root: $*"; return 1
  fi
}
install_by_apt() { # install_by_apt PACKAGE...
  echo "installing: $*"
  if have apt-get; then
    as_root apt-get -q update && as_root apt-get -q install -y --no-install-recommends "$@"
  else
    echo "there is no apt-get here"
  fi
}
postgres_is_there() { [ -n "${PMESH_TEST_POSTGRES:-}" ] || have initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
install_postgres() {
  postgres_is_there || install_by_apt postgresql
  postgres_is_there || { echo "MISSING: PostgreSQL (Debian: apt-get install postgresql)"; return 1; }
}
install_packages() {
  local wanted=()
  browser_is_there || wanted+=(chromium)
  have node || wanted+=(nodejs)
  have npm || wanted+=(npm)
  [ ${#wanted[@]} -gt 0 ] && install_by_apt "${wanted[@]}"
  local good=0
  browser_is_there || { echo "MISSING: Chromium (Debian: apt-get install chromium; elsewhere: set CHROMIUM to its path)"; good=1; }
  node_is_new_enough || { echo "MISSING: node 18.19 or newer"; good=1; }
  have npm || { echo "MISSING: npm"; good=1; }
  return $good
}
install_npm_packages() {
  (cd tests/browser && npm install --no-package-lock --no-audit --no-fund --ignore-scripts)
}
check_rust() {
  local good=0
  have cargo && cargo --version && rustc --version || { echo "MISSING: Rust (https://rustup.rs)"; good=1; }
  cargo fmt --version || { echo "MISSING: rustfmt (rustup component add rustfmt)"; good=1; }
  cargo clippy --version || { echo "MISSING: clippy (rustup component add clippy)"; good=1; }
  have cc && have c++ || { echo "MISSING: a C and C++ compiler (apt-get install build-essential)"; good=1; }
  echo "disk: $(df -Ph . | awk 'NR == 2 { print $4 }') free here, $(df -Ph "${TMPDIR:-/tmp}" | awk 'NR == 2 { print $4 }') for temporary files"
  return $good
}

# --- the steps ------------------------------------------------------------------------------------------------------

check_format() {
  cargo fmt --all --check && cargo fmt --manifest-path fuzz/Cargo.toml --check
}
check_lints() {
  cargo clippy --workspace --all-targets -- -D warnings && cargo clippy --test originals -- -D warnings
}
beside=() # what the tests run beside
run_tests() {
  local run=test
  cargo nextest --version >/dev/null 2>&1 && run="nextest run"
  # shellcheck disable=SC2086
  "${beside[@]}" cargo $run --no-fail-fast --workspace --lib --bins --tests --examples
}
build_docs() {
  # The library and a program are both called pmesh: the library last, so that its pages stay.
  RUSTDOCFLAGS="-D warnings" cargo doc --no-deps -p onramp-server -p pmesh-cli --bins &&
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps -p pmesh --lib
}
check_dependencies() {
  if have cargo-deny; then
    cargo deny check licenses bans sources
  else
    echo "cargo-deny is not installed: a smaller check of deny.toml's licences, sources and wildcards instead."
    if have node; then node scripts/check-dependencies.mjs; else echo "MISSING: node, for that check"; return 1; fi
  fi
}
# Known vulnerabilities are listed in a database on the net, which is not to be had everywhere: a database that cannot
# be reached is told and is no failure, a vulnerability is one.
check_advisories() {
  local name="known vulnerabilities" output status reason="no database within 60 s"
  heading "$name"
  if have cargo-deny; then
    output=$(timeout 60 cargo deny check advisories 2>&1)
    status=$?
  elif have cargo-audit; then
    output=$(timeout 60 cargo audit 2>&1)
    status=$?
  else
    output="neither cargo-deny nor cargo-audit is installed (cargo install cargo-audit)"
    reason="no tool"
    status=124
  fi
  echo "$output" | tail -n 60
  if [ $status = 0 ]; then
    note ok "$name"
  elif grep -qE 'error\[(vulnerability|unmaintained|unsound|yanked|notice)|vulnerabilit(y|ies) found' <<<"$output"; then
    note FAILED "$name"
  else
    echo "NOT DONE: $reason"
    note "NOT DONE" "$name" "$reason"
  fi
}
browser_suite() {
  local target
  target=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  PMESH_BIN_DIR="${PMESH_BIN_DIR:-$target/debug}" timeout --signal=TERM 600 node tests/browser/run.mjs
}

step "Rust tools" check_rust
step "format" check_format
step "lints" check_lints
if step "PostgreSQL" install_postgres; then
  [ -n "${PMESH_TEST_POSTGRES:-}" ] || beside=(scripts/with-postgres.sh)
fi
step "tests" run_tests
step "doc tests" cargo test --workspace --doc
step "documentation" build_docs
step "fuzzing" scripts/fuzz.sh
step "programs" cargo build --workspace --bins
programs=$?

if [ "${PMESH_SKIP_BROWSER:-}" = 1 ]; then
  heading "browser suite"
  echo "SKIPPED, because PMESH_SKIP_BROWSER=1. Nothing here was tried against a browser or against the originals."
  note SKIPPED "browser suite" "PMESH_SKIP_BROWSER=1"
elif ! step "browser and node" install_packages || ! step "npm packages" install_npm_packages; then
  note FAILED "browser suite" "not run, see above for what is missing; PMESH_SKIP_BROWSER=1 leaves it out"
elif [ $programs != 0 ]; then
  note FAILED "browser suite" "not run, there are no programs to test"
else
  step "original peer-relay" cargo test --test originals
  step "browser suite" browser_suite
fi

step "licences and sources of dependencies" check_dependencies
check_advisories

heading "summary, $((SECONDS - started)) s"
printf '%s\n' "${summary[@]}"
if [ $failed = 0 ]; then echo "all that was done passed"; else echo "FAILED"; fi
exit $failed

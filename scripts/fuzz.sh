#!/usr/bin/env bash
# Fuzzes the codecs and the pipe with libFuzzer, on stable Rust and without cargo-fuzz.
#
#   scripts/fuzz.sh                        a fixed number of inputs for each target, the same ones each time
#   scripts/fuzz.sh --seconds 600          so long for each target, from what earlier runs found
#   scripts/fuzz.sh --seconds 600 packet   only this target
#
# An input that fails is kept in target/fuzz/artifacts; the program of its target, in target/fuzz, runs it again.
set -eu -o pipefail
cd "$(dirname "$0")/.."

seconds=0
if [ "${1:-}" = --seconds ]; then
  seconds=${2:?how many?}
  shift 2
fi
targets=("$@")
[ $# -gt 0 ] || for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done

# What `cargo fuzz build --sanitizer none` sets. The target is named so that build scripts and macros get none of it.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4
  -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
  -C llvm-args=-sanitizer-coverage-trace-compares" \
  cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host" --target-dir target/fuzz

# Where things lie in memory has an influence on what libFuzzer tries: the same place each time, if the system allows it.
still=(env -i RUST_BACKTRACE=1)
if setarch -R true 2>/dev/null; then still=(setarch -R "${still[@]}"); fi

mkdir -p target/fuzz/artifacts
for target in "${targets[@]}"; do
  corpus=target/fuzz/corpus/$target log=target/fuzz/$target.log
  options=(-max_len=4096 -timeout=10 -print_final_stats=1 -artifact_prefix="target/fuzz/artifacts/$target-")
  if [ "$seconds" = 0 ]; then
    corpus=$corpus-fixed
    rm -rf "$corpus"
    # Those whose runs take longer.
    case $target in
      handshake) runs=5000 ;;
      identity) runs=10000 ;;
      peer_relay | signal) runs=20000 ;;
      pipe | topics) runs=40000 ;;
      *) runs=150000 ;;
    esac
    # To read the corpus again after a second, or to watch the memory in a thread, makes a difference too.
    options+=(-seed=1 -runs=$runs -reload=0 -rss_limit_mb=0)
  else
    options+=(-max_total_time="$seconds" -rss_limit_mb=1024)
  fi
  if [ -f "fuzz/$target.dict" ]; then options+=(-dict="fuzz/$target.dict"); fi
  mkdir -p "$corpus"
  corpora=("$corpus")
  if [ -d "fuzz/seeds/$target" ]; then corpora+=("fuzz/seeds/$target"); fi
  from=$SECONDS
  if ! "${still[@]}" "target/fuzz/$host/release/$target" "${options[@]}" "${corpora[@]}" >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "fuzz target $target: FAILED"
    exit 1
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  echo "fuzz target $target: $runs inputs, $(find "$corpus" -type f | wc -l) of them kept, $((SECONDS - from)) s"
done

#!/bin/sh
# Cargo's wrapper for rustc (`RUSTC_WRAPPER`): instruments `crag` and the targets for coverage, and leaves the
# other crates fast. The flags are those of libFuzzer's counters; stable rustc takes them.
case "${CARGO_CRATE_NAME:-}" in
crag | records | safetensors | torch | pubtator | bioc | ade_rel | brat | rows | archives) ;;
*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1

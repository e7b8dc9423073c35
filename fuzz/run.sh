#!/usr/bin/env bash
# Fuzzes: `fuzz/run.sh [SECONDS [TARGET…]]`, 60 seconds for each of all targets by default. Needs Rust and a C++ compiler.
#
# Seeds are the committed fixtures and `fuzz/seeds/TARGET`; what was found in the past lies in `fuzz/findings/TARGET` and
# is replayed first. What a run learns stays in `fuzz/target/corpus/TARGET`; a crash, more than 1 GiB of memory or an
# input that takes 10 seconds ends it with exit code 1 and leaves the input in `fuzz/findings/TARGET`.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | grep -v '^crag-fuzz$')
fi
RUSTC_WRAPPER="$PWD/instrument.sh" cargo build --release --quiet

fixtures=../tests/fixtures
seeds() { # the files that a target starts from
    case $1 in
    torch) ls $fixtures/checkpoint/*.bin ;;
    pubtator) ls $fixtures/corpora/*.pubtator.txt ;;
    bioc) ls $fixtures/corpora/*.bioc.* ;;
    ade_rel) ls $fixtures/corpora/*.rel ;;
    safetensors) find $fixtures -name '*.safetensors' -size -64k ;;
    esac
}
for target in "${targets[@]}"; do
    corpus=target/corpus/$target
    mkdir -p "$corpus" "findings/$target"
    # by their whole paths: several are called the same
    seeds "$target" | while read -r seed; do cp "$seed" "$corpus/${seed//\//_}"; done
    mkdir -p target/empty
    known=(target/empty)
    [ -d "seeds/$target" ] && known=("seeds/$target")
    echo "== $target: $seconds s"
    limits=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=65536)
    "target/release/$target" "$corpus" "${known[@]}" "findings/$target" "${limits[@]}" \
        -artifact_prefix="findings/$target/" -print_final_stats=1 -verbosity=0 2>&1 |
        grep -E 'number_of_executed_units|average_exec|peak_rss|panicked|ERROR|SUMMARY|Test unit|^Done' || true
    status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || { echo "$target failed ($status): see findings/$target"; exit 1; }
done

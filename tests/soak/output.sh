#!/usr/bin/env bash
# The long forms of what `cargo test` does in short about outputs: kills, failing disks, signals, overlapping runs,
# closed pipes, and a disk that is really full. An hour or so on two idle cores; needs no network.
#
#   tests/soak/output.sh                 all of it with the demo model
#   tests/soak/output.sh FOLDER          20 kills with the model in FOLDER instead (CRAG_DTYPE=int8 takes a third of the time)
#
# CRAG_KILLS, CRAG_SIGNALS, CRAG_OVERLAPS, CRAG_PIPES and CRAG_FAULT_LINES change the amounts.
set -euo pipefail
cd "$(dirname "$0")/../.."

test_by_name() { cargo test --test crag -- --exact "$1" --nocapture 2>&1 | grep -E '^(test |[0-9]|out)|panicked|FAILED'; }

if [ $# -eq 1 ]; then
    model=$(realpath "$1")
    export CRAG_RESUME_MODEL=$model CRAG_RESUME_LINES=${CRAG_RESUME_LINES:-6000} CRAG_KILLS=${CRAG_KILLS:-20}
    test_by_name resume::a_run_killed_at_any_moment_is_gone_on_with_to_the_same_bytes
    exit
fi

export CRAG_KILLS=${CRAG_KILLS:-1000} CRAG_SIGNALS=${CRAG_SIGNALS:-200} CRAG_OVERLAPS=${CRAG_OVERLAPS:-200}
export CRAG_FAULT_LINES=${CRAG_FAULT_LINES:-30}
date -u +%FT%TZ
test_by_name resume::a_run_killed_at_any_moment_is_gone_on_with_to_the_same_bytes
test_by_name interrupts::an_interrupted_run_keeps_its_progress_and_is_gone_on_with
test_by_name output::one_of_many_starters_gets_the_output
for name in whatever_operation_fails_the_run_can_be_gone_on_with \
    whatever_operation_fails_an_old_output_stays_until_the_new_is_complete \
    whatever_operation_fails_a_compressed_run_can_be_gone_on_with \
    a_resumed_run_may_fail_anywhere_too whenever_the_power_goes_the_run_can_be_gone_on_with; do
    test_by_name "faults::$name"
done

crag=$PWD/target/debug/crag
work=$(mktemp -d)
trap 'umount "$work/disk" 2>/dev/null || true; rm -rf "$work"' EXIT
for i in $(seq 20000); do
    echo "{\"id\": $i, \"text\": \"Patient $i took aspirin and had bleeding.\", \"drug\": \"aspirin\", \"adr\": \"bleeding\"}"
done > "$work/pairs.jsonl"

# A reader that goes away: 141, and not a word on stderr.
pipes=${CRAG_PIPES:-200}
for _ in $(seq "$pipes"); do
    set +e
    "$crag" score --model demo -q "$work/pairs.jsonl" 2> "$work/stderr" | head -1 > "$work/first"
    code=${PIPESTATUS[0]}
    set -e
    grep -v 'not for decisions' "$work/stderr" > "$work/said" || true
    [ "$code" = 141 ] && [ ! -s "$work/said" ] && [ "$(wc -l < "$work/first")" = 1 ] || { echo "head -1: code $code"; cat "$work/said"; exit 1; }
done
echo "$pipes times | head -1: code 141, nothing on stderr"

# A disk of 1 MiB: full in the middle, then there is room again.
mkdir "$work/disk"
if mount -t tmpfs -o size=1m none "$work/disk" 2> /dev/null; then
    "$crag" score --model demo -q -o "$work/whole.jsonl" "$work/pairs.jsonl" 2> /dev/null
    code=0
    "$crag" score --model demo -q --save-every 0.1 -o "$work/disk/out.jsonl" "$work/pairs.jsonl" 2> "$work/stderr" || code=$?
    [ "$code" = 1 ] && [ ! -e "$work/disk/out.jsonl" ] && grep -q 'No space left on device' "$work/stderr" || { echo "full disk: code $code"; cat "$work/stderr"; exit 1; }
    grep -v 'not for decisions' "$work/stderr"
    mount -o remount,size=16m "$work/disk"
    "$crag" score --model demo -o "$work/disk/out.jsonl" --resume "$work/pairs.jsonl"
    cmp "$work/disk/out.jsonl" "$work/whole.jsonl"
    echo "a full disk of 1 MiB: code 1, gone on with to the same bytes when it had room"
else
    echo "skipped: this user may not mount a small disk"
fi
date -u +%FT%TZ

#!/usr/bin/env bash
# Runs every example on this machine with the demo model and compares with a single run: test.sh [CRAG]
#
# CRAG is the binary (default: the release build's). Pairs come from BC5CDR where ../shared is there, else from pairs.jsonl
# many times over. Examples whose engine is missing are skipped, and said so.
set -euo pipefail
cd "$(dirname "$0")/.."
crag=$(realpath "${1:-target/release/crag}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin" && ln -s "$crag" "$work/bin/crag"
export PATH=$work/bin:$PATH CRAG_MODEL=demo

corpus=../shared/data/bc5cdr/CDR_DevelopmentSet.PubTator.txt
if [ -e "$corpus" ]; then
    crag extract --from pubtator --quiet "$corpus" >"$work/pairs.jsonl"
else
    for i in $(seq 200); do cat examples/pairs.jsonl; done >"$work/pairs.jsonl"
fi
# One line that cannot be scored: its error record belongs into every result. No line that is no object: its record holds
# the line's number, which Spark's tasks count in their partitions.
echo '{"id":"bad","text":"nothing in it","drug":"aspirin","adr":"rash"}' >>"$work/pairs.jsonl"
crag score --quiet "$work/pairs.jsonl" >"$work/single.jsonl" || [ $? = 3 ]
echo "single run: $(wc -l <"$work/single.jsonl") records"

passed=0 failed=0 skipped=0
check() { # NAME FILE: equal to the single run
    if cmp "$work/single.jsonl" "$2"; then echo "ok      $1"; passed=$((passed + 1)); else echo "FAILED  $1"; failed=$((failed + 1)); fi
}
skip() { echo "skipped $1: $2"; skipped=$((skipped + 1)); }

mkdir "$work/in" "$work/out"
cp "$work/pairs.jsonl" "$work/in/"
examples/cron/score-new.sh "$work/in" "$work/out" >"$work/log"
grep -q 'pairs.jsonl: exit 3' "$work/log"
examples/cron/score-new.sh "$work/in" "$work/out" >>"$work/log" # finds nothing to do
[ "$(wc -l <"$work/log")" = 1 ]
code=0
examples/cron/score-new.sh "$work/in" "$work/out/../in" 2>>"$work/log" || code=$?
[ "$code" = 2 ] && grep -q 'are one folder' "$work/log" # every file would be its own result
check cron "$work/out/pairs.jsonl"

for i in 1 2 3; do
    SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=3 bash examples/slurm/score.sbatch "$work/pairs.jsonl" "$work/slurm.jsonl" 2>/dev/null
done
bash examples/slurm/merge.sbatch "$work/slurm.jsonl" 3
check slurm "$work/slurm.jsonl"

if command -v parallel >/dev/null; then
    examples/parallel/score.sh "$work/pairs.jsonl" "$work/parallel.jsonl" 3
    check parallel "$work/parallel.jsonl"
else
    skip parallel "no GNU parallel here"
fi

python=${CRAG_EXAMPLES_PYTHON:-python3}
if "$python" -c 'import pyspark' 2>/dev/null && command -v java >/dev/null; then
    "$python" examples/spark/score.py --model demo --crag "$crag" --partitions 4 "$work/pairs.jsonl" "$work/spark" 2>"$work/spark.log" ||
        { tail -20 "$work/spark.log"; exit 1; }
    [ "$(ls "$work/spark" | grep -c '^part-')" -ge 4 ]
    cat "$work"/spark/part-* >"$work/spark.jsonl"
    check spark "$work/spark.jsonl"
else
    skip spark "it needs Java 17 and a Python with examples/spark/requirements.txt (CRAG_EXAMPLES_PYTHON names it)"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]

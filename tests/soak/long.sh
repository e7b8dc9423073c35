#!/usr/bin/env bash
# Ten million lines through one run, and how its memory goes: resident memory after the first minute may be at most 5%
# above the most of the first minute. Lines are BC5CDR's pairs within a sentence, again and again, with ids in order;
# the output is a compressed file, and every id has to be in it, in order. Stopped after an hour, which on two cores is not all of them (output.md); needs no network.
#
#   tests/soak/long.sh [LINES]      default 10000000; CRAG_LONG_SECONDS stops feeding it after so long (default 3600)
set -euo pipefail
cd "$(dirname "$0")/../.."

lines=${1:-10000000}
seconds=${CRAG_LONG_SECONDS:-3600}
corpus=../shared/data/bc5cdr
[ -d "$corpus" ] || { echo "skipped: $corpus is not there"; exit; }
cargo build --release --quiet
crag=$PWD/target/release/crag
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

date -u +%FT%TZ
"$crag" extract -q --from pubtator "$corpus"/*.PubTator.txt 2> "$work/stderr" > "$work/pairs.jsonl" || { cat "$work/stderr"; exit 1; }
echo "$(wc -l < "$work/pairs.jsonl") pairs, given again until there are $lines lines or $seconds seconds are over"

# {"id":"…",… becomes {"id":N,…
feed() {
    awk -v lines="$lines" -v seconds="$seconds" '
        { sub(/^\{"id":"[^"]*"/, ""); rest[NR] = $0 }
        END {
            srand(); began = srand()
            for (n = 1; n <= lines; n++) {
                print "{\"id\":" n rest[(n - 1) % NR + 1]
                if (n % 10000 == 0) { srand(); if (srand() - began > seconds) break }
            }
        }' "$work/pairs.jsonl"
}
mkfifo "$work/in"
feed > "$work/in" &
"$crag" score --model demo --progress none --summary-json "$work/summary.json" -o "$work/out.jsonl.gz" < "$work/in" 2> "$work/stderr" &
pid=$!
# Seconds and kB, each second.
while rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status" 2> /dev/null) && [ -n "$rss" ]; do
    echo "$SECONDS $rss"
    sleep 1
done > "$work/rss"
code=0
wait "$pid" || code=$?
grep -v 'not for decisions' "$work/stderr" || true
[ "$code" = 0 ] || { echo "exit code $code"; exit 1; }

awk 'NR == 1 { began = $1 }
    { minute = int(($1 - began) / 60); if ($2 > most[minute]) most[minute] = $2; last = minute }
    END {
        for (m = 0; m <= last; m++) { if (m > 0 && most[m] > later) later = most[m]; if (m < 3 || m % 10 == 0 || m == last) printf "minute %d: at most %d kB\n", m + 1, most[m] }
        if (last < 1) { print "too short a run to say how its memory goes"; exit 1 }
        printf "%d kB at most in the first minute, %d kB after it: %+.1f%%\n", most[0], later, 100 * (later / most[0] - 1)
        if (later > 1.05 * most[0]) exit 1
    }' "$work/rss"
gzip -dc "$work/out.jsonl.gz" | awk -F'[:,]' '
    $2 != NR || !/"probability":/ { print "line " NR ": " $0; exit 1 }
    END { print NR " answers, each in its place" }'
date -u +%FT%TZ

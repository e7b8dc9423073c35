#!/usr/bin/env bash
# Scores each file of pairs in a folder that has no result yet: score-new.sh IN OUT
#
# Safe to run at any time and as often as wanted: a result appears under its name only when it is complete, a run that was
# killed goes on where it stopped, and a file that another run is at is left to it. One line on stdout for each file, for
# a log; stderr only for what a person should see.
#
# Pairs are *.jsonl, *.csv and *.tsv, also with .gz, .zst or .bz2 after that. Move a file into IN when it is whole (`mv`
# from the same file system): one that has a result is not looked at again, even if it has grown. Columns with names of
# their own: CRAG_FIELD='["drug=Drug name","adr=Event","text=Narrative"]' (then IN may hold tables alone). Pairs of a corpus:
# crag extract --from pubtator -o IN/NAME.jsonl DUMP before this.
set -uo pipefail
in=${1:?usage: score-new.sh IN OUT} out=${2:?usage: score-new.sh IN OUT}
model=${CRAG_MODEL:-chrisvoncsefalvay/CRAG-dual-encoder-ade}
status=0
for folder in "$in" "$out"; do
    [ -d "$folder" ] || { echo "$folder: no such folder" >&2; exit 2; }
done
# Every file would pass for its own result.
[ "$in" -ef "$out" ] && { echo "$in: IN and OUT are one folder; name another for the results" >&2; exit 2; }
shopt -s nullglob
for file in "$in"/*.{jsonl,csv,tsv}{,.gz,.zst,.bz2}; do
    result=$out/$(basename "$file")
    [ -e "$result" ] && continue
    crag score --model "$model" --offline --quiet --resume -o "$result" "$file"
    code=$?
    echo "$(date -u +%FT%TZ) $file: exit $code"
    case $code in
    0 | 3 | 11) ;; # done, done with error records, another run is at it
    *) status=1 ;; # cron's mail has the message; the next run goes on from there, but for 2, which a person has to mend
    esac
done
exit $status

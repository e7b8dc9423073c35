#!/usr/bin/env bash
# All cores by GNU parallel: score.sh PAIRS OUT [JOBS]
#
# One process a core is worth it where cores do not share memory well (several sockets), and with `--sshlogin` for
# several machines; on a small machine one `crag score` alone is as fast and holds the model once.
set -euo pipefail
pairs=${1:?usage: score.sh PAIRS OUT [JOBS]} out=${2:?usage: score.sh PAIRS OUT [JOBS]} jobs=${3:-$(nproc)}
model=${CRAG_MODEL:-chrisvoncsefalvay/CRAG-dual-encoder-ade}

# A shard that has error records exits with 3 and is complete; parallel would count it as failed.
score() { crag score --model "$1" --offline --quiet --threads 1 --shard "$2" --resume -o "$4.${2//\//-of-}" "$3" || [ $? = 3 ]; }
export -f score
seq "$jobs" | parallel --jobs "$jobs" --halt now,fail=1 --retries 3 score "$model" "{}/$jobs" "$pairs" "$out"

shards=()
for i in $(seq "$jobs"); do shards+=("$out.$i-of-$jobs"); done
crag merge -o "$out" --force "${shards[@]}"

#!/usr/bin/env bash
# Tests, accuracy, speed and a profile of crag on one GPU, against PyTorch, within ten minutes.
#
#   benches/cuda/run.sh --crag BINARY --pairs FILE [--tests BINARY] [--ops BINARY] [--out FOLDER] [--device cuda|cpu]
#
# Needs a driver, Python with torch, transformers and safetensors; no Rust and no network. FILE is
# the ADE corpus' DRUG-AE.rel or a JSONL file of pairs. `--device cpu` goes through the same steps on
# a small checkpoint and a few pairs, which shows that the script works and nothing else.
# The binaries are those of `cargo build --release --features cuda` (crag), `cargo test --release --features
# cuda --no-run` (the one of tests/main.rs) and `cargo bench --features cuda --bench cuda-ops --no-run`.
# Everything is left in FOLDER; the table at the end is summary.py's.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
crag= pairs= tests= ops= out=${OUT:-cuda-results} device=cuda
while [ $# -gt 0 ]; do
  case $1 in
    --crag) crag=$2 ;; --pairs) pairs=$2 ;; --tests) tests=$2 ;; --ops) ops=$2 ;; --out) out=$2 ;; --device) device=$2 ;;
    *) echo "unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
[ -x "$crag" ] && [ -r "$pairs" ] || { sed -n 2,11p "$0" >&2; exit 2; }
mkdir -p "$out"; out=$(cd "$out" && pwd)
# nothing of an earlier run may be taken for this one's
(cd "$out" && rm -f speed-* peer-* accuracy* edges-* profile* train* tests.log scoring.log ops.log ceilings* pairs.log usage.txt summary.txt)
python=${PYTHON:-python3}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
: > "$out/steps.txt"
# the libraries that the binary opens, where PyTorch keeps them
libraries=$("$python" -c 'import glob, site
print(":".join(d for p in site.getsitepackages() + [site.getusersitepackages()] for d in sorted(glob.glob(p + "/nvidia/*/lib"))))' 2>/dev/null)
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

step() { # step NAME SECONDS COMMAND...: output to NAME.log, exit status and time to steps.txt
  local name=$1 limit=$2 begin=$SECONDS code; shift 2
  timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1; code=$?
  printf '%s\t%s\t%s\n' "$name" $((SECONDS - begin)) $code >> "$out/steps.txt"
  echo "$name: exit $code, $((SECONDS - begin)) s" >&2
}
score() { # score NAME SECONDS INPUT OPTIONS...: answers to NAME.jsonl, remarks to NAME.err
  local name=$1 limit=$2 input=$3 begin=$SECONDS code; shift 3
  timeout -k 5 "$limit" "$crag" score --model "$work/model" --offline "$@" "$input" > "$out/$name.jsonl" 2> "$out/$name.err"; code=$?
  [ $code = 3 ] && [ "${name#edges}" != "$name" ] && code=0 # error records are what some of these ask for
  printf '%s\t%s\t%s\n' "$name" $((SECONDS - begin)) $code >> "$out/steps.txt"
  echo "$name: exit $code, $((SECONDS - begin)) s: $(tail -c 200 "$out/$name.err" | tail -1)" >&2
}

small= count=200000 compared=4096 on_cpu=256 eager=50000 compile=--compile dtypes="f32 bf16 f16" budgets="8192 16384 32768 65536"
if [ "$device" = cpu ]; then
  small=--small count=2000 compared=200 on_cpu=200 eager=500 compile= dtypes=f32 budgets="512 4096"
fi

nvidia-smi --query-gpu=name,memory.total,driver_version,power.limit,clocks.max.sm --format=csv,noheader > "$out/gpu.txt" 2>&1
step pairs 60 "$python" "$here/inputs.py" pairs "$pairs" "$work/pairs.jsonl" $count
step edge-inputs 20 "$python" "$here/inputs.py" edges "$work/edges.jsonl"
head -$compared "$work/pairs.jsonl" > "$work/compared.jsonl"
head -$on_cpu "$work/pairs.jsonl" > "$work/on_cpu.jsonl"
# the checkpoint is made on the CPU while the tests use the GPU
step checkpoint 150 "$python" "$here/inputs.py" checkpoint "$work/model" "$pairs" $small &
making=$!
if [ "$device" = cuda ] && [ -n "$tests" ]; then
  CRAG_REQUIRE_GPU=1 step tests 150 "$tests" --nocapture cuda::gpu
  # the tests of scoring take the GPU too; they look for their files where the binary was compiled
  CRAG_TEST_BINARY="$crag" step scoring 120 "$tests" score:: lines:: formats:: parity::
fi
wait $making

step inspect 60 "$crag" inspect --model "$work/model" --offline
for dtype in $dtypes; do
  score accuracy-$dtype 60 "$work/compared.jsonl" --device $device --dtype $dtype
  score edges-$dtype 30 "$work/edges.jsonl" --device $device --dtype $dtype
done
score accuracy-cpu 60 "$work/on_cpu.jsonl" --device cpu
step accuracy 90 "$python" "$here/peer.py" accuracy "$work/model" "$work/compared.jsonl" "$out/accuracy.json" --device $device --count $compared

step training-data 20 "$python" "$here/training.py" data "$work/pairs.jsonl" "$work"
for place in cpu $device; do
  step train-$place 60 "$crag" train --recipe "$work/recipe.toml" --train "$work/related.jsonl" --device $place --out "$work/trained-$place" --force
done
step training 20 "$python" "$here/training.py" compare "$work/trained-cpu/log.jsonl" "$work/trained-$device/log.jsonl"

dtype=bf16; [ "$device" = cpu ] && dtype=f32
"$python" - "$work" >> "$out/pairs.log" <<'PYTHON'
import json, sys; sys.path.insert(0, "")
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1] + "/model")
records = [json.loads(line) for line in open(sys.argv[1] + "/pairs.jsonl")][:7000]
# the markers add two tokens a side, and more where an entity occurs more than once
tokens = tokenizer([r["text"] for r in records], max_length=126, truncation=True)["input_ids"]
print(f"{2 * sum(len(t) + 2 for t in tokens) / len(records):.1f} tokens a pair")
PYTHON
if [ "$device" = cuda ]; then
  nvidia-smi --query-gpu=utilization.gpu,power.draw,clocks.sm --format=csv,noheader,nounits -lms 250 > "$out/usage.txt" 2>/dev/null & sampling=$!
fi
for budget in $budgets; do
  score speed-$dtype-$budget 60 "$work/pairs.jsonl" --device $device --dtype $dtype --no-reuse --batch-tokens $budget
  rm -f "$out/speed-$dtype-$budget.jsonl"
done
score speed-$dtype-default 60 "$work/pairs.jsonl" --device $device --dtype $dtype --no-reuse
[ "$(wc -l < "$out/speed-$dtype-default.jsonl")" = $count ] || echo "speed-$dtype-default: lines are missing" >&2
rm -f "$out/speed-$dtype-default.jsonl"
if [ "$device" = cuda ]; then
  kill $sampling 2>/dev/null
  CRAG_CUDA_LT=0 score speed-$dtype-cublas 60 "$work/pairs.jsonl" --device cuda --dtype $dtype --no-reuse
  head -40000 "$work/pairs.jsonl" > "$work/profiled.jsonl"
  CRAG_CUDA_PROFILE=1 score profile 60 "$work/profiled.jsonl" --device cuda --dtype $dtype --no-reuse
  cp "$out/profile.err" "$out/profile.txt"; rm -f "$out/speed-$dtype-cublas.jsonl" "$out/profile.jsonl"
  [ -n "$ops" ] && step ops 60 "$ops" 16384
  step ceilings 60 "$python" "$here/ceilings.py" "$out/ceilings.json"
fi
step peer-eager 100 "$python" "$here/peer.py" speed "$work/model" "$work/pairs.jsonl" "$out/peer-eager.json" --device $device --limit $eager
if [ -n "$compile" ]; then
  step peer-compiled 220 "$python" "$here/peer.py" speed "$work/model" "$work/pairs.jsonl" "$out/peer-compiled.json" --device $device $compile
fi
rm -f "$out"/peer-*.json.jsonl
"$python" "$here/summary.py" "$out" | tee "$out/summary.txt"

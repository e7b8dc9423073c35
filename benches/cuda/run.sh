#!/usr/bin/env bash
# Tests, accuracy, speed and a profile of crag on one GPU, against PyTorch, within ten minutes.
#
#   benches/cuda/run.sh --crag BINARY --pairs FILE [--tests BINARY] [--ops BINARY] [--out FOLDER] [--device cuda|cpu]
#       [--part all|check|speed] [--seconds N] [--work FOLDER]
#
# Needs a driver, Python with torch, transformers and safetensors; no Rust and no network. FILE is
# the ADE corpus' DRUG-AE.rel or a JSONL file of pairs. `--device cpu` goes through the same steps on
# a small checkpoint and a few pairs, which shows that the script works and nothing else.
# The binaries are those of `cargo build --release --features cuda` (crag), `cargo test --release --features
# cuda --no-run` (the one of tests/main.rs) and `cargo bench --features cuda --bench cuda-ops --no-run`; each may
# be packed with xz. They open the libraries of the CUDA version that they were built with: 13.0 for a machine with libcublasLt.so.13.
# What decides comes first; no step begins or goes on after N seconds, and the table is printed whatever came of
# them. `check` is tests, accuracy and training, `speed` the rest; a FOLDER named by --work keeps pairs and checkpoint for
# a second call. N is 570 for all, 270 for `check` and 400 for `speed`: both, one after the other, within a
# quarter of an hour of a machine that takes some minutes to start. FOLDER of --out gets summary.txt (the table, summary.py's), steps.txt and results.tar.gz with all else,
# after every step anew.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
crag= pairs= tests= ops= out=${OUT:-cuda-results} device=cuda part=all seconds= work=
while [ $# -gt 0 ]; do
  case $1 in
    --crag) crag=$2 ;; --pairs) pairs=$2 ;; --tests) tests=$2 ;; --ops) ops=$2 ;; --out) out=$2 ;; --device) device=$2 ;;
    --part) part=$2 ;; --seconds) seconds=$2 ;; --work) work=$2 ;;
    *) echo "unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
[ -r "$crag" ] && [ -r "$pairs" ] || { sed -n 2,19p "$0" >&2; exit 2; }
case $part in check) : "${seconds:=270}" ;; speed) : "${seconds:=400}" ;; *) : "${seconds:=570}" ;; esac
python=${PYTHON:-python3}
if [ -z "$work" ]; then work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; fi
mkdir -p "$out" "$work"; out=$(cd "$out" && pwd); work=$(cd "$work" && pwd)
# nothing of an earlier run may be taken for this one's
results=$work/results; rm -rf "$results"; mkdir "$results"
: > "$results/steps.txt"

binary() { # binary NAME FILE: where the program is, unpacked and by its full name
  if [ "${2%.xz}" = "$2" ]; then realpath "$2"; return; fi
  "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$2" "$work/$1" && chmod +x "$work/$1"
  echo "$work/$1"
}
crag=$(binary crag "$crag"); [ -z "$tests" ] || tests=$(binary tests "$tests"); [ -z "$ops" ] || ops=$(binary ops "$ops")

# the libraries that the binary opens, where PyTorch keeps them
libraries=$("$python" -c 'import glob, importlib.util
found = importlib.util.find_spec("nvidia")
print(":".join(d for p in (found.submodule_search_locations if found else []) for d in sorted(glob.glob(p + "/*/lib"))))')
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:/usr/local/cuda/lib64:/usr/local/nvidia/lib64"
# no network, and kernels that the driver compiles are compiled once
mkdir -p "$work/jit"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 CUDA_CACHE_PATH=$work/jit CUDA_CACHE_MAXSIZE=1073741824

pack() {
  cp "$results/steps.txt" "$out/"
  # the answers of the speed runs are large and nobody asks for them
  local packed="$out/results.tar.gz.$BASHPID"
  tar -czf "$packed" -C "$work" --exclude 'speed-*.jsonl' --exclude profile.jsonl --exclude 'peer-*.jsonl' results
  # 1: a file grew while it was read, as a log may
  if [ $? -le 1 ]; then mv "$packed" "$out/results.tar.gz"; else rm -f "$packed"; fi
}
table() { # what is known so far, in case that nobody lets this come to its end
  "$python" "$here/summary.py" "$results" > "$results/summary.txt"; cp "$results/summary.txt" "$out/"
}
summary() {
  table; cat "$results/summary.txt"; pack
}
trap '[ -z "${idle:-}" ] || kill $idle; summary; exit 124' TERM

limited() { # limited NAME SECONDS OUTPUT REMARKS COMMAND...: for at most so long, and no longer than the whole may take
  local name=$1 limit=$2 output=$3 remarks=$4 left=$((seconds - SECONDS)) begin=$SECONDS code; shift 4
  if [ $left -lt 5 ]; then
    printf '%s\t0\tno time left\n' "$name" >> "$results/steps.txt"; echo "$name: no time left" >&2; return
  fi
  : > "$output"
  timeout -k 5 $((left < limit ? left : limit)) "$@" >> "$output" 2>> "$remarks"; code=$?
  [ $code = 3 ] && [ "${name#edges}" != "$name" ] && code=0 # error records are what some of these ask for
  printf '%s\t%s\t%s\n' "$name" $((SECONDS - begin)) $code >> "$results/steps.txt"
  case $name in accuracy | speed-*-default | ceilings | peer-compiled) table ;; esac
  echo "$name: exit $code, $((SECONDS - begin)) s: $(tail -c 200 "$remarks" | tail -1)" >&2
  pack
}
step() { # step NAME SECONDS COMMAND...: all that it says to NAME.log
  local name=$1 limit=$2; shift 2
  limited "$name" "$limit" "$results/$name.log" "$results/$name.log" "$@"
}
score() { # score NAME SECONDS INPUT OPTIONS...: answers to NAME.jsonl, remarks to NAME.err
  local name=$1 limit=$2 input=$3; shift 3
  limited "$name" "$limit" "$results/$name.jsonl" "$results/$name.err" "$crag" score --model "$work/model" --offline "$@" "$input"
}

small= count=200000 compared=4096 on_cpu=256 eager=30000 compiled=60000 compile=--compile dtypes="bf16 f32 f16" budgets="8192 32768 65536" peer_budgets="16384 32768 8192"
if [ "$device" = cpu ]; then
  small=--small count=2000 compared=200 on_cpu=200 eager=500 compile= dtypes=f32 budgets="512 4096" peer_budgets="1024 4096"
fi
dtype=bf16; [ "$device" = cpu ] && dtype=f32

checkpoint() {
  [ -f "$work/model/crag.json" ] || step checkpoint 150 "$python" "$here/inputs.py" checkpoint "$work/model" "$pairs" $small
}
kernels() { # the tests of the kernels take the GPU, while the checkpoint is made on the CPU
  [ "$device" = cuda ] && [ -n "$tests" ] || return
  # what reaches beyond 2^31 elements runs alone, after the others: a fault of the library there would fail all that runs beside it
  CRAG_REQUIRE_GPU=1 step tests 150 "$tests" --nocapture --skip tensors_of_more cuda::gpu
  CRAG_REQUIRE_GPU=1 step alone-tensors_of_more 45 "$tests" --nocapture tensors_of_more
  # a kernel that faults spoils the GPU for all tests after it in the process: each that failed once more, alone
  for name in $(sed -n 's/^    \(cuda::gpu::[a-z0-9_]*\)$/\1/p' "$results/tests.log" | sort -u | head -20); do
    [ $SECONDS -lt 130 ] || break # accuracy tells more than further reruns
    CRAG_REQUIRE_GPU=1 step "alone-${name##*:}" 45 "$tests" --nocapture --test-threads 1 --exact "$name"
  done
}
accuracy() {
  for dtype_of in $dtypes; do
    score accuracy-$dtype_of 60 "$work/compared.jsonl" --device $device --dtype $dtype_of
    score edges-$dtype_of 30 "$work/edges.jsonl" --device $device --dtype $dtype_of
  done
  score accuracy-cpu 60 "$work/on_cpu.jsonl" --device cpu
  step accuracy 90 "$python" "$here/peer.py" accuracy "$work/model" "$work/compared.jsonl" "$results/accuracy.json" --device $device --count $compared
}
memory() { # a batch that does not fit beside what another process holds is cut, and each answer stays the same
  local hog=
  if [ "$device" = cuda ]; then
    "$python" -c 'import sys, time, torch
free = torch.cuda.mem_get_info()[0]
held = torch.empty(max(free - 2_500_000_000, 1), dtype=torch.uint8, device="cuda")
open(sys.argv[1], "w").close()
time.sleep(90)' "$work/held" > /dev/null 2> "$results/memory.err" & hog=$!
    for _ in $(seq 150); do [ -e "$work/held" ] && break; sleep 0.2; done
    rm -f "$work/held"
  fi
  score memory-$dtype 60 "$work/compared.jsonl" --device $device --dtype $dtype --batch-tokens 200000 -v
  [ -z "$hog" ] || kill $hog 2>/dev/null
  step memory-same 10 cmp "$results/memory-$dtype.jsonl" "$results/accuracy-$dtype.jsonl"
}
training() {
  step training-data 20 "$python" "$here/training.py" data "$work/pairs.jsonl" "$work"
  for place in cpu $device; do
    step train-$place 60 "$crag" train --recipe "$work/recipe.toml" --train "$work/related.jsonl" --device $place --out "$work/trained-$place" --force
  done
  step training 20 "$python" "$here/training.py" compare "$work/trained-cpu/log.jsonl" "$work/trained-$device/log.jsonl"
}
scoring() { # the tests of scoring take the GPU too
  if [ "$device" = cuda ] && [ -n "$tests" ]; then
    CRAG_TEST_BINARY="$crag" CRAG_TEST_ROOT="$(cd "$here/../.." && pwd)" step scoring 120 "$tests" score:: lines:: formats:: parity::
  fi
}
decisive() {
  if [ "$device" = cuda ]; then
    nvidia-smi --query-gpu=utilization.gpu,power.draw,clocks.sm --format=csv,noheader,nounits -lms 250 > "$results/usage.txt" 2>/dev/null & sampling=$!
  fi
  score speed-$dtype-default 60 "$work/pairs.jsonl" --device $device --dtype $dtype --no-reuse
  [ "$device" = cuda ] && kill $sampling 2>/dev/null
  [ "$(wc -l < "$results/speed-$dtype-default.jsonl")" = $count ] || echo "speed-$dtype-default: lines are missing" >&2
  if [ "$device" = cuda ]; then
    head -40000 "$work/pairs.jsonl" > "$work/profiled.jsonl"
    CRAG_CUDA_PROFILE=1 score profile 60 "$work/profiled.jsonl" --device cuda --dtype $dtype --no-reuse
    step ceilings 60 "$python" "$here/ceilings.py" "$results/ceilings.json"
  fi
  step tokens 40 "$python" "$here/inputs.py" tokens "$work/model" "$work/pairs.jsonl"
  probes early
  early && eager ${peer_budgets%% *}
  if [ -n "$compile" ]; then
    step peer-compiled 260 "$python" "$here/peer.py" speed "$work/model" "$work/pairs.jsonl" "$results/peer-compiled.json" --device $device --limit $compiled --budgets $peer_budgets $compile
  fi
}
early() { # whether what decides still has all of its time
  [ $((seconds - SECONDS)) -gt 290 ]
}
probes() { # probes TEST: whether another algorithm of cublasLt's, or cuBLAS proper, is faster than the one that was taken
  [ "$device" = cuda ] || return 0
  if [ -n "$ops" ]; then
    [ -e "$results/ops.log" ] || { "$1" && step ops 40 "$ops" 16384; }
    for place in 0 1 2 3 4 5 6 7 8; do
      [ -e "$results/products-$place.log" ] || { "$1" && CRAG_CUDA_LT=$place step products-$place 15 "$ops" 16384 products; }
    done
  fi
  if [ ! -e "$results/speed-$dtype-cublas.err" ] && "$1"; then
    CRAG_CUDA_LT=0 score speed-$dtype-cublas 60 "$work/pairs.jsonl" --device cuda --dtype $dtype --no-reuse
    rm -f "$results/speed-$dtype-cublas.jsonl"
  fi
}
eager() { # eager BUDGET...
  step peer-eager 100 "$python" "$here/peer.py" speed "$work/model" "$work/pairs.jsonl" "$results/peer-eager.json" --device $device --limit $eager --budgets "$@"
}
sweep() {
  probes true
  [ -e "$results/peer-eager.json" ] || eager $peer_budgets
  for budget in $budgets; do
    score speed-$dtype-$budget 60 "$work/pairs.jsonl" --device $device --dtype $dtype --no-reuse --batch-tokens $budget
    rm -f "$results/speed-$dtype-$budget.jsonl"
  done
}

nvidia-smi --query-gpu=name,memory.total,driver_version,power.limit,clocks.max.sm,persistence_mode --format=csv,noheader > "$results/gpu.txt" 2>/dev/null
# Without persistence the driver takes seconds to begin anew whenever nobody has the GPU open, as between any two of the steps.
idle=
if [ "$device" = cuda ]; then nvidia-smi --query-gpu=clocks.sm --format=csv,noheader -lms 10000 > /dev/null 2>&1 & idle=$!; fi
if [ "$device" = cuda ]; then
  # A build for another CUDA, or a driver that is too old, would fail in each step, and a machine's time would be gone.
  limited preflight 60 "$results/preflight.jsonl" "$results/preflight.err" "$crag" score --model demo --offline --device cuda \
    --text "Metformin caused nausea." --drug Metformin --adr nausea
  if ! grep -q '"probability"' "$results/preflight.jsonl"; then
    echo "crag cannot use the GPU:" >&2; cat "$results/preflight.err" >&2
    [ -z "$idle" ] || kill $idle 2>/dev/null
    trap - TERM; summary; exit 1
  fi
fi
step pairs 60 "$python" "$here/inputs.py" pairs "$pairs" "$work/pairs.jsonl" $count
step edge-inputs 20 "$python" "$here/inputs.py" edges "$work/edges.jsonl"
head -$compared "$work/pairs.jsonl" > "$work/compared.jsonl"
head -$on_cpu "$work/pairs.jsonl" > "$work/on_cpu.jsonl"
checkpoint & making=$!
[ $part = speed ] || kernels
wait $making
step inspect 60 "$crag" inspect --model "$work/model" --offline
case $part in
  check) accuracy; memory; training; scoring ;;
  speed) decisive; sweep ;;
  *) accuracy; decisive; memory; training; sweep; scoring ;;
esac
trap - TERM
[ -z "$idle" ] || kill $idle 2>/dev/null
summary

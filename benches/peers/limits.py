"""The machine's limit in matrix products, measured three ways; run in the same run as the peers.

    python benches/peers/limits.py OUT.json THREADS [LIMITS_BINARY]

For f32, bf16 and int8, in GFLOP/s, each the best of many repetitions over this model's shapes:

- `torch`: PyTorch's products, `torch.mm` and for int8 `torch._int_mm`;
- `crag`: this crate's linear layers on packed weights, from `cargo bench --bench limits`;
- `registers`: multiply-adds between registers alone, from the same binary: no product can be faster.

The limit is the larger of the first two: what a product of these shapes has been seen to reach.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

SHAPES = [(rows, *weights) for rows in (128, 512, 1024) for weights in ((768, 2304), (768, 768), (768, 3072), (3072, 768))]
SECONDS = 0.15
DTYPES = ("f32", "bf16", "int8")
NAMES = {"torch": "PyTorch's best product of this model's shapes", "crag": "this crate's best product of this model's shapes"}


def best(product, flops):
    product()
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        product()
        fastest = min(fastest, time.perf_counter() - started)
    return flops / fastest / 1e9


def by_torch(threads):
    import torch

    torch.set_num_threads(threads)
    found = dict.fromkeys(DTYPES, 0.0)
    for m, k, n in SHAPES:
        left, right = torch.randn(m, k), torch.randn(n, k)
        arrays = {"f32": (left, right), "bf16": (left.bfloat16(), right.bfloat16())}
        arrays["int8"] = tuple((32 * array).clamp(-127, 127).to(torch.int8) for array in (left, right))
        for dtype, (a, b) in arrays.items():
            multiply = torch._int_mm if dtype == "int8" else torch.mm
            found[dtype] = max(found[dtype], best(lambda: multiply(a, b.t()), 2 * m * k * n))
    return found


def built(repository):
    """The binary of `benches/limits.rs`, built if need be; none where cargo cannot."""
    command = ["cargo", "bench", "--bench", "limits", "--no-run", "--message-format=json"]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"limits: the bench was not built: {error}", file=sys.stderr)
        return None
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = [one["executable"] for one in messages if one.get("target", {}).get("name") == "limits" and one.get("executable")]
    return found[-1] if found else None


def by_crate(binary, threads):
    done = subprocess.run([binary, "--threads", str(threads)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["precisions"]


def merge(before, now):
    """The larger of two measurements, number by number."""
    for dtype, rates in now.items():
        kept = before.setdefault(dtype, {})
        for name, rate in rates.items():
            if rate is not None:
                kept[name] = max(kept.get(name, 0.0), rate)
    return before


def limit(rates):
    """The limit in one precision, and where it is from."""
    name = max(NAMES, key=lambda name: rates.get(name, 0.0))
    return {"gflops": rates.get(name, float("nan")), "from": NAMES[name], "measured": rates}


def main():
    out, threads, *binary = sys.argv[1:]
    found = {dtype: {"torch": rate} for dtype, rate in by_torch(int(threads)).items()}
    if binary:
        for dtype, rates in by_crate(binary[0], threads).items():
            found[dtype] |= {"crag": rates["products"], "registers": rates["registers"]}
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()

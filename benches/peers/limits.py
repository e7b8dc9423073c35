"""The machine's limit in matrix products: PyTorch's best rate over this model's shapes.

    python benches/peers/limits.py OUT.json THREADS

GFLOP/s in f32, bf16 and int8 (`torch._int_mm`), the best of all shapes and repetitions: no shape
reaches it always, so it is nearer to the hardware's limit than to PyTorch's speed in a model.
"""

import json
import sys
import time
from pathlib import Path

import torch

SHAPES = [(rows, *weights) for rows in (128, 512, 1024) for weights in ((768, 2304), (768, 768), (768, 3072), (3072, 768))]
SECONDS = 0.15


def best(product, flops):
    product()
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        product()
        fastest = min(fastest, time.perf_counter() - started)
    return flops / fastest / 1e9


def main():
    out, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    found = dict.fromkeys(("f32", "bf16", "int8"), 0.0)
    for m, k, n in SHAPES:
        left, right = torch.randn(m, k), torch.randn(n, k)
        arrays = {"f32": (left, right), "bf16": (left.bfloat16(), right.bfloat16())}
        arrays["int8"] = tuple((32 * array).clamp(-127, 127).to(torch.int8) for array in (left, right))
        for dtype, (a, b) in arrays.items():
            multiply = torch._int_mm if dtype == "int8" else torch.mm
            found[dtype] = max(found[dtype], best(lambda: multiply(a, b.t()), 2 * m * k * n))
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()

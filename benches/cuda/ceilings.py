"""What the card can do: rates of large bf16 products by PyTorch, and of a device-to-device copy; and whether a small copy from
ordinary memory waits for the work that is queued before it.

    ceilings.py OUT.json [--tokens N]

Inputs are random (zeros run faster), times are medians between CUDA events with several calls between them: one alone would be
timed together with its way to the GPU.
"""

import argparse
import json
import time
from pathlib import Path

import torch


def seconds(f, repeats=9, calls=20):
    for _ in range(5):
        f()
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            f()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / calls)
    return sorted(times)[len(times) // 2]


def small_copy(kib, copies=160):
    """Microseconds of the host for each of some copies from ordinary memory behind half a second of products."""
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    pieces = [torch.randn(kib * 256) for _ in range(copies)]
    target = torch.empty(kib * 256, device="cuda")
    torch.cuda.synchronize()
    for _ in range(300):
        x @ x
    begin = time.perf_counter()
    for piece in pieces:
        target.copy_(piece, non_blocking=True)
    found = (time.perf_counter() - begin) / copies * 1e6
    torch.cuda.synchronize()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--tokens", type=int, default=16384)
    args = parser.parse_args()
    result = {"device": torch.cuda.get_device_name(), "products": {}}
    m = args.tokens
    for name, (m, n, k) in {
        "8192 x 8192 x 8192": (8192, 8192, 8192),
        f"{m} x 2304 x 768": (m, 2304, 768),
        f"{m} x 768 x 768": (m, 768, 768),
        f"{m} x 3072 x 768": (m, 3072, 768),
        f"{m} x 768 x 3072": (m, 768, 3072),
    }.items():
        x, w = (torch.randn(rows, k, device="cuda", dtype=torch.bfloat16) for rows in (m, n))
        result["products"][name] = 2 * m * n * k / seconds(lambda: x @ w.T) / 1e12
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    result["copy_tb_s"] = 2 * source.nbytes / seconds(lambda: target.copy_(source)) / 1e12
    result["small_copy_us"] = {kib: small_copy(kib) for kib in (32, 64, 128)}
    Path(args.out).write_text(json.dumps(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Compares crag's probabilities with those of random networks in f64, beside the error that PyTorch's f32 makes of the same, and
with its own over all that should not change a bit: threads, batches, order, cache, formats, conversion.
"""

import argparse
import csv
import io
import random
import tempfile
from pathlib import Path

import networks
import torch
from binary import Crag
from forward import Network

# Differences that tell nothing: what the printed f32 of a probability can show.
SMALLEST_PROBABILITY, SMALLEST_LOGIT = 2e-6, 1e-5
# How many times PyTorch's error is too much.
MOST_TIMES = 5


def printed(answers):
    """Probabilities as text, by id."""
    return {answer["id"]: answer.get("probability", f"error: {answer.get('error')}") for answer in answers}


def numbers(found):
    return torch.tensor([float(found[number]) for number in sorted(found)], dtype=torch.float64)


class Errors:
    """How far probabilities are from f64's, and logits where a probability in f32 still tells them."""

    def __init__(self, exact):
        self.exact, self.probabilities = exact, torch.sigmoid(exact)
        self.telling = (self.probabilities < 0.9) & (self.probabilities > 1e-37)

    def of(self, probabilities):
        logits = torch.log(probabilities) - torch.log1p(-probabilities)
        distances = (logits - self.exact).abs()[self.telling]
        if len(distances) == 0:
            distances = torch.zeros(1, dtype=torch.float64)
        return (probabilities - self.probabilities).abs().max().item(), distances


def compare(crag, folder, spec, weights, pairs, exact, args):
    """One line for each kernel. Returns whether f32 is near enough in all, and PyTorch's error times what, of each."""
    errors, fields = Errors(exact), [pair.fields for pair in pairs]
    reference = torch.sigmoid(Network(spec, weights, torch.float32).logits(pairs).double()).float().double()
    expected, expected_logits = errors.of(reference)
    is_near, times = True, []
    for kernel in args.kernels:
        line = [f"{spec.seed:3} {spec.regime}, {spec.heads} heads of {spec.head_width}, {kernel or 'best'}: PyTorch {expected:.1e}"]
        for dtype in args.dtypes:
            answers = crag.score(folder, fields, "--dtype", dtype, "--device", args.device, kernel=kernel)
            found = printed(answers)
            wrong = [text for text in found.values() if text.startswith("error")]
            if wrong:
                print(f"{spec.seed} {dtype}: {wrong[0]}")
                is_near = False
                continue
            error, logits = errors.of(numbers(found))
            line.append(f"{dtype} {error:.1e}")
            if dtype == "f32":
                ratio = (logits.square().mean() / expected_logits.square().mean().clamp(min=1e-30)).sqrt().item()
                far = error > max(MOST_TIMES * expected, SMALLEST_PROBABILITY)
                far |= ratio > MOST_TIMES and logits.max().item() > SMALLEST_LOGIT
                line.append(f"(logits {ratio:.2f} times PyTorch's{', TOO FAR' if far else ''})")
                is_near &= not far
                times.append(ratio)
        print(" ".join(line), flush=True)
    return is_near, times


def unchanged(crag, folder, pairs, dtype, kernel, seed):
    """How many runs that should have changed nothing did, and how many there were."""
    fields = [pair.fields for pair in pairs]
    shuffled = random.Random(seed).sample(fields, len(fields))
    score = lambda pairs, *flags, model=folder: printed(crag.score(model, pairs, "--dtype", dtype, *flags, kernel=kernel))  # noqa: E731
    base = score(fields)
    cache = folder / f"cache-{dtype}"
    runs = {
        "one thread": lambda: score(fields, "--threads", 1),
        "three threads, batches of one, each text anew": lambda: score(fields, "--threads", 3, "--batch-tokens", 1, "--no-reuse"),
        "two threads, small batches": lambda: score(fields, "--threads", 2, "--batch-tokens", 50),
        "one batch": lambda: score(fields, "--batch-tokens", 100_000),
        "another order": lambda: score(shuffled, "--threads", 3),
        "another order, each text anew": lambda: score(shuffled, "--no-reuse", "--batch-tokens", 777),
        "into a cache": lambda: score(shuffled, "--cache", cache),
        "out of a cache": lambda: score(fields, "--cache", cache),
        "as CSV": lambda: score_table(crag, folder, fields, dtype, kernel),
        "converted": lambda: score(fields, model=convert(crag, folder, dtype, kernel)),
    }
    changed = 0
    for name, run in runs.items():
        found = run()
        if found != base:
            changed += 1
            which = [number for number in base if found.get(number) != base[number]]
            example = f"{base[which[0]]} became {found.get(which[0])}" if which else f"{len(found)} answers for {len(base)}"
            print(f"CHANGED: {seed} {dtype} {kernel or 'best'}, {name}: {len(which)} of {len(base)}, {example}", flush=True)
    return changed, len(runs)


def convert(crag, folder, dtype, kernel):
    to = folder / f"converted-{dtype}"
    done = crag.run("convert", "-q", "--model", folder, "--dtype", dtype, "--force", to, kernel=kernel)
    if done.returncode:
        raise SystemExit(f"convert: {done.stderr.decode()}")
    return to


def score_table(crag, folder, fields, dtype, kernel):
    table = io.StringIO()
    writer = csv.DictWriter(table, ["id", "drug_text", "adr_text", "drug", "adr"])
    writer.writeheader()
    for pair in fields:
        row = {name: pair.get(name, pair.get("text")) for name in ["drug_text", "adr_text"]}
        writer.writerow({**{name: pair[name] for name in ["id", "drug", "adr"]}, **row})
    flags = ["score", "--model", folder, "--dtype", dtype, "-q", "--format", "csv"]
    done = crag.run(*flags, stdin=table.getvalue().encode(), kernel=kernel)
    rows = csv.DictReader(io.StringIO(done.stdout.decode()))
    return {int(row["id"]): row["probability"] for row in rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crag", help="the binary")
    parser.add_argument("--count", type=int, default=20, help="networks")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--kernels", nargs="*", default=[None], help="values of CRAG_KERNEL")
    parser.add_argument("--dtypes", nargs="*", default=["f32", "bf16", "int8"])
    parser.add_argument("--skip-unchanged", action="store_true", help="compare with f64 alone")
    args = parser.parse_args()
    crag, far, changed, runs, times, pairs_seen = Crag(args.crag), 0, 0, 0, [], 0
    for seed in range(args.first, args.first + args.count):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            spec = networks.draw_spec(seed)
            weights, pairs = networks.draw_weights(spec), networks.draw_pairs(spec)
            exact = networks.calibrate(spec, weights, pairs)
            networks.write(folder, spec, weights)
            is_near, ratios = compare(crag, folder, spec, weights, pairs, exact, args)
            far += not is_near
            times += ratios
            pairs_seen += len(pairs)
            if not args.skip_unchanged:
                for kernel in args.kernels:
                    for dtype in args.dtypes:
                        own, number = unchanged(crag, folder, pairs, dtype, kernel, seed)
                        changed, runs = changed + own, runs + number
    mean = torch.tensor(times).clamp(min=1e-3).log().mean().exp().item()
    print(f"{args.count} networks, {pairs_seen} pairs: {far} too far from f64, logits' errors {mean:.2f} times PyTorch's (geometric mean); {changed} of {runs} runs changed something")
    raise SystemExit(far + changed > 0)


if __name__ == "__main__":
    main()

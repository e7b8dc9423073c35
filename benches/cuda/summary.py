"""One table of everything that run.sh has left in a folder: `summary.py FOLDER`.

A step that did not finish, or that this run did not ask for, is a line that says so; nothing is guessed.
"""

import json
import math
import re
import sys
from pathlib import Path

FOLDER = Path(sys.argv[1])
FLOPS_A_TOKEN = 2 * 12 * (4 * 768 * 768 + 2 * 768 * 3072)
# tokens a pair of ADE sentences with BioLinkBERT's vocabulary; the checkpoint's own, trained on these texts, makes fewer
PUBLISHED = 82


def read(name):
    path = FOLDER / name
    return path.read_text(errors="replace") if path.exists() else ""


def load(name):
    try:
        return json.loads(read(name))
    except ValueError:
        # absent, or of a step that was killed
        return None


def without(step):
    """Why a step has left nothing: run.sh writes down each that it began or had no time for."""
    return "did not finish" if re.search(rf"^{re.escape(step)}\t", read("steps.txt"), re.M) else "not run"


def row(what, value, note=""):
    print(f"| {what:<58} | {value:>22} | {note}")


def logit(p):
    return math.log(p) - math.log1p(-p) if 0 < p < 1 else math.copysign(math.inf, p - 0.5)


def records(name):
    """A file's lines; one that a killed step has left half written is left out."""
    found = []
    for line in read(name).splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return found


def scores(name):
    """Probabilities by id; None where a line is an error record."""
    return {r["id"]: r.get("probability") for r in records(name)}


def tests():
    for title, step in [("tests of the kernels", "tests"), ("tests of scoring, on the GPU", "scoring")]:
        text = read(f"{step}.log")
        found = re.findall(r"test result: (\w+)\. (\d+) passed; (\d+) failed", text)
        row(title, " / ".join(f"{p} passed, {f} failed" for _, p, f in found) or without(step), "skipped: %d" % text.count("skipped:") if text else "")
        for name, words in re.findall(r"thread '(\S+)'[^\n]* panicked at [^\n]*\n([^\n]*)", text):
            row("  failed: " + name.removeprefix("cuda::gpu::")[:48], "", words[:200])
    for path in sorted(FOLDER.glob("alone-*.log")):
        text = path.read_text(errors="replace")
        passed = "skipped" if "skipped:" in text else "passed" if "test result: ok. 1 passed" in text else None
        words = re.search(r" panicked at [^\n]*\n([^\n]*)", text)
        row("  alone: " + path.stem[6:54], passed or ("failed" if "test result:" in text else "no result"), words[1][:200] if words else "")


def accuracy():
    peer, cpu = load("accuracy.json"), scores("accuracy-cpu.jsonl")
    if not peer:
        return row("accuracy", without("accuracy"))
    reference = dict(zip(peer["ids"], peer["f32"]))
    for dtype in "f32", "bf16", "f16":
        torch_error = [abs(a - b) for a, b in zip(peer[dtype], peer["f32"]) if math.isfinite(a)] or [math.inf]
        ours = scores(f"accuracy-{dtype}.jsonl")
        if len(ours) != len(reference) or any(p is None for p in ours.values()):
            row(f"accuracy {dtype}", without(f"accuracy-{dtype}"), f"{len(ours)} of {len(reference)} answers")
            continue
        nan = sum(not math.isfinite(p) for p in ours.values()) + sum(not math.isfinite(x) for x in peer[dtype])
        errors = [abs(logit(p) - reference[i]) for i, p in ours.items()]
        torch_mean, mean = sum(torch_error) / len(torch_error), sum(errors) / len(errors)
        verdict = "" if dtype == "f32" else "ok" if mean <= torch_mean else "WORSE"
        row(f"logit error {dtype}: mean, largest", f"{mean:.2e}, {max(errors):.2e}", f"PyTorch {torch_mean:.2e}, {max(torch_error):.2e} {verdict} not finite: {nan}")
        if dtype == "f32" and cpu:
            worst = max(abs(ours[i] - p) for i, p in cpu.items())
            row(f"probability f32, GPU - CPU, {len(cpu)} pairs: largest", f"{worst:.2e}", "ok" if worst <= 1e-5 else "OVER 1e-5")
    spread = sorted(peer["f32"])
    row("logits of the reference: least, median, greatest", f"{spread[0]:.2f}, {spread[len(spread) // 2]:.2f}, {spread[-1]:.2f}")


def edges():
    for dtype in "f32", "bf16", "f16":
        what, lines = f"edge inputs {dtype}: lines, finite, error records", records(f"edges-{dtype}.jsonl")
        if not lines:
            row(what, without(f"edges-{dtype}"))
            continue
        finite = sum(isinstance(r.get("probability"), float) and math.isfinite(r["probability"]) for r in lines)
        errors = sum("error" in r for r in lines)
        row(what, f"{len(lines)}, {finite}, {errors}", "ok" if finite + errors == len(lines) else "CHECK")


def memory():
    what = "beside a process that leaves 2.5 GB, the same answers"
    steps = read("steps.txt")
    same = re.search(r"^memory-same\t\d+\t(.*)$", steps, re.M)
    if not same or not same[1].isdigit():
        return row(what, without("memory-same"))
    said = "".join(path.read_text(errors="replace") for path in FOLDER.glob("memory-*.err"))
    cut = re.search(r"batches of ([\d,]+) tokens", said)
    said_so = {"0": "yes", "1": "NO"}.get(same[1], f"not compared: exit {same[1]}")
    row(what, said_so, f"cut down to {cut[1]} tokens" if cut else "nothing was cut")


def throughput():
    runs = {}
    for path in sorted(FOLDER.glob("speed-*.err")):
        match = re.search(r"scored (\d+) of (\d+) lines in ([\d.]+) s \(([\d.]+) pairs/s\)", path.read_text(errors="replace"))
        if match:
            runs[path.stem[6:]] = float(match[4])
            row(f"crag {path.stem[6:]}, JSONL to JSONL", f"{float(match[4]):,.0f} pairs/s", f"{match[1]} pairs in {match[3]} s after loading")
        else:
            row(f"crag {path.stem[6:]}", "did not finish", path.read_text(errors="replace").strip()[-150:])
    default = next((speed for name, speed in runs.items() if name.endswith("-default")), None)
    for name in "compiled", "eager":
        r = load(f"peer-{name}.json")
        if not r:
            row(f"PyTorch {name}", without(f"peer-{name}"))
            continue
        end_to_end = r.get("jsonl_pairs_s")
        network = ", ".join(f"{speed:,.0f} at {budget} tokens" for budget, speed in r["budgets"].items())
        note = f"network alone {network}; {r['pairs']} pairs, tokenize {r['tokenize_s']:.1f} s, warm-up {r['warm_up_s']:.0f} s, NaN {r['nan']}"
        row(f"PyTorch {name}, JSONL to JSONL, the best of budgets {', '.join(r['budgets'])}", f"{end_to_end:,.0f} pairs/s" if end_to_end else "did not finish", note)
        if default:
            # the network alone is faster than the whole, so this ratio is on the safe side
            whole = f"{default / end_to_end:.2f} x" if end_to_end else "did not finish"
            row(f"crag (default) over PyTorch {name}, JSONL to JSONL", whole, f"over PyTorch's network alone {default / r['network_pairs_s']:.2f} x")
    return default


def ceilings(default):
    result = load("ceilings.json")
    if result:
        for name, tflops in result["products"].items():
            row(f"PyTorch bf16 product {name}", f"{tflops:.0f} TFLOP/s", result["device"])
        for kib, us in result.get("small_copy_us", {}).items():
            row(f"host's time for a copy of {kib} KiB behind queued work", f"{us:.0f} us", "waits for the GPU" if us > 1000 else "")
        row("device copy", f"{result['copy_tb_s']:.2f} TB/s")
    tokens = re.search(r"([\d.]+) tokens a pair", read("tokens.log"))
    if not result:
        return
    ceiling = result["products"]["8192 x 8192 x 8192"]
    if default and tokens:
        a_pair = float(tokens[1])
        row(f"crag (default), {a_pair:.1f} tokens a pair", f"{default * a_pair:,.0f} tokens/s", f"{default * a_pair / PUBLISHED:,.0f} pairs/s at the {PUBLISHED} tokens that the published vocabulary makes")
        rate = default * a_pair * FLOPS_A_TOKEN / 1e12
        row("encoder products over the whole wall time, JSONL to JSONL", f"{rate:.0f} TFLOP/s", f"{100 * rate / ceiling:.0f}% of the 8192^3 rate")
    products = re.search(r"products bf16 .* ([\d.]+) TFLOP/s", read("profile.err"))
    if products:
        rate = float(products[1])
        row("encoder products while they compute (profile)", f"{rate:.0f} TFLOP/s", f"{100 * rate / ceiling:.0f}% of the 8192^3 rate")


def usage():
    usage = [int(x) for x in re.findall(r"^(\d+)", read("usage.txt"), re.M)]
    busy = [x for x in usage if x > 0]
    if busy:
        row("GPU in use while crag ran (nvidia-smi), median", f"{sorted(busy)[len(busy) // 2]} %", f"{len(busy)} samples")


def steps():
    for line in read("steps.txt").splitlines():
        name, seconds, code = line.split("\t")
        if code != "0":
            what = f"exit {code}" if code.isdigit() else code
            row(f"step {name}", what, f"{seconds} s: see {name}.log or {name}.err")


def main():
    print(f"| {'what':<58} | {'value':>22} | note")
    print(f"|{'-' * 60}|{'-' * 24}|{'-' * 40}")
    gpu = read("gpu.txt").strip().splitlines()
    row("GPU", "", gpu[0] if gpu else "none")
    row("training on the GPU as on the CPU", read("training.log").strip() or without("training"))
    for section in tests, accuracy, edges, memory, lambda: ceilings(throughput()), usage, steps:
        try:
            section()
        except Exception as error:
            # what one step has left may be anything; the other sections are worth having all the same
            row("a section of this table failed", "", repr(error)[:200])
    by_algorithm = sorted(path.name for path in FOLDER.glob("products-*.log"))
    for name in "ops.log", "profile.err", *by_algorithm:
        text = read(name).strip()
        if text:
            print(f"\n{name}:\n{text}")


if __name__ == "__main__":
    main()

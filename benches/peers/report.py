"""Errors against PyTorch f32, and the tables: every peer, and the goals with what was measured."""

import math
import platform
import subprocess
from importlib.metadata import version

# Precision to comparator, least ratio, least share of the limit.
GOALS = {
    "f32": ("ctranslate2-f32", 1.2, 0.85),
    "bf16": ("openvino-bf16", 1.5, 0.80),
    "int8": ("ctranslate2-int8", 1.4, 0.75),
}
F32_ERROR = 2e-6
PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "ctranslate2")


def machine():
    name = platform.processor() or platform.machine()
    flags = ""
    try:
        lines = dict(line.split(":", 1) for line in open("/proc/cpuinfo") if ":" in line)
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        name = lines.get("model name", name)
        have = lines.get("flags", "").split()
        flags = ", " + " ".join(flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if flag in have)
        cores = sum(line.startswith("processor") for line in open("/proc/cpuinfo"))
        name += f", family {lines['cpu family']} model {lines['model']}, {cores} logical CPUs"
    except (OSError, KeyError):
        pass
    return name + flags


def commit(folder):
    def git(*arguments):
        return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain", "-uno") else "")


def versions():
    return {package: version(package) for package in PACKAGES} | {"python": platform.python_version()}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def judge(workload, results):
    """Adds the best rate and the errors to every result that has passes; returns the logits' spread.

    The reference is `expected.jsonl` (each pair alone, padded, as on the card) if it covers all
    pairs, else this run's torch-f32.
    """
    reference = [workload.expected.get(pair["id"]) for pair in workload.pairs]
    if None in reference:
        reference = results.get("torch-f32", {}).get("logits")
    for result in results.values():
        if not result["passes"]:
            continue
        result["best"] = max(one["pairs_per_second"] for one in result["passes"])
        if reference:
            pairs = list(zip(result["logits"], reference))
            result["logit_error"] = sum(abs(a - b) for a, b in pairs) / len(pairs)
            found = result.get("probabilities") or [sigmoid(logit) for logit in result["logits"]]
            result["probability_error"] = max(abs(p - sigmoid(b)) for p, (_, b) in zip(found, pairs))
    return deviation(reference) if reference else None


def deviation(values):
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5


def scientific(value):
    return "" if value is None else f"{value:.1e}".replace("e-0", "e-")


def share(facts, rate, dtype):
    return rate * facts["gflop_a_pair"] / facts["limits"][dtype]["gflops"]


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def everyone(facts, results, order):
    passes = max((len(result["passes"]) for result in results.values()), default=0)
    yield row("who", *(f"pass {n + 1}" for n in range(passes)), "best, pairs/s", "mean abs. error of the logit",
              "max. error of the probability", "share of the limit", "encoders alone", "batch x streams",
              "CPUs used")
    yield "|---" * (passes + 8) + "|"
    for dtype, names in order.items():
        for name in (name for name in names if name in results):
            result = results[name]
            if not result["passes"]:
                yield row(name, *[""] * passes, f"skipped: {result['skipped']}", *[""] * 6)
                continue
            rates = [f"{one['pairs_per_second']:.2f}" for one in result["passes"]]
            fastest = max(result["passes"], key=lambda one: one["pairs_per_second"])
            alone = fastest.get("encoder_seconds")
            setup = result.get("setup")
            yield row(
                name,
                *rates, *[""] * (passes - len(rates)),
                f"**{result['best']:.2f}**",
                scientific(result.get("logit_error")),
                scientific(result.get("probability_error")),
                f"{share(facts, result['best'], dtype):.2f}",
                f"{len(result['logits']) / alone:.2f}" if alone else "",
                f"{setup['batch']} x {setup['streams']}" if setup else "",
                f"{fastest['cpu_seconds'] / fastest['seconds']:.2f}" if "cpu_seconds" in fastest else "",
            )


def verdict(met):
    return "met" if met else "**not met**"


def accuracy(dtype, results):
    """What was measured beside what is allowed."""
    crag = results[f"crag-{dtype}"]
    if "logit_error" not in crag:
        return "no reference"
    if dtype == "f32":
        found, allowed, what = crag["probability_error"], F32_ERROR, "probability, max."
    else:
        peers = ("torch-bf16", "torch-bf16-autocast") if dtype == "bf16" else ("ctranslate2-int8",)
        errors = [results[peer]["logit_error"] for peer in peers if "logit_error" in results.get(peer, {})]
        if not errors:
            return f"logit, mean: {scientific(crag['logit_error'])} (nothing to compare with)"
        allowed = min(errors) * (1 if dtype == "bf16" else 2 / 3)
        found, what = crag["logit_error"], "logit, mean"
    return f"{what} {scientific(found)} (<= {scientific(allowed)}: {verdict(found <= allowed)})"


def goals(facts, results, order):
    yield row("`--dtype`", "pairs/s", "against", "ratio, its batches of 32", "ratio, its tuned setup", "best of all peers",
              "share of the product limit", "accuracy")
    yield "|---" * 8 + "|"
    for dtype, (peer, ratio, least) in GOALS.items():
        crag = results.get(f"crag-{dtype}", {"passes": [], "skipped": "not asked for"})
        if not crag["passes"]:
            yield row(dtype, f"skipped: {crag['skipped']}", peer, *[""] * 5)
            continue

        def against(name):
            if "best" not in results.get(name, {}):
                return "not run"
            found = crag["best"] / results[name]["best"]
            return f"{found:.2f} (>= {ratio}: {verdict(found >= ratio)})"

        others = {name: results[name]["best"] for name in order[dtype] if "best" in results.get(name, {})}
        others.pop(f"crag-{dtype}")
        top = max(others, key=others.get, default=None)
        reached = share(facts, crag["best"], dtype)
        limit = facts["limits"][dtype]["gflops"]
        yield row(
            dtype, f"{crag['best']:.2f}", peer, against(peer + "-plain"), against(peer),
            f"{crag['best'] / others[top]:.2f} x {top}" if top else "",
            f"{reached:.2f} of {limit:.0f} GFLOP/s (>= {least}: {verdict(reached >= least)})",
            accuracy(dtype, results),
        )


def limit_in_words(item):
    dtype, limit = item
    names = {"torch": "PyTorch", "crag": "`crag`'s kernels", "registers": "registers alone"}
    rates = ", ".join(f"{names[name]} {rate:.0f}" for name, rate in limit["measured"].items())
    return f"{dtype} {limit['gflops']:.0f} GFLOP/s ({limit['from']}; {rates})"


def markdown(facts, results, order):
    loads = [one["load_before"] for result in results.values() for one in result["passes"]]
    lines = [
        f"{facts['pairs']} pairs in random order, {facts['tokens_a_side']:.1f} tokens a side, "
        f"{facts['gflop_a_pair']:.1f} GFLOP a pair, {facts['threads']} threads, no reuse between pairs, model loaded.",
        "Best of all passes; `crag` tokenizes within its time, the peers do not (the card's script does).",
        f"The errors are against PyTorch f32, whose logits have a standard deviation of {facts['logit_spread']:.2f}."
        if facts["logit_spread"]
        else "There is nothing to take errors against.",
        "",
        f"- machine: {facts['machine']}; load before each run {min(loads, default=0):.1f} to {max(loads, default=0):.1f}",
        f"- {facts['crag']}, commit {facts['commit']}; {', '.join(f'{k} {v}' for k, v in facts['versions'].items())}",
        "- limits measured before and after the passes: " + "; ".join(map(limit_in_words, facts["limits"].items())),
        f"- `{facts['command']}` ({facts['seconds'] / 60:.0f} minutes)",
        "",
        *everyone(facts, results, order),
        "",
        *goals(facts, results, order),
        "",
    ]
    return "\n".join(lines)

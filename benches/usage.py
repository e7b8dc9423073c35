"""What `crag` gains by reuse, cache, threads and converted folders, and where it stops scaling, in one run.

    python benches/usage.py MODEL_DIR CRAG_BINARY [--bc5cdr FILE ...] [--pairs 600] [--seed 1] [--work DIR] [--out FILE]

Pairs are Chemical x Disease pairs of one sentence from a seeded run of consecutive BC5CDR documents. Each
measurement is a process of its own, all precisions and variants in turn, `--passes` times round; the best
of each counts. Every output is compared with the one without reuse: they have to be the same bytes.

The cost model is at the end: what each serial stage costs a line by its thread's CPU time, beside what is
spread over threads, and so how many cores there is work for. Standard library alone; Linux.
"""

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))

import bc5cdr_pairs  # noqa: E402

DTYPES = ("f32", "bf16", "int8")
SUMMARY = re.compile(r"scored (\d+) of (\d+) lines? in ([\d.]+) s \(([\d.]+) pairs/s\)")
ENCODINGS = re.compile(r"encodings: (\d+)")
# Threads by the start of their name: what is spread over threads, and each stage that is one thread.
COMPUTING = ("crag-compute", "crag-load")
STAGES = {"crag-reader": "reader", "crag-stage": "preparer and workers", "crag": "collector", "crag-cache": "cache's writer"}
CACHED = ("cache, first run", "cache, second run")
# These wait for something that hardly ever comes.
IDLE = {"crag-signals", "crag-progress"}
# The warm run that the cost model is from has at least so many lines, so that loading the model is little of it.
MODEL_LINES = 6000


def say(*what):
    print(*what, file=sys.stderr, flush=True)


def sample(files, count, seed):
    """Pairs of consecutive documents from a random one on, around the end to the beginning."""
    documents = []
    for path in files:
        with open(path, encoding="utf-8", newline="\n") as lines:
            for number, texts, mentions in bc5cdr_pairs.documents(lines):
                found = list(bc5cdr_pairs.pairs(number, " ".join(texts), len(texts[0]), mentions))
                documents.append(found)
    start = random.Random(seed).randrange(len(documents))
    pairs = [pair for document in documents[start:] + documents[:start] for pair in document]
    if len(pairs) < count:
        sys.exit(f"expected {count} pairs, found {len(pairs)} in {len(documents)} documents")
    return pairs[:count]


class Runner:
    def __init__(self, arguments):
        self.binary = arguments.crag
        self.work = arguments.work
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("CRAG_")}
        self.environment["HF_HUB_OFFLINE"] = "1"

    def score(self, model, dtype, lines, *more, threads=2, cpus=None, watch=False):
        """Runs once; returns the output and what was measured."""
        out = self.work / "scored.jsonl"
        command = [self.binary, "score", "--device", "cpu", "--model", model, "--dtype", dtype]
        command += ["--threads", threads, *more, lines]
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        with open(out, "wb") as stdout:
            started = time.perf_counter()
            process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
                env=self.environment, preexec_fn=pin, text=True,
            )
            threads_cpu = watch_threads(process.pid) if watch else {}
            said = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(map(str, command))}: exit status {process.returncode}: {said.strip()[-500:]}")
        summary = SUMMARY.search(said)
        if not summary or summary[1] != summary[2]:
            sys.exit(f"{' '.join(map(str, command))}: {said.strip()[-500:]}")
        encodings = ENCODINGS.search(said)
        return out.read_bytes(), {
            "rate": float(summary[4]),
            "lines": int(summary[1]),
            "encodings": int(encodings[1]) if encodings else None,
            "wall": time.perf_counter() - started,
            "rss": usage.ru_maxrss * 1024,
            "cpu": usage.ru_utime + usage.ru_stime,
            "threads": threads_cpu,
        }


def watch_threads(pid):
    """CPU seconds of each thread, by id with its name, until the process ends."""
    found, folder = {}, Path(f"/proc/{pid}/task")
    while True:
        try:
            ids = os.listdir(folder)
            # A process that has ended and not been waited for has one task without a name of its own.
            if "zombie" in Path(f"/proc/{pid}/status").read_text():
                return found
            for thread in ids:
                name = (folder / thread / "comm").read_text().strip()
                found[thread] = (name, int((folder / thread / "schedstat").read_text().split()[0]) / 1e9)
        except (FileNotFoundError, ProcessLookupError):
            # A thread that ended between listing and reading; or all of them.
            if not folder.exists():
                return found
        time.sleep(0.005)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def converted(runner, model, dtype, key):
    """The folder that `crag convert --dtype` writes, made once for a model and binary."""
    folder = runner.work / key / dtype
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [runner.binary, "convert", "--model", model, "--dtype", dtype, folder]
        subprocess.run(list(map(str, command)), check=True, env=runner.environment)
    # Into the page cache, in pieces: a child's peak memory counts what this process held when it forked.
    for path in folder.iterdir():
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    return folder


def weight_bytes(folder):
    """Bytes of what a run in the folder's own precision needs: the packed weights, and tables that are not packed."""
    with open(folder / "model.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    sizes = {name: tensor["data_offsets"][1] - tensor["data_offsets"][0] for name, tensor in header.items() if name != "__metadata__"}
    return sum(size for name, size in sizes.items() if name.startswith("crag.packed.") or "embeddings" in name)


def measure(runner, folder, dtype, lines, one, results, number):
    """One pass of all measurements in one precision."""
    found = results.setdefault(dtype, {})

    def keep(name, output, run, better=max, what="rate"):
        runs = found.setdefault(name, [])
        runs.append(run)
        say(f"pass {number}, {dtype}, {name}: {run[what]:.2f} {'pairs/s' if what == 'rate' else 's'}")
        return output

    expected = keep("no reuse", *runner.score(folder, dtype, lines, "--no-reuse"))
    cache = runner.work / f"{dtype}.cache"
    cache.unlink(missing_ok=True)
    outputs = {
        "reuse": keep("reuse", *runner.score(folder, dtype, lines)),
        "cache, first run": keep("cache, first run", *runner.score(folder, dtype, lines, "--cache", cache)),
        "cache, second run": keep("cache, second run", *runner.score(folder, dtype, lines, "--cache", cache)),
        "1 thread": keep("1 thread", *runner.score(folder, dtype, lines, "--no-reuse", threads=1)),
    }
    for name, output in outputs.items():
        if output != expected:
            sys.exit(f"{dtype}, {name}: the output differs from that without reuse")
    for _ in range(3):
        keep("cold start", *runner.score(folder, dtype, one), what="wall")
    many = runner.work / "many.jsonl"
    repeats = max(1, -(-MODEL_LINES // len(expected.splitlines())))
    many.write_bytes(Path(lines).read_bytes() * repeats)
    for cpus in (1, 2):
        name = f"warm, {cpus} CPU" + "s" * (cpus > 1)
        available = sorted(os.sched_getaffinity(0))[:cpus]
        output = runner.score(folder, dtype, many, "--cache", cache, threads=cpus, cpus=set(available), watch=True)
        if keep(name, *output) != expected * repeats:
            sys.exit(f"{dtype}, {name}: the output differs from that without cache")


def best(runs, what="rate", better=max):
    return better(runs, key=lambda run: run[what])


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def table(results, weights):
    yield row("", *results)
    yield "|---" * (len(results) + 1) + "|"

    def line(title, value):
        return row(title, *(value(found, dtype) for dtype, found in results.items()))

    def rate(name):
        return lambda found, _: f"{best(found[name])['rate']:.1f}"

    def ratio(name, other, least):
        def value(found, _):
            times = best(found[name])["rate"] / best(found[other])["rate"]
            return f"{times:.2f} ({'met' if times >= least else '**not met**'})"

        return value

    yield line("pairs/s, no reuse", rate("no reuse"))
    yield line("pairs/s, reuse", rate("reuse"))
    yield line("reuse, times (>= 1.5)", ratio("reuse", "no reuse", 1.5))

    def encodings(found, _):
        run = best(found["reuse"])
        # The summary counts them only where there is reuse.
        return f"{(run['encodings'] or 2 * run['lines']) / run['lines']:.2f} of 2"

    yield line("encodings a pair with reuse", encodings)
    yield line("pairs/s, first run with --cache", rate("cache, first run"))
    yield line("pairs/s, second run", rate("cache, second run"))
    yield line("second run, times the first (>= 50)", ratio("cache, second run", "cache, first run", 50))
    yield line("second run, times no reuse", ratio("cache, second run", "no reuse", 50))
    yield line("2 threads, times 1 thread (>= 1.85)", ratio("no reuse", "1 thread", 1.85))

    def cold(found, dtype):
        wall, allowed = best(found["cold start"], "wall", min)["wall"], 0.6 if dtype == "f32" else 0.4
        return f"{wall:.2f} (<= {allowed}: {'met' if wall <= allowed else '**not met**'})"

    yield line("one pair from a cold process, s", cold)

    def rss(found, dtype):
        peak = max(run["rss"] for variant in ("no reuse", "reuse", *CACHED) for run in found[variant])
        allowed = weights[dtype] + 400e6
        return f"{peak / 1e6:.0f} (<= {allowed / 1e6:.0f}: {'met' if peak <= allowed else '**not met**'})"

    yield line("peak RSS, MB (<= weights + 400)", rss)


def cost_model(results):
    yield row("µs a line", *results)
    yield "|---" * (len(results) + 1) + "|"
    costs = {}
    for dtype, found in results.items():
        # Loading is in the computing threads' time too, so what is spread is stated too high and scaling too low.
        run = best(found["warm, 1 CPU"])
        seconds = {stage: 0.0 for stage in ["computing", *STAGES.values()]}
        for name, cpu in run["threads"].values():
            computing = name.startswith(COMPUTING)
            stage = "computing" if computing else STAGES.get(name)
            if stage is None and name in IDLE and cpu < 0.01:
                continue
            if stage is None:
                sys.exit(f"a thread of an unknown name: {name}")
            seconds[stage] += cpu
        cost = {stage: cpu / run["lines"] * 1e6 for stage, cpu in seconds.items()}
        # What a line costs beyond that where its texts are encoded: threads times the time that it took.
        one = best(found["1 thread"])
        cost["encoding"] = 1e6 / one["rate"] - cost["computing"]
        costs[dtype] = cost
    for stage in STAGES.values():
        yield row(f"{stage} (one thread)", *(f"{cost[stage]:.1f}" for cost in costs.values()))
    yield row("parsing, tokenizing, cache, head (spread)", *(f"{cost['computing']:.0f}" for cost in costs.values()))
    yield row("encoding without reuse (spread)", *(f"{cost['encoding']:.0f}" for cost in costs.values()))

    def cores(cost, spread):
        return f"{spread / max(cost[stage] for stage in STAGES.values()):.0f}"

    yield row(
        "cores until the slowest serial stage limits, all encoded",
        *(cores(cost, cost["encoding"] + cost["computing"]) for cost in costs.values()),
    )
    yield row("the same from a warm cache", *(cores(cost, cost["computing"]) for cost in costs.values()))
    yield row(
        "measured: warm, 2 CPUs, times 1",
        *(f"{best(found['warm, 2 CPUs'])['rate'] / best(found['warm, 1 CPU'])['rate']:.2f}" for found in results.values()),
    )


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a full-size checkpoint")
    parser.add_argument("crag", type=Path, help="the binary")
    default = sorted((HERE.parent.parent / "shared/data/bc5cdr").glob("*.PubTator.txt"))
    parser.add_argument("--bc5cdr", type=Path, nargs="+", default=default, help="BC5CDR's PubTator files")
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("target/usage"), help="converted folders are kept here")
    parser.add_argument("--out", type=Path, help="results as JSON")
    arguments = parser.parse_args()
    arguments.crag, arguments.model = arguments.crag.resolve(), arguments.model.resolve()
    arguments.work = arguments.work.resolve()
    return arguments


def main():
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    runner = Runner(arguments)
    pairs = sample(arguments.bc5cdr, arguments.pairs, arguments.seed)
    lines, one = arguments.work / "pairs.jsonl", arguments.work / "one.jsonl"
    written = [json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs]
    lines.write_text("".join(written), encoding="utf-8")
    one.write_text(written[0], encoding="utf-8")
    texts = {(side, pair["text"], *pair[f"{side}_span"]) for pair in pairs for side in ("drug", "adr")}
    say(f"{len(pairs)} pairs, {len(texts)} different marked texts of {2 * len(pairs)}")

    dtypes = arguments.dtypes.split(",")
    key = f"{digest(arguments.model / 'model.safetensors')}-{digest(arguments.crag)}"
    folders = {dtype: converted(runner, arguments.model, dtype, key) for dtype in dtypes}
    weights = {dtype: weight_bytes(folder) for dtype, folder in folders.items()}
    results, load = {}, os.getloadavg()[0]
    for number in range(1, arguments.passes + 1):
        for dtype in dtypes:
            measure(runner, folders[dtype], dtype, lines, one, results, number)
    version = subprocess.run([arguments.crag, "--version"], capture_output=True, text=True).stdout.strip()
    print(
        f"{version}, {len(pairs)} BC5CDR sentence pairs (seed {arguments.seed}), folders by `crag convert`, 2 threads, best of "
        f"{arguments.passes} passes; load {load:.1f} before, {os.getloadavg()[0]:.1f} after.\n"
    )
    print("\n".join(table(results, weights)), "\n")
    print("\n".join(cost_model(results)))
    if arguments.out:
        arguments.out.write_text(json.dumps({"results": results, "weights": weights}, indent=1))


if __name__ == "__main__":
    main()

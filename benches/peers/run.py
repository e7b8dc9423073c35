"""Every peer and `crag` in every precision on the same checkpoint, pairs and machine, in one run.

    python benches/peers/run.py MODEL_DIR CRAG_BINARY [--threads 2] [--work DIR] [--out DIR]

Each peer is a process of its own, one after the other, twice round (A B C A B C), so that a change
of the machine's pace meets all alike. One that fails is reported, and the others go on. See README.md.
"""

import argparse
import fcntl
import hashlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Comparators stand right before the `crag` run that is compared with them.
ORDER = {
    "f32": ["card", "torch-f32", "onnxruntime-f32", "openvino-f32", "ctranslate2-f32-plain", "ctranslate2-f32", "crag-f32"],
    "bf16": ["torch-bf16", "torch-bf16-autocast", "openvino-bf16-plain", "openvino-bf16", "crag-bf16"],
    "int8": ["onnxruntime-int8", "ctranslate2-int8-plain", "ctranslate2-int8", "crag-int8"],
}
# A comparator in the setup that a user writes first: batches of 32, all threads on each.
PLAIN = "-plain"
PLAIN_SETUP = {"batch": 32, "streams": 1}
SUMMARY = re.compile(r"scored (\d+) of (\d+) lines? in ([\d.]+) s \(([\d.]+) pairs/s\)")


def say(*what):
    print(*what, file=sys.stderr, flush=True)


def busy():
    return os.getloadavg()[0]


class Failed(Exception):
    pass


class Runner:
    """Starts processes with the same threads, CPUs and environment for all."""

    def __init__(self, arguments):
        self.arguments = arguments
        threads = str(arguments.threads)
        self.environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, command, stdout=subprocess.DEVNULL):
        """Returns stderr and what the process used; raises with its last words if it failed."""
        cpus = self.arguments.cpus
        pin = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=self.environment,
            preexec_fn=pin,
            text=True,
        )
        # One of OpenVINO's has waited for its own threads for ever.
        limit = threading.Timer(self.arguments.patience, process.kill)
        limit.start()
        try:
            said = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode == -signal.SIGKILL and time.perf_counter() - started >= self.arguments.patience:
            raise Failed(f"not done after {self.arguments.patience} s (--patience)")
        if process.returncode:
            lines = [line for line in said.strip().splitlines() if line.strip()] or ["no message"]
            # clap says what is wrong first and Python last.
            line = next((line for line in lines if line.startswith("error: ")), lines[-1])
            raise Failed(f"exit status {process.returncode}: {line[:300]}")
        return said, {
            "process_seconds": time.perf_counter() - started,
            "process_cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_rss_mb": usage.ru_maxrss / 1024,
        }

    def peer(self, name, folders, *more):
        out = folders["scratch"] / "answer.json"
        out.unlink(missing_ok=True)
        command = [sys.executable, HERE / "peers.py", name.removesuffix(PLAIN), *(folders[key] for key in ("model", "workload", "converted"))]
        command += [out, "--threads", self.arguments.threads, "--card-pairs", self.arguments.card_pairs, *more]
        _, used = self.run(command)
        return json.loads(out.read_text()) | used

    def crag(self, dtype, folders, pairs):
        scored = folders["scratch"] / "scored.jsonl"
        command = [self.arguments.crag, "score", "--model", folders["model"], "--device", "cpu", "--dtype", dtype]
        command += ["--no-reuse", "--threads", self.arguments.threads, *shlex.split(self.arguments.crag_arguments)]
        with open(scored, "wb") as out:
            said, used = self.run([*command, folders["workload"] / "pairs.jsonl"], out)
        summary = SUMMARY.search(said)
        if not summary:
            raise Failed(f"no summary on stderr: {said.strip()[-300:]}")
        probabilities = {}
        for record in map(json.loads, open(scored, encoding="utf-8")):
            if "probability" not in record:
                raise Failed(f"pair {record.get('id')} was not scored: {record.get('error')}")
            probabilities[record["id"]] = record["probability"]
        found = [probabilities[pair["id"]] for pair in pairs]
        logits = [math.log(p / (1 - p)) for p in found]
        return {"logits": logits, "probabilities": found, "seconds": len(pairs) / float(summary[4])} | used


def digest(path):
    """The first bytes of the model's SHA-256: converted encoders belong to exactly these weights."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def is_tuned(name):
    return name != "card" and not name.startswith("crag-") and not name.endswith(PLAIN)


def choose_setups(runner, folders, names, chosen, file):
    """Tunes peers that have no setup yet, and keeps what was found."""
    for name in names:
        if not is_tuned(name) or name in chosen:
            continue
        try:
            setups = runner.peer(name, folders, "--tune")["setups"]
        except Failed as error:
            say(f"tuning {name}: {error}")
            continue
        chosen[name] = setups[0] | {"tried": setups}
        listed = ", ".join(f"{s['batch']}x{s['streams']}: {s['tokens_per_second']:.0f}" for s in setups)
        say(f"tuning {name}: tokens/s by batch x streams: {listed}")
        file.write_text(json.dumps(chosen, indent=1))


def one_pass(runner, folders, names, chosen, pairs, results):
    for name in names:
        entry = results.setdefault(name, {"passes": []})
        if "skipped" in entry:
            continue
        load = busy()
        try:
            if name.startswith("crag-"):
                found = runner.crag(name.removeprefix("crag-"), folders, pairs)
            elif name == "card":
                found = runner.peer(name, folders)
            elif name in chosen:
                found = runner.peer(name, folders, "--setup", json.dumps(chosen[name]))
            else:
                raise Failed("could not be tuned")
        except Failed as error:
            entry["skipped"] = str(error)
            say(f"{name}: {error}")
            continue
        entry |= {key: found.pop(key) for key in ("logits", "probabilities") if key in found}
        found |= {"pairs_per_second": len(entry["logits"]) / found["seconds"], "load_before": load}
        entry["passes"].append(found)
        say(f"{name}: {found['pairs_per_second']:.2f} pairs/s (load {load:.1f})")


def shown(argument):
    """Without the place of this machine's folders, since the output is published."""
    return Path(argument).name if argument.startswith("/") else argument


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="from tests/fixtures/model/generate.py --full-size --expected 256")
    parser.add_argument("crag", type=Path, help="release build of crag")
    parser.add_argument("--pairs", type=Path, help="JSONL; MODEL_DIR/pairs.jsonl if not given")
    parser.add_argument("--count", type=int, help="only that many of the shuffled pairs (a dry run)")
    parser.add_argument("--card-pairs", type=int, default=32, help="pairs for the card's slow script (default 32)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpus", help="pin every process to these, such as 0,1")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--setup", metavar="BATCHxSTREAMS", help="for all peers, in place of tuning (a dry run)")
    parser.add_argument("--retune", action="store_true", help="choose batch sizes and streams anew")
    parser.add_argument("--limit", action="append", default=[], metavar="DTYPE=GFLOPS", help="use this limit in place of the measured one")
    parser.add_argument("--patience", type=float, default=1800, metavar="SECONDS", help="a peer that takes longer is ended (default 1800)")
    parser.add_argument("--crag-arguments", default="", help="more arguments for crag score, as one string")
    parser.add_argument("--work", type=Path, default=Path("target/peers"), help="converted encoders are kept here")
    parser.add_argument("--out", type=Path, help="results.json and results.md; WORK/results if not given")
    arguments = parser.parse_args()
    arguments.cpus = {int(cpu) for cpu in arguments.cpus.split(",")} if arguments.cpus else None
    arguments.crag = arguments.crag.resolve()
    arguments.limit = {dtype: float(value) for dtype, value in (limit.split("=") for limit in arguments.limit)}
    return arguments


def main():
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    # Here, so that --help needs no PyTorch.
    import limits
    import report
    import workload

    started = time.perf_counter()
    model = arguments.model.resolve()
    key = digest(model / "model.safetensors")
    converted = arguments.work.resolve() / key
    folders = {"model": model, "converted": converted, "workload": converted / "workload", "scratch": converted}
    folders["workload"].mkdir(parents=True, exist_ok=True)
    lock = open(arguments.work / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"{arguments.work}: another run is under way there; two at once would spoil each other's rates")
    load = workload.prepare(model, arguments.pairs or model / "pairs.jsonl", arguments.count, folders["workload"])
    names = [name for group in ORDER.values() for name in group]
    if arguments.only:
        names = [name for name in names if name in arguments.only.split(",")]
    say(f"{len(load.pairs)} pairs, {load.tokens / len(load.pairs) / 2:.1f} tokens a side, {arguments.threads} threads")

    runner = Runner(arguments)
    try:
        runner.run([sys.executable, HERE / "convert.py", model, converted])
    except Failed as error:
        say(f"converting: {error}")

    setups = converted / f"setups-{arguments.threads}-threads-{len(load.pairs)}-pairs.json"
    chosen = json.loads(setups.read_text()) if setups.exists() and not arguments.retune else {}
    if arguments.setup:
        batch, streams = map(int, arguments.setup.split("x"))
        chosen = {name: {"batch": batch, "streams": streams} for name in names if is_tuned(name)}
    else:
        choose_setups(runner, folders, names, chosen, setups)
    chosen |= {name: PLAIN_SETUP for name in names if name.endswith(PLAIN)}

    measured = {dtype: {} for dtype in ORDER}
    # Built before anything is measured.
    limits_binary = limits.built(HERE.parent.parent)

    def measure_limits():
        answer = folders["scratch"] / "limits.json"
        try:
            runner.run([sys.executable, limits.__file__, answer, str(arguments.threads), *filter(None, [limits_binary])])
        except Failed as error:
            return say(f"limits: {error}")
        limits.merge(measured, json.loads(answer.read_text()))

    results = {}
    measure_limits()
    for number in range(arguments.passes):
        say(f"pass {number + 1} of {arguments.passes}")
        one_pass(runner, folders, names, chosen, load.pairs, results)
    measure_limits()

    facts = {
        "machine": report.machine(),
        "commit": report.commit(HERE),
        "crag": subprocess.run([arguments.crag, "--version"], capture_output=True, text=True).stdout.strip(),
        "command": shlex.join(["python", "benches/peers/run.py", *map(shown, sys.argv[1:])]),
        "versions": report.versions(),
        "threads": arguments.threads,
        "pairs": len(load.pairs),
        "tokens_a_side": load.tokens / len(load.pairs) / 2,
        "gflop_a_pair": load.tokens / len(load.pairs)
        * workload.flops_per_token(json.loads((model / "config.json").read_text())) / 1e9,
        "limits": {
            dtype: limits.limit(measured[dtype])
            | ({"gflops": arguments.limit[dtype], "from": "--limit"} if dtype in arguments.limit else {})
            for dtype in ORDER
        },
        "seconds": time.perf_counter() - started,
    }
    facts["logit_spread"] = report.judge(load, results)
    for name, setup in chosen.items():
        if name in results:
            results[name]["setup"] = {key: setup[key] for key in ("batch", "streams")}
    text = report.markdown(facts, results, ORDER)
    out = arguments.out or arguments.work / "results"
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({"facts": facts, "results": results}, indent=1))
    (out / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

"""Runs crag and takes its answers apart."""

import json
import os
import subprocess
from pathlib import Path

import torch

torch.set_num_threads(1)


class Crag:
    def __init__(self, path):
        # Found from wherever it is run.
        self.path = Path(path).resolve()

    def run(self, *arguments, stdin=b"", kernel=None):
        environment = {**os.environ, "CRAG_KERNEL": kernel} if kernel else None
        command = [self.path, *map(str, arguments)]
        return subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)

    def score(self, model, pairs, *flags, kernel=None):
        """An answer for each pair, its probability as it is printed."""
        lines = [json.dumps(pair, ensure_ascii=index % 2 == 0) for index, pair in enumerate(pairs)]
        stdin = "\n".join(lines).encode() + b"\n"
        done = self.run("score", "--model", model, "-q", *flags, stdin=stdin, kernel=kernel)
        answers = [json.loads(line, parse_float=str) for line in done.stdout.split(b"\n")[:-1]]
        if len(answers) != len(pairs):
            raise SystemExit(f"{model}: {len(answers)} answers for {len(pairs)} pairs: {done.stderr.decode()}")
        return answers

"""PyTorch on the same pairs: the answers that accuracy is measured against, and the speed to beat.

    peer.py accuracy MODEL PAIRS OUT.json --count N     logits in f32, bf16 and f16
    peer.py speed MODEL PAIRS OUT.json [--compile]      pairs/s, network alone and JSONL to JSONL

The network's speed is that of the best of --budgets, which JSONL to JSONL then takes. OUT.json is there as soon as the network
has been timed. Both run batches sorted by length with scaled-dot-product attention, padded to a multiple of 8 and
filled to a token budget; `speed` in bf16 weights. Tokenization is the Hugging Face fast tokenizer's
own parallel one. Times start after loading, compiling and a warm-up.
"""

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "true"
HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.environ.get("CRAG_NETWORK", str(HERE.parents[1] / "tests/fixtures/model")))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from fullsize import load_tokenizer  # noqa: E402
from network import DualEncoder, Shape, mark  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

SIDES = (("DRUG", "drug"), ("ADR", "adr"))


def load(folder, device, dtype):
    config = json.loads((Path(folder) / "config.json").read_text())
    state = load_file(Path(folder) / "model.safetensors")
    names = Shape(vocab_size=0).config().keys() - {"model_type", "type_vocab_size"}
    shape = Shape(**{name: config[name] for name in names}, fusion=state["bilinear.bias"].numel())
    model = DualEncoder(shape)
    model.load_state_dict(state)
    for encoder in model.drug_encoder, model.adr_encoder:
        encoder.set_attn_implementation("sdpa")
    return model.eval().to(device=device, dtype=dtype)


def bilinear(layer, x1, x2):
    """nn.Bilinear as one large product: its own kernel is many times slower on large batches."""
    outputs, width, _ = layer.weight.shape
    parts = []
    for a, b in zip(x1.split(1024), x2.split(1024)):
        transformed = (b @ layer.weight.reshape(-1, width).T).reshape(len(a), outputs, width)
        parts.append((transformed * a[:, None]).sum(-1))
    return torch.cat(parts) + layer.bias


class Peer:
    def __init__(self, folder, device, dtype, compile=False, budget=16384):
        self.device, self.budget = torch.device(device), budget
        self.model = load(folder, self.device, dtype)
        self.tokenizer = load_tokenizer(folder)
        model = self.model
        model.bilinear.forward = lambda x1, x2: bilinear(model.bilinear, x1, x2)
        self.encode = {"drug": model.encode_drug, "adr": model.encode_adr}
        if compile:
            self.encode = {side: torch.compile(f, dynamic=True) for side, f in self.encode.items()}

    def tokenize(self, records):
        """Token ids of each side."""
        ids = {}
        for marker, side in SIDES:
            texts = [mark(r["text"], r[side], marker) for r in records]
            ids[side] = self.tokenizer(texts, max_length=128, truncation=True, return_attention_mask=False)["input_ids"]
        return ids

    @torch.no_grad()
    def representations(self, side, ids):
        """[N, F] on the device, in the order of `ids`."""
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        found, n = [], 0
        while n < len(order):
            last = n + 1
            while last < len(order) and padded(len(ids[order[last]])) * (last + 1 - n) <= self.budget:
                last += 1
            batch = [ids[m] for m in order[n:last]]
            length = padded(len(batch[-1]))
            tokens = np.zeros((len(batch), length), np.int64)
            mask = np.zeros((len(batch), length), np.int64)
            for row, one in enumerate(batch):
                tokens[row, : len(one)] = one
                mask[row, : len(one)] = 1
            tokens, mask = (torch.from_numpy(a) for a in (tokens, mask))
            if self.device.type == "cuda":
                tokens, mask = tokens.pin_memory(), mask.pin_memory()
            tokens, mask = (a.to(self.device, non_blocking=True) for a in (tokens, mask))
            found.append(self.encode[side](tokens, mask))
            n = last
        inverse = torch.empty(len(order), dtype=torch.long)
        inverse[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(found)[inverse.to(self.device)]

    @torch.no_grad()
    def logits(self, ids):
        drug, adr = (self.representations(side, ids[side]) for _, side in SIDES)
        return self.model.classify(drug, adr).float().cpu().numpy()


def padded(length):
    return (length + 7) // 8 * 8


def read(path, count=None):
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in itertools.islice(file, count)]


def accuracy(args):
    records = [json.loads(line) for line in read(args.pairs, args.count)]
    result = {"ids": [record["id"] for record in records]}
    for name, dtype in ("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16):
        peer = Peer(args.model, args.device, dtype, budget=args.budget)
        result[name] = [float(x) for x in peer.logits(peer.tokenize(records))]
        del peer
    write(args.out, result)


def write(path, result):
    """At once: a run that is killed leaves the old file or the new one."""
    Path(path + ".new").write_text(json.dumps(result))
    os.replace(path + ".new", path)


def speed(args):
    peer = Peer(args.model, args.device, torch.bfloat16, args.compile)
    lines = read(args.pairs, args.limit)

    def wait():
        if peer.device.type == "cuda":
            torch.cuda.synchronize()

    started = time.perf_counter()
    warm = peer.tokenize([json.loads(line) for line in lines[: args.warm]])
    for peer.budget in args.budgets * 2:
        peer.logits(warm)
    # compiled apart, and a batch of one may be the last of any run
    peer.logits({side: ids[:1] for side, ids in warm.items()})
    wait()
    result = {"compiled": args.compile, "pairs": len(lines)}
    result["warm_up_s"] = time.perf_counter() - started

    started = time.perf_counter()
    records = [json.loads(line) for line in lines]
    ids = peer.tokenize(records)
    result["tokenize_s"] = time.perf_counter() - started
    times = {}
    for peer.budget in args.budgets:
        started = time.perf_counter()
        logits = peer.logits(ids)
        wait()
        times[peer.budget] = time.perf_counter() - started
    peer.budget = min(times, key=times.get)
    result["budgets"] = {budget: len(lines) / seconds for budget, seconds in times.items()}
    result["budget"] = peer.budget
    result["network_pairs_s"] = len(lines) / times[peer.budget]
    result["nan"] = int(np.isnan(logits).sum())
    del records, ids
    write(args.out, result)

    started = time.perf_counter()
    with open(args.pairs, encoding="utf-8") as file, open(args.out + ".jsonl", "w", encoding="utf-8") as out:
        window = []
        file = itertools.islice(file, args.limit)

        def flush():
            records = [json.loads(line) for line in window]
            probabilities = 1 / (1 + np.exp(-peer.logits(peer.tokenize(records)).astype(np.float64)))
            for record, probability in zip(records, probabilities):
                record["probability"] = float(probability)
                record["causal"] = bool(probability >= 0.55)
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
            window.clear()

        for line in file:
            window.append(line)
            if len(window) == args.window:
                flush()
        if window:
            flush()
    result["jsonl_s"] = time.perf_counter() - started
    result["jsonl_pairs_s"] = len(lines) / result["jsonl_s"]
    write(args.out, result)
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["accuracy", "speed"])
    parser.add_argument("model")
    parser.add_argument("pairs")
    parser.add_argument("out")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--limit", type=int, help="pairs to score (default: all)")
    parser.add_argument("--budget", type=int, default=16384)
    parser.add_argument("--budgets", type=int, nargs="+", default=[16384])
    parser.add_argument("--window", type=int, default=50_000)
    parser.add_argument("--warm", type=int, default=20_000)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    {"accuracy": accuracy, "speed": speed}[args.command](args)


if __name__ == "__main__":
    main()

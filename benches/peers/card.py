"""The model card's own script as a yardstick: PyTorch in f32, pairs a second on the CPU.

    python benches/peers/card.py MODEL_DIR PAIRS.jsonl [--batched] [--threads N] [--out FILE]

One pair at a time, each side padded to 128 tokens, as the card does. `--batched` is the better
script that a careful user would write: batches of 32 sorted by length, padded to their longest.
MODEL_DIR is a full-size folder from `tests/fixtures/model/generate.py --full-size`; PAIRS holds
records with `id`, `text` (or `drug_text`, `adr_text`), `drug`, `adr`. The network is that of the
fixtures, `tests/fixtures/model/network.py`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "model"))

import numpy as np
import torch
from fullsize import load_tokenizer
from network import DualEncoder, Shape, contexts, score
from safetensors import safe_open
from safetensors.torch import load_file
from transformers.initialization import no_init_weights

BATCH = 32


def load_settings(folder):
    config = json.loads((folder / "config.json").read_text())
    settings = json.loads((folder / "crag.json").read_text()) if (folder / "crag.json").exists() else {}
    with safe_open(folder / "model.safetensors", "pt") as weights:
        fusion = weights.get_slice("bilinear.weight").get_shape()[0]
    return Shape(
        **{key: config[key] for key in Shape.__dataclass_fields__ if key in config},
        fusion=fusion,
        views=tuple(settings.get("views", ("bilinear", "product"))),
        max_length=settings.get("max_length", 128),
    )


def load_model(folder, shape):
    with no_init_weights():
        model = DualEncoder(shape)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def load(folder):
    shape = load_settings(folder)
    return load_model(folder, shape), load_tokenizer(folder), shape


@torch.no_grad()
def one_by_one(model, tokenizer, shape, pairs):
    return [torch.sigmoid(score(model, tokenizer, pair, shape)[2]).item() for pair in pairs]


@torch.no_grad()
def batched(model, tokenizer, shape, pairs):
    texts = [contexts(pair, shape) for pair in pairs]
    encoded = []
    for side, encode in ((0, model.encode_drug), (1, model.encode_adr)):
        ids = tokenizer([text[side] for text in texts], max_length=shape.max_length, truncation=True)["input_ids"]
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        out = torch.empty(len(ids), shape.fusion)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            out[batch] = encode(**tokenizer.pad({"input_ids": [ids[n] for n in batch]}, return_tensors="pt"))
        encoded.append(out)
    logits = [model.classify(*(side[n : n + BATCH] for side in encoded)) for n in range(0, len(pairs), BATCH)]
    return torch.sigmoid(torch.cat(logits)).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--batched", action="store_true")
    parser.add_argument("--limit", type=int, help="only the first pairs")
    parser.add_argument("--threads", type=int, help="PyTorch's own choice if not given")
    parser.add_argument("--out", type=Path, help="probabilities as JSONL")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    started = time.perf_counter()
    model, tokenizer, shape = load(arguments.model)
    loaded = time.perf_counter()
    pairs = [json.loads(line) for line in open(arguments.pairs, encoding="utf-8")][: arguments.limit]
    probabilities = (batched if arguments.batched else one_by_one)(model, tokenizer, shape, pairs)
    scored = time.perf_counter()

    if arguments.out:
        with open(arguments.out, "w") as out:
            for pair, probability in zip(pairs, probabilities):
                out.write(f'{{"id":{json.dumps(pair["id"])},"probability":{np.float32(probability)!s}}}\n')
    print(
        f"{'batched' if arguments.batched else 'one by one'}, {torch.get_num_threads()} threads: "
        f"loading {loaded - started:.1f} s, {len(pairs)} pairs in {scored - loaded:.1f} s, "
        f"{len(pairs) / (scored - loaded):.2f} pairs/s"
    )


if __name__ == "__main__":
    main()

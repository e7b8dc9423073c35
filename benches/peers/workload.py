"""What every peer scores: the pairs in a fixed random order, and their token ids from transformers.

Written once per run as JSON, so that no peer tokenizes while its clock runs. Leaves encoding to
`peers.py` and the running to `run.py`.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDES = ("drug", "adr")
SEED = 3


@dataclass
class Workload:
    pairs: list
    ids: dict
    """Side to one list of token ids a pair, without padding."""
    expected: dict
    """Id to PyTorch's f32 logit of the pair alone, padded to the model's maximum; may lack pairs."""

    @property
    def tokens(self):
        return sum(len(ids) for side in SIDES for ids in self.ids[side])

    def first(self, count):
        return Workload(self.pairs[:count], {side: ids[:count] for side, ids in self.ids.items()}, self.expected)

    def batches(self, size):
        """Length-sorted batches of both sides, longest first: (side, positions, token ids, attention mask)."""
        found = []
        for side in SIDES:
            ids = self.ids[side]
            order = sorted(range(len(ids)), key=lambda n: -len(ids[n]))
            for start in range(0, len(order), size):
                found.append((side, order[start : start + size]))
        found.sort(key=lambda batch: -len(self.ids[batch[0]][batch[1][0]]))
        return found

    def padded(self, side, positions):
        rows = [self.ids[side][n] for n in positions]
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, (out, on) in zip(rows, zip(ids, mask)):
            out[: len(row)] = row
            on[: len(row)] = 1
        return ids, mask


def prepare(model, pairs_file, count, folder):
    """Shuffles and tokenizes; writes `pairs.jsonl` (for crag and the card's script) and `ids.json`."""
    from card import load_settings, load_tokenizer
    from network import contexts

    shape = load_settings(model)
    tokenizer = load_tokenizer(model, shape.markers)
    pairs = [json.loads(line) for line in open(pairs_file, encoding="utf-8") if line.strip()]
    random.Random(SEED).shuffle(pairs)
    pairs = pairs[:count]
    texts = [contexts(pair, shape) for pair in pairs]
    ids = {
        side: tokenizer([text[n] for text in texts], max_length=shape.max_length, truncation=True)["input_ids"]
        for n, side in enumerate(SIDES)
    }
    expected = {}
    if (answers := model / "expected.jsonl").exists():
        for record in map(json.loads, open(answers, encoding="utf-8")):
            expected[record["id"]] = record["logit"]
    with open(folder / "pairs.jsonl", "w", encoding="utf-8") as out:
        out.writelines(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    (folder / "ids.json").write_text(json.dumps({"ids": ids, "expected": expected}))
    return read(folder)


def read(folder):
    pairs = [json.loads(line) for line in open(folder / "pairs.jsonl", encoding="utf-8")]
    stored = json.loads((Path(folder) / "ids.json").read_text())
    return Workload(pairs, stored["ids"], stored["expected"])


def flops_per_token(config):
    """Of the matrix products with weights in one encoder; attention's own products are left out."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return config["num_hidden_layers"] * 2 * (4 * hidden * hidden + 2 * hidden * inner)

"""Whether training on the GPU goes the way it goes on the CPU: step by step, without dropout.

training.py data PAIRS FOLDER: writes related.jsonl (600 pairs, each a document) and recipe.toml.
training.py compare CPU_LOG GPU_LOG: prints the largest relative difference of a step's loss; exit code 1 above 1%, which rounding
reaches after some tens of steps, or if a step is missing.
"""

import json
import sys
from pathlib import Path

RECIPE = """seed = 7
dropout = 0.0
[backbone]
hidden_size = 128
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 512
vocab_size = 2000
max_position_embeddings = 128
[head]
width = 64
[negatives]
kind = "random"
[contrastive]
epochs = 1
learning_rate = 1e-4
accumulation = 1
[finetune]
epochs = 1
learning_rate = 1e-4
accumulation = 1
"""


def data(pairs, folder):
    seen, lines = set(), []
    with open(pairs) as file:
        for line in file:
            record = json.loads(line)
            key = record["text"], record["drug"], record["adr"]
            if key not in seen:
                seen.add(key)
                lines.append(json.dumps(record | {"id": len(lines), "doc_id": len(lines), "label": 1}))
            if len(lines) == 600:
                break
    Path(folder, "related.jsonl").write_text("\n".join(lines) + "\n")
    Path(folder, "recipe.toml").write_text(RECIPE)


def losses(path):
    events = map(json.loads, Path(path).read_text().splitlines())
    return {(e["phase"], e["step"]): e["loss"] for e in events if e["event"] == "step"}


def compare(one, other):
    one, other = losses(one), losses(other)
    if not one or one.keys() != other.keys():
        sys.exit(f"{len(one)} and {len(other)} steps")
    worst, step = max((abs(other[s] - loss) / loss, s) for s, loss in one.items())
    print(f"{len(one)} steps, largest relative difference {worst:.1e} ({step[0]} step {step[1]})")
    sys.exit(worst > 0.01)


if __name__ == "__main__":
    {"data": data, "compare": compare}[sys.argv[1]](*sys.argv[2:])

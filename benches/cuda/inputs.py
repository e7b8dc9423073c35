"""Writes what run.sh needs and no network can give: a checkpoint, pairs, and inputs at the edges.

    inputs.py checkpoint OUT PAIRS [--small]   full-size random checkpoint (238,534,913 parameters)
    inputs.py pairs SOURCE OUT COUNT           JSONL of COUNT records from DRUG-AE.rel or a JSONL file
    inputs.py edges OUT                        texts that are empty, of one token, or too long
    inputs.py tokens MODEL PAIRS               how many tokens a pair of a JSONL file has, by its first 7,000

The network, its random weights and the vocabulary are those of the fixtures in tests/fixtures/model.
"""

import argparse
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.environ.get("CRAG_NETWORK", str(HERE.parents[1] / "tests/fixtures/model")))

SETTINGS = {"pooling": "attention", "pooling_heads": 4, "views": ["bilinear", "product"], "markers": True}
SETTINGS |= {"max_length": 128, "threshold": 0.55, "activation": "gelu"}


def read_pairs(source):
    """Pairs of a JSONL file, or of the ADE corpus (PMID|sentence|effect|begin|end|drug|begin|end)."""
    for number, line in enumerate(open(source, encoding="utf-8"), 1):
        if source.endswith(".rel"):
            pmid, text, effect, _, _, drug, _, _ = line.rstrip("\n").split("|")
            if effect in text and drug in text:
                yield {"id": f"{pmid}-{number}", "text": text, "drug": drug, "adr": effect}
        elif line.strip():
            yield json.loads(line)


def write_pairs(source, out, count):
    pairs = list(read_pairs(source))
    with open(out, "w", encoding="utf-8") as file:
        for n in range(count):
            record = dict(pairs[n % len(pairs)])
            record["id"] = f"{record.get('id', n % len(pairs))}/{n // len(pairs)}"
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{count} records, {min(count, len(pairs))} of them different")


def write_edges(out):
    """Kinds of text that have tripped 16-bit networks: each scores, or is an error record."""
    long = "Severe nausea followed aspirin. " * 60
    texts = [("aspirin", "nausea", "aspirin nausea"), ("a", "a", "a"), ("aspirin", "nausea", long)]
    texts += [("aspirin", "nausea", "nausea " + "of " * 100 + "aspirin"), ("aspirin", "nausea", "")]
    texts += [("x", "x", "x" * 5000), ("é", "é", "é" * 40), ("aspirin", "nausea", "aspirin" + " nausea" * 200)]
    with open(out, "w", encoding="utf-8") as file:
        for drug, adr, text in texts * 8:
            file.write(json.dumps({"drug": drug, "adr": adr, "text": text}) + "\n")


def write_checkpoint(out, source, small):
    import torch
    from fullsize import load_tokenizer, train_vocabulary, write_tokenizer_config, write_vocabulary
    from network import DualEncoder, Shape, calibrate, randomize
    from safetensors.torch import save_file

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    pairs = list(read_pairs(source))
    size = 2000 if small else 28_895
    write_vocabulary(out, train_vocabulary([pair["text"] for pair in pairs], size))
    write_tokenizer_config(out)
    tokenizer = load_tokenizer(out)
    sizes = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
    if small:
        sizes = {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 256}
    shape = Shape(vocab_size=len(tokenizer), max_position_embeddings=512, fusion=32 if small else 256, **sizes)
    model = randomize(DualEncoder(shape), 2)
    factor = calibrate(model, tokenizer, pairs[:32], Shape(vocab_size=0, max_length=64), deviation=1.2)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(shape.config(), indent=2) + "\n")
    (out / "crag.json").write_text(json.dumps(SETTINGS, indent=2) + "\n")
    print(f"{sum(p.numel() for p in model.parameters())} parameters, last layer scaled by {factor:.2f}")


def count_tokens(model, pairs):
    from fullsize import load_tokenizer

    tokenizer = load_tokenizer(model)
    records = [record for record, _ in zip(read_pairs(pairs), range(7000))]
    # the markers add two tokens a side, and more where an entity occurs more than once
    tokens = tokenizer([record["text"] for record in records], max_length=126, truncation=True)["input_ids"]
    print(f"{2 * sum(len(t) + 2 for t in tokens) / len(records):.1f} tokens a pair")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checkpoint = commands.add_parser("checkpoint")
    checkpoint.add_argument("out")
    checkpoint.add_argument("source")
    checkpoint.add_argument("--small", action="store_true")
    pairs = commands.add_parser("pairs")
    pairs.add_argument("source")
    pairs.add_argument("out")
    pairs.add_argument("count", type=int)
    edges = commands.add_parser("edges")
    edges.add_argument("out")
    tokens = commands.add_parser("tokens")
    tokens.add_argument("model")
    tokens.add_argument("pairs")
    args = parser.parse_args()
    if args.command == "checkpoint":
        write_checkpoint(args.out, args.source, args.small)
    elif args.command == "pairs":
        write_pairs(args.source, args.out, args.count)
    elif args.command == "tokens":
        count_tokens(args.model, args.pairs)
    else:
        write_edges(args.out)


if __name__ == "__main__":
    main()

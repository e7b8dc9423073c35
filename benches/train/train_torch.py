"""The recipe of `crag train` in PyTorch: the same data, schedule, losses and epochs, for comparing F1 and speed.

    python benches/train/train_torch.py --recipe recipe.toml --train T.jsonl --valid V.jsonl --test E.jsonl \
        (--backbone DIR | --tokenizer CRAG_OUT) [--threads N] [--contrastive-epochs N] [--epochs N]

Weights begin at random here and there with different numbers, and dropout masks differ, so results agree as two
seeds do. Without a backbone, the encoder of the recipe's [backbone] table is used with the vocabulary of a folder that
`crag train` wrote. Prints one JSON object: figures on the test pairs at the threshold chosen on the validation pairs.
"""

import argparse
import json
import math
import random
import sys
import time
import tomllib
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer, BertConfig, BertModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "model"))
from network import DualEncoder, Shape  # noqa: E402

MARKERS = ["[DRUG]", "[/DRUG]", "[ADR]", "[/ADR]"]


def settings(path):
    defaults = {
        "seed": 42,
        "dropout": 0.1,
        "head": {"pooling": "attention", "pooling_heads": 4, "views": ["bilinear", "product"], "width": 256},
        "negatives": {"hard_ratio": 0.5, "neighbours": 8},
        "contrastive": {"epochs": 5, "learning_rate": 2e-5, "batch_size": 16, "accumulation": 4, "temperature": 0.05},
        "finetune": {
            "epochs": 8,
            "learning_rate": 2e-5,
            "batch_size": 16,
            "accumulation": 4,
            "focal_gamma": 2.0,
            "focal_alpha": 0.75,
        },
        "optimizer": {"warmup_ratio": 0.1, "layerwise_decay": 0.9, "weight_decay": 0.01, "max_grad_norm": 1.0},
    }
    stated = tomllib.loads(Path(path).read_text()) if path else {}
    for key, value in stated.items():
        if isinstance(value, dict):
            defaults[key] = defaults.get(key, {}) | value
        else:
            defaults[key] = value
    return defaults


class Data:
    """Pairs of numbers into two lists of contexts, each context once."""

    def __init__(self, path, tokenizer, max_length, entities):
        self.texts, self.entity, self.examples = ([], []), ([], []), []
        known = ({}, {})
        for line in Path(path).read_text().splitlines():
            record = json.loads(line)
            numbers = []
            for side, (field, marker) in enumerate((("drug", "DRUG"), ("adr", "ADR"))):
                text, name = record.get(f"{field}_text", record.get("text")), record[field]
                span = record.get(f"{field}_span")
                key = (text, name, tuple(span or ()))
                if key not in known[side]:
                    mark = f"[{marker}] {name} [/{marker}]"
                    marked = text[: span[0]] + mark + text[span[1] :] if span else text.replace(name, mark)
                    known[side][key] = len(self.texts[side])
                    self.texts[side].append(tokenizer(marked, truncation=True, max_length=max_length)["input_ids"])
                    self.entity[side].append(entities[name.strip().lower()])
                numbers.append(known[side][key])
            self.examples.append((*numbers, int(record.get("label", 1))))

    def pair(self, drug, adr):
        return self.entity[0][drug], self.entity[1][adr]


def padded(texts):
    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    return ids, (torch.arange(longest)[None] < torch.tensor([len(text) for text in texts])[:, None]).long()


class Trainer:
    def __init__(self, model, config, train, related, rng):
        self.model, self.config, self.train, self.related, self.rng = model, config, train, related, rng
        self.positives = [e for e in train.examples if e[2]]
        self.tokens, self.seconds = 0, 0.0

    def encode(self, data, side, numbers):
        texts = [data.texts[side][n] for n in numbers]
        return (self.model.encode_drug, self.model.encode_adr)[side](*padded(texts)), sum(map(len, texts))

    @torch.no_grad()
    def encode_all(self, data, side):
        self.model.eval()
        order = range(len(data.texts[side]))
        parts = [self.encode(data, side, order[i : i + 64])[0] for i in range(0, len(order), 64)]
        return torch.cat(parts)

    def neighbours(self):
        drug, adr = (F.normalize(self.encode_all(self.train, side), dim=-1) for side in (0, 1))
        scores, count = drug @ adr.T, self.config["negatives"]["neighbours"]

        def nearest(rows, pair):
            out = []
            for i, order in enumerate(rows.argsort(dim=1, descending=True).tolist()):
                free = (j for j in order if self.train.pair(*pair(i, j)) not in self.related)
                out.append([j for j, _ in zip(free, range(count))])
            return out

        return nearest(scores, lambda i, j: (i, j)), nearest(scores.T, lambda i, j: (j, i))

    def mine(self):
        near = self.neighbours()
        order, out = list(range(len(self.positives))), {}
        self.rng.shuffle(order)
        hard = round(len(order) * self.config["negatives"]["hard_ratio"])
        for place, of in enumerate(order):
            kind = ("drug", "reaction", "similar")[place % 3] if place < hard else "random"
            drug, adr, _ = self.positives[of]
            if kind == "similar":
                side = self.rng.randrange(2)
                choices = near[side][(drug, adr)[side]]
                if choices:
                    other = self.rng.choice(choices)
                    out[of] = (drug, other) if side == 0 else (other, adr)
                    continue
                kind = "drug"
            for _ in range(64):
                one = self.rng.choice(self.positives)[0] if kind != "drug" else drug
                other = self.rng.choice(self.positives)[1] if kind != "reaction" else adr
                if self.train.pair(one, other) not in self.related:
                    out[of] = (one, other)
                    break
        return out

    def labelled(self):
        """For pairs that share a context with a labelled negative whose entities are related nowhere, one such."""
        by, out = (defaultdict(list), defaultdict(list)), {}
        for drug, adr, label in self.train.examples:
            if not label and self.train.pair(drug, adr) not in self.related:
                by[0][drug].append((drug, adr))
                by[1][adr].append((drug, adr))
        for of, (drug, adr, _) in enumerate(self.positives):
            if choices := by[0].get(drug, []) + by[1].get(adr, []):
                out[of] = self.rng.choice(choices)
        return out

    def contrastive(self, items):
        rows = [[i[0] for i in items], [i[1] for i in items]]
        for _, _, negative in items:
            for side in (0, 1):
                if negative and negative[side] not in rows[side]:
                    rows[side].append(negative[side])
        (drug, n), (adr, m) = (self.encode(self.train, side, rows[side]) for side in (0, 1))
        drug, adr = F.normalize(drug, dim=-1), F.normalize(adr, dim=-1)
        related = torch.tensor([[self.train.pair(d, a) in self.related for a in rows[1]] for d in rows[0]])
        own, count = torch.arange(len(items)), len(items)
        temperature = self.config["contrastive"]["temperature"]
        keep = torch.eye(len(rows[0]), len(rows[1]), dtype=torch.bool)
        logits = (drug @ adr.T / temperature).masked_fill(related & ~keep, -1e9)
        return (F.cross_entropy(logits[:count], own) + F.cross_entropy(logits.T[:count], own)) / 2, n + m

    def focal(self, items):
        unique = [sorted({i[side] for i in items}) for side in (0, 1)]
        (drug, n), (adr, m) = (self.encode(self.train, side, unique[side]) for side in (0, 1))
        rows = [torch.tensor([unique[side].index(i[side]) for i in items]) for side in (0, 1)]
        logits = self.model.classify(drug[rows[0]], adr[rows[1]])
        labels = torch.tensor([i[2] for i in items])
        signed = torch.where(labels > 0, logits, -logits)
        alpha, gamma = self.config["finetune"]["focal_alpha"], self.config["finetune"]["focal_gamma"]
        weight = torch.where(labels > 0, alpha, 1 - alpha)
        return (-weight * torch.sigmoid(-signed) ** gamma * F.logsigmoid(signed)).mean(), n + m

    def groups(self, rate):
        decay, layers = self.config["optimizer"]["layerwise_decay"], len(self.model.drug_encoder.encoder.layer)
        by = defaultdict(list)
        for name, parameter in self.model.named_parameters():
            depth = 0
            if "encoder.layer." in name:
                depth = layers - int(name.split("encoder.layer.")[1].split(".")[0])
            elif "encoder.embeddings" in name:
                depth = layers + 1
            by[depth, parameter.dim() > 1].append(parameter)
        wd = self.config["optimizer"]["weight_decay"]
        return [{"params": p, "lr": rate * decay**d, "weight_decay": wd if m else 0.0} for (d, m), p in by.items()]

    def phase(self, name, loss_of, after_epoch):
        config, optimizer_config = self.config[name], self.config["optimizer"]
        optimizer, scheduler = torch.optim.AdamW(self.groups(config["learning_rate"])), None
        negatives_labelled = any(not e[2] for e in self.train.examples)
        for epoch in range(config["epochs"]):
            mined = {} if negatives_labelled else self.mine()
            if name == "contrastive":
                hard = self.labelled() | mined
                plan = [(d, a, hard.get(i)) for i, (d, a, _) in enumerate(self.positives)]
            else:
                plan = list(self.train.examples) + [(d, a, 0) for d, a in mined.values()]
            self.rng.shuffle(plan)
            group = config["batch_size"] * config["accumulation"]
            steps = math.ceil(len(plan) / group)
            if scheduler is None:
                total = steps * config["epochs"]
                warmup = int(total * optimizer_config["warmup_ratio"])

                def factor(step):
                    if step < warmup:
                        return step / max(1, warmup)
                    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

                scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
            self.model.train()
            total_loss = 0.0
            began = time.perf_counter()
            for start in range(0, len(plan), group):
                batches = [
                    plan[i : i + config["batch_size"]]
                    for i in range(start, min(start + group, len(plan)), config["batch_size"])
                ]
                items = sum(len(batch) for batch in batches)
                for batch in batches:
                    loss, tokens = loss_of(batch)
                    (loss * len(batch) / items).backward()
                    total_loss += loss.item() * len(batch)
                    self.tokens += tokens
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), optimizer_config["max_grad_norm"])
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            self.seconds += time.perf_counter() - began
            print(f"{name} epoch {epoch + 1}: loss {total_loss / len(plan):.4f}", file=sys.stderr)
            after_epoch(epoch + 1)

    @torch.no_grad()
    def probabilities(self, data):
        drug, adr = (self.encode_all(data, side) for side in (0, 1))
        rows = [torch.tensor([e[side] for e in data.examples]) for side in (0, 1)]
        return torch.sigmoid(self.model.classify(drug[rows[0]], adr[rows[1]])).tolist()


def f1(labels, probabilities, threshold):
    hits = sum(y and p >= threshold for y, p in zip(labels, probabilities))
    return 2 * hits / (sum(p >= threshold for p in probabilities) + sum(labels))


def best_threshold(labels, probabilities):
    return max(sorted(set(probabilities)), key=lambda t: f1(labels, probabilities, t))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe")
    for name in "train", "valid", "test":
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--backbone")
    parser.add_argument("--tokenizer")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--contrastive-epochs", type=int)
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    config = settings(arguments.recipe)
    if arguments.contrastive_epochs is not None:
        config["contrastive"]["epochs"] = arguments.contrastive_epochs
    if arguments.epochs is not None:
        config["finetune"]["epochs"] = arguments.epochs
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(config["seed"])
    rng = random.Random(config["seed"])
    tokenizer = AutoTokenizer.from_pretrained(arguments.backbone or arguments.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKERS})
    max_length = config["head"].get("max_length", 128)
    entities = defaultdict(lambda: len(entities))
    parts = {n: Data(getattr(arguments, n), tokenizer, max_length, entities) for n in ("train", "valid", "test")}
    related = {d.pair(e[0], e[1]) for n in ("train", "valid") for d in [parts[n]] for e in d.examples if e[2]}

    if arguments.backbone:
        bert = BertConfig.from_pretrained(arguments.backbone)
    else:
        backbone = {k: v for k, v in config["backbone"].items() if k != "lowercase"}
        bert = BertConfig(**{**backbone, "vocab_size": len(tokenizer)})
    shape = Shape(
        vocab_size=bert.vocab_size,
        hidden_size=bert.hidden_size,
        num_attention_heads=bert.num_attention_heads,
        num_hidden_layers=bert.num_hidden_layers,
        intermediate_size=bert.intermediate_size,
        max_position_embeddings=bert.max_position_embeddings,
        bert_pooler=False,
        fusion=config["head"]["width"],
        pooling=config["head"]["pooling"],
        pooling_heads=config["head"]["pooling_heads"],
        views=tuple(config["head"]["views"]),
    )
    model = DualEncoder(shape)
    if arguments.backbone:
        for side in "drug_encoder", "adr_encoder":
            encoder = BertModel.from_pretrained(arguments.backbone, add_pooling_layer=False)
            before = encoder.get_input_embeddings().num_embeddings
            encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            with torch.no_grad():
                table = encoder.get_input_embeddings().weight
                table[before:] = table[:before].mean(0)
            setattr(model, side, encoder)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = config["dropout"]
    trainer = Trainer(model, config, parts["train"], related, rng)
    trainer.phase("contrastive", trainer.contrastive, lambda epoch: None)
    best = {"f1": -1.0}

    def judge(epoch):
        nonlocal best
        labels, found = [e[2] for e in parts["valid"].examples], trainer.probabilities(parts["valid"])
        threshold = best_threshold(labels, found)
        score = f1(labels, found, threshold)
        print(f"validation F1 {score:.4f}, ROC-AUC {roc_auc_score(labels, found):.4f}", file=sys.stderr)
        if score > best["f1"]:
            test = [e[2] for e in parts["test"].examples]
            found = trainer.probabilities(parts["test"])
            best = {"epoch": epoch, "f1": score, "test_f1": f1(test, found, threshold)}
            best |= {"test_roc_auc": roc_auc_score(test, found), "threshold": threshold}

    trainer.phase("finetune", trainer.focal, judge)
    best |= {"tokens": trainer.tokens, "tokens_per_second": trainer.tokens / trainer.seconds}
    print(json.dumps(best | {"threads": torch.get_num_threads(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()

"""Compares crag's marking, tokenizing and cutting with transformers'.

The model has a small random network and a row for nearly every character of Unicode, so that one other token shows in the
probability: token ids are compared through what they do. Each tokenizer is used as vocab.txt and as tokenizer.json, texts longer
than the model takes are cut at their end and around the mention.
"""

import argparse
import json
import sys
import tempfile
import unicodedata
from pathlib import Path

import texts
import torch
from binary import Crag
from safetensors.torch import save_file
from transformers import BertTokenizerFast

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "model"
sys.path.insert(0, str(FIXTURES))
from network import DualEncoder, Shape, calibrate, randomize  # noqa: E402

SETTINGS = {
    "uncased": {"do_lower_case": True},
    "uncased-accents": {"do_lower_case": True, "strip_accents": False},
    "uncased-cjk-words": {"do_lower_case": True, "tokenize_chinese_chars": False},
    "cased": {"do_lower_case": False},
    "cased-no-accents": {"do_lower_case": False, "strip_accents": True},
    "cased-cjk-words": {"do_lower_case": False, "tokenize_chinese_chars": False, "strip_accents": False},
}
# Token ids without [CLS] and [SEP].
ROOM = Shape.max_length - 2
# The smallest difference of another token that was seen is a hundred times that.
TOLERANCE = 1e-5


def vocabulary():
    """The fixtures' words, nearly all characters alone and within a word, and words whose cases are odd."""
    words = (FIXTURES / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = [word for word in words if not word.startswith("[unused")]
    characters = [*range(0x21, 0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x32400, 5), *range(0x2F800, 0x2FA20)]
    characters += [*range(0xE0000, 0xE0200), *range(0xF0000, 0xF0100), *range(0x10FF00, 0x110000)]
    for character in map(chr, characters):
        if not character.isspace() and unicodedata.category(character) != "Cc":
            words += [character, "##" + character]
    words += "Aspirin Rash RASH É é ﬁ straße STRASSE Σίσυφος ΣΊΣΥΦΟΣ İstanbul istanbul ##irin caf ##é".split()
    return list(dict.fromkeys(words))


def write_models(folder):
    """Each setting's two folders, of the same weights, and the network."""
    words = vocabulary()
    shape = Shape(vocab_size=len(words) + 4, hidden_size=16, num_attention_heads=2, intermediate_size=32, fusion=8)
    model = randomize(DualEncoder(shape), 7)
    weights = folder / "model.safetensors"
    for name, setting in SETTINGS.items():
        plain, serialized = folder / name, folder / f"{name}.json"
        for own in [plain, serialized]:
            own.mkdir()
            (own / "config.json").write_text(json.dumps(shape.config()))
            (own / "model.safetensors").symlink_to(weights)
        (plain / "vocab.txt").write_text("".join(word + "\n" for word in words), encoding="utf-8", newline="")
        config = {"tokenizer_class": "BertTokenizer", "additional_special_tokens": texts.MARKERS, **setting}
        (plain / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = BertTokenizerFast.from_pretrained(plain)
        assert len(tokenizer) == shape.vocab_size
        tokenizer.save_pretrained(serialized)
        (serialized / "vocab.txt").unlink(missing_ok=True)
        if not weights.exists():
            cases = map(json.loads, (FIXTURES / "cases.jsonl").read_text(encoding="utf-8").splitlines())
            calibrate(model, tokenizer, list(cases), shape)
            save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, weights)
    return model


class Reference:
    def __init__(self, model, folder):
        self.model = model
        self.tokenizer = BertTokenizerFast.from_pretrained(folder).backend_tokenizer
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def cut(self, pair, side, window):
        """Token ids as the model gets them, and whether the mention is not whole in them."""
        text, (start, end) = texts.marked(pair, side)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        first, is_cut = 0, False
        if len(ids) > ROOM and window == "start":
            is_cut = end > offsets[ROOM][0]
        elif len(ids) > ROOM:
            # As many tokens before the mention as after it, or what there is.
            begin = next(index for index, offset in enumerate(offsets) if offset[1] > start)
            length = sum(offset[0] < end for offset in offsets[begin:])
            first = min(max(begin - max(0, ROOM - length) // 2, 0), len(ids) - ROOM)
            is_cut = length > ROOM
        return [2, *ids[first : first + ROOM], 3], is_cut

    @torch.no_grad()
    def score(self, pairs, window):
        """Probabilities, and the warnings of each pair."""
        representations, warnings = [], [[] for _ in pairs]
        for side, encode in [("drug", self.model.encode_drug), ("adr", self.model.encode_adr)]:
            found = []
            for index, pair in enumerate(pairs):
                ids, is_cut = self.cut(pair, side, window)
                found.append(ids)
                warnings[index] += [f"{side}_truncated"] * is_cut
            representations.append(self.encode(encode, found))
        return torch.sigmoid(self.model.classify(*representations)).tolist(), warnings

    @staticmethod
    def encode(encode, token_ids, batch=64):
        order = sorted(range(len(token_ids)), key=lambda index: len(token_ids[index]))
        found = [None] * len(token_ids)
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            rows = [torch.tensor(token_ids[index]) for index in part]
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            for index, row in zip(part, encode(padded, mask)):
                found[index] = row
        return torch.stack(found)


def every_code_point():
    """Each of `texts.code_points` alone and within a word, sixteen to a text."""
    points = texts.code_points()
    for start in range(0, len(points), 16):
        some = points[start : start + 16]
        words = " ".join(some) + " " + " ".join(f"a{c}b" for c in some)
        yield {"text": f"aspirin {words} rash", "drug": "aspirin", "adr": "rash"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crag", help="the binary")
    parser.add_argument("--count", type=int, default=400, help="short texts, and a quarter as many long ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--code-points", action="store_true", help="every assigned code point too, but private ones")
    args = parser.parse_args()
    crag, differences, scored = Crag(args.crag), 0, 0
    kinds = {
        ("short", "start"): texts.records(args.seed, args.count, texts.short),
        ("long", "start"): texts.records(args.seed + 1, args.count // 4, texts.long),
    }
    kinds["long", "mention"] = kinds["long", "start"]
    if args.code_points:
        kinds["code points", "start"] = list(every_code_point())
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        model = write_models(work)
        for setting in args.settings:
            reference = Reference(model, work / setting)
            for (kind, window), pairs in kinds.items():
                expected, warnings = reference.score(pairs, window)
                for folder in [setting, f"{setting}.json"]:
                    answers = crag.score(work / folder, pairs, "--threads", 1, "--window", window)
                    scored += len(answers)
                    furthest, different = 0.0, 0
                    for pair, answer, probability, warned in zip(pairs, answers, expected, warnings):
                        distance = abs(float(answer.get("probability", "inf")) - probability)
                        if distance > TOLERANCE or answer.get("warnings", []) != warned:
                            different += 1
                            if different <= 3:
                                print(f"DIFFERENT: expected {probability} {warned} of {json.dumps(pair)[:2000]}, found {answer}"[:3000])
                        else:
                            furthest = max(furthest, distance)
                    differences += different
                    print(f"{folder}, {kind}, {window}: {len(pairs)} pairs, {different} different, else within {furthest:.1e}", flush=True)
    print(f"{scored} scorings, {differences} different")
    raise SystemExit(differences > 0)


if __name__ == "__main__":
    main()

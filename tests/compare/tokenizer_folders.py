"""Compares what crag makes of the files of a tokenizer with what transformers' AutoTokenizer does.

Random folders: with vocab.txt, tokenizer.json or both, special tokens of other names, markers in the vocabulary or in any of the lists
that versions of transformers wrote, with every flag that an added token can have. Where crag says in a warning that it doubts, or
refuses a folder, nothing is counted as different.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path

import texts
import torch
import transformers
from binary import Crag
from safetensors.torch import save_file
from tokens import FIXTURES, DualEncoder, Reference, Shape, calibrate, randomize
from transformers import AutoTokenizer, BertTokenizerFast

ROWS = 700
TOLERANCE = 2e-5
# Their cases and brackets are what settings decide.
WORDS = ["É", "é", "##é", "e", "Rash", "rash", "##rash", "İ", "中", "##中", "Drug", "drug", "[", "]", "/", "adr"]
TAILS = [" [MASK] x", " a[DRUG]b [/ADR] ", "  [mask]  [Drug] ", " xfoox foo FOO barfoo New York new york", " [DRUG]a[/DRUG]  [adr] É é RASH 中"]


def added_token(content, **flags):
    usual = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"content": content, **usual, **flags}


def draw_folder(draw, folder, base):
    """Writes one tokenizer's files; returns what is particular."""
    chance = lambda of: draw.random() < of  # noqa: E731
    words, settings, notes = list(base), {}, []
    if chance(0.8):
        settings["tokenizer_class"] = draw.choice(["BertTokenizer", "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"])
    for key, often, values in [
        ("do_lower_case", 0.7, [True, False]),
        ("strip_accents", 0.4, [True, False, None]),
        ("tokenize_chinese_chars", 0.4, [True, False]),
    ]:
        if chance(often):
            settings[key] = draw.choice(values)
    if chance(0.15):
        words.remove("[MASK]")
        notes.append("no mask")
    renamed = {}
    if chance(0.15):
        renamed |= {"[CLS]": "<cls>", "[SEP]": "<s>"}
        settings |= {"cls_token": "<cls>", "sep_token": "<s>"}
    if chance(0.15):
        renamed["[UNK]"] = "<unk>"
        settings["unk_token"] = draw.choice(["<unk>", {"__type": "AddedToken", **added_token("<unk>")}])
    words = [renamed.get(word, word) for word in words]
    in_vocabulary = chance(0.2)
    if in_vocabulary:
        words[20:24] = texts.MARKERS
        notes.append("markers in the vocabulary")
    if chance(0.2):
        settings["mask_token"] = {"__type": "AddedToken", **added_token("[MASK]", lstrip=True)}
    markers = draw.sample(texts.MARKERS, 4)
    where = draw.choice(["nowhere", "additional", "extra", "decoder", "decoder with flags", "added_tokens.json", "special_tokens_map.json"])
    notes.append(where)
    if where == "additional":
        settings["additional_special_tokens"] = markers[: draw.choice([2, 4, 4])]
    elif where == "extra":
        settings["extra_special_tokens"] = draw.choice([markers, {f"extra_{index}": marker for index, marker in enumerate(markers)}])
    elif where.startswith("decoder"):
        flags = {}
        if where == "decoder with flags":
            flags = draw.choice([{"special": False}, {"normalized": True}, {"special": False, "normalized": True}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}])
            notes.append(flags)
        listed = [(renamed.get(name, name), {}) for name in ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]]
        listed += [(marker, flags) for marker in markers]
        if chance(0.4):
            listed.append(("foo", {"special": False, "normalized": chance(0.5), "single_word": chance(0.5)}))
            listed.append(("New York", {"special": False, "normalized": chance(0.5)}))
        decoder, free = {}, len(words)
        for content, own in listed:
            place = words.index(content) if content in words else free
            free += place == free
            decoder[str(place)] = added_token(content, **own)
        settings["added_tokens_decoder"] = decoder
        if chance(0.5):
            settings["additional_special_tokens"] = markers
    elif where == "added_tokens.json":
        added = {"foo": len(words)} if in_vocabulary else {marker: len(words) + index for index, marker in enumerate(markers)}
        (folder / where).write_text(json.dumps(added))
    elif where == "special_tokens_map.json":
        listed = {"additional_special_tokens": markers, "cls_token": settings.get("cls_token", "[CLS]")}
        (folder / where).write_text(json.dumps(listed))
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in words), encoding="utf-8")
    if settings or chance(0.5):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    form = draw.choice(["vocab.txt", "tokenizer.json", "both"])
    if form != "vocab.txt":
        tokenizer = BertTokenizerFast.from_pretrained(folder)
        if chance(0.5):
            tokenizer.add_special_tokens({"additional_special_tokens": texts.MARKERS})
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
        if form == "tokenizer.json":
            (folder / "vocab.txt").unlink()
    return [form, settings.get("tokenizer_class"), *notes]


def draw_pairs(draw, seed):
    cases = [json.loads(line) for line in (FIXTURES / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    pairs = [{key: value for key, value in case.items() if key != "id"} for case in cases if "long" not in case["id"]][:40]
    for pair in pairs[:20]:
        for key in ["text", "drug_text", "adr_text"]:
            if key in pair:
                pair[key] += draw.choice(TAILS)
    pairs += texts.records(seed, 40, texts.short)
    return [pair for pair in pairs if not texts.is_blank(pair["drug"]) and not texts.is_blank(pair["adr"])]


@torch.no_grad()
def expected(model, folder, pairs, max_length):
    """Probabilities with the tokenizer as AutoTokenizer reads it and the markers added where it lacks them, and its tokens' number."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    missing = [marker for marker in texts.MARKERS if marker not in tokenizer.added_tokens_encoder]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing})
    representations = []
    for side, encode in [("drug", model.encode_drug), ("adr", model.encode_adr)]:
        marked = [texts.marked(pair, side)[0] for pair in pairs]
        ids = [tokenizer(text, max_length=max_length, truncation=True)["input_ids"] for text in marked]
        representations.append(Reference.encode(encode, ids))
    return torch.sigmoid(model.classify(*representations)).tolist(), max(tokenizer.get_vocab().values()) + 1


def is_far(answer, probability):
    return abs(answer.get("probability", float("inf")) - probability) > TOLERANCE


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crag", help="the binary")
    parser.add_argument("--count", type=int, default=60, help="folders")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    draw, crag = random.Random(args.seed), Crag(args.crag)
    base = (FIXTURES / "vocab.txt").read_text(encoding="utf-8").splitlines()[:560]
    base += [word for word in WORDS if word not in base]
    shape = Shape(vocab_size=ROWS, hidden_size=16, num_attention_heads=2, intermediate_size=32, fusion=8)
    model = randomize(DualEncoder(shape), 11)
    pairs = draw_pairs(draw, args.seed)
    plain = BertTokenizerFast(vocab={word: index for index, word in enumerate(base)})
    plain.add_special_tokens({"additional_special_tokens": texts.MARKERS})
    calibrate(model, plain, pairs[:40], shape)
    outcomes = dict.fromkeys(["same", "same, doubted", "other, doubted", "refused", "not read by transformers", "DIFFERENT"], 0)
    for number in range(args.count):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            particular = draw_folder(draw, folder, base)
            config = folder / "config.json"
            config.write_text(json.dumps(shape.config()))
            try:
                probabilities, rows = expected(model, folder, pairs, shape.max_length)
            except Exception:  # Whatever transformers thinks of such a folder.
                outcomes["not read by transformers"] += 1
                continue
            config.write_text(json.dumps({**shape.config(), "vocab_size": rows}))
            state = {name: tensor[:rows] if "word_embeddings" in name else tensor for name, tensor in model.state_dict().items()}
            save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
            lines = "\n".join(map(json.dumps, pairs)).encode() + b"\n"
            done = crag.run("score", "--model", folder, "--log-format", "json", stdin=lines)
            said = [json.loads(line) for line in done.stderr.splitlines()]
            doubts = [event["message"] for event in said if event["level"] != "info"]
            answers = [json.loads(line) for line in done.stdout.splitlines()]
            if done.returncode not in (0, 3):
                outcome = "refused"
            elif any(map(is_far, answers, probabilities)):
                outcome = "other, doubted" if doubts else "DIFFERENT"
            else:
                outcome = "same, doubted" if doubts else "same"
            outcomes[outcome] += 1
            if outcome not in ["same", "same, doubted"]:
                print(f"{number} {outcome}: {particular}; {' '.join(doubts)[:300]}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    raise SystemExit(outcomes["DIFFERENT"] > 0)


if __name__ == "__main__":
    main()

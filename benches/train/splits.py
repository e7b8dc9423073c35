"""Writes labelled pairs, split by document, from the corpora in ../shared/data; see README.md.

    python benches/train/splits.py ../shared/data OUT

OUT/ade/{train,valid,test}.jsonl: the ADE corpus split by PubMed id (80/10/10). Training holds related pairs alone;
validation and test also hold as many mined negatives (half hard: the same drug with another reaction or the reverse;
half at random; never a pair that is related anywhere), so that every system is judged on the same pairs.

OUT/bc5cdr/{train,valid,test}.jsonl: Chemical x Disease pairs within one sentence, related or not by the document's
annotation; test is the development set, train and valid (10% of documents) are the training set.
"""

import argparse
import json
import random
import re
from pathlib import Path

SEED = 42


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
    positives = sum(r["label"] for r in records)
    print(f"{path}: {len(records)} pairs, {positives} related, {len({r['doc_id'] for r in records})} documents")


def ade(path):
    """One record for each distinct (document, sentence, drug, reaction)."""
    seen, records = set(), []
    for line in path.read_text(encoding="utf-8").splitlines():
        pmid, text, effect, _, _, drug, _, _ = line.split("|")
        key = (pmid, text, drug, effect)
        if key not in seen and drug in text and effect in text:
            seen.add(key)
            records.append({"text": text, "drug": drug, "adr": effect, "doc_id": pmid, "label": 1})
    return records


def mined(records, related, rng):
    """One negative for each record; its two contexts come from two records of the same part."""
    out, order = [], list(range(len(records)))
    rng.shuffle(order)
    for place, i in enumerate(order):
        kind = "random" if place >= len(order) // 2 else ("same_drug", "same_reaction")[place % 2]
        for _ in range(1000):
            one = records[rng.randrange(len(records))] if kind != "same_drug" else records[i]
            other = records[rng.randrange(len(records))] if kind != "same_reaction" else records[i]
            if (one["drug"].lower(), other["adr"].lower()) not in related:
                pair = {"drug_text": one["text"], "drug": one["drug"], "adr_text": other["text"], "adr": other["adr"]}
                out.append(pair | {"doc_id": records[i]["doc_id"], "label": 0, "kind": kind})
                break
    return out


def by_document(records, shares, rng):
    documents = sorted({r["doc_id"] for r in records})
    rng.shuffle(documents)
    parts, start = [], 0
    for share in shares:
        end = start + round(len(documents) * share)
        chosen = set(documents[start:end])
        parts.append([r for r in records if r["doc_id"] in chosen])
        start = end
    chosen = set(documents[start:])
    return [*parts, [r for r in records if r["doc_id"] in chosen]]


def pubtator(path):
    """(id, text, mentions, related concept pairs) of each document."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        title, abstract, mentions, relations, pmid = "", "", [], set(), ""
        for line in block.splitlines():
            if match := re.match(r"(\d+)\|([ta])\|(.*)", line):
                pmid = match[1]
                title, abstract = (match[3], abstract) if match[2] == "t" else (title, match[3])
            elif "\tCID\t" in line:
                _, _, chemical, disease = line.split("\t")[:4]
                relations.add((chemical, disease))
            elif line:
                fields = line.split("\t")
                if len(fields) >= 6:
                    mentions.append((int(fields[1]), int(fields[2]), fields[3], fields[4], set(fields[5].split("|"))))
        yield pmid, title + " " + abstract, mentions, relations


def sentences(text):
    start = 0
    for match in re.finditer(r"(?<=[.!?])\s+(?=[A-Z0-9(\[])", text):
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def bc5cdr(path):
    records = []
    for pmid, text, mentions, relations in pubtator(path):
        for start, end in sentences(text):
            inside = [m for m in mentions if start <= m[0] and m[1] <= end]
            for c_start, c_end, chemical, kind, c_ids in inside:
                if kind != "Chemical":
                    continue
                for d_start, d_end, disease, kind, d_ids in inside:
                    if kind != "Disease" or text[c_start:c_end] != chemical or text[d_start:d_end] != disease:
                        continue
                    related = any((c, d) in relations for c in c_ids for d in d_ids)
                    records.append(
                        {
                            "text": text[start:end],
                            "drug": chemical,
                            "drug_span": [c_start - start, c_end - start],
                            "adr": disease,
                            "adr_span": [d_start - start, d_end - start],
                            "doc_id": pmid,
                            "label": int(related),
                        }
                    )
    return records


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(SEED)
    records = ade(arguments.data / "ade-corpus-v2" / "DRUG-AE.rel")
    related = {(r["drug"].lower(), r["adr"].lower()) for r in records}
    train, valid, test = by_document(records, [0.8, 0.1], rng)
    write(arguments.out / "ade" / "train.jsonl", train)
    for name, part in ("valid", valid), ("test", test):
        write(arguments.out / "ade" / f"{name}.jsonl", part + mined(part, related, rng))
    train, valid = by_document(bc5cdr(arguments.data / "bc5cdr" / "CDR_TrainingSet.PubTator.txt"), [0.9], rng)
    write(arguments.out / "bc5cdr" / "train.jsonl", train)
    write(arguments.out / "bc5cdr" / "valid.jsonl", valid)
    test = bc5cdr(arguments.data / "bc5cdr" / "CDR_DevelopmentSet.PubTator.txt")
    write(arguments.out / "bc5cdr" / "test.jsonl", test)


if __name__ == "__main__":
    main()

"""Chemical x Disease pairs of one sentence, from BC5CDR's PubTator files to JSONL that `crag score` reads.

What a pharmacovigilance dump looks like: each sentence comes once for every pair in it, so that much of it
repeats. For measuring how much encoding reuse saves:

    python benches/peers/bc5cdr_pairs.py ../shared/data/bc5cdr/*.PubTator.txt > pairs.jsonl
    crag score --model demo pairs.jsonl > scored.jsonl               # stderr: encodings: N, reused: M
    crag score --model demo --no-reuse pairs.jsonl > scored.jsonl

Standard library alone. Spans are in code points of the sentence, which is what both sides' text is.
"""

import argparse
import json
import re
import sys

END = re.compile(r"[.!?](?=\s+[A-Z0-9(\"'])")


def documents(lines):
    """Yields (id, title and abstract, mentions); a mention is (start, end, surface, type)."""
    texts, mentions, number = [], [], None
    for line in lines:
        line = line.rstrip("\n")
        if not line:
            if texts:
                yield number, texts, mentions
            texts, mentions = [], []
            continue
        head = line.split("|", 2)
        if len(head) == 3 and head[0].isdigit() and head[1] in ("t", "a"):
            number = head[0]
            texts.append(head[2])
            continue
        fields = line.split("\t")
        # Relations have four fields, mentions six or (composite ones) seven.
        if len(fields) >= 6:
            mentions.append((int(fields[1]), int(fields[2]), fields[3], fields[4]))
    if texts:
        yield number, texts, mentions


def sentences(text, title_end, mentions):
    """[start, end) of each sentence: at the title's end, and at full stops that no mention spans."""
    cuts = [title_end]
    for match in END.finditer(text):
        if not any(start < match.end() < end for start, end, _, _ in mentions):
            cuts.append(match.end())
    start = 0
    for cut in sorted(set(cuts)) + [len(text)]:
        while start < cut and text[start].isspace():
            start += 1
        if start < cut:
            yield start, cut
        start = max(start, cut)


def pairs(number, text, title_end, mentions):
    for index, (start, end) in enumerate(sentences(text, title_end, mentions)):
        inside = [mention for mention in mentions if start <= mention[0] and mention[1] <= end]
        for drug in (mention for mention in inside if mention[3] == "Chemical"):
            for adr in (mention for mention in inside if mention[3] == "Disease"):
                spans = [[mention[0] - start, mention[1] - start] for mention in (drug, adr)]
                yield {
                    "id": f"{number}:{index}:{drug[0]}:{adr[0]}",
                    "text": text[start:end],
                    "drug": drug[2],
                    "drug_span": spans[0],
                    "adr": adr[2],
                    "adr_span": spans[1],
                }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="PubTator files")
    parser.add_argument("--limit", type=int, help="at most this many pairs")
    arguments = parser.parse_args()
    written = 0
    for path in arguments.files:
        with open(path, encoding="utf-8", newline="\n") as lines:
            for number, texts, mentions in documents(lines):
                # Offsets count a character between title and abstract.
                text, title_end = " ".join(texts), len(texts[0])
                for start, end, surface, _ in mentions:
                    if text[start:end] != surface:
                        sys.exit(f"{path}: document {number}: expected {surface!r} at {start}, found {text[start:end]!r}")
                for pair in pairs(number, text, title_end, mentions):
                    if arguments.limit is not None and written >= arguments.limit:
                        break
                    print(json.dumps(pair, ensure_ascii=False))
                    written += 1
    print(f"{written} pairs", file=sys.stderr)


if __name__ == "__main__":
    main()

"""Texts that no author wrote: characters from all of Unicode, special tokens and near misses, odd white space, long runs."""

import random
import unicodedata

MARKERS = ["[DRUG]", "[/DRUG]", "[ADR]", "[/ADR]"]
SPECIAL = ["[SEP]", "[CLS]", "[MASK]", "[UNK]", "[PAD]", *MARKERS]

# Controls, soft hyphens, letters whose other case is longer or another letter, marks that are none of the usual ones.
ODD = [
    *range(0x00, 0x02), *range(0x07, 0x0E), *range(0x1B, 0x20), 0x7F, 0x80, 0x85, 0x9F, 0xA0, 0xAD, 0xB5, 0xDF, 0x130, 0x131,
    0x149, 0x1C4, 0x1C5, 0x1F0, 0x345, 0x34F, 0x390, 0x3A3, 0x3C2, 0x3C3, 0x587, 0x61C, 0x1680, 0x180E, 0x1E9E, 0x1F88,
    0x1FB3, *range(0x2000, 0x2010), *range(0x2028, 0x2030), 0x205F, *range(0x2060, 0x2070), 0x212A, 0x212B, 0x3000, 0xFB00,
    0xFB01, 0xFB03, 0xFB13, 0xFE0F, 0xFEFF, 0xFFF9, 0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF, 0x1D165, 0x1D7D8, 0x1FFFE, 0xA7CB, 0xA7DC,
    0xAB70, 0x13A0, 0x13F8, 0x1C89, 0x1C8A, 0x10400, 0x10D50, 0x118A0, 0x16EA0, 0x1E900, 0xE0001, 0xE0041, 0xE0100, 0x10FFFE,
    0x10FFFF,
]  # fmt: skip

# Scripts and planes, with how often they come.
RANGES = [
    (0x21, 0x7F, 6), (0xA0, 0x250, 4), (0x250, 0x370, 2), (0x300, 0x370, 4), (0x370, 0x530, 3), (0x530, 0x600, 2),
    (0x600, 0x780, 2), (0x900, 0xE00, 2), (0xE00, 0x1100, 1), (0x1100, 0x1200, 2), (0x1200, 0x1E00, 2), (0x1AB0, 0x1B00, 1),
    (0x1DC0, 0x1E00, 1), (0x1E00, 0x2000, 3), (0x2000, 0x2C00, 3), (0x2C00, 0x3000, 2), (0x3000, 0x3400, 2), (0x3400, 0x4E00, 2),
    (0x4E00, 0xA000, 3), (0xA000, 0xAC00, 1), (0xAC00, 0xD800, 3), (0xE000, 0xF900, 1), (0xF900, 0xFB00, 2), (0xFB00, 0x10000, 2),
    (0x10000, 0x16000, 4), (0x16000, 0x1D000, 1), (0x1D000, 0x1F000, 4), (0x1F000, 0x1FC00, 3), (0x20000, 0x2A6E0, 1),
    (0x2A6E0, 0x30000, 2), (0x2F800, 0x2FA20, 2), (0x30000, 0xE0000, 2), (0xE0000, 0xE0200, 1), (0xF0000, 0x110000, 1),
]  # fmt: skip

WORDS = (
    "aspirin rash Bleeding naïve café e\u0301 A\u030angstro\u0308m STRASSE Straße ΣΊΣΥΦΟΣ Σίσυφος İstanbul ISTANBUL ıı ﬁbrosis µg μg "
    "10^6 U/m2 IL-2 中出血 患者 アスピリン 각 \u1100\u1161\u11a8 👩🏽\u200d⚕\ufe0f 🇩🇪 👨\u200d👩\u200d👧 نزيف שלום בְּרֵאשִׁית नमस्ते ก็ ไทย "
    "x\u0338 =\u0338 <\u0338 a\u0315\u0300\u05aeb"
).split(" ")

SPACES = [
    " ", "  ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u180e", "\u2000",
    "\u2003", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u2060",
]  # fmt: skip

MARKS = [0x300, 0x301, 0x308, 0x323, 0x327, 0x345, 0x5B0, 0x64B, 0x94D, 0x1D165, 0x20DD, 0x3099, 0xFE0F]
# WordPiece gives up on words of more than 100 characters, the truncation on what follows enough tokens.
RUNS = [33, 49, 50, 51, 98, 99, 100, 101, 102, 150, 199, 200, 201, 220]
WHITE_SPACE = "".join(map(chr, [*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]))


def is_blank(text):
    """Whether nothing but Unicode's White_Space is in it; Python's `strip` takes more for white space."""
    return not text.strip(WHITE_SPACE)


def code_points():
    """All that are assigned, not private, and no white space: a text of their own."""
    everything = (chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    return [c for c in everything if unicodedata.category(c) not in ("Cn", "Co") and not is_blank(c)]


def character(draw):
    if draw.random() < 0.2:
        return chr(draw.choice(ODD))
    while True:
        first, end, _ = draw.choices(RANGES, [often for _, _, often in RANGES])[0]
        code = draw.randrange(first, end)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def near_miss(draw):
    """A special token that is not quite one."""
    token = draw.choice(SPECIAL)
    at = draw.randrange(len(token) + 1)
    between = draw.choice([" ", "\u200b", "\u0301", "\x00", "\xad", "[", "/"])
    return draw.choice([token.lower(), token.swapcase(), token[:at] + between + token[at:]])


def piece(draw):
    kinds = [
        (6, lambda: "".join(character(draw) for _ in range(draw.choice([1, 1, 2, 3, 6])))),
        (5, lambda: draw.choice(WORDS)),
        (2, lambda: draw.choice(SPECIAL)),
        (1, lambda: near_miss(draw)),
        (1, lambda: draw.choice("abcXYZ") + "".join(chr(draw.choice(MARKS)) for _ in range(draw.randrange(1, 5)))),
        (1, lambda: draw.choice(["a", "é", "e\u0301", "中", "𝐀", "\u0301", "ß", "İ", "a\u200b", "1", "각", "💊"]) * draw.choice(RUNS)),
        (1, lambda: "".join(draw.choice("!?.,-_/\\()[]{}<>#$%^&*+=~`|\"'…–—«»¿。、，") for _ in range(draw.randrange(1, 6)))),
        (1, lambda: draw.choice(SPACES) * draw.randrange(1, 4)),
        (1, lambda: "".join(chr(draw.randrange(0x21, 0x7F)) for _ in range(draw.randrange(1, 10)))),
        (1, lambda: draw.choice(WORDS) + character(draw) + draw.choice(WORDS)),
    ]
    return draw.choices([make for _, make in kinds], [often for often, _ in kinds])[0]()


def short(draw):
    """Up to twenty pieces, with white space between some of them."""
    while True:
        between = ["", " ", " ", " ", draw.choice(SPACES)]
        text = "".join(piece(draw) + draw.choice(between) for _ in range(draw.randrange(1, 20)))
        if not is_blank(text) and text.strip():
            return text


def long(draw):
    """Longer than a model takes, some of it of one kind."""
    length = draw.choice([600, 1500, 4000, 4100, 5000, 9000, 70_000, 140_000])
    kinds = [
        lambda: piece(draw) + draw.choice(["", " "]),
        lambda: draw.choice("aZ7 \t\n") * draw.choice([1, 3, 217, 1000, 20_000]) + draw.choice(["", "é", "[SEP]", "[/DRUG]", "-", "\x00"]),
        lambda: draw.choice(["ab", "-", "[", "]", "[DRUG]", "[/DRUG]", "[ADR", "/ADR]", " ", "\t", "中", "\u0301", "x" * 300, " " * 300]),
        lambda: draw.choice(["aspirin ", "rash ", "e\u0301", "\u0327\u0301 ", "; ", "\u0338", "=", "<"]),
        lambda: draw.choice(["\u200b", "\x00", "\xad", "\u0301", "\ufeff"]) * draw.choice([1, 500, 3000]) + draw.choice(["a", " ", "b "]),
        lambda: draw.choice(["中", "国", "か", "각", "a", "。", " "]) * draw.randrange(1, 40),
    ]
    while True:
        make, text = draw.choice(kinds), ""
        while len(text) < length:
            text += make()
        if not is_blank(text):
            return text


def mention(draw, text):
    """Words of the text and where they are, near its beginning, its end, or anywhere."""
    while True:
        at = draw.choice([draw.randrange(len(text)), min(draw.randrange(60), len(text) - 1), max(0, len(text) - draw.randrange(1, 60))])
        end = at + draw.choice([1, 1, 2, 3, 5, 8, 20, 100, 400])
        if not is_blank(text[at:end]):
            return text[at:end], [at, min(end, len(text))]


def record(draw, make):
    """A pair with one text or two, its entities with spans or without."""
    if draw.random() < 0.5:
        texts = {"text": make(draw)}
    else:
        texts = {"drug_text": make(draw), "adr_text": make(draw)}
    found = dict(texts)
    for side in ["drug", "adr"]:
        entity, span = mention(draw, texts.get(f"{side}_text", texts.get("text")))
        found[side] = entity
        # Without a span every occurrence is marked, of one letter in a long text too many.
        if draw.random() < 0.3 or len(entity) < 3 and make is long:
            found[f"{side}_span"] = span
    return found


def records(seed, count, make):
    draw = random.Random(seed)
    found = []
    while len(found) < count:
        pair = record(draw, make)
        if all(len(marked(pair, side)[0]) < 2_000_000 for side in ["drug", "adr"]):
            found.append(pair)
    return found


def marked(pair, side):
    """One side's text with the markers of the model card, and from where to where the first marked mention reaches."""
    text, entity, marker = pair.get(f"{side}_text", pair.get("text")), pair[side], side.upper()
    inner = f"[{marker}] {entity} [/{marker}]"
    span = pair.get(f"{side}_span")
    if span:
        assert text[span[0] : span[1]] == entity
        return text[: span[0]] + inner + text[span[1] :], (span[0], span[0] + len(inner))
    at = text.index(entity)
    return text.replace(entity, inner), (at, at + len(inner))

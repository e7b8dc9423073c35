"""Random members of the model family: odd sizes, every pooling and view, heads of one number to sixty-five, weights of extreme sizes."""

import json
import random
from dataclasses import dataclass, field

import torch
from forward import ACTIVATIONS, Network
from safetensors.torch import save_file

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")
VIEWS = ["bilinear", "drug", "adr", "product", "abs_diff"]
STORAGE = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# What is unusual about the weights.
REGIMES = ["usual", "sharp", "large intermediate", "tiny", "subnormal", "constant rows", "wide logits", "large norms", "huge", "usual"]


@dataclass
class Spec:
    seed: int
    regime: str
    heads: int
    head_width: int
    layers: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    positions: int
    max_length: int
    types: int
    bert_pooler: bool
    pooling: str
    pooling_heads: int
    pooling_bias: bool
    words: int
    markers: bool
    storage: str
    activation: str
    views: list
    # Steps of the head's parts: ("linear", inputs, outputs, has bias), ("norm", width), ("activation",) or ("dropout",).
    projection: list = field(default_factory=list)
    classifier: list = field(default_factory=list)
    bilinear_outputs: int = 1
    bilinear_bias: bool = True
    logits: tuple = (0.0, 1.5)

    @property
    def hidden_size(self):
        return self.heads * self.head_width

    @property
    def representation(self):
        linear = [step for step in self.projection if step[0] == "linear"]
        return linear[-1][2] if linear else self.hidden_size

    @property
    def vocabulary(self):
        return SPECIAL + [f"q{chr(97 + index // 26)}{chr(97 + index % 26)}" for index in range(self.words)]


def draw_spec(seed):
    draw = random.Random(1000 + seed)
    chance = lambda of: draw.random() < of  # noqa: E731
    head_width = draw.choice([1, 2, 3, 5, 7, 8, 12, 16, 17, 32, 33, 64, 65])
    heads = draw.randint(2, 40) if head_width == 1 else draw.randint(1, max(1, min(24, 200 // head_width)))
    hidden = heads * head_width
    divisors = [number for number in range(1, hidden + 1) if hidden % number == 0]
    max_length = draw.choice([512, 512, 128, 300, 64, 40])
    regime = REGIMES[seed % len(REGIMES)]
    spec = Spec(
        seed=seed,
        regime=regime,
        heads=heads,
        head_width=head_width,
        layers=draw.randint(1, 4),
        intermediate_size=draw.choice([1, 3, 4 * hidden, 2 * hidden + 1, draw.randrange(1, 300) | 1, 255, 257, 513]),
        hidden_act=draw.choice(["gelu", *ACTIVATIONS]),
        layer_norm_eps=draw.choice([1e-12, 1e-12, 1e-5, 1e-6, 1e-3, 0.1]),
        positions=max(max_length, draw.choice([max_length, 512, 513])),
        max_length=max_length,
        types=draw.choice([1, 2, 2, 3]),
        bert_pooler=chance(0.5),
        pooling=draw.choice(["attention", "attention", "attention", "mean", "cls"]),
        pooling_heads=draw.choice([heads for heads in divisors if heads <= 8] if chance(0.85) else divisors),
        pooling_bias=chance(0.8),
        words=draw.choice([2, 3, 5, 20, 100, 333]),
        markers=chance(0.75),
        storage="f32" if regime in ["huge", "subnormal"] else draw.choice(["f32"] * 5 + ["f16", "bf16"]),
        activation=draw.choice(["gelu", *ACTIVATIONS]),
        views=draw.sample(VIEWS, draw.randint(1, len(VIEWS))),
        bilinear_bias=chance(0.8),
        logits=(0, 25) if regime == "wide logits" else draw.choice([(0, 1.5), (-8, 2), (-4, 2)]),
    )
    draw_head(spec, draw)
    return spec


def draw_head(spec, draw):
    chance = lambda of: draw.random() < of  # noqa: E731
    fusion, bias = draw.choice([3, 5, 8, 17, 31, 63, 64, 65, 100, 255, 256, 257]), chance(0.8)
    linear = ("linear", spec.hidden_size, fusion, bias)
    norm, activation = ("norm", fusion), ("activation",)
    projections = [
        [linear, norm, activation],
        [linear, norm, activation],
        [linear],
        [linear, activation],
        [linear, norm],
        [linear, activation, norm],
        [("linear", spec.hidden_size, 37, bias), activation, ("linear", 37, fusion, True), norm, activation],
    ]
    # None at all: the pooled numbers are the representation.
    spec.projection = draw.choice(projections + [[]] * (spec.hidden_size <= 130))
    width = spec.representation
    spec.bilinear_outputs = width if chance(0.6) else draw.choice([1, 2, 7, 19, 33, 64])
    width = sum(spec.bilinear_outputs if view == "bilinear" else width for view in spec.views)
    steps = [("norm", width)] if chance(0.1) else []
    for _ in range(draw.randrange(5)):
        outputs = draw.choice([5, 7, 16, 33, 64, 129])
        norm = ("norm", outputs)
        after = draw.choice([[norm, activation], [activation], [activation, norm], [activation, ("dropout",)]])
        steps += [("linear", width, outputs, chance(0.8)), *after]
        width = outputs
    spec.classifier = [*steps, ("linear", width, 1, True)]


def draw_weights(spec):
    """By name, as they are stored."""
    generator = torch.Generator().manual_seed(77 + spec.seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    hidden, regime, weights = spec.hidden_size, spec.regime, {}

    def linear(name, inputs, outputs, has_bias=True, gain=1.0, bias=0.03):
        weights[f"{name}.weight"] = normal(outputs, inputs) * gain / inputs**0.5
        if has_bias:
            weights[f"{name}.bias"] = normal(outputs) * bias

    def norm(name, width, scale=1.0):
        weights[f"{name}.weight"] = (1 + 0.1 * normal(width)) * scale
        weights[f"{name}.bias"] = 0.03 * normal(width) * scale**0.5

    def steps(name, of):
        for index, step in enumerate(of):
            if step[0] == "linear":
                linear(f"{name}.{index}", *step[1:])
            elif step[0] == "norm":
                norm(f"{name}.{index}", step[1])

    scale = 30.0 if regime == "large norms" else 1.0
    for side in ["drug", "adr"]:
        encoder = f"{side}_encoder"
        rows = {
            "word": normal(len(spec.vocabulary) + 4 * spec.markers, hidden),
            "position": 0.3 * normal(spec.positions, hidden),
            "token_type": 0.1 * normal(spec.types, hidden),
        }
        for kind, embeddings in rows.items():
            if regime in ["tiny", "huge"]:
                embeddings *= 1e-4 if regime == "tiny" else 1e16
            elif regime == "constant rows":
                embeddings.mul_(1e-3).add_(1.0)
            elif regime == "subnormal":
                embeddings[:, ::2] *= 1e-39
            weights[f"{encoder}.embeddings.{kind}_embeddings.weight"] = embeddings
        norm(f"{encoder}.embeddings.LayerNorm", hidden, scale)
        for layer in range(spec.layers):
            name = f"{encoder}.encoder.layer.{layer}"
            sharp = 14.0 if regime == "sharp" else 1.2
            large = 10.0 if regime == "large intermediate" else 1.0
            linear(f"{name}.attention.self.query", hidden, hidden, gain=sharp)
            linear(f"{name}.attention.self.key", hidden, hidden, gain=sharp)
            linear(f"{name}.attention.self.value", hidden, hidden)
            linear(f"{name}.attention.output.dense", hidden, hidden, gain=0.25)
            norm(f"{name}.attention.output.LayerNorm", hidden, scale)
            linear(f"{name}.intermediate.dense", hidden, spec.intermediate_size, gain=large, bias=0.1 * large)
            linear(f"{name}.output.dense", spec.intermediate_size, hidden, gain=0.25)
            norm(f"{name}.output.LayerNorm", hidden, scale)
            if regime == "subnormal":
                weights[f"{name}.attention.self.value.weight"][::2] *= 1e-39
                weights[f"{name}.intermediate.dense.weight"][::3] *= 1e-40
        if spec.bert_pooler:
            linear(f"{encoder}.pooler.dense", hidden, hidden)
        if spec.pooling == "attention":
            pooler = f"{side}_pooler"
            weights[f"{pooler}.query"] = 3 * normal(1, 1, hidden)
            weights[f"{pooler}.attention.in_proj_weight"] = normal(3 * hidden, hidden) / hidden**0.5
            if spec.pooling_bias:
                weights[f"{pooler}.attention.in_proj_bias"] = 0.1 * normal(3 * hidden)
            linear(f"{pooler}.attention.out_proj", hidden, hidden, spec.pooling_bias)
        steps(f"{side}_projection", spec.projection)
    if "bilinear" in spec.views:
        width = spec.representation
        weights["bilinear.weight"] = normal(spec.bilinear_outputs, width, width) * 1.5 / width
        if spec.bilinear_bias:
            weights["bilinear.bias"] = 0.03 * normal(spec.bilinear_outputs)
    steps("classifier", spec.classifier)
    return {name: tensor.to(STORAGE[spec.storage]) for name, tensor in weights.items()}


@dataclass
class Pair:
    """`fields`: as crag reads it."""

    fields: dict
    token_ids: tuple


def draw_pairs(spec):
    """Texts of 1 to 40 words, each length once, some of the model's length and above, and some twice."""
    draw = random.Random(5 + spec.seed)
    words = spec.vocabulary[len(SPECIAL) :]
    drug, adr = words[:2]
    others = words[2:] or words
    first_marker = len(spec.vocabulary)

    def text(length):
        found = [draw.choice(others) for _ in range(length)]
        for at, word in zip(draw.sample(range(length), 2), [drug, adr]):
            found[at] = word
        return found

    def token_ids(text, entity, side):
        found = [CLS]
        for word in text:
            own = [len(SPECIAL) + words.index(word)]
            if word == entity and spec.markers:
                own = [first_marker + 2 * side, *own, first_marker + 2 * side + 1]
            found += own
        return (*found[: spec.max_length - 1], SEP)

    def pair(number, drug_text, adr_text, drug, adr):
        if drug_text is adr_text:
            fields = {"text": " ".join(drug_text)}
        else:
            fields = {"drug_text": " ".join(drug_text), "adr_text": " ".join(adr_text)}
        ids = token_ids(drug_text, drug, 0), token_ids(adr_text, adr, 1)
        return Pair({"id": number, **fields, "drug": drug, "adr": adr}, ids)

    longest = spec.max_length
    lengths = [*range(2, 41), longest - 4, longest - 3, longest, longest + 30, draw.randint(41, longest + 41)]
    one = [drug]
    pairs = [pair(0, one, one, drug, drug)]
    for number, length in enumerate(lengths, 1):
        drug_text = text(length)
        adr_text = drug_text if draw.random() < 0.7 else text(draw.randint(2, 40))
        pairs.append(pair(number, drug_text, adr_text, drug, adr))
    for again in draw.sample(pairs[1:], 4):
        pairs.append(Pair({**again.fields, "id": len(pairs)}, again.token_ids))
    return pairs


def calibrate(spec, weights, pairs):
    """Gives the logits of `pairs` the mean and deviation of `spec.logits`, as `calibrate` of the fixtures does; returns them in f64."""
    network = Network(spec, weights, torch.float64)
    drug, adr = network.pooled_pairs(pairs)

    def set_to(name, tensor):
        weights[name] = tensor.to(STORAGE[spec.storage])
        network.weights[name] = weights[name].double()

    def center(name, found):
        if f"{name}.bias" in weights:
            set_to(f"{name}.bias", network.weights[f"{name}.bias"] - 0.9 * found.mean(0))

    if spec.projection:
        for side, pooled in [("drug", drug), ("adr", adr)]:
            center(f"{side}_projection.0", network.linear(pooled, f"{side}_projection.0"))
    first = next(index for index, step in enumerate(spec.classifier) if step[0] == "linear")
    last = f"classifier.{len(spec.classifier) - 1}"
    if first < len(spec.classifier) - 1:
        found = network.steps(drug, "drug_projection", spec.projection), network.steps(adr, "adr_projection", spec.projection)
        center(f"classifier.{first}", network.steps(network.views(*found), "classifier", spec.classifier[: first + 1]))
    logits = network.head(drug, adr)
    mean, deviation = spec.logits
    factor = min(deviation / max(float(logits.std()), 1e-300), 1e4)
    set_to(f"{last}.weight", network.weights[f"{last}.weight"] * factor)
    set_to(f"{last}.bias", (network.weights[f"{last}.bias"] - logits.mean()) * factor + mean)
    return network.head(drug, adr)


def write(folder, spec, weights):
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    config = {
        "model_type": "bert",
        "vocab_size": len(spec.vocabulary),
        "hidden_size": spec.hidden_size,
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "intermediate_size": spec.intermediate_size,
        "max_position_embeddings": spec.positions,
        "type_vocab_size": spec.types,
        "hidden_act": spec.hidden_act,
        "layer_norm_eps": spec.layer_norm_eps,
    }
    (folder / "config.json").write_text(json.dumps(config))
    settings = {
        "pooling": spec.pooling,
        "views": spec.views,
        "markers": spec.markers,
        "max_length": spec.max_length,
        "threshold": 0.5,
        "activation": spec.activation,
    }
    if spec.pooling == "attention":
        settings["pooling_heads"] = spec.pooling_heads
    if spec.projection:
        settings["projection_activation"] = spec.projection[-1][0] == "activation"
    (folder / "crag.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in spec.vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))

"""The network of `networks.Spec`, in whatever precision: f64 is the truth, f32 is what PyTorch would answer."""

import math

import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "tanh": torch.tanh,
}


class Network:
    """One pair at a time, without padding."""

    def __init__(self, spec, weights, dtype):
        self.spec = spec
        self.weights = {name: tensor.float().to(dtype) for name, tensor in weights.items()}

    def linear(self, x, name):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, x, name, eps):
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    def steps(self, x, name, of):
        for index, (kind, *_) in enumerate(of):
            if kind == "linear":
                x = self.linear(x, f"{name}.{index}")
            elif kind == "norm":
                x = self.norm(x, f"{name}.{index}", 1e-5)
            elif kind == "activation":
                x = ACTIVATIONS[self.spec.activation](x)
        return x

    @staticmethod
    def attention(query, key, value, heads):
        """Shapes (queries, width) and (keys, width)."""
        split = lambda x: x.view(len(x), heads, -1).transpose(0, 1)  # noqa: E731
        query, key, value = split(query), split(key), split(value)
        weights = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(query.shape[-1]), -1)
        return (weights @ value).transpose(0, 1).flatten(1)

    @torch.no_grad()
    def pooled(self, side, token_ids):
        spec, eps = self.spec, self.spec.layer_norm_eps
        name = f"{side}_encoder.embeddings"
        x = self.weights[f"{name}.word_embeddings.weight"][token_ids]
        x = x + self.weights[f"{name}.token_type_embeddings.weight"][0]
        x = x + self.weights[f"{name}.position_embeddings.weight"][: len(token_ids)]
        x = self.norm(x, f"{name}.LayerNorm", eps)
        for layer in range(spec.layers):
            name = f"{side}_encoder.encoder.layer.{layer}"
            parts = [self.linear(x, f"{name}.attention.self.{part}") for part in ["query", "key", "value"]]
            context = self.linear(self.attention(*parts, spec.heads), f"{name}.attention.output.dense")
            x = self.norm(context + x, f"{name}.attention.output.LayerNorm", eps)
            hidden = ACTIVATIONS[spec.hidden_act](self.linear(x, f"{name}.intermediate.dense"))
            x = self.norm(self.linear(hidden, f"{name}.output.dense") + x, f"{name}.output.LayerNorm", eps)
        if spec.pooling == "cls":
            return x[0]
        if spec.pooling == "mean":
            return x.mean(0)
        name = f"{side}_pooler"
        weight = self.weights[f"{name}.attention.in_proj_weight"].chunk(3)
        bias = self.weights.get(f"{name}.attention.in_proj_bias")
        bias = [None] * 3 if bias is None else bias.chunk(3)
        given = [self.weights[f"{name}.query"][0], x, x]
        query, key, value = (F.linear(*part) for part in zip(given, weight, bias))
        return self.linear(self.attention(query, key, value, spec.pooling_heads), f"{name}.attention.out_proj")[0]

    def pooled_pairs(self, pairs):
        """Both sides' pooled numbers; many pairs have a side in common."""
        known, found = {}, []
        for side, index in [("drug", 0), ("adr", 1)]:
            keys = [(side, *pair.token_ids[index]) for pair in pairs]
            for key in keys:
                if key not in known:
                    known[key] = self.pooled(side, list(key[1:]))
            found.append(torch.stack([known[key] for key in keys]))
        return found

    @torch.no_grad()
    def views(self, drug, adr):
        views = {
            "bilinear": lambda: F.bilinear(drug, adr, self.weights["bilinear.weight"], self.weights.get("bilinear.bias")),
            "drug": lambda: drug,
            "adr": lambda: adr,
            "product": lambda: drug * adr,
            "abs_diff": lambda: (drug - adr).abs(),
        }
        return torch.cat([views[view]() for view in self.spec.views], -1)

    @torch.no_grad()
    def head(self, drug, adr):
        drug = self.steps(drug, "drug_projection", self.spec.projection)
        adr = self.steps(adr, "adr_projection", self.spec.projection)
        return self.steps(self.views(drug, adr), "classifier", self.spec.classifier)[:, 0]

    def logits(self, pairs):
        return self.head(*self.pooled_pairs(pairs))

"""Pooling, projection, fusion and classifier in PyTorch f32, as fast as we could write them.

The same for every peer that runs only the encoders, so that none is slowed by `nn.Bilinear` or by
keys and values that one query does not need: the pooling query never changes, so scores are one
product with a [hidden, heads] matrix, and values are computed after the weighted mean.
"""

import torch
import torch.nn.functional as F


class Head:
    def __init__(self, model):
        self.views = model.views
        self.classifier = model.classifier
        self.sides = {}
        for side in ("drug", "adr"):
            pooler = getattr(model, f"{side}_pooler")
            attention = pooler.attention
            heads, width = attention.num_heads, attention.head_dim
            query, key, value = attention.in_proj_weight.chunk(3)
            bias = attention.in_proj_bias.chunk(3)
            fixed = (F.linear(pooler.query.view(-1), query, bias[0]) / width**0.5).view(heads, width)
            scores = torch.einsum("hw,hwi->ih", fixed, key.view(heads, width, -1)).contiguous()
            self.sides[side] = (
                scores,
                value.view(heads, width, -1).contiguous(),
                bias[2],
                attention.out_proj,
                getattr(model, f"{side}_projection"),
            )
        weight = model.bilinear.weight
        self.bilinear = weight.permute(1, 0, 2).reshape(weight.shape[1], -1).contiguous()
        self.bilinear_shape = weight.shape[0], weight.shape[2]
        self.bilinear_bias = model.bilinear.bias

    def represent(self, side, hidden, mask):
        """`hidden`: [B, S, H]; `mask`: [B, S]. Returns [B, fusion]."""
        scores, value, bias, out_proj, projection = self.sides[side]
        logits = (hidden @ scores).masked_fill(mask.unsqueeze(-1) == 0, float("-inf"))
        mean = logits.softmax(1).transpose(1, 2) @ hidden
        pooled = torch.einsum("bhi,hwi->bhw", mean, value).flatten(1) + bias
        return projection(out_proj(pooled))

    def classify(self, drug, adr):
        views = {
            "bilinear": lambda: torch.bmm(
                (drug @ self.bilinear).view(-1, *self.bilinear_shape), adr.unsqueeze(-1)
            ).squeeze(-1)
            + self.bilinear_bias,
            "drug": lambda: drug,
            "adr": lambda: adr,
            "product": lambda: drug * adr,
            "abs_diff": lambda: (drug - adr).abs(),
        }
        return self.classifier(torch.cat([views[view]() for view in self.views], dim=-1)).squeeze(-1)

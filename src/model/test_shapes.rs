//! Names and shapes of checkpoints that exist nowhere else, for the tests of this room: none needs weights.

use candle_core::DType;

use super::roles::{Roles, RolesError};
use crate::checkpoint::TensorInfo;

pub(super) struct Sizes {
    pub hidden: usize,
    pub layers: usize,
    pub intermediate: usize,
    pub vocabulary: usize,
    pub positions: usize,
    pub fusion: usize,
}

pub(super) const SMALL: Sizes = Sizes {
    hidden: 128,
    layers: 2,
    intermediate: 96,
    vocabulary: 50,
    positions: 40,
    fusion: 16,
};
/// BioLinkBERT-base with four markers.
pub(super) const CARD: Sizes = Sizes {
    hidden: 768,
    layers: 12,
    intermediate: 3072,
    vocabulary: 28_899,
    positions: 512,
    fusion: 256,
};

pub(super) type Shapes = Vec<(String, Vec<usize>)>;

pub(super) fn linear(name: &str, out: usize, input: usize) -> Shapes {
    vec![
        (format!("{name}.weight"), vec![out, input]),
        (format!("{name}.bias"), vec![out]),
    ]
}

pub(super) fn norm(name: &str, width: usize) -> Shapes {
    vec![
        (format!("{name}.weight"), vec![width]),
        (format!("{name}.bias"), vec![width]),
    ]
}

pub(super) fn encoder(prefix: &str, s: &Sizes) -> Shapes {
    let mut t = vec![
        (
            format!("{prefix}.embeddings.word_embeddings.weight"),
            vec![s.vocabulary, s.hidden],
        ),
        (
            format!("{prefix}.embeddings.position_embeddings.weight"),
            vec![s.positions, s.hidden],
        ),
        (
            format!("{prefix}.embeddings.token_type_embeddings.weight"),
            vec![2, s.hidden],
        ),
    ];
    t.extend(norm(&format!("{prefix}.embeddings.LayerNorm"), s.hidden));
    for i in 0..s.layers {
        let layer = format!("{prefix}.encoder.layer.{i}");
        for name in ["query", "key", "value"] {
            t.extend(linear(&format!("{layer}.attention.self.{name}"), s.hidden, s.hidden));
        }
        t.extend(linear(&format!("{layer}.attention.output.dense"), s.hidden, s.hidden));
        t.extend(norm(&format!("{layer}.attention.output.LayerNorm"), s.hidden));
        t.extend(linear(&format!("{layer}.intermediate.dense"), s.intermediate, s.hidden));
        t.extend(linear(&format!("{layer}.output.dense"), s.hidden, s.intermediate));
        t.extend(norm(&format!("{layer}.output.LayerNorm"), s.hidden));
    }
    t.extend(linear(&format!("{prefix}.pooler.dense"), s.hidden, s.hidden));
    t
}

pub(super) fn pooler(prefix: &str, s: &Sizes) -> Shapes {
    let mut t = vec![
        (format!("{prefix}.query"), vec![1, 1, s.hidden]),
        (
            format!("{prefix}.attention.in_proj_weight"),
            vec![3 * s.hidden, s.hidden],
        ),
        (format!("{prefix}.attention.in_proj_bias"), vec![3 * s.hidden]),
    ];
    t.extend(linear(&format!("{prefix}.attention.out_proj"), s.hidden, s.hidden));
    t
}

/// A checkpoint as the card describes it, `head` aside.
pub(super) fn body(s: &Sizes) -> Shapes {
    [
        encoder("drug_encoder", s),
        encoder("adr_encoder", s),
        pooler("drug_pooler", s),
        pooler("adr_pooler", s),
    ]
    .concat()
}

pub(super) fn card_head(s: &Sizes) -> Shapes {
    let f = s.fusion;
    let mut t = Vec::new();
    for side in ["drug", "adr"] {
        t.extend(linear(&format!("{side}_projection.0"), f, s.hidden));
        t.extend(norm(&format!("{side}_projection.1"), f));
    }
    t.push(("bilinear.weight".into(), vec![f, f, f]));
    t.push(("bilinear.bias".into(), vec![f]));
    t.extend(linear("classifier.0", f, 2 * f));
    t.extend(norm("classifier.1", f));
    t.extend(linear("classifier.4", f / 2, f));
    t.extend(linear("classifier.7", 1, f / 2));
    t
}

pub(super) fn infos(shapes: Shapes) -> Vec<TensorInfo> {
    shapes
        .into_iter()
        .map(|(name, shape)| TensorInfo {
            name,
            shape,
            dtype: DType::F32,
            file: "model.safetensors".into(),
        })
        .collect()
}

pub(super) fn read(shapes: Shapes) -> Result<Roles, RolesError> {
    Roles::read(&infos(shapes))
}

pub(super) fn replace(shapes: &mut Shapes, name: &str, shape: &[usize]) {
    let entry = shapes
        .iter_mut()
        .find(|(n, _)| n == name)
        .expect("a tensor of that name");
    entry.1 = shape.to_vec();
}

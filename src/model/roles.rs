//! Which tensor of a checkpoint plays which part, read off names and shapes.
//!
//! Encoder and attention pooler names are fixed by the libraries that wrote them (Hugging Face's
//! `BertModel`, PyTorch's `nn.MultiheadAttention`). Names in the head are the author's own, so there
//! shapes decide: the 3-D tensor is the bilinear, modules named after a side are that side's
//! projection, the rest is the classifier, ordered by `Sequential` index or by how widths chain.
//! Every tensor gets exactly one role and every role its tensors, or reading fails and names what is left over or missing.

mod checks;
mod head_order;
mod reader;

use crate::Side;
use crate::words::shortened;

/// A linear layer's tensors: weight `[out_features, in_features]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearRole {
    pub weight: String,
    pub bias: Option<String>,
    pub in_features: usize,
    pub out_features: usize,
}

/// A LayerNorm's tensors, both `[width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NormRole {
    pub weight: String,
    pub bias: String,
    pub width: usize,
}

/// One BERT layer.
#[derive(Clone, Debug)]
pub struct LayerRoles {
    pub query: LinearRole,
    pub key: LinearRole,
    pub value: LinearRole,
    pub attention_output: LinearRole,
    pub attention_norm: NormRole,
    pub intermediate: LinearRole,
    pub output: LinearRole,
    pub output_norm: NormRole,
}

/// One BERT encoder.
#[derive(Clone, Debug)]
pub struct EncoderRoles {
    pub word_embeddings: String,
    pub position_embeddings: String,
    pub token_type_embeddings: String,
    pub embeddings_norm: NormRole,
    pub layers: Vec<LayerRoles>,
    /// BERT's own `[CLS]` pooler: part of the backbone's file, not of the scorer's arithmetic.
    pub bert_pooler: Option<LinearRole>,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub hidden_size: usize,
}

/// `nn.MultiheadAttention` with a learned query.
#[derive(Clone, Debug)]
pub struct PoolerRoles {
    pub query: String,
    pub in_proj_weight: String,
    pub in_proj_bias: Option<String>,
    pub out_proj: LinearRole,
}

/// `nn.Bilinear`: weight `[outputs, width, width]`.
#[derive(Clone, Debug)]
pub struct BilinearRole {
    pub weight: String,
    pub bias: Option<String>,
    pub outputs: usize,
    pub width: usize,
}

/// One step of a projection or of the classifier.
#[derive(Clone, Debug, PartialEq)]
pub enum HeadStep {
    Linear(LinearRole),
    Norm(NormRole),
    Activation,
}

/// Every role of a dual encoder, filled.
#[derive(Clone, Debug)]
pub struct Roles {
    pub(super) encoders: [EncoderRoles; 2],
    pub(super) poolers: Option<[PoolerRoles; 2]>,
    pub(super) projections: [Vec<HeadStep>; 2],
    pub bilinear: Option<BilinearRole>,
    pub classifier: Vec<HeadStep>,
    /// Where the place of an activation is a guess that other indices would settle, in words.
    pub guesses: Vec<String>,
    /// What is guessed about the projections' end, which the key `projection_activation` would settle.
    pub end_guess: Option<String>,
}

/// Why a checkpoint's tensors do not make up a dual encoder.
#[derive(Debug, thiserror::Error)]
pub enum RolesError {
    #[error("the checkpoint does not make up a dual encoder{}{}; is it a CRAG checkpoint?", list("; roles left empty", .empty), list("; tensors left over", .unclaimed))]
    Unexplained { empty: Vec<String>, unclaimed: Vec<String> },
    #[error("tensor \"{tensor}\": expected {expected}, found {found:?}{hint}")]
    Shape {
        tensor: String,
        expected: String,
        found: Vec<usize>,
        hint: &'static str,
    },
    #[error("{part}: {reason}")]
    Order { part: String, reason: String },
}

fn list(title: &str, items: &[String]) -> String {
    const SHOWN: usize = 12;
    // Names are a file's, as long as that wants.
    const LONGEST: usize = 200;
    let shown: Vec<String> = items.iter().take(SHOWN).map(|item| shortened(item, LONGEST)).collect();
    match items.len() {
        0 => String::new(),
        n if n <= SHOWN => format!("{title}: {}", shown.join(", ")),
        n => format!("{title}: {} and {} more", shown.join(", "), n - SHOWN),
    }
}

impl Roles {
    pub fn encoder(&self, side: Side) -> &EncoderRoles {
        &self.encoders[side as usize]
    }

    /// The attention pooler of `side`, if the checkpoint has poolers.
    pub fn pooler(&self, side: Side) -> Option<&PoolerRoles> {
        self.poolers.as_ref().map(|p| &p[side as usize])
    }

    pub fn projection(&self, side: Side) -> &[HeadStep] {
        &self.projections[side as usize]
    }

    /// Whether the projections end in an activation; none where there are no projections.
    pub fn projections_end_active(&self) -> Option<bool> {
        let last = self.projection(Side::Drug).last();
        last.map(|step| matches!(step, HeadStep::Activation))
    }

    /// The most tokens that both encoders have positions for.
    pub fn positions(&self) -> usize {
        let [drug, adr] = &self.encoders;
        drug.max_position_embeddings.min(adr.max_position_embeddings)
    }

    /// Width of a representation: what the projections put out, or the hidden size without any.
    pub fn representation_width(&self) -> usize {
        output_width(self.projection(Side::Drug)).unwrap_or(self.encoder(Side::Drug).hidden_size)
    }

    /// Width of the classifier's input, all views together.
    pub fn classifier_width(&self) -> usize {
        input_width(&self.classifier).unwrap_or(0)
    }

    /// What each tensor is for, in the order of the forward pass.
    pub fn assignments(&self) -> Vec<Assignment> {
        let mut all = Vec::new();
        for side in Side::BOTH {
            let part = format!("{} encoder", side.name());
            let mut add = |place, role: String, tensor: &String| all.push(Assignment::new(&part, role, tensor, place));
            let encoder = self.encoder(side);
            add(Place::Embeddings, "word embeddings".into(), &encoder.word_embeddings);
            add(
                Place::Embeddings,
                "position embeddings".into(),
                &encoder.position_embeddings,
            );
            add(
                Place::Embeddings,
                "token type embeddings".into(),
                &encoder.token_type_embeddings,
            );
            encoder
                .embeddings_norm
                .each(|w, n| add(Place::Embeddings, format!("embeddings layer norm {w}"), n));
            for (i, layer) in encoder.layers.iter().enumerate() {
                for (role, linear) in [
                    ("query", &layer.query),
                    ("key", &layer.key),
                    ("value", &layer.value),
                    ("attention output", &layer.attention_output),
                    ("intermediate", &layer.intermediate),
                    ("output", &layer.output),
                ] {
                    linear.each(|w, n| add(Place::Layer(i), format!("layer {i} {role} {w}"), n));
                }
                layer
                    .attention_norm
                    .each(|w, n| add(Place::Layer(i), format!("layer {i} attention layer norm {w}"), n));
                layer
                    .output_norm
                    .each(|w, n| add(Place::Layer(i), format!("layer {i} output layer norm {w}"), n));
            }
            if let Some(pooler) = &encoder.bert_pooler {
                pooler.each(|w, n| add(Place::Head, format!("BERT pooler {w} (not used)"), n));
            }
        }
        for side in Side::BOTH {
            if let Some(pooler) = self.pooler(side) {
                let part = format!("{} pooling", side.name());
                let mut add =
                    |role: String, tensor: &String| all.push(Assignment::new(&part, role, tensor, Place::Head));
                add("query".into(), &pooler.query);
                add("attention in weight".into(), &pooler.in_proj_weight);
                if let Some(bias) = &pooler.in_proj_bias {
                    add("attention in bias".into(), bias);
                }
                pooler.out_proj.each(|w, n| add(format!("attention out {w}"), n));
            }
        }
        for side in Side::BOTH {
            add_steps(&mut all, &format!("{} projection", side.name()), self.projection(side));
        }
        if let Some(bilinear) = &self.bilinear {
            let mut add = |role: &str, tensor: &String| {
                all.push(Assignment::new("bilinear fusion", role.into(), tensor, Place::Head));
            };
            add("weight", &bilinear.weight);
            if let Some(bias) = &bilinear.bias {
                add("bias", bias);
            }
        }
        add_steps(&mut all, "classifier", &self.classifier);
        all
    }
}

/// What one tensor is for.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Of the model, in words.
    pub part: String,
    /// Within the part, in words.
    pub role: String,
    /// The tensor's name.
    pub tensor: String,
    pub place: Place,
}

/// Where in the network a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Embeddings,
    /// Of an encoder, counted from the embeddings on.
    Layer(usize),
    /// Behind the encoders' last layers.
    Head,
}

impl Assignment {
    fn new(part: &str, role: String, tensor: &str, place: Place) -> Self {
        Self {
            part: part.to_owned(),
            role,
            tensor: tensor.to_owned(),
            place,
        }
    }
}

fn add_steps(all: &mut Vec<Assignment>, part: &str, steps: &[HeadStep]) {
    for (i, step) in steps.iter().enumerate() {
        let mut add = |role: String, tensor: &String| all.push(Assignment::new(part, role, tensor, Place::Head));
        match step {
            HeadStep::Linear(linear) => linear.each(|w, n| add(format!("step {i} linear {w}"), n)),
            HeadStep::Norm(norm) => norm.each(|w, n| add(format!("step {i} layer norm {w}"), n)),
            HeadStep::Activation => {}
        }
    }
}

impl LinearRole {
    fn each(&self, mut f: impl FnMut(&str, &String)) {
        f("weight", &self.weight);
        if let Some(bias) = &self.bias {
            f("bias", bias);
        }
    }
}

impl NormRole {
    fn each(&self, mut f: impl FnMut(&str, &String)) {
        f("weight", &self.weight);
        f("bias", &self.bias);
    }
}

/// Width that the first linear or norm of `steps` takes.
pub(super) fn input_width(steps: &[HeadStep]) -> Option<usize> {
    steps.iter().find_map(|s| match s {
        HeadStep::Linear(l) => Some(l.in_features),
        HeadStep::Norm(n) => Some(n.width),
        HeadStep::Activation => None,
    })
}

/// Width that the last linear or norm of `steps` gives.
pub(super) fn output_width(steps: &[HeadStep]) -> Option<usize> {
    steps.iter().rev().find_map(|s| match s {
        HeadStep::Linear(l) => Some(l.out_features),
        HeadStep::Norm(n) => Some(n.width),
        HeadStep::Activation => None,
    })
}

#[cfg(test)]
mod tests;

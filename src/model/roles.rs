//! Which tensor of a checkpoint plays which part, read off names and shapes.
//!
//! Encoder and attention pooler names are fixed by the libraries that wrote them (Hugging Face's
//! `BertModel`, PyTorch's `nn.MultiheadAttention`). Names in the head are the author's own, so there
//! shapes decide: the 3-D tensor is the bilinear, modules named after a side are that side's
//! projection, the rest is the classifier, ordered by `Sequential` index or by how widths chain.
//! Every tensor gets exactly one role, or reading fails and names what is left over.

use std::collections::BTreeMap;

use crate::{Side, checkpoint::TensorInfo};

use super::head_order::{self, Module};

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
    encoders: [EncoderRoles; 2],
    poolers: Option<[PoolerRoles; 2]>,
    projections: [Vec<HeadStep>; 2],
    pub bilinear: Option<BilinearRole>,
    pub classifier: Vec<HeadStep>,
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
    match items.len() {
        0 => String::new(),
        n if n <= SHOWN => format!("{title}: {}", items.join(", ")),
        n => format!("{title}: {} and {} more", items[..SHOWN].join(", "), n - SHOWN),
    }
}

impl Roles {
    /// Reads roles off `tensors`, which must have distinct names.
    pub fn read(tensors: &[TensorInfo]) -> Result<Self, RolesError> {
        Reader::new(tensors).read()
    }

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

    /// Width of a representation: what the projections put out, or the hidden size without any.
    pub fn representation_width(&self) -> usize {
        output_width(self.projection(Side::Drug)).unwrap_or(self.encoder(Side::Drug).hidden_size)
    }

    /// Width of the classifier's input, all views together.
    pub fn classifier_width(&self) -> usize {
        input_width(&self.classifier).unwrap_or(0)
    }

    /// `(part, role, tensor name)` of every tensor, in the order of the forward pass.
    pub fn assignments(&self) -> Vec<(String, String, String)> {
        let mut all = Vec::new();
        let mut add = |part: &str, role: String, name: &String| all.push((part.to_owned(), role, name.clone()));
        for side in Side::BOTH {
            let part = format!("{} encoder", side.name());
            let encoder = self.encoder(side);
            add(&part, "word embeddings".into(), &encoder.word_embeddings);
            add(&part, "position embeddings".into(), &encoder.position_embeddings);
            add(&part, "token type embeddings".into(), &encoder.token_type_embeddings);
            encoder
                .embeddings_norm
                .each(|w, n| add(&part, format!("embeddings layer norm {w}"), n));
            for (i, layer) in encoder.layers.iter().enumerate() {
                for (role, linear) in [
                    ("query", &layer.query),
                    ("key", &layer.key),
                    ("value", &layer.value),
                    ("attention output", &layer.attention_output),
                    ("intermediate", &layer.intermediate),
                    ("output", &layer.output),
                ] {
                    linear.each(|w, n| add(&part, format!("layer {i} {role} {w}"), n));
                }
                layer
                    .attention_norm
                    .each(|w, n| add(&part, format!("layer {i} attention layer norm {w}"), n));
                layer
                    .output_norm
                    .each(|w, n| add(&part, format!("layer {i} output layer norm {w}"), n));
            }
            if let Some(pooler) = &encoder.bert_pooler {
                pooler.each(|w, n| add(&part, format!("BERT pooler {w} (not used)"), n));
            }
        }
        for side in Side::BOTH {
            if let Some(pooler) = self.pooler(side) {
                let part = format!("{} pooling", side.name());
                add(&part, "query".into(), &pooler.query);
                add(&part, "attention in weight".into(), &pooler.in_proj_weight);
                if let Some(bias) = &pooler.in_proj_bias {
                    add(&part, "attention in bias".into(), bias);
                }
                pooler.out_proj.each(|w, n| add(&part, format!("attention out {w}"), n));
            }
        }
        for side in Side::BOTH {
            add_steps(&format!("{} projection", side.name()), self.projection(side), &mut add);
        }
        if let Some(bilinear) = &self.bilinear {
            add("bilinear fusion", "weight".into(), &bilinear.weight);
            if let Some(bias) = &bilinear.bias {
                add("bilinear fusion", "bias".into(), bias);
            }
        }
        add_steps("classifier", &self.classifier, &mut add);
        all
    }
}

fn add_steps(part: &str, steps: &[HeadStep], add: &mut impl FnMut(&str, String, &String)) {
    for (i, step) in steps.iter().enumerate() {
        match step {
            HeadStep::Linear(linear) => linear.each(|w, n| add(part, format!("step {i} linear {w}"), n)),
            HeadStep::Norm(norm) => norm.each(|w, n| add(part, format!("step {i} layer norm {w}"), n)),
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

/// The side that a tensor's or module's name speaks of.
fn side_of(name: &str) -> Option<Side> {
    let name = name.to_ascii_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let drug = words.clone().any(|w| w.starts_with("drug"));
    let adr = words.any(|w| {
        ["adr", "adverse", "effect", "reaction"]
            .iter()
            .any(|s| w.starts_with(s))
    });
    match (drug, adr) {
        (true, false) => Some(Side::Drug),
        (false, true) => Some(Side::Adr),
        _ => None,
    }
}

struct Reader<'a> {
    unclaimed: BTreeMap<&'a str, &'a [usize]>,
    empty: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(tensors: &'a [TensorInfo]) -> Self {
        Self {
            unclaimed: tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect(),
            empty: Vec::new(),
        }
    }

    fn read(mut self) -> Result<Roles, RolesError> {
        let drug = self.encoder(Side::Drug)?;
        let adr = self.encoder(Side::Adr)?;
        let hidden = drug.as_ref().or(adr.as_ref()).map(|e| e.hidden_size);
        let poolers = match hidden {
            Some(hidden) => [self.pooler(Side::Drug, hidden)?, self.pooler(Side::Adr, hidden)?],
            None => [None, None],
        };
        let poolers = match poolers {
            [Some(drug), Some(adr)] => Some([drug, adr]),
            [None, None] => None,
            [None, Some(_)] => self.missing("attention pooler of the drug side"),
            [Some(_), None] => self.missing("attention pooler of the adr side"),
        };
        let bilinear = self.bilinear()?;
        let mut modules = self.head_modules();
        let mut take = |side: Option<Side>| {
            let (taken, rest) = std::mem::take(&mut modules)
                .into_iter()
                .partition(|m: &Module| side_of(&m.path) == side);
            modules = rest;
            taken
        };
        let (drug_modules, adr_modules, classifier) = (take(Some(Side::Drug)), take(Some(Side::Adr)), take(None));
        let projections = [
            self.projection(Side::Drug, drug_modules, hidden)?,
            self.projection(Side::Adr, adr_modules, hidden)?,
        ];
        let classifier = self.classifier(classifier)?;
        let unclaimed: Vec<String> = self
            .unclaimed
            .iter()
            .map(|(name, shape)| format!("\"{name}\" {shape:?}"))
            .collect();
        let (Some(drug), Some(adr), true) = (drug, adr, unclaimed.is_empty() && self.empty.is_empty()) else {
            return Err(RolesError::Unexplained {
                empty: self.empty,
                unclaimed,
            });
        };
        let roles = Roles {
            encoders: [drug, adr],
            poolers,
            projections,
            bilinear,
            classifier,
        };
        check_widths(&roles)?;
        Ok(roles)
    }

    fn missing<T>(&mut self, role: impl Into<String>) -> Option<T> {
        self.empty.push(role.into());
        None
    }

    /// Takes a tensor out of the unclaimed ones.
    fn claim(&mut self, name: &str) -> Option<(String, &'a [usize])> {
        self.unclaimed
            .remove_entry(name)
            .map(|(name, shape)| (name.to_owned(), shape))
    }

    fn matrix(&mut self, name: &str, expected: &str) -> Result<Option<(String, usize, usize)>, RolesError> {
        match self.claim(name) {
            None => Ok(self.missing(format!("\"{name}\""))),
            Some((name, &[rows, columns])) if rows > 0 && columns > 0 => Ok(Some((name, rows, columns))),
            Some((tensor, found)) => Err(shape_error(tensor, expected, found)),
        }
    }

    fn vector(&mut self, name: &str, width: usize) -> Result<Option<String>, RolesError> {
        match self.claim(name) {
            None => Ok(None),
            Some((name, &[found])) if found == width => Ok(Some(name)),
            Some((tensor, found)) => Err(shape_error(tensor, &format!("[{width}]"), found)),
        }
    }

    fn linear(&mut self, module: &str, out: Option<usize>, input: usize) -> Result<Option<LinearRole>, RolesError> {
        let name = format!("{module}.weight");
        let expected = format!("[{}, {input}]", out.map_or("out".into(), |o| o.to_string()));
        let Some((weight, out_features, in_features)) = self.matrix(&name, &expected)? else {
            return Ok(None);
        };
        if in_features != input || out.is_some_and(|o| o != out_features) {
            return Err(shape_error(weight, &expected, &[out_features, in_features]));
        }
        let bias = self.vector(&format!("{module}.bias"), out_features)?;
        Ok(Some(LinearRole {
            weight,
            bias,
            in_features,
            out_features,
        }))
    }

    /// A LayerNorm, also under the names `gamma` and `beta` of old TensorFlow conversions.
    fn norm(&mut self, module: &str, width: usize) -> Result<Option<NormRole>, RolesError> {
        let old = self.unclaimed.contains_key(format!("{module}.gamma").as_str());
        let (weight, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let weight = self.vector(&format!("{module}.{weight}"), width)?;
        let bias = self.vector(&format!("{module}.{bias}"), width)?;
        match (weight, bias) {
            (Some(weight), Some(bias)) => Ok(Some(NormRole { weight, bias, width })),
            _ => Ok(self.missing(format!("\"{module}\""))),
        }
    }

    fn encoder(&mut self, side: Side) -> Result<Option<EncoderRoles>, RolesError> {
        const WORDS: &str = "embeddings.word_embeddings.weight";
        let prefixes: Vec<String> = self
            .unclaimed
            .keys()
            .filter_map(|name| name.strip_suffix(WORDS))
            .filter(|prefix| side_of(prefix) == Some(side))
            .map(str::to_owned)
            .collect();
        let [prefix] = prefixes.as_slice() else {
            let role = format!("{} encoder (a BERT under a name with \"{0}\" in it)", side.name());
            return match prefixes.len() {
                0 => Ok(self.missing(role)),
                _ => Err(RolesError::Order {
                    part: role,
                    reason: format!("expected one, found {} ({})", prefixes.len(), prefixes.join(", ")),
                }),
            };
        };
        let Some((word_embeddings, vocab_size, hidden_size)) =
            self.matrix(&format!("{prefix}{WORDS}"), "[vocabulary, hidden]")?
        else {
            return Ok(None);
        };
        let embeddings = format!("{prefix}embeddings");
        let expected = format!("[rows, {hidden_size}]");
        let table = |reader: &mut Self, name: &str| -> Result<Option<(String, usize)>, RolesError> {
            match reader.matrix(&format!("{embeddings}.{name}.weight"), &expected)? {
                Some((name, rows, width)) if width == hidden_size => Ok(Some((name, rows))),
                Some((name, rows, width)) => Err(shape_error(name, &expected, &[rows, width])),
                None => Ok(None),
            }
        };
        let position = table(self, "position_embeddings")?;
        let token_type = table(self, "token_type_embeddings")?;
        let embeddings_norm = self.norm(&format!("{embeddings}.LayerNorm"), hidden_size)?;
        let mut layers = Vec::new();
        while self
            .unclaimed
            .contains_key(format!("{prefix}encoder.layer.{}.attention.self.query.weight", layers.len()).as_str())
        {
            match self.layer(&format!("{prefix}encoder.layer.{}", layers.len()), hidden_size)? {
                Some(layer) => layers.push(layer),
                None => return Ok(None),
            }
        }
        if layers.is_empty() {
            return Ok(self.missing(format!("\"{prefix}encoder.layer.0\"")));
        }
        let pooler = format!("{prefix}pooler.dense");
        let bert_pooler = match self.unclaimed.contains_key(format!("{pooler}.weight").as_str()) {
            true => self.linear(&pooler, Some(hidden_size), hidden_size)?,
            false => None,
        };
        let (Some((position, max_position_embeddings)), Some((token_type, _)), Some(embeddings_norm)) =
            (position, token_type, embeddings_norm)
        else {
            return Ok(None);
        };
        Ok(Some(EncoderRoles {
            word_embeddings,
            position_embeddings: position,
            token_type_embeddings: token_type,
            embeddings_norm,
            layers,
            bert_pooler,
            vocab_size,
            max_position_embeddings,
            hidden_size,
        }))
    }

    fn layer(&mut self, prefix: &str, hidden: usize) -> Result<Option<LayerRoles>, RolesError> {
        let query = self.linear(&format!("{prefix}.attention.self.query"), Some(hidden), hidden)?;
        let key = self.linear(&format!("{prefix}.attention.self.key"), Some(hidden), hidden)?;
        let value = self.linear(&format!("{prefix}.attention.self.value"), Some(hidden), hidden)?;
        let attention_output = self.linear(&format!("{prefix}.attention.output.dense"), Some(hidden), hidden)?;
        let attention_norm = self.norm(&format!("{prefix}.attention.output.LayerNorm"), hidden)?;
        let intermediate = self.linear(&format!("{prefix}.intermediate.dense"), None, hidden)?;
        let width = intermediate.as_ref().map_or(hidden, |l| l.out_features);
        let output = self.linear(&format!("{prefix}.output.dense"), Some(hidden), width)?;
        let output_norm = self.norm(&format!("{prefix}.output.LayerNorm"), hidden)?;
        Ok((|| {
            Some(LayerRoles {
                query: query?,
                key: key?,
                value: value?,
                attention_output: attention_output?,
                attention_norm: attention_norm?,
                intermediate: intermediate?,
                output: output?,
                output_norm: output_norm?,
            })
        })())
    }

    fn pooler(&mut self, side: Side, hidden: usize) -> Result<Option<PoolerRoles>, RolesError> {
        const IN_PROJ: &str = "in_proj_weight";
        let found = self
            .unclaimed
            .keys()
            .find(|n| n.ends_with(IN_PROJ) && side_of(n) == Some(side));
        let Some(prefix) = found.and_then(|n| n.strip_suffix(IN_PROJ)).map(str::to_owned) else {
            return Ok(None);
        };
        let expected = format!("[{}, {hidden}]", 3 * hidden);
        let Some((in_proj_weight, rows, columns)) = self.matrix(&format!("{prefix}{IN_PROJ}"), &expected)? else {
            return Ok(None);
        };
        if (rows, columns) != (3 * hidden, hidden) {
            return Err(shape_error(in_proj_weight, &expected, &[rows, columns]));
        }
        let in_proj_bias = self.vector(&format!("{prefix}in_proj_bias"), 3 * hidden)?;
        let out_proj = self.linear(&format!("{prefix}out_proj"), Some(hidden), hidden)?;
        let query = self.unclaimed.iter().find(|(name, shape)| {
            side_of(name) == Some(side)
                && name.rsplit('.').next().is_some_and(|last| last.contains("query"))
                && shape.last() == Some(&hidden)
                && shape.iter().product::<usize>() == hidden
        });
        let query = query.map(|(name, _)| (*name).to_owned());
        let query = query.and_then(|name| self.claim(&name)).map(|(name, _)| name);
        let query = query.or_else(|| self.missing(format!("learned query of the {} pooler", side.name())));
        Ok(query.zip(out_proj).map(|(query, out_proj)| PoolerRoles {
            query,
            in_proj_weight,
            in_proj_bias,
            out_proj,
        }))
    }

    fn bilinear(&mut self) -> Result<Option<BilinearRole>, RolesError> {
        let cubes: Vec<&str> = self
            .unclaimed
            .iter()
            .filter(|(_, s)| s.len() == 3)
            .map(|(n, _)| *n)
            .collect();
        let &[name] = cubes.as_slice() else {
            return match cubes.len() {
                0 => Ok(None),
                n => Err(RolesError::Order {
                    part: "bilinear fusion".into(),
                    reason: format!("expected one 3-D tensor, found {n}: {}", cubes.join(", ")),
                }),
            };
        };
        let Some((weight, shape)) = self.claim(name) else {
            return Ok(None);
        };
        let &[outputs, width, second] = shape else {
            return Ok(None);
        };
        if width != second || outputs == 0 || width == 0 {
            return Err(shape_error(weight, "[outputs, width, width]", shape));
        }
        let bias = match weight.strip_suffix("weight") {
            Some(prefix) => self.vector(&format!("{prefix}bias"), outputs)?,
            None => None,
        };
        Ok(Some(BilinearRole {
            weight,
            bias,
            outputs,
            width,
        }))
    }

    /// Claims what is left in pairs of weight and bias: the parts of the head.
    fn head_modules(&mut self) -> Vec<Module> {
        let paths: Vec<String> = self
            .unclaimed
            .keys()
            .filter_map(|n| n.strip_suffix(".weight"))
            .map(str::to_owned)
            .collect();
        let mut modules = Vec::new();
        for path in paths {
            let (weight_name, bias_name) = (format!("{path}.weight"), format!("{path}.bias"));
            let Some(&weight_shape) = self.unclaimed.get(weight_name.as_str()) else {
                continue;
            };
            let bias_shape = self.unclaimed.get(bias_name.as_str()).copied();
            let step = match (weight_shape, bias_shape) {
                (&[out_features, in_features], None | Some(&[_]))
                    if bias_shape.is_none_or(|b| b == [out_features]) && out_features * in_features > 0 =>
                {
                    let bias = self.claim(&bias_name).map(|(name, _)| name);
                    HeadStep::Linear(LinearRole {
                        weight: weight_name.clone(),
                        bias,
                        in_features,
                        out_features,
                    })
                }
                (&[width], Some(&[bias])) if width == bias => {
                    self.claim(&bias_name);
                    HeadStep::Norm(NormRole {
                        weight: weight_name.clone(),
                        bias: bias_name,
                        width,
                    })
                }
                _ => continue,
            };
            self.claim(&weight_name);
            modules.push(Module { path, step });
        }
        modules
    }

    fn projection(
        &mut self,
        side: Side,
        modules: Vec<Module>,
        hidden: Option<usize>,
    ) -> Result<Vec<HeadStep>, RolesError> {
        let part = format!("{} projection", side.name());
        if modules.is_empty() {
            return Ok(Vec::new());
        }
        head_order::steps(modules, hidden, None, true).map_err(|reason| RolesError::Order { part, reason })
    }

    fn classifier(&mut self, modules: Vec<Module>) -> Result<Vec<HeadStep>, RolesError> {
        if !modules.iter().any(|m| matches!(m.step, HeadStep::Linear(_))) {
            self.missing::<()>("classifier (linear layers under a name that speaks of neither side)");
            return Ok(modules.into_iter().map(|m| m.step).collect());
        }
        head_order::steps(modules, None, Some(1), false).map_err(|reason| RolesError::Order {
            part: "classifier".into(),
            reason,
        })
    }
}

fn shape_error(tensor: impl Into<String>, expected: &str, found: &[usize]) -> RolesError {
    RolesError::Shape {
        tensor: tensor.into(),
        expected: expected.to_owned(),
        found: found.to_vec(),
        hint: "; do all files come from one model?",
    }
}

/// What must agree between parts.
fn check_widths(roles: &Roles) -> Result<(), RolesError> {
    let [drug, adr] = [roles.encoder(Side::Drug), roles.encoder(Side::Adr)];
    if drug.hidden_size != adr.hidden_size {
        return Err(RolesError::Order {
            part: "encoders".into(),
            reason: format!(
                "the drug encoder is {} wide, the adr encoder {}",
                drug.hidden_size, adr.hidden_size
            ),
        });
    }
    let [drug_width, adr_width] =
        Side::BOTH.map(|side| output_width(roles.projection(side)).unwrap_or(drug.hidden_size));
    if drug_width != adr_width {
        return Err(RolesError::Order {
            part: "projections".into(),
            reason: format!("the drug side's gives {drug_width} numbers, the adr side's {adr_width}"),
        });
    }
    if let Some(bilinear) = &roles.bilinear
        && bilinear.width != drug_width
    {
        return Err(RolesError::Shape {
            tensor: bilinear.weight.clone(),
            expected: format!("[outputs, {drug_width}, {drug_width}], as wide as the projections"),
            found: vec![bilinear.outputs, bilinear.width, bilinear.width],
            hint: "",
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "roles_tests.rs"]
mod tests;

//! Reads [`Roles`] off tensor names and shapes; see there for the rules.
//!
//! Each tensor is *claimed* by the role it fills. What nothing claims and what stays empty is told at the
//! end, all at once; a tensor of the right name and the wrong shape is told at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Side, checkpoint::TensorInfo};

use super::{
    BilinearRole, EncoderRoles, HeadStep, LayerRoles, LinearRole, NormRole, PoolerRoles, Roles, RolesError, checks,
    head_order::{self, End, Module, Ordered},
};

impl Roles {
    /// Reads roles off `tensors`, which must have distinct names. Errors with what is missing, of another shape or without a role.
    pub fn read(tensors: &[TensorInfo]) -> Result<Self, RolesError> {
        Self::read_stated(tensors, None)
    }

    /// The same where it may be stated whether the projections end in an activation, which tensors do not tell.
    pub fn read_stated(tensors: &[TensorInfo], projection_activation: Option<bool>) -> Result<Self, RolesError> {
        Reader::new(tensors, projection_activation).read()
    }
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

/// Ends the name of the tensor that tells an encoder.
const WORDS: &str = "embeddings.word_embeddings.weight";

/// End the names of the tensors that tell an attention pooler.
const IN_PROJ: &str = "in_proj_weight";
const IN_PROJ_BIAS: &str = "in_proj_bias";

const CLASSIFIER: &str = "classifier (linear layers under a name that speaks of neither side)";

/// Takes a checkpoint's tensors apart, one role after the other.
struct Reader<'a> {
    unclaimed: BTreeMap<&'a str, &'a [usize]>,
    empty: Vec<String>,
    guesses: Vec<String>,
    end_guess: Option<String>,
    projection_activation: Option<bool>,
    /// Whether an encoder lacks some of its tensors but not all.
    has_torn_encoder: bool,
}

impl<'a> Reader<'a> {
    pub fn new(tensors: &'a [TensorInfo], projection_activation: Option<bool>) -> Self {
        Self {
            unclaimed: tensors.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect(),
            empty: Vec::new(),
            guesses: Vec::new(),
            end_guess: None,
            projection_activation,
            has_torn_encoder: false,
        }
    }

    pub fn read(mut self) -> Result<Roles, RolesError> {
        let (drug, adr) = match (self.encoder(Side::Drug)?, self.encoder(Side::Adr)?) {
            (Some(drug), Some(adr)) => (drug, adr),
            (drug, adr) => {
                let found_any = drug.is_some() || adr.is_some() || self.has_torn_encoder;
                return Err(self.without_encoders(found_any));
            }
        };
        checks::check_encoders(&drug, &adr)?;
        let hidden = drug.hidden_size;
        let poolers = self.poolers(hidden)?;
        if !self.empty.is_empty() {
            // As with encoders; a pooler's name may speak of no side.
            return Err(self.unexplained(|name| name.ends_with(IN_PROJ)));
        }
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
        if !(self.unclaimed.is_empty() && self.empty.is_empty()) {
            return Err(self.unexplained(|_| true));
        }
        let roles = Roles {
            encoders: [drug, adr],
            poolers,
            projections,
            bilinear,
            classifier,
            guesses: self.guesses,
            end_guess: self.end_guess,
        };
        checks::check_head(&roles)?;
        Ok(roles)
    }

    fn missing<T>(&mut self, role: impl Into<String>) -> Option<T> {
        self.empty.push(role.into());
        None
    }

    /// What stayed empty, and what is left over as far as `is_told`.
    fn unexplained(self, is_told: impl Fn(&str) -> bool) -> RolesError {
        let left = self.unclaimed.into_iter().filter(|(name, _)| is_told(name));
        RolesError::Unexplained {
            empty: self.empty,
            unclaimed: left.map(|(name, shape)| format!("\"{name}\" {shape:?}")).collect(),
        }
    }

    /// Without both encoders the head is not read: what is left of one would pass for parts of it.
    ///
    /// `found_any`: one of them is there, whole or in part. Then the head and the rest of an encoder are not left over, only not
    /// looked at; but an encoder may be there whose name speaks of no side.
    fn without_encoders(mut self, found_any: bool) -> RolesError {
        let is_matrix = |(name, shape): (&&str, &&[usize])| side_of(name).is_none() && shape.len() == 2;
        if !found_any && !self.unclaimed.iter().any(is_matrix) {
            self.missing::<()>(CLASSIFIER);
        }
        self.unexplained(|name| !found_any || name.ends_with(WORDS))
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

    fn required_vector(&mut self, name: &str, width: usize) -> Result<Option<String>, RolesError> {
        let found = self.vector(name, width)?;
        Ok(found.or_else(|| self.missing(format!("\"{name}\""))))
    }

    /// A linear layer of these sizes, where they are known.
    fn linear(
        &mut self,
        module: &str,
        out: Option<usize>,
        input: Option<usize>,
    ) -> Result<Option<LinearRole>, RolesError> {
        let name = format!("{module}.weight");
        let size = |known: Option<usize>, word: &str| known.map_or(word.to_owned(), |size| size.to_string());
        let expected = format!("[{}, {}]", size(out, "out"), size(input, "in"));
        let Some((weight, out_features, in_features)) = self.matrix(&name, &expected)? else {
            return Ok(None);
        };
        if input.is_some_and(|i| i != in_features) || out.is_some_and(|o| o != out_features) {
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

    /// A linear layer of `BertModel`, each of which has a bias.
    fn bert_linear(
        &mut self,
        module: &str,
        out: Option<usize>,
        input: Option<usize>,
    ) -> Result<Option<LinearRole>, RolesError> {
        match self.linear(module, out, input)? {
            Some(linear) if linear.bias.is_none() => Ok(self.missing(format!("\"{module}.bias\""))),
            other => Ok(other),
        }
    }

    /// A LayerNorm, also under the names `gamma` and `beta` of old TensorFlow conversions.
    fn norm(&mut self, module: &str, width: usize) -> Result<Option<NormRole>, RolesError> {
        let old = ["gamma", "beta"]
            .iter()
            .any(|part| self.unclaimed.contains_key(format!("{module}.{part}").as_str()));
        let (weight, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let weight = self.required_vector(&format!("{module}.{weight}"), width)?;
        let bias = self.required_vector(&format!("{module}.{bias}"), width)?;
        Ok(weight.zip(bias).map(|(weight, bias)| NormRole { weight, bias, width }))
    }

    /// What stands before `ending` in the names of `side` that have it.
    fn prefixes(&self, side: Side, ending: &str) -> Vec<String> {
        let prefixes = self.unclaimed.keys().filter_map(|name| name.strip_suffix(ending));
        let own = prefixes.filter(|prefix| side_of(prefix) == Some(side));
        own.map(str::to_owned).collect()
    }

    /// One side's encoder. Of one that is there in part all that is missing is told, and `has_torn_encoder` set.
    fn encoder(&mut self, side: Side) -> Result<Option<EncoderRoles>, RolesError> {
        let role = format!("{} encoder (a BERT under a name with \"{0}\" in it)", side.name());
        let prefixes = self.prefixes(side, WORDS);
        match prefixes.as_slice() {
            [prefix] => {
                let encoder = self.encoder_under(prefix)?;
                self.has_torn_encoder |= encoder.is_none();
                Ok(encoder)
            }
            [] => {
                // Told by other parts, it lacks the word embeddings.
                let others = [
                    "embeddings.position_embeddings.weight",
                    "encoder.layer.0.attention.self.query.weight",
                ];
                let others = others.iter().flat_map(|ending| self.prefixes(side, ending)).next();
                self.has_torn_encoder |= others.is_some();
                Ok(self.missing(others.map_or(role, |prefix| format!("\"{prefix}{WORDS}\""))))
            }
            _ => Err(RolesError::Order {
                part: role,
                reason: format!("expected one, found {} ({})", prefixes.len(), prefixes.join(", ")),
            }),
        }
    }

    fn encoder_under(&mut self, prefix: &str) -> Result<Option<EncoderRoles>, RolesError> {
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
        let layers = self.layers(&format!("{prefix}encoder.layer."), hidden_size)?;
        // Not every backbone has it, but none has half of it.
        let pooler = format!("{prefix}pooler.dense");
        let has_pooler = ["weight", "bias"]
            .iter()
            .any(|part| self.unclaimed.contains_key(format!("{pooler}.{part}").as_str()));
        let bert_pooler = match has_pooler {
            true => self.bert_linear(&pooler, Some(hidden_size), Some(hidden_size))?,
            false => None,
        };
        let (
            Some((position_embeddings, max_position_embeddings)),
            Some((token_type_embeddings, _)),
            Some(embeddings_norm),
            Some(layers),
            true,
        ) = (
            position,
            token_type,
            embeddings_norm,
            layers,
            bert_pooler.is_some() == has_pooler,
        )
        else {
            return Ok(None);
        };
        Ok(Some(EncoderRoles {
            word_embeddings,
            position_embeddings,
            token_type_embeddings,
            embeddings_norm,
            layers,
            bert_pooler,
            vocab_size,
            max_position_embeddings,
            hidden_size,
        }))
    }

    /// The layers from 0 to the last that has a tensor: `{prefix}0`, `{prefix}1`, …
    fn layers(&mut self, prefix: &str, hidden: usize) -> Result<Option<Vec<LayerRoles>>, RolesError> {
        let names = self.unclaimed.keys().filter_map(|name| name.strip_prefix(prefix));
        let numbers = names.filter_map(|name| name.split('.').next()?.parse::<usize>().ok());
        let numbers: BTreeSet<usize> = numbers.collect();
        let mut layers = Vec::new();
        for i in (0..).take_while(|i| numbers.contains(i)) {
            layers.push(self.layer(&format!("{prefix}{i}"), hidden)?);
        }
        // Layer 0 must be, and none between the first and the last may be missing.
        if layers.is_empty() || layers.len() < numbers.len() {
            return Ok(self.missing(format!("\"{prefix}{}\"", layers.len())));
        }
        Ok(layers.into_iter().collect())
    }

    fn layer(&mut self, prefix: &str, hidden: usize) -> Result<Option<LayerRoles>, RolesError> {
        let square = |reader: &mut Self, part: &str| {
            reader.bert_linear(&format!("{prefix}.attention.{part}"), Some(hidden), Some(hidden))
        };
        let query = square(self, "self.query")?;
        let key = square(self, "self.key")?;
        let value = square(self, "self.value")?;
        let attention_output = square(self, "output.dense")?;
        let attention_norm = self.norm(&format!("{prefix}.attention.output.LayerNorm"), hidden)?;
        let intermediate = self.bert_linear(&format!("{prefix}.intermediate.dense"), None, Some(hidden))?;
        let width = intermediate.as_ref().map(|l| l.out_features);
        let output = self.bert_linear(&format!("{prefix}.output.dense"), Some(hidden), width)?;
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

    /// Both sides' attention poolers, or none.
    fn poolers(&mut self, hidden: usize) -> Result<Option<[PoolerRoles; 2]>, RolesError> {
        let prefixes = Side::BOTH.map(|side| {
            let found = [IN_PROJ, IN_PROJ_BIAS].map(|ending| self.prefixes(side, ending));
            found.into_iter().flatten().next()
        });
        match prefixes {
            [Some(drug), Some(adr)] => {
                let (drug, adr) = (
                    self.pooler(Side::Drug, &drug, hidden)?,
                    self.pooler(Side::Adr, &adr, hidden)?,
                );
                Ok(drug.zip(adr).map(|(drug, adr)| [drug, adr]))
            }
            [None, None] => Ok(None),
            [drug, _] => {
                let side = if drug.is_none() { Side::Drug } else { Side::Adr };
                Ok(self.missing(format!("attention pooler of the {} side", side.name())))
            }
        }
    }

    fn pooler(&mut self, side: Side, prefix: &str, hidden: usize) -> Result<Option<PoolerRoles>, RolesError> {
        let expected = format!("[{}, {hidden}]", 3 * hidden);
        let in_proj_weight = match self.matrix(&format!("{prefix}{IN_PROJ}"), &expected)? {
            Some((name, rows, columns)) if (rows, columns) != (3 * hidden, hidden) => {
                return Err(shape_error(name, &expected, &[rows, columns]));
            }
            found => found.map(|(name, ..)| name),
        };
        let in_proj_bias = self.vector(&format!("{prefix}{IN_PROJ_BIAS}"), 3 * hidden)?;
        let out_proj = self.linear(&format!("{prefix}out_proj"), Some(hidden), Some(hidden))?;
        // nn.MultiheadAttention has both biases or neither.
        let out_bias = out_proj.as_ref().map(|linear| linear.bias.is_some());
        match (in_proj_bias.is_some(), out_bias) {
            (true, Some(false)) => self.empty.push(format!("\"{prefix}out_proj.bias\"")),
            (false, Some(true)) => self.empty.push(format!("\"{prefix}{IN_PROJ_BIAS}\"")),
            _ => {}
        }
        let query = self.unclaimed.iter().find(|(name, shape)| {
            side_of(name) == Some(side)
                && name.rsplit('.').next().is_some_and(|last| last.contains("query"))
                && shape.last() == Some(&hidden)
                && shape.iter().product::<usize>() == hidden
        });
        let query = query.map(|(name, _)| (*name).to_owned());
        let query = query.and_then(|name| self.claim(&name)).map(|(name, _)| name);
        let query = query.or_else(|| self.missing(format!("learned query of the {} pooler", side.name())));
        Ok((|| {
            Some(PoolerRoles {
                query: query?,
                in_proj_weight: in_proj_weight?,
                in_proj_bias,
                out_proj: out_proj?,
            })
        })())
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

    fn projection(&mut self, side: Side, modules: Vec<Module>, hidden: usize) -> Result<Vec<HeadStep>, RolesError> {
        let part = format!("{} projection", side.name());
        if modules.is_empty() {
            return Ok(Vec::new());
        }
        let end = End::Open(self.projection_activation);
        self.ordered(part, head_order::steps(modules, Some(hidden), None, end))
    }

    fn classifier(&mut self, modules: Vec<Module>) -> Result<Vec<HeadStep>, RolesError> {
        if !modules.iter().any(|m| matches!(m.step, HeadStep::Linear(_))) {
            self.missing::<()>(CLASSIFIER);
            return Ok(modules.into_iter().map(|m| m.step).collect());
        }
        self.ordered(
            "classifier".to_owned(),
            head_order::steps(modules, None, Some(1), End::Logit),
        )
    }

    fn ordered(&mut self, part: String, found: Result<Ordered, String>) -> Result<Vec<HeadStep>, RolesError> {
        let found = match found {
            Ok(found) => found,
            Err(reason) => return Err(RolesError::Order { part, reason }),
        };
        let named = |guess: String| format!("{part}: {guess}");
        // Both projections have to be alike, so that one's says it of both.
        self.end_guess = self.end_guess.take().or(found.end_guess.map(named));
        self.guesses.extend(found.guesses.into_iter().map(named));
        Ok(found.steps)
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

//! Where training begins: a backbone's weights or random ones, a fresh head, the markers' rows, and the small files
//! that will lie beside the trained weights.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};

use super::{
    BackboneSettings, HeadSettings, LabelledPair, TrainError,
    network::Network,
    random::{Random, named},
    vocabulary::vocabulary,
};
use crate::{
    Side,
    checkpoint::{Checkpoint, ModelFiles, NamedBytes, TensorInfo},
    model::{ModelConfig, Pooling, Roles, View, config::Sidecar},
    text::{MARKERS, Tokenizer, TokenizerError, TokenizerFiles, with_markers_added},
};

/// A network before its first step.
pub struct Start {
    pub network: Network,
    pub tensors: HashMap<String, Tensor>,
    pub tokenizer: Tokenizer,
    /// `config.json` and the tokenizer's files, by name.
    pub files: Vec<(String, Vec<u8>)>,
    /// For messages and the manifest.
    pub source: String,
}

/// Standard deviation of BERT's own initialisation.
const DEVIATION: f64 = 0.02;

impl Start {
    /// From a BERT checkpoint: both encoders begin from it.
    pub fn from_backbone(files: &ModelFiles, head: &HeadSettings, seed: u64) -> Result<Self, TrainError> {
        let checkpoint = Checkpoint::open(files)?;
        let refuse = |reason: String| TrainError::Backbone {
            place: files.source.clone(),
            reason,
        };
        const WORDS: &str = "embeddings.word_embeddings.weight";
        let prefixes: Vec<&str> = checkpoint
            .tensors()
            .iter()
            .filter_map(|info| info.name.strip_suffix(WORDS))
            .collect();
        let &[prefix] = prefixes.as_slice() else {
            let dual = match prefixes.len() {
                2 => ": a dual encoder, such as crag score loads; training begins with one BERT, for both encoders",
                _ => "",
            };
            return Err(refuse(format!(
                "expected one tensor that ends in \"{WORDS}\", found {}{dual}",
                prefixes.len()
            )));
        };
        let mut encoder = Vec::new();
        for info in checkpoint.tensors() {
            let Some(name) = info.name.strip_prefix(prefix) else {
                continue;
            };
            // BERT's own pooler and its pre-training heads are no part of the scorer.
            if name.starts_with("embeddings.") || name.starts_with("encoder.") {
                encoder.push((name.to_owned(), checkpoint.tensor(&info.name)?.to_dtype(DType::F32)?));
            }
        }
        checkpoint.check_unchanged()?;
        let config = files
            .config
            .clone()
            .ok_or_else(|| refuse("no config.json beside the weights, which states heads and activation".to_owned()))?;
        let mut tokenizer_files = with_markers(files, head.markers, true)?;
        // Other files than the vocabulary's may have ids for the markers, or for tokens that come before them.
        let stated = with_markers(files, head.markers, false)?;
        let ids = |files: &[(String, Vec<u8>)]| load_tokenizer(files, head.markers).ok()?.marker_ids();
        if ids(&tokenizer_files) != ids(&stated) {
            tokenizer_files = stated;
        }
        let mut small = vec![("config.json".to_owned(), config.bytes.into_owned())];
        small.extend(tokenizer_files);
        Self::assemble(encoder, small, head, seed, files.source.clone()).map_err(|error| match error {
            TrainError::Roles(error) => refuse(error.to_string()),
            // Files go by their names alone from there on; the head's settings are no file's.
            TrainError::Config(error) if error.file() == Some("config.json") => TrainError::Settings {
                place: files.source.clone(),
                reason: error.to_string(),
            },
            TrainError::Tokenizer(error) => TrainError::data(files.source.clone(), error.to_string()),
            other => other,
        })
    }

    /// From nothing: random weights, and a vocabulary made of the training pairs' texts.
    pub fn from_scratch(
        settings: &BackboneSettings,
        head: &HeadSettings,
        pairs: &[LabelledPair],
        seed: u64,
    ) -> Result<Self, TrainError> {
        let mut texts: Vec<&str> = pairs
            .iter()
            .flat_map(|pair| Side::BOTH.map(|side| pair.side(side).text.as_str()))
            .collect();
        texts.sort_unstable();
        texts.dedup();
        let mut pieces = vocabulary(&texts, settings.vocab_size, settings.lowercase)?;
        if head.markers {
            pieces.extend(MARKERS.map(str::to_owned));
        }
        let config = json!({
            "model_type": "bert",
            "vocab_size": pieces.len(),
            "hidden_size": settings.hidden_size,
            "num_attention_heads": settings.num_attention_heads,
            "num_hidden_layers": settings.num_hidden_layers,
            "intermediate_size": settings.intermediate_size,
            "max_position_embeddings": settings.max_position_embeddings,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
        });
        let mut tokenizer_config = json!({"tokenizer_class": "BertTokenizer", "do_lower_case": settings.lowercase});
        if head.markers {
            tokenizer_config["additional_special_tokens"] = json!(MARKERS);
        }
        let files = vec![
            ("config.json".to_owned(), pretty(&config)),
            ("vocab.txt".to_owned(), (pieces.join("\n") + "\n").into_bytes()),
            ("tokenizer_config.json".to_owned(), pretty(&tokenizer_config)),
        ];
        let mut encoder = Vec::new();
        let mut random = Random::new(&[seed, named("backbone")]);
        let (hidden, intermediate) = (settings.hidden_size, settings.intermediate_size);
        let mut add = |name: &str, shape: &[usize], random: &mut Random| -> Result<(), TrainError> {
            let count = shape.iter().product();
            let values: Vec<f32> = match shape.len() {
                2 => (0..count).map(|_| (random.normal() * DEVIATION) as f32).collect(),
                _ => vec![if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 }; count],
            };
            encoder.push((name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu)?));
            Ok(())
        };
        // The markers' rows come later, as their mean.
        let rows = pieces.len() - if head.markers { MARKERS.len() } else { 0 };
        add("embeddings.word_embeddings.weight", &[rows, hidden], &mut random)?;
        let positions = settings.max_position_embeddings;
        add(
            "embeddings.position_embeddings.weight",
            &[positions, hidden],
            &mut random,
        )?;
        add("embeddings.token_type_embeddings.weight", &[2, hidden], &mut random)?;
        let mut layers = vec![("embeddings.LayerNorm".to_owned(), vec![hidden])];
        for layer in 0..settings.num_hidden_layers {
            let within = |name: &str| format!("encoder.layer.{layer}.{name}");
            for part in ["query", "key", "value"] {
                layers.push((within(&format!("attention.self.{part}")), vec![hidden, hidden]));
            }
            layers.push((within("attention.output.dense"), vec![hidden, hidden]));
            layers.push((within("attention.output.LayerNorm"), vec![hidden]));
            layers.push((within("intermediate.dense"), vec![intermediate, hidden]));
            layers.push((within("output.dense"), vec![hidden, intermediate]));
            layers.push((within("output.LayerNorm"), vec![hidden]));
        }
        for (name, shape) in layers {
            add(&format!("{name}.weight"), &shape, &mut random)?;
            add(&format!("{name}.bias"), &shape[..1], &mut random)?;
        }
        Self::assemble(encoder, files, head, seed, "from scratch".to_owned())
    }

    fn assemble(
        encoder: Vec<(String, Tensor)>,
        mut files: Vec<(String, Vec<u8>)>,
        head: &HeadSettings,
        seed: u64,
        source: String,
    ) -> Result<Self, TrainError> {
        let tokenizer = load_tokenizer(&files, head.markers)?;
        let mut rows = 0;
        let mut tensors = HashMap::new();
        let mut hidden = 0;
        for (name, tensor) in encoder {
            let tensor = match name == "embeddings.word_embeddings.weight" {
                true => {
                    hidden = tensor.dim(1)?;
                    let (present, ids) = (tensor.dim(0)?, tokenizer.vocab_size());
                    if ids > present + MARKERS.len() {
                        let reason = format!(
                            "its tokenizer has {ids} entries, its word embeddings {present} rows; are they of one model?"
                        );
                        return Err(TrainError::Backbone { place: source, reason });
                    }
                    rows = present.max(ids);
                    grown(&tensor, rows)?
                }
                false => tensor,
            };
            for side in Side::BOTH {
                tensors.insert(format!("{}_encoder.{name}", side.name()), tensor.clone());
            }
        }
        add_head(&mut tensors, head, hidden, seed)?;
        state_rows(&mut files, rows);
        let mut infos: Vec<TensorInfo> = tensors
            .iter()
            .map(|(name, tensor)| TensorInfo {
                name: name.clone(),
                shape: tensor.dims().to_vec(),
                dtype: tensor.dtype(),
                file: source.clone(),
            })
            .collect();
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        let projection_activation = Some(true);
        let roles = Roles::read_stated(&infos, projection_activation)?;
        let sidecar = Sidecar {
            pooling: Some(head.pooling),
            pooling_heads: (head.pooling == Pooling::Attention).then_some(head.pooling_heads),
            views: Some(head.views.clone()),
            markers: Some(head.markers),
            max_length: Some(head.max_length),
            activation: Some(head.activation),
            projection_activation,
            ..Sidecar::default()
        };
        let sidecar = pretty(&serde_json::to_value(sidecar).unwrap_or(Value::Null));
        let config = ModelConfig::read(
            &roles,
            named_file(&files, "config.json"),
            Some(("the settings of [head]", &sidecar)),
        )?;
        Ok(Self {
            network: Network { roles, config },
            tensors,
            tokenizer,
            files,
            source,
        })
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    // A `Value` always has a JSON form.
    (serde_json::to_string_pretty(value).unwrap_or_default() + "\n").into_bytes()
}

/// `embeddings` with the mean of its rows as new rows, up to `rows`.
fn grown(embeddings: &Tensor, rows: usize) -> Result<Tensor, TrainError> {
    let (present, width) = embeddings.dims2()?;
    if present >= rows {
        return Ok(embeddings.clone());
    }
    let mean = embeddings
        .mean_keepdim(0)?
        .expand((rows - present, width))?
        .contiguous()?;
    Ok(Tensor::cat(&[embeddings, &mean], 0)?)
}

/// Makes `config.json` tell of as many word embeddings as there are now.
fn state_rows(files: &mut [(String, Vec<u8>)], rows: usize) {
    let config = files.iter_mut().find(|(name, _)| name == "config.json");
    // One that cannot be read is told of when the settings are.
    if let Some((_, bytes)) = config
        && let Ok(mut json) = serde_json::from_slice::<Value>(bytes)
        && json.get("vocab_size").is_some_and(|stated| *stated != rows)
    {
        json["vocab_size"] = json!(rows);
        *bytes = pretty(&json);
    }
}

fn load_tokenizer(files: &[(String, Vec<u8>)], markers: bool) -> Result<Tokenizer, TokenizerError> {
    let named = |name: &str| named_file(files, name);
    let files = TokenizerFiles {
        tokenizer_json: named("tokenizer.json"),
        vocab_txt: named("vocab.txt"),
        tokenizer_config: named("tokenizer_config.json"),
        added_tokens: named("added_tokens.json"),
        special_tokens_map: named("special_tokens_map.json"),
    };
    Tokenizer::load(&files, markers)
}

fn named_file<'a>(files: &'a [(String, Vec<u8>)], name: &str) -> Option<(&'a str, &'a [u8])> {
    let file = files.iter().find(|(file, _)| file == name);
    file.map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
}

/// The backbone's tokenizer files, with the markers as special tokens where they are wanted: in the configuration and
/// perhaps in the vocabulary.
fn with_markers(files: &ModelFiles, markers: bool, in_vocabulary: bool) -> Result<Vec<(String, Vec<u8>)>, TrainError> {
    let malformed = |file: &NamedBytes, reason: String| TrainError::Backbone {
        place: file.name.clone(),
        reason,
    };
    let mut out = Vec::new();
    if let Some(file) = &files.tokenizer_json {
        let mut bytes = file.bytes.clone().into_owned();
        if markers && in_vocabulary {
            bytes = with_markers_added(&bytes)
                .map_err(|reason| malformed(file, reason))?
                .into_bytes();
        }
        out.push(("tokenizer.json".to_owned(), bytes));
    }
    if let Some(file) = &files.vocab_txt {
        let mut bytes = file.bytes.clone().into_owned();
        let known = |marker: &str| {
            bytes
                .split(|b| *b == b'\n')
                .any(|line| line.trim_ascii_end() == marker.as_bytes())
        };
        if markers && in_vocabulary && !MARKERS.iter().all(|marker| known(marker)) {
            if !bytes.ends_with(b"\n") {
                bytes.push(b'\n');
            }
            bytes.extend(MARKERS.iter().flat_map(|marker| format!("{marker}\n").into_bytes()));
        }
        out.push(("vocab.txt".to_owned(), bytes));
    }
    const LIST: &str = "additional_special_tokens";
    let object = |file: &Option<NamedBytes>| -> Result<Map<String, Value>, TrainError> {
        match file {
            Some(file) => serde_json::from_slice(&file.bytes).map_err(|error| malformed(file, error.to_string())),
            None => Ok(Map::new()),
        }
    };
    let config = files.tokenizer_config.as_ref();
    let (mut settings, mut map) = (object(&files.tokenizer_config)?, object(&files.special_tokens_map)?);
    if markers {
        // Behind those that the older file lists, where that is read.
        let older = map.get(LIST).is_some_and(Value::is_array) && !settings.contains_key("added_tokens_decoder");
        let list = if older { &mut map } else { &mut settings };
        let extra = list.entry(LIST).or_insert_with(|| json!([]));
        if let Some(extra) = extra.as_array_mut() {
            for marker in MARKERS {
                let present = extra
                    .iter()
                    .any(|t| t.as_str().or_else(|| t["content"].as_str()) == Some(marker));
                if !present {
                    extra.push(json!(marker));
                }
            }
        }
    }
    if config.is_some() || markers {
        out.push(("tokenizer_config.json".to_owned(), pretty(&Value::Object(settings))));
    }
    if files.special_tokens_map.is_some() {
        out.push(("special_tokens_map.json".to_owned(), pretty(&Value::Object(map))));
    }
    if let Some(file) = &files.added_tokens {
        out.push(("added_tokens.json".to_owned(), file.bytes.clone().into_owned()));
    }
    Ok(out)
}

/// Pooling, projections, bilinear and classifier, drawn as PyTorch draws such modules.
fn add_head(
    tensors: &mut HashMap<String, Tensor>,
    head: &HeadSettings,
    hidden: usize,
    seed: u64,
) -> Result<(), TrainError> {
    let mut random = Random::new(&[seed, named("head")]);
    let mut put = |name: String, shape: &[usize], draw: &mut dyn FnMut() -> f64| -> Result<(), TrainError> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| draw() as f32).collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        Ok(())
    };
    let between = |bound: f64, random: &mut Random| (random.uniform() * 2.0 - 1.0) * bound;
    if head.pooling == Pooling::Attention {
        for side in Side::BOTH {
            let prefix = format!("{}_pooler", side.name());
            // Xavier for the stacked projections, as nn.MultiheadAttention has it: fan out is 3 H.
            let bound = (6.0 / (4 * hidden) as f64).sqrt();
            put(
                format!("{prefix}.attention.in_proj_weight"),
                &[3 * hidden, hidden],
                &mut || between(bound, &mut random),
            )?;
            put(format!("{prefix}.attention.in_proj_bias"), &[3 * hidden], &mut || 0.0)?;
            let bound = 1.0 / (hidden as f64).sqrt();
            put(
                format!("{prefix}.attention.out_proj.weight"),
                &[hidden, hidden],
                &mut || between(bound, &mut random),
            )?;
            put(format!("{prefix}.attention.out_proj.bias"), &[hidden], &mut || 0.0)?;
            put(format!("{prefix}.query"), &[1, 1, hidden], &mut || random.normal())?;
        }
    }
    let width = head.width;
    let mut linears = Vec::new();
    let mut norms = Vec::new();
    for side in Side::BOTH {
        linears.push((format!("{}_projection.0", side.name()), width, hidden));
        norms.push((format!("{}_projection.1", side.name()), width));
    }
    // Linear, LayerNorm, activation, dropout, linear, activation, dropout, linear: the numbers are the places.
    linears.push(("classifier.0".to_owned(), width, head.views.len() * width));
    norms.push(("classifier.1".to_owned(), width));
    linears.push(("classifier.4".to_owned(), width / 2, width));
    linears.push(("classifier.7".to_owned(), 1, width / 2));
    for (name, out, input) in linears {
        let bound = 1.0 / (input as f64).sqrt();
        put(format!("{name}.weight"), &[out, input], &mut || {
            between(bound, &mut random)
        })?;
        put(format!("{name}.bias"), &[out], &mut || between(bound, &mut random))?;
    }
    for (name, width) in norms {
        put(format!("{name}.weight"), &[width], &mut || 1.0)?;
        put(format!("{name}.bias"), &[width], &mut || 0.0)?;
    }
    if head.views.contains(&View::Bilinear) {
        let bound = 1.0 / (width as f64).sqrt();
        put("bilinear.weight".to_owned(), &[width, width, width], &mut || {
            between(bound, &mut random)
        })?;
        put("bilinear.bias".to_owned(), &[width], &mut || {
            between(bound, &mut random)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::job_tests::{Case, values};

    #[test]
    fn the_markers_begin_as_the_mean_of_all_words() {
        let case = Case::new();
        let rows = &case.start.tensors["adr_encoder.embeddings.word_embeddings.weight"];
        let words = rows.dim(0).unwrap() - MARKERS.len();
        let mean = values(&rows.narrow(0, 0, words).unwrap().mean(0).unwrap());
        assert!(mean.iter().all(|x| *x != 0.0), "{mean:?}");
        let ids = case.start.tokenizer.marker_ids().unwrap();
        for marker in ids {
            assert!(marker as usize >= words, "{marker} of {words}");
            let row = values(&rows.get(marker as usize).unwrap());
            for (found, expected) in row.iter().zip(&mean) {
                assert!((found - expected).abs() < 1e-7, "{row:?} {mean:?}");
            }
        }
    }
}

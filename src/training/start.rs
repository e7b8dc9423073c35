//! Where training begins: a backbone's weights or random ones, a fresh head, the markers' rows, and the small files
//! that will lie beside the trained weights.

mod fresh_encoder;
mod fresh_head;
mod tokenizer_files;

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use serde_json::{Value, json};

use self::{
    fresh_encoder::fresh_encoder,
    fresh_head::add_head,
    tokenizer_files::{load_tokenizer, named_file, with_markers},
};
use super::{BackboneSettings, HeadSettings, LabelledPair, TrainError, network::Network};
use crate::{
    Side,
    checkpoint::{Checkpoint, ModelFiles, TensorInfo},
    model::{ModelConfig, Pooling, Roles, config::Sidecar},
    text::{MARKERS, Tokenizer, vocabulary},
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

/// What BERT calls its word embeddings, behind whatever prefix a checkpoint has.
const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

impl Start {
    /// From a BERT checkpoint: both encoders begin from it.
    pub fn from_backbone(files: &ModelFiles, head: &HeadSettings, seed: u64) -> Result<Self, TrainError> {
        let checkpoint = Checkpoint::open(files)?;
        let refuse = |reason: String| TrainError::Backbone {
            place: files.source.clone(),
            reason,
        };
        let prefixes: Vec<&str> = checkpoint
            .tensors()
            .iter()
            .filter_map(|info| info.name.strip_suffix(WORD_EMBEDDINGS))
            .collect();
        let &[prefix] = prefixes.as_slice() else {
            let dual = match prefixes.len() {
                2 => ": a dual encoder, such as crag score loads; training begins with one BERT, for both encoders",
                _ => "",
            };
            return Err(refuse(format!(
                "expected one tensor that ends in \"{WORD_EMBEDDINGS}\", found {}{dual}",
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
        let mut pieces =
            vocabulary(&texts, settings.vocab_size, settings.lowercase).map_err(|reason| TrainError::Settings {
                place: "backbone.vocab_size".to_owned(),
                reason,
            })?;
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
        // The markers' rows come later, as their mean.
        let rows = pieces.len() - if head.markers { MARKERS.len() } else { 0 };
        let encoder = fresh_encoder(settings, rows, seed)?;
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
            let tensor = match name == WORD_EMBEDDINGS {
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

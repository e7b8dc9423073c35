//! What the backbone's `config.json` says of the encoders, as far as their tensors do not.

use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::Side;
use crate::words::shortened;

use super::{
    super::roles::Roles,
    setting::{ATTENTION_HEAD_SIZE, ActivationName, ConfigError, NamedFile, Setting, Source},
};

/// Families whose encoder is BERT's, as transformers computes it. (An ELECTRA whose embeddings are narrower than its layers has
/// a tensor more, and does not load.)
const SAME: [&str; 2] = ["bert", "electra"];

/// Families of BERT's tensors (or nearly) whose position ids begin at `padding_idx + 1`, as in RoBERTa.
const SHIFTED: [&str; 18] = [
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "mra",
    "nystromformer",
    "xmod",
    "yoso",
];

/// The part of the backbone's `config.json` that matters; other keys are the library's business.
#[derive(Clone, Debug, Default)]
struct BackboneConfig {
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    hidden_act: Option<Value>,
    layer_norm_eps: Option<f64>,
    position_embedding_type: Option<String>,
    model_type: Option<String>,
    is_decoder: Option<bool>,
}

impl BackboneConfig {
    fn parse((name, bytes): NamedFile<'_>) -> Result<Self, ConfigError> {
        let map: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| ConfigError::Syntax {
            file: name.to_owned(),
            reason: not_finite(bytes, &error).unwrap_or_else(|| error.to_string()),
        })?;
        let size = |field| value(name, &map, field, "a whole number");
        Ok(Self {
            hidden_size: size("hidden_size")?,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads: size("num_attention_heads")?,
            intermediate_size: size("intermediate_size")?,
            vocab_size: size("vocab_size")?,
            hidden_act: value(name, &map, "hidden_act", "a string")?,
            layer_norm_eps: value(name, &map, "layer_norm_eps", "a number")?,
            position_embedding_type: value(name, &map, "position_embedding_type", "a string")?,
            model_type: value(name, &map, "model_type", "a string")?,
            is_decoder: value(name, &map, "is_decoder", "true or false")?,
        })
    }
}

/// The value of a field, if there is one; null is none.
fn value<T: DeserializeOwned>(
    file: &str,
    map: &Map<String, Value>,
    field: &'static str,
    expected: &str,
) -> Result<Option<T>, ConfigError> {
    let Some(found) = map.get(field) else {
        return Ok(None);
    };
    Option::deserialize(found).map_err(|_| ConfigError::Field {
        file: file.to_owned(),
        field,
        expected: expected.to_owned(),
        found: shown(found),
    })
}

/// A value of an untrusted file on one line.
fn shown(value: &Value) -> String {
    shortened(&value.to_string(), 60)
}

/// What Python's json writes for numbers that JSON has not, where that is what is wrong.
fn not_finite(bytes: &[u8], error: &serde_json::Error) -> Option<String> {
    let line = bytes.split(|byte| *byte == b'\n').nth(error.line().checked_sub(1)?)?;
    // Of "-Infinity" the reader minds the second character.
    let from = line.get(error.column().checked_sub(1)?..)?;
    let words = ["Infinity", "NaN"];
    let word = words.into_iter().find(|word| from.starts_with(word.as_bytes()))?;
    Some(format!(
        "line {}, column {}: expected a number, found {word}, which Python's json writes and JSON does not have; write a finite one, or \
         remove that field",
        error.line(),
        error.column()
    ))
}

/// What the encoders' arithmetic needs besides their tensors.
pub(super) struct Backbone {
    pub num_attention_heads: Setting<usize>,
    pub layer_norm_eps: Setting<f64>,
    pub hidden_act: Setting<ActivationName>,
    /// See [`ModelConfig::unknown_family`](super::ModelConfig::unknown_family).
    pub unknown_family: Option<String>,
}

impl Backbone {
    /// Of `config.json`, held against the tensors of both encoders.
    pub fn read(roles: &Roles, file: Option<NamedFile<'_>>) -> Result<Self, ConfigError> {
        let name = file.map_or("config.json", |(name, _)| name);
        let field = |field, expected: String, found: String| ConfigError::Field {
            file: name.to_owned(),
            field,
            expected,
            found,
        };
        let config: BackboneConfig = match file {
            Some(file) => BackboneConfig::parse(file)?,
            None => BackboneConfig::default(),
        };
        for side in Side::BOTH {
            let (encoder, name) = (roles.encoder(side), side.name());
            let intermediate = encoder.layers.iter().map(|layer| layer.intermediate.out_features);
            let sizes = [
                ("hidden_size", config.hidden_size, encoder.hidden_size),
                ("num_hidden_layers", config.num_hidden_layers, encoder.layers.len()),
            ];
            let sizes = sizes
                .into_iter()
                .chain(intermediate.map(|size| ("intermediate_size", config.intermediate_size, size)));
            for (key, stated, found) in sizes {
                if let Some(stated) = stated
                    && stated != found
                {
                    let expected = format!(
                        "{found}, as the {name} encoder's tensors say (is it from the same revision, and no tensor missing?)"
                    );
                    return Err(field(key, expected, stated.to_string()));
                }
            }
            // The vocabulary may grow by markers after config.json was written, but never shrink.
            if let Some(stated) = config.vocab_size
                && stated > encoder.vocab_size
            {
                let expected = format!(
                    "at most {}, the rows of \"{}\"",
                    encoder.vocab_size, encoder.word_embeddings
                );
                return Err(field("vocab_size", expected, stated.to_string()));
            }
        }
        if let Some(kind) = &config.position_embedding_type
            && kind != "absolute"
        {
            return Err(field(
                "position_embedding_type",
                "\"absolute\"".into(),
                format!("\"{kind}\""),
            ));
        }
        // Their tensors have BERT's names and shapes, and every probability would be wrong.
        if let Some(family) = config.model_type.as_deref().filter(|family| SHIFTED.contains(family)) {
            return Err(field(
                "model_type",
                "\"bert\", whose first token is at position 0 (if the encoders are BERT's, put their own config.json there)"
                    .into(),
                format!("\"{family}\", whose first token is at the padding token's id + 1, which is not computed here"),
            ));
        }
        if config.is_decoder == Some(true) {
            let expected = "false, since every token sees those before and after it";
            return Err(field("is_decoder", expected.into(), "true".into()));
        }
        let hidden = roles.encoder(Side::Drug).hidden_size;
        // Elsewhere it would not even be a likely guess.
        if config.num_attention_heads.is_none() && !hidden.is_multiple_of(ATTENTION_HEAD_SIZE) {
            return Err(ConfigError::NoHeads {
                file: name.to_owned(),
                is_there: file.is_some(),
                hidden,
            });
        }
        let num_attention_heads = Setting::stated(
            config.num_attention_heads,
            Source::ConfigJson,
            hidden / ATTENTION_HEAD_SIZE,
        );
        if *num_attention_heads == 0 || !hidden.is_multiple_of(*num_attention_heads) {
            let expected = format!("a divisor of the hidden size {hidden}");
            return Err(field("num_attention_heads", expected, num_attention_heads.to_string()));
        }
        let layer_norm_eps = Setting::stated(config.layer_norm_eps, Source::ConfigJson, 1e-12);
        // Added to a variance: one of its own size would leave nothing of what a norm does.
        if !(*layer_norm_eps as f32 > 0.0 && *layer_norm_eps < 1.0) {
            return Err(field(
                "layer_norm_eps",
                "a small positive number, such as BERT's 1e-12".into(),
                layer_norm_eps.to_string(),
            ));
        }
        let activation = |value: &Value| {
            ActivationName::deserialize(value).map_err(|_| {
                let expected = "\"gelu\", \"gelu_new\", \"relu\" or \"tanh\"";
                field("hidden_act", expected.into(), value.to_string())
            })
        };
        let hidden_act = config.hidden_act.as_ref().map(activation).transpose()?;
        let hidden_act = Setting::stated(hidden_act, Source::ConfigJson, ActivationName::Gelu);
        Ok(Self {
            num_attention_heads,
            layer_norm_eps,
            hidden_act,
            unknown_family: config.model_type.filter(|family| !SAME.contains(&family.as_str())),
        })
    }
}

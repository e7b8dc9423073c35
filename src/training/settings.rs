//! The recipe: everything that can be set, with the card's values as defaults. TOML's keys are the fields' names.

use serde::{Deserialize, Serialize};

use crate::kernels::memory;
use crate::model::config::{
    ActivationName, DEFAULT_ACTIVATION, DEFAULT_MAX_LENGTH, DEFAULT_POOLING_HEADS, USUAL_VIEWS,
};
use crate::model::{Pooling, View};
use crate::words::with_numbers_named;

use super::{TrainError, phase::Phase};

/// The whole recipe; each member is a table or a key of the TOML file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Share of elements that dropout zeroes, in encoders and head.
    pub dropout: f64,
    /// Share of the training documents to validate on where no file is given for it.
    pub valid_fraction: f64,
    /// An encoder to begin from scratch with; none to begin from a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<BackboneSettings>,
    pub head: HeadSettings,
    pub negatives: NegativeSettings,
    pub contrastive: Contrastive,
    pub finetune: Finetune,
    pub optimizer: OptimizerSettings,
}

/// A BERT from scratch; the first six fields are `config.json`'s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackboneSettings {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    /// Word pieces at most, the four markers not counted.
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    /// Whether its vocabulary is made of lower-cased text, without accents.
    pub lowercase: bool,
}

/// The head, as `crag.json` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadSettings {
    pub pooling: Pooling,
    pub pooling_heads: usize,
    pub views: Vec<View>,
    /// Width of representations and of the bilinear's output; the classifier goes on with it and half of it.
    pub width: usize,
    pub activation: ActivationName,
    pub markers: bool,
    pub max_length: usize,
}

/// Where negatives come from that the data does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NegativeKind {
    /// As many as positives, [`NegativeSettings::hard_ratio`] of them hard.
    Hard,
    /// As many as positives, both sides drawn at random.
    Random,
    /// The labelled ones alone.
    None,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NegativeSettings {
    /// None stated: hard where the data has fewer than half as many labelled negatives as related pairs, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<NegativeKind>,
    pub hard_ratio: f64,
    /// Among how many nearest contexts a similar one is drawn.
    pub neighbours: usize,
}

/// Phase 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Contrastive {
    pub epochs: usize,
    pub learning_rate: f64,
    pub batch_size: usize,
    pub accumulation: usize,
    pub temperature: f64,
}

/// Phase 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finetune {
    pub epochs: usize,
    pub learning_rate: f64,
    pub batch_size: usize,
    pub accumulation: usize,
    pub focal_gamma: f64,
    pub focal_alpha: f64,
}

/// What the phases have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub epochs: usize,
    pub learning_rate: f64,
    /// Pairs in a micro-batch, and micro-batches in a step.
    pub batch_size: usize,
    pub accumulation: usize,
}

impl Pace {
    /// Optimizer steps of an epoch.
    pub fn steps(&self, items: usize) -> usize {
        items.div_ceil(self.batch_size).div_ceil(self.accumulation)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerSettings {
    pub warmup_ratio: f64,
    pub layerwise_decay: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 42,
            dropout: 0.1,
            valid_fraction: 0.1,
            backbone: None,
            head: HeadSettings::default(),
            negatives: NegativeSettings::default(),
            contrastive: Contrastive::default(),
            finetune: Finetune::default(),
            optimizer: OptimizerSettings::default(),
        }
    }
}

impl Default for BackboneSettings {
    fn default() -> Self {
        Self {
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 512,
            vocab_size: 4000,
            max_position_embeddings: 128,
            lowercase: true,
        }
    }
}

impl Default for HeadSettings {
    fn default() -> Self {
        Self {
            pooling: Pooling::Attention,
            pooling_heads: DEFAULT_POOLING_HEADS,
            views: USUAL_VIEWS[0].to_vec(),
            width: 256,
            activation: DEFAULT_ACTIVATION,
            markers: true,
            max_length: DEFAULT_MAX_LENGTH,
        }
    }
}

impl Default for NegativeSettings {
    fn default() -> Self {
        Self {
            kind: None,
            hard_ratio: 0.5,
            neighbours: 8,
        }
    }
}

impl Default for Contrastive {
    fn default() -> Self {
        Self {
            epochs: 5,
            learning_rate: 2e-5,
            batch_size: 16,
            accumulation: 4,
            temperature: 0.05,
        }
    }
}

impl Default for Finetune {
    fn default() -> Self {
        Self {
            epochs: 8,
            learning_rate: 2e-5,
            batch_size: 16,
            accumulation: 4,
            focal_gamma: 2.0,
            focal_alpha: 0.75,
        }
    }
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self {
            warmup_ratio: 0.1,
            layerwise_decay: 0.9,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        }
    }
}

impl Settings {
    /// Reads a TOML file's text; an unknown key is an error.
    pub fn parse(file: &str, text: &str) -> Result<Self, TrainError> {
        toml::from_str(text).map_err(|error| {
            let line = |span: std::ops::Range<usize>| 1 + text[..span.start].matches('\n').count();
            TrainError::Settings {
                place: format!("{file}:{}", error.span().map_or(1, line)),
                reason: with_numbers_named(error.message()),
            }
        })
    }

    /// Whether every number is one that can be trained with; what shapes decide is told when the network is built.
    pub fn check(&self) -> Result<(), TrainError> {
        let wrong = |place: &str, reason: String| {
            Err(TrainError::Settings {
                place: place.to_owned(),
                reason,
            })
        };
        let shares = [
            ("dropout", self.dropout),
            ("valid_fraction", self.valid_fraction),
            ("optimizer.warmup_ratio", self.optimizer.warmup_ratio),
            ("optimizer.beta1", self.optimizer.beta1),
            ("optimizer.beta2", self.optimizer.beta2),
        ];
        for (name, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return wrong(name, format!("expected from 0 to below 1, found {value}"));
            }
        }
        for (name, value) in [
            ("finetune.focal_alpha", self.finetune.focal_alpha),
            ("negatives.hard_ratio", self.negatives.hard_ratio),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(name, format!("expected from 0 to 1, found {value}"));
            }
        }
        let positive = [
            ("contrastive.learning_rate", self.contrastive.learning_rate),
            ("contrastive.temperature", self.contrastive.temperature),
            ("finetune.learning_rate", self.finetune.learning_rate),
            ("optimizer.layerwise_decay", self.optimizer.layerwise_decay),
            ("optimizer.max_grad_norm", self.optimizer.max_grad_norm),
            ("optimizer.eps", self.optimizer.eps),
        ];
        for (name, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return wrong(name, format!("expected a number above 0, found {value}"));
            }
        }
        for (name, value) in [
            ("finetune.focal_gamma", self.finetune.focal_gamma),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(name, format!("expected a number of at least 0, found {value}"));
            }
        }
        let mut counts = vec![
            ("contrastive.batch_size", self.contrastive.batch_size),
            ("contrastive.accumulation", self.contrastive.accumulation),
            ("finetune.epochs", self.finetune.epochs),
            ("finetune.batch_size", self.finetune.batch_size),
            ("finetune.accumulation", self.finetune.accumulation),
            ("head.width", self.head.width),
            ("head.pooling_heads", self.head.pooling_heads),
            ("head.views", self.head.views.len()),
            ("negatives.neighbours", self.negatives.neighbours),
        ];
        if let Some(backbone) = &self.backbone {
            counts.extend([
                ("backbone.hidden_size", backbone.hidden_size),
                ("backbone.num_hidden_layers", backbone.num_hidden_layers),
                ("backbone.num_attention_heads", backbone.num_attention_heads),
                ("backbone.intermediate_size", backbone.intermediate_size),
                ("backbone.vocab_size", backbone.vocab_size),
                ("backbone.max_position_embeddings", backbone.max_position_embeddings),
            ]);
        }
        // Far above any use.
        const MOST: usize = 1 << 24;
        for (name, value) in counts {
            if value == 0 || value > MOST {
                return wrong(name, format!("expected 1 to {MOST}, found {value}"));
            }
        }
        if self.contrastive.epochs > MOST {
            let found = self.contrastive.epochs;
            return wrong("contrastive.epochs", format!("expected 0 to {MOST}, found {found}"));
        }
        if let Some(backbone) = &self.backbone
            && !backbone.hidden_size.is_multiple_of(backbone.num_attention_heads)
        {
            let (size, heads) = (backbone.hidden_size, backbone.num_attention_heads);
            let reason = format!("expected a multiple of num_attention_heads ({heads}), found {size}");
            return wrong("backbone.hidden_size", reason);
        }
        if let Some(memory) = memory::host_bytes() {
            for (name, parameters) in self.largest() {
                let bytes = parameters.saturating_mul(size_of::<f32>() as u128);
                if bytes > u128::from(memory) {
                    let (needed, there) = (bytes >> 30, memory >> 30);
                    let reason =
                        format!("expected a model that fits into memory ({there} GiB), found one of {needed} GiB");
                    return wrong(name, reason);
                }
            }
        }
        if self.head.width < 2 {
            return wrong("head.width", "expected at least 2, found 1".to_owned());
        }
        Ok(())
    }
}

impl Settings {
    /// How a phase goes on.
    pub(super) fn pace(&self, phase: Phase) -> Pace {
        let Settings {
            contrastive, finetune, ..
        } = self;
        match phase {
            Phase::Contrastive => Pace {
                epochs: contrastive.epochs,
                learning_rate: contrastive.learning_rate,
                batch_size: contrastive.batch_size,
                accumulation: contrastive.accumulation,
            },
            Phase::Finetune => Pace {
                epochs: finetune.epochs,
                learning_rate: finetune.learning_rate,
                batch_size: finetune.batch_size,
                accumulation: finetune.accumulation,
            },
        }
    }

    /// What to change when the loss of a phase is no number, as the end of a sentence: settings far beyond any use first,
    /// since no learning rate would help against those.
    pub(super) fn to_change(&self, phase: Phase) -> String {
        let usual = Self::default();
        let (optimizer, usual_optimizer) = (&self.optimizer, &usual.optimizer);
        let of_phase = match phase {
            // Cosines are divided by it, and have to stay numbers.
            Phase::Contrastive => (
                "contrastive.temperature",
                self.contrastive.temperature,
                usual.contrastive.temperature,
                1e-3..f64::INFINITY,
            ),
            // The exponent of a probability.
            Phase::Finetune => (
                "finetune.focal_gamma",
                self.finetune.focal_gamma,
                usual.finetune.focal_gamma,
                0.0..100.0,
            ),
        };
        let (decay, eps) = (optimizer.weight_decay, optimizer.eps);
        let layerwise = optimizer.layerwise_decay;
        let bounded = [
            of_phase,
            (
                "optimizer.weight_decay",
                decay,
                usual_optimizer.weight_decay,
                0.0..100.0,
            ),
            (
                "optimizer.layerwise_decay",
                layerwise,
                usual_optimizer.layerwise_decay,
                0.0..10.0,
            ),
            // Added to a root that may be 0, in f32.
            ("optimizer.eps", eps, usual_optimizer.eps, 1e-30..f64::INFINITY),
        ];
        let extreme = bounded
            .into_iter()
            .filter(|(_, value, _, range)| !range.contains(value));
        let extreme =
            extreme.map(|(name, value, usual, _)| format!("another {name} than {value:?} (usual: {usual:?})"));
        let changes = extreme.chain(["a lower learning rate".to_owned()]);
        changes.collect::<Vec<_>>().join(", or else ")
    }

    /// Parameters of the largest parts, each with the setting that makes it large.
    fn largest(&self) -> Vec<(&'static str, u128)> {
        // The classifier's first layer.
        let mut largest = vec![("head.width", (self.head.width as u128).pow(2))];
        if self.head.views.contains(&View::Bilinear) {
            largest.push(("head.width", (self.head.width as u128).pow(3)));
        }
        if let Some(backbone) = &self.backbone {
            let [hidden, layers, intermediate, words, positions] = [
                backbone.hidden_size,
                backbone.num_hidden_layers,
                backbone.intermediate_size,
                backbone.vocab_size,
                backbone.max_position_embeddings,
            ]
            .map(|size| size as u128);
            // The vocabulary may turn out smaller than it is asked for.
            let embeddings = positions * hidden + words.min(1 << 20) * hidden;
            let layers = layers * (4 * hidden * hidden + 2 * hidden * intermediate);
            largest.push(("backbone.hidden_size", 2 * (embeddings + layers)));
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_cards() {
        let read = Settings::parse("x.toml", "").unwrap();
        assert_eq!(read, Settings::default());
        read.check().unwrap();
        assert_eq!(
            (
                read.contrastive.epochs,
                read.contrastive.batch_size,
                read.contrastive.accumulation
            ),
            (5, 16, 4)
        );
        assert_eq!((read.finetune.epochs, read.finetune.learning_rate), (8, 2e-5));
    }

    #[test]
    fn after_a_loss_that_is_no_number_extreme_settings_are_named_before_the_learning_rate() {
        let change = |text: &str, phase: Phase| {
            let settings = Settings::parse("x.toml", text).unwrap();
            settings.check().unwrap();
            settings.to_change(phase)
        };
        for phase in [Phase::Contrastive, Phase::Finetune] {
            assert_eq!(change("", phase), "a lower learning rate");
        }
        let gamma = "[finetune]\nfocal_gamma = 1e308";
        assert_eq!(
            change(gamma, Phase::Finetune),
            "another finetune.focal_gamma than 1e308 (usual: 2.0), or else a lower learning rate"
        );
        // It has no part in the first phase.
        assert_eq!(change(gamma, Phase::Contrastive), "a lower learning rate");
        let cold = change("[contrastive]\ntemperature = 1e-300", Phase::Contrastive);
        assert!(
            cold.starts_with("another contrastive.temperature than 1e-300 (usual: 0.05)"),
            "{cold}"
        );
        let decay = change("[optimizer]\nweight_decay = 1e308", Phase::Finetune);
        assert!(
            decay.starts_with("another optimizer.weight_decay than 1e308"),
            "{decay}"
        );
    }

    #[test]
    fn an_unknown_key_and_an_impossible_number_are_named() {
        let error = Settings::parse("x.toml", "[finetune]\nepoch = 3\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("x.toml:2") && error.contains("epoch"), "{error}");
        let settings = Settings::parse("x.toml", "dropout = 1.5").unwrap();
        assert!(settings.check().unwrap_err().to_string().contains("dropout"));
    }
}

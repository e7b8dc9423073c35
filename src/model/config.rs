//! What a model is beyond its tensors' shapes: settings, and where each came from.
//!
//! Shapes come first ([`Roles`]), `config.json` gives what shapes cannot for the encoders, the
//! sidecar `crag.json` what they cannot for the head; defaults are BERT's and the model card's.

mod backbone;
mod setting;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::words::with_numbers_named;
use crate::{Calibration, Side};

use super::roles::Roles;
use backbone::Backbone;

pub use setting::{
    ATTENTION_HEAD_SIZE, ActivationName, ConfigError, NamedFile, Pooling, Setting, Source, View, view_names,
};

/// The sidecar file: what shapes cannot say about the head. Every key may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling_heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views: Option<Vec<View>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub markers: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<ActivationName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection_activation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What whoever uses the model is told each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// The model card's: a pair with at least this probability is called causal where neither crag.json nor a flag says otherwise.
pub const DEFAULT_THRESHOLD: f32 = 0.55;
/// And the rest of what is taken where `crag.json` does not state it.
pub const DEFAULT_POOLING_HEADS: usize = 4;
pub const DEFAULT_MAX_LENGTH: usize = 128;
pub const DEFAULT_ACTIVATION: ActivationName = ActivationName::Gelu;
/// The card's two views, and the four that the family's other card names.
pub const USUAL_VIEWS: [&[View]; 3] = [
    &[View::Bilinear, View::Product],
    &[View::Bilinear],
    &[View::Bilinear, View::Drug, View::Adr, View::Product],
];

/// Everything the forward pass and the text side need to know besides the tensors.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    pub num_attention_heads: Setting<usize>,
    pub layer_norm_eps: Setting<f64>,
    pub hidden_act: Setting<ActivationName>,
    pub pooling: Setting<Pooling>,
    pub pooling_heads: Setting<usize>,
    pub views: Setting<Vec<View>>,
    pub activation: Setting<ActivationName>,
    /// Whether the projections end in the activation, if there are any; the roles say the same.
    pub projection_activation: Option<Setting<bool>>,
    pub markers: Setting<bool>,
    pub max_length: Setting<usize>,
    pub threshold: Setting<f32>,
    /// What `config.json` calls the encoders' family, where that is not one which is known to compute what BERT does.
    pub unknown_family: Option<String>,
    /// From raw probabilities to calibrated ones, for whoever asks for those.
    pub calibration: Option<Calibration>,
    /// What whoever uses the model is told each time.
    pub notice: Option<String>,
}

impl Sidecar {
    /// Reads `crag.json`; an unknown key is an error.
    pub fn parse((name, bytes): NamedFile<'_>) -> Result<Self, ConfigError> {
        let syntax = |reason: String| ConfigError::Syntax {
            file: name.to_owned(),
            reason,
        };
        // An array would pass for the settings in their order.
        let settings: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|error| syntax(format!("expected one JSON object of settings: {error}")))?;
        serde_json::from_slice(bytes).map_err(|error| {
            let alone = |(key, value): (String, Value)| {
                let error = Self::deserialize(Value::Object(Map::from_iter([(key.clone(), value)]))).err()?;
                Some(format!("\"{key}\": {error}"))
            };
            // serde does not name the key.
            let named = settings
                .into_iter()
                .find_map(alone)
                .unwrap_or_else(|| error.to_string());
            syntax(with_numbers_named(&named))
        })
    }

    /// What of it decides a model's probabilities, in one spelling; none where nothing does. The threshold and the calibration
    /// do not: they are applied to what comes out. A notice is for people.
    pub fn of_probabilities(&self) -> Option<Vec<u8>> {
        let deciding = Self {
            threshold: None,
            calibration: None,
            notice: None,
            ..self.clone()
        };
        // Writing a struct of plain values into memory does not fail.
        (deciding != Self::default()).then(|| serde_json::to_vec(&deciding).unwrap_or_default())
    }

    /// The settings that this states and that `used` has otherwise, for a model that both fit: what `used` leaves out is
    /// what [`ModelConfig::read`] takes for it (but of a model with fewer positions than usual, whose number is not known
    /// here). A calibration and a notice are none of them.
    pub fn other_than(&self, used: &Sidecar) -> Vec<&'static str> {
        fn is_other<T: PartialEq>(stated: Option<&T>, used: Option<&T>, is_default: impl Fn(&T) -> bool) -> bool {
            match (stated, used) {
                (None, _) => false,
                (Some(stated), Some(used)) => stated != used,
                (Some(stated), None) => !is_default(stated),
            }
        }
        // Without a pooler the pooling has to be stated, and the widths of usual sets of views are different.
        let pooling = is_other(self.pooling.as_ref(), used.pooling.as_ref(), |stated| {
            *stated == Pooling::Attention
        });
        let heads = is_other(self.pooling_heads.as_ref(), used.pooling_heads.as_ref(), |stated| {
            *stated == DEFAULT_POOLING_HEADS
        });
        let views = is_other(self.views.as_ref(), used.views.as_ref(), |stated| {
            USUAL_VIEWS.contains(&stated.as_slice())
        });
        let markers = is_other(self.markers.as_ref(), used.markers.as_ref(), |stated| *stated);
        let length = is_other(self.max_length.as_ref(), used.max_length.as_ref(), |stated| {
            *stated == DEFAULT_MAX_LENGTH
        });
        let threshold = is_other(self.threshold.as_ref(), used.threshold.as_ref(), |stated| {
            *stated == DEFAULT_THRESHOLD
        });
        let activation = is_other(self.activation.as_ref(), used.activation.as_ref(), |stated| {
            *stated == DEFAULT_ACTIVATION
        });
        // The card's; of a projection of another shape it may be the other, which is not known here.
        let projections = is_other(
            self.projection_activation.as_ref(),
            used.projection_activation.as_ref(),
            |stated| *stated,
        );
        let all = [
            ("pooling", pooling),
            ("pooling_heads", heads),
            ("views", views),
            ("markers", markers),
            ("max_length", length),
            ("threshold", threshold),
            ("activation", activation),
            ("projection_activation", projections),
        ];
        all.into_iter()
            .filter(|(_, is_other)| *is_other)
            .map(|(key, _)| key)
            .collect()
    }

    /// What this states, and where it states nothing, what `other` does.
    pub fn or(self, other: &Sidecar) -> Self {
        Self {
            pooling: self.pooling.or(other.pooling),
            pooling_heads: self.pooling_heads.or(other.pooling_heads),
            views: self.views.or_else(|| other.views.clone()),
            markers: self.markers.or(other.markers),
            max_length: self.max_length.or(other.max_length),
            threshold: self.threshold.or(other.threshold),
            activation: self.activation.or(other.activation),
            projection_activation: self.projection_activation.or(other.projection_activation),
            calibration: self.calibration.or_else(|| other.calibration.clone()),
            notice: self.notice.or_else(|| other.notice.clone()),
        }
    }
}

impl ModelConfig {
    /// Combines the three sources: shapes, `config.json`, `crag.json`. What the last states of the projections' activation, `roles`
    /// have been read with ([`Roles::read_stated`]).
    ///
    /// # Errors
    /// A file that is no such JSON, or states what the shapes contradict.
    pub fn read(
        roles: &Roles,
        config_json: Option<NamedFile<'_>>,
        crag_json: Option<NamedFile<'_>>,
    ) -> Result<Self, ConfigError> {
        let sidecar_name = crag_json.map_or("crag.json", |(name, _)| name);
        let sidecar = crag_json.map(Sidecar::parse).transpose()?.unwrap_or_default();
        let backbone = Backbone::read(roles, config_json)?;
        let hidden_size = roles.encoder(Side::Drug).hidden_size;

        let has_pooler = roles.pooler(Side::Drug).is_some();
        let pooling = match (has_pooler, sidecar.pooling) {
            (true, None) => Setting {
                value: Pooling::Attention,
                source: Source::Shapes,
            },
            (false, None) => return Err(ConfigError::NoPooling),
            (true, Some(stated)) if stated != Pooling::Attention => {
                return Err(ConfigError::PoolingMismatch {
                    file: sidecar_name.to_owned(),
                    stated,
                });
            }
            (false, Some(stated @ Pooling::Attention)) => {
                return Err(ConfigError::PoolingMismatch {
                    file: sidecar_name.to_owned(),
                    stated,
                });
            }
            (_, Some(stated)) => Setting {
                value: stated,
                source: Source::CragJson,
            },
        };
        let pooling_heads = stated(sidecar.pooling_heads, DEFAULT_POOLING_HEADS);
        if has_pooler && (*pooling_heads == 0 || !hidden_size.is_multiple_of(*pooling_heads)) {
            return Err(ConfigError::Field {
                file: sidecar_name.to_owned(),
                field: "pooling_heads",
                expected: format!("a divisor of the hidden size {hidden_size}"),
                found: pooling_heads.to_string(),
            });
        }

        let positions = roles.positions();
        let max_length = stated(sidecar.max_length, DEFAULT_MAX_LENGTH.min(positions));
        if *max_length < MIN_LENGTH || *max_length > positions {
            return Err(ConfigError::Field {
                file: sidecar_name.to_owned(),
                field: "max_length",
                expected: format!("{MIN_LENGTH} to {positions}, the model's positions"),
                found: max_length.to_string(),
            });
        }
        let threshold = stated(sidecar.threshold, DEFAULT_THRESHOLD);
        if !(0.0..=1.0).contains(&*threshold) {
            return Err(ConfigError::Field {
                file: sidecar_name.to_owned(),
                field: "threshold",
                expected: "a probability from 0 to 1".into(),
                found: threshold.to_string(),
            });
        }
        if let Some(Err(found)) = sidecar.calibration.as_ref().map(Calibration::check) {
            return Err(ConfigError::Calibration {
                file: sidecar_name.to_owned(),
                found,
            });
        }
        Ok(Self {
            num_attention_heads: backbone.num_attention_heads,
            layer_norm_eps: backbone.layer_norm_eps,
            hidden_act: backbone.hidden_act,
            pooling,
            pooling_heads,
            views: read_views(roles, sidecar.views, sidecar_name)?,
            activation: stated(sidecar.activation, DEFAULT_ACTIVATION),
            projection_activation: read_projections(roles, sidecar.projection_activation, sidecar_name)?,
            markers: stated(sidecar.markers, true),
            max_length,
            threshold,
            unknown_family: backbone.unknown_family,
            calibration: sidecar.calibration,
            notice: sidecar.notice,
        })
    }

    /// The sidecar that states everything this configuration holds about the head.
    pub fn to_sidecar(&self) -> Sidecar {
        Sidecar {
            pooling: Some(*self.pooling),
            pooling_heads: (*self.pooling == Pooling::Attention).then_some(*self.pooling_heads),
            views: Some(self.views.value.clone()),
            markers: Some(*self.markers),
            max_length: Some(*self.max_length),
            threshold: Some(*self.threshold),
            activation: Some(*self.activation),
            projection_activation: self.projection_activation.as_ref().map(|setting| setting.value),
            calibration: self.calibration.clone(),
            notice: self.notice.clone(),
        }
    }
}

/// `[CLS]`, at least one token, `[SEP]`.
const MIN_LENGTH: usize = 3;

fn stated<T>(value: Option<T>, default: T) -> Setting<T> {
    Setting::stated(value, Source::CragJson, default)
}

fn read_projections(roles: &Roles, stated_end: Option<bool>, file: &str) -> Result<Option<Setting<bool>>, ConfigError> {
    let found = roles.projections_end_active();
    match (found, stated_end) {
        (Some(found), None) => Ok(Some(stated(None, found))),
        (Some(found), Some(end)) if found == end => Ok(Some(stated(stated_end, found))),
        (None, None) => Ok(None),
        (found, Some(end)) => Err(ConfigError::Field {
            file: file.to_owned(),
            field: "projection_activation",
            expected: match found {
                Some(found) => format!("{found}, as the tensors were read"),
                None => "no such key, the checkpoint has no projections".to_owned(),
            },
            found: end.to_string(),
        }),
    }
}

/// Width of `views` side by side.
pub fn views_width(roles: &Roles, views: &[View]) -> usize {
    views.iter().map(|&view| view_width(roles, view)).sum()
}

/// Every ordered set of distinct views that is as wide as the classifier's input.
pub fn view_sets(roles: &Roles) -> Vec<Vec<View>> {
    let mut found = Vec::new();
    let mut pending: Vec<Vec<View>> = vec![Vec::new()];
    while let Some(views) = pending.pop() {
        let width = views_width(roles, &views);
        if width == roles.classifier_width() {
            found.push(views);
        } else if width < roles.classifier_width() {
            for view in View::ALL.into_iter().rev() {
                if !views.contains(&view) && (view != View::Bilinear || roles.bilinear.is_some()) {
                    pending.push(views.iter().copied().chain([view]).collect());
                }
            }
        }
    }
    found
}

fn view_width(roles: &Roles, view: View) -> usize {
    match (view, &roles.bilinear) {
        (View::Bilinear, Some(bilinear)) => bilinear.outputs,
        _ => roles.representation_width(),
    }
}

fn read_views(roles: &Roles, stated_views: Option<Vec<View>>, file: &str) -> Result<Setting<Vec<View>>, ConfigError> {
    let classifier_width = roles.classifier_width();
    let field = |expected: String, found: String| ConfigError::Field {
        file: file.to_owned(),
        field: "views",
        expected,
        found,
    };
    if let Some(views) = stated_views {
        if views.is_empty() || views.iter().enumerate().any(|(i, v)| views[..i].contains(v)) {
            return Err(field("at least one view and none twice".into(), view_names(&views)));
        }
        if views.contains(&View::Bilinear) && roles.bilinear.is_none() {
            return Err(field(
                "views without \"bilinear\", the checkpoint has no such tensor".into(),
                view_names(&views),
            ));
        }
        let width = views_width(roles, &views);
        if width != classifier_width {
            return Err(ConfigError::ViewsWidth {
                views,
                views_width: width,
                classifier_width,
            });
        }
        return Ok(Setting {
            value: views,
            source: Source::CragJson,
        });
    }
    USUAL_VIEWS
        .into_iter()
        .find(|views| roles.bilinear.is_some() && views_width(roles, views) == classifier_width)
        .map(|views| Setting {
            value: views.to_vec(),
            source: Source::Default,
        })
        .ok_or(ConfigError::NoViews {
            classifier_width,
            width: roles.representation_width(),
        })
}

#[cfg(test)]
mod tests;

//! Settings of a model, of what kinds they are, where each came from, and why some do not fit.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Serialize};

use crate::kernels::Activation;

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting<T> {
    pub value: T,
    pub source: Source,
}

impl<T> Setting<T> {
    /// What `source` states, or the default.
    pub fn stated(value: Option<T>, source: Source, default: T) -> Self {
        match value {
            Some(value) => Self { value, source },
            None => Self {
                value: default,
                source: Source::Default,
            },
        }
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Where a setting came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Shapes,
    ConfigJson,
    CragJson,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Shapes => "tensor names and shapes",
            Source::ConfigJson => "config.json",
            Source::CragJson => "crag.json",
            Source::Default => "default",
        })
    }
}

/// How hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    Attention,
    Mean,
    Cls,
}

impl Pooling {
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Attention => "attention",
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        }
    }
}

/// One part of the classifier's input, made of a pair of representations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    Bilinear,
    Drug,
    Adr,
    Product,
    AbsDiff,
}

impl View {
    pub const ALL: [View; 5] = [View::Bilinear, View::Drug, View::Adr, View::Product, View::AbsDiff];

    pub fn name(self) -> &'static str {
        match self {
            View::Bilinear => "bilinear",
            View::Drug => "drug",
            View::Adr => "adr",
            View::Product => "product",
            View::AbsDiff => "abs_diff",
        }
    }
}

/// Comma-separated names of views.
pub fn view_names(views: &[View]) -> String {
    views.iter().map(|v| v.name()).collect::<Vec<_>>().join(", ")
}

/// Names of activations as `crag.json` and `config.json` spell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationName {
    Gelu,
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Relu,
    Tanh,
}

impl ActivationName {
    pub fn name(self) -> &'static str {
        match self {
            ActivationName::Gelu => "gelu",
            ActivationName::GeluNew => "gelu_new",
            ActivationName::Relu => "relu",
            ActivationName::Tanh => "tanh",
        }
    }

    pub fn kernel(self) -> Activation {
        match self {
            ActivationName::Gelu => Activation::Gelu,
            ActivationName::GeluNew => Activation::GeluTanh,
            ActivationName::Relu => Activation::Relu,
            ActivationName::Tanh => Activation::Tanh,
        }
    }
}

/// BERT's heads are 64 wide at every size that Google published; others' are not (MiniLM's are 32).
pub const ATTENTION_HEAD_SIZE: usize = 64;

/// Why a configuration does not fit; `file` names the file to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: {reason}")]
    Syntax { file: String, reason: String },
    #[error("{file}: field \"calibration\": {found}; remove it, and crag calibrate fits a new one")]
    Calibration { file: String, found: String },
    #[error("{file}: field \"{field}\": expected {expected}, found {found}")]
    Field {
        file: String,
        field: &'static str,
        expected: String,
        found: String,
    },
    #[error(
        "{file}: {}; heads of BERT's usual width {ATTENTION_HEAD_SIZE} do not make up the hidden size {hidden}: put the backbone's own \
         config.json there, or write {{\"num_attention_heads\": N}} with its number into it",
        if *.is_there {
            "field \"num_attention_heads\": not stated"
        } else {
            "not beside the weights, so the number of attention heads is not stated"
        }
    )]
    NoHeads {
        file: String,
        is_there: bool,
        hidden: usize,
    },
    #[error(
        "no attention pooler among the tensors and no pooling stated; write {{\"pooling\": \"mean\"}} or {{\"pooling\": \"cls\"}} into crag.json beside the weights, or give it with --model-config"
    )]
    NoPooling,
    #[error(
        "{file}: \"pooling\" is \"{}\", but the checkpoint has {}; state {}",
        .stated.name(),
        match .stated {
            Pooling::Attention => "no attention pooler tensors",
            Pooling::Mean | Pooling::Cls => "attention pooler tensors, which would go unused",
        },
        match .stated {
            Pooling::Attention => "\"mean\" or \"cls\"",
            Pooling::Mean | Pooling::Cls => "\"attention\" or leave it out",
        }
    )]
    PoolingMismatch { file: String, stated: Pooling },
    #[error(
        "the views {} are {views_width} numbers wide, the classifier takes {classifier_width}; state the right \"views\" in crag.json",
        view_names(.views)
    )]
    ViewsWidth {
        views: Vec<View>,
        views_width: usize,
        classifier_width: usize,
    },
    #[error(
        "the classifier takes {classifier_width} numbers, and views are {width} wide: no usual set of views fits; state \"views\" in crag.json"
    )]
    NoViews { classifier_width: usize, width: usize },
}

impl ConfigError {
    /// The file to mend, where one states what does not fit.
    pub fn file(&self) -> Option<&str> {
        match self {
            ConfigError::Syntax { file, .. }
            | ConfigError::Calibration { file, .. }
            | ConfigError::Field { file, .. }
            | ConfigError::NoHeads { file, .. }
            | ConfigError::PoolingMismatch { file, .. } => Some(file),
            ConfigError::NoPooling | ConfigError::ViewsWidth { .. } | ConfigError::NoViews { .. } => None,
        }
    }
}

/// A file's name for messages and its contents.
pub type NamedFile<'a> = (&'a str, &'a [u8]);

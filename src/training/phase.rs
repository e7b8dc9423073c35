//! The recipe's two phases.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Phase 1: InfoNCE over the two projections.
    Contrastive,
    /// Phase 2: focal loss on pairs.
    Finetune,
}

impl Phase {
    pub const FIRST: Self = Phase::Contrastive;

    pub(super) fn next(self) -> Option<Self> {
        match self {
            Phase::Contrastive => Some(Phase::Finetune),
            Phase::Finetune => None,
        }
    }

    /// Part of the keys that random numbers follow from.
    pub(super) fn key(self) -> u64 {
        match self {
            Phase::Contrastive => 0,
            Phase::Finetune => 1,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Contrastive => "contrastive",
            Phase::Finetune => "finetune",
        })
    }
}

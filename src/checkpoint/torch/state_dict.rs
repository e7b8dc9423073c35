//! Where in what was saved the state dict is: at the top, or under a key that training scripts use.

use std::collections::HashSet;

use super::pickle::{Pickle, Tensor, Value};
use super::{CheckpointError, RESAVE};
use crate::checkpoint::listing::MOST_TENSORS;

/// The keys under which a training checkpoint may hold its state dict, tried in this order.
const KEYS: [&str; 3] = ["model_state_dict", "state_dict", "model"];

pub(super) struct StateDict<'p> {
    pub entries: Vec<(&'p str, &'p Tensor)>,
    /// The key it was found under, if not at the top.
    pub key: Option<&'static str>,
}

/// Finds the one dict whose values are all tensors.
pub(super) fn find<'p>(file: &str, pickle: &'p Pickle) -> Result<StateDict<'p>, CheckpointError> {
    let Some(top) = pickle.dict(pickle.root) else {
        return Err(CheckpointError::unsupported(
            file,
            format!(
                "expected a saved state dict, found {}; {RESAVE}",
                pickle.describe(pickle.root)
            ),
        ));
    };
    let direct = match entries(pickle, top) {
        Ok(entries) if !entries.is_empty() => return Ok(StateDict { entries, key: None }),
        Ok(_) => None,
        Err(refusal) => Some(refusal),
    };
    let under_keys: Vec<(&'static str, Value)> = KEYS
        .into_iter()
        .filter_map(|key| {
            let (_, value) = top.iter().find(|(name, _)| pickle.is_text(*name, key))?;
            Some((key, *value))
        })
        .collect();
    let mut refused = None;
    for (key, value) in under_keys {
        match pickle.dict(value).map(|dict| entries(pickle, dict)) {
            Some(Ok(entries)) if !entries.is_empty() => {
                return Ok(StateDict {
                    entries,
                    key: Some(key),
                });
            }
            Some(Err(refusal)) if refusal.some_tensor => refused = refused.or(Some((Some(key), refusal))),
            _ => {}
        }
    }
    // A dict that holds some tensors was meant as a state dict: name what is wrong with it.
    let refused = refused.or(direct
        .filter(|refusal| refusal.some_tensor)
        .map(|refusal| (None, refusal)));
    if let Some((key, refusal)) = refused {
        let place = key.map(|key| format!(" under \"{key}\"")).unwrap_or_default();
        return Err(CheckpointError::tensor(
            file,
            refusal.entry,
            format!("expected a tensor in the state dict{place}, found {}", refusal.found),
        ));
    }
    let keys: Vec<String> = top
        .iter()
        .take(20)
        .map(|(name, value)| format!("{} ({})", pickle.show(*name), pickle.describe(*value)))
        .collect();
    let more = if top.len() > keys.len() { ", …" } else { "" };
    Err(CheckpointError::unsupported(
        file,
        format!(
            "no state dict at the top or under {}: found the keys {}{more}; {RESAVE}",
            KEYS.map(|key| format!("\"{key}\"")).join(", "),
            if keys.is_empty() {
                "(none)".into()
            } else {
                keys.join(", ")
            },
        ),
    ))
}

struct Refusal {
    entry: String,
    found: String,
    some_tensor: bool,
}

fn entries<'p>(pickle: &'p Pickle, dict: &[(Value, Value)]) -> Result<Vec<(&'p str, &'p Tensor)>, Refusal> {
    let tensor = |(name, value): &(Value, Value)| {
        let tensor = pickle.tensor(*value)?;
        Some((pickle.text(*name)?, tensor))
    };
    let refuse = |entry: &(Value, Value), found: String| Refusal {
        entry: pickle
            .text(entry.0)
            .map_or_else(|| pickle.show(entry.0), str::to_string),
        found,
        some_tensor: dict.iter().any(|entry| tensor(entry).is_some()),
    };
    let mut entries = Vec::new();
    // Names are compared before any is copied: a short pickle can refer to one long name very often.
    let mut seen = HashSet::new();
    for entry in dict {
        let Some((name, found)) = tensor(entry) else {
            return Err(refuse(entry, pickle.describe(entry.1)));
        };
        if !seen.insert(name) {
            return Err(refuse(entry, "a second one of this name".into()));
        }
        if seen.len() > MOST_TENSORS {
            return Err(refuse(entry, format!("more than {MOST_TENSORS} tensors")));
        }
        entries.push((name, found));
    }
    Ok(entries)
}

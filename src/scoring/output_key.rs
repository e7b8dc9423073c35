//! Under which keys an answer stands, and which of a record's own are in its way.

use super::fields::{FIELDS, FieldMap};

/// The keys of an answer that is not nested.
const RESERVED_KEYS: [&str; 4] = ["probability", "causal", "warnings", "error"];
/// Where a record is kept that cannot take its error.
pub(super) const RECORD_KEY: &str = "record";
/// One more with several models.
pub(super) const PROBABILITIES: &str = "probabilities";

/// Where the answer goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Destination {
    /// Beside the record's own keys.
    #[default]
    Beside,
    /// Nested under one key.
    Under(String),
    /// None is written: no key of a record is in the way.
    Nowhere,
}

/// Where the answer goes, and what it has: beside the record's own keys (the default), or nested under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputKey {
    destination: Destination,
    /// Whether answers name the probability of each of several models.
    several: bool,
    calibrated: bool,
}

/// The key of a calibrated probability, which an answer has beside the raw one where it was asked for.
pub const CALIBRATED_KEY: &str = "calibrated_probability";

impl OutputKey {
    /// Nested under `key`. Errors, with the reason, on one that can never work: an empty key, a field that
    /// is read from the record, and `file`, `line` and `record`, which stand beside an error that the line cannot take, and `error`, by which
    /// whoever reads answers knows the lines that have none.
    pub fn nested(key: &str) -> Result<Self, String> {
        if key.is_empty() {
            return Err("expected a key, found an empty string".to_owned());
        }
        if ["error", "file", "line", RECORD_KEY].contains(&key) || FIELDS.contains(&key) {
            return Err(format!(
                "expected a key of its own, found \"{key}\", which records use themselves"
            ));
        }
        Ok(Self {
            destination: Destination::Under(key.to_owned()),
            ..Self::default()
        })
    }

    /// For whoever reads records and answers none.
    pub(super) fn nowhere() -> Self {
        Self {
            destination: Destination::Nowhere,
            ..Self::default()
        }
    }

    /// The same for answers that have a calibrated probability too, or have none.
    pub fn with_calibrated(self, calibrated: bool) -> Self {
        Self { calibrated, ..self }
    }

    /// Whether answers have a calibrated probability too.
    pub(super) fn calibrated(&self) -> bool {
        self.calibrated
    }

    /// The key that answers are nested under, if they are.
    pub fn key(&self) -> Option<&str> {
        match &self.destination {
            Destination::Under(key) => Some(key),
            Destination::Beside | Destination::Nowhere => None,
        }
    }

    /// Whether answers name the probability of each of several models.
    pub(super) fn several(&self) -> bool {
        self.several
    }

    /// The same for answers of this many models.
    pub fn of_members(mut self, count: usize) -> Self {
        self.several = count > 1;
        self
    }

    /// Whether an answer would be written under `key`.
    pub(super) fn takes(&self, key: &str) -> bool {
        match &self.destination {
            Destination::Nowhere => false,
            Destination::Under(own) => own == key,
            Destination::Beside => {
                RESERVED_KEYS.contains(&key)
                    || (self.several && key == PROBABILITIES)
                    || (self.calibrated && key == CALIBRATED_KEY)
            }
        }
    }

    /// The first place of a field that an answer would be written over, if there is one.
    pub fn conflict<'m>(&self, fields: &'m FieldMap) -> Option<&'m str> {
        let mut firsts = fields.steps().filter_map(|steps| steps.first());
        firsts.find(|first| self.takes(first)).map(String::as_str)
    }

    /// Whether an error would be written under `key`.
    pub(super) fn error_goes_under(&self, key: &str) -> bool {
        match &self.destination {
            Destination::Nowhere => false,
            Destination::Under(own) => own == key,
            Destination::Beside => key == "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::Format;

    #[test]
    fn output_keys_that_can_never_work_are_refused() {
        for key in ["", "error", "file", "line", "text", "drug_span"] {
            assert!(OutputKey::nested(key).is_err(), "{key}");
        }
        assert!(OutputKey::nested("probability").is_ok());
    }

    #[test]
    fn a_place_that_the_answer_takes_is_told() {
        let map = FieldMap::new(Format::Jsonl, [("text", "/crag/text")]).unwrap();
        assert_eq!(OutputKey::nested("crag").unwrap().conflict(&map), Some("crag"));
        assert_eq!(OutputKey::default().conflict(&map), None);
        let map = FieldMap::new(Format::Jsonl, [("text", "/warnings/0")]).unwrap();
        assert_eq!(OutputKey::default().conflict(&map), Some("warnings"));
    }

    #[test]
    fn several_models_take_a_key_more() {
        let takes = |key: OutputKey| key.takes("probabilities");
        assert!(!takes(OutputKey::default()) && !takes(OutputKey::default().of_members(1)));
        assert!(takes(OutputKey::default().of_members(2)));
        assert!(!takes(OutputKey::nested("crag").unwrap().of_members(2)));
    }
}

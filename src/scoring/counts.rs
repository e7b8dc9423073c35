//! What a run did, in numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::error::ErrorCode;
use super::warning::Warning;
use crate::files::Digest;
use crate::words::counted;

/// Counts of one run, over all its inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that got a probability.
    pub scored: u64,
    /// Lines of whitespace alone, which have no answer.
    pub blank: u64,
    /// Scored lines with at least one warning.
    pub warned: u64,
    /// Sequences that went through an encoder.
    pub encoded: u64,
    /// Sequences that were equal to one in the same window and did not have to.
    pub reused: u64,
    /// Sequences whose representation was in the cache.
    pub cached: u64,
    /// Tokens that went through an encoder.
    pub tokens: u64,
    /// Bytes of the lines that have been answered, line ends included.
    pub bytes: u64,
    /// Windows of lines, all of whose lines have been answered.
    pub windows: u64,
    pub elapsed: Duration,
    pub(super) by_warning: [u64; Warning::ALL.len()],
    /// The inputs, in order, as they were read; all of them once the run has ended well.
    pub inputs: Vec<InputReport>,
    pub(super) by_code: [u64; ErrorCode::ALL.len()],
}

/// One input, named by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputReport {
    /// As messages name it.
    pub name: String,
    /// Lines as an editor counts them, blank ones and headers included.
    pub lines: u64,
    /// Of its bytes as they lie in the file.
    pub digest: Digest,
}

impl Counts {
    /// Lines that got an answer: a probability or an error.
    pub fn records(&self) -> u64 {
        self.scored + self.errors()
    }

    /// Lines that got an error.
    pub fn errors(&self) -> u64 {
        self.by_code.iter().sum()
    }

    /// Lines that got an error with this code.
    pub fn errors_of(&self, code: ErrorCode) -> u64 {
        self.by_code[code as usize]
    }

    /// Scored lines with this warning.
    pub fn warnings_of(&self, warning: Warning) -> u64 {
        self.by_warning[warning as usize]
    }

    pub(super) fn add_warnings(&mut self, warnings: &[Warning]) {
        self.warned += u64::from(!warnings.is_empty());
        for &warning in warnings {
            self.by_warning[warning as usize] += 1;
        }
    }

    pub(super) fn add_error(&mut self, code: ErrorCode) {
        self.by_code[code as usize] += 1;
    }

    /// Which errors there were and how many of each, such as `invalid_json 2, missing_field 1`.
    pub fn errors_by_code(&self) -> String {
        let codes = ErrorCode::ALL.into_iter().filter(|&code| self.errors_of(code) > 0);
        let codes: Vec<String> = codes.map(|code| format!("{code} {}", self.errors_of(code))).collect();
        codes.join(", ")
    }

    /// What to say where there were lines and none of them is a record that can be scored: the whole input is likely another
    /// thing than it was taken for.
    pub fn nothing_scored(&self) -> Option<String> {
        (self.scored == 0 && self.errors() > 1).then(|| {
            format!(
                "none of the {} could be scored ({}): is the input what it is taken for? crag check says what is wrong with it",
                counted(self.errors(), "line", "lines"),
                self.errors_by_code()
            )
        })
    }

    /// Scored pairs for each second of the run.
    pub fn pairs_per_second(&self) -> f64 {
        self.scored as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// One line for a person, such as `scored 998 of 1000 lines in 2.1 s (475.2 pairs/s); …`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "scored {} of {} in {:.1} s ({:.1} pairs/s)",
            self.scored,
            counted(self.records(), "line", "lines"),
            self.elapsed.as_secs_f64(),
            self.pairs_per_second()
        )?;
        if self.errors() > 0 {
            write!(f, "; errors: {}", self.errors_by_code())?;
        }
        if self.warned > 0 {
            write!(f, "; with warnings: {}", self.warned)?;
        }
        if self.blank > 0 {
            write!(f, "; blank lines: {}", self.blank)?;
        }
        if self.reused > 0 || self.cached > 0 {
            write!(f, "; encodings: {}, reused: {}", self.encoded, self.reused)?;
        }
        if self.cached > 0 {
            write!(f, ", from the cache: {}", self.cached)?;
        }
        Ok(())
    }
}

/// Counts as a later run reads them.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct SavedCounts {
    scored: u64,
    blank: u64,
    warned: u64,
    encoded: u64,
    reused: u64,
    cached: u64,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    windows: u64,
    elapsed_seconds: f64,
    #[serde(default)]
    warnings: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

impl SavedCounts {
    pub fn has_errors(&self) -> bool {
        self.errors.values().any(|&count| count > 0)
    }
}

impl From<&Counts> for SavedCounts {
    fn from(counts: &Counts) -> Self {
        let errors = ErrorCode::ALL.into_iter().map(|code| (code, counts.errors_of(code)));
        let warnings = Warning::ALL.into_iter();
        let warnings = warnings.map(|warning| (warning.name().to_owned(), counts.warnings_of(warning)));
        Self {
            tokens: counts.tokens,
            bytes: counts.bytes,
            windows: counts.windows,
            warnings: warnings.filter(|&(_, count)| count > 0).collect(),
            scored: counts.scored,
            blank: counts.blank,
            warned: counts.warned,
            encoded: counts.encoded,
            reused: counts.reused,
            cached: counts.cached,
            elapsed_seconds: counts.elapsed.as_secs_f64(),
            errors: errors
                .filter(|&(_, count)| count > 0)
                .map(|(code, count)| (code.name().to_owned(), count))
                .collect(),
        }
    }
}

impl From<&SavedCounts> for Counts {
    fn from(saved: &SavedCounts) -> Self {
        Self {
            scored: saved.scored,
            blank: saved.blank,
            warned: saved.warned,
            encoded: saved.encoded,
            reused: saved.reused,
            cached: saved.cached,
            elapsed: Duration::try_from_secs_f64(saved.elapsed_seconds).unwrap_or_default(),
            tokens: saved.tokens,
            bytes: saved.bytes,
            windows: saved.windows,
            inputs: Vec::new(),
            by_warning: Warning::ALL.map(|warning| saved.warnings.get(warning.name()).copied().unwrap_or_default()),
            by_code: ErrorCode::ALL.map(|code| saved.errors.get(code.name()).copied().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_index_their_own_count() {
        for (i, warning) in Warning::ALL.into_iter().enumerate() {
            assert_eq!(warning as usize, i);
        }
        for (i, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, i);
        }
    }

    #[test]
    fn a_later_run_finds_all_counts_as_they_were() {
        let mut counts = Counts {
            scored: 1,
            blank: 2,
            encoded: 3,
            reused: 4,
            cached: 5,
            tokens: 6,
            bytes: 7,
            windows: 8,
            elapsed: Duration::from_millis(9500),
            ..Counts::default()
        };
        counts.add_error(ErrorCode::SpanMismatch);
        counts.add_warnings(&[Warning::AdrTruncated, Warning::DrugNotFound]);
        let saved = serde_json::to_string(&SavedCounts::from(&counts)).unwrap();
        let read: SavedCounts = serde_json::from_str(&saved).unwrap();
        assert_eq!(Counts::from(&read), counts);
    }

    #[test]
    fn a_summary_names_only_what_happened() {
        let mut counts = Counts {
            scored: 3,
            elapsed: Duration::from_secs(2),
            ..Counts::default()
        };
        assert_eq!(counts.to_string(), "scored 3 of 3 lines in 2.0 s (1.5 pairs/s)");
        counts.add_error(ErrorCode::EmptyText);
        counts.add_error(ErrorCode::InvalidJson);
        counts.blank = 4;
        assert_eq!(
            counts.to_string(),
            "scored 3 of 5 lines in 2.0 s (1.5 pairs/s); errors: invalid_json 1, empty_text 1; blank lines: 4"
        );
    }
}

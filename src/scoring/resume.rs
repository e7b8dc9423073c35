//! What a later run has to know to go on where one ended, and whether it may.
//!
//! A state names what the answers so far depend on: the version of the program, every setting that changes an
//! answer, and the lines that have been read, by content. A run goes on from a state only if all of it is the
//! same, so that its output has the bytes of one uninterrupted run; otherwise it says what differs.
//!
//! Where states are kept is [`super::file_sink`]'s.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::counts::{Counts, SavedCounts};
use super::resume_error::ResumeError;
use super::sink::Position;
use crate::files::{check_seal, hash_beginning, seal};
use crate::kernels::cpu::{KERNEL_VARIABLE, Kernel};

/// Raised with every change to what a state means.
const FORMAT: u64 = 2;
/// The version that wrote a state; another may answer differently.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The setting that says which shard a run is.
pub const SHARD: &str = "--shard";
/// The setting that says how records are written.
pub const RECORD_FORMAT: &str = "--format";
/// The setting that says whether a run ends at the first line that cannot be scored.
pub const ON_ERROR: &str = "--on-error";

/// The setting that names the kernels and their precision.
pub const KERNEL: &str = "kernel";

/// Something that answers depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As a person would name it: a flag, or `model`.
    pub name: String,
    pub value: String,
    /// Values of an earlier run that made no difference to the lines it answered.
    #[serde(skip)]
    pub accepts: Vec<String>,
}

impl Setting {
    pub fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self {
            name: name.into(),
            value: value.to_string(),
            accepts: Vec::new(),
        }
    }

    /// An earlier run with this value may be gone on with too.
    pub fn accepting(mut self, value: impl ToString) -> Self {
        self.accepts.push(value.to_string());
        self
    }
}

/// What has been read of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumedInput {
    pub name: String,
    pub lines: u64,
    /// [`Position::digest`] after them.
    #[serde(with = "hex")]
    pub digest: [u8; 32],
}

impl ConsumedInput {
    pub fn none_of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            lines: 0,
            digest: [0; 32],
        }
    }
}

/// Where a run begins: after the lines of an earlier run, or at the beginning.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// All but the last have been read to their end.
    pub inputs: Vec<ConsumedInput>,
    /// All inputs have been read to their end, and there are no others.
    pub complete: bool,
    /// Of the lines so far.
    pub counts: Counts,
}

impl Start {
    /// Whether `count` inputs can be those that have been read.
    pub(super) fn check_inputs(&self, count: usize) -> Result<(), ResumeError> {
        let expected = self.inputs.len();
        if count < expected || (self.complete && count > expected) {
            return Err(ResumeError::OtherInputs { expected, found: count });
        }
        Ok(())
    }

    /// Whether a line of the input `name` has been answered; `previous` is the number of the one before it there, 0
    /// before the first. Errors where it is no continuation of what has been read.
    pub(super) fn has_answered(&self, position: &Position, previous: u64, name: &str) -> Result<bool, ResumeError> {
        let Some(input) = self.inputs.get(position.source) else {
            return Ok(false);
        };
        let number = position.source + 1;
        let other_lines = || ResumeError::OtherLines {
            number,
            name: name.to_owned(),
            count: input.lines,
        };
        if position.line > input.lines {
            if previous < input.lines {
                // Rows of several lines: none begins where the last one that was answered did, so that there was no
                // digest to compare.
                return Err(other_lines());
            }
            if self.has_ended(position.source) {
                return Err(ResumeError::TooManyLines {
                    number,
                    name: name.to_owned(),
                    expected: input.lines,
                });
            }
            return Ok(false);
        }
        if position.line == input.lines && position.digest != input.digest {
            return Err(other_lines());
        }
        Ok(true)
    }

    /// Checks that an input that ended after `found` lines, the last of which that begins a row is `last`, had all
    /// that have been read of it.
    pub(super) fn check_end(&self, source: usize, last: u64, found: u64, name: &str) -> Result<(), ResumeError> {
        let (number, name) = (source + 1, name.to_owned());
        match self.inputs.get(source) {
            Some(input) if found < input.lines => Err(ResumeError::TooFewLines {
                number,
                name,
                found,
                expected: input.lines,
            }),
            // Its last row begins before the one that was answered last and goes on beyond.
            Some(input) if last < input.lines => Err(ResumeError::OtherLines {
                number,
                name,
                count: input.lines,
            }),
            _ => Ok(()),
        }
    }

    fn has_ended(&self, source: usize) -> bool {
        self.complete || source + 1 < self.inputs.len()
    }
}

/// Of an output: how far it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedOutput {
    pub bytes: u64,
    /// BLAKE3 of them.
    #[serde(with = "hex")]
    pub digest: [u8; 32],
    /// Answers that are not among them yet.
    #[serde(with = "text_or_hex")]
    pub pending: Vec<u8>,
}

impl SavedOutput {
    /// Whether the file at `path` has these bytes and no others.
    pub fn is_all_of(&self, path: &Path) -> io::Result<bool> {
        let file = File::open(path)?;
        if file.metadata()?.len() != self.bytes {
            return Ok(false);
        }
        let found = hash_beginning(&file, self.bytes)?;
        Ok(found.is_some_and(|hasher| hasher.finalize() == blake3::Hash::from_bytes(self.digest)))
    }
}

/// What `OUT.progress` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    format: u64,
    /// The version of the program.
    crag: String,
    /// All answers are there; the output only has to be put in its place.
    pub complete: bool,
    pub settings: Vec<Setting>,
    pub inputs: Vec<ConsumedInput>,
    /// How many inputs the run has, read or not: of several, error records name theirs.
    input_count: usize,
    pub counts: SavedCounts,
    pub output: SavedOutput,
}

impl State {
    /// `input_count`: of the run's inputs, of which `inputs` have been read from.
    pub fn new(
        settings: &[Setting],
        inputs: &[ConsumedInput],
        input_count: usize,
        counts: &Counts,
        output: SavedOutput,
    ) -> Self {
        Self {
            format: FORMAT,
            crag: VERSION.to_owned(),
            complete: false,
            settings: settings.to_vec(),
            inputs: inputs.to_vec(),
            input_count,
            counts: counts.into(),
            output,
        }
    }

    /// Whether answers would be lost with it.
    pub fn holds_answers(&self) -> bool {
        !self.complete && !self.output.pending.is_empty()
    }

    /// From what is kept beside an output; in words, why it is not that.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let state = Self::from_value(&value)?;
        check_seal(bytes)?;
        Ok(state)
    }

    /// What [`Self::parse`] reads.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(seal(&bytes))
    }

    /// From what a run that came to its end left; in words, why it is not that.
    pub fn from_evidence(evidence: &serde_json::Value) -> Result<Self, String> {
        match Self::from_value(evidence)? {
            state if state.complete => Ok(state),
            _ => Err("the run has not come to its end".to_owned()),
        }
    }

    fn from_value(value: &serde_json::Value) -> Result<Self, String> {
        match &value["format"] {
            format if format == FORMAT => Self::deserialize(value).map_err(|error| error.to_string()),
            format if format.is_u64() => Err(format!("format {format}, this is format {FORMAT}")),
            _ => Err("it names no format".to_owned()),
        }
    }

    /// In words, what a run with these settings and inputs would answer differently.
    pub fn differences(&self, settings: &[Setting], names: &[String]) -> Vec<String> {
        let mut differences = self.differences_from(VERSION, settings);
        // Inputs are compared by content; but where there are several, error records name them.
        if self.counts.has_errors() {
            if (self.input_count > 1) != (names.len() > 1) {
                differences.push(format!(
                    "there were {} inputs and are {}, and error records name theirs where there are several",
                    self.input_count,
                    names.len()
                ));
            } else if names.len() > 1 {
                let pairs = self.inputs.iter().zip(names).enumerate();
                for (i, (earlier, name)) in pairs.filter(|(_, (earlier, name))| earlier.name != **name) {
                    differences.push(format!(
                        "input {} was {} and is {name}, and error records may name it",
                        i + 1,
                        earlier.name
                    ));
                }
            }
        }
        differences
    }

    /// In words, what a run of this version with these settings would answer differently on the same inputs.
    fn differences_from(&self, version: &str, settings: &[Setting]) -> Vec<String> {
        let mut differences = Vec::new();
        if self.crag != version {
            differences.push(format!("the version of crag was {} and is {version}", self.crag));
        }
        for setting in settings {
            let name = &setting.name;
            match self.settings.iter().find(|earlier| earlier.name == *name) {
                Some(earlier) if earlier.value == setting.value || setting.accepts.contains(&earlier.value) => {}
                Some(earlier) => {
                    let (was, is) = (short(&earlier.value), short(&setting.value));
                    let way = if name == KERNEL { way_back(&was, &is) } else { None };
                    let way = way.map(|way| format!(" ({way} takes the earlier one)"));
                    differences.push(format!("{name} was {was} and is {is}{}", way.unwrap_or_default()));
                }
                None => differences.push(format!("{name} was not set and is {}", short(&setting.value))),
            }
        }
        for earlier in &self.settings {
            if !settings.iter().any(|setting| setting.name == earlier.name) {
                differences.push(format!("{} was {} and is not set", earlier.name, short(&earlier.value)));
            }
        }
        differences
    }

    /// In words, what the run of another shard would answer differently on the same lines.
    pub fn differences_from_shard(&self, other: &Self) -> Vec<String> {
        let own = |name: &str| self.settings.iter().find(|setting| setting.name == name).cloned();
        let settings: Vec<Setting> = other
            .settings
            .iter()
            .map(|setting| match setting.name.as_str() {
                // What has to differ, and what makes no difference to a run that came to its end.
                SHARD | ON_ERROR => own(&setting.name).unwrap_or_else(|| setting.clone()),
                _ => setting.clone(),
            })
            .collect();
        let mut differences = self.differences_from(&other.crag, &settings);
        let content = |state: &Self| -> Vec<(u64, [u8; 32])> {
            let inputs = state.inputs.iter();
            inputs.map(|input| (input.lines, input.digest)).collect()
        };
        if content(self) != content(other) {
            differences.push("its inputs have other lines".to_owned());
        }
        let names = |state: &Self| -> Vec<String> { state.inputs.iter().map(|input| input.name.clone()).collect() };
        let named = self.input_count > 1 && (self.counts.has_errors() || other.counts.has_errors());
        if named && names(self) != names(other) {
            differences.push("its inputs have other names, which error records hold".to_owned());
        }
        differences
    }

    /// Which shard it is of, as in `3/8`; none of a run over all lines.
    pub fn shard(&self) -> Option<&str> {
        self.setting(SHARD)
    }

    /// The name of the records' format.
    pub fn format(&self) -> Option<&str> {
        self.setting(RECORD_FORMAT)
    }

    fn setting(&self, name: &str) -> Option<&str> {
        let setting = self.settings.iter().find(|setting| setting.name == name)?;
        Some(&setting.value)
    }
}

/// How a run on this machine gets the kernel `was` in place of `is`, where it has both.
fn way_back(was: &str, is: &str) -> Option<String> {
    let ((earlier, precision), (kernel, other_precision)) = (Kernel::named(was)?, Kernel::named(is)?);
    let mut ways = Vec::new();
    if earlier != kernel {
        ways.push(format!("{KERNEL_VARIABLE}={}", earlier.setting()));
    }
    if precision != other_precision {
        ways.push(format!("--dtype {}", precision.name()));
    }
    Some(ways.join(" with "))
}

/// The beginning of a hash says as much as all of it.
fn short(value: &str) -> String {
    match value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => format!("{}…", &value[..12]),
        false => value.to_owned(),
    }
}

/// Bytes as they are where they are text, which nearly all are, else as digits.
mod text_or_hex {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form<'t> {
        Text(std::borrow::Cow<'t, str>),
        Hex { hex: String },
    }

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Form::Text(text.into()),
            Err(_) => Form::Hex {
                hex: crate::words::hexadecimal(bytes),
            },
        }
        .serialize(serializer)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(text.into_owned().into_bytes()),
            Form::Hex { hex } => {
                let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
                let digits = digits.ok_or_else(|| D::Error::custom("expected hexadecimal digits"))?;
                Ok(digits
                    .chunks(2)
                    .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
                    .collect())
            }
        }
    }
}

/// Hashes as text.
mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&blake3::Hash::from_bytes(*digest).to_hex())
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        blake3::Hash::from_hex(&text)
            .map(Into::into)
            .map_err(|_| D::Error::custom("expected a hash of 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Input;
    use crate::scoring::rows::RowEnds;
    use crate::scoring::{Options, check_inputs};
    use std::io::Cursor;
    use std::sync::Arc;

    fn input(text: &str) -> Input {
        Input::Reader("test".to_owned(), Box::new(Cursor::new(text.as_bytes().to_vec())))
    }

    /// What a reader says of all lines of a text.
    fn consumed(text: &str) -> ConsumedInput {
        let mut lines = super::super::lines::LineReader::new(text.as_bytes(), "test".to_owned(), 10, RowEnds::lines());
        let mut count = 0;
        while lines.next_line().unwrap().is_some() {
            count += 1;
        }
        ConsumedInput {
            name: "test".to_owned(),
            lines: count,
            digest: lines.digest(),
        }
    }

    fn complete(texts: &[&str]) -> Start {
        Start {
            inputs: texts.iter().map(|text| consumed(text)).collect(),
            complete: true,
            counts: Counts::default(),
        }
    }

    #[test]
    fn inputs_are_the_same_by_content() {
        let start = complete(&["a\nb\n", "", "much too long a line\r\n"]);
        let options = Options {
            start: Arc::new(start),
            max_line_bytes: 10,
            ..Options::default()
        };
        let check = |texts: &[&str]| {
            let inputs = texts.iter().map(|text| input(text)).collect();
            check_inputs(inputs, &options).map_err(|error| error.to_string())
        };
        assert_eq!(check(&["a\nb\n", "", "much too long a line\r\n"]), Ok(()));
        assert_eq!(
            check(&["a\nb", "", "much too long a line\r"]),
            Ok(()),
            "a last line end adds no line"
        );
        for (texts, expected) in [
            (
                ["a\nc\n", "", "much too long a line\r\n"],
                "input 1 (test) differs in its first 2 lines",
            ),
            (
                ["b\na\n", "", "much too long a line\r\n"],
                "input 1 (test) differs in its first 2 lines",
            ),
            (
                ["a\n", "", "much too long a line\r\n"],
                "ended after 1 line, of which the earlier run scored 2",
            ),
            (
                ["a\nb\n", "\n", "much too long a line\r\n"],
                "input 2 (test) has more lines than the 0",
            ),
            (
                ["a\nb\n", "", "much too long a lime\r\n"],
                "input 3 (test) differs in its first 1 line",
            ),
            (["a\nb\n", "", "much too long a line\n"], "input 3 (test) differs"),
            (
                ["a\nb\n", "", "much too long a line\r\nc\n"],
                "input 3 (test) has more lines than the 1",
            ),
        ] {
            let message = check(&texts).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        assert!(check(&["a\nb\n", ""]).unwrap_err().contains("expected the 3 inputs"));
        assert!(check(&["a\nb\n", "", "much too long a line\r\n", ""]).is_err());
    }

    #[test]
    fn a_run_may_go_on_with_what_was_added_to_the_last_input() {
        let start = Start {
            complete: false,
            ..complete(&["a\n", "b\n"])
        };
        let position = |source, line, text: &str| Position {
            source,
            line,
            digest: consumed(text).digest,
        };
        assert!(start.has_answered(&position(1, 1, "b\n"), 0, "test").unwrap());
        assert!(!start.has_answered(&position(1, 2, "b\nc\n"), 1, "test").unwrap());
        assert!(!start.has_answered(&position(2, 1, "d\n"), 0, "test").unwrap());
        assert!(
            start.has_answered(&position(0, 2, "a\nc\n"), 1, "test").is_err(),
            "not to one before it"
        );
    }

    fn state(settings: &[Setting], counts: &Counts) -> State {
        state_with(settings, counts, b"")
    }

    fn state_with(settings: &[Setting], counts: &Counts, pending: &[u8]) -> State {
        let output = SavedOutput {
            bytes: 3,
            digest: [7; 32],
            pending: pending.to_vec(),
        };
        let state = State::new(settings, &complete(&["a\n", "b\n"]).inputs, 2, counts, output);
        State::parse(&state.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn all_that_differs_is_named() {
        let hash = "ab".repeat(32);
        let earlier = [
            Setting::new("model", &hash),
            Setting::new("--threshold", 0.55),
            Setting::new("--shard", "1/2"),
        ];
        let state = state(&earlier, &Counts::default());
        let names = ["other".to_owned(), "test".to_owned()];
        assert!(state.differences(&earlier, &names).is_empty());
        let now = [
            Setting::new("model", "cd".repeat(32)),
            Setting::new("--threshold", 0.6),
            Setting::new("--format", "csv"),
        ];
        assert_eq!(
            state.differences(&now, &names),
            [
                "model was abababababab… and is cdcdcdcdcdcd…",
                "--threshold was 0.55 and is 0.6",
                "--format was not set and is csv",
                "--shard was 1/2 and is not set",
            ]
        );
        let accepting = [
            earlier[0].clone(),
            Setting::new("--threshold", 0.6).accepting(0.55),
            earlier[2].clone(),
        ];
        assert!(state.differences(&accepting, &names).is_empty());
    }

    #[test]
    fn names_of_inputs_are_compared_between_shards_where_error_records_hold_them() {
        let mut with_error = Counts::default();
        with_error.add_error(super::super::ErrorCode::InvalidJson);
        for (counts, expected) in [(Counts::default(), 0), (with_error, 1)] {
            let one = state(&[], &counts);
            let mut other = one.clone();
            assert!(one.differences_from_shard(&other).is_empty());
            other.inputs[1].name = "other".to_owned();
            let differences = one.differences_from_shard(&other);
            assert_eq!(differences.len(), expected);
            assert!(
                differences.iter().all(|text| text.contains("other names")),
                "{differences:?}"
            );
        }
    }

    #[test]
    fn pending_answers_may_be_any_bytes() {
        for pending in ["", "é\n\0"]
            .map(str::as_bytes)
            .into_iter()
            .chain([b"\xff\x00\x0f\n".as_slice(), b"\xc3"])
        {
            assert_eq!(state_with(&[], &Counts::default(), pending).output.pending, pending);
        }
    }

    #[test]
    fn names_count_where_error_records_may_hold_them() {
        let mut counts = Counts::default();
        counts.add_error(super::super::ErrorCode::InvalidJson);
        let state = state(&[], &counts);
        assert!(
            state
                .differences(&[], &["test".to_owned(), "test".to_owned()])
                .is_empty()
        );
        let differences = state.differences(&[], &["test".to_owned(), "other".to_owned()]);
        assert_eq!(
            differences,
            ["input 2 was test and is other, and error records may name it"]
        );
        assert_eq!(Counts::from(&state.counts), counts);
        // Of one input they hold no name.
        let differences = state.differences(&[], &["test".to_owned()]);
        assert_eq!(
            differences,
            ["there were 2 inputs and are 1, and error records name theirs where there are several"]
        );
    }
}

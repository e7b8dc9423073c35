//! `crag score`: pairs from files, stdin or flags; probabilities on stdout.
//!
//! Arguments as typed become inputs and [`Options`] here; what happens to lines is [`crate::scoring`]'s.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::device::{DeviceArgs, print_profile};
use super::model::{ModelArgs, OpenModel};
use super::{Outcome, UsageError};
use crate::scoring::{self, Counts, Input, MissingEntity, OnError, Options, OutputKey, Preparer, ScoreError};
use crate::text::Window;

/// What to score, with what, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line in is a JSON object with \"drug\" (or \"drug_entity\"), \"adr\" (or \"adr_entity\") and \"text\", or \
\"drug_text\" with \"adr_text\". \"drug_span\" and \"adr_span\", [start, end) in code points, mark one occurrence \
instead of all. Each line out is the same object with \"probability\" and \"causal\" added, or with an \"error\".

Examples:
  crag score pairs.jsonl > scored.jsonl
  tail -f pairs.jsonl | crag score --model demo
  crag score --text 'Aspirin caused bleeding.' --drug Aspirin --adr bleeding

Exit codes: 0 all scored; 1 could not run or go on; 2 usage; 3 finished, some lines are error records.")]
pub struct ScoreArgs {
    /// JSONL files, scored one after another; "-" or none for stdin
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// Pairs with at least this probability are "causal" [default: the model's own, else 0.55]
    #[arg(long, value_name = "P", value_parser = parse_threshold)]
    threshold: Option<f32>,

    /// Nest the answer under this key instead of adding keys to the record
    #[arg(long, value_name = "KEY", value_parser = OutputKey::nested)]
    output_key: Option<OutputKey>,

    /// What a line that cannot be scored does: become an error record, or end the run
    #[arg(long, value_name = "WHAT", default_value = "record")]
    on_error: OnErrorArg,

    /// What to do when an entity does not occur in its text: an error, or score it without markers
    #[arg(long, value_name = "WHAT", default_value = "error")]
    missing_entity: MissingEntityArg,

    /// Which part of a text that is too long to keep: its start, or the tokens around the mention
    #[arg(long, value_name = "PART", default_value = "start")]
    window: WindowArg,

    /// Longest line; a longer one is read past and becomes an error record (KiB, MiB and GiB are understood)
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = parse_bytes)]
    max_line_bytes: usize,

    /// Tokens encoded together [default: by device]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    batch_tokens: Option<usize>,

    /// Threads to compute with [default: all available cores]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,

    /// Encode equal texts each time they come (results are the same, only slower)
    #[arg(long)]
    no_reuse: bool,

    /// Keep the encoders' results in this file, and take from it what an earlier run left there: the same
    /// texts with the same model and --dtype are then not encoded again (results are the same)
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,

    /// Say nothing on stderr unless something is wrong
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    pair: Box<PairArgs>,
}

/// One pair on the command line.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "One pair")]
struct PairArgs {
    /// Text of both sides
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["drug_text", "adr_text", "files"])]
    text: Option<String>,

    /// The drug, as written in the text
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, conflicts_with = "files")]
    drug: Option<String>,

    /// The adverse reaction, as written in the text
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, conflicts_with = "files")]
    adr: Option<String>,

    /// Text of the drug's side, where the sides differ
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "files")]
    drug_text: Option<String>,

    /// Text of the reaction's side, where the sides differ
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "files")]
    adr_text: Option<String>,

    /// Code points of the one occurrence of the drug to mark, end excluded
    #[arg(long, value_name = "START:END", value_parser = parse_span, conflicts_with = "files")]
    drug_span: Option<Span>,

    /// Code points of the one occurrence of the reaction to mark, end excluded
    #[arg(long, value_name = "START:END", value_parser = parse_span, conflicts_with = "files")]
    adr_span: Option<Span>,

    /// Print the JSON record on a terminal too
    #[arg(long)]
    json: bool,
}

type Span = [usize; 2];

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnErrorArg {
    Record,
    Fail,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MissingEntityArg {
    Error,
    Unmarked,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum WindowArg {
    Start,
    Mention,
}

pub fn run(args: ScoreArgs) -> anyhow::Result<Outcome> {
    // What can be wrong before a model has been fetched and read is said before.
    let record = args.pair.record()?;
    for path in args.files.iter().filter(|path| !is_stdin(path)) {
        let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        anyhow::ensure!(
            !metadata.is_dir(),
            "{}: expected a file of JSONL records, found a folder",
            path.display()
        );
    }
    // Loading runs on rayon's global pool. It can only be set once, and nothing has used it yet; 0 is rayon's default.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads.unwrap_or(0))
        .thread_name(|i| format!("crag-load-{i}"))
        .build_global();
    let model = args.model.open(&args.device)?;
    if let (Some(unused), false) = (&model.unused_packed, args.quiet) {
        note(unused);
    }
    let mut options = args.options(*model.description.config.threshold);
    if let Some(path) = &args.cache {
        options.cache = Some(Arc::new(model.open_cache(path)?));
    }
    match record {
        Some(record) => score_pair(&args, &model, &record, options),
        None => score_lines(&args, &model, &options),
    }
}

fn score_lines(args: &ScoreArgs, model: &OpenModel, options: &Options) -> anyhow::Result<Outcome> {
    let inputs: Vec<Input> = match args.files.is_empty() {
        true => vec![Input::Stdin],
        false => args
            .files
            .iter()
            .map(|path| {
                if is_stdin(path) {
                    Input::Stdin
                } else {
                    Input::File(path.clone())
                }
            })
            .collect(),
    };
    let reads_terminal = inputs.iter().any(|input| matches!(input, Input::Stdin)) && io::stdin().is_terminal();
    if reads_terminal && !args.quiet {
        note("reading pairs from the terminal, one JSON object a line; ctrl-d ends");
    }
    match score(args, model, inputs, &mut io::stdout().lock(), options) {
        Ok(counts) => {
            if !args.quiet {
                note(&counts.to_string());
            }
            Ok(outcome(&counts))
        }
        Err(ScoreError::ClosedPipe) => Ok(Outcome::ClosedPipe),
        Err(error) => Err(error.into()),
    }
}

/// Scores the pair given by flags as if it were a line, so that all that is checked there is checked here.
fn score_pair(args: &ScoreArgs, model: &OpenModel, record: &str, mut options: Options) -> anyhow::Result<Outcome> {
    let readable = !args.pair.json && io::stdout().is_terminal();
    if readable {
        options.output = OutputKey::default();
    }
    // Flags have no length limit of ours.
    options.max_line_bytes = usize::MAX;
    let line = io::Cursor::new(record.as_bytes().to_vec());
    let inputs = vec![Input::Reader("<flags>".to_owned(), Box::new(line))];
    let mut answer = Vec::new();
    let counts = score(args, model, inputs, &mut answer, &options)?;
    let answer = String::from_utf8(answer).context("the answer")?;
    let text = if readable {
        readable_answer(&serde_json::from_str(&answer)?, options.threshold)
    } else {
        answer
    };
    Ok(match super::print(&text)? {
        Outcome::Complete => outcome(&counts),
        other => other,
    })
}

fn score(
    args: &ScoreArgs,
    model: &OpenModel,
    inputs: Vec<Input>,
    output: &mut dyn io::Write,
    options: &Options,
) -> Result<Counts, ScoreError> {
    let preparer = Preparer {
        tokenizer: &model.description.tokenizer,
        markers: *model.description.config.markers,
        max_length: *model.description.config.max_length,
        window: match args.window {
            WindowArg::Start => Window::Start,
            WindowArg::Mention => Window::Mention,
        },
        missing_entity: match args.missing_entity {
            MissingEntityArg::Error => MissingEntity::Error,
            MissingEntityArg::Unmarked => MissingEntity::Unmarked,
        },
    };
    let counts = scoring::run(inputs, output, &model.network, &preparer, options);
    print_profile(&model.network);
    if let Some(Err(error)) = options.cache.as_ref().map(|cache| cache.flush()) {
        note(&error.to_string());
    }
    counts
}

fn outcome(counts: &Counts) -> Outcome {
    if counts.errors() > 0 {
        Outcome::Incomplete
    } else {
        Outcome::Complete
    }
}

/// A remark on stderr. A closed stderr is no reason to stop.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "crag: {text}");
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl ScoreArgs {
    fn options(&self, model_threshold: f32) -> Options {
        let defaults = Options::default();
        Options {
            threshold: self.threshold.unwrap_or(model_threshold),
            output: self.output_key.clone().unwrap_or_default(),
            on_error: match self.on_error {
                OnErrorArg::Record => OnError::Record,
                OnErrorArg::Fail => OnError::Fail,
            },
            max_line_bytes: self.max_line_bytes,
            threads: self.threads.unwrap_or(defaults.threads),
            batch_tokens: self.batch_tokens,
            reuse: !self.no_reuse,
            ..defaults
        }
    }
}

impl PairArgs {
    /// The pair as a record, or none when no flag gives one.
    fn record(&self) -> Result<Option<String>, UsageError> {
        let fields = [
            ("drug", self.drug.as_ref().map(|value| json!(value))),
            ("adr", self.adr.as_ref().map(|value| json!(value))),
            ("text", self.text.as_ref().map(|value| json!(value))),
            ("drug_text", self.drug_text.as_ref().map(|value| json!(value))),
            ("adr_text", self.adr_text.as_ref().map(|value| json!(value))),
            ("drug_span", self.drug_span.map(|value| json!(value))),
            ("adr_span", self.adr_span.map(|value| json!(value))),
        ];
        if fields.iter().all(|(_, value)| value.is_none()) {
            return Ok(None);
        }
        let missing = if self.drug.is_none() {
            "--drug"
        } else if self.adr.is_none() {
            "--adr"
        } else if self.text.is_some() || (self.drug_text.is_some() && self.adr_text.is_some()) {
            let members = fields
                .iter()
                .filter_map(|(name, value)| Some(format!("\"{name}\":{}", value.as_ref()?)));
            return Ok(Some(format!("{{{}}}", members.collect::<Vec<_>>().join(","))));
        } else if self.drug_text.is_some() {
            "--adr-text"
        } else if self.adr_text.is_some() {
            "--drug-text"
        } else {
            "--text (or --drug-text and --adr-text)"
        };
        Err(UsageError(format!(
            "one pair takes --drug, --adr and --text (or --drug-text and --adr-text): {missing} is missing"
        )))
    }
}

/// An answer for a person.
fn readable_answer(answer: &Value, threshold: f32) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let error = &answer["error"];
    if error.is_object() {
        return format!("not scored: {} ({})\n", text(&error["message"]), text(&error["code"]));
    }
    let causal = answer["causal"].as_bool().unwrap_or(false);
    let mut line = format!(
        "{:.4}  {}  {} -> {}  ({} the threshold of {threshold})",
        answer["probability"].as_f64().unwrap_or(f64::NAN),
        if causal { "causal" } else { "not causal" },
        text(&answer["drug"]),
        text(&answer["adr"]),
        if causal { "at or above" } else { "below" },
    );
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        line += &format!("\nwarning: {}", text(warning));
    }
    line + "\n"
}

fn parse_threshold(value: &str) -> Result<f32, String> {
    match value.parse::<f32>() {
        Ok(threshold) if (0.0..=1.0).contains(&threshold) => Ok(threshold),
        _ => Err("expected a probability from 0 to 1".to_owned()),
    }
}

fn parse_count(value: &str) -> Result<usize, String> {
    match value.parse::<usize>() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

fn parse_threads(value: &str) -> Result<usize, String> {
    parse_count(value)
        .ok()
        .filter(|&count| count <= 1024)
        .ok_or_else(|| "expected a whole number from 1 to 1024".to_owned())
}

fn parse_bytes(value: &str) -> Result<usize, String> {
    let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &value[digits.len()..] {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("expected a number of bytes, or one with KiB, MiB or GiB".to_owned()),
    };
    let bytes = digits
        .parse::<usize>()
        .ok()
        .and_then(|count| count.checked_mul(1 << shift));
    bytes
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| "expected a whole number of bytes of at least 1".to_owned())
}

fn parse_span(value: &str) -> Result<Span, String> {
    let parts = value
        .split_once(':')
        .and_then(|(start, end)| Some([start.parse().ok()?, end.parse().ok()?]));
    parts.ok_or_else(|| "expected START:END in code points, such as 3:9".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(parse_bytes("16MiB"), Ok(16 << 20));
        assert_eq!(parse_bytes("1"), Ok(1));
        for value in ["", "0", "MiB", "1.5MiB", "16MB", "-1", "99999999999GiB", "é"] {
            assert!(parse_bytes(value).is_err(), "{value}");
        }
    }

    #[test]
    fn spans_and_thresholds_are_checked() {
        assert_eq!(parse_span("3:9"), Ok([3, 9]));
        for value in ["3", "3-9", ":", "a:b", "-1:3"] {
            assert!(parse_span(value).is_err(), "{value}");
        }
        assert_eq!(parse_threshold("0.5"), Ok(0.5));
        for value in ["NaN", "1.01", "-0.1", "inf", ""] {
            assert!(parse_threshold(value).is_err(), "{value}");
        }
    }

    #[test]
    fn an_answer_reads_as_a_line() {
        let answer =
            json!({"drug": "d", "adr": "a", "probability": 0.92308, "causal": true, "warnings": ["adr_truncated"]});
        assert_eq!(
            readable_answer(&answer, 0.55),
            "0.9231  causal  d -> a  (at or above the threshold of 0.55)\nwarning: adr_truncated\n"
        );
        let answer = json!({"error": {"code": "empty_text", "message": "m"}});
        assert_eq!(readable_answer(&answer, 0.55), "not scored: m (empty_text)\n");
    }
}

//! Labelled records for `crag eval` and `crag calibrate`: where their fields are, and reading or scoring them.

use std::io;
use std::path::Path;

use anyhow::Context as _;

use super::config::SettingRow;
use super::device::{DeviceArgs, tell_gpu_work};
use super::inputs::{self, FormatArg, format_of, is_regular, is_stdin, note_typing};
use super::model::OpenModel;
use super::progress::{InputSizes, ProgressArgs, Watched};
use super::records::{MissingEntityArg, WindowArg};
use super::resampling::Resampling;
use super::threads::start_pool;
use super::values::{parse_bytes, parse_count, parse_share, parse_threads, parse_whole};
use super::{UsageError, console, manifest};
use crate::evaluation::{
    Collector, DOCUMENT_FIELDS, DocumentNames, Fields, LabelledSet, Made, MatchBy, Mistakes, Plan,
};
use crate::files::Input;
use crate::scoring::{
    Content, Format, LineReader, Member, Options, OutputKey, Progress, RowEnds, RowsAsJson, ScoreError, Sink, run_into,
    too_long,
};
use crate::words::{counted, visible};

#[derive(Debug, clap::Args)]
pub struct LabelledArgs {
    /// The records have probabilities already: read those, and score nothing
    #[arg(long)]
    pub scored: bool,

    /// Field with the label: 0, 1, false or true
    #[arg(long, value_name = "FIELD", default_value = "label", help_heading = "Fields")]
    pub gold: String,

    /// Field with the probability of a scored record
    #[arg(long, value_name = "FIELD", default_value = "probability", help_heading = "Fields")]
    pub probability: String,

    /// Key that the answer of a scored record is nested under
    #[arg(long, value_name = "KEY", help_heading = "Fields")]
    pub output_key: Option<String>,

    /// Field that names a record's document [default: the first there is of doc_id, pmid, document_id]
    #[arg(long, value_name = "FIELD", help_heading = "Fields")]
    pub document: Option<String>,

    /// Field that names a record
    #[arg(long, value_name = "FIELD", default_value = "id", help_heading = "Fields")]
    pub id: String,

    #[command(flatten)]
    pub device: DeviceArgs,

    /// What to do when an entity does not occur in its text: an error, or score it without markers
    #[arg(long, value_name = "WHAT", default_value = "error", help_heading = "Scoring")]
    missing_entity: MissingEntityArg,

    /// Which part of a text that is too long to keep: its start, or the tokens around the mention
    #[arg(long, value_name = "PART", default_value = "start", help_heading = "Scoring")]
    window: WindowArg,

    /// Format of the records [default: by the file's name: .csv or .tsv (also .csv.gz), else jsonl]
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatArg>,

    /// Longest line; a longer one is read past and counted as an error (KiB, MiB and GiB are understood)
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = parse_bytes)]
    max_line_bytes: usize,

    /// Threads to compute with [default: all available cores]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,

    /// Bootstrap resamples that intervals are made of; 0 for none
    #[arg(long, value_name = "N", default_value = "1000", value_parser = parse_resamples, help_heading = "Intervals")]
    resamples: usize,

    /// Share of resamples that an interval holds
    #[arg(long, value_name = "SHARE", default_value = "0.95", value_parser = parse_confidence, help_heading = "Intervals")]
    confidence: f64,

    /// Seed of all random draws: the same seed and records give the same output
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_whole::<u64>, help_heading = "Intervals")]
    seed: u64,

    /// Equally wide bins of the expected calibration error and of the reliability diagram
    #[arg(long, value_name = "N", default_value = "10", value_parser = parse_bins)]
    pub bins: usize,

    #[command(flatten)]
    progress: ProgressArgs,
}

/// Which key a model's answers are nested under while they are judged: no record has it by chance.
const OWN_KEY: &str = "crag eval";

impl LabelledArgs {
    /// Sets the threads of everything that follows, and whether bars are drawn; before anything has been computed or fetched.
    pub fn begin(&self) -> Result<(), ScoreError> {
        console::allow_bars(self.progress.wants_bars());
        start_pool(self.threads)
    }

    pub fn plan(&self) -> Plan {
        Plan {
            resamples: self.resamples,
            confidence: self.confidence,
            seed: self.seed,
        }
    }

    /// Whether intervals are wanted.
    pub fn has_intervals(&self) -> bool {
        self.resamples > 0
    }

    /// What `compute` makes of the plan's resamples, of each of which it tells.
    pub fn resampled<T>(&self, compute: impl FnOnce(&Plan, &Made<'_>) -> T) -> T {
        let plan = self.plan();
        let resampling = Resampling::new(plan.resamples, self.progress.shown(false));
        compute(&plan, &|| resampling.tell())
    }

    fn fields(&self) -> Fields {
        Fields {
            gold: self.gold.clone(),
            probability: self.probability.clone(),
            output_key: self.output_key.clone(),
            id: self.id.clone(),
            document: self.document.clone(),
        }
    }

    /// Reads records that have probabilities.
    pub fn read(&self, path: &Path, match_by: MatchBy, mistakes: Mistakes) -> anyhow::Result<LabelledSet> {
        let Records {
            name,
            input,
            max_line_bytes,
        } = self.reading(path)?;
        let reader = input.open().with_context(|| name.clone())?;
        let mut lines = LineReader::new(reader, name.clone(), max_line_bytes, RowEnds::lines());
        let mut collector = Collector::new(self.fields(), match_by, mistakes);
        while let Some((number, content)) = lines.next_line()? {
            match content {
                Content::Bytes(line) => collector.push(&name, number, &line),
                Content::TooLong { bytes, .. } => {
                    let message = too_long(max_line_bytes, bytes);
                    collector.push_unreadable(&name, number, "line_too_long", &message);
                }
                Content::Blank => {}
            }
        }
        self.usable(&name, collector)
    }

    /// Scores records with `model`, by the same pipeline as `crag score`. Unless it `is_named` by the call, records
    /// that have a probability already are refused, as by [`refuse_unfit`].
    pub fn score(
        &self,
        path: &Path,
        (model, is_named): (&OpenModel, bool),
        match_by: MatchBy,
        mistakes: Mistakes,
    ) -> anyhow::Result<LabelledSet> {
        let Records {
            name,
            input,
            max_line_bytes,
        } = self.reading(path)?;
        let preparer = model
            .description
            .preparer(self.window.into(), self.missing_entity.into());
        let defaults = Options::default();
        let options = Options {
            output: OutputKey::nested(OWN_KEY).map_err(anyhow::Error::msg)?,
            max_line_bytes,
            threads: self.threads.unwrap_or(defaults.threads),
            ..defaults
        };
        let fields = Fields {
            probability: "probability".to_owned(),
            output_key: Some(OWN_KEY.to_owned()),
            ..self.fields()
        };
        let mut judging = Judging {
            name: &name,
            undecided: (!is_named).then_some(self),
            collector: Collector::new(fields, match_by, mistakes),
        };
        // Of a table's bytes nobody knows what they become.
        let sizes = InputSizes::of(&match input {
            Input::Reader(..) => Vec::new(),
            _ => vec![path.to_owned()],
        });
        let meter = self.progress.start(sizes, &options.gauge, false);
        let mut watched = Watched {
            inner: &mut judging,
            meter: &meter,
        };
        let members = [Member::only(&model.network, &preparer)];
        let counts = run_into(vec![input], &mut watched, &members, &options);
        drop(meter);
        tell_gpu_work();
        let counts = counts.map_err(|error| match error {
            // Answers go nowhere but into memory.
            ScoreError::Write { source } => match source.downcast::<UsageError>() {
                Ok(refused) => refused.into(),
                Err(source) => anyhow::Error::new(source),
            },
            other => other.into(),
        })?;
        console::report("summary", &counts.to_string(), manifest::numbers(&counts));
        let collector = judging.collector;
        self.usable(&name, collector)
    }

    /// Whether a record has a probability already. None where it has an error in its place: then another has to tell.
    fn is_scored(&self, line: &[u8]) -> Option<bool> {
        let record: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
        let answer = self.output_key.as_ref().map_or(&record, |key| &record[key.as_str()]);
        match (answer[self.probability.as_str()].is_number(), answer["error"].is_null()) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    fn already_scored(&self, name: &str) -> UsageError {
        UsageError(format!(
            "{name}: its records have a \"{}\" already; give --scored to judge that, or --model to score them anew",
            self.probability
        ))
    }

    /// The set, or why nothing in it can be judged.
    fn usable(&self, name: &str, collector: Collector) -> anyhow::Result<LabelledSet> {
        let seen = collector.seen();
        let set = collector.finish();
        anyhow::ensure!(seen > 0, "{name}: expected labelled records, found none");
        if set.usable() == 0 {
            let reasons = self.left_out(name, &set).join("; ");
            anyhow::bail!("none of the records can be judged: {reasons}");
        }
        Ok(set)
    }

    /// What of a set was left out, and why, a sentence each.
    pub fn left_out(&self, name: &str, set: &LabelledSet) -> Vec<String> {
        let mut sentences = Vec::new();
        if set.unlabelled > 0 {
            sentences.push(format!(
                "{name}: {} without \"{}\" (--gold names the field)",
                counted(set.unlabelled, "record", "records"),
                self.gold
            ));
        }
        for (code, rejected) in &set.rejected {
            let hint = match code.as_str() {
                "missing_probability" => "; --probability and --output-key say where it is",
                _ => "",
            };
            sentences.push(format!(
                "{name}: {} not usable: {code}, the first at {}{hint}",
                counted(rejected.count, "record is", "records are"),
                rejected.first
            ));
        }
        if set.without_id > 0 {
            sentences.push(format!(
                "{name}: {} no \"{}\" to be matched by (--id names the field, --by-line matches by line)",
                counted(set.without_id, "record has", "records have"),
                self.id
            ));
        }
        // Codes and messages of error records are whatever the records say.
        sentences.iter().map(|sentence| visible(sentence)).collect()
    }

    /// What there is to know of records that are there twice.
    pub fn repeated(&self, name: &str, set: &LabelledSet) -> Option<String> {
        let first = set.first_repeated.as_deref()?;
        let contradicted = set.first_contradicted.as_ref().map_or(String::new(), |first| {
            format!(
                ", also where labels differ ({} another than that one, the first at {first})",
                counted(set.contradicted, "record has", "records have")
            )
        });
        Some(format!(
            "{name}: {} the \"{}\" and the pair of an earlier one, the first at {first}: each is counted{contradicted}",
            counted(set.repeated, "record has", "records have"),
            self.id
        ))
    }

    /// What intervals are made of, and what to know about it.
    pub fn documents(&self, name: &str, documents: &DocumentNames) -> (&'static str, Vec<String>) {
        let DocumentNames { fields, without } = documents;
        if fields.is_empty() {
            let expected = match &self.document {
                Some(field) => format!("\"{field}\""),
                None => DOCUMENT_FIELDS.map(|field| format!("\"{field}\"")).join(", "),
            };
            let sentence = format!(
                "{name}: no record names its document ({expected}): intervals draw single records, and are too narrow if \
                 several come from one document; --document names the field"
            );
            return ("records", vec![sentence]);
        }
        let mut sentences = Vec::new();
        if *without > 0 {
            sentences.push(format!(
                "{name}: {} no document (\"{}\"); each counts as a document of its own",
                counted(*without, "record names", "records name"),
                fields.join("\" or \"")
            ));
        }
        if fields.len() > 1 {
            sentences.push(format!("{name}: {}", of_several_fields(fields)));
        }
        ("documents", sentences)
    }
}

/// What to know where documents are named by several `fields`.
pub fn of_several_fields<S: AsRef<str>>(fields: impl IntoIterator<Item = S>) -> String {
    let names: Vec<String> = fields
        .into_iter()
        .map(|field| format!("\"{}\"", field.as_ref()))
        .collect();
    format!(
        "documents are named by {}: one value of two fields counts as two documents; --document names the field that all have",
        names.join(" and ")
    )
}

/// Errors if the command line says how to score, or which model's settings to score with, where nothing is scored.
/// `unused`: beside the flags of every command.
pub fn refuse_unused(settings: &[SettingRow], unused: &[&str]) -> Result<(), UsageError> {
    let is_unused =
        |setting: &str| ["device", "dtype", "missing-entity", "window"].contains(&setting) || unused.contains(&setting);
    match settings
        .iter()
        .find(|row| row.is_on_command_line() && is_unused(&row.setting))
    {
        None => Ok(()),
        Some(SettingRow { setting, .. }) => Err(UsageError(format!(
            "--{setting} says how to score, and records that have probabilities are read as they are: leave it out, or score \
             with --model"
        ))),
    }
}

/// Takes answers of the scoring pipeline as records to judge.
struct Judging<'n> {
    name: &'n str,
    /// Until it is known whether the records have probabilities already, where they may not.
    undecided: Option<&'n LabelledArgs>,
    collector: Collector,
}

impl Sink for Judging<'_> {
    fn answer(&mut self, answer: &[u8], progress: Progress<'_>) -> io::Result<()> {
        let line = answer.strip_suffix(b"\n").unwrap_or(answer);
        if line.is_empty() {
            return Ok(());
        }
        if let Some(args) = self.undecided {
            match args.is_scored(line) {
                Some(true) => return Err(io::Error::other(args.already_scored(self.name))),
                Some(false) => self.undecided = None,
                None => {}
            }
        }
        self.collector.push(self.name, progress.position.line, line);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn suspend(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens nothing yet, but says what can be said before a model has been fetched.
pub fn input(path: &Path) -> anyhow::Result<Input> {
    if !is_stdin(path) {
        inputs::expect_file_of("records", path)?;
    }
    Ok(inputs::input(path))
}

/// Lines of JSON to be read, whatever they are in the file.
struct Records {
    /// For messages.
    name: String,
    input: Input,
    max_line_bytes: usize,
}

impl LabelledArgs {
    /// [`input`], to be read now.
    fn reading(&self, path: &Path) -> anyhow::Result<Records> {
        let input = input(path)?;
        note_typing(
            std::slice::from_ref(&input),
            "records from the terminal, one JSON object a line",
        );
        self.records(path, input)
    }

    fn records(&self, path: &Path, input: Input) -> anyhow::Result<Records> {
        let name = input.name();
        let format = format_of(self.format, std::slice::from_ref(&path.to_owned()))?;
        if format == Format::Jsonl {
            return Ok(Records {
                name,
                input,
                max_line_bytes: self.max_line_bytes,
            });
        }
        let table = input.open().with_context(|| name.clone())?;
        let rows = RowsAsJson::new(table, &name, format, self.max_line_bytes, self.output_key.as_deref())?;
        Ok(Records {
            input: Input::Reader(name.clone(), Box::new(rows)),
            name,
            // Rows that are too long have been told; quotes and keys make the others longer.
            max_line_bytes: usize::MAX,
        })
    }
}

/// How many error records at the start are passed over to find out whether the others have probabilities.
const ERRORS_PASSED_OVER: usize = 10_000;

/// Looks at records before a model scores them, which may take hours: refuses those that have a probability where
/// nobody said whether to believe it or to score anew (`is_named`: by naming a model), and a file in which nothing is
/// labelled. A pipe's are looked at when they are scored.
pub fn refuse_unfit(path: &Path, args: &LabelledArgs, is_named: bool) -> anyhow::Result<()> {
    if !is_regular(path) {
        return Ok(());
    }
    let Records {
        name,
        input,
        max_line_bytes,
    } = args.records(path, inputs::input(path))?;
    let reader = input.open().with_context(|| name.clone())?;
    let mut lines = LineReader::new(reader, name.clone(), max_line_bytes, RowEnds::lines());
    let fields = args.fields();
    let (mut errors, mut is_unscored, mut is_labelled) = (0, is_named, false);
    while !(is_unscored && is_labelled) {
        let Some((_, content)) = lines.next_line()? else { break };
        let Content::Bytes(line) = content else { continue };
        is_labelled = is_labelled || fields.labels(&line).is_ok_and(|labels| labels.has_field);
        if !is_unscored {
            match args.is_scored(&line) {
                Some(true) => return Err(args.already_scored(&name).into()),
                None if errors < ERRORS_PASSED_OVER => errors += 1,
                Some(false) | None => is_unscored = true,
            }
        }
    }
    anyhow::ensure!(
        is_labelled || lines.lines() == 0,
        "{name}: none of its records has \"{}\" (--gold names the field that holds the label)",
        args.gold
    );
    Ok(())
}

fn parse_confidence(value: &str) -> Result<f64, String> {
    parse_share(value)
        .ok()
        .filter(|&share| share > 0.0 && share < 1.0)
        .ok_or_else(|| "expected a number between 0 and 1, such as 0.95".to_owned())
}

fn parse_resamples(value: &str) -> Result<usize, String> {
    match value.parse::<usize>() {
        Ok(count) if count <= 100_000 => Ok(count),
        _ => Err("expected a whole number from 0 to 100000".to_owned()),
    }
}

fn parse_bins(value: &str) -> Result<usize, String> {
    parse_count(value)
        .ok()
        .filter(|&count| count <= 1000)
        .ok_or_else(|| "expected a whole number from 1 to 1000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidences_and_counts_are_checked() {
        for value in ["0", "1", "NaN"] {
            assert!(parse_confidence(value).is_err(), "{value}");
        }
        assert_eq!((parse_resamples("0"), parse_bins("0").is_err()), (Ok(0), true));
        assert!(parse_resamples("-1").is_err() && parse_resamples("100001").is_err() && parse_bins("1001").is_err());
    }
}

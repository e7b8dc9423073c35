//! Which inputs there are, as typed: files or stdin, their format, where their fields are, which part of them.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::progress::InputSizes;
use super::{UsageError, note};
use crate::files::{Compression, Identity, Input};
use crate::scoring::{FieldMap, Format, OutputKey, Shard, check_headers};

/// What to score.
#[derive(Debug, clap::Args)]
pub struct InputArgs {
    /// Files, read one after another; "-" or none for stdin. gzip, zstd and bzip2 are unpacked, whatever the name
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Format of the inputs and of the answers [default: csv or tsv where the files' names end so (also .csv.gz,
    /// .csv.1-of-3), else jsonl]
    #[arg(help_heading = "Records", long, value_name = "FORMAT")]
    pub format: Option<FormatArg>,

    /// Where records have a field: a JSON Pointer (text=/abstract/body, drug=/entities/0/name), for tables the name
    /// of a column (text=Abstract). Fields: drug, drug_entity, adr, adr_entity, text, drug_text, adr_text, drug_span,
    /// adr_span. Can be given for each of them
    #[arg(help_heading = "Records", long = "field", value_name = "FIELD=PLACE", value_parser = parse_field)]
    pub fields: Vec<(String, String)>,

    /// Read only the I-th of N parts of the inputs, such as 3/8; `crag merge` puts the parts' answers back together
    #[arg(help_heading = "Records", long, value_name = "I/N", value_parser = Shard::parse)]
    pub shard: Option<Shard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatArg {
    /// One JSON object a line
    Jsonl,
    /// Fields between commas, a header first
    Csv,
    /// Fields between tabs, one row a line, a header first
    Tsv,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Jsonl => Format::Jsonl,
            FormatArg::Csv => Format::Csv,
            FormatArg::Tsv => Format::Tsv,
        }
    }
}

fn parse_field(value: &str) -> Result<(String, String), String> {
    match value.split_once('=') {
        Some((field, place)) => Ok((field.to_owned(), place.to_owned())),
        None => Err("expected FIELD=PLACE, such as text=/abstract/body".to_owned()),
    }
}

/// The arguments with what follows from them.
#[derive(Debug)]
pub struct Inputs {
    files: Vec<PathBuf>,
    pub format: Format,
    pub fields: FieldMap,
    pub shard: Option<Shard>,
}

impl InputArgs {
    /// Whether anything is said that one pair given by flags has no use for.
    pub fn say_how(&self) -> bool {
        self.format.is_some() || !self.fields.is_empty() || self.shard.is_some()
    }

    /// What the arguments mean together. Errors are the user's.
    pub fn resolve(&self, output: &OutputKey) -> Result<Inputs, UsageError> {
        let format = format_of(self.format, &self.files)?;
        refuse_stdin_twice(&self.files)?;
        let places = self
            .fields
            .iter()
            .map(|(field, place)| (field.as_str(), place.as_str()));
        let fields = FieldMap::new(format, places).map_err(|reason| UsageError(format!("--field: {reason}")))?;
        if let (Format::Jsonl, Some(key)) = (format, output.conflict(&fields)) {
            return Err(UsageError(format!(
                "--field: the answer is written under {key:?}, where a field is read; name another key with --output-key"
            )));
        }
        Ok(Inputs {
            files: self.files.clone(),
            format,
            fields,
            shard: self.shard,
        })
    }
}

pub fn refuse_stdin_twice<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> Result<(), UsageError> {
    match paths.into_iter().filter(|path| is_stdin(path)).count() {
        0 | 1 => Ok(()),
        _ => Err(UsageError("stdin (-) can be read only once".to_owned())),
    }
}

/// Errors where there is nothing to read as a file of `records`, such as a folder.
pub fn expect_file_of(records: &str, path: &Path) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    anyhow::ensure!(
        !metadata.is_dir(),
        "{}: expected a file of {records}, found a folder",
        path.display()
    );
    Ok(())
}

/// The format that is named, or that the files' names say.
pub fn format_of(named: Option<FormatArg>, files: &[PathBuf]) -> Result<Format, UsageError> {
    if let Some(format) = named {
        return Ok(format.into());
    }
    let Some(first) = files.first() else {
        return Ok(Format::default());
    };
    let format = ending(first);
    match files.iter().find(|path| ending(path) != format) {
        None => Ok(format),
        Some(other) => Err(UsageError(format!(
            "{} looks like {}, {} like {}; score them in runs of their own, or name the format with --format",
            first.display(),
            format.name(),
            other.display(),
            ending(other).name()
        ))),
    }
}

/// What to say where the name of an output says another format than its records have.
pub fn named_otherwise(output: &Path, format: Format) -> Option<String> {
    let ending = output.extension()?.to_str()?.to_ascii_lowercase();
    let (named, way_out) = match named_format(output) {
        Some(named) if named != format => (named.name(), ""),
        None if NOT_WRITTEN.contains(&ending.as_str()) => {
            (ending.as_str(), ", not packed (what ends in .gz, .zst or .bz2 is)")
        }
        _ => return None,
    };
    Some(format!(
        "{}: the name says {named}, and the records in it are {}{way_out}",
        output.display(),
        format.name()
    ))
}

/// Endings of what is compressed or packed in a way that is never written here.
const NOT_WRITTEN: [&str; 10] = ["7z", "br", "lz4", "lzma", "parquet", "sz", "xlsx", "xz", "z", "zip"];

fn ending(path: &Path) -> Format {
    named_format(path).unwrap_or_default()
}

fn named_format(path: &Path) -> Option<Format> {
    let mut name = Path::new(path.file_name().unwrap_or_default());
    if name
        .extension()
        .is_some_and(|ending| names_shard(&ending.to_string_lossy()))
    {
        name = Path::new(name.file_stem().unwrap_or_default());
    }
    if Compression::of_name(name).is_some() {
        name = Path::new(name.file_stem().unwrap_or_default());
    }
    let ending = name.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "tsv" | "tab" => Some(Format::Tsv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        _ => None,
    }
}

/// Whether an ending says which shard of a run a file is, as in `scored.csv.1-of-3`.
fn names_shard(ending: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    ending
        .split_once("-of-")
        .is_some_and(|(part, count)| is_number(part) && is_number(count))
}

impl Inputs {
    /// Finds what would end the run later: files that cannot be read, headers that do not do.
    pub fn check(&self, output: &OutputKey, max_line_bytes: usize) -> anyhow::Result<()> {
        let mut again = Vec::new();
        for path in self.files.iter().filter(|path| !is_stdin(path)) {
            let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
            anyhow::ensure!(
                !metadata.is_dir(),
                "{}: expected a file of records, found a folder",
                path.display()
            );
            // What has been read of a pipe is gone.
            if metadata.is_file() {
                again.push(Input::File(path.clone()));
            }
        }
        Ok(check_headers(again, self.format, &self.fields, output, max_line_bytes)?)
    }

    /// The inputs in order. Says so where one of them is typed by hand.
    pub fn open(&self) -> Vec<Input> {
        let inputs: Vec<Input> = match self.files.is_empty() {
            true => vec![Input::Stdin],
            false => self.files.iter().map(|path| input(path)).collect(),
        };
        let what = match self.format {
            Format::Jsonl => "pairs from the terminal, one JSON object a line",
            Format::Csv | Format::Tsv => "pairs from the terminal, a header row first",
        };
        note_typing(&inputs, what);
        inputs
    }

    /// How much there is to read, if that can be known.
    pub fn sizes(&self) -> Option<InputSizes> {
        InputSizes::of(&self.files)
    }
}

pub fn input(path: &Path) -> Input {
    match is_stdin(path) {
        true => Input::Stdin,
        false => Input::File(path.to_owned()),
    }
}

/// Says so where one of the inputs is typed by hand: nothing else would happen until somebody does. `what`: what is read.
pub fn note_typing(inputs: &[Input], what: &str) {
    if inputs.iter().any(|input| matches!(input, Input::Stdin)) && io::stdin().is_terminal() {
        note(&format!("reading {what}; ctrl-d ends"));
    }
}

pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Whether a file can be read more than once: not stdin, and not a pipe, whose bytes are gone once they are read.
pub fn is_regular(path: &Path) -> bool {
    !is_stdin(path) && std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// The first of `paths` that is, under whatever name, a file that was given before. Pipes are never the same: what has
/// been read of one is gone.
pub fn given_twice(paths: &[PathBuf]) -> anyhow::Result<Option<&Path>> {
    let mut seen = Vec::with_capacity(paths.len());
    for path in paths.iter().filter(|path| !is_stdin(path)) {
        let looked_at = || path.display().to_string();
        if !std::fs::metadata(path).with_context(looked_at)?.is_file() {
            continue;
        }
        let file = Identity::of_path(path).with_context(looked_at)?;
        if seen.contains(&file) {
            return Ok(Some(path));
        }
        seen.push(file);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(names: &[&str]) -> Result<Format, UsageError> {
        format_of(None, &names.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    #[test]
    fn endings_name_the_format() {
        for (name, expected) in [
            ("a.jsonl", Format::Jsonl),
            ("a.csv", Format::Csv),
            ("b.d/a.CSV.gz", Format::Csv),
            ("a.tsv.zst", Format::Tsv),
            ("a.tab.bz2", Format::Tsv),
            ("a.csv/b", Format::Jsonl),
            ("a.csv.1-of-3", Format::Csv),
            ("a.tsv.gz.10-of-12", Format::Tsv),
            ("a.csv.one-of-3", Format::Jsonl),
            ("-", Format::Jsonl),
            ("a.gz", Format::Jsonl),
        ] {
            assert_eq!(format(&[name]).unwrap(), expected, "{name}");
        }
        assert_eq!(format(&[]).unwrap(), Format::Jsonl);
        assert_eq!(format(&["a.csv", "b.csv.gz"]).unwrap(), Format::Csv);
    }

    #[test]
    fn files_of_two_formats_are_a_question() {
        let message = format(&["a.csv", "b.jsonl"]).unwrap_err().to_string();
        assert!(
            message.contains("a.csv looks like csv, b.jsonl like jsonl"),
            "{message}"
        );
        assert!(format(&["a.csv", "-"]).is_err());
    }
}

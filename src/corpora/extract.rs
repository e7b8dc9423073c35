//! The run: inputs in order, one document at a time, checked, paired, written.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::brat::BratFiles;
use super::document::Documents;
use super::options::{Options, Overlap};
use super::pairing;
use super::report::{CorpusError, Problem, Reason, Report};
use super::resolve::{Resolved, resolve};
use super::source::Source;
use super::summary::Summary;
use super::{ade_rel, bioc, brat, pubtator};
use crate::files::Input;

/// Formats that are one stream of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    PubTator,
    /// XML or JSON, told apart by the first character.
    Bioc,
    AdeRel,
}

/// What to read.
pub enum Sources {
    Streams(Format, Vec<Input>),
    Brat(Vec<BratFiles>),
}

impl Sources {
    /// The files and streams that will be read.
    pub fn inputs(&self) -> Vec<Input> {
        match self {
            Sources::Streams(_, inputs) => {
                let named = inputs.iter().filter_map(|input| match input {
                    Input::Stdin => Some(Input::Stdin),
                    Input::File(path) => Some(Input::File(path.clone())),
                    Input::Reader(..) => None,
                });
                named.collect()
            }
            Sources::Brat(documents) => {
                let files = documents.iter().flat_map(|files| [&files.text, &files.annotations]);
                files.map(|path| Input::File(path.clone())).collect()
            }
        }
    }
}

/// Counts problems, hands them on, and ends a strict run at the first.
struct Reporter<'a> {
    strict: bool,
    counts: BTreeMap<Reason, u64>,
    listener: &'a mut dyn FnMut(&Problem),
}

impl Report for Reporter<'_> {
    fn report(&mut self, problem: Problem) -> Result<(), CorpusError> {
        *self.counts.entry(problem.reason).or_default() += 1;
        if self.strict {
            return Err(problem.into());
        }
        (self.listener)(&problem);
        Ok(())
    }
}

/// Writes a record for each pair of all documents. `listener` hears of each problem as it is found.
pub fn run(
    sources: Sources,
    output: &mut dyn Write,
    options: &Options,
    listener: &mut dyn FnMut(&Problem),
) -> Result<Summary, CorpusError> {
    let mut repeats = Repeats::new();
    let mut each = |resolved: Resolved, summary: &mut Summary, report: &mut dyn Report| {
        let document = resolved.document;
        let occurrence = repeats.occurrence(&document.id);
        summary.repeated_documents += u64::from(occurrence > 1);
        let dropped = pairing::write_pairs(&document, occurrence, options, summary, output).map_err(write_error)?;
        // Whoever reads the records gets a document's as soon as it has been read.
        output.flush().map_err(write_error)?;
        if dropped > 0 {
            let limit = options.max_pairs_per_document;
            let overlapping = match options.overlap {
                Overlap::Drop => format!(", and {} that overlap", pairing::MOST_OVERLAPPING),
                Overlap::Keep => String::new(),
            };
            let message =
                format!("expected at most {limit} pairs{overlapping}, found {dropped} more, which are left out");
            report.report(Problem::new(document.place, Reason::TooManyPairs, message))?;
        }
        Ok(())
    };
    let summary = documents(sources, options, listener, &mut each)?;
    output.flush().map_err(write_error)?;
    Ok(summary)
}

fn write_error(error: io::Error) -> CorpusError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CorpusError::ClosedPipe,
        _ => CorpusError::Write(error),
    }
}

/// What to do with a checked document.
type Each<'a> = dyn FnMut(Resolved, &mut Summary, &mut dyn Report) -> Result<(), CorpusError> + 'a;

/// Reads and checks all documents in order.
fn documents(
    sources: Sources,
    options: &Options,
    listener: &mut dyn FnMut(&Problem),
    each: &mut Each<'_>,
) -> Result<Summary, CorpusError> {
    let mut summary = Summary::default();
    let mut reporter = Reporter {
        strict: options.strict,
        counts: BTreeMap::new(),
        listener,
    };
    match sources {
        Sources::Streams(format, inputs) => {
            for input in inputs {
                let name = input.name();
                let reader = input.open().map_err(|source| CorpusError::Read {
                    name: name.clone(),
                    source,
                })?;
                let source = Source::new(Box::new(reader), &name);
                summary.files += 1;
                let mut reader: Box<dyn Documents> = match format {
                    Format::PubTator => Box::new(pubtator::Reader::new(source)),
                    Format::Bioc => Box::new(bioc::Reader::new(source)),
                    Format::AdeRel => Box::new(ade_rel::Reader::new(source)),
                };
                read_all(reader.as_mut(), options, &mut summary, &mut reporter, each)?;
            }
        }
        Sources::Brat(files) => {
            summary.files = 2 * files.len() as u64;
            read_all(
                &mut brat::Reader::new(files, options),
                options,
                &mut summary,
                &mut reporter,
                each,
            )?;
        }
    }
    summary.problems = reporter.counts;
    Ok(summary)
}

fn read_all(
    reader: &mut dyn Documents,
    options: &Options,
    summary: &mut Summary,
    reporter: &mut Reporter<'_>,
    each: &mut Each<'_>,
) -> Result<(), CorpusError> {
    while let Some(mut raw) = reader.next_document(options.max_document_bytes, reporter)? {
        raw.place.document.clone_from(&raw.id);
        summary.documents += 1;
        let ascii = raw
            .passages
            .iter()
            .all(|passage| passage.blocks.iter().all(|block| block.text.is_ascii()));
        let resolved = resolve(raw, options.composite, summary, reporter)?;
        if let Some(reading) = resolved.reading {
            summary.passage_relative += u64::from(reading.passage_relative);
            summary.short_line_ends += u64::from(reading.short_line_ends);
            if !ascii {
                *summary.units.entry(reading.unit).or_default() += 1;
            }
        }
        each(resolved, summary, reporter)?;
    }
    Ok(())
}

/// How often a document identifier came before, so that records of a repeated document do not share an `id`.
///
/// Memory is fixed: about the last million identifiers are known, by 64-bit hashes, in buckets that forget the
/// one that came longest ago.
struct Repeats(Vec<[(u64, u32); WAYS]>);

const WAYS: usize = 16;
const BUCKETS: usize = 1 << 16;

impl Repeats {
    fn new() -> Self {
        Self(vec![[(0, 0); WAYS]; BUCKETS])
    }

    /// Which time this identifier comes, from 1.
    fn occurrence(&mut self, id: &str) -> u32 {
        let hash = blake3::hash(id.as_bytes());
        let hash = hash
            .as_bytes()
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let bucket = &mut self.0[hash as usize % BUCKETS];
        let known = bucket.iter().position(|(known, count)| *known == hash && *count > 0);
        let count = known.map_or(1, |index| bucket[index].1.saturating_add(1));
        // The latest in front.
        bucket[..=known.unwrap_or(WAYS - 1)].rotate_right(1);
        bucket[0] = (hash, count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_documents_is_known_again() {
        let mut repeats = Repeats::new();
        for round in 1..4 {
            for id in 0..100_000 {
                assert_eq!(repeats.occurrence(&id.to_string()), round, "{id}");
            }
        }
    }
}

//! `crag extract`: annotated documents from files or stdin; records for `crag score` on stdout.
//!
//! Arguments as typed become [`Sources`] and [`Options`] here; what is read and paired is [`crate::corpora`]'s.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde_json::json;

use super::inputs::{expect_file_of, is_stdin, named_otherwise, note_typing, refuse_stdin_twice};
use super::manifest::{self, EarlierSummary, End};
use super::report_file::{ReportFile, is_closed_pipe, is_object_with};
use super::signals::SignalWatch;
use super::values::{parse_bytes, parse_count, parse_whole};
use super::whole_output::{Output, WholeOutputArgs};
use super::{Outcome, UsageError, console, paths_given};
use crate::corpora::{
    self, CompositeUse, CorpusError, DEFAULT_ADR_TYPES, DEFAULT_DRUG_TYPES, DEFAULT_RELATION_TYPES, Format, Labels,
    Options, Overlap, Problem, Scope, Sources, Summary, TypeSet,
};
use crate::files::{Input, folder_of};
use crate::words::counted;

/// What to read, which pairs to make of it, and what to say about it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each line out is a record for crag score: id, doc_id, section, text, drug, adr, drug_span and adr_span ([start, end) in \
code points of text), drug_type, adr_type, drug_concepts, adr_concepts, and label where the corpus has relations. Of a \
discontinuous mention they hold all from its first piece to its last, and drug_fragments or adr_fragments the pieces' spans.

label is 1 where the corpus says that this drug caused this reaction, else 0. Where relations name concepts (PubTator, \
BioC), the claim is the whole document's, not this sentence's: every mention pair of the two concepts gets it. Where they \
name mentions (ade-rel, brat, BioC), a pair of the same two names, or identifiers, as a related one gets it too if its text \
holds that one, and no label elsewhere in the document. A negated or speculated relation (brat: an attribute of it; BioC: an \
infon) is no cause: what only it relates gets no label. Where a relation cannot be resolved, no pair of its document gets 0, \
since it may be the one. Documents without any relation get no label, unless with --labels all.

A sentence ends at a stop, a blank line, and before list items and around headings; other line ends are wrapped lines. \
Relations between a drug and a reaction that give no pair, since they span sentences, are counted.

Offsets are checked: the words of a mention have to be where it says they are, counted in code points, UTF-16 units or \
bytes, whichever fits the document, with CRLF as one where that fits better. What does not fit is reported on stderr, \
counted and left out; so are relations that name no mention of the document. In brat, an event stands for its trigger where \
it has no arguments, or where the trigger is a drug or a reaction, no argument is another of the same, and a relation, an \
equivalence, an identifier or another event names it, or an event of its type has no arguments; any other trigger is no mention, and an \
event that may then relate a drug and a reaction in some other way is reported. In ade-rel, all lines of a PMID in one file \
are a document, in any order.

Examples:
  crag extract --from pubtator CDR.txt.gz | crag score -m demo > scored.jsonl
  crag extract --from bioc --scope passage --window 1 dump.xml > pairs.jsonl
  xzcat dump.xz | crag extract --from bioc --summary-json counts.json > a.jsonl
  crag extract --from ade-rel DRUG-AE.rel -o pairs.jsonl.gz
  crag extract --from brat --adr-type ADE --relation-type ADE-Drug n2c2/train/

Exit codes: 0 all well; 1 could not run or go on; 2 usage; 3 finished, something was reported and left out; 11 another run is \
writing OUT; 129, 130, 143 interrupted; 141 whoever read stdout stopped reading.")]
pub struct ExtractArgs {
    /// Files, read one after another; "-" or none for stdin. For brat: folders (but what is hidden in them), .ann or .txt files
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    output: WholeOutputArgs,

    /// What the documents are written in (bioc: XML or JSON, told apart by their first character)
    #[arg(long, value_name = "FORMAT")]
    from: FromArg,

    /// How near a drug and a reaction have to be to become a pair
    #[arg(long, value_name = "SCOPE", default_value = "sentence")]
    scope: ScopeArg,

    /// Keep this many sentences of the mentions' own passages on each side of them in the text [default: 0 for sentences, else
    /// the whole scope]
    #[arg(long, value_name = "N", value_parser = parse_whole::<usize>)]
    window: Option<usize>,

    #[arg(long, value_name = "TYPE", help = of_types("Annotation type that is a drug", DEFAULT_DRUG_TYPES))]
    drug_type: Vec<String>,

    #[arg(long, value_name = "TYPE", help = of_types("Annotation type that is a reaction", DEFAULT_ADR_TYPES))]
    adr_type: Vec<String>,

    #[arg(long, value_name = "TYPE", help = of_types("Relation type that says \"caused\"", DEFAULT_RELATION_TYPES))]
    relation_type: Vec<String>,

    /// Which pairs get a label: those of documents with relations, all, or none
    #[arg(long, value_name = "WHICH", default_value = "auto")]
    labels: LabelsArg,

    /// What becomes of a pair whose mentions share characters ("lithium" in "lithium toxicity")
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    overlap: OverlapArg,

    /// What "liver and kidney damage" is where a corpus annotates it as one and again as its parts
    #[arg(long, value_name = "WHICH", default_value = "whole")]
    composite: CompositeArg,

    /// Most pairs of one document; further ones are dropped and reported
    #[arg(long, value_name = "N", default_value = "10000", value_parser = parse_count)]
    max_pairs_per_doc: usize,

    /// Largest document; a larger one is read past and reported (KiB, MiB and GiB are understood). ade-rel holds a file
    /// whole, in at most 16 times as much memory
    #[arg(long, value_name = "BYTES", default_value = "16MiB", value_parser = parse_bytes)]
    max_doc_bytes: usize,

    /// Stop at the first thing that is not well, with exit code 1
    #[arg(long)]
    strict: bool,

    /// Report at most this many problems one by one; all are counted
    #[arg(long, value_name = "N", default_value = "1000")]
    max_reports: u64,

    /// Write all counts to this file as JSON
    #[arg(long, value_name = "FILE")]
    summary_json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FromArg {
    Pubtator,
    Bioc,
    AdeRel,
    Brat,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ScopeArg {
    Sentence,
    Passage,
    Document,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LabelsArg {
    Auto,
    All,
    None,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OverlapArg {
    Keep,
    Drop,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum CompositeArg {
    Whole,
    Parts,
}

/// The help of a flag that takes names of types.
fn of_types(what: &str, defaults: &[&str]) -> String {
    format!("{what}; may be given several times [default: {}]", defaults.join(", "))
}

/// `config`: the file that some of the settings are from, if one was named.
pub fn run(args: ExtractArgs, config: Option<PathBuf>) -> anyhow::Result<Outcome> {
    let result = extract(&args, config);
    if let (Some(summary), Err(_) | Ok(Outcome::ClosedPipe)) = (args.earlier_summary(), &result) {
        summary.tell(&End::new(&result), result.as_ref().err());
    }
    result
}

/// Says in the summary, if one is wanted, that the command line, the environment or the config file cannot be understood. `matches`:
/// as much of the command line as can.
pub fn tell_failure_before_run(summary: PathBuf, matches: &ArgMatches, error: &anyhow::Error) {
    let mut others: Vec<PathBuf> = ["files", "output", "config"]
        .into_iter()
        .flat_map(|name| paths_given(matches, name))
        .collect();
    // Whether the documents are brat's may be what could not be understood.
    others.extend(corpora::is_brat_name(&summary).then(|| summary.clone()));
    earlier_summary(summary, others).tell(&End::failed(error), None);
}

fn earlier_summary(path: PathBuf, others: Vec<PathBuf>) -> EarlierSummary {
    EarlierSummary {
        path,
        others,
        is_own: is_summary,
        make: |end| Ok(json!({"outcome": end})),
    }
}

/// Whether a file's contents are a summary that `crag extract` wrote.
fn is_summary(bytes: &[u8]) -> bool {
    is_object_with(bytes, &["outcome"]) || is_object_with(bytes, &["mentions_resolved"])
}

fn extract(args: &ExtractArgs, config: Option<PathBuf>) -> anyhow::Result<Outcome> {
    let options = args.options()?;
    let sources = args.sources()?;
    // What cannot be written is said before the long work.
    let mut inputs = sources.inputs();
    inputs.extend(config.map(Input::File));
    for (flag, path) in [
        ("-o", args.output.path()),
        ("--summary-json", args.summary_json.as_deref()),
    ] {
        if let Some(path) = path.filter(|path| args.from == FromArg::Brat && args.would_be_read(path)) {
            let message = format!(
                "{flag} {}: in a folder that is read, this name would be a document of the next run; name another",
                path.display()
            );
            return Err(UsageError(message).into());
        }
    }
    if let Some(path) = args
        .summary_json
        .as_deref()
        .filter(|path| args.output.writes_under(path))
    {
        let message = format!("--summary-json {}: is a file of -o already", path.display());
        return Err(UsageError(message).into());
    }
    let signals = SignalWatch::start()?;
    let mut output = args.output.open(&inputs, &signals)?;
    let named_otherwise = |path| named_otherwise(path, crate::scoring::Format::Jsonl);
    if let Some(remark) = args.output.path().and_then(named_otherwise) {
        console::warn(&remark);
    }
    let summary_file = match &args.summary_json {
        Some(path) => {
            let file = ReportFile::beside_inputs("--summary-json", path, &inputs, is_summary)?;
            Some(match output {
                Output::Stdout(_) => file.apart_from_records("--summary-json")?,
                _ => file,
            })
        }
        None => None,
    };
    if let Some(summary) = args.earlier_summary() {
        summary.begin()?;
        signals.before_end(move |signal| {
            let _ = summary.replace(&End::new(&Ok(Outcome::Interrupted(signal))));
        });
    }
    let (mut reported, limit) = (0, args.max_reports);
    let mut listener = |problem: &Problem| {
        reported += 1;
        if reported <= limit {
            let place = &problem.place;
            let particulars = json!({
                "file": *place.file, "line": place.line, "document": place.document, "reason": problem.reason.name(),
            });
            console::problem("problem", &problem.to_string(), particulars);
        }
        if reported == limit + 1 {
            console::warn("further problems are counted, not reported one by one; see --max-reports");
        }
    };
    let summary = match corpora::run(sources, &mut output, &options, &mut listener) {
        Ok(summary) => summary,
        Err(CorpusError::ClosedPipe) => {
            output.abandon();
            return Ok(Outcome::ClosedPipe);
        }
        Err(error) => return Err(error.into()),
    };
    if summary.documents == 0 && summary.is_of_another_format() {
        output.abandon();
        anyhow::bail!(
            "no document could be read, and nothing is written: is it of the format that --from names? {summary}"
        );
    }
    output.finish()?;
    let outcome = match summary.has_problems() {
        true => Outcome::Incomplete,
        false => Outcome::Complete,
    };
    let mut counts = summary.to_json();
    counts["outcome"] = json!(End::new(&Ok(outcome)));
    if let Some(file) = summary_file {
        match file.finish(&manifest::to_text(&counts)?) {
            Err(error) if is_closed_pipe(&error) => return Ok(Outcome::ClosedPipe),
            finished => finished?,
        }
    }
    for remark in args.remarks(&options, &summary) {
        match remark {
            Remark::Doubt(text) => console::warn(&text),
            Remark::Fact(text) => console::note(&text),
        }
    }
    match summary.has_problems() {
        true => console::problem("summary", &summary.to_string(), counts),
        false => console::report("summary", &summary.to_string(), counts),
    }
    Ok(outcome)
}

/// What there is to say of a run that came to its end.
enum Remark {
    /// Something may be wrong with how the run was called.
    Doubt(String),
    /// How the corpus is; a nightly run need not say it each time.
    Fact(String),
}

impl ExtractArgs {
    /// The summary that is wanted, if one is and it is no file of the output's.
    fn earlier_summary(&self) -> Option<EarlierSummary> {
        let path = self
            .summary_json
            .clone()
            .filter(|path| !self.output.writes_under(path))?;
        let mut others = self.files.clone();
        // A document's other half, or a new document in a folder that is read.
        others.extend((self.from == FromArg::Brat && corpora::is_brat_name(&path)).then(|| path.clone()));
        Some(earlier_summary(path, others))
    }

    fn options(&self) -> Result<Options, UsageError> {
        let types = |given: &[String], default: &[&str]| match given.is_empty() {
            true => TypeSet::new(default),
            false => TypeSet::new(given),
        };
        let drug_types = types(&self.drug_type, DEFAULT_DRUG_TYPES);
        let adr_types = types(&self.adr_type, DEFAULT_ADR_TYPES);
        if let Some(name) = drug_types.common(&adr_types) {
            return Err(UsageError(format!(
                "expected different types of drugs and reactions, found {name:?} among both; \
                 name both with --drug-type and --adr-type"
            )));
        }
        Ok(Options {
            scope: match self.scope {
                ScopeArg::Sentence => Scope::Sentence,
                ScopeArg::Passage => Scope::Passage,
                ScopeArg::Document => Scope::Document,
            },
            window: self.window,
            drug_types,
            adr_types,
            relation_types: types(&self.relation_type, DEFAULT_RELATION_TYPES),
            untyped_relations: self.relation_type.is_empty(),
            labels: match self.labels {
                LabelsArg::Auto => Labels::Auto,
                LabelsArg::All => Labels::All,
                LabelsArg::None => Labels::None,
            },
            overlap: match self.overlap {
                OverlapArg::Keep => Overlap::Keep,
                OverlapArg::Drop => Overlap::Drop,
            },
            composite: match self.composite {
                CompositeArg::Whole => CompositeUse::Whole,
                CompositeArg::Parts => CompositeUse::Parts,
            },
            max_pairs_per_document: self.max_pairs_per_doc as u64,
            max_document_bytes: self.max_doc_bytes,
            strict: self.strict,
        })
    }

    fn sources(&self) -> anyhow::Result<Sources> {
        let format = match self.from {
            FromArg::Pubtator => Format::PubTator,
            FromArg::Bioc => Format::Bioc,
            FromArg::AdeRel => Format::AdeRel,
            FromArg::Brat => {
                if self.files.is_empty() || self.files.iter().any(|path| is_stdin(path)) {
                    let message = "brat needs a text and an annotation file for each document: \
                                   name folders, .ann or .txt files";
                    return Err(UsageError(message.to_owned()).into());
                }
                return Ok(Sources::Brat(corpora::find_brat(&self.files)?));
            }
        };
        refuse_stdin_twice(&self.files)?;
        let mut inputs = Vec::new();
        for path in &self.files {
            inputs.push(match is_stdin(path) {
                true => Input::Stdin,
                false => {
                    expect_file_of("documents", path)?;
                    Input::File(path.clone())
                }
            });
        }
        if inputs.is_empty() {
            inputs.push(Input::Stdin);
        }
        note_typing(&inputs, "documents from the terminal");
        Ok(Sources::Streams(format, inputs))
    }

    /// Whether a file of this name would be one of the documents in the folders that are read.
    fn would_be_read(&self, path: &Path) -> bool {
        let folder = folder_of(path).canonicalize();
        let below = |read: &PathBuf| {
            let read = read.canonicalize().ok().filter(|read| read.is_dir());
            read.is_some_and(|read| folder.as_ref().is_ok_and(|folder| folder.starts_with(read)))
        };
        corpora::is_brat_name(path) && self.files.iter().any(below)
    }

    /// What a person who finds no pairs, or no labels, would want to know.
    fn remarks(&self, options: &Options, summary: &Summary) -> Vec<Remark> {
        let mut remarks = Vec::new();
        if summary.documents == 0 && !summary.has_problems() {
            let expected = match self.from {
                FromArg::Pubtator => "lines such as 123|t|Title",
                FromArg::Bioc => "<document> elements, or JSON with \"passages\"",
                FromArg::AdeRel => "lines of eight fields with a | between them",
                FromArg::Brat => "texts with annotations",
            };
            remarks.push(Remark::Doubt(format!("found no document; expected {expected}")));
        }
        let relations = summary.chosen_relations;
        let seen = &summary.mention_types;
        for (types, flag, default, given) in [
            (&options.drug_types, "--drug-type", DEFAULT_DRUG_TYPES, &self.drug_type),
            (&options.adr_types, "--adr-type", DEFAULT_ADR_TYPES, &self.adr_type),
        ] {
            // Where there are some, what became of them has been said.
            if summary.mentions > 0 && !seen.iter().any(|(name, _)| types.contains(name)) {
                let looked_for = match given.is_empty() {
                    true => default.join(", "),
                    false => given.join(", "),
                };
                remarks.push(Remark::Doubt(format!(
                    "no annotation of type {looked_for}; the types are {seen}: choose with {flag}"
                )));
            }
        }
        let untyped = summary.relation_types.iter().find(|(name, _)| name.is_empty());
        if let (Some((_, count)), true) = (untyped, options.untyped_relations) {
            remarks.push(Remark::Fact(format!(
                "{} of no type, taken to say \"caused\"; with --relation-type only those of that type are",
                counted(count, "relation is", "relations are")
            )));
        }
        let wider = match options.scope {
            Scope::Sentence => Some(("sentence", "passage")),
            Scope::Passage => Some(("passage", "document")),
            Scope::Document => None,
        };
        if let (1.., Some((scope, wider))) = (summary.relations_without_pair, wider) {
            let why = match summary.pairs_dropped {
                0 => format!("mostly since the two never stand in one {scope}: see --scope {wider}"),
                _ => "some of them since pairs beyond --max-pairs-per-doc were dropped".to_owned(),
            };
            let relations = counted(summary.relations_without_pair, "relation", "relations");
            remarks.push(Remark::Fact(format!(
                "{relations} between a drug and a reaction gave no pair, {why}"
            )));
        }
        if summary.qualified_relations > 0 {
            remarks.push(Remark::Fact(format!(
                "{} negated or speculated, so no cause: what they relate is not labelled 1, and not 0",
                counted(summary.qualified_relations, "relation is", "relations are")
            )));
        }
        if summary.pairs_of_numbers > summary.pairs / 2 {
            remarks.push(Remark::Doubt(format!(
                "in {} of {} the reaction begins with a digit, as a dose does: crag asks for drugs and reactions (of the ADE \
                 corpus, DRUG-AE.rel)",
                summary.pairs_of_numbers,
                counted(summary.pairs, "pair", "pairs")
            )));
        }
        if relations == 0 && summary.relations > summary.relations_unresolved {
            remarks.push(Remark::Doubt(format!(
                "no relation of a type that says \"caused\", so no pair is labelled 1; the types are {}: choose with \
                 --relation-type",
                summary.relation_types
            )));
        }
        remarks
    }
}

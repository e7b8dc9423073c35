//! brat's standoff format: a text file and an annotation file beside it, `x.txt` with `x.ann`.
//!
//! Read are text-bound annotations (`T1<tab>Drug 0 7<tab>aspirin`, discontinuous ones as `0 5;9 14`), relations (`R1`), events
//! (`E1 Adverse_event:T3 Treatment:T4 Effect:T5`: each two of its arguments are related by the event's type; [`events`] says
//! what becomes of triggers) and normalisations (`N1 Reference T1 MeSH:D001`: an identifier) and equivalences (`* Equiv T1 T2`:
//! what is said of one holds for the other). Of attributes, those that negate or speculate a relation or an event (`A1 Negated
//! R1`) are read; others and notes are passed over. The whole text is one passage.

mod events;
mod files;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use self::events::{Event, Events};
pub use self::files::{BratFiles, FindError, find, is_named};
use super::document::{
    Composite, Documents, PairedEnds, RawBlock, RawDocument, RawEndpoint, RawMention, RawPassage, RawRelation,
    qualifies, split_concepts,
};
use super::options::Options;
use super::report::{CorpusError, Place, Problem, Reason, Report, not_utf8, too_large};
use super::resolve::LONG_LINE_END;
use crate::files::{Input, WideEncoding};
use crate::words::quoted;

pub struct Reader<'a> {
    files: std::vec::IntoIter<BratFiles>,
    /// Which types are drugs and reactions decides what events say.
    options: &'a Options,
}

impl<'a> Reader<'a> {
    pub fn new(files: Vec<BratFiles>, options: &'a Options) -> Self {
        Self {
            files: files.into_iter(),
            options,
        }
    }
}

impl Documents for Reader<'_> {
    fn next_document(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<RawDocument>, CorpusError> {
        for files in &mut self.files {
            let text = read(&files.text, &files.id, max_bytes)?;
            let annotations = read(&files.annotations, &files.id, max_bytes)?;
            match (text, annotations) {
                (Ok(text), Ok(annotations)) => {
                    return document(files, text, &annotations, self.options, report).map(Some);
                }
                (Err(problem), _) | (_, Err(problem)) => report.report(problem)?,
            }
        }
        Ok(None)
    }
}

/// The whole file as text, or why not.
fn read(path: &Path, id: &str, max_bytes: usize) -> Result<Result<String, Problem>, CorpusError> {
    let place = Place {
        file: Arc::from(path.display().to_string()),
        line: 0,
        document: id.to_owned(),
    };
    let problem = |reason, message: String| Ok(Err(Problem::new(place, reason, message)));
    // To open a pipe that nobody writes to takes forever; what a folder is, opening it says.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        let message = "expected a file, found a pipe, a socket or a device of this name";
        return problem(Reason::WrongFormat, message.to_owned());
    }
    let reader = match Input::File(path.to_owned()).open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = "expected this file beside the other of its name, found none";
            return problem(Reason::MissingFile, message.to_owned());
        }
        other => other,
    };
    let mut bytes = Vec::new();
    let result = reader.and_then(|reader| reader.take(max_bytes as u64 + 1).read_to_end(&mut bytes));
    result.map_err(|source| CorpusError::Read {
        name: path.display().to_string(),
        source,
    })?;
    if bytes.len() > max_bytes {
        return problem(Reason::TooLarge, too_large("file", max_bytes));
    }
    if let Some(wide) = WideEncoding::of(&bytes) {
        return problem(Reason::WrongFormat, wide.to_string());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Ok(text)),
        Err(error) => problem(Reason::InvalidUtf8, not_utf8(error.as_bytes(), error.utf8_error())),
    }
}

/// One line of annotations, taken apart.
enum Parsed<'a> {
    Mention(RawMention),
    Relation(&'a str, RawRelation),
    /// A relation or an event that states no cause.
    Qualified(&'a str),
    Event(Event<'a>),
    Concept {
        mention: &'a str,
        concept: &'a str,
    },
    Equivalents(Vec<&'a str>),
    Other,
}

fn document(
    files: BratFiles,
    text: String,
    annotations: &str,
    options: &Options,
    report: &mut dyn Report,
) -> Result<RawDocument, CorpusError> {
    let place = Place {
        file: Arc::from(files.annotations.display().to_string()),
        line: 0,
        document: files.id.clone(),
    };
    let mut document = RawDocument {
        id: files.id,
        place: place.clone(),
        ..RawDocument::default()
    };
    let mut stated_events: Vec<Event<'_>> = Vec::new();
    let mut concepts: Vec<(u64, &str, &str)> = Vec::new();
    let mut equivalents: Vec<(u64, Vec<&str>)> = Vec::new();
    let mut relation_keys: Vec<&str> = Vec::new();
    let mut qualified: HashSet<&str> = HashSet::new();
    let mut paired = PairedEnds::default();
    for (index, line) in annotations
        .strip_prefix('\u{feff}')
        .unwrap_or(annotations)
        .lines()
        .enumerate()
    {
        let number = index as u64 + 1;
        match parse(line, number) {
            Ok(Parsed::Mention(mention)) => document.mentions.push(mention),
            Ok(Parsed::Relation(key, relation)) => {
                document.relations.push(relation);
                relation_keys.push(key);
            }
            Ok(Parsed::Qualified(key)) => {
                qualified.insert(key);
            }
            Ok(Parsed::Event(event)) => match paired.refuse(event.arguments.len(), "arguments") {
                Some(reason) => {
                    let message = format!("event: {reason}");
                    report.report(Problem::new(place.at(number), Reason::MalformedLine, message))?;
                    document.lost_relations.push(event.kind.to_owned());
                }
                None => stated_events.push(event),
            },
            Ok(Parsed::Concept { mention, concept }) => concepts.push((number, mention, concept)),
            Ok(Parsed::Equivalents(keys)) => equivalents.push((number, keys)),
            Ok(Parsed::Other) => {}
            Err(message) => {
                report.report(Problem::new(place.at(number), Reason::MalformedLine, message))?;
                let line = line.trim_start();
                if line.starts_with(['R', 'E', 'r', 'e']) || line.starts_with(|c: char| c.is_ascii_digit()) {
                    let kind = line.split('\t').nth(1).unwrap_or_default();
                    let kind = kind.split([' ', ':']).next().unwrap_or_default();
                    document.lost_relations.push(kind.to_owned());
                }
            }
        }
    }
    for (relation, key) in document.relations.iter_mut().zip(relation_keys) {
        relation.qualified = qualified.contains(key);
    }
    let named = concepts.iter().map(|(_, key, _)| *key);
    let named = named.chain(equivalents.iter().flat_map(|(_, keys)| keys.iter().copied()));
    let events = Events::new(&stated_events, &document, named, options);
    for lost in events.add_to(&mut document, &qualified) {
        report.report(Problem::new(
            place.at(lost.line),
            Reason::DanglingRelation,
            lost.message,
        ))?;
        document.lost_relations.push(lost.kind);
    }
    let mut indices: HashMap<&str, usize> = HashMap::new();
    for (index, mention) in document.mentions.iter().enumerate() {
        indices.insert(&mention.key, index);
    }
    let others = document.triggers.iter().map(String::as_str);
    let others: HashSet<&str> = others.chain(stated_events.iter().map(|event| event.key)).collect();
    let mut found: Vec<(usize, Vec<String>)> = Vec::new();
    for (number, mention, concept) in concepts {
        // The identifier of an event that relates others says nothing of a mention.
        let mention = events.meant(mention);
        match indices.get(mention) {
            Some(&index) => found.push((index, split_concepts(concept))),
            None if !mention.starts_with('T') || others.contains(mention) => {}
            None => {
                let message = format!("expected a mention {}, found none", quoted(mention));
                report.report(Problem::new(place.at(number), Reason::MalformedLine, message))?;
            }
        }
    }
    for (number, keys) in equivalents {
        let is_known = |key: &&&str| indices.contains_key(**key) || others.contains(**key);
        if let Some(unknown) = keys.iter().find(|key| !is_known(key)) {
            let message = format!("expected a mention {}, found none", quoted(unknown));
            report.report(Problem::new(place.at(number), Reason::MalformedLine, message))?;
        }
        let keys = keys.iter().map(|key| events.meant(key).to_owned());
        document.equivalents.push(keys.collect());
    }
    for (index, concepts) in found {
        document.mentions[index].concepts.extend(concepts);
    }
    let (text, offset) = without_mark(text, &document.mentions);
    document.passages.push(RawPassage {
        section: None,
        blocks: vec![RawBlock { text, offset }],
        blocks_are_sentences: false,
    });
    Ok(document)
}

/// The text without a byte order mark, and where it begins. Some writers count the mark as a character, others do not:
/// what more mentions agree with is taken.
fn without_mark(text: String, mentions: &[RawMention]) -> (String, Option<u64>) {
    let Some(rest) = text.strip_prefix('\u{feff}') else {
        return (text, None);
    };
    // Whoever counts a line end of two characters as one may count the mark either way, too.
    let as_text = rest.replace(LONG_LINE_END, "\n");
    let forms: [Vec<char>; 2] = [rest, &as_text].map(|form| form.chars().collect());
    let agree = |base: u64, characters: &Vec<char>| {
        let agrees = |mention: &&RawMention| {
            let Some(&(start, end)) = mention.spans.first() else {
                return false;
            };
            let range = start.checked_sub(base).zip(end.checked_sub(base));
            let found = range.and_then(|(start, end)| characters.get(start as usize..end as usize));
            // Of a discontinuous mention the first piece.
            found.zip(mention.text.as_deref()).is_some_and(|(found, words)| {
                let mut words = words.chars();
                found.iter().all(|&c| words.next() == Some(c))
            })
        };
        mentions.iter().filter(agrees).count()
    };
    let most = |base: u64| forms.iter().map(|characters| agree(base, characters)).max();
    let offset = u64::from(most(1) > most(0));
    (rest.to_owned(), Some(offset))
}

fn parse(line: &str, number: u64) -> Result<Parsed<'_>, String> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let Some(first) = line.chars().next().filter(|_| !line.trim().is_empty()) else {
        return Ok(Parsed::Other);
    };
    if first == '*' {
        let mut words = line.split_ascii_whitespace().skip(1);
        return Ok(match words.next() {
            Some("Equiv") => Parsed::Equivalents(words.collect()),
            _ => Parsed::Other,
        });
    }
    if matches!(first, 'A' | 'M') {
        // `A1 Negated R1`, or with a value after it.
        let mut words = line.split_ascii_whitespace().skip(1);
        let (name, target, value) = (words.next(), words.next(), words.next());
        let target = target.filter(|target| target.starts_with(['R', 'E']));
        return Ok(match (name, target) {
            (Some(name), Some(target)) if qualifies(name, value) => Parsed::Qualified(target),
            _ => Parsed::Other,
        });
    }
    if first == '#' {
        return Ok(Parsed::Other);
    }
    let mut fields = line.splitn(3, '\t');
    let (Some(key), Some(second)) = (fields.next(), fields.next()) else {
        return Err(format!(
            "expected an identifier, a tab and more, found {}",
            quoted(line)
        ));
    };
    match first {
        'T' => {
            let expected = || {
                format!(
                    "expected \"TYPE START END\" after the identifier, found {}",
                    quoted(second)
                )
            };
            let (kind, spans) = second.split_once(' ').ok_or_else(expected)?;
            let span = |span: &str| {
                let (start, end) = span.trim().split_once(' ')?;
                Some((start.trim().parse().ok()?, end.trim().parse().ok()?))
            };
            let spans: Option<Vec<(u64, u64)>> = spans.split(';').map(span).collect();
            Ok(Parsed::Mention(RawMention {
                line: number,
                home: Some((0, 0)),
                spans: spans.ok_or_else(expected)?,
                text: fields.next().map(str::to_owned),
                kind: kind.to_owned(),
                concepts: Vec::new(),
                key: key.to_owned(),
                aliases: Vec::new(),
                composite: Composite::No,
            }))
        }
        'R' => {
            let mut words = second.split_ascii_whitespace();
            let kind = words.next().unwrap_or_default().to_owned();
            let ends: Vec<_> = words
                .map(argument)
                .map(|key| RawEndpoint::Mention(key.to_owned()))
                .collect();
            let ends = ends
                .try_into()
                .map_err(|_| format!("expected \"TYPE Arg1:T1 Arg2:T2\", found {}", quoted(second)))?;
            let relation = RawRelation {
                line: number,
                kind,
                ends,
                qualified: false,
            };
            Ok(Parsed::Relation(key, relation))
        }
        'E' => {
            let mut words = second.split_ascii_whitespace();
            let trigger = words.next().unwrap_or_default();
            let (kind, trigger) = trigger
                .split_once(':')
                .map_or((trigger, None), |(kind, key)| (kind, Some(key)));
            Ok(Parsed::Event(Event {
                line: number,
                key,
                kind,
                trigger,
                arguments: words.map(argument).collect(),
            }))
        }
        'N' => {
            let words: Vec<&str> = second.split_ascii_whitespace().collect();
            match words[..] {
                [_, mention, concept] => Ok(Parsed::Concept { mention, concept }),
                _ => Err(format!("expected \"Reference T1 SOURCE:ID\", found {}", quoted(second))),
            }
        }
        _ => Err(format!(
            "expected a line of T, R, E, N, A, M, * or #, found {}",
            quoted(line)
        )),
    }
}

/// `T1` of `Arg1:T1`.
fn argument(word: &str) -> &str {
    word.rsplit_once(':').map_or(word, |(_, key)| key)
}

#[cfg(test)]
mod tests;

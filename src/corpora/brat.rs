//! brat's standoff format: a text file and an annotation file beside it, `x.txt` with `x.ann`.
//!
//! Read are text-bound annotations (`T1<tab>Drug 0 7<tab>aspirin`, discontinuous ones as `0 5;9 14`), relations (`R1`), events
//! (`E1 Adverse_event:T3 Treatment:T4 Effect:T5`: each two of its arguments are related by the event's type; its
//! trigger is no mention) and normalisations (`N1 Reference T1 MeSH:D001`: an identifier). Attributes, notes and
//! equivalences say nothing about pairs and are passed over. The whole text is one passage.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{
    Composite, Documents, RawBlock, RawDocument, RawEndpoint, RawMention, RawPassage, RawRelation, split_concepts,
};
use super::report::{CorpusError, Place, Problem, Reason, Report, not_utf8, quoted};
use crate::files::Input;

/// A text with its annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BratFiles {
    /// The document's identifier: the name without its ending, below the folder that was given.
    pub id: String,
    pub text: PathBuf,
    pub annotations: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("{}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: expected a folder, or a file named .ann or .txt", .0.display())]
    Name(PathBuf),
    #[error("{}: expected .ann or .txt files in the folder, found none", .0.display())]
    Empty(PathBuf),
}

/// The documents that names of folders (with all that is below them), .ann and .txt files stand for, each once, in the
/// order given and by name within a folder.
pub fn find(paths: &[PathBuf]) -> Result<Vec<BratFiles>, FindError> {
    let mut found = Vec::new();
    let mut known = std::collections::HashSet::new();
    for path in paths {
        let read_error = |source| FindError::Read {
            path: path.clone(),
            source,
        };
        let is_folder = fs::metadata(path).map_err(read_error)?.is_dir();
        let (base, mut files) = match is_folder {
            true => (path.as_path(), walk(path)?),
            false if is_named(path) => (path.parent().unwrap_or(Path::new("")), vec![path.clone()]),
            false => return Err(FindError::Name(path.clone())),
        };
        if files.is_empty() {
            return Err(FindError::Empty(path.clone()));
        }
        files.sort();
        for file in files {
            let stem = file.with_extension("");
            if !known.insert(stem.clone()) {
                continue;
            }
            let id = stem.strip_prefix(base).unwrap_or(&stem);
            let parts: Vec<_> = id.components().map(|part| part.as_os_str().to_string_lossy()).collect();
            found.push(BratFiles {
                id: parts.join("/"),
                text: named(&stem, "txt"),
                annotations: named(&stem, "ann"),
            });
        }
    }
    Ok(found)
}

/// `x.y` with `.ann` becomes `x.y.ann`, where [`Path::with_extension`] would take `.y` away.
fn named(stem: &Path, ending: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

fn is_named(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending == "ann" || ending == "txt")
}

fn walk(folder: &Path) -> Result<Vec<PathBuf>, FindError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let error = |source| FindError::Read {
            path: folder.clone(),
            source,
        };
        for entry in fs::read_dir(&folder).map_err(error)? {
            let entry = entry.map_err(error)?;
            let kind = entry.file_type().map_err(error)?;
            let path = entry.path();
            // Links to folders are not followed: they may lead round in circles.
            if kind.is_dir() {
                folders.push(path);
            } else if is_named(&path) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

pub struct Reader {
    files: std::vec::IntoIter<BratFiles>,
}

impl Reader {
    pub fn new(files: Vec<BratFiles>) -> Self {
        Self {
            files: files.into_iter(),
        }
    }
}

impl Documents for Reader {
    fn next_document(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<RawDocument>, CorpusError> {
        for files in &mut self.files {
            let text = read(&files.text, &files.id, max_bytes)?;
            let annotations = read(&files.annotations, &files.id, max_bytes)?;
            match (text, annotations) {
                (Ok(text), Ok(annotations)) => return document(files, text, &annotations, report).map(Some),
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
        let message = format!("expected a file of at most {max_bytes} bytes, found a larger one; see --max-doc-bytes");
        return problem(Reason::TooLarge, message);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Ok(text)),
        Err(error) => problem(Reason::InvalidUtf8, not_utf8(error.as_bytes(), error.utf8_error())),
    }
}

/// One line of annotations, taken apart.
enum Parsed<'a> {
    Mention(RawMention),
    Relation(RawRelation),
    Event {
        kind: &'a str,
        trigger: Option<&'a str>,
        arguments: Vec<&'a str>,
    },
    Concept {
        mention: &'a str,
        concept: &'a str,
    },
    Other,
}

fn document(
    files: BratFiles,
    text: String,
    annotations: &str,
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
    document.passages.push(RawPassage {
        section: None,
        blocks: vec![RawBlock { text, offset: None }],
        blocks_are_sentences: false,
    });
    let mut triggers = Vec::new();
    let mut concepts: HashMap<&str, Vec<String>> = HashMap::new();
    for (index, line) in annotations
        .strip_prefix('\u{feff}')
        .unwrap_or(annotations)
        .lines()
        .enumerate()
    {
        let number = index as u64 + 1;
        match parse(line, number) {
            Ok(Parsed::Mention(mention)) => document.mentions.push(mention),
            Ok(Parsed::Relation(relation)) => document.relations.push(relation),
            Ok(Parsed::Event {
                kind,
                trigger,
                arguments,
            }) => {
                triggers.extend(trigger);
                for (i, one) in arguments.iter().enumerate() {
                    // An event of events relates nothing by itself.
                    for other in arguments[i + 1..]
                        .iter()
                        .filter(|other| one.starts_with('T') && other.starts_with('T'))
                    {
                        let ends = [one, *other].map(|key| RawEndpoint::Mention((*key).to_owned()));
                        document.relations.push(RawRelation {
                            line: number,
                            kind: kind.to_owned(),
                            ends,
                        });
                    }
                }
            }
            Ok(Parsed::Concept { mention, concept }) => {
                let known = concepts.entry(mention).or_default();
                known.extend(split_concepts(concept));
            }
            Ok(Parsed::Other) => {}
            Err(message) => report.report(Problem::new(place.at(number), Reason::MalformedLine, message))?,
        }
    }
    let triggers: std::collections::HashSet<&str> = triggers.into_iter().collect();
    document
        .mentions
        .retain(|mention| !triggers.contains(mention.key.as_str()));
    for mention in &mut document.mentions {
        if let Some(concepts) = concepts.remove(mention.key.as_str()) {
            mention.concepts = concepts;
        }
    }
    Ok(document)
}

fn parse(line: &str, number: u64) -> Result<Parsed<'_>, String> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let Some(first) = line.chars().next().filter(|_| !line.trim().is_empty()) else {
        return Ok(Parsed::Other);
    };
    if matches!(first, '#' | 'A' | 'M' | '*') {
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
            Ok(Parsed::Relation(RawRelation {
                line: number,
                kind,
                ends,
            }))
        }
        'E' => {
            let mut words = second.split_ascii_whitespace();
            let trigger = words.next().unwrap_or_default();
            let (kind, trigger) = trigger
                .split_once(':')
                .map_or((trigger, None), |(kind, key)| (kind, Some(key)));
            Ok(Parsed::Event {
                kind,
                trigger,
                arguments: words.map(argument).collect(),
            })
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

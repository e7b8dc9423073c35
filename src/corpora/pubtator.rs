//! PubTator text: `PMID|t|title`, `PMID|a|abstract`, then a line for each mention and relation, tab-separated.
//!
//! Offsets run over the title, one separator, and the abstract. A document begins with a title, or with any text
//! line of another PMID; blank lines between documents are usual but not needed. Relation lines name two concepts
//! (`PMID CID D1 D2`, BioRED's and PubTator3's types and further columns too).

use std::collections::HashSet;

use super::document::{
    Composite, Documents, LONGEST_ID, RawBlock, RawDocument, RawEndpoint, RawMention, RawPassage, RawRelation,
    split_concepts,
};
use super::report::{CorpusError, Place, Problem, Reason, Report, not_utf8, too_large};
use super::source::{Line, Source};
use crate::words::quoted;

pub struct Reader {
    source: Source,
    started: bool,
    /// The next document, whose first line has been read.
    next: Option<Pending>,
}

/// A document that is being gathered.
struct Pending {
    document: RawDocument,
    bytes: usize,
    /// Of its text lines.
    sections: HashSet<String>,
    /// A text line could not be read or it grew too large: what follows cannot be checked. It has been reported.
    unusable: bool,
}

/// One line, taken apart.
enum Parsed<'a> {
    Text {
        pmid: &'a str,
        letter: &'a str,
        text: &'a str,
    },
    Mention {
        pmid: &'a str,
        mention: RawMention,
    },
    Relation {
        pmid: &'a str,
        relation: RawRelation,
    },
}

impl Reader {
    pub fn new(source: Source) -> Self {
        Self {
            source,
            started: false,
            next: None,
        }
    }
}

impl Documents for Reader {
    fn next_document(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<RawDocument>, CorpusError> {
        if !std::mem::replace(&mut self.started, true) {
            let expected = "PubTator text (\"PMID|t|…\"; for XML or JSON use --from bioc)";
            if let Err(problem) = self.source.begin(b"<{[", expected)? {
                report.report(problem)?;
                return Ok(None);
            }
        }
        let mut current = self.next.take();
        loop {
            let number = self.source.line();
            let place = self.source.place();
            let Some(line) = self.source.next_line(max_bytes)? else {
                return Ok(finish(current));
            };
            let (length, prefix) = match line {
                Line::Whole(length) => (length, None),
                Line::TooLong(prefix) => (0, Some(prefix)),
            };
            let bytes = prefix.as_deref().unwrap_or(&self.source.bytes()[..length]);
            let begun = match damage(bytes, prefix.is_some(), max_bytes) {
                Some((reason, message)) => {
                    // Whose text is lost can be told from the line's beginning.
                    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned();
                    let pmid = text_line(&head).map(|(pmid, _, _)| pmid.to_owned());
                    let of_current = || {
                        let id = &current.as_ref()?.document.id;
                        after_pmid(&head, id).map(|_| id.clone())
                    };
                    let place = Place {
                        document: pmid.clone().or_else(of_current).unwrap_or_default(),
                        ..place
                    };
                    report.report(Problem::new(place.clone(), reason, message))?;
                    match (pmid, &mut current) {
                        (None, Some(pending)) => {
                            let lost = lost_relation(&head, &pending.document.id);
                            pending.document.lost_relations.extend(lost);
                            None
                        }
                        (None, None) => None,
                        (Some(pmid), Some(pending)) if pending.document.id == pmid => {
                            pending.unusable = true;
                            None
                        }
                        (Some(pmid), _) => Some(Pending {
                            document: RawDocument {
                                id: pmid,
                                place,
                                ..RawDocument::default()
                            },
                            bytes: 0,
                            sections: HashSet::new(),
                            unusable: true,
                        }),
                    }
                }
                None => {
                    // `damage` has checked it.
                    let text = std::str::from_utf8(bytes).unwrap_or_default();
                    match text.trim().is_empty() {
                        true => None,
                        false => take_line(text, number, place, &mut current, max_bytes, report)?,
                    }
                }
            };
            if prefix.is_none() {
                self.source.end_line(length);
            }
            if let Some(begun) = begun {
                match finish(current.replace(begun)) {
                    None => {}
                    done => {
                        self.next = current;
                        return Ok(done);
                    }
                }
            }
        }
    }
}

fn finish(pending: Option<Pending>) -> Option<RawDocument> {
    pending
        .filter(|pending| !pending.unusable)
        .map(|pending| pending.document)
}

fn damage(bytes: &[u8], too_long: bool, max_bytes: usize) -> Option<(Reason, String)> {
    if too_long {
        return Some((Reason::TooLarge, too_large("line", max_bytes)));
    }
    std::str::from_utf8(bytes)
        .err()
        .map(|error| (Reason::InvalidUtf8, not_utf8(bytes, error)))
}

/// Adds a line to the current document, or gives the one that it begins.
fn take_line(
    text: &str,
    number: u64,
    place: Place,
    current: &mut Option<Pending>,
    max_bytes: usize,
    report: &mut dyn Report,
) -> Result<Option<Pending>, CorpusError> {
    let document = current
        .as_ref()
        .map(|pending| pending.document.id.clone())
        .unwrap_or_default();
    // Files that were put together keep the byte order marks of each.
    let text = text.trim_start_matches('\u{feff}');
    let parsed = match parse(text, number).and_then(one_line) {
        Ok(parsed) => parsed,
        Err(message) => {
            if let Some(pending) = current {
                pending.document.lost_relations.extend(lost_relation(text, &document));
            }
            report.report(Problem::new(
                Place { document, ..place },
                Reason::MalformedLine,
                message,
            ))?;
            return Ok(None);
        }
    };
    if let Some(pending) = current {
        pending.bytes = pending.bytes.saturating_add(text.len());
        let is_large = pending.bytes > max_bytes && !pending.unusable;
        let ends = matches!(parsed, Parsed::Text { pmid, letter, .. } if pmid != pending.document.id || letter == "t");
        if is_large && !ends {
            pending.unusable = true;
            pending.document = RawDocument {
                id: document.clone(),
                ..RawDocument::default()
            };
            let message = too_large("document", max_bytes);
            report.report(Problem::new(
                Place {
                    document: document.clone(),
                    ..place.clone()
                },
                Reason::TooLarge,
                message,
            ))?;
        }
    }
    let stray = match parsed {
        Parsed::Text { pmid, letter, text } => {
            let passage = RawPassage {
                section: Some(section(letter).to_owned()),
                blocks: vec![RawBlock {
                    text: text.to_owned(),
                    offset: None,
                }],
                blocks_are_sentences: false,
            };
            let repeats = |pending: &Pending| {
                let document = &pending.document;
                let has_annotations = !document.mentions.is_empty() || !document.relations.is_empty();
                (letter == "t" && !document.passages.is_empty())
                    || (has_annotations && pending.sections.contains(section(letter)))
            };
            return Ok(match current {
                Some(pending) if pending.document.id == pmid && !repeats(pending) => {
                    if !pending.unusable {
                        pending.document.passages.push(passage);
                        pending.sections.insert(section(letter).to_owned());
                    }
                    None
                }
                _ => Some(Pending {
                    document: RawDocument {
                        id: pmid.to_owned(),
                        place,
                        passages: vec![passage],
                        ..RawDocument::default()
                    },
                    bytes: text.len(),
                    sections: HashSet::from([section(letter).to_owned()]),
                    unusable: false,
                }),
            });
        }
        Parsed::Mention { pmid, mention } => match current {
            Some(pending) if pending.document.id == pmid => {
                if !pending.unusable {
                    pending.document.mentions.push(mention);
                }
                return Ok(None);
            }
            _ => pmid,
        },
        Parsed::Relation { pmid, relation } => match current {
            Some(pending) if pending.document.id == pmid => {
                if !pending.unusable {
                    pending.document.relations.push(relation);
                }
                return Ok(None);
            }
            _ => pmid,
        },
    };
    let expected = match document.is_empty() {
        true => "a text line first".to_owned(),
        false => format!("an annotation of document {}", quoted(&document)),
    };
    let message = format!("expected {expected}, found one of {}", quoted(stray));
    report.report(Problem::new(place, Reason::StrayLine, message))?;
    Ok(None)
}

/// Refuses a text that goes on with what should be lines of their own.
fn one_line(parsed: Parsed<'_>) -> Result<Parsed<'_>, String> {
    if let Parsed::Text { text, .. } = &parsed
        && text.split('\r').skip(1).any(|rest| parse(rest, 0).is_ok())
    {
        return Err("expected lines that end in a line feed, found carriage returns alone".to_owned());
    }
    Ok(parsed)
}

fn section(letter: &str) -> &str {
    match letter {
        "t" => "title",
        "a" => "abstract",
        other => other,
    }
}

/// `PMID|t|…`
fn text_line(line: &str) -> Option<(&str, &str, &str)> {
    let (pmid, rest) = line.split_once('|')?;
    let (letter, text) = rest.split_once('|')?;
    let is_name = !letter.is_empty() && letter.len() <= 20 && letter.bytes().all(|byte| byte.is_ascii_alphabetic());
    let pmid_ok = !pmid.is_empty() && pmid.len() <= LONGEST_ID && !pmid.contains('\t');
    (is_name && pmid_ok).then_some((pmid.trim(), letter, text))
}

/// The fields of a line behind its document's identifier, if it begins with that.
fn after_pmid<'l>(line: &'l str, pmid: &str) -> Option<&'l str> {
    let rest = line.trim_start().strip_prefix(pmid)?;
    let fields = rest.trim_start_matches(' ');
    rest.starts_with([' ', '\t'])
        .then(|| fields.strip_prefix('\t').unwrap_or(fields))
}

/// The type of the relation that a document's line may state which cannot be read, such as one that was cut short; empty where that
/// cannot be told. None of a mention's line, which has offsets first.
fn lost_relation(line: &str, pmid: &str) -> Option<String> {
    let mut fields = after_pmid(line, pmid)?.split('\t').map(str::trim);
    let (second, third) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    if is_relation_type(second) {
        // Blanks for tabs leave the type open.
        return Some(if second.contains(' ') {
            String::new()
        } else {
            second.to_owned()
        });
    }
    let is_offset = |field: &str| {
        let first = field.split(' ').next().unwrap_or_default();
        !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) || stands_for_a_start(first)
    };
    (!is_offset(second) && !is_offset(third)).then(String::new)
}

/// Whether a second field is a relation's type, not a start or what stands for one that is missing.
fn is_relation_type(second: &str) -> bool {
    second.starts_with(char::is_alphabetic) && !stands_for_a_start(second)
}

fn stands_for_a_start(field: &str) -> bool {
    ["na", "nan", "none", "null", "start"].contains(&field.to_ascii_lowercase().as_str())
}

fn parse(line: &str, number: u64) -> Result<Parsed<'_>, String> {
    if let Some((pmid, letter, text)) = text_line(line) {
        return Ok(Parsed::Text { pmid, letter, text });
    }
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    let (Some(pmid), Some(second), Some(third), Some(fourth)) = (next(), next(), next(), next()) else {
        return Err(format!(
            "expected \"PMID|t|…\", a mention of at least 5 fields or a relation of at least 4, found {}",
            quoted(line)
        ));
    };
    let pmid = pmid.trim();
    let (second, third) = (second.trim(), third.trim());
    if is_relation_type(second) {
        let ends = [third, fourth].map(|end| RawEndpoint::Concepts(end.to_owned()));
        let relation = RawRelation {
            line: number,
            kind: second.to_owned(),
            ends,
            qualified: false,
        };
        return Ok(Parsed::Relation { pmid, relation });
    }
    let (Ok(start), Ok(end)) = (second.parse(), third.parse()) else {
        return Err(format!(
            "expected offsets of a mention or the type of a relation, found {} and {}",
            quoted(second),
            quoted(third)
        ));
    };
    let Some(kind) = next().map(str::trim).filter(|kind| !kind.is_empty()) else {
        return Err("expected a mention's type in field 5, found nothing".to_owned());
    };
    let concepts = next().map(split_concepts).unwrap_or_default();
    let names_parts = next().is_some_and(|parts| !parts.trim().is_empty());
    let mention = RawMention {
        line: number,
        home: None,
        spans: vec![(start, end)],
        text: Some(fourth.to_owned()),
        kind: kind.to_owned(),
        concepts,
        key: String::new(),
        aliases: Vec::new(),
        composite: if names_parts { Composite::Whole } else { Composite::No },
    };
    Ok(Parsed::Mention { pmid, mention })
}

#[cfg(test)]
mod tests;

//! The ADE corpus' relations: `PMID|sentence|effect|begin|end|drug|begin|end`, one a line.
//!
//! The offsets count from the beginning of the whole article ("PMID, title, abstract"), which is not in the file, so they
//! do not say where in the sentence a mention is. They say how far the two mentions are apart, and where the
//! sentence would have to begin. A mention is placed where its words are in the sentence; where they are there more
//! than once, the one place is taken that fits the distance and the beginning that the sentence's other lines
//! agree on. Relations that fit nowhere, or in several ways, are reported.
//!
//! The lines of one PMID are a document, wherever in the input they stand, and each sentence is a passage of its own. Both
//! mentions of a line are related to each other; other combinations in the sentence are not, unless they have the same
//! names. That some line relates them is known when all lines have been read, so an input is held whole: the corpus is
//! 1.2 MB.

use std::collections::{BTreeMap, HashMap};

use super::document::{Composite, Documents, RawBlock, RawDocument, RawEndpoint, RawMention, RawPassage, RawRelation};
use super::report::{CorpusError, Place, Problem, Reason, Report, not_utf8, too_large};
use super::source::{Line, Source};
use crate::words::quoted;

pub const DRUG: &str = "Drug";
pub const EFFECT: &str = "Adverse-Effect";

/// A sentence that has its words more often than this is not looked through further.
const MAX_PLACES: usize = 1000;
/// Nor one for words of which these are so many bytes: long ones take long to be compared.
const MOST_LOOKED_AT: usize = 1 << 20;

/// An input may take as much memory as this many of the largest documents: 256 MiB unless the limit is another.
const HELD_DOCUMENTS: usize = 16;

/// What a line and a PMID take besides the line's words: where strings are, how long, and room for more. Seen were 740 bytes
/// for a line that is its PMID's only one.
const LINE_BYTES: usize = 256;
const PMID_BYTES: usize = 512;

pub struct Reader {
    source: Source,
    /// What is left to give; none before anything has been read.
    documents: Option<std::vec::IntoIter<Gathered>>,
}

/// The lines of one PMID.
#[derive(Default)]
struct Gathered {
    lines: Vec<Relation>,
    /// How many more there are that cannot be read.
    damaged: usize,
    /// Of all lines, also of those that were let go because they are too many.
    bytes: usize,
}

/// One line, taken apart.
struct Relation {
    /// The PMID is its document.
    place: Place,
    sentence: String,
    /// Effect, then drug.
    sides: [Stated; 2],
}

impl Relation {
    /// Of the words on the line.
    fn bytes(&self) -> usize {
        let words: usize = self.sides.iter().map(|side| side.words.len()).sum();
        self.sentence.len() + words
    }
}

/// A line as far as it can be read.
enum Read {
    Relation(Relation),
    /// The place of a line that is reported, and of which the PMID alone is known.
    Damaged(Place),
}

struct Stated {
    words: String,
    start: u64,
    end: u64,
}

impl Reader {
    pub fn new(source: Source) -> Self {
        Self {
            source,
            documents: None,
        }
    }

    /// The next line of which the PMID at least can be read.
    fn next_relation(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<Read>, CorpusError> {
        loop {
            let place = self.source.place();
            let Some(line) = self.source.next_line(max_bytes)? else {
                return Ok(None);
            };
            let length = match line {
                Line::Whole(length) => length,
                Line::TooLong(_) => {
                    report.report(Problem::new(place, Reason::TooLarge, too_large("line", max_bytes)))?;
                    continue;
                }
            };
            let bytes = &self.source.bytes()[..length];
            let parsed = match std::str::from_utf8(bytes) {
                Err(error) => Err((Reason::InvalidUtf8, not_utf8(bytes, error))),
                Ok(line) if line.trim().is_empty() => Ok(None),
                Ok(line) => parse(line, &place)
                    .map(Some)
                    .map_err(|message| (Reason::MalformedLine, message)),
            };
            let pmid = match parsed {
                Err(_) => pmid_of(bytes),
                Ok(_) => None,
            };
            self.source.end_line(length);
            match parsed {
                Ok(None) => {}
                Ok(Some(relation)) => return Ok(Some(Read::Relation(relation))),
                Err((reason, message)) => {
                    report.report(Problem::new(place.clone(), reason, message))?;
                    if let Some(document) = pmid {
                        return Ok(Some(Read::Damaged(Place { document, ..place })));
                    }
                }
            }
        }
    }

    /// All lines by PMID, in the order of their first lines. Nothing, and a problem, where the input is none of the format
    /// or too large.
    fn gather(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Vec<Gathered>, CorpusError> {
        if let Err(problem) = self.source.begin(b"<{[", "\"PMID|sentence|effect|…\"")? {
            report.report(problem)?;
            return Ok(Vec::new());
        }
        let mut documents: Vec<Gathered> = Vec::new();
        let mut index_of: HashMap<String, usize> = HashMap::new();
        let most = max_bytes.saturating_mul(HELD_DOCUMENTS);
        let mut held = 0usize;
        let more_than_memory = |place: &Place| {
            let message = format!(
                "expected an input that takes at most {most} bytes of memory, since the lines of a PMID may stand anywhere \
                 in it, found a larger one, nothing of which is extracted; raise --max-doc-bytes, or cut it up between \
                 PMIDs, sorted (sort -s -t'|' -k1,1)"
            );
            Problem::new(place.clone(), Reason::TooLarge, message)
        };
        while let Some(read) = self.next_relation(max_bytes, report)? {
            let (place, line) = match read {
                Read::Relation(line) => (line.place.clone(), Some(line)),
                Read::Damaged(place) => (place, None),
            };
            let in_memory = |bytes: usize, lines: usize| bytes.saturating_add(lines * LINE_BYTES);
            let index = *index_of.entry(place.document.clone()).or_insert(documents.len());
            if index == documents.len() {
                documents.push(Gathered::default());
                held = held.saturating_add(PMID_BYTES);
            }
            let document = &mut documents[index];
            let Some(line) = line else {
                document.damaged += 1;
                if held > most {
                    report.report(more_than_memory(&place))?;
                    return Ok(Vec::new());
                }
                continue;
            };
            let bytes = line.bytes();
            let fitted = document.bytes <= max_bytes;
            document.bytes = document.bytes.saturating_add(bytes);
            if document.bytes <= max_bytes {
                held = held.saturating_add(in_memory(bytes, 1));
                if held > most {
                    report.report(more_than_memory(&place))?;
                    return Ok(Vec::new());
                }
                document.lines.push(line);
            } else if fitted {
                held -= in_memory(document.bytes - bytes, document.lines.len());
                document.lines = Vec::new();
                report.report(Problem::new(
                    line.place,
                    Reason::TooLarge,
                    too_large("document", max_bytes),
                ))?;
            }
        }
        documents.retain(|document| document.bytes <= max_bytes && !document.lines.is_empty());
        Ok(documents)
    }
}

impl Documents for Reader {
    fn next_document(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<RawDocument>, CorpusError> {
        let documents = match &mut self.documents {
            Some(documents) => documents,
            None => {
                let documents = self.gather(max_bytes, report)?;
                self.documents.insert(documents.into_iter())
            }
        };
        match documents.next() {
            Some(Gathered { lines, damaged, .. }) => document(lines, damaged, report).map(Some),
            None => Ok(None),
        }
    }
}

/// What stands before the first bar, unless it is too long for a PMID.
fn pmid_of(line: &[u8]) -> Option<String> {
    const LONGEST: usize = 100;
    let end = memchr::memchr(b'|', line).filter(|&end| end <= LONGEST)?;
    let pmid = std::str::from_utf8(&line[..end]).ok()?.trim();
    (!pmid.is_empty()).then(|| pmid.to_owned())
}

fn parse(line: &str, place: &Place) -> Result<Relation, String> {
    // From the right, since a sentence may hold a bar.
    let fields: Vec<&str> = line.rsplitn(7, '|').collect();
    let [drug_end, drug_start, drug, effect_end, effect_start, effect, rest] = fields[..] else {
        return Err(format!(
            "expected 8 fields with bars between them, found {} in {}",
            fields.len(),
            quoted(line)
        ));
    };
    let Some((pmid, sentence)) = rest.split_once('|') else {
        return Err(format!(
            "expected 8 fields with bars between them, found 7 in {}",
            quoted(line)
        ));
    };
    if pmid.trim().is_empty() {
        return Err(format!(
            "expected a PMID before the first bar, found none in {}",
            quoted(line)
        ));
    }
    let number = |field: &str| {
        let message = || format!("expected an offset, found {}", quoted(field));
        field.trim().parse::<u64>().map_err(|_| message())
    };
    let stated = |words: &str, start, end| -> Result<Stated, String> {
        if words.trim().is_empty() {
            return Err("expected a drug and an effect, found an empty field".to_owned());
        }
        Ok(Stated {
            words: words.to_owned(),
            start: number(start)?,
            end: number(end)?,
        })
    };
    Ok(Relation {
        place: Place {
            document: pmid.trim().to_owned(),
            ..place.clone()
        },
        sentence: sentence.to_owned(),
        sides: [
            stated(effect, effect_start, effect_end)?,
            stated(drug, drug_start, drug_end)?,
        ],
    })
}

/// Where a sentence begins in its article, for which the offsets of a line fit it.
fn bases(relation: &Relation) -> Result<Vec<u64>, Reason> {
    let [effect, drug] = &relation.sides;
    let bases_of = |stated: &Stated| -> Result<Vec<u64>, Reason> {
        let length = stated.words.chars().count() as u64;
        let mut found = false;
        let mut bases = Vec::new();
        // Byte offsets of matches into code points, as they come.
        let (mut byte, mut code_points) = (0, 0u64);
        for at in places(&relation.sentence, &stated.words) {
            found = true;
            code_points += relation.sentence[byte..at].chars().count() as u64;
            byte = at;
            if let Some(base) = stated
                .start
                .checked_sub(code_points)
                .filter(|_| stated.end.checked_sub(stated.start) == Some(length))
            {
                bases.push(base);
            }
        }
        if found { Ok(bases) } else { Err(Reason::TextMismatch) }
    };
    let drug_bases = bases_of(drug)?;
    let mut bases = bases_of(effect)?;
    // They descend, as places ascend.
    bases.retain(|base| drug_bases.binary_search_by(|other| base.cmp(other)).is_ok());
    Ok(bases)
}

/// Where the words are in the sentence, also overlapping.
fn places<'a>(sentence: &'a str, words: &'a str) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    let next = move || {
        let at = from + sentence.get(from..)?.find(words)?;
        from = at + sentence[at..].chars().next().map_or(1, char::len_utf8);
        Some(at)
    };
    std::iter::from_fn(next).take((MOST_LOOKED_AT / words.len().max(1)).clamp(2, MAX_PLACES))
}

fn document(lines: Vec<Relation>, damaged: usize, report: &mut dyn Report) -> Result<RawDocument, CorpusError> {
    let mut document = RawDocument {
        id: lines[0].place.document.clone(),
        place: Place {
            document: String::new(),
            ..lines[0].place.clone()
        },
        lost_relations: vec![EFFECT.to_owned(); damaged],
        ..RawDocument::default()
    };
    // Lines of one sentence, which need not follow each other.
    let mut groups: Vec<Vec<&Relation>> = Vec::new();
    let mut group_of: HashMap<&str, usize> = HashMap::new();
    for line in &lines {
        let index = *group_of.entry(&line.sentence).or_insert(groups.len());
        match groups.get_mut(index) {
            Some(group) => group.push(line),
            None => groups.push(vec![line]),
        }
    }
    // Passages by where they begin, so that offsets stay apart and ascending.
    let mut passages: BTreeMap<(u64, &str), Vec<&Relation>> = BTreeMap::new();
    for group in &groups {
        let candidates: Vec<_> = group.iter().map(|line| bases(line)).collect();
        // What lines with one possibility say about the sentence's beginning; else what all lines allow.
        let mut certain: Vec<u64> = candidates
            .iter()
            .flatten()
            .filter(|bases| bases.len() == 1)
            .map(|bases| bases[0])
            .collect();
        if certain.is_empty() {
            let mut all = candidates.iter().flatten().filter(|bases| !bases.is_empty());
            certain = all.next().cloned().unwrap_or_default();
            all.for_each(|bases| certain.retain(|base| bases.contains(base)));
        }
        certain.sort_unstable();
        certain.dedup();
        for (line, bases) in group.iter().zip(candidates) {
            let base = match bases {
                Err(reason) => Err((reason, "expected both mentions in the sentence, found at most one")),
                Ok(bases) if bases.is_empty() => Err((
                    Reason::OutsideText,
                    "expected offsets as far apart as the mentions in the sentence, found others",
                )),
                Ok(bases) => {
                    let mut fitting = bases
                        .iter()
                        .filter(|base| bases.len() == 1 || certain.binary_search(base).is_ok());
                    match (fitting.next(), fitting.next()) {
                        (Some(&base), None) => Ok(base),
                        _ => Err((
                            Reason::Ambiguous,
                            "expected one place for the two mentions, found several",
                        )),
                    }
                }
            };
            match base {
                Err((reason, message)) => {
                    document.lost_relations.push(EFFECT.to_owned());
                    let [effect, drug] = &line.sides;
                    let message = format!(
                        "{message}: {} at {}-{} and {} at {}-{}",
                        quoted(&effect.words),
                        effect.start,
                        effect.end,
                        quoted(&drug.words),
                        drug.start,
                        drug.end
                    );
                    report.report(Problem::new(line.place.clone(), reason, message))?;
                }
                Ok(base) => passages.entry((base, &line.sentence)).or_default().push(line),
            }
        }
    }
    for (index, ((base, sentence), lines)) in passages.into_iter().enumerate() {
        document.passages.push(RawPassage {
            section: None,
            blocks: vec![RawBlock {
                text: sentence.to_owned(),
                offset: Some(base),
            }],
            blocks_are_sentences: true,
        });
        for line in lines {
            let mention = |side: usize, kind: &str| RawMention {
                line: line.place.line,
                home: Some((index, 0)),
                spans: vec![(line.sides[side].start, line.sides[side].end)],
                text: Some(line.sides[side].words.clone()),
                kind: kind.to_owned(),
                concepts: Vec::new(),
                key: format!("{}.{side}", line.place.line),
                aliases: Vec::new(),
                composite: Composite::No,
            };
            let mentions = [mention(0, EFFECT), mention(1, DRUG)];
            let ends = [0, 1].map(|side: usize| RawEndpoint::Mention(mentions[side].key.clone()));
            document.relations.push(RawRelation {
                line: line.place.line,
                kind: EFFECT.to_owned(),
                ends,
                qualified: false,
            });
            document.mentions.extend(mentions);
        }
    }
    Ok(document)
}

#[cfg(test)]
mod tests;

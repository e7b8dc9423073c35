//! The ADE corpus' relations: `PMID|sentence|effect|begin|end|drug|begin|end`, one a line.
//!
//! The offsets count from the beginning of the whole article ("PMID, title, abstract"), which is not in the file, so they
//! do not say where in the sentence a mention is. They say how far the two mentions are apart, and where the
//! sentence would have to begin. A mention is placed where its words are in the sentence; where they are there more
//! than once, the one place is taken that fits the distance and the beginning that the sentence's other lines
//! agree on. Relations that fit nowhere, or in several ways, are reported.
//!
//! Consecutive lines of one PMID are a document and each sentence is a passage of its own. Both mentions of a line
//! are related to each other; other combinations in the sentence are not.

use std::collections::{BTreeMap, HashMap};

use super::document::{Composite, Documents, RawBlock, RawDocument, RawEndpoint, RawMention, RawPassage, RawRelation};
use super::report::{CorpusError, Place, Problem, Reason, Report, not_utf8, quoted};
use super::source::{Line, Source};

pub const DRUG: &str = "Drug";
pub const EFFECT: &str = "Adverse-Effect";

/// A sentence that has its words more often than this is not looked through further.
const MAX_PLACES: usize = 1000;

pub struct Reader {
    source: Source,
    started: bool,
    next: Option<Relation>,
}

/// One line, taken apart.
struct Relation {
    place: Place,
    pmid: String,
    sentence: String,
    /// Effect, then drug.
    sides: [Stated; 2],
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
            started: false,
            next: None,
        }
    }

    /// The next line that can be read.
    fn next_relation(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<Relation>, CorpusError> {
        loop {
            let place = self.source.place();
            let Some(line) = self.source.next_line(max_bytes)? else {
                return Ok(None);
            };
            let length = match line {
                Line::Whole(length) => length,
                Line::TooLong(_) => {
                    let message = format!("expected a line of at most {max_bytes} bytes, found a longer one");
                    report.report(Problem::new(place, Reason::TooLarge, message))?;
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
            self.source.end_line(length);
            match parsed {
                Ok(None) => {}
                Ok(some) => return Ok(some),
                Err((reason, message)) => report.report(Problem::new(place, reason, message))?,
            }
        }
    }
}

impl Documents for Reader {
    fn next_document(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<RawDocument>, CorpusError> {
        if !std::mem::replace(&mut self.started, true)
            && let Err(problem) = self.source.begin(b"<{[", "\"PMID|sentence|effect|…\"")?
        {
            report.report(problem)?;
            return Ok(None);
        }
        let first = match self.next.take() {
            Some(first) => first,
            None => match self.next_relation(max_bytes, report)? {
                Some(first) => first,
                None => return Ok(None),
            },
        };
        let mut bytes = first.sentence.len();
        let mut lines = vec![first];
        while let Some(next) = self.next_relation(max_bytes, report)? {
            bytes = bytes.saturating_add(next.sentence.len());
            // A document as large as the limit goes on as another of the same name rather than fill memory.
            if next.pmid != lines[0].pmid || bytes > max_bytes {
                self.next = Some(next);
                break;
            }
            lines.push(next);
        }
        document(lines, report).map(Some)
    }
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
        pmid: pmid.trim().to_owned(),
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
    bases.retain(|base| drug_bases.contains(base));
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
    std::iter::from_fn(next).take(MAX_PLACES)
}

fn document(lines: Vec<Relation>, report: &mut dyn Report) -> Result<RawDocument, CorpusError> {
    let mut document = RawDocument {
        id: lines[0].pmid.clone(),
        place: Place {
            document: String::new(),
            ..lines[0].place.clone()
        },
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
        for (line, bases) in group.iter().zip(candidates) {
            let base = match bases {
                Err(reason) => Err((reason, "expected both mentions in the sentence, found at most one")),
                Ok(bases) if bases.is_empty() => Err((
                    Reason::OutsideText,
                    "expected offsets as far apart as the mentions in the sentence, found others",
                )),
                Ok(bases) => {
                    let mut fitting = bases.iter().filter(|base| bases.len() == 1 || certain.contains(base));
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
                    document.lost_relations += 1;
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
            });
            document.mentions.extend(mentions);
        }
    }
    Ok(document)
}

#[cfg(test)]
mod tests;

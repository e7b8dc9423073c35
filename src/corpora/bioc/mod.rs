//! BioC, as XML and as JSON: collections of documents of passages with annotations and relations.
//!
//! [`xml`] and [`json`] cut a stream into documents, so that a malformed one costs itself alone, and read each into the
//! same plain structures; here these become [`RawDocument`]s. Annotations count their offsets from the document,
//! in a unit that [`super::resolve`] finds out. Text may stand in a passage or in its sentences.
//!
//! Where identifiers are: an annotation's infons `identifier`, `MESH`, `OMIM` and others of [`CONCEPT_KEYS`].
//! Relations name concepts in infons (`Chemical` and `Disease` as in BC5CDR, `entity1`/`entity2` as in BioRED,
//! `role1`/`role2` as in PubTator3), else annotations in nodes. Their type is the infon `relation` or `type`.

mod json;
mod xml;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Deserialize;

use super::document::{
    Composite, Documents, LONGEST_ID, NOWHERE, PairedEnds, RawBlock, RawDocument, RawEndpoint, RawMention, RawPassage,
    RawRelation, qualifies, split_concepts,
};
use super::options::plain;
use super::report::{CorpusError, Place, Problem, Reason, Report, not_utf8, too_large};
use super::source::Source;
use crate::words::quoted;

/// Infons that hold identifiers, by their letters and digits.
const CONCEPT_KEYS: &[&str] = &[
    "identifier",
    "identifiers",
    "mesh",
    "meshid",
    "omim",
    "umls",
    "cui",
    "chebi",
    "drugbank",
    "meddra",
    "rxnorm",
    "snomed",
    "snomedct",
    "conceptid",
    "normalized",
    "dbid",
];

pub struct Reader {
    source: Source,
    cutter: Option<Cutter>,
    finished: bool,
    documents: u64,
}

enum Cutter {
    Xml(xml::Cutter),
    Json(json::Cutter),
}

/// What a cutter found next.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// A document of so many bytes in hand.
    Document(usize),
    /// So many bytes in hand that are the beginning of a document, which something else cut short.
    Torn(usize),
    /// A document of more bytes than the limit. It has been read past.
    TooLarge,
    /// Something else than a document where one should be. It has been read past.
    Other(String),
}

impl Reader {
    pub fn new(source: Source) -> Self {
        Self {
            source,
            cutter: None,
            finished: false,
            documents: 0,
        }
    }
}

impl Documents for Reader {
    fn next_document(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<RawDocument>, CorpusError> {
        if self.finished {
            return Ok(None);
        }
        let cutter = match &mut self.cutter {
            Some(cutter) => cutter,
            unknown => {
                let expected = "BioC: XML (\"<\") or JSON (\"{\" or \"[\")";
                let first = self.source.begin(b"", expected)?;
                let place = self.source.place();
                let refuse = |message| Err(Problem::new(place, Reason::WrongFormat, message));
                let cutter = match first {
                    Err(problem) => Err(problem),
                    Ok(Some(b'<')) => match xml::encoding(&mut self.source)? {
                        None => Ok(Cutter::Xml(xml::Cutter::default())),
                        Some(encoding) => {
                            let mut message = format!(
                                "expected UTF-8, found the declared encoding {encoding}; convert it first, and what it declares"
                            );
                            if xml::is_name_of_encoding(&encoding) {
                                message += &format!(": iconv -f {encoding} -t UTF-8 FILE | sed '1s/{encoding}/UTF-8/'");
                            }
                            refuse(message)
                        }
                    },
                    Ok(Some(b'{' | b'[')) => Ok(Cutter::Json(json::Cutter::default())),
                    Ok(Some(other)) => refuse(format!(
                        "expected {expected}, found {:?} at the beginning",
                        char::from(other)
                    )),
                    Ok(None) => {
                        self.finished = true;
                        return Ok(None);
                    }
                };
                match cutter {
                    Ok(cutter) => unknown.insert(cutter),
                    Err(problem) => {
                        self.finished = true;
                        report.report(problem)?;
                        return Ok(None);
                    }
                }
            }
        };
        loop {
            let piece = match cutter {
                Cutter::Xml(cutter) => cutter.next(&mut self.source, max_bytes)?,
                Cutter::Json(cutter) => cutter.next(&mut self.source, max_bytes)?,
            };
            let Some((piece, line)) = piece else {
                self.finished = true;
                if self.documents == 0 && matches!(cutter, Cutter::Xml(cutter) if !cutter.saw_collection) {
                    let message = "expected BioC, found XML without <document> and <collection>";
                    report.report(Problem::new(self.source.place_at(1), Reason::WrongFormat, message))?;
                }
                return Ok(None);
            };
            self.documents += 1;
            let place = self.source.place_at(line);
            let (length, torn) = match piece {
                Piece::Document(length) => (length, false),
                Piece::Torn(length) => (length, true),
                Piece::TooLarge => {
                    report.report(Problem::new(place, Reason::TooLarge, too_large("document", max_bytes)))?;
                    continue;
                }
                Piece::Other(message) => {
                    report.report(Problem::new(place, Reason::MalformedDocument, message))?;
                    continue;
                }
            };
            let bytes = &self.source.bytes()[..length];
            let parsed = match std::str::from_utf8(bytes) {
                Err(error) => Err((String::new(), Reason::InvalidUtf8, not_utf8(bytes, error))),
                Ok(text) => {
                    let (mut document, error) = match cutter {
                        Cutter::Xml(_) => xml::parse(text),
                        Cutter::Json(_) => json::parse(text),
                    };
                    let error = error.or_else(|| {
                        torn.then(|| {
                            "expected the end of the document, found another or the end of the file".to_owned()
                        })
                    });
                    match error {
                        Some(message) => Err((std::mem::take(&mut document.id), Reason::MalformedDocument, message)),
                        None => document
                            .into_raw(place.clone(), report)?
                            .map_err(|message| (String::new(), Reason::MalformedDocument, message)),
                    }
                }
            };
            self.source.consume(length);
            match parsed {
                Ok(document) => return Ok(Some(document)),
                Err((document, reason, message)) => {
                    report.report(Problem::new(Place { document, ..place }, reason, message))?;
                }
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BiocDocument {
    #[serde(deserialize_with = "json::text")]
    id: String,
    #[serde(deserialize_with = "json::list")]
    passages: Vec<BiocPassage>,
    /// Of no passage: they are where their offsets are.
    #[serde(deserialize_with = "json::list")]
    annotations: Vec<BiocAnnotation>,
    #[serde(deserialize_with = "json::list")]
    relations: Vec<BiocRelation>,
}

/// A passage, or a sentence of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BiocPassage {
    infons: json::Infons,
    #[serde(deserialize_with = "json::number")]
    offset: Option<u64>,
    #[serde(deserialize_with = "json::optional_text")]
    text: Option<String>,
    #[serde(deserialize_with = "json::list")]
    sentences: Vec<BiocPassage>,
    #[serde(deserialize_with = "json::list")]
    annotations: Vec<BiocAnnotation>,
    #[serde(deserialize_with = "json::list")]
    relations: Vec<BiocRelation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BiocAnnotation {
    #[serde(deserialize_with = "json::text")]
    id: String,
    infons: json::Infons,
    #[serde(deserialize_with = "json::list")]
    locations: Vec<BiocLocation>,
    #[serde(deserialize_with = "json::optional_text")]
    text: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BiocLocation {
    #[serde(deserialize_with = "json::number")]
    offset: Option<u64>,
    #[serde(deserialize_with = "json::number")]
    length: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BiocRelation {
    #[serde(deserialize_with = "json::text")]
    id: String,
    infons: json::Infons,
    #[serde(deserialize_with = "json::list")]
    nodes: Vec<BiocNode>,
}

#[derive(Debug, Default, Deserialize)]
struct BiocNode {
    #[serde(default, deserialize_with = "json::text")]
    refid: String,
}

impl BiocDocument {
    /// What it states. The inner error says why this is no document; what is lost within one goes to `report`.
    fn into_raw(self, place: Place, report: &mut dyn Report) -> Result<Result<RawDocument, String>, CorpusError> {
        if self.id.trim().is_empty() {
            return Ok(Err("expected a document with an id, found none".to_owned()));
        }
        if self.id.len() > LONGEST_ID {
            return Ok(Err(format!(
                "expected a document with an id of at most {LONGEST_ID} bytes, found {}",
                self.id.len()
            )));
        }
        let mut document = RawDocument {
            id: self.id.trim().to_owned(),
            place,
            ..RawDocument::default()
        };
        // With where they stand.
        let mut relations: Vec<(Level, BiocRelation)> = Vec::new();
        relations.extend(self.relations.into_iter().map(|relation| (Level::Document, relation)));
        // Where each mention stands.
        let mut levels: Vec<Level> = Vec::new();
        for passage in self.passages {
            let index = document.passages.len();
            let has_text = passage.text.as_ref().is_some_and(|text| !text.is_empty());
            let mut blocks = Vec::new();
            let in_sentences = !has_text && !passage.sentences.is_empty();
            if !in_sentences {
                blocks.push(RawBlock {
                    text: passage.text.unwrap_or_default(),
                    offset: passage.offset,
                });
            }
            // Of a passage whose text stands in its sentences wherever the offsets lie.
            let home = (!in_sentences).then_some((index, 0));
            add_mentions(&mut document.mentions, passage.annotations, home);
            levels.resize(document.mentions.len(), Level::Passage(index));
            let of_passage = passage.relations.into_iter();
            relations.extend(of_passage.map(|relation| (Level::Passage(index), relation)));
            for (number, sentence) in passage.sentences.into_iter().enumerate() {
                let (level, block) = (Level::Sentence(index, number), if in_sentences { number } else { 0 });
                add_mentions(&mut document.mentions, sentence.annotations, Some((index, block)));
                levels.resize(document.mentions.len(), level);
                relations.extend(sentence.relations.into_iter().map(|relation| (level, relation)));
                if in_sentences {
                    blocks.push(RawBlock {
                        text: sentence.text.unwrap_or_default(),
                        offset: sentence.offset,
                    });
                }
            }
            document.passages.push(RawPassage {
                section: section(&passage.infons),
                blocks_are_sentences: in_sentences,
                blocks,
            });
        }
        add_mentions(&mut document.mentions, self.annotations, None);
        levels.resize(document.mentions.len(), Level::Document);
        name_by_level(&mut document.mentions, &levels, &mut relations);
        let kinds: BTreeSet<String> = document.mentions.iter().map(|mention| plain(&mention.kind)).collect();
        let mut ids: HashSet<String> = relations.iter().map(|(_, relation)| relation.id.clone()).collect();
        document.mentions.iter().for_each(|mention| {
            ids.remove(&mention.key);
        });
        let mut paired = PairedEnds::default();
        for (_, relation) in relations {
            match relation.into_raw(&kinds, &ids, &mut paired) {
                Ok(pairs) if pairs.is_empty() => document.other_relations += 1,
                Ok(pairs) => document.relations.extend(pairs),
                Err((kind, message)) => {
                    document.lost_relations.push(kind);
                    let place = Place {
                        document: document.id.clone(),
                        ..document.place.clone()
                    };
                    report.report(Problem::new(place, Reason::DanglingRelation, message))?;
                }
            }
        }
        Ok(Ok(document))
    }
}

/// Where an annotation or a relation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Level {
    Document,
    Passage(usize),
    /// Of a passage.
    Sentence(usize, usize),
}

impl Level {
    /// This, and what it stands in, but for the document.
    fn and_above(self) -> impl Iterator<Item = Self> {
        let passage = match self {
            Level::Document => None,
            Level::Passage(passage) | Level::Sentence(passage, _) => Some(Level::Passage(passage)),
        };
        let sentence = matches!(self, Level::Sentence(..)).then_some(self);
        sentence.into_iter().chain(passage)
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Level::Document => f.write_str("the document"),
            Level::Passage(passage) => write!(f, "passage {}", passage + 1),
            Level::Sentence(passage, sentence) => write!(f, "sentence {} of passage {}", sentence + 1, passage + 1),
        }
    }
}

/// Identifiers may begin anew in each passage, and in each sentence: a relation that stands in one means its own. Where the
/// identifier comes elsewhere too, the annotation gets one that tells its place, and the relation's node names that.
fn name_by_level(mentions: &mut [RawMention], levels: &[Level], relations: &mut [(Level, BiocRelation)]) {
    if relations.iter().all(|(level, _)| *level == Level::Document) {
        return;
    }
    let mut count: HashMap<&str, usize> = HashMap::new();
    // None where a place has it twice.
    let mut own: HashMap<(Level, &str), Option<usize>> = HashMap::new();
    for (index, (mention, level)) in mentions.iter().zip(levels).enumerate() {
        *count.entry(&mention.key).or_default() += 1;
        for level in level.and_above() {
            let known = own.entry((level, &mention.key));
            known.and_modify(|known| *known = None).or_insert(Some(index));
        }
    }
    let mut named: BTreeMap<usize, String> = BTreeMap::new();
    for (level, relation) in relations {
        for node in &mut relation.nodes {
            let is_repeated = count.get(&*node.refid).is_some_and(|&count| count > 1);
            // The nearest that has it at all.
            let nearest = level.and_above().find_map(|level| own.get(&(level, &*node.refid)));
            if let Some(index) = nearest.copied().flatten().filter(|_| is_repeated) {
                let name = format!("{} of {}", node.refid, levels[index]);
                node.refid.clone_from(&name);
                named.insert(index, name);
            }
        }
    }
    for (index, name) in named {
        mentions[index].aliases.push(name);
    }
}

fn section(infons: &json::Infons) -> Option<String> {
    let names = ["section_type", "section", "type", "section_title_1"];
    let value = names.iter().find_map(|name| infons.get(name)).map(str::trim);
    value.filter(|value| !value.is_empty()).map(str::to_owned)
}

fn add_mentions(mentions: &mut Vec<RawMention>, annotations: Vec<BiocAnnotation>, home: Option<(usize, usize)>) {
    for annotation in annotations {
        let infons = &annotation.infons;
        let concepts = infons
            .iter()
            .filter(|(key, _)| CONCEPT_KEYS.contains(&plain(key).as_str()));
        let concepts = concepts.map(|(_, value)| value).collect::<Vec<_>>().join("|");
        let composite = match infons.get("CompositeRole").map(str::trim) {
            Some("CompositeMention") => Composite::Whole,
            Some("IndividualMention") => Composite::Part,
            _ => Composite::No,
        };
        mentions.push(RawMention {
            line: 0,
            home,
            // A location without numbers, or one past the end of all numbers, lies outside of every text.
            spans: annotation
                .locations
                .iter()
                .map(|location| {
                    let start = location.offset.unwrap_or(NOWHERE);
                    (start, start.saturating_add(location.length.unwrap_or(1)))
                })
                .collect(),
            text: annotation.text,
            kind: infons.get("type").unwrap_or_default().trim().to_owned(),
            concepts: split_concepts(&concepts),
            key: annotation.id,
            aliases: Vec::new(),
            composite,
        });
    }
}

impl BiocRelation {
    /// Each two of its ends, as brat's events have it; none of a relation of one mention (a negation, a status) or of
    /// `relations`, which relates no two mentions. An error gives its type, and says that it has no ends, or too many.
    fn into_raw(
        self,
        kinds: &std::collections::BTreeSet<String>,
        relations: &HashSet<String>,
        paired: &mut PairedEnds,
    ) -> Result<Vec<RawRelation>, (String, String)> {
        let infons = &self.infons;
        let names = ["relation", "type", "relationtype", "predicate", "label"];
        let called = |name: &str| infons.iter().find(|(key, _)| plain(key) == name);
        let kind = names
            .iter()
            .find_map(|name| called(name))
            .map_or("", |(_, value)| value)
            .trim()
            .to_owned();
        let pair = |one: Option<&str>, other: Option<&str>| {
            Some([one?, other?].map(|end| RawEndpoint::Concepts(role(end).to_owned())))
        };
        let ends = [("entity1", "entity2"), ("role1", "role2"), ("arg1", "arg2")];
        let named = ends
            .iter()
            .find_map(|(one, other)| pair(infons.get(one), infons.get(other)));
        let by_type = || {
            // As in BC5CDR, where the infons of a relation are called like the types of what it relates.
            let mut ends = infons
                .iter()
                .filter(|(key, _)| kinds.contains(&plain(key)))
                .map(|(_, value)| value);
            pair(ends.next(), ends.next())
        };
        let qualified = infons.iter().any(|(name, value)| qualifies(name, Some(value)));
        let related = |ends| RawRelation {
            line: 0,
            kind: kind.clone(),
            ends,
            qualified,
        };
        if let Some(ends) = named.or_else(by_type) {
            return Ok(vec![related(ends)]);
        }
        let nodes = &self.nodes;
        if nodes.len() == 1 || nodes.iter().any(|node| relations.contains(&node.refid)) {
            return Ok(Vec::new());
        }
        if nodes.is_empty() {
            let message = format!(
                "{} relation: expected two ends, as nodes or infons, found none",
                quoted(&kind)
            );
            return Err((kind, message));
        }
        if let Some(reason) = paired.refuse(nodes.len(), "nodes") {
            let message = format!("{} relation: {reason}", quoted(&kind));
            return Err((kind, message));
        }
        let end = |node: &BiocNode| RawEndpoint::Mention(node.refid.clone());
        let mut pairs = Vec::new();
        for (i, one) in nodes.iter().enumerate() {
            pairs.extend(nodes[i + 1..].iter().map(|other| related([end(one), end(other)])));
        }
        Ok(pairs)
    }
}

/// The identifier of a PubTator3 role such as `Chemical|MESH:D001`.
fn role(value: &str) -> &str {
    match value.split_once('|') {
        Some((kind, identifier)) if kind.bytes().all(|byte| byte.is_ascii_alphabetic()) => identifier,
        _ => value,
    }
}

#[cfg(test)]
mod tests;

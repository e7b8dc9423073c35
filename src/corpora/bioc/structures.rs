//! BioC's structures as files state them, and what each document of them comes to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Deserialize;

use super::values;
use crate::corpora::document::{
    Composite, LONGEST_ID, NOWHERE, PairedEnds, RawBlock, RawDocument, RawEndpoint, RawMention, RawPassage,
    RawRelation, qualifies, split_concepts,
};
use crate::corpora::options::plain;
use crate::corpora::report::{CorpusError, Place, Problem, Reason, Report};
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BiocDocument {
    #[serde(deserialize_with = "values::text")]
    pub id: String,
    #[serde(deserialize_with = "values::list")]
    pub passages: Vec<BiocPassage>,
    /// Of no passage: they are where their offsets are.
    #[serde(deserialize_with = "values::list")]
    pub annotations: Vec<BiocAnnotation>,
    #[serde(deserialize_with = "values::list")]
    pub relations: Vec<BiocRelation>,
}

/// A passage, or a sentence of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BiocPassage {
    pub infons: values::Infons,
    #[serde(deserialize_with = "values::number")]
    pub offset: Option<u64>,
    #[serde(deserialize_with = "values::optional_text")]
    pub text: Option<String>,
    #[serde(deserialize_with = "values::list")]
    pub sentences: Vec<BiocPassage>,
    #[serde(deserialize_with = "values::list")]
    pub annotations: Vec<BiocAnnotation>,
    #[serde(deserialize_with = "values::list")]
    pub relations: Vec<BiocRelation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BiocAnnotation {
    #[serde(deserialize_with = "values::text")]
    pub id: String,
    pub infons: values::Infons,
    #[serde(deserialize_with = "values::list")]
    pub locations: Vec<BiocLocation>,
    #[serde(deserialize_with = "values::optional_text")]
    pub text: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BiocLocation {
    #[serde(deserialize_with = "values::number")]
    pub offset: Option<u64>,
    #[serde(deserialize_with = "values::number")]
    pub length: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct BiocRelation {
    #[serde(deserialize_with = "values::text")]
    pub id: String,
    pub infons: values::Infons,
    #[serde(deserialize_with = "values::list")]
    pub nodes: Vec<BiocNode>,
}

#[derive(Debug, Default, Deserialize)]
pub struct BiocNode {
    #[serde(default, deserialize_with = "values::text")]
    pub refid: String,
}

impl BiocDocument {
    /// What it states. The inner error says why this is no document; what is lost within one goes to `report`.
    pub fn into_raw(self, place: Place, report: &mut dyn Report) -> Result<Result<RawDocument, String>, CorpusError> {
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
        // Identifiers of relations may be missing, and a node that names nothing names none of those.
        let ids = relations.iter().map(|(_, relation)| relation.id.clone());
        let mut ids: HashSet<String> = ids.filter(|id| !id.is_empty()).collect();
        document.mentions.iter().for_each(|mention| {
            ids.remove(&mention.key);
        });
        let mut paired = PairedEnds::default();
        for (_, relation) in relations {
            match relation.into_raw(&kinds, &ids, &mut paired) {
                Ok(Meaning::Pairs(pairs)) => document.relations.extend(pairs),
                Ok(Meaning::OfOne) => document.other_relations += 1,
                Ok(Meaning::OfRelations(kind)) => document.lost_relations.push(kind),
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

fn section(infons: &values::Infons) -> Option<String> {
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

/// What a relation says.
enum Meaning {
    /// Each two of its ends, as brat's events have it.
    Pairs(Vec<RawRelation>),
    /// Something of one mention (a negation, a status).
    OfOne,
    /// Something of this type of other relations, so that it is not known which mentions it relates.
    OfRelations(String),
}

impl BiocRelation {
    /// What it says; `relations` are the identifiers of relations. An error gives its type, and says that it has no ends, or too
    /// many.
    fn into_raw(
        self,
        kinds: &std::collections::BTreeSet<String>,
        relations: &HashSet<String>,
        paired: &mut PairedEnds,
    ) -> Result<Meaning, (String, String)> {
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
            return Ok(Meaning::Pairs(vec![related(ends)]));
        }
        let nodes = &self.nodes;
        if nodes.len() == 1 {
            return Ok(Meaning::OfOne);
        }
        if nodes.iter().any(|node| relations.contains(&node.refid)) {
            return Ok(Meaning::OfRelations(kind));
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
        Ok(Meaning::Pairs(pairs))
    }
}

/// The identifier of a PubTator3 role such as `Chemical|MESH:D001`.
fn role(value: &str) -> &str {
    match value.split_once('|') {
        Some((kind, identifier)) if kind.bytes().all(|byte| byte.is_ascii_alphabetic()) => identifier,
        _ => value,
    }
}

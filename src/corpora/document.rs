//! The one model of an annotated document: as a corpus states it, and as it is after checking.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use super::report::{CorpusError, Place, Report};

/// Gives one document after another, as stated.
pub(super) trait Documents {
    /// The next document, none at the end. What is malformed is reported; an error ends the run.
    fn next_document(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<RawDocument>, CorpusError>;
}

/// A document as its corpus states it: offsets are claims, in a unit that is not known yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawDocument {
    pub id: String,
    pub place: Place,
    pub passages: Vec<RawPassage>,
    pub mentions: Vec<RawMention>,
    pub relations: Vec<RawRelation>,
    /// Types of relations that the adapter has reported already; empty where it is not known.
    pub lost_relations: Vec<String>,
    /// Relations that relate no two mentions: of one mention, or of relations and events.
    pub other_relations: u64,
    /// Keys of annotations that are no mentions but say where an event is.
    pub triggers: Vec<String>,
    /// Keys of mentions that are aliases of each other.
    pub equivalents: Vec<Vec<String>>,
}

/// A title, an abstract, a paragraph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawPassage {
    pub section: Option<String>,
    /// One block, or one for each sentence where the corpus splits sentences itself.
    pub blocks: Vec<RawBlock>,
    /// The blocks are the corpus' own sentences: no other boundaries are looked for.
    pub blocks_are_sentences: bool,
}

/// A piece of text with its offset in the document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawBlock {
    pub text: String,
    /// None: one unit after the end of the block before, 0 for the first.
    pub offset: Option<u64>,
}

/// What offsets count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    CodePoint,
    Utf16,
    Byte,
}

impl Unit {
    /// Of the text.
    pub fn length(self, text: &str) -> u64 {
        let length = match self {
            Unit::CodePoint => text.chars().count(),
            Unit::Utf16 => text.encode_utf16().count(),
            Unit::Byte => text.len(),
        };
        length as u64
    }

    pub fn name(self) -> &'static str {
        match self {
            Unit::CodePoint => "code_point",
            Unit::Utf16 => "utf16",
            Unit::Byte => "byte",
        }
    }
}

/// The offset of a mention that states none: it lies outside of every text.
pub const NOWHERE: u64 = u64::MAX - 1;

/// The bytes of a document's id at most: each message and each record has it.
pub const LONGEST_ID: usize = 1000;

/// Counts what a document's relations and events of several ends relate, each two of them: a few kilobytes should not
/// become millions of pairs.
#[derive(Debug, Default)]
pub struct PairedEnds(usize);

impl PairedEnds {
    /// Of one relation or event.
    const MOST_ENDS: usize = 16;
    /// Of all that have more than two ends.
    const MOST_PAIRS: usize = 1_000_000;

    /// Why one of so many `ends` cannot be taken too, if so; `what`: what its format calls them.
    pub fn refuse(&mut self, ends: usize, what: &str) -> Option<String> {
        let (most_ends, most_pairs) = (Self::MOST_ENDS, Self::MOST_PAIRS);
        if ends > most_ends {
            return Some(format!("expected at most {most_ends} {what}, found {ends}"));
        }
        if ends > 2 {
            self.0 += ends * (ends - 1) / 2;
        }
        (ends > 2 && self.0 > most_pairs).then(|| {
            format!("expected at most {most_pairs} pairs of what more than two {what} relate in a document, found more")
        })
    }
}

/// An annotated mention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawMention {
    /// Line in the file, 0 where there is none to name.
    pub line: u64,
    /// Passage and block that it was annotated in; none: wherever its offsets lie.
    pub home: Option<(usize, usize)>,
    /// `[start, end)` in the document, in the order stated; several for a discontinuous mention.
    pub spans: Vec<(u64, u64)>,
    /// The words that the corpus says are there.
    pub text: Option<String>,
    pub kind: String,
    pub concepts: Vec<String>,
    /// What relations call it; empty where they do not.
    pub key: String,
    /// Keys of annotations that it stands for.
    pub aliases: Vec<String>,
    pub composite: Composite,
}

/// "liver and kidney damage": one composite mention that may be annotated again as its two parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Composite {
    #[default]
    No,
    Whole,
    Part,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RawRelation {
    pub line: u64,
    pub kind: String,
    pub ends: [RawEndpoint; 2],
    /// Negated or speculated: it states no cause.
    pub qualified: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RawEndpoint {
    /// One or more concept identifiers, as written.
    Concepts(String),
    /// The key of a mention; a concept identifier where no mention has that key.
    Mention(String),
}

/// A document after checking: each mention's bytes are in its passage and hold the words that the corpus gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub id: String,
    pub place: Place,
    pub passages: Vec<Passage>,
    pub mentions: Vec<Mention>,
    pub relations: Vec<Relation>,
    /// Mentions that are aliases of an earlier one, and that one.
    pub aliases: BTreeMap<usize, usize>,
    /// Types of relations that the corpus states, of which it is not known what they relate.
    pub unresolved_relations: BTreeSet<String>,
    /// The corpus states at least one relation for this document, resolved or not, of whatever type.
    pub has_relations: bool,
}

impl Document {
    /// The mention that stands for this one and its aliases.
    pub fn first_alias(&self, mention: usize) -> usize {
        self.aliases.get(&mention).copied().unwrap_or(mention)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    pub section: Option<String>,
    pub text: String,
    /// Offset in the document, in code points. Passages never overlap.
    pub start: u64,
    /// The corpus' own sentences as bytes of `text`, where it has them.
    pub sentences: Option<Vec<Range<usize>>>,
    /// From these bytes of `text` on, how many more code points the document has before them than `text`: its sentences lie
    /// further apart than those of `text`. Ascending.
    pub gaps: Vec<(usize, u64)>,
}

impl Passage {
    /// Where a place in the text is in the document, in code points. `code_point`: its number in the text.
    pub fn in_document(&self, byte: usize, code_point: u64) -> u64 {
        let before = self.gaps.partition_point(|gap| gap.0 <= byte);
        let gap = before.checked_sub(1).map_or(0, |last| self.gaps[last].1);
        self.start + code_point + gap
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Mention {
    pub passage: usize,
    /// Bytes of the passage's text, ascending, not overlapping; several for a discontinuous mention.
    pub fragments: Vec<Range<usize>>,
    pub kind: String,
    pub concepts: Vec<String>,
}

impl Mention {
    /// From the first fragment's start to the last one's end.
    pub fn hull(&self) -> Range<usize> {
        hull(&self.fragments)
    }
}

pub(super) fn hull(fragments: &[Range<usize>]) -> Range<usize> {
    match (fragments.first(), fragments.last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    pub kind: String,
    pub ends: [Endpoint; 2],
    /// Negated or speculated: it states no cause.
    pub qualified: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Concepts(Vec<String>),
    /// Index into the document's mentions.
    Mention(usize),
}

/// Whether an attribute of a relation says that it is denied or not certain: `Negated`, `speculation: true`,
/// `polarity: negative`.
pub fn qualifies(name: &str, value: Option<&str>) -> bool {
    let begins = |text: &str, stem: &str| {
        text.get(..stem.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(stem))
    };
    let says_no = |value: &str| {
        let nothing = [
            "",
            "-",
            "0",
            "n",
            "no",
            "none",
            "false",
            "n/a",
            "na",
            "null",
            "affirmed",
            "asserted",
            "positive",
            "not negated",
            "not_negated",
        ];
        let is_no = nothing.contains(&value.to_ascii_lowercase().as_str());
        // What is no yes or no, but a measure.
        is_no || value.parse::<f64>().is_ok_and(|number| number != 1.0)
    };
    let value = value.map(str::trim);
    match ["negat", "specul", "uncertain"].iter().any(|stem| begins(name, stem)) {
        true => !value.is_some_and(says_no),
        false => name.eq_ignore_ascii_case("polarity") && value.is_some_and(|value| begins(value, "negat")),
    }
}

/// The identifiers in a field such as `D1|D2`, without those that say "none" (`-1`, `UMLS:CUI-less`), each once.
pub fn split_concepts(field: &str) -> Vec<String> {
    let mut known = HashSet::new();
    let concepts = field.split(['|', ';', ',', '+']).map(str::trim);
    let concepts = concepts.filter(|concept| !says_none(concept) && known.insert(*concept));
    concepts.map(str::to_owned).collect()
}

/// Whether an identifier says that there is none, with or without its vocabulary's name before it. Two mentions that
/// have none do not share one.
fn says_none(concept: &str) -> bool {
    let bare = concept.rsplit_once(':').map_or(concept, |(_, bare)| bare).trim();
    let letters: String = bare.chars().filter(|c| c.is_alphanumeric()).collect();
    let words = [
        "",
        "cuiless",
        "conceptless",
        "na",
        "nan",
        "nil",
        "none",
        "null",
        "unknown",
    ];
    bare == "-1" || words.contains(&&*letters.to_lowercase())
}

/// An identifier as it is compared: `MESH:D001` and `D001` are one, whichever form a corpus uses where.
pub fn bare_concept(concept: &str) -> &str {
    match concept.get(..5) {
        Some(prefix) if prefix.eq_ignore_ascii_case("mesh:") => &concept[5..],
        _ => concept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_split_and_those_that_say_none_left_out() {
        assert_eq!(split_concepts("D1|D2"), ["D1", "D2"]);
        assert_eq!(split_concepts(" MESH:D1; D2,D1+D2"), ["MESH:D1", "D2", "D1"]);
        for none in [
            "-1",
            "-",
            "",
            " | -1 |",
            "MESH:-1",
            "UMLS:CUI-less",
            "CONCEPT_LESS",
            "None",
            "N/A",
            "null",
            "OMIM:nil",
        ] {
            assert!(split_concepts(none).is_empty(), "{none}");
        }
        assert_eq!(split_concepts("MESH:1|C-1|0"), ["MESH:1", "C-1", "0"]);
        assert_eq!(bare_concept("mesh:D1"), bare_concept("D1"));
        assert_ne!(bare_concept("OMIM:1"), bare_concept("1"));
    }

    #[test]
    fn attributes_say_that_a_relation_is_denied_or_uncertain_unless_their_value_says_no() {
        for (name, value) in [
            ("Negated", None),
            ("negation", Some("true")),
            ("SPECULATION", Some("1")),
            ("uncertainty", Some("Probable")),
            ("Polarity", Some("Negative")),
        ] {
            assert!(qualifies(name, value), "{name} {value:?}");
        }
        for (name, value) in [
            ("negated", Some(" False ")),
            ("negation", Some("affirmed")),
            ("negation", Some("Not negated")),
            ("speculation", Some("N/A")),
            ("negative_score", Some("0.25")),
            ("polarity", Some("positive")),
            ("polarity", None),
            ("nega", None),
            ("certainty", Some("uncertain")),
        ] {
            assert!(!qualifies(name, value), "{name} {value:?}");
        }
    }
}

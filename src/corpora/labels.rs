//! What a document's relations say of a drug and a reaction.
//!
//! A relation relates the two mentions that it names, or all mentions of the two concepts, anywhere in the document.
//!
//! Where it names mentions, others of the same two names are left unnamed, not denied: "quinine … thrombocytopenia …
//! quinine-dependent thrombocytopenia" is annotated once. A pair that is called as a related one is, so, never unrelated:
//! where its text holds the related one, the text says of both that this drug caused this reaction; elsewhere in the
//! document nothing is known. Two mentions are called alike if they have the same words, whatever their case, or the same
//! identifiers.
//!
//! A negated or speculated relation states no cause: of pairs that only such ones name, by mentions or by names, nothing
//! is known.
//!
//! Where it is not known what a relation relates, it may be any pair of its document: none is unrelated.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::candidates::{Candidate, Key};
use super::document::{Document, Endpoint, Relation, bare_concept};
use super::options::Options;

/// A passage and a byte of it.
pub(super) type Position = (usize, usize);

/// What a drug and a reaction are called.
type Names = (usize, usize);

/// What is said of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Related,
    /// The text holds a related pair that is called alike.
    RelatedByName,
    Unrelated,
    Unknown(Unlabelled),
}

impl Verdict {
    pub fn label(self) -> Option<bool> {
        match self {
            Verdict::Related | Verdict::RelatedByName => Some(true),
            Verdict::Unrelated => Some(false),
            Verdict::Unknown(_) => None,
        }
    }
}

/// Why a pair has no label though its document has relations. The names are part of the summary's format and never
/// change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unlabelled {
    /// A pair of the same two names is related elsewhere in the document.
    RelatedElsewhere,
    /// A relation of the two, or of their names, is negated or speculated.
    QualifiedRelation,
    /// The document has a relation of which it is not known what it relates.
    UnresolvedRelation,
}

impl Unlabelled {
    pub fn name(self) -> &'static str {
        match self {
            Unlabelled::RelatedElsewhere => "related_elsewhere",
            Unlabelled::QualifiedRelation => "negated_or_speculated",
            Unlabelled::UnresolvedRelation => "unresolved_relation",
        }
    }
}

/// What the relations that name the two say.
#[derive(Clone, Copy, Default)]
struct Found {
    is_related: bool,
    is_qualified: bool,
}

/// Pairs of keys of which [`Found`] is remembered at a time.
const MOST_FOUND: usize = 1 << 16;
/// Of two candidates with more pairs of keys all are looked for at once.
const MOST_EACH: usize = 64;

/// The chosen relations of a document.
pub(super) struct Stated<'a> {
    /// Where relations name what: each key with its relations and which end of them it is, ascending. As large as the
    /// relations themselves, where a table of all related pairs would be their square.
    ends: HashMap<Key<'a>, Vec<(usize, bool)>>,
    /// Which relations are negated or speculated.
    qualified: Vec<bool>,
    /// Which relations [`Stated::of`] was asked for a pair of.
    realised: Vec<bool>,
    /// What was found between two [`Candidate::named_keys`].
    found: HashMap<(usize, usize), Found>,
    /// What was found between two keys, which many candidates may share.
    found_of_keys: HashMap<[Key<'a>; 2], Found>,
    by_name: HashMap<Names, Places>,
    /// What negated and speculated relations name.
    qualified_names: HashSet<Names>,
    has_unresolved: bool,
}

impl<'a> Stated<'a> {
    /// Gives the candidates their names, too.
    pub fn new(
        document: &'a Document,
        options: &Options,
        drugs: &mut [Candidate<'a>],
        adrs: &mut [Candidate<'a>],
    ) -> Self {
        let chosen = document.relations.iter();
        let chosen: Vec<&Relation> = chosen.filter(|relation| options.chooses(&relation.kind)).collect();
        let mut ends: HashMap<Key<'a>, Vec<(usize, bool)>> = HashMap::new();
        for (index, relation) in chosen.iter().enumerate() {
            for (end, second) in [(&relation.ends[0], false), (&relation.ends[1], true)] {
                let mut add = |key| ends.entry(key).or_default().push((index, second));
                match end {
                    Endpoint::Concepts(concepts) => {
                        concepts
                            .iter()
                            .for_each(|concept| add(Key::Concept(bare_concept(concept))));
                    }
                    Endpoint::Mention(mention) => add(Key::Mention(document.first_alias(*mention))),
                }
            }
        }
        let mut by_name: HashMap<Names, Places> = HashMap::new();
        let mut qualified_names = HashSet::new();
        for named in named(document, &chosen, drugs, adrs) {
            for names in named.names {
                if named.qualified {
                    qualified_names.insert(names);
                } else {
                    by_name.entry(names).or_default().0.push(named.place);
                }
            }
        }
        by_name.values_mut().for_each(Places::sort);
        let mut numbers: HashMap<Vec<Key<'a>>, usize> = HashMap::from([(Vec::new(), 0)]);
        for candidate in drugs.iter_mut().chain(adrs.iter_mut()) {
            let mut keys: Vec<Key<'a>> = candidate.keys.iter().copied().collect();
            keys.retain(|key| ends.contains_key(key));
            keys.sort_unstable();
            let next = numbers.len();
            candidate.named_keys = *numbers.entry(keys).or_insert(next);
        }
        let mut unresolved = document.unresolved_relations.iter();
        Self {
            ends,
            qualified: chosen.iter().map(|relation| relation.qualified).collect(),
            realised: vec![false; chosen.len()],
            found: HashMap::new(),
            found_of_keys: HashMap::new(),
            by_name,
            qualified_names,
            has_unresolved: unresolved.any(|kind| kind.is_empty() || options.chooses(kind)),
        }
    }

    /// What is said of a drug and a reaction whose text reaches from one position to another.
    pub fn of(&mut self, drug: &Candidate<'a>, adr: &Candidate<'a>, from: Position, to: Position) -> Verdict {
        let Found {
            is_related,
            is_qualified,
        } = self.found(drug, adr);
        if is_related {
            return Verdict::Related;
        }
        let places = || called(drug, adr).filter_map(|names| self.by_name.get(&names));
        if is_qualified {
            Verdict::Unknown(Unlabelled::QualifiedRelation)
        } else if places().any(|places| places.any_within(from, to)) {
            Verdict::RelatedByName
        } else if called(drug, adr).any(|names| self.qualified_names.contains(&names)) {
            Verdict::Unknown(Unlabelled::QualifiedRelation)
        } else if places().next().is_some() {
            Verdict::Unknown(Unlabelled::RelatedElsewhere)
        } else if self.has_unresolved {
            Verdict::Unknown(Unlabelled::UnresolvedRelation)
        } else {
            Verdict::Unrelated
        }
    }

    /// Marks the relations that name the two as realised.
    fn found(&mut self, drug: &Candidate<'a>, adr: &Candidate<'a>) -> Found {
        let keys = (drug.named_keys, adr.named_keys);
        if keys.0 == 0 || keys.1 == 0 {
            return Found::default();
        }
        // All mentions of two concepts have the same relations, of which there may be many.
        if let Some(found) = self.found.get(&keys) {
            return *found;
        }
        let named = |candidate: &Candidate<'a>| -> Vec<Key<'a>> {
            let keys = candidate.keys.iter().copied();
            keys.filter(|key| self.ends.contains_key(key)).collect()
        };
        let (ones, others) = (named(drug), named(adr));
        let found = match ones.len() * others.len() <= MOST_EACH {
            true => {
                let mut found = Found::default();
                for (one, other) in ones
                    .iter()
                    .flat_map(|one| others.iter().map(move |other| (*one, *other)))
                {
                    let of_keys = self.found_of_keys.get(&[one, other]).copied();
                    let of_keys = of_keys.unwrap_or_else(|| {
                        let of_keys = self.look(&[one], &[other]);
                        if self.found_of_keys.len() == MOST_FOUND {
                            self.found_of_keys.clear();
                        }
                        self.found_of_keys.insert([one, other], of_keys);
                        of_keys
                    });
                    found.is_related |= of_keys.is_related;
                    found.is_qualified |= of_keys.is_qualified;
                }
                found
            }
            false => self.look(&ones, &others),
        };
        if self.found.len() == MOST_FOUND {
            self.found.clear();
        }
        self.found.insert(keys, found);
        found
    }

    /// Looks at the relations that have one of the first keys at one end and one of the second at the other.
    fn look(&mut self, ones: &[Key<'a>], others: &[Key<'a>]) -> Found {
        let mut found = Found::default();
        for index in between(&self.ends, ones, others) {
            self.realised[index] = true;
            match self.qualified[index] {
                true => found.is_qualified = true,
                false => found.is_related = true,
            }
        }
        found
    }

    /// How many relations between a drug and a reaction no pair is of that was asked for. Negated and speculated ones ask
    /// for none.
    pub fn without_pair(&self, drugs: &[Candidate<'_>], adrs: &[Candidate<'_>]) -> u64 {
        if self.realised.is_empty() {
            return 0;
        }
        // Of each relation, whether its first and its second end are a drug, and a reaction.
        let mut are_drugs = vec![[false; 2]; self.realised.len()];
        let mut are_adrs = are_drugs.clone();
        for (candidates, ends) in [(drugs, &mut are_drugs), (adrs, &mut are_adrs)] {
            let keys: HashSet<Key<'_>> = candidates
                .iter()
                .flat_map(|candidate| candidate.keys.iter().copied())
                .collect();
            for &(index, second) in keys.iter().filter_map(|key| self.ends.get(key)).flatten() {
                ends[index][usize::from(second)] = true;
            }
        }
        let is_missed = |&index: &usize| {
            let ([drug, other_drug], [other_adr, adr]) = (are_drugs[index], are_adrs[index]);
            !self.realised[index] && !self.qualified[index] && (drug && adr || other_drug && other_adr)
        };
        (0..self.realised.len()).filter(is_missed).count() as u64
    }
}

/// The relations that have the one at one end and the other at the other, whichever way round.
fn between<'s>(
    ends: &'s HashMap<Key<'s>, Vec<(usize, bool)>>,
    one: &'s [Key<'s>],
    other: &'s [Key<'s>],
) -> impl Iterator<Item = usize> + 's {
    let lists = |keys: &'s [Key<'s>]| keys.iter().filter_map(|key| ends.get(key));
    let relations = |keys| lists(keys).map(Vec::len).sum::<usize>();
    // Gone through is the one with fewer.
    let (one, other) = match relations(one) <= relations(other) {
        true => (one, other),
        false => (other, one),
    };
    let mut others: Vec<Cow<'s, [(usize, bool)]>> = lists(other).map(|list| Cow::Borrowed(&**list)).collect();
    // A mention that is annotated a thousand times has as many lists: one to look in instead, where that is less to do.
    if relations(one).saturating_mul(others.len()) > relations(other) && others.len() > 1 {
        let mut all: Vec<_> = others.iter().flat_map(|list| list.iter().copied()).collect();
        all.sort_unstable();
        others = vec![Cow::Owned(all)];
    }
    lists(one)
        .flatten()
        .filter(move |&&(index, second)| others.iter().any(|ends| ends.binary_search(&(index, !second)).is_ok()))
        .map(|&(index, _)| index)
}

/// Each name of the one with each of the other: at most four.
fn called<'c>(drug: &'c Candidate<'_>, adr: &'c Candidate<'_>) -> impl Iterator<Item = Names> + 'c {
    let names = drug.names.iter();
    names.flat_map(|&drug| adr.names.iter().map(move |&adr| (drug, adr)))
}

/// From where to where the relations of two names reach, ascending by the first; the second is the least of its own and
/// all that follow.
#[derive(Default)]
struct Places(Vec<(Position, Position)>);

impl Places {
    fn any_within(&self, from: Position, to: Position) -> bool {
        let next = self.0.partition_point(|&(start, _)| start < from);
        self.0.get(next).is_some_and(|&(_, end)| end <= to)
    }

    fn sort(&mut self) {
        self.0.sort_unstable();
        let mut least = (usize::MAX, usize::MAX);
        for (_, end) in self.0.iter_mut().rev() {
            least = least.min(*end);
            *end = least;
        }
    }
}

/// A number for each name, one for those that are joined, in whatever order.
#[derive(Default)]
struct Numbers {
    of_names: HashMap<String, usize>,
    /// Of each number another that it is joined to, or itself.
    joined: Vec<usize>,
}

impl Numbers {
    fn of(&mut self, name: String) -> usize {
        let next = self.joined.len();
        let mut number = *self.of_names.entry(name).or_insert(next);
        if number == next {
            self.joined.push(next);
        }
        while self.joined[number] != number {
            // Halves the way for whoever comes next.
            self.joined[number] = self.joined[self.joined[number]];
            number = self.joined[number];
        }
        number
    }

    fn join(&mut self, one: String, other: String) {
        let (one, other) = (self.of(one), self.of(other));
        self.joined[one.max(other)] = one.min(other);
    }
}

/// What a relation between two mentions names, and from where to where they reach.
struct Named {
    names: Vec<Names>,
    place: (Position, Position),
    qualified: bool,
}

/// What relations between a drug and a reaction name that are mentions, not concepts. Gives the candidates their names.
fn named<'a>(
    document: &Document,
    chosen: &[&Relation],
    drugs: &mut [Candidate<'a>],
    adrs: &mut [Candidate<'a>],
) -> Vec<Named> {
    let mut named = Vec::new();
    let mentions = |relation: &Relation| match relation.ends {
        [Endpoint::Mention(one), Endpoint::Mention(other)] => Some([one, other]),
        _ => None,
    };
    if !chosen.iter().any(|relation| mentions(relation).is_some()) {
        return named;
    }
    let mut numbers = Numbers::default();
    let words_of = |mention: usize| {
        let mention = &document.mentions[mention];
        words(&document.passages[mention.passage].text, &mention.fragments)
    };
    // What aliases are called is one name.
    for (&alias, &first) in &document.aliases {
        numbers.join(words_of(alias), words_of(first));
    }
    for candidate in drugs.iter_mut().chain(adrs.iter_mut()) {
        let text = &document.passages[candidate.passage].text;
        candidate.names.push(numbers.of(words(text, candidate.fragments)));
        if !candidate.concepts.is_empty() {
            let mut concepts: Vec<&str> = candidate.concepts.iter().map(|id| bare_concept(id)).collect();
            concepts.sort_unstable();
            // No words have a line end.
            candidate.names.push(numbers.of(format!("\n{}", concepts.join("|"))));
        }
    }
    let (drugs, adrs) = (by_mention(drugs), by_mention(adrs));
    for relation in chosen {
        let Some([one, other]) = mentions(relation) else {
            continue;
        };
        let sides = |drug, adr| Some((*drugs.get(&drug)?, *adrs.get(&adr)?));
        let Some((drug, adr)) = sides(one, other).or_else(|| sides(other, one)) else {
            continue;
        };
        let start = |candidate: &Candidate<'_>| (candidate.passage, candidate.hull.start);
        let end = |candidate: &Candidate<'_>| (candidate.passage, candidate.hull.end);
        named.push(Named {
            names: called(drug, adr).collect(),
            place: (start(drug).min(start(adr)), end(drug).max(end(adr))),
            qualified: relation.qualified,
        });
    }
    named
}

/// As they are compared: in lower case, with one space between words.
fn words(text: &str, fragments: &[Range<usize>]) -> String {
    let fragments = fragments.iter().map(|range| &text[range.clone()]);
    let words: Vec<String> = fragments
        .flat_map(str::split_whitespace)
        .map(str::to_lowercase)
        .collect();
    words.join(" ")
}

fn by_mention<'c, 'a>(candidates: &'c [Candidate<'a>]) -> HashMap<usize, &'c Candidate<'a>> {
    let mut by_mention = HashMap::new();
    for candidate in candidates {
        by_mention.extend(candidate.mentions.iter().map(|&mention| (mention, candidate)));
    }
    by_mention
}

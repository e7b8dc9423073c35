//! Relations and equivalents between mentions that have been found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::corpora::document::{Endpoint, RawDocument, RawEndpoint, Relation, bare_concept, split_concepts};
use crate::corpora::report::{CorpusError, Problem, Reason, Report};
use crate::corpora::summary::Summary;
use crate::words::quoted;

/// Relations whose ends are mentions or identifiers that are there. The kinds of others are added to `unresolved`.
pub fn resolve_relations(
    raw: &mut RawDocument,
    keys: &HashMap<String, Option<usize>>,
    concepts: &HashSet<String>,
    unresolved: &mut BTreeSet<String>,
    summary: &mut Summary,
    report: &mut dyn Report,
) -> Result<Vec<Relation>, CorpusError> {
    let mut relations = Vec::with_capacity(raw.relations.len());
    'relations: for relation in std::mem::take(&mut raw.relations) {
        summary.relations += 1;
        summary.relation_types.add(&relation.kind);
        let mut ends = Vec::with_capacity(2);
        for end in &relation.ends {
            let of_concepts = |field: &str, expected: &str| {
                let named = split_concepts(field);
                match named.iter().any(|concept| concepts.contains(bare_concept(concept))) {
                    true => Ok(Endpoint::Concepts(named)),
                    false => Err(format!("{expected} {}, found none", quoted(field))),
                }
            };
            let end = match end {
                RawEndpoint::Concepts(field) => of_concepts(field, "a mention with the identifier"),
                RawEndpoint::Mention(key) => match keys.get(key) {
                    Some(Some(index)) => Ok(Endpoint::Mention(*index)),
                    Some(None) => Err(format!(
                        "one mention {}, found one that was left out, or several",
                        quoted(key)
                    )),
                    // BioC written from PubTator puts identifiers where references to annotations belong.
                    None => of_concepts(key, "a mention"),
                },
            };
            match end {
                Ok(end) => ends.push(end),
                Err(message) => {
                    let message = format!("{} relation: expected {message}", quoted(&relation.kind));
                    summary.relations_unresolved += 1;
                    report.report(Problem::new(
                        raw.place.at(relation.line),
                        Reason::DanglingRelation,
                        message,
                    ))?;
                    unresolved.insert(relation.kind);
                    continue 'relations;
                }
            }
        }
        if let Ok(ends) = <[Endpoint; 2]>::try_from(ends) {
            relations.push(Relation {
                kind: relation.kind,
                ends,
                qualified: relation.qualified,
            });
        }
    }
    Ok(relations)
}

/// Mentions of sets of equivalents, each with the first of its set; sets that share a mention are one.
pub fn aliases(sets: &[Vec<String>], keys: &HashMap<String, Option<usize>>) -> BTreeMap<usize, usize> {
    fn first(aliases: &mut BTreeMap<usize, usize>, mention: usize) -> usize {
        let mut first = mention;
        while let Some(&earlier) = aliases.get(&first) {
            first = earlier;
        }
        // So that chains stay short.
        let mut next = mention;
        while next != first {
            next = aliases.insert(next, first).unwrap_or(first);
        }
        first
    }
    let mut aliases = BTreeMap::new();
    for set in sets {
        let members = set.iter().filter_map(|key| keys.get(key).copied().flatten());
        members.reduce(|one, other| {
            let (one, other) = (first(&mut aliases, one), first(&mut aliases, other));
            if one != other {
                aliases.insert(one.max(other), one.min(other));
            }
            one.min(other)
        });
    }
    let mentions: Vec<usize> = aliases.keys().copied().collect();
    for mention in mentions {
        first(&mut aliases, mention);
    }
    aliases
}

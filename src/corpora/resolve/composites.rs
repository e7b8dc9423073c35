//! Composite mentions and their parts: one of the two stands for what a corpus annotates twice.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::corpora::document::{Composite, RawMention};
use crate::corpora::options::CompositeUse;
use crate::corpora::summary::Summary;

/// Leaves either composite mentions or their parts. What relations say of parts that are left out, they say of the whole.
pub fn choose_composites(mentions: &mut Vec<RawMention>, composite: CompositeUse, summary: &mut Summary) {
    let wholes = Wholes::of(mentions);
    let mut left_out = vec![false; mentions.len()];
    // By where parts are, so that many at one place are looked up once: the whole that stands for them.
    let mut whole_of: HashMap<Extent, Option<usize>> = HashMap::new();
    // What each whole names, while it is given its parts' names.
    let mut named: HashMap<usize, HashSet<String>> = HashMap::new();
    for part in 0..mentions.len() {
        if mentions[part].composite != Composite::Part {
            continue;
        }
        let at = extent(&mentions[part]);
        let whole = *whole_of.entry(at).or_insert_with(|| {
            let around = wholes.around(at);
            match composite {
                CompositeUse::Whole => around.filter_map(|wholes| wholes.first().copied()).min(),
                CompositeUse::Parts => {
                    for wholes in around {
                        // All of one place or none.
                        if wholes.first().is_some_and(|&first| !left_out[first]) {
                            wholes.iter().for_each(|&whole| left_out[whole] = true);
                        }
                    }
                    None
                }
            }
        });
        let Some(whole) = whole else { continue };
        left_out[part] = true;
        let key = std::mem::take(&mut mentions[part].key);
        let aliases = std::mem::take(&mut mentions[part].aliases);
        let concepts = std::mem::take(&mut mentions[part].concepts);
        let whole_mention = &mut mentions[whole];
        whole_mention.aliases.extend(Some(key).filter(|key| !key.is_empty()));
        whole_mention.aliases.extend(aliases);
        let named = named.entry(whole);
        let named = named.or_insert_with(|| whole_mention.concepts.iter().cloned().collect());
        let new = concepts.into_iter().filter(|concept| named.insert(concept.clone()));
        whole_mention.concepts.extend(new);
    }
    summary.composites_left_out += left_out.iter().filter(|&&left_out| left_out).count() as u64;
    let mut left_out = left_out.into_iter();
    mentions.retain(|_| !left_out.next().unwrap_or(false));
}

/// Where a mention begins and ends; offsets of two passages may both count from the passage, so with its passage.
type Extent = (Option<(usize, usize)>, u64, u64);

fn extent(mention: &RawMention) -> Extent {
    let start = mention.spans.iter().map(|span| span.0).min().unwrap_or(0);
    let end = mention.spans.iter().map(|span| span.1).max().unwrap_or(0);
    (mention.home, start, end)
}

/// Places of composite mentions among which those around a part are looked for: nobody nests more.
const MOST_AROUND: usize = 1000;

/// Composite mentions by where they are, those at one place in order.
struct Wholes {
    at: BTreeMap<Extent, At>,
}

#[derive(Default)]
struct At {
    wholes: Vec<usize>,
    /// How far these or any before them in their passage reach.
    reach: u64,
}

impl Wholes {
    fn of(mentions: &[RawMention]) -> Self {
        let mut at: BTreeMap<Extent, At> = BTreeMap::new();
        for (index, mention) in mentions.iter().enumerate() {
            if mention.composite == Composite::Whole {
                at.entry(extent(mention)).or_default().wholes.push(index);
            }
        }
        let mut before: Option<(Option<(usize, usize)>, u64)> = None;
        for (extent, at) in &mut at {
            let same_passage = before.filter(|before| before.0 == extent.0);
            at.reach = same_passage.map_or(extent.2, |(_, furthest)| furthest.max(extent.2));
            before = Some((extent.0, at.reach));
        }
        Self { at }
    }

    /// Those that hold all of `(home, start, end)`, of the nearest that begin before it.
    fn around(&self, (home, start, end): Extent) -> impl Iterator<Item = &Vec<usize>> {
        let begun = self.at.range((home, 0, 0)..=(home, start, u64::MAX)).rev();
        let near = begun.take(MOST_AROUND).take_while(move |(_, at)| at.reach >= end);
        near.filter(move |(extent, _)| extent.2 >= end)
            .map(|(_, at)| &at.wholes)
    }
}

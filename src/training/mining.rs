//! Negatives that the data does not have: pairs of contexts that are related nowhere in it.
//!
//! Of every related pair comes one negative. The recipe's `hard_ratio` says which share is hard, each of one of three kinds in
//! turn: the same drug's context with another reaction's, the same reaction's with another drug's, and one side with a
//! context that the encoder places near the other side. The others are two contexts drawn at random.

use std::collections::HashSet;

use super::{
    dataset::{Dataset, Example},
    random::Random,
    relations::Related,
};
use crate::Side;

/// How a negative was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    SameDrug,
    SameReaction,
    Similar,
    Random,
    /// Labelled so in the data, and sharing a context with the pair.
    Labelled,
}

/// A pair that is related nowhere, and the related pair that it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negative {
    /// A number into the positives.
    pub of: usize,
    pub drug: u32,
    pub adr: u32,
    pub kind: Kind,
}

/// For each text of a side, the texts of the other side that the encoder places nearest, best first, among
/// those it is not related to.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(pub [Vec<Vec<u32>>; 2]);

/// What negatives are made of.
pub struct Miner<'a> {
    pub data: &'a Dataset,
    pub positives: &'a [Example],
    pub related: &'a Related,
    pub hard_ratio: f64,
    pub neighbours: Option<&'a Neighbours>,
}

/// Draws before all contexts are gone through in order.
const DRAWS: usize = 64;

/// Names of a side (0: drugs) that are related to every context of the other, as far as that has been found out: where all data
/// is of one drug, each of its contexts would be held against all others.
type RelatedToAll<'a> = HashSet<(usize, &'a [u32])>;

impl<'a> Miner<'a> {
    /// Whether the data has any negative.
    pub fn finds_any(&self, random: &mut Random) -> bool {
        let mut related_to_all = RelatedToAll::new();
        (0..self.positives.len()).any(|of| self.negative(of, Kind::Random, random, &mut related_to_all).is_some())
    }

    /// One negative for each positive, as far as the data has any.
    pub fn mine(&self, random: &mut Random) -> Vec<Negative> {
        let mut order: Vec<usize> = (0..self.positives.len()).collect();
        random.shuffle(&mut order);
        let hard = (order.len() as f64 * self.hard_ratio).round() as usize;
        let kinds: &[Kind] = match self.neighbours {
            Some(_) => &[Kind::SameDrug, Kind::SameReaction, Kind::Similar],
            None => &[Kind::SameDrug, Kind::SameReaction],
        };
        let mut found: Vec<Negative> = Vec::with_capacity(order.len());
        let mut related_to_all = RelatedToAll::new();
        for (place, of) in order.into_iter().enumerate() {
            let kind = if place < hard {
                kinds[place % kinds.len()]
            } else {
                Kind::Random
            };
            found.extend(self.negative(of, kind, random, &mut related_to_all));
        }
        found.sort_by_key(|negative| negative.of);
        found
    }

    fn negative(
        &self,
        of: usize,
        kind: Kind,
        random: &mut Random,
        related_to_all: &mut RelatedToAll<'a>,
    ) -> Option<Negative> {
        let Example { drug, adr, .. } = self.positives[of];
        let with = |(drug, adr)| Negative { of, drug, adr, kind };
        match kind {
            Kind::SameDrug => {
                let other = self.other(Side::Adr, drug, random, related_to_all);
                other.map(|adr| with((drug, adr)))
            }
            Kind::SameReaction => {
                let other = self.other(Side::Drug, adr, random, related_to_all);
                other.map(|drug| with((drug, adr)))
            }
            Kind::Similar => {
                let side = if random.below(2) == 0 { Side::Drug } else { Side::Adr };
                let own = self.positives[of].of(side);
                let near = self.neighbours.and_then(|n| n.0[side as usize].get(own as usize));
                let near = near.filter(|near| !near.is_empty());
                match near.map(|near| near[random.below(near.len())]) {
                    Some(near) => Some(with(side.drug_first(own, near))),
                    None => self.negative(of, Kind::SameDrug, random, related_to_all),
                }
            }
            Kind::Random | Kind::Labelled => (0..DRAWS)
                .map(|_| (self.draw(Side::Drug, random), self.draw(Side::Adr, random)))
                .find(|pair| self.unrelated(*pair))
                .map(with)
                .or_else(|| self.negative(of, Kind::SameDrug, random, related_to_all)),
        }
    }

    /// The context of one of the positives, so that a context counts as often as the data has it.
    fn draw(&self, side: Side, random: &mut Random) -> u32 {
        self.positives[random.below(self.positives.len())].of(side)
    }

    /// A context of `side` that is not related to the other side's `own`.
    fn other(&self, side: Side, own: u32, random: &mut Random, related_to_all: &mut RelatedToAll<'a>) -> Option<u32> {
        let pair = |other| side.drug_first(other, own);
        for _ in 0..DRAWS {
            let other = self.draw(side, random);
            if self.unrelated(pair(other)) {
                return Some(other);
            }
        }
        let count = self.data.texts[side as usize].len();
        let start = random.below(count);
        let own_side = side.other();
        let names = (own_side as usize, &*self.data.text(own_side, own).entities);
        if related_to_all.contains(&names) {
            return None;
        }
        let mut all = (0..count).map(|i| ((start + i) % count) as u32);
        let found = all.find(|other| self.unrelated(pair(*other)));
        if found.is_none() {
            related_to_all.insert(names);
        }
        found
    }

    fn unrelated(&self, (drug, adr): (u32, u32)) -> bool {
        !self
            .related
            .contains(self.data.text(Side::Drug, drug), self.data.text(Side::Adr, adr))
    }
}

/// The `count` unrelated texts of the other side whose representations are nearest, for each text.
///
/// `representations`: `[N, F]` of each side, rows at length 1.
pub fn neighbours(
    data: &Dataset,
    related: &Related,
    representations: &[Vec<f32>; 2],
    width: usize,
    count: usize,
) -> Neighbours {
    use rayon::prelude::*;
    Neighbours(Side::BOTH.map(|side| {
        let other = side.other();
        let (own, others) = (&representations[side as usize], &representations[other as usize]);
        own.par_chunks_exact(width)
            .enumerate()
            .map(|(number, row)| {
                let is_related = |candidate: usize| {
                    let (drug, adr) = side.drug_first(number as u32, candidate as u32);
                    related.contains(data.text(Side::Drug, drug), data.text(Side::Adr, adr))
                };
                let mut scored: Vec<(f32, u32)> = others
                    .chunks_exact(width)
                    .enumerate()
                    .map(|(candidate, other)| (dot(row, other), candidate as u32))
                    .collect();
                nearest_unrelated(&mut scored, count, is_related)
            })
            .collect()
    }))
}

/// The `count` best of `scored` (score, candidate) that are not related, best first, of equals the first. All but as many of
/// the best as it takes stay unsorted. In a place of their own: collected in the place of `scored`, the few numbers of each text
/// would hold on to room for all texts of the other side.
fn nearest_unrelated(scored: &mut [(f32, u32)], count: usize, is_related: impl Fn(usize) -> bool) -> Vec<u32> {
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let (mut found, mut begin, mut share) = (Vec::with_capacity(count), 0, 2 * count.max(8));
    while begin < scored.len() && found.len() < count {
        let rest = &mut scored[begin..];
        let taken = share.min(rest.len());
        if taken < rest.len() {
            rest.select_nth_unstable_by(taken, order);
        }
        rest[..taken].sort_unstable_by(order);
        let unrelated = rest[..taken].iter().map(|&(_, candidate)| candidate);
        found.extend(
            unrelated
                .filter(|&candidate| !is_related(candidate as usize))
                .take(count - found.len()),
        );
        (begin, share) = (begin + taken, 4 * share);
    }
    found
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        lanes[i % 16] += a * b;
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::training::dataset::Text;

    /// `n` pairs over few entities, so that many are related more than once.
    fn data(n: usize, entities: usize, seed: u64) -> (Dataset, Vec<Example>, Related) {
        let mut random = Random::new(&[seed]);
        let mut data = Dataset::default();
        for i in 0..n as u32 {
            for side in Side::BOTH {
                data.texts[side as usize].push(Text {
                    token_ids: vec![2, 3],
                    entities: vec![(random.below(entities) + if side == Side::Drug { 0 } else { entities }) as u32],
                });
            }
            data.examples.push(Example {
                drug: i,
                adr: i,
                label: true,
            });
        }
        let positives = data.positives();
        let related = Related::of(&data);
        (data, positives, related)
    }

    proptest! {
        #[test]
        fn the_nearest_unrelated_are_those_of_all_in_order(
            scores in prop::collection::vec(prop_oneof![Just(f32::NAN), Just(-0.0), -2.0f32..2.0, (0u8..3).prop_map(f32::from)], 0..300),
            related in prop::collection::vec(any::<bool>(), 300),
            count in 0usize..40,
        ) {
            let mut scored: Vec<(f32, u32)> = scores.iter().copied().zip(0..).collect();
            let mut all = scored.clone();
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let expected: Vec<u32> = all
                .into_iter()
                .map(|(_, candidate)| candidate)
                .filter(|&candidate| !related[candidate as usize])
                .take(count)
                .collect();
            let found = nearest_unrelated(&mut scored, count, |candidate| related[candidate]);
            prop_assert_eq!(found.capacity(), count, "what is kept for each text must not grow with the others");
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_negative_is_related_anywhere(n in 1usize..60, entities in 1usize..12, seed in any::<u64>()) {
            let (data, positives, related) = data(n, entities, seed);
            let width = 4;
            let mut random = Random::new(&[seed, 1]);
            let reps = [(); 2].map(|()| (0..n * width).map(|_| random.normal() as f32).collect::<Vec<f32>>());
            let near = neighbours(&data, &related, &reps, width, 5);
            let miner = Miner { data: &data, positives: &positives, related: &related, hard_ratio: 0.5, neighbours: Some(&near) };
            let found = miner.mine(&mut random);
            for negative in &found {
                let (drug, adr) = (data.text(Side::Drug, negative.drug), data.text(Side::Adr, negative.adr));
                prop_assert!(!related.contains(drug, adr));
                let own = positives[negative.of];
                match negative.kind {
                    Kind::SameDrug => prop_assert_eq!(negative.drug, own.drug),
                    Kind::SameReaction => prop_assert_eq!(negative.adr, own.adr),
                    Kind::Similar => prop_assert!(negative.drug == own.drug || negative.adr == own.adr),
                    Kind::Random | Kind::Labelled => {}
                }
            }
            let once: HashSet<usize> = found.iter().map(|negative| negative.of).collect();
            prop_assert_eq!(once.len(), found.len(), "at most one a pair");
        }
    }

    #[test]
    fn half_are_hard_and_the_same_seed_gives_the_same() {
        let (data, positives, related) = data(300, 40, 1);
        let miner = Miner {
            data: &data,
            positives: &positives,
            related: &related,
            hard_ratio: 0.5,
            neighbours: None,
        };
        let found = miner.mine(&mut Random::new(&[5]));
        let count = |kind| found.iter().filter(|n| n.kind == kind).count();
        assert_eq!(
            [Kind::SameDrug, Kind::SameReaction, Kind::Random].map(count),
            [75, 75, 150]
        );
        assert_eq!(found, miner.mine(&mut Random::new(&[5])));
        assert_ne!(found, miner.mine(&mut Random::new(&[6])));
    }

    #[test]
    fn neighbours_are_the_nearest_unrelated() {
        let (data, _, related) = data(40, 8, 3);
        let mut random = Random::new(&[9]);
        let width = 6;
        let reps = [(); 2].map(|()| (0..40 * width).map(|_| random.normal() as f32).collect::<Vec<f32>>());
        let near = neighbours(&data, &related, &reps, width, 3);
        let row = |side: usize, i: usize| &reps[side][i * width..(i + 1) * width];
        for drug in 0..40u32 {
            let candidates =
                (0..40u32).filter(|adr| !related.contains(data.text(Side::Drug, drug), data.text(Side::Adr, *adr)));
            let mut scored: Vec<(f32, u32)> = candidates
                .map(|adr| {
                    let pairs = row(0, drug as usize).iter().zip(row(1, adr as usize));
                    (pairs.map(|(a, b)| a * b).sum(), adr)
                })
                .collect();
            scored.sort_by(|a, b| b.0.total_cmp(&a.0));
            let expected: Vec<u32> = scored.iter().take(3).map(|s| s.1).collect();
            assert_eq!(near.0[0][drug as usize], expected);
        }
    }

    #[test]
    fn where_everything_is_related_there_are_none() {
        let (data, positives, related) = data(10, 1, 1);
        let miner = Miner {
            data: &data,
            positives: &positives,
            related: &related,
            hard_ratio: 0.5,
            neighbours: None,
        };
        assert!(miner.mine(&mut Random::new(&[5])).is_empty());
    }
}

//! One window of lines: equal sequences found, the others cut into batches.
//!
//! Batches are packed, so there is nothing to gain from sorting by length: sequences go in the order
//! of their first use, which is the order in which the lines wait for them.

use std::collections::HashMap;

use crate::Side;

/// Sequences of a window, each with a number, equal ones only once.
#[derive(Default)]
pub struct Sequences {
    sequences: Vec<Sequence>,
    /// Numbers of those to encode, ascending.
    awaited: Vec<usize>,
}

/// What a sequence goes through: one side of one member of the ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoder {
    pub member: usize,
    pub side: Side,
}

impl Encoder {
    /// Numbers from 0, without gaps.
    fn number(self) -> usize {
        2 * self.member + self.side as usize
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Sequence {
    pub encoder: Encoder,
    pub token_ids: Vec<u32>,
}

/// Sequences of one encoder that are encoded together: numbers into [`Sequences`].
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub encoder: Encoder,
    pub members: Vec<usize>,
}

/// Below this many tokens a batch is not cut further to keep more workers busy.
const MIN_BATCH_TOKENS: usize = 256;

impl Sequences {
    /// Numbers the sequences; with `reuse`, equal ones of the same encoder get the same number.
    /// Returns the number of each sequence, in order.
    pub fn collect(sequences: Vec<Sequence>, reuse: bool) -> (Self, Vec<usize>) {
        if !reuse {
            let numbers = (0..sequences.len()).collect();
            return (Self::awaiting_all(sequences), numbers);
        }
        let mut first: HashMap<&Sequence, usize> = HashMap::with_capacity(sequences.len());
        let mut fresh = Vec::with_capacity(sequences.len());
        let mut numbers = Vec::with_capacity(sequences.len());
        for sequence in &sequences {
            let next = first.len();
            let number = *first.entry(sequence).or_insert(next);
            fresh.push(number == next);
            numbers.push(number);
        }
        drop(first);
        let sequences = sequences
            .into_iter()
            .zip(fresh)
            .filter_map(|(s, fresh)| fresh.then_some(s))
            .collect();
        (Self::awaiting_all(sequences), numbers)
    }

    fn awaiting_all(sequences: Vec<Sequence>) -> Self {
        let awaited = (0..sequences.len()).collect();
        Self { sequences, awaited }
    }

    /// Leaves those out of the batches whose representation is known.
    pub fn set_known(&mut self, is_known: impl Fn(usize) -> bool) {
        self.awaited.retain(|&number| !is_known(number));
    }

    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    pub fn encoder(&self, number: usize) -> Encoder {
        self.sequences[number].encoder
    }

    pub fn token_ids(&self, number: usize) -> &[u32] {
        &self.sequences[number].token_ids
    }

    /// Cuts the sequences to encode into batches of at most `budget_tokens` (or one sequence, if it is longer),
    /// smaller where fewer than `workers` batches would come of it, and about equally large: a last
    /// batch of a few sequences costs nearly as much as a full one.
    pub fn batches(&self, budget_tokens: usize, workers: usize) -> Vec<Batch> {
        // What is being gathered for each encoder, and its tokens: so far, and of all its sequences.
        let mut open: Vec<(Batch, usize)> = Vec::new();
        let mut encoder_tokens: Vec<usize> = Vec::new();
        for sequence in self.awaited.iter().map(|&number| &self.sequences[number]) {
            let number = sequence.encoder.number();
            for number in open.len()..=number {
                let encoder = Encoder {
                    member: number / 2,
                    side: Side::BOTH[number % 2],
                };
                let members = Vec::new();
                open.push((Batch { encoder, members }, 0));
                encoder_tokens.push(0);
            }
            encoder_tokens[number] += sequence.token_ids.len();
        }
        let total: usize = encoder_tokens.iter().sum();
        let budget_tokens = budget_tokens
            .min(total.div_ceil(workers.max(1)).max(MIN_BATCH_TOKENS))
            .max(1);
        // A batch that has reached its share is closed before the budget would close it.
        let share = |tokens: &usize| tokens.div_ceil(tokens.div_ceil(budget_tokens).max(1));
        let shares: Vec<usize> = encoder_tokens.iter().map(share).collect();
        let mut batches = Vec::new();
        for (number, sequence) in self.awaited.iter().map(|&number| (number, &self.sequences[number])) {
            let encoder = sequence.encoder.number();
            let (batch, tokens) = &mut open[encoder];
            let full = *tokens + sequence.token_ids.len() > budget_tokens || *tokens >= shares[encoder];
            if !batch.members.is_empty() && full {
                batches.push(Batch {
                    encoder: sequence.encoder,
                    members: std::mem::take(&mut batch.members),
                });
                *tokens = 0;
            }
            batch.members.push(number);
            *tokens += sequence.token_ids.len();
        }
        // The line that waits longest first.
        let mut rest: Vec<Batch> = open
            .into_iter()
            .map(|(batch, _)| batch)
            .filter(|b| !b.members.is_empty())
            .collect();
        rest.sort_by_key(|batch| batch.members[0]);
        batches.extend(rest);
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(side: Side, id: u32, length: usize) -> Sequence {
        of_member(0, side, id, length)
    }

    fn of_member(member: usize, side: Side, id: u32, length: usize) -> Sequence {
        Sequence {
            encoder: Encoder { member, side },
            token_ids: vec![id; length],
        }
    }

    #[test]
    fn members_of_an_ensemble_share_neither_sequences_nor_batches() {
        let all = (0..12)
            .map(|i| of_member(i / 2 % 3, Side::BOTH[i % 2], (i / 6) as u32, 100))
            .collect();
        let (sequences, numbers) = Sequences::collect(all, true);
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
        let batches = sequences.batches(1 << 20, 1);
        assert_eq!(batches.len(), 6);
        for (i, batch) in batches.iter().enumerate() {
            let encoder = Encoder {
                member: i / 2,
                side: Side::BOTH[i % 2],
            };
            assert_eq!((batch.encoder, &batch.members), (encoder, &vec![i, i + 6]));
        }
    }

    #[test]
    fn equal_sequences_of_one_side_get_one_number() {
        let all = || {
            vec![
                sequence(Side::Drug, 1, 3),
                sequence(Side::Adr, 1, 3),
                sequence(Side::Drug, 1, 3),
                sequence(Side::Adr, 2, 3),
                sequence(Side::Adr, 1, 3),
            ]
        };
        let (sequences, numbers) = Sequences::collect(all(), true);
        assert_eq!((sequences.len(), numbers), (3, vec![0, 1, 0, 2, 1]));
        assert_eq!(sequences.token_ids(2), [2, 2, 2]);
        let (sequences, numbers) = Sequences::collect(all(), false);
        assert_eq!((sequences.len(), numbers), (5, vec![0, 1, 2, 3, 4]));
    }

    #[test]
    fn batches_keep_to_the_budget_and_the_side() {
        let all = (0..20).map(|i| sequence(Side::BOTH[i % 2], i as u32, 100)).collect();
        let (sequences, _) = Sequences::collect(all, true);
        let batches = sequences.batches(350, 1);
        assert_eq!(
            batches[0],
            Batch {
                encoder: Encoder {
                    member: 0,
                    side: Side::Drug
                },
                members: vec![0, 2, 4]
            }
        );
        assert_eq!(
            batches[1],
            Batch {
                encoder: Encoder {
                    member: 0,
                    side: Side::Adr
                },
                members: vec![1, 3, 5]
            }
        );
        let mut members: Vec<usize> = batches.iter().flat_map(|b| b.members.clone()).collect();
        members.sort();
        assert_eq!(members, (0..20).collect::<Vec<_>>());
        assert!(
            batches
                .iter()
                .all(|b| b.members.iter().all(|m| Side::BOTH[m % 2] == b.encoder.side))
        );
    }

    #[test]
    fn known_sequences_are_in_no_batch() {
        let all = (0..20).map(|i| sequence(Side::BOTH[i % 2], i as u32, 100)).collect();
        let (mut sequences, _) = Sequences::collect(all, true);
        sequences.set_known(|number| number % 2 == 0 || number < 15);
        let batches = sequences.batches(1 << 20, 1);
        assert_eq!(
            batches,
            [Batch {
                encoder: Encoder {
                    member: 0,
                    side: Side::Adr
                },
                members: vec![15, 17, 19]
            }]
        );
        sequences.set_known(|_| true);
        assert!(sequences.batches(1 << 20, 4).is_empty());
    }

    #[test]
    fn a_sequence_longer_than_the_budget_goes_alone() {
        let all = vec![
            sequence(Side::Drug, 1, 900),
            sequence(Side::Drug, 2, 10),
            sequence(Side::Drug, 3, 900),
        ];
        let (sequences, _) = Sequences::collect(all, true);
        assert_eq!(sequences.batches(300, 1).len(), 3);
    }

    #[test]
    fn no_batch_is_left_with_a_remainder() {
        let all = (0..110).map(|i| sequence(Side::Drug, i, 10)).collect();
        let (sequences, _) = Sequences::collect(all, true);
        let sizes: Vec<usize> = sequences.batches(1000, 1).iter().map(|b| b.members.len()).collect();
        assert_eq!(sizes, [55, 55]);
    }

    #[test]
    fn a_small_window_is_shared_between_the_workers() {
        let all = (0..40).map(|i| sequence(Side::BOTH[i % 2], i as u32, 50)).collect();
        let (sequences, _) = Sequences::collect(all, true);
        assert_eq!(sequences.batches(1 << 20, 1).len(), 2);
        assert!(sequences.batches(1 << 20, 6).len() >= 6);
    }
}

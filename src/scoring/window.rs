//! One window of lines: equal sequences found, the others cut into batches.
//!
//! Batches are packed, so there is nothing to gain from sorting by length: sequences go in the order
//! of their first use, which is the order in which the lines wait for them. The last window's batches become
//! smaller towards its end (guided self-scheduling, Polychronopoulos and Kuck 1987), so that no worker waits long for another's last.

use std::collections::HashMap;
use std::iter::repeat_n;

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

/// Sequences of one encoder that are encoded together.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    pub encoder: Encoder,
    /// Their numbers in [`Sequences`].
    pub numbers: Vec<usize>,
}

/// How a window's sequences are cut into batches.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// A batch has at most as many tokens, or one sequence, if that is longer.
    pub budget_tokens: usize,
    /// Batches that are encoded at once.
    pub workers: usize,
    /// Towards the end batches get smaller, but not smaller than this; `usize::MAX` where another window follows.
    pub least_tokens: usize,
}

/// Below this many tokens a batch is not cut further to keep more workers busy: with 60 tokens a pass over a layer's weights
/// still costs little beside what is multiplied with them.
const MIN_BATCH_TOKENS: usize = 64;

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

    /// Cuts the sequences to encode into batches, smaller ones than the budget allows where workers would have nothing to do
    /// while others are at their last, and about equally large: a last batch of a few sequences costs nearly as
    /// much as a full one.
    pub fn batches(&self, cut: Cut) -> Vec<Batch> {
        let awaited = || self.awaited.iter().map(|&number| (number, &self.sequences[number]));
        let mut gathered: Vec<Gathered> = Vec::new();
        for (_, sequence) in awaited() {
            let number = sequence.encoder.number();
            gathered.resize_with(gathered.len().max(number + 1), Gathered::default);
            gathered[number].tokens += sequence.token_ids.len();
        }
        spread(&mut gathered, cut);
        let mut batches = Vec::new();
        for (number, sequence) in awaited() {
            let of_encoder = &mut gathered[sequence.encoder.number()];
            let tokens = sequence.token_ids.len();
            let over_budget = of_encoder.open_tokens + tokens > cut.budget_tokens;
            if !of_encoder.open.is_empty() && (over_budget || of_encoder.has_share()) {
                batches.push(Batch {
                    encoder: sequence.encoder,
                    numbers: of_encoder.close(),
                });
            }
            of_encoder.open.push(number);
            of_encoder.open_tokens += tokens;
        }
        // The line that waits longest first.
        let mut rest: Vec<Batch> = gathered
            .into_iter()
            .filter_map(|of_encoder| {
                let encoder = self.sequences[*of_encoder.open.first()?].encoder;
                let numbers = of_encoder.open;
                Some(Batch { encoder, numbers })
            })
            .collect();
        rest.sort_by_key(|batch| batch.numbers[0]);
        batches.extend(rest);
        batches
    }
}

/// One encoder's sequences on their way into batches.
#[derive(Default)]
struct Gathered {
    /// Of all its sequences.
    tokens: usize,
    /// What all batches up to each are to have.
    shares: Vec<usize>,
    /// What the next batch has so far.
    open: Vec<usize>,
    open_tokens: usize,
    closed: usize,
    closed_tokens: usize,
}

impl Gathered {
    /// Shares of `batches` equal ones, of which the last few, `tapered`, are cut into halves, quarters and so on down to `least_tokens`:
    /// first all halves, then all quarters.
    fn share(&mut self, batches: usize, tapered: usize, least_tokens: usize) {
        // How many of each batch make a whole one.
        let mut parts = vec![1; batches - tapered];
        let mut last = 1;
        while self.tokens / (2 * last * batches) >= least_tokens {
            last *= 2;
            parts.extend(repeat_n(last, tapered));
        }
        // The last parts have no smaller ones beside them.
        parts.extend(repeat_n(last, tapered));
        let mut end = 0;
        let up_to_each = parts.into_iter().map(|of_whole| {
            end += last / of_whole;
            (end * self.tokens).div_ceil(last * batches)
        });
        self.shares = up_to_each.collect();
    }

    /// Whether all batches up to the open one have as many tokens as they are to have.
    fn has_share(&self) -> bool {
        let share = self.shares.get(self.closed).copied().unwrap_or(self.tokens);
        self.closed_tokens + self.open_tokens >= share
    }

    fn close(&mut self) -> Vec<usize> {
        self.closed += 1;
        self.closed_tokens += std::mem::take(&mut self.open_tokens);
        std::mem::take(&mut self.open)
    }
}

/// Decides on each encoder's batches: as many as the budget asks for, and further ones of the encoder with the
/// largest, until there are equally many for each worker; then, where nothing follows, of each worker's last one smaller and smaller ones.
fn spread(gathered: &mut [Gathered], cut: Cut) {
    let workers = cut.workers.max(1);
    let mut counts: Vec<usize> = gathered
        .iter()
        .map(|of_encoder| of_encoder.tokens.div_ceil(cut.budget_tokens.max(1)))
        .collect();
    while !counts.iter().sum::<usize>().is_multiple_of(workers) {
        let used = (0..counts.len()).filter(|&number| counts[number] > 0);
        match used.max_by_key(|&number| gathered[number].tokens / counts[number]) {
            Some(largest) if gathered[largest].tokens >= (counts[largest] + 1) * MIN_BATCH_TOKENS => {
                counts[largest] += 1;
            }
            _ => break,
        }
    }
    let total: usize = counts.iter().sum();
    // One worker waits for nobody.
    let least_tokens = if workers > 1 { cut.least_tokens } else { usize::MAX };
    let used = gathered.iter_mut().zip(counts).filter(|(_, batches)| *batches > 0);
    for (of_encoder, batches) in used {
        let last = (batches * workers).div_ceil(total).min(batches);
        of_encoder.share(batches, last, least_tokens.max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(side: Side, id: u32, length: usize) -> Sequence {
        of_member(0, side, id, length)
    }

    fn cut(budget_tokens: usize, workers: usize) -> Cut {
        Cut {
            budget_tokens,
            workers,
            least_tokens: usize::MAX,
        }
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
        let batches = sequences.batches(cut(1 << 20, 1));
        assert_eq!(batches.len(), 6);
        for (i, batch) in batches.iter().enumerate() {
            let encoder = Encoder {
                member: i / 2,
                side: Side::BOTH[i % 2],
            };
            assert_eq!((batch.encoder, &batch.numbers), (encoder, &vec![i, i + 6]));
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
        let batches = sequences.batches(cut(350, 1));
        assert_eq!(
            batches[0],
            Batch {
                encoder: Encoder {
                    member: 0,
                    side: Side::Drug
                },
                numbers: vec![0, 2, 4]
            }
        );
        assert_eq!(
            batches[1],
            Batch {
                encoder: Encoder {
                    member: 0,
                    side: Side::Adr
                },
                numbers: vec![1, 3, 5]
            }
        );
        let mut numbers: Vec<usize> = batches.iter().flat_map(|b| b.numbers.clone()).collect();
        numbers.sort();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
        assert!(
            batches
                .iter()
                .all(|b| b.numbers.iter().all(|m| Side::BOTH[m % 2] == b.encoder.side))
        );
    }

    #[test]
    fn known_sequences_are_in_no_batch() {
        let all = (0..20).map(|i| sequence(Side::BOTH[i % 2], i as u32, 100)).collect();
        let (mut sequences, _) = Sequences::collect(all, true);
        sequences.set_known(|number| number % 2 == 0 || number < 15);
        let batches = sequences.batches(cut(1 << 20, 1));
        assert_eq!(
            batches,
            [Batch {
                encoder: Encoder {
                    member: 0,
                    side: Side::Adr
                },
                numbers: vec![15, 17, 19]
            }]
        );
        sequences.set_known(|_| true);
        assert!(sequences.batches(cut(1 << 20, 4)).is_empty());
    }

    #[test]
    fn a_sequence_longer_than_the_budget_goes_alone() {
        let all = vec![
            sequence(Side::Drug, 1, 900),
            sequence(Side::Drug, 2, 10),
            sequence(Side::Drug, 3, 900),
        ];
        let (sequences, _) = Sequences::collect(all, true);
        assert_eq!(sequences.batches(cut(300, 1)).len(), 3);
    }

    #[test]
    fn no_batch_is_left_with_a_remainder() {
        let all = (0..110).map(|i| sequence(Side::Drug, i, 10)).collect();
        let (sequences, _) = Sequences::collect(all, true);
        let sizes: Vec<usize> = sequences
            .batches(cut(1000, 1))
            .iter()
            .map(|b| b.numbers.len())
            .collect();
        assert_eq!(sizes, [55, 55]);
    }

    #[test]
    fn every_worker_gets_as_many_batches_as_the_others() {
        // Of 18 batches of the budget two workers of 16 would do a second one while the others wait.
        let all = (0..300).map(|i| sequence(Side::BOTH[i % 2], i as u32, 30)).collect();
        let (sequences, _) = Sequences::collect(all, true);
        for (workers, expected) in [(1, 18), (4, 20), (16, 32)] {
            let batches = sequences.batches(cut(512, workers));
            assert_eq!(batches.len(), expected, "{workers} workers");
            let sizes = batches.iter().map(|batch| batch.numbers.len());
            let (least, most) = (sizes.clone().min().unwrap(), sizes.max().unwrap());
            assert!(most - least <= 1, "{workers} workers: {least} to {most} sequences");
        }
    }

    #[test]
    fn the_last_windows_batches_get_smaller_towards_its_end() {
        let all = (0..256).map(|i| sequence(Side::BOTH[i % 2], i as u32, 16)).collect();
        let (sequences, _) = Sequences::collect(all, true);
        let tapered = |workers, least_tokens| {
            let cut = Cut {
                least_tokens,
                ..cut(512, workers)
            };
            let batches = sequences.batches(cut);
            let mut numbers: Vec<usize> = batches.iter().flat_map(|batch| batch.numbers.clone()).collect();
            numbers.sort();
            assert_eq!(numbers, (0..256).collect::<Vec<_>>());
            batches.iter().map(|batch| 16 * batch.numbers.len()).collect::<Vec<_>>()
        };
        let whole = [512; 6];
        assert_eq!(
            tapered(2, 64),
            [&whole[..], &[256, 256, 128, 128, 64, 64, 64, 64]].concat()
        );
        assert_eq!(tapered(2, 65), [&whole[..], &[256, 256, 128, 128, 128, 128]].concat());
        assert_eq!(tapered(4, 256), [&whole[..4], &[256; 8]].concat());
        assert_eq!(tapered(2, 300), [512; 8]);
        assert_eq!(tapered(1, 64), [512; 8]);
        assert_eq!(tapered(2, usize::MAX), [512; 8]);
    }

    #[test]
    fn the_encoder_with_more_to_do_gets_more_batches() {
        let all = (0..40u32)
            .map(|i| sequence(if i < 10 { Side::Drug } else { Side::Adr }, i, 50))
            .collect();
        let (sequences, _) = Sequences::collect(all, true);
        let batches = sequences.batches(cut(2000, 4));
        let of = |side| batches.iter().filter(|batch| batch.encoder.side == side).count();
        assert_eq!((of(Side::Drug), of(Side::Adr)), (1, 3));
    }

    #[test]
    fn a_few_tokens_are_not_cut_for_many_workers() {
        let all = (0..8).map(|i| sequence(Side::BOTH[i % 2], i as u32, 30)).collect();
        let (sequences, _) = Sequences::collect(all, true);
        assert_eq!(sequences.batches(cut(512, 64)).len(), 2);
    }

    #[test]
    fn a_small_window_is_shared_between_the_workers() {
        let all = (0..40).map(|i| sequence(Side::BOTH[i % 2], i as u32, 50)).collect();
        let (sequences, _) = Sequences::collect(all, true);
        assert_eq!(sequences.batches(cut(1 << 20, 1)).len(), 2);
        assert!(sequences.batches(cut(1 << 20, 6)).len() >= 6);
    }
}

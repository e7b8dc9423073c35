//! Self-attention in f32, and in bf16 where whole tiles are multiplied.

use super::{Kernel, assert_close, assert_same_bits, for_each_kernel, offsets, random, tolerance};
use crate::cpu::attention::attention;
use crate::cpu::simd::{LINE, MAX_LANES, Simd, Task};
use crate::{Precision, reference};

fn for_each_precision(test: impl Fn(Kernel, Precision, &str)) {
    for_each_kernel(|kernel| {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            test(kernel, precision, &kernel.name(precision));
        }
    });
}

/// Whether its products are those of bf16.
fn is_rounded(kernel: Kernel, precision: Precision) -> bool {
    kernel.has_tiles() && precision != Precision::F32
}

#[test]
fn attention_agrees_with_the_reference() {
    let lengths = [1, 2, 3, 12, 13, 15, 16, 17, 31, 32, 33, 41, 64, 65, 128, 300];
    check_against_reference(
        &lengths,
        &[(1, 1), (2, 16), (1, 24), (2, 32), (3, 33), (2, 64), (1, 96)],
    );
}

/// Sums of a softmax with values are then of two groups.
#[test]
fn attention_over_more_tokens_than_a_group_of_bf16_agrees_too() {
    check_against_reference(&[600, 5], &[(1, 16)]);
}

fn check_against_reference(lengths: &[u32], heads_and_widths: &[(usize, usize)]) {
    let offsets = offsets(lengths);
    let tokens = *offsets.last().unwrap() as usize;
    for_each_precision(|kernel, precision, name| {
        for &(heads, width) in heads_and_widths {
            let hidden = heads * width;
            // Twice as large, so that the softmax is not flat.
            let qkv: Vec<f32> = random(tokens * 3 * hidden, 1).iter().map(|v| 2.0 * v).collect();
            let found = attention(kernel, precision, &qkv, &offsets, hidden, heads);
            let what = format!("{name}: {heads} heads of {width}");
            if is_rounded(kernel, precision) {
                let expected = reference::attention(&reference::round_to_bf16(&qkv), &offsets, hidden, heads);
                // A softmax is rounded too, by 2^-8 of each share at most, and values are 2 at most.
                assert_close(&found, &expected, 2.0 / 256.0 + tolerance::UNIT, &what);
                let exact = reference::attention(&qkv, &offsets, hidden, heads);
                let off: f32 = found
                    .iter()
                    .zip(&exact)
                    .map(|(found, exact)| (found - exact).abs())
                    .sum();
                assert!(off / (found.len() as f32) < 2e-3, "{what}: {off} over {}", found.len());
            } else {
                let expected = reference::attention(&qkv, &offsets, hidden, heads);
                assert_close(&found, &expected, tolerance::UNIT, &what);
            }
        }
    });
}

#[test]
fn a_sequences_bits_do_not_depend_on_the_batch() {
    let offsets = offsets(&[41, 1, 300, 13, 128, 33]);
    let tokens = *offsets.last().unwrap() as usize;
    for_each_precision(|kernel, precision, name| {
        for (hidden, heads) in [(96, 2), (128, 2)] {
            let qkv = random(tokens * 3 * hidden, 1);
            let states = attention(kernel, precision, &qkv, &offsets, hidden, heads);
            for (i, range) in offsets.windows(2).enumerate() {
                let (begin, end) = (range[0] as usize, range[1] as usize);
                let own = [0, range[1] - range[0]];
                let alone = &qkv[begin * 3 * hidden..end * 3 * hidden];
                let alone = attention(kernel, precision, alone, &own, hidden, heads);
                assert_same_bits(
                    &alone,
                    &states[begin * hidden..end * hidden],
                    &format!("{name}: sequence {i}"),
                );
            }
        }
    });
}

#[test]
fn large_scores_do_not_overflow() {
    for_each_precision(|kernel, precision, name| {
        let qkv: Vec<f32> = random(20 * 3 * 16, 1).iter().map(|v| 300.0 * v).collect();
        let found = attention(kernel, precision, &qkv, &[0, 20], 16, 1);
        assert!(found.iter().all(|v| v.is_finite()), "{name}");
    });
}

#[test]
fn what_is_not_finite_stays_in_its_sequence() {
    for_each_precision(|kernel, precision, name| {
        let (hidden, offsets) = (64, [0, 7, 40, 45]);
        // A query, a key and a value of the second sequence.
        for column in [3, hidden + 3, 2 * hidden + 3] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut qkv = random(45 * 3 * hidden, 1);
                qkv[20 * 3 * hidden + column] = bad;
                let found = attention(kernel, precision, &qkv, &offsets, hidden, 2);
                let is_damaged = |range: std::ops::Range<usize>| {
                    found[range.start * hidden..range.end * hidden]
                        .iter()
                        .any(|v| !v.is_finite())
                };
                assert!(is_damaged(7..40), "{name}: column {column}: {bad} is lost");
                assert!(
                    !is_damaged(0..7) && !is_damaged(40..45),
                    "{name}: column {column}: {bad}"
                );
            }
        }
    });
}

/// Words of pairs of the numbers, and their transpose.
struct Words<'a> {
    pairs: &'a [[f32; 2 * MAX_LANES]],
    words: &'a mut [f32],
    transposed: &'a mut [f32],
}

impl Task for Words<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (numbers, to) in self.pairs.iter().zip(self.words.chunks_exact_mut(MAX_LANES)) {
            let (first, second) = numbers.split_at(MAX_LANES);
            for at in (0..MAX_LANES).step_by(S::LANES) {
                let words = simd.pair_bf16(simd.load(&first[at..]), simd.load(&second[at..]));
                simd.store(words, &mut to[at..]);
            }
        }
        simd.transpose(self.words, LINE, self.transposed, LINE + 3);
    }
}

#[test]
fn words_are_paired_and_transposed_as_they_are_one_by_one() {
    let special = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        1.003_906_3,
        1.011_718_8,
        f32::NAN,
    ];
    let numbers: Vec<f32> = random(LINE * 2 * MAX_LANES - special.len(), 5)
        .into_iter()
        .chain(special)
        .collect();
    let (pairs, _) = numbers.as_chunks::<{ 2 * MAX_LANES }>();
    for setting in crate::cpu::detect::SETTINGS {
        for kernel in Kernel::variants(setting) {
            let name = kernel.name(Precision::Bf16);
            let mut words = vec![0.0; LINE * MAX_LANES];
            let mut transposed = vec![0.0; LINE * (LINE + 3)];
            kernel.run_with_bf16_dots(Words {
                pairs,
                words: &mut words,
                transposed: &mut transposed,
            });
            for (row, numbers) in pairs.iter().enumerate() {
                for lane in 0..MAX_LANES {
                    let bits = words[row * MAX_LANES + lane].to_bits();
                    for (half, number) in [
                        (bits << 16, numbers[lane]),
                        (bits & 0xffff_0000, numbers[MAX_LANES + lane]),
                    ] {
                        let expected = half::bf16::from_f32(number).to_f32();
                        let found = f32::from_bits(half);
                        assert!(
                            found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                            "{name}: {number} became {found}"
                        );
                    }
                    assert_eq!(
                        transposed[lane * (LINE + 3) + row].to_bits(),
                        bits,
                        "{name}: row {row}, column {lane}"
                    );
                }
            }
        }
    }
}

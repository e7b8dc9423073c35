//! Operations that go through several products in one pass, against the same one after the other.

use candle_core::{Device, Tensor};

use super::{Kernel, assert_same_bits, for_each_kernel, matrix, norm_of, offsets, random};
use crate::cpu::self_attention::{heads_are_panels, self_attention, self_attention_fused};
use crate::cpu::{PackedLinear, attention, feed_forward};
use crate::{Activation, Precision};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

fn layer(kernel: Kernel, out_features: usize, in_features: usize, precision: Precision) -> PackedLinear {
    let weight = matrix(out_features, in_features, out_features as u64);
    let bias = Tensor::from_vec(random(out_features, 2), out_features, &Device::Cpu).unwrap();
    PackedLinear::for_kernel(kernel, &weight, Some(&bias), precision).unwrap()
}

#[test]
fn feed_forward_gives_the_bits_of_its_two_products() {
    for_each_kernel(|kernel| {
        for precision in PRECISIONS {
            // Whole segments and runs, and a rest of either; in f32 and bf16 more than one block of rows.
            for (hidden, between, rows) in [(64, 512, 1), (96, 1500, 40), (33, 300, 7), (768, 700, 900)] {
                let (first, second) = (
                    layer(kernel, between, hidden, precision),
                    layer(kernel, hidden, between, precision),
                );
                let (weight, bias) = (random(hidden, 4), random(hidden, 5));
                let x = random(rows * hidden, 6);
                let norm = norm_of(&weight, &bias);
                let activated = first.forward(&x, rows, Activation::Gelu);
                let expected = second.forward_add_norm(&activated, rows, &x, norm);
                let found = feed_forward::feed_forward(&x, rows, &first, Activation::Gelu, &second, norm);
                let what = format!("{}: {rows} rows, {hidden} by {between}", kernel.name(precision));
                assert_same_bits(&found, &expected, &what);
                // This machine's caches may have decided otherwise.
                if kernel.can_fuse() {
                    let found = feed_forward::feed_forward_fused(&x, rows, &first, Activation::Gelu, &second, norm);
                    assert_same_bits(&found, &expected, &format!("fused, {what}"));
                }
            }
        }
    });
}

#[test]
fn self_attention_gives_the_bits_of_its_projection_and_attention() {
    // More than one block of sequences, the last of them one that is a block by itself.
    let offsets = offsets(&[41, 1, 33, 150, 200, 128, 12, 600]);
    let tokens = *offsets.last().unwrap() as usize;
    for_each_kernel(|kernel| {
        for precision in PRECISIONS {
            for (heads, width, k) in [(2, 32, 64), (3, 64, 100), (1, 96, 768), (2, 33, 66)] {
                let hidden = heads * width;
                let projection = layer(kernel, 3 * hidden, k, precision);
                let x = random(tokens * k, 6);
                let qkv = projection.forward(&x, tokens, Activation::Identity);
                let expected = attention::attention(kernel, precision, &qkv, &offsets, hidden, heads);
                let found = self_attention(&x, &projection, &offsets, heads);
                let what = format!("{}: {heads} heads of {width}", kernel.name(precision));
                assert_same_bits(&found, &expected, &what);
                if kernel.can_fuse() && heads_are_panels(&projection, heads) {
                    let found = self_attention_fused(&x, &projection, &offsets, heads);
                    assert_same_bits(&found, &expected, &format!("head by head, {what}"));
                }
            }
        }
    });
}

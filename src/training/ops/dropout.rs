//! Dropout (Srivastava et al., 2014) with masks that are a function of place alone.
//!
//! A mask is never drawn or stored: whether an element is kept follows from a key and the element's index, so
//! the backward asks again, threads do not matter, and a resumed run continues with the same masks.

use std::cell::Cell;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{ELEMENTS_AT_ONCE, elements, gradient, slice, widest};
use crate::training::random::mixed;

/// The masks of one forward pass.
#[derive(Debug)]
pub(in crate::training) struct Dropout {
    rate: f32,
    key: u64,
    /// How many masks have been asked for: each has a key of its own.
    uses: Cell<u64>,
}

impl Dropout {
    /// `rate`: the share of elements that becomes 0, from 0 to below 1.
    pub fn new(rate: f64, key: u64) -> Self {
        Self {
            rate: rate as f32,
            key,
            uses: Cell::new(0),
        }
    }

    /// The next mask; none where nothing is dropped.
    pub fn mask(&self) -> Option<Mask> {
        let uses = self.uses.replace(self.uses.get() + 1);
        (self.rate > 0.0).then(|| Mask::new(self.rate, mixed(&[self.key, uses])))
    }
}

/// Which elements are kept, and the factor that makes up for the others.
#[derive(Clone, Copy, Debug)]
pub(in crate::training) struct Mask {
    key: [u32; 2],
    below: u32,
    pub scale: f32,
}

impl Mask {
    fn new(rate: f32, key: u64) -> Self {
        Self {
            key: [key as u32, (key >> 32) as u32],
            below: (f64::from(rate) * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - rate),
        }
    }

    /// What element `i` is multiplied by: 0 or [`Self::scale`].
    #[inline(always)]
    pub fn factor(&self, i: u32) -> f32 {
        // Two rounds of multiply and fold, each with half of the key.
        let mut x = i.wrapping_mul(0x9E37_79B9) ^ self.key[0];
        x ^= x >> 16;
        x = x.wrapping_mul(0x85EB_CA6B);
        x ^= x >> 13;
        x ^= self.key[1];
        x = x.wrapping_mul(0xC2B2_AE35);
        x ^= x >> 16;
        if x >= self.below { self.scale } else { 0.0 }
    }

    /// The factors of `count` elements.
    pub fn factors(&self, count: usize) -> Vec<f32> {
        (0..count as u32).map(|i| self.factor(i)).collect()
    }
}

/// The number under which an attention weight asks the mask: sequence and head, then query, then key.
pub(super) fn mask_index(sequence: usize, heads: usize, head: usize, longest: usize, query: usize) -> u32 {
    (((sequence * heads + head) * longest + query) * longest) as u32
}

/// `x` with some elements 0 and the others larger by as much.
pub(in crate::training) fn dropout(x: &Tensor, dropout: Option<&Dropout>) -> Result<Tensor> {
    match dropout.and_then(Dropout::mask) {
        None => Ok(x.clone()),
        Some(mask) if x.device().is_cpu() => x.contiguous()?.apply_op1(Drop(mask)),
        Some(mask) => x * uploaded(&mask, x)?,
    }
}

/// `residual + dropout(x)`.
pub(in crate::training) fn dropout_add(x: &Tensor, residual: &Tensor, dropout: Option<&Dropout>) -> Result<Tensor> {
    match dropout.and_then(Dropout::mask) {
        None => x + residual,
        Some(mask) if x.device().is_cpu() => x.contiguous()?.apply_op2(&residual.contiguous()?, Drop(mask)),
        Some(mask) => (x * uploaded(&mask, x)?)? + residual,
    }
}

fn uploaded(mask: &Mask, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(mask.factors(like.elem_count()), like.shape(), like.device())
}

widest! {
    fn multiply(mask: &Mask, first: u32, x: &[f32], y: &mut [f32]) {
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            *y = x * mask.factor(first.wrapping_add(i as u32));
        }
    }
}

widest! {
    fn multiply_add(mask: &Mask, first: u32, x: &[f32], y: &mut [f32]) {
        for (i, (x, y)) in x.iter().zip(y).enumerate() {
            *y += x * mask.factor(first.wrapping_add(i as u32));
        }
    }
}

/// `y` becomes the masked `x`, or with `add` grows by it.
fn masked(mask: &Mask, x: &[f32], y: &mut [f32], add: bool) {
    y.par_chunks_mut(ELEMENTS_AT_ONCE)
        .zip(x.par_chunks(ELEMENTS_AT_ONCE))
        .enumerate()
        .for_each(|(chunk, (y, x))| {
            let first = (chunk * ELEMENTS_AT_ONCE) as u32;
            match add {
                true => multiply_add(mask, first, x, y),
                false => multiply(mask, first, x, y),
            }
        });
}

struct Drop(Mask);

impl Drop {
    fn backward(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let grads = elements(grad)?;
        let mut dx = vec![0.0; grads.len()];
        masked(&self.0, &grads, &mut dx, false);
        gradient(dx, x)
    }
}

impl CustomOp1 for Drop {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice("dropout", x, layout)?;
        let mut y = vec![0.0; x.len()];
        masked(&self.0, x, &mut y, false);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.backward(x, &grad.contiguous()?)?))
    }
}

impl CustomOp2 for Drop {
    fn name(&self) -> &'static str {
        "dropout-add"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, r: &CpuStorage, lr: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, residual) = (slice("dropout-add", x, lx)?, slice("dropout-add", r, lr)?);
        if x.len() != residual.len() {
            candle_core::bail!("dropout-add: expected equal shapes, found {lx:?} and {lr:?}")
        }
        let mut y = residual.to_vec();
        masked(&self.0, x, &mut y, true);
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let dx = self.backward(x, &grad)?;
        debug_assert_eq!(residual.shape(), grad.shape());
        Ok((Some(dx), Some(grad)))
    }
}

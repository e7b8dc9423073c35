//! AdamW (Loshchilov and Hutter, arXiv:1711.05101) as `torch.optim.AdamW` does it, with clipping by the norm of all
//! gradients together, and gradients that add up over several backward passes.

use std::collections::HashMap;

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, backprop::GradStore, bail};
use rayon::prelude::*;

use super::parameters::{Parameter, Parameters};
use super::settings::OptimizerSettings;
use crate::kernels::f32_slice as slice;

/// Gradients of one optimizer step, by the order of the parameters; none where nothing flowed.
#[derive(Debug, Default)]
pub struct Gradients(Vec<Option<Tensor>>);

/// First and second moments, and how many steps they are the moments of.
#[derive(Debug, Default)]
pub struct Moments {
    pub step: u64,
    /// By the order of the parameters; none for one that never had a gradient.
    moments: Vec<Option<[Tensor; 2]>>,
}

impl Gradients {
    /// Adds what a backward pass gave.
    pub fn add(&mut self, parameters: &Parameters, mut store: GradStore) -> Result<()> {
        let mut sums = std::mem::take(&mut self.0).into_iter();
        let mut added = Vec::new();
        for parameter in parameters.iter() {
            let sum = sums.next().flatten();
            let gradient = store.remove(parameter.variable.as_tensor());
            added.push(match (sum, gradient) {
                (Some(sum), Some(gradient)) if sum.device().is_cpu() => {
                    sum.inplace_op2(&gradient.contiguous()?, &Accumulate)?;
                    Some(sum)
                }
                (Some(sum), Some(gradient)) => Some((sum + gradient)?),
                // A copy where it may share its memory with another.
                (None, Some(gradient)) => Some(gradient.contiguous()?.detach()),
                (sum, None) => sum,
            });
        }
        self.0 = added;
        Ok(())
    }

    /// The gradient of parameter number `i`.
    pub fn get(&self, i: usize) -> Option<&Tensor> {
        self.0.get(i).and_then(Option::as_ref)
    }

    /// The Euclidean norm of all of them together, in f64 and in a fixed order.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for gradient in self.0.iter().flatten() {
            sum += match gradient.device().is_cpu() {
                true => {
                    let values = gradient.flatten_all()?.to_vec1::<f32>()?;
                    let parts: Vec<f64> = values
                        .par_chunks(CHUNK)
                        .map(|part| part.iter().map(|x| f64::from(*x) * f64::from(*x)).sum())
                        .collect();
                    parts.iter().sum::<f64>()
                }
                false => f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?),
            };
        }
        Ok(sum.sqrt())
    }
}

/// Elements that one task takes.
const CHUNK: usize = 1 << 15;

impl Moments {
    /// One step down along `gradients` times `scale`; `rate` gives each parameter's learning rate.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        scale: f64,
        settings: &OptimizerSettings,
        rate: impl Fn(&Parameter) -> f64,
    ) -> Result<()> {
        self.step += 1;
        self.moments.resize_with(parameters.iter().len(), || None);
        for (i, (parameter, moments)) in parameters.iter().zip(&mut self.moments).enumerate() {
            let Some(gradient) = gradients.get(i) else { continue };
            let variable = parameter.variable.as_tensor();
            if gradient.shape() != variable.shape() {
                bail!(
                    "\"{}\": gradient {:?} for {:?}",
                    parameter.name,
                    gradient.shape(),
                    variable.shape()
                )
            }
            let [first, second] = match moments {
                Some(moments) => moments,
                None => moments.insert([variable.zeros_like()?.detach(), variable.zeros_like()?.detach()]),
            };
            let rate = rate(parameter);
            let update = Update {
                shrink: (1.0 - rate * if parameter.decays { settings.weight_decay } else { 0.0 }) as f32,
                rate: (rate / (1.0 - settings.beta1.powf(self.step as f64))) as f32,
                correction: (1.0 - settings.beta2.powf(self.step as f64)).sqrt() as f32,
                eps: settings.eps as f32,
            };
            if variable.device().is_cpu() {
                first.inplace_op2(gradient, &Decay::first(settings.beta1, scale))?;
                second.inplace_op2(gradient, &Decay::second(settings.beta2, scale))?;
                variable.inplace_op3(first, second, &update)?;
            } else {
                let gradient = (gradient * scale)?;
                *first = ((&*first * settings.beta1)? + (&gradient * (1.0 - settings.beta1))?)?;
                *second = ((&*second * settings.beta2)? + (gradient.sqr()? * (1.0 - settings.beta2))?)?;
                let deviation = ((second.sqrt()? / f64::from(update.correction))? + settings.eps)?;
                let change = (first.div(&deviation)? * f64::from(update.rate))?;
                let shrunk = (parameter.variable.as_detached_tensor() * f64::from(update.shrink))?;
                parameter.variable.set(&(shrunk - change)?)?;
            }
        }
        Ok(())
    }

    /// Copies on the CPU under `first.NAME` and `second.NAME`.
    pub fn tensors(&self, parameters: &Parameters) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for (parameter, moments) in parameters.iter().zip(&self.moments) {
            if let Some([first, second]) = moments {
                for (which, moment) in [("first", first), ("second", second)] {
                    let moment = moment.to_device(&candle_core::Device::Cpu)?;
                    tensors.push((format!("{which}.{}", parameter.name), moment));
                }
            }
        }
        Ok(tensors)
    }

    /// What [`Self::tensors`] gave, after `step` steps.
    pub fn restored(step: u64, parameters: &Parameters, tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let moments = parameters.iter().map(|parameter| {
            let get = |which: &str| tensors.get(&format!("{which}.{}", parameter.name));
            match (get("first"), get("second")) {
                (Some(first), Some(second)) => {
                    let own = |t: &Tensor| t.copy()?.to_device(parameter.variable.device());
                    Ok(Some([own(first)?, own(second)?]))
                }
                _ => Ok(None),
            }
        });
        Ok(Self {
            step,
            moments: moments.collect::<Result<_>>()?,
        })
    }
}

/// The part of `storage` that a contiguous layout names.
fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => bail!("expected contiguous f32 on the CPU"),
    }
}

struct Accumulate;

impl InplaceOp2 for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn cpu_fwd(&self, sum: &mut CpuStorage, layout: &Layout, x: &CpuStorage, lx: &Layout) -> Result<()> {
        let (sum, x) = (slice_mut(sum, layout)?, slice(self.name(), x, lx)?);
        let pairs = sum.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
        pairs.for_each(|(sum, x)| sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x));
        Ok(())
    }
}

/// A moment: `m = keep m + share g^power`.
struct Decay {
    keep: f32,
    share: f32,
    scale: f32,
    squared: bool,
}

impl Decay {
    fn first(beta: f64, scale: f64) -> Self {
        Self {
            keep: beta as f32,
            share: (1.0 - beta) as f32,
            scale: scale as f32,
            squared: false,
        }
    }

    fn second(beta: f64, scale: f64) -> Self {
        Self {
            squared: true,
            ..Self::first(beta, scale)
        }
    }
}

impl InplaceOp2 for Decay {
    fn name(&self) -> &'static str {
        "moment"
    }

    fn cpu_fwd(&self, m: &mut CpuStorage, layout: &Layout, g: &CpuStorage, lg: &Layout) -> Result<()> {
        let (m, g) = (slice_mut(m, layout)?, slice(self.name(), g, lg)?);
        m.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).for_each(|(m, g)| {
            for (m, g) in m.iter_mut().zip(g) {
                let g = g * self.scale;
                *m = self.keep * *m + self.share * if self.squared { g * g } else { g };
            }
        });
        Ok(())
    }
}

/// `p = shrink p - rate m / (sqrt(v) / correction + eps)`
struct Update {
    shrink: f32,
    rate: f32,
    correction: f32,
    eps: f32,
}

impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        layout: &Layout,
        m: &CpuStorage,
        lm: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<()> {
        let p = slice_mut(p, layout)?;
        let (m, v) = (slice("adamw", m, lm)?, slice("adamw", v, lv)?);
        let parts = p
            .par_chunks_mut(CHUNK)
            .zip(m.par_chunks(CHUNK).zip(v.par_chunks(CHUNK)));
        parts.for_each(|(p, (m, v))| {
            for (p, (m, v)) in p.iter_mut().zip(m.iter().zip(v)) {
                *p = *p * self.shrink - self.rate * m / (v.sqrt() / self.correction + self.eps);
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;

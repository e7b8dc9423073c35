//! The trained tensors: variables in a fixed order, each with its place between head and embeddings.

use std::collections::HashMap;

use candle_core::{Device, Result, Tensor, Var};

use crate::{
    Side,
    model::{Place, Roles},
};

use super::network::Weights;

/// One trained tensor.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub variable: Var,
    /// Steps down from the head: 0 for the head, 1 for the last layer, one more than the layers for embeddings.
    pub depth: usize,
    /// Whether weight decay applies: not to biases and LayerNorms.
    pub decays: bool,
}

/// All of them, in the order of the forward pass.
#[derive(Clone, Debug)]
pub struct Parameters(Vec<Parameter>);

impl Parameters {
    /// Variables on `device` of the tensors that `roles` names, f32.
    pub fn new(roles: &Roles, tensors: &HashMap<String, Tensor>, device: &Device) -> Result<Self> {
        let layers = roles.encoder(Side::Drug).layers.len();
        let parameters = roles.assignments().into_iter().map(|assigned| {
            let name = assigned.tensor;
            let Some(tensor) = tensors.get(&name) else {
                candle_core::bail!("no tensor \"{name}\"")
            };
            let tensor = tensor
                .to_dtype(candle_core::DType::F32)?
                .to_device(device)?
                .contiguous()?;
            Ok(Parameter {
                depth: match assigned.place {
                    Place::Head => 0,
                    Place::Layer(layer) => layers - layer,
                    Place::Embeddings => layers + 1,
                },
                // Biases and LayerNorms have one dimension, all else has more.
                decays: tensor.rank() > 1,
                // A copy: a variable is changed in place.
                variable: Var::from_tensor(&tensor.copy()?)?,
                name,
            })
        });
        Ok(Self(parameters.collect::<Result<_>>()?))
    }

    #[cfg(test)]
    pub(super) fn from_list(list: Vec<Parameter>) -> Self {
        Self(list)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.0.iter()
    }

    /// How many numbers are trained.
    pub fn elements(&self) -> usize {
        self.0.iter().map(|p| p.variable.elem_count()).sum()
    }

    /// For a forward pass whose gradients are wanted.
    pub fn tracked(&self) -> Weights {
        Weights::new(self.0.iter().map(|p| (p.name.clone(), p.variable.as_tensor().clone())))
    }

    /// For a forward pass that keeps nothing for a backward.
    pub fn detached(&self) -> Weights {
        Weights::new(self.0.iter().map(|p| (p.name.clone(), p.variable.as_detached_tensor())))
    }

    /// Copies on the CPU, by name.
    pub fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let copy = |p: &Parameter| {
            Ok((
                p.name.clone(),
                p.variable.as_detached_tensor().to_device(&Device::Cpu)?.copy()?,
            ))
        };
        self.0.iter().map(copy).collect()
    }

    /// Puts back what [`Self::tensors`] gave.
    pub fn restore(&self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for parameter in &self.0 {
            match tensors.get(&parameter.name) {
                Some(tensor) => parameter
                    .variable
                    .set(&tensor.to_device(parameter.variable.device())?)?,
                None => candle_core::bail!("no tensor \"{}\"", parameter.name),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::training::job_tests::Case;

    #[test]
    fn the_rate_falls_from_head_to_embeddings_and_biases_and_norms_do_not_decay() {
        // Two layers.
        for side in ["drug", "adr"] {
            for (name, depth, decays) in [
                ("encoder.embeddings.word_embeddings.weight", 3, true),
                ("encoder.embeddings.position_embeddings.weight", 3, true),
                ("encoder.embeddings.token_type_embeddings.weight", 3, true),
                ("encoder.embeddings.LayerNorm.weight", 3, false),
                ("encoder.embeddings.LayerNorm.bias", 3, false),
                ("encoder.encoder.layer.0.attention.self.query.weight", 2, true),
                ("encoder.encoder.layer.0.attention.self.query.bias", 2, false),
                ("encoder.encoder.layer.0.attention.output.LayerNorm.weight", 2, false),
                ("encoder.encoder.layer.1.output.dense.weight", 1, true),
                ("encoder.encoder.layer.1.output.LayerNorm.bias", 1, false),
                ("pooler.attention.in_proj_weight", 0, true),
                ("pooler.attention.in_proj_bias", 0, false),
                ("projection.0.weight", 0, true),
                ("projection.1.weight", 0, false),
            ] {
                assert_place(&format!("{side}_{name}"), depth, decays);
            }
        }
        for (name, decays) in [
            ("bilinear.weight", true),
            ("bilinear.bias", false),
            ("classifier.0.weight", true),
            ("classifier.1.weight", false),
            ("classifier.1.bias", false),
            ("classifier.7.weight", true),
            ("classifier.7.bias", false),
        ] {
            assert_place(name, 0, decays);
        }
    }

    #[track_caller]
    fn assert_place(name: &str, depth: usize, decays: bool) {
        thread_local!(static CASE: Case = Case::new());
        let parameters = CASE.with(Case::parameters);
        let found = parameters.iter().find(|parameter| parameter.name == name);
        let found = found.unwrap_or_else(|| panic!("no {name}"));
        assert_eq!((found.depth, found.decays), (depth, decays), "{name}");
    }
}

//! What must agree between the parts of a dual encoder once each tensor has its role.
//!
//! The two sides are trained from copies of one backbone with equal modules on top, so a difference between them is what a missing
//! tensor looks like: alone, a side with a layer less would pass for a smaller model.

use crate::Side;

use super::{EncoderRoles, HeadStep, Roles, RolesError};

fn differ(part: &str, reason: String) -> RolesError {
    RolesError::Order {
        part: part.to_owned(),
        reason,
    }
}

/// Both encoders must be of one size.
pub(super) fn check_encoders(drug: &EncoderRoles, adr: &EncoderRoles) -> Result<(), RolesError> {
    if drug.hidden_size != adr.hidden_size {
        let (drug, adr) = (drug.hidden_size, adr.hidden_size);
        let reason = format!("the drug encoder is {drug} wide, the adr encoder {adr}");
        return Err(differ("encoders", reason));
    }
    if drug.layers.len() != adr.layers.len() {
        let (drug, adr) = (drug.layers.len(), adr.layers.len());
        let reason = format!(
            "the drug encoder has {drug} layers, the adr encoder {adr}, and both should be copies of one backbone; are a \
             layer's tensors missing?"
        );
        return Err(differ("encoders", reason));
    }
    for (i, (drug, adr)) in drug.layers.iter().zip(&adr.layers).enumerate() {
        let [drug, adr] = [drug, adr].map(|layer| layer.intermediate.out_features);
        if drug != adr {
            let reason = format!(
                "layer {i} is {drug} wide within the drug encoder (intermediate size), {adr} within the adr encoder, and both \
                 should be copies of one backbone; do all files come from one model?"
            );
            return Err(differ("encoders", reason));
        }
    }
    Ok(())
}

/// Poolers and projections must be alike on both sides, and the bilinear as wide as the projections.
pub(super) fn check_head(roles: &Roles) -> Result<(), RolesError> {
    check_poolers(roles)?;
    check_projections(roles)?;
    let width = roles.representation_width();
    match &roles.bilinear {
        Some(bilinear) if bilinear.width != width => Err(RolesError::Shape {
            tensor: bilinear.weight.clone(),
            expected: format!("[outputs, {width}, {width}], as wide as the projections"),
            found: vec![bilinear.outputs, bilinear.width, bilinear.width],
            hint: "",
        }),
        _ => Ok(()),
    }
}

fn check_poolers(roles: &Roles) -> Result<(), RolesError> {
    let (Some(drug), Some(adr)) = (roles.pooler(Side::Drug), roles.pooler(Side::Adr)) else {
        return Ok(());
    };
    let (with, without) = match (&drug.in_proj_bias, &adr.in_proj_bias) {
        (Some(bias), None) => (bias, &adr.in_proj_weight),
        (None, Some(bias)) => (bias, &drug.in_proj_weight),
        _ => return Ok(()),
    };
    let reason =
        format!("there is \"{with}\", but \"{without}\" has no bias beside it; are the biases of one side missing?");
    Err(differ("attention pooling", reason))
}

fn check_projections(roles: &Roles) -> Result<(), RolesError> {
    let [drug, adr] = Side::BOTH.map(|side| roles.projection(side));
    for i in 0..drug.len().max(adr.len()) {
        let [(drug, drug_name), (adr, adr_name)] = [drug, adr].map(|steps| described(steps.get(i)));
        if drug != adr {
            let reason = format!(
                "step {i} is {drug}{drug_name} on the drug side, {adr}{adr_name} on the adr side, and both should be alike; \
                 is a tensor missing?"
            );
            return Err(differ("projections", reason));
        }
    }
    Ok(())
}

impl Roles {
    /// Weights of the head without a bias, where others of the head have one. PyTorch allows that (`bias=False`), but a bias that
    /// was lost looks the same: with one bilinear and one classifier there is nothing to compare them with.
    pub fn without_bias(&self) -> Vec<&str> {
        let steps = Side::BOTH.into_iter().flat_map(|side| self.projection(side));
        let linears = steps.chain(&self.classifier).filter_map(|step| match step {
            HeadStep::Linear(linear) => Some((linear.weight.as_str(), linear.bias.is_some())),
            _ => None,
        });
        let bilinear = self.bilinear.as_ref();
        let bilinear = bilinear.map(|role| (role.weight.as_str(), role.bias.is_some()));
        let (with, without): (Vec<_>, Vec<_>) = linears.chain(bilinear).partition(|(_, has_bias)| *has_bias);
        match with.is_empty() {
            true => Vec::new(),
            false => without.into_iter().map(|(weight, _)| weight).collect(),
        }
    }
}

/// What a step is, in words, and the tensor's name to put behind them.
fn described(step: Option<&HeadStep>) -> (String, String) {
    let named = |name: &str| format!(" (\"{name}\")");
    match step {
        None => ("nothing".to_owned(), String::new()),
        Some(HeadStep::Activation) => ("an activation".to_owned(), String::new()),
        Some(HeadStep::Norm(norm)) => (format!("a layer norm of {}", norm.width), named(&norm.weight)),
        Some(HeadStep::Linear(linear)) => {
            let bias = if linear.bias.is_some() { "with" } else { "without" };
            let (input, out) = (linear.in_features, linear.out_features);
            (
                format!("a linear layer from {input} to {out} {bias} a bias"),
                named(&linear.weight),
            )
        }
    }
}

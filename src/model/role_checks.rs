//! What must agree between the parts of a dual encoder once each tensor has its role.
//!
//! The two sides are trained from copies of one backbone with equal modules on top, so a difference between them is what a missing
//! tensor looks like: alone, a side with a layer less would pass for a smaller model.

use crate::Side;

use super::roles::{EncoderRoles, Roles, RolesError, output_width};

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

/// The projections must be as wide as each other, and the bilinear as wide as they.
pub(super) fn check_head(roles: &Roles) -> Result<(), RolesError> {
    let hidden = roles.encoder(Side::Drug).hidden_size;
    let [drug, adr] = Side::BOTH.map(|side| output_width(roles.projection(side)).unwrap_or(hidden));
    if drug != adr {
        let reason = format!("the drug side's gives {drug} numbers, the adr side's {adr}");
        return Err(differ("projections", reason));
    }
    match &roles.bilinear {
        Some(bilinear) if bilinear.width != drug => Err(RolesError::Shape {
            tensor: bilinear.weight.clone(),
            expected: format!("[outputs, {drug}, {drug}], as wide as the projections"),
            found: vec![bilinear.outputs, bilinear.width, bilinear.width],
            hint: "",
        }),
        _ => Ok(()),
    }
}

//! A calibration: a monotone map from a model's raw probability to one that agrees with observed frequencies.
//!
//! Fitted by [`crate::evaluation`], kept in `crag.json` ([`crate::model`] reads and checks it), applied by
//! [`crate::scoring`]. It stands beside [`crate::Side`] because all three rooms mean the same thing by it.

use serde::{Deserialize, Serialize};

/// The map; `fitted_on` is for whoever reads the file, scoring does not look at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase", deny_unknown_fields)]
pub enum Calibration {
    /// `sigmoid(bounded_logit(p) / temperature)` (Guo et al. 2017, arXiv:1706.04599, section 4.2); 1 changes nothing.
    Temperature {
        temperature: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fitted_on: Option<FittedOn>,
    },
    /// Straight lines between the points (`raw[i]`, `calibrated[i]`), constant outside of them
    /// (Zadrozny and Elkan 2002).
    Isotonic {
        raw: Vec<f64>,
        calibrated: Vec<f64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fitted_on: Option<FittedOn>,
    },
}

/// How much a calibration was fitted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedOn {
    pub records: usize,
    pub positives: usize,
    /// None where no record named its document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<usize>,
}

impl Calibration {
    /// The calibrated probability of a raw one, `p` from 0 to 1.
    pub fn apply(&self, p: f64) -> f64 {
        match self {
            // Exactly: beyond the bound, too.
            Calibration::Temperature { temperature: 1.0, .. } => p,
            Calibration::Temperature { temperature, .. } => sigmoid(bounded_logit(p) / temperature),
            Calibration::Isotonic { raw, calibrated, .. } => {
                let above = raw.partition_point(|&x| x < p);
                match (above.checked_sub(1), raw.get(above)) {
                    (_, Some(&x)) if x == p => calibrated[above],
                    (None, _) => calibrated[0],
                    (Some(below), None) => calibrated[below],
                    (Some(below), Some(&right)) => {
                        let (left, low, high) = (raw[below], calibrated[below], calibrated[above]);
                        // Rounding must not carry the value out of its segment.
                        (low + (high - low) * ((p - left) / (right - left))).clamp(low, high)
                    }
                }
            }
        }
    }

    /// The calibrated probability of a scored one. It goes through the decimal that records state, since that is what
    /// the map was fitted to: on the steep part of an isotonic map a hundredth of an f32's spacing shows.
    pub fn apply_scored(&self, probability: f32) -> f32 {
        self.apply(stated(probability)) as f32
    }

    /// The same map, without what it was fitted on.
    pub fn without_origin(&self) -> Self {
        let mut map = self.clone();
        let (Calibration::Temperature { fitted_on, .. } | Calibration::Isotonic { fitted_on, .. }) = &mut map;
        *fitted_on = None;
        map
    }

    /// For records that name no documents: their number, which stands in for that of documents, is left out.
    pub fn forget_documents(&mut self) {
        let (Calibration::Temperature { fitted_on, .. } | Calibration::Isotonic { fitted_on, .. }) = self;
        if let Some(fitted_on) = fitted_on {
            fitted_on.documents = None;
        }
    }

    /// The map's name in flags and files.
    pub fn method(&self) -> &'static str {
        match self {
            Calibration::Temperature { .. } => "temperature",
            Calibration::Isotonic { .. } => "isotonic",
        }
    }

    /// Whether the map can be used. Errors with what was expected and what was found.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Calibration::Temperature { temperature, .. } => match temperature.is_finite() && *temperature > 0.0 {
                true => Ok(()),
                false => Err(format!("expected a temperature above 0, found {temperature}")),
            },
            Calibration::Isotonic { raw, calibrated, .. } => {
                if raw.is_empty() || raw.len() != calibrated.len() {
                    return Err(format!(
                        "expected as many \"raw\" as \"calibrated\" probabilities and at least one, found {} and {}",
                        raw.len(),
                        calibrated.len()
                    ));
                }
                for (name, values) in [("raw", raw), ("calibrated", calibrated)] {
                    if let Some(value) = values.iter().find(|value| !(0.0..=1.0).contains(*value)) {
                        return Err(format!("expected probabilities in \"{name}\", found {value}"));
                    }
                }
                if let Some(pair) = raw.windows(2).find(|pair| pair[0] >= pair[1]) {
                    return Err(format!(
                        "expected \"raw\" to rise, found {} before {}",
                        pair[0], pair[1]
                    ));
                }
                match calibrated.windows(2).find(|pair| pair[0] > pair[1]) {
                    Some(pair) => Err(format!(
                        "expected \"calibrated\" not to fall, found {} before {}",
                        pair[0], pair[1]
                    )),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The log-odds of `1 - 2^-25`, the last that an f32 tells from 1.
const LARGEST_LOGIT: f64 = 17.328_679_484_196_31;

/// Log-odds; a probability of 0 or 1, and what lies next to it, has those of the last that an f32 tells from it. A
/// saturated probability is a rounded one: what it was is not known, but that it was not infinitely sure is.
pub fn bounded_logit(p: f64) -> f64 {
    (p.ln() - (-p).ln_1p()).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
}

/// The logistic function.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// An f32 by its shortest decimal, which is how records state probabilities: 0.55, and not the f64 next to it.
pub fn stated(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_is_stated_as_records_do() {
        assert_eq!(stated(0.55), 0.55);
        assert_eq!(stated(0.1), 0.1);
    }

    fn isotonic(raw: &[f64], calibrated: &[f64]) -> Calibration {
        Calibration::Isotonic {
            raw: raw.to_vec(),
            calibrated: calibrated.to_vec(),
            fitted_on: None,
        }
    }

    fn temperature(temperature: f64) -> Calibration {
        Calibration::Temperature {
            temperature,
            fitted_on: None,
        }
    }

    #[test]
    fn a_temperature_of_one_changes_no_probability_of_a_model() {
        for p in [0.0, 1e-30, 0.25, 0.5, 0.999, 1.0] {
            assert_eq!(temperature(1.0).apply(p), p);
        }
        let near_the_ends = [f32::MIN_POSITIVE, 2f32.powi(-26), 1f32.next_down(), 0f32.next_up()];
        for p in [0.0, 0.1, 0.55, 1.0].into_iter().chain(near_the_ends) {
            assert_eq!(temperature(1.0).apply_scored(p).to_bits(), p.to_bits());
        }
        assert!((temperature(2.0).apply(0.9) - 0.75).abs() < 1e-15);
    }

    #[test]
    fn the_ends_are_mapped_like_what_is_next_to_them() {
        let map = temperature(3.0);
        for (end, beside) in [(0.0, 2f64.powi(-25)), (1.0, 1.0 - 2f64.powi(-25))] {
            assert!(
                (map.apply(end) - map.apply(beside)).abs() < 1e-9,
                "{end}: {}",
                map.apply(end)
            );
        }
        // Three times less sure than the last f32 before 1: odds of 2^25 become 2^(25/3).
        let odds = 2f64.powf(25.0 / 3.0);
        assert!((map.apply(1.0) - odds / (1.0 + odds)).abs() < 1e-9);
    }

    #[test]
    fn isotonic_points_are_joined_by_lines_and_held_outside() {
        let map = isotonic(&[0.2, 0.4, 0.8], &[0.1, 0.1, 0.9]);
        for (p, expected) in [(0.0, 0.1), (0.2, 0.1), (0.3, 0.1), (0.6, 0.5), (0.8, 0.9), (1.0, 0.9)] {
            assert!((map.apply(p) - expected).abs() < 1e-15, "{p}: {}", map.apply(p));
        }
        assert_eq!(isotonic(&[0.5], &[0.3]).apply(0.9), 0.3);
    }

    #[test]
    fn a_scored_probability_on_a_point_gets_the_points_value() {
        // Neighbouring f32 numbers with a step between them.
        let (low, high) = (0.1f32, 0.1f32.next_up());
        let stated = |p: f32| p.to_string().parse::<f64>().unwrap();
        let map = isotonic(&[stated(low), stated(high)], &[0.25, 0.75]);
        assert_eq!((map.apply_scored(low), map.apply_scored(high)), (0.25, 0.75));
    }

    #[test]
    fn what_cannot_be_a_calibration_is_named() {
        for (map, expected) in [
            (temperature(0.0), "above 0"),
            (temperature(-1.0), "above 0"),
            (temperature(f64::INFINITY), "above 0"),
            (isotonic(&[], &[]), "at least one"),
            (isotonic(&[0.1], &[0.1, 0.2]), "found 1 and 2"),
            (isotonic(&[0.1, 1.5], &[0.1, 0.2]), "found 1.5"),
            (isotonic(&[0.2, 0.2], &[0.1, 0.2]), "\"raw\" to rise"),
            (isotonic(&[0.1, 0.2], &[0.3, 0.2]), "\"calibrated\" not to fall"),
        ] {
            let message = map.check().unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        assert!(isotonic(&[0.1, 0.2], &[0.3, 0.3]).check().is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_calibration_keeps_the_order(
            temperature_value in 0.05f64..20.0,
            points in prop::collection::vec((0.0f64..=1.0, 0.0f64..=1.0), 1..20),
            mut ps in prop::collection::vec(0.0f64..=1.0, 2..50),
        ) {
            let (mut raw, mut calibrated): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
            raw.sort_by(f64::total_cmp);
            raw.dedup();
            calibrated.sort_by(f64::total_cmp);
            calibrated.truncate(raw.len());
            ps.sort_by(f64::total_cmp);
            for map in [temperature(temperature_value), isotonic(&raw, &calibrated)] {
                prop_assert!(map.check().is_ok());
                let mapped: Vec<f64> = ps.iter().map(|&p| map.apply(p)).collect();
                prop_assert!(mapped.iter().all(|p| (0.0..=1.0).contains(p)), "{mapped:?}");
                prop_assert!(mapped.windows(2).all(|pair| pair[0] <= pair[1]), "{mapped:?}");
            }
        }
    }
}

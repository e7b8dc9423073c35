//! The learning rate over a phase: linear warm-up, then half a cosine down to 0.

/// The factor of the learning rate for step `step` (from 0) of `total`, as
/// `transformers.get_cosine_schedule_with_warmup` has it.
pub fn factor(step: u64, total: u64, warmup_ratio: f64) -> f64 {
    let warmup = (total as f64 * warmup_ratio).floor();
    let step = step as f64;
    if step < warmup {
        return step / warmup.max(1.0);
    }
    let progress = (step - warmup) / (total as f64 - warmup).max(1.0);
    (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
}

/// What layer-wise decay leaves of it, `depth` steps below the head.
pub fn layer_factor(decay: f64, depth: usize) -> f64 {
    decay.powi(depth as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_linearly_and_falls_as_a_cosine() {
        // transformers.get_cosine_schedule_with_warmup(optimizer, 10, 100), printed with 6 digits.
        for (step, expected) in [
            (0, 0.0),
            (5, 0.5),
            (10, 1.0),
            (40, 0.75),
            (55, 0.5),
            (85, 0.066_987),
            (100, 0.0),
        ] {
            assert!((factor(step, 100, 0.1) - expected).abs() < 1e-6, "{step}");
        }
        assert_eq!(factor(0, 3, 0.1), 1.0);
        assert_eq!(layer_factor(0.9, 0), 1.0);
        assert!((layer_factor(0.9, 2) - 0.81).abs() < 1e-12);
    }
}

//! Tensor names: what training wrappers add to them, and the one kind of buffer that is left out.

/// The name a tensor goes by, or `None` where it is a `position_ids` buffer.
///
/// `module` (`DataParallel`) and `_orig_mod` (`torch.compile`) are dropped wherever they stand as a whole
/// component, since a wrapper may sit around any submodule; the last component, the tensor itself, stays.
/// `position_ids` holds 0, 1, 2, … in int64, is no weight, and older transformers releases saved it.
pub(super) fn clean(name: &str) -> Option<String> {
    let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
    if last == "position_ids" {
        return None;
    }
    let mut cleaned = String::with_capacity(name.len());
    for component in path.split('.').filter(|c| !matches!(*c, "" | "module" | "_orig_mod")) {
        cleaned.push_str(component);
        cleaned.push('.');
    }
    cleaned.push_str(last);
    Some(cleaned)
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn wrapper_components_are_dropped_wherever_they_stand() {
        assert_eq!(clean("module.a.weight").as_deref(), Some("a.weight"));
        assert_eq!(clean("_orig_mod.module.a.weight").as_deref(), Some("a.weight"));
        assert_eq!(clean("module._orig_mod.module.a.weight").as_deref(), Some("a.weight"));
        assert_eq!(
            clean("drug_encoder._orig_mod.a.weight").as_deref(),
            Some("drug_encoder.a.weight")
        );
    }

    #[test]
    fn a_component_that_only_resembles_a_wrapper_stays() {
        assert_eq!(clean("submodule.weight").as_deref(), Some("submodule.weight"));
        assert_eq!(clean("a.modules.0.weight").as_deref(), Some("a.modules.0.weight"));
        assert_eq!(clean("a.module").as_deref(), Some("a.module"));
    }

    #[test]
    fn position_ids_are_left_out_by_name_alone() {
        assert_eq!(clean("drug_encoder.embeddings.position_ids"), None);
        assert_eq!(clean("position_ids"), None);
        assert_eq!(clean("a.position_ids.weight").as_deref(), Some("a.position_ids.weight"));
        assert_eq!(clean("a.my_position_ids").as_deref(), Some("a.my_position_ids"));
    }
}

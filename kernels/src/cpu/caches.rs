//! How large this machine's caches are.

use std::sync::OnceLock;

/// Bytes of a core's L2 cache; 0 where that is not known.
pub(super) fn l2_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        let bytes = l2_by_cpuid();
        #[cfg(not(target_arch = "x86_64"))]
        let bytes = 0;
        bytes
    })
}

/// AMD's and Intel's manuals: leaf 8000_0006 has the size in KiB in the upper half of ECX.
#[cfg(target_arch = "x86_64")]
fn l2_by_cpuid() -> usize {
    use std::arch::x86_64::__cpuid;
    const LEAF: u32 = 0x8000_0006;
    match __cpuid(LEAF & 0x8000_0000).eax >= LEAF {
        true => (__cpuid(LEAF).ecx >> 16) as usize * 1024,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::l2_bytes;

    /// Virtual machines tell what they like, not always the same in two places; so what the system says is no measure.
    #[test]
    fn an_l2_cache_has_a_size_that_there_is_or_none() {
        let bytes = l2_bytes();
        assert!(bytes == 0 || (64 << 10..=64 << 20).contains(&bytes), "{bytes}");
        assert!(bytes.is_multiple_of(64 << 10), "{bytes}");
    }
}

//! What tells packed weights that stand for the tensors beside them from those that no longer do, since another program has
//! written other tensors into the file.
//!
//! The file's metadata have a hash of all its other tensors, [`mark_of`] them. Reading those takes a good part of the time that
//! packed weights save, so the writer also gives the file a time of writing whose nanoseconds, which nothing else looks at,
//! are [`nanoseconds_of`] the mark. Whoever writes to the file changes that time, unless he puts it back; then, of a copy that did not take
//! it along, and where a file system keeps no such times, the hash decides.

use std::ops::Range;

use blake3::Hasher;

/// Begins the names of what `crag convert` adds: a model's own weights once more, laid out as a kernel wants them.
/// Such tensors are not part of the model; [`super::Checkpoint::packed`] finds them.
pub const PACKED_PREFIX: &str = "crag.packed.";

/// The key of the metadata.
pub(super) const PACKED_MARK: &str = "crag.packed";

/// Bytes of a mark: a hash in hexadecimal.
pub(super) const MARK_BYTES: usize = blake3::OUT_LEN * 2;

/// What a file states of the tensors that its packed ones were made of, and the tensors that it has.
pub(super) struct PackedMark {
    pub stated: String,
    /// Names and places in the file of all but the packed ones.
    pub own: Vec<(String, Range<usize>)>,
}

impl PackedMark {
    /// Whether the tensors are those; `bytes`: the file's, `nanoseconds`: of the time at which it was written, where it has one.
    /// `was_read` is given each part of the file that has been read.
    pub(super) fn fits(&self, bytes: &[u8], nanoseconds: Option<u32>, was_read: impl FnMut(&Range<usize>)) -> bool {
        let is_as_written = nanoseconds.is_some() && nanoseconds == nanoseconds_of(&self.stated);
        is_as_written || self.stated == mark_of(&self.own, bytes, was_read)
    }
}

/// A hash of each tensor's name, length and bytes, given the places of these in `bytes`. Reads all of them, on rayon's pool, and gives
/// `was_read` each place then.
pub(super) fn mark_of(
    tensors: &[(String, Range<usize>)],
    bytes: &[u8],
    mut was_read: impl FnMut(&Range<usize>),
) -> String {
    let mut tensors: Vec<&(String, Range<usize>)> = tensors.iter().collect();
    tensors.sort_unstable_by_key(|(name, _)| name);
    let mut hasher = Hasher::new();
    for (name, place) in tensors {
        for length in [name.len(), place.len()] {
            hasher.update(&(length as u64).to_le_bytes());
        }
        hasher.update(name.as_bytes()).update_rayon(&bytes[place.clone()]);
        was_read(place);
    }
    hasher.finalize().to_hex().to_string()
}

/// Below a second, and no multiple of the 100 ns or more that some file systems count in. None if `mark` is none.
pub(super) fn nanoseconds_of(mark: &str) -> Option<u32> {
    let start = mark.get(..8).filter(|_| mark.len() == MARK_BYTES)?;
    let number = u32::from_str_radix(start, 16).ok()?;
    Some(number % 9_999_999 * 100 + 37)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_name_and_border_counts_and_the_order_does_not() {
        let mark = |tensors: &[(&str, Range<usize>)], bytes: &[u8]| {
            let own = tensors.iter().map(|(name, place)| ((*name).to_owned(), place.clone()));
            let mut read = 0;
            let mark = mark_of(&own.collect::<Vec<_>>(), bytes, |place| read += place.len());
            assert_eq!(read, tensors.iter().map(|(_, place)| place.len()).sum::<usize>());
            mark
        };
        let of = mark(&[("a", 0..2), ("b", 2..3)], b"123");
        assert_eq!(of, mark(&[("b", 0..1), ("a", 1..3)], b"312"));
        for other in [
            mark(&[("a", 0..2), ("b", 2..3)], b"124"),
            mark(&[("a", 0..1), ("b", 1..3)], b"123"),
            mark(&[("a", 0..2), ("c", 2..3)], b"123"),
            mark(&[("a", 0..2)], b"123"),
        ] {
            assert_ne!(of, other);
        }
        assert_eq!(of.len(), MARK_BYTES);
    }

    #[test]
    fn nanoseconds_are_of_marks_alone_and_never_those_of_a_coarser_clock() {
        for start in ["00000000", "ffffffff", "0098967f", "12345678"] {
            let nanoseconds = nanoseconds_of(&start.repeat(8)).unwrap();
            assert!(
                nanoseconds < 1_000_000_000 && !nanoseconds.is_multiple_of(100),
                "{nanoseconds}"
            );
        }
        for none in ["", "12345678", &"x".repeat(MARK_BYTES), &"é".repeat(MARK_BYTES / 2)] {
            assert_eq!(nanoseconds_of(none), None);
        }
    }
}

//! JSON objects that tell whether they are as they were written: the first member is the BLAKE3 of all bytes after it.

const BEGINNING: &[u8] = b"{\"blake3\":\"";
const HEX_BYTES: usize = 2 * blake3::OUT_LEN;
const END: &[u8] = b"\",";

/// The bytes of a JSON object with at least one member, which has none called `blake3`, sealed.
pub fn seal(object: &[u8]) -> Vec<u8> {
    let members = object.get(1..).unwrap_or_default();
    let hash = blake3::hash(members).to_hex();
    [BEGINNING, hash.as_bytes(), END, members].concat()
}

/// In words, why `bytes` are not what [`seal`] gave.
pub fn check_seal(bytes: &[u8]) -> Result<(), String> {
    let sealed = || {
        let rest = bytes.strip_prefix(BEGINNING)?;
        let (hash, rest) = rest.split_at_checked(HEX_BYTES)?;
        Some((hash, rest.strip_prefix(END)?))
    };
    match sealed() {
        None => Err("it does not begin with its checksum: it is damaged, or another version wrote it".to_owned()),
        Some((hash, members)) if blake3::hash(members).to_hex().as_bytes() == hash => Ok(()),
        Some(_) => Err("it is not what its checksum says: it is damaged".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_byte_is_noticed_and_the_object_is_the_same() {
        let object = br#"{"a":[1,2],"b":"x"}"#;
        let sealed = seal(object);
        assert_eq!(check_seal(&sealed), Ok(()));
        let mut value: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
        value.as_object_mut().unwrap().remove("blake3");
        assert_eq!(value, serde_json::from_slice::<serde_json::Value>(object).unwrap());
        for i in 0..sealed.len() {
            for bit in 0..8 {
                let mut other = sealed.clone();
                other[i] ^= 1 << bit;
                assert!(check_seal(&other).is_err(), "bit {bit} of byte {i}");
            }
            assert!(check_seal(&sealed[..i]).is_err(), "the first {i} bytes");
        }
        assert!(check_seal(object).is_err());
    }
}

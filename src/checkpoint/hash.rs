//! Which model this is, as one number: for whoever keeps what a model computed.

use blake3::Hasher;
use sha2::{Digest as _, Sha256};

use super::{Checkpoint, CheckpointError, NamedBytes};
use crate::words::hexadecimal;

/// A file as others can check it: `sha256sum` gives the same, and so does the hub for weights.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileHash {
    /// A path, or `demo/…`.
    pub name: String,
    pub bytes: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

impl FileHash {
    fn new(name: &str, bytes: u64, sha256: Sha256) -> Self {
        Self {
            name: name.to_owned(),
            bytes,
            sha256: hexadecimal(&sha256.finalize()),
        }
    }
}

impl NamedBytes {
    /// The hash of a small file.
    pub fn file_hash(&self) -> FileHash {
        FileHash::new(
            &self.name,
            self.bytes.len() as u64,
            Sha256::new_with_prefix(&self.bytes),
        )
    }
}

impl Checkpoint {
    /// The hash of each weight file, as it was opened. Reads the whole of them.
    ///
    /// # Errors
    /// A file that has been written to since it was opened.
    pub fn weight_hashes(&self) -> Result<Vec<FileHash>, CheckpointError> {
        let hash = |file: &super::contents::Contents| {
            let mut sha256 = Sha256::new();
            let bytes = file.read_through(|part| sha256.update(part))?;
            Ok(FileHash::new(&file.file, bytes, sha256))
        };
        self.weight_files().iter().map(hash).collect()
    }

    /// A hash over every byte of the weights and of `settings`, `config.json`'s and what of `crag.json`'s decides answers: equal
    /// hashes mean equal representations of equal token ids, and equal probabilities.
    ///
    /// Reads the whole of the weights, on rayon's global pool.
    ///
    /// # Errors
    /// A file that has been written to since it was opened.
    pub fn model_hash(&self, settings: [Option<&[u8]>; 2]) -> Result<[u8; 32], CheckpointError> {
        let mut all = Hasher::new();
        // Each part as a hash of its own, so that no part can run over into the next.
        for file in self.weight_files() {
            let mut hasher = Hasher::new();
            file.read_through(|part| {
                hasher.update_rayon(part);
            })?;
            all.update(hasher.finalize().as_bytes());
        }
        for settings in settings {
            match settings {
                Some(bytes) => all.update(&[1]).update(blake3::hash(bytes).as_bytes()),
                None => all.update(&[0]),
            };
        }
        Ok(all.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, HubOptions, ModelSource, NamedBytes, locate};

    fn whole_file(checkpoint: &Checkpoint) -> Vec<u8> {
        let mut bytes = Vec::new();
        checkpoint.weight_files()[0]
            .read_through(|part| bytes.extend_from_slice(part))
            .unwrap();
        bytes
    }

    #[test]
    fn hashes_are_those_of_the_files() {
        let files = locate(&ModelSource::Demo, &HubOptions::default()).unwrap();
        let embedded = Checkpoint::open(&files).unwrap().weight_hashes().unwrap();
        assert_eq!(embedded.len(), 1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, whole_file(&Checkpoint::open(&files).unwrap())).unwrap();
        let copy = locate(&ModelSource::File(path.clone()), &HubOptions::default()).unwrap();
        let mapped = Checkpoint::open(&copy).unwrap().weight_hashes().unwrap();
        assert_eq!(
            (&mapped[0].sha256, mapped[0].bytes),
            (&embedded[0].sha256, embedded[0].bytes)
        );
        assert_eq!(mapped[0].name, path.display().to_string());
        // What sha256sum says of nothing, and of "abc".
        for (bytes, sha256) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (
                "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            let file = NamedBytes {
                name: "x".to_owned(),
                bytes: bytes.as_bytes().into(),
            };
            assert_eq!(file.file_hash().sha256, sha256);
        }
    }

    #[test]
    fn every_byte_of_weights_and_settings_counts() {
        let files = locate(&ModelSource::Demo, &HubOptions::default()).unwrap();
        let embedded = Checkpoint::open(&files).unwrap();
        let settings = [Some(&b"{}"[..]), None];
        let hash = embedded.model_hash(settings).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut bytes = whole_file(&embedded);
        let hash_of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let copy = locate(&ModelSource::File(path.clone()), &HubOptions::default()).unwrap();
            Checkpoint::open(&copy).unwrap().model_hash(settings).unwrap()
        };
        assert_eq!(hash_of(&bytes), hash, "the place does not count");
        *bytes.last_mut().unwrap() ^= 1;
        assert_ne!(hash_of(&bytes), hash);

        let others = [
            [None, None],
            [Some(&b""[..]), None],
            [None, Some(b"{}")],
            [Some(b"{ }"), None],
        ];
        let mut hashes: Vec<[u8; 32]> = others.map(|other| embedded.model_hash(other).unwrap()).to_vec();
        hashes.push(hash);
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 5);
    }
}

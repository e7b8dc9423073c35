//! Which model this is, as one number: for whoever keeps what a model computed.

use blake3::Hasher;

use super::{Checkpoint, ModelFiles};

impl Checkpoint {
    /// A hash over every byte of the weights, `config.json` and `crag.json`, `files` being what this was opened
    /// from: equal hashes mean equal representations of equal token ids. It covers more than that takes (the
    /// classifier, the threshold), so that no setting has to be judged here.
    ///
    /// Reads the whole of the weights, on rayon's global pool.
    pub fn model_hash(&self, files: &ModelFiles) -> [u8; 32] {
        let mut all = Hasher::new();
        // Each part as a hash of its own, so that no part can run over into the next.
        for bytes in self.file_bytes() {
            all.update(Hasher::new().update_rayon(bytes).finalize().as_bytes());
        }
        for settings in [&files.config, &files.sidecar] {
            match settings {
                Some(file) => all.update(&[1]).update(blake3::hash(&file.bytes).as_bytes()),
                None => all.update(&[0]),
            };
        }
        all.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, HubOptions, ModelSource, NamedBytes, locate};

    #[test]
    fn every_byte_of_weights_and_settings_counts() {
        let files = locate(&ModelSource::Demo, &HubOptions::default()).unwrap();
        let embedded = Checkpoint::open(&files).unwrap();
        let hash = embedded.model_hash(&files);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut bytes = embedded.file_bytes().next().unwrap().to_vec();
        let hash_of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let mut copy = locate(&ModelSource::File(path.clone()), &HubOptions::default()).unwrap();
            (copy.config, copy.sidecar) = (files.config.clone(), files.sidecar.clone());
            Checkpoint::open(&copy).unwrap().model_hash(&copy)
        };
        assert_eq!(hash_of(&bytes), hash, "the place does not count");
        *bytes.last_mut().unwrap() ^= 1;
        assert_ne!(hash_of(&bytes), hash);

        let mut other = files.clone();
        other.sidecar = None;
        let without = embedded.model_hash(&other);
        other.sidecar = Some(NamedBytes {
            name: String::new(),
            bytes: Vec::new().into(),
        });
        let empty = embedded.model_hash(&other);
        assert!(hash != without && hash != empty && without != empty);
    }
}

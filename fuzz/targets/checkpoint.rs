//! Reads bytes as a weight file: an error of one line, or every tensor with the shape that was announced.

use std::path::PathBuf;

use crag::checkpoint::{Checkpoint, CheckpointError, HubOptions, ModelSource, locate};

fn read(path: PathBuf) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::open(&locate(&ModelSource::File(path), &HubOptions::default())?)?;
    for info in checkpoint.tensors() {
        assert_eq!(checkpoint.tensor(&info.name)?.dims(), info.shape);
    }
    Ok(())
}

pub fn check(bytes: &[u8], file_name: &str) {
    let folder = std::env::temp_dir().join(format!("crag-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let path = folder.join(file_name);
    // A new file each time: the one before may still be mapped.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).expect("a temporary file");
    if let Err(error) = read(path) {
        let message = error.to_string();
        assert!(message.contains(file_name), "{message}");
        assert!(!message.contains('\n') && message.len() < 5000, "{message}");
    }
}

//! Where bytes come from: stdin, a file, or any reader with a name.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// Where bytes come from.
pub enum Input {
    Stdin,
    File(PathBuf),
    /// Any other source, with the name that messages give it.
    Reader(String, Box<dyn Read + Send>),
}

impl Input {
    /// The name in messages.
    pub fn name(&self) -> String {
        match self {
            Input::Stdin => "<stdin>".to_owned(),
            Input::File(path) => path.display().to_string(),
            Input::Reader(name, _) => name.clone(),
        }
    }

    pub fn open(self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Input::Stdin => Box::new(io::stdin()),
            Input::File(path) => Box::new(File::open(path)?),
            Input::Reader(_, reader) => reader,
        })
    }
}

//! Which records are read, and how: the same for all subcommands that read them.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::values::parse_bytes;
use super::{console, progress};
use crate::files::Input;
use crate::scoring::{MissingEntity, OutputKey};

#[derive(Debug, clap::Args)]
pub struct RecordArgs {
    /// JSONL files, read one after another; "-" or none for stdin
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Nest the answer under this key instead of adding keys to the record
    #[arg(help_heading = "Records", long, value_name = "KEY", value_parser = OutputKey::nested)]
    pub output_key: Option<OutputKey>,

    /// What to do when an entity does not occur in its text: an error, or score it without markers
    #[arg(help_heading = "Records", long, value_name = "WHAT", default_value = "error")]
    missing_entity: MissingEntityArg,

    /// Longest line; a longer one is read past and becomes an error record (KiB, MiB and GiB are understood)
    #[arg(help_heading = "Records", long, value_name = "BYTES", default_value = "16MiB", value_parser = parse_bytes)]
    pub max_line_bytes: usize,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MissingEntityArg {
    Error,
    Unmarked,
}

impl RecordArgs {
    pub fn missing_entity(&self) -> MissingEntity {
        match self.missing_entity {
            MissingEntityArg::Error => MissingEntity::Error,
            MissingEntityArg::Unmarked => MissingEntity::Unmarked,
        }
    }

    /// What can be wrong with the files before any is read.
    pub fn check_files(&self) -> anyhow::Result<()> {
        for path in self.files.iter().filter(|path| !is_stdin(path)) {
            let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
            anyhow::ensure!(
                !metadata.is_dir(),
                "{}: expected a file of JSONL records, found a folder",
                path.display()
            );
        }
        Ok(())
    }

    /// The inputs in order. Says so where one of them is typed by hand.
    pub fn inputs(&self) -> Vec<Input> {
        let input = |path: &PathBuf| match is_stdin(path) {
            true => Input::Stdin,
            false => Input::File(path.clone()),
        };
        let inputs: Vec<Input> = match self.files.is_empty() {
            true => vec![Input::Stdin],
            false => self.files.iter().map(input).collect(),
        };
        if inputs.iter().any(|input| matches!(input, Input::Stdin)) && io::stdin().is_terminal() {
            console::note("reading pairs from the terminal, one JSON object a line; ctrl-d ends");
        }
        inputs
    }

    /// Whether `path` is one of the files to read.
    pub fn reads(&self, path: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        real(path).is_some_and(|path| self.files.iter().any(|file| real(file).as_ref() == Some(&path)))
    }

    /// How many bytes of lines there are to read, if that can be known.
    pub fn total_bytes(&self) -> Option<u64> {
        progress::total_bytes(&self.files)
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

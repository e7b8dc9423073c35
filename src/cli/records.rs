//! Which records are read, and what is made of them: the same for scoring and checking.

use super::inputs::{InputArgs, Inputs};
use super::values::parse_bytes;
use crate::scoring::{MissingEntity, Options, OutputKey};
use crate::text::Truncation;

#[derive(Debug, clap::Args)]
pub struct RecordArgs {
    #[command(flatten)]
    pub input: InputArgs,

    /// Nest the answer under this key instead of adding keys to the record; in tables, the names of the columns that
    /// are added begin with it
    #[arg(help_heading = "Records", long, value_name = "KEY", value_parser = OutputKey::nested)]
    pub output_key: Option<OutputKey>,

    /// What to do when an entity does not occur in its text: an error, or score it without markers
    #[arg(help_heading = "Records", long, value_name = "WHAT", default_value = "error")]
    pub missing_entity: MissingEntityArg,

    /// Longest line; a longer one is read past and becomes an error record (KiB, MiB and GiB are understood)
    #[arg(help_heading = "Records", long, value_name = "BYTES", default_value = "16MiB", value_parser = parse_bytes)]
    max_line_bytes: usize,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum MissingEntityArg {
    Error,
    Unmarked,
}

impl From<MissingEntityArg> for MissingEntity {
    fn from(arg: MissingEntityArg) -> Self {
        match arg {
            MissingEntityArg::Error => MissingEntity::Error,
            MissingEntityArg::Unmarked => MissingEntity::Unmarked,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum WindowArg {
    Start,
    Mention,
}

impl From<WindowArg> for Truncation {
    fn from(arg: WindowArg) -> Self {
        match arg {
            WindowArg::Start => Truncation::Start,
            WindowArg::Mention => Truncation::Mention,
        }
    }
}

impl RecordArgs {
    /// What is to be read, after a look at the beginning of each file.
    pub fn resolve(&self) -> anyhow::Result<Inputs> {
        let output_key = self.output_key.clone().unwrap_or_default();
        let inputs = self.input.resolve(&output_key)?;
        inputs.check(&output_key, self.max_line_bytes)?;
        Ok(inputs)
    }

    pub fn missing_entity(&self) -> MissingEntity {
        self.missing_entity.into()
    }

    /// The options that are about records.
    pub fn options(&self, inputs: &Inputs) -> Options {
        Options {
            format: inputs.format,
            fields: inputs.fields.clone(),
            shard: inputs.shard,
            output: self.output_key.clone().unwrap_or_default(),
            max_line_bytes: self.max_line_bytes,
            ..Options::default()
        }
    }
}

//! Which one model, where the command line need not name one: `crag eval` and `crag calibrate` read records that are scored, too.

use super::UsageError;
use super::config::SettingRow;
use super::model_args::{DEFAULT_MODEL, ModelArgs, ModelFrom};

/// What goes with `--model`.
#[derive(Debug, clap::Args)]
pub struct ModelChoice {
    /// Models that the environment or a file names, for where the command line names none.
    #[arg(skip)]
    pub beneath: Vec<String>,

    #[command(flatten)]
    pub from: ModelFrom,
}

/// The model named by `name`, the one that `crag score` takes by default where none is.
pub fn model_args(name: Option<&str>, args: &ModelChoice) -> Result<ModelArgs, UsageError> {
    let model = match (name, args.beneath.as_slice()) {
        (Some(name), _) => name,
        (None, []) => DEFAULT_MODEL,
        (None, [one]) => one,
        (None, several) => {
            let message = format!(
                "expected one model, found {} in the environment or --config",
                several.len()
            );
            return Err(UsageError(message + "; name it with --model"));
        }
    };
    Ok(ModelArgs {
        model: model.to_owned(),
        from: args.from.clone(),
    })
}

/// Whether `--model` is on the command line: what the environment or a file names is a default, and does not say
/// what this call is to do.
pub fn names_model(settings: &[SettingRow]) -> bool {
    settings
        .iter()
        .any(|row| row.setting == "model" && row.is_on_command_line())
}

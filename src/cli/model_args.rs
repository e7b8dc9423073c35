//! The flags that name a model, or several.

use std::path::PathBuf;

use super::UsageError;
use crate::checkpoint::ModelSource;

/// The published model.
pub const DEFAULT_MODEL: &str = "chrisvoncsefalvay/CRAG-dual-encoder-ade";

#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// Hub id (owner/name), folder, weight file, or "demo"
    #[arg(help_heading = "Model", long, short, default_value = DEFAULT_MODEL, value_name = "MODEL")]
    pub model: String,

    #[command(flatten)]
    pub from: ModelFrom,
}

/// What goes with the name of one model.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ModelFrom {
    /// Branch, tag or commit on the hub [default: main]
    #[arg(help_heading = "Model", long, value_name = "REV")]
    pub revision: Option<String>,

    /// Make no network connection: cached files only (also HF_HUB_OFFLINE=1)
    #[arg(help_heading = "Model", long)]
    pub offline: bool,

    /// Settings to use in place of the crag.json beside the weights
    #[arg(help_heading = "Model", long, value_name = "FILE")]
    pub model_config: Option<PathBuf>,
}

/// One model, or several that answer together.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelsArgs {
    /// Hub id (owner/name), folder, weight file, or "demo"; given several times, the models' mean is the answer
    #[arg(help_heading = "Model", long, short, default_value = DEFAULT_MODEL, value_name = "MODEL")]
    model: Vec<String>,

    /// Branch, tag or commit on the hub; with several models one for each, in their order, "-" for none
    /// [default: main]
    #[arg(help_heading = "Model", long, value_name = "REV")]
    revision: Vec<String>,

    /// Make no network connection: cached files only (also HF_HUB_OFFLINE=1)
    #[arg(help_heading = "Model", long)]
    offline: bool,

    /// Settings to use in place of the crag.json beside the weights; with several models one for each, in
    /// their order, "-" for its own
    #[arg(help_heading = "Model", long, value_name = "FILE")]
    model_config: Vec<PathBuf>,
}

/// A model of a [`ModelsArgs`] and its name among them.
pub struct NamedModel {
    pub name: String,
    pub args: ModelArgs,
}

impl ModelsArgs {
    /// The files of settings that are named, and where the models' own files may lie on this machine.
    pub fn files(&self) -> Vec<PathBuf> {
        // What is no model is said when it is opened.
        let models = self
            .model
            .iter()
            .filter_map(|model| ModelSource::parse(model, None).ok());
        let own = models.flat_map(|model| model.own_files());
        self.model_config.iter().cloned().chain(own).collect()
    }

    /// Each model by itself, under a name that no other has: what was typed, and where that is the same,
    /// also the revision or the number.
    pub fn each(&self) -> Result<Vec<NamedModel>, UsageError> {
        let count = self.model.len();
        if count == 0 {
            // A list in the environment or a config file may be.
            return Err(UsageError(
                "--model: expected at least one model, found an empty list".to_owned(),
            ));
        }
        let fits = |flag: &str, found: usize| match found {
            0 => Ok(()),
            found if found == count => Ok(()),
            found => Err(UsageError(format!(
                "--{flag}: expected one for each of the {count} models, in their order (\"-\" for none), found {found}"
            ))),
        };
        fits("revision", self.revision.len())?;
        fits("model-config", self.model_config.len())?;
        let mut models: Vec<NamedModel> = Vec::with_capacity(count);
        for (i, model) in self.model.iter().enumerate() {
            let revision = self.revision.get(i).filter(|revision| *revision != "-");
            let model_config = self.model_config.get(i).filter(|path| path.as_os_str() != "-");
            let args = ModelArgs {
                model: model.clone(),
                from: ModelFrom {
                    revision: revision.cloned(),
                    offline: self.offline,
                    model_config: model_config.cloned(),
                },
            };
            if models.iter().any(|other| other.args.is_same(&args)) {
                return Err(UsageError(format!(
                    "--model {model}: given twice; an ensemble is of different models"
                )));
            }
            let is_again = self.model.iter().filter(|other| *other == model).count() > 1;
            let name = match revision {
                Some(revision) if is_again => format!("{model}@{revision}"),
                _ => model.clone(),
            };
            let taken = |name: &str| models.iter().any(|other| other.name == name);
            let numbered = (2..).map(|n| format!("{name}#{n}"));
            let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken(name));
            let name = free.unwrap_or(name);
            models.push(NamedModel { name, args });
        }
        Ok(models)
    }
}

impl ModelArgs {
    fn is_same(&self, other: &Self) -> bool {
        let path = |args: &Self| {
            let source = ModelSource::parse(&args.model, None).ok()?;
            std::fs::canonicalize(source.path()?).ok()
        };
        let is_same_model = self.model == other.model || path(self).is_some_and(|own| path(other) == Some(own));
        is_same_model && self.from == other.from
    }
}

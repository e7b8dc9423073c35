//! The models of a run, opened: each with its own tokenizer, settings and place in the cache.

use std::path::Path;
use std::sync::Arc;

use crate::Calibration;
use crate::calibration::stated;
use crate::checkpoint::CheckpointError;
use crate::cli::config::SettingRow;
use crate::cli::device::{DeviceArgs, OpenDevice};
use crate::cli::manifest::{ModelRecord, Threshold};
use crate::cli::model::{Description, OpenModel, small_files};
use crate::cli::model_args::ModelsArgs;
use crate::scoring::{Cache, Member, MissingEntity, Preparer};
use crate::text::Truncation;

/// One model, or the several of an ensemble, in the order in which they were named.
pub struct Ensemble {
    pub device: OpenDevice,
    pub models: Vec<EnsembleModel>,
}

pub struct EnsembleModel {
    pub name: String,
    pub model: OpenModel,
    pub cache: Option<Arc<Cache>>,
    /// Whether its calibration is asked for.
    calibrated: bool,
}

impl Ensemble {
    /// Opens the device once, then each model on it. One cache file serves all.
    pub fn open(models: &ModelsArgs, device: &DeviceArgs, cache: Option<&Path>) -> anyhow::Result<Self> {
        let named = models.each()?;
        let device = device.open()?;
        let mut opened: Vec<EnsembleModel> = Vec::with_capacity(named.len());
        for named in named {
            let model = named.args.open_on(device.clone())?;
            let first = opened.first().and_then(|first| first.cache.as_deref());
            let cache = match cache {
                Some(path) => Some(Arc::new(model.open_cache(path, first)?)),
                None => None,
            };
            let name = named.name;
            opened.push(EnsembleModel {
                name,
                model,
                cache,
                calibrated: false,
            });
        }
        Ok(Self { device, models: opened })
    }

    /// A hash of the calibrations, where answers are calibrated too.
    pub fn calibrations(&self) -> anyhow::Result<Option<String>> {
        let calibrated = self.models.iter().filter(|model| model.calibrated);
        let of_models: Vec<Calibration> = calibrated
            .filter_map(|model| model.model.description.config.calibration.as_ref())
            .map(Calibration::without_origin)
            .collect();
        Ok(match of_models.is_empty() {
            true => None,
            false => Some(blake3::hash(&serde_json::to_vec(&of_models)?).to_hex().to_string()),
        })
    }

    /// Has answers calibrated too. Errors on a model that has no calibration: a mean of the others would not be the
    /// ensemble's.
    pub fn calibrate(&mut self) -> anyhow::Result<()> {
        for EnsembleModel { model, calibrated, .. } in &mut self.models {
            let Description { config, files, .. } = &model.description;
            anyhow::ensure!(
                config.calibration.is_some(),
                "--calibrated: {} has no calibration in its crag.json; crag calibrate fits one",
                files.source
            );
            *calibrated = true;
        }
        Ok(())
    }

    /// The mean of the models' own thresholds, added up in f64 and rounded once: as their probabilities are.
    pub fn threshold(&self) -> f32 {
        let own = |model: &EnsembleModel| f64::from(*model.model.description.config.threshold);
        (self.models.iter().map(own).sum::<f64>() / self.models.len() as f64) as f32
    }

    /// What is in force: `given` on the command line or beneath it, else the models' own.
    pub fn threshold_record(&self, given: Option<&SettingRow>, value: f32) -> Threshold {
        let value = stated(value).into();
        let from = match (given, self.models.as_slice()) {
            (Some(given), _) => given.from.clone(),
            (None, [one]) => {
                let description = &one.model.description;
                format!("model: {}", description.source_of(&description.config.threshold))
            }
            (None, _) => "mean of the models' own".to_owned(),
        };
        Threshold { value, from }
    }

    /// What the models are made of. Reads the whole of their weights, and errors where one has been written to since it was opened.
    pub fn records(&self) -> Result<Vec<ModelRecord>, CheckpointError> {
        let record = |EnsembleModel { name, model, .. }: &EnsembleModel| {
            let description = &model.description;
            Ok(ModelRecord {
                name: name.clone(),
                source: description.files.source.clone(),
                revision: description.files.revision.clone(),
                weights: description.checkpoint.weight_hashes()?,
                files: small_files(&description.files),
                settings: description.setting_rows(),
            })
        };
        self.models.iter().map(record).collect()
    }

    /// The text side of each model.
    pub fn preparers(&self, truncation: Truncation, missing_entity: MissingEntity) -> Vec<Preparer<'_>> {
        let descriptions = self.models.iter().map(|model| &model.model.description);
        descriptions.map(|d| d.preparer(truncation, missing_entity)).collect()
    }

    /// The models as scoring takes them, each with its text side.
    pub fn members<'m>(&'m self, preparers: &'m [Preparer<'m>]) -> Vec<Member<'m>> {
        let both = self.models.iter().zip(preparers);
        both.map(|(model, prepare)| Member {
            name: model.name.clone(),
            model: &model.model.network,
            prepare,
            cache: model.cache.clone(),
            calibration: (model.calibrated)
                .then_some(model.model.description.config.calibration.as_ref())
                .flatten(),
        })
        .collect()
    }

    /// Waits until all that was stored is in the cache's file; what went wrong with it, if anything did.
    pub fn flush_cache(&self) -> Option<String> {
        // One file, whichever model's view of it.
        let cache = self.models.first()?.cache.as_ref()?;
        cache.flush().err().map(|error| error.to_string())
    }
}

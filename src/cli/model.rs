//! Opening the model that flags name: its files, its settings, its weights.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context as _;

use crate::{
    calibration::stated,
    checkpoint::{Checkpoint, FileHash, HubOptions, ModelFiles, ModelSource, NamedBytes, locate},
    files::Identity,
    model::{
        DualEncoder, ModelConfig, Placement, Roles, StoredLayouts,
        config::{Setting, Sidecar, Source, view_names},
    },
    scoring::{Cache, MissingEntity, Preparer},
    text::{Tokenizer, TokenizerFiles, Truncation},
    words::{shortened, visible},
};

use super::config::SettingRow;
use super::console;
use super::device::{DeviceArgs, OpenDevice};
use super::doubts::{check_vocabulary, doubts, markers_are_told, views_are_told, warn_of};
use super::model_args::ModelArgs;
use super::threads::start_pool;

/// A checkpoint that has been understood, with no weight loaded yet.
pub struct Description {
    pub files: ModelFiles,
    pub checkpoint: Checkpoint,
    pub roles: Roles,
    pub config: ModelConfig,
    pub tokenizer: Tokenizer,
    /// What [`doubts`] has said of it.
    pub doubts: Vec<String>,
    /// What stands in for the model's own crag.json.
    model_config: Option<PathBuf>,
    /// The notice in the model's own settings, in whose place others may be in use.
    own_notice: Option<String>,
}

/// A model ready to score.
pub struct OpenModel {
    pub description: Description,
    pub network: DualEncoder,
    /// See `OpenDevice::kernel`.
    pub kernel: String,
    /// What there is to say of packed weights that are of no use here.
    pub unused_packed: Option<String>,
    /// See [`Self::hash`].
    hash: OnceLock<[u8; 32]>,
}

/// The hashes of the small files of a model: settings and tokenizer.
pub fn small_files(files: &ModelFiles) -> Vec<FileHash> {
    let tokenizer = files.tokenizer().map(|(_, file)| file);
    let small = [&files.config, &files.sidecar].into_iter().chain(tokenizer);
    small.flatten().map(NamedBytes::file_hash).collect()
}

impl ModelArgs {
    /// Finds the files, fetching them from the hub if need be; of the weights what names and shapes say. Last the model's own notice,
    /// whatever settings it is used with.
    fn find(&self) -> anyhow::Result<(ModelFiles, Checkpoint, Option<String>)> {
        let source = ModelSource::parse(&self.model, self.from.revision.as_deref())?;
        let (mut files, checkpoint) = opened(&source, &hub_options(self.from.offline))?;
        files.warnings.iter().for_each(|warning| console::warn(warning));
        let of_model = notice(&files);
        if let Some(path) = &self.from.model_config {
            files.sidecar = Some(settings_file(path)?);
        }
        Ok((files, checkpoint, of_model))
    }

    /// The settings that the model is used with; its weights are not read.
    pub fn settings(&self) -> anyhow::Result<Option<NamedBytes>> {
        Ok(self.find()?.0.sidecar)
    }

    /// Finds the files, fetching them from the hub if need be, and reads everything but the weights.
    pub fn describe(&self) -> anyhow::Result<Description> {
        // Reading, hashing and packing weights run on it.
        start_pool(None)?;
        let (files, checkpoint, of_model) = self.find()?;
        let mut notices = vec![notice(&files), of_model.clone()];
        notices.dedup();
        notices.iter().flatten().for_each(|notice| tell(&files, notice));
        let sidecar = named(&files.sidecar).map(Sidecar::parse).transpose();
        let sidecar = sidecar.with_context(|| files.source.clone())?.unwrap_or_default();
        let roles = Roles::read_stated(checkpoint.tensors(), sidecar.projection_activation)
            .with_context(|| files.source.clone())?;
        let config = ModelConfig::read(&roles, named(&files.config), named(&files.sidecar))
            .with_context(|| files.source.clone())?;
        let tokenizer_files = TokenizerFiles {
            tokenizer_json: named(&files.tokenizer_json),
            vocab_txt: named(&files.vocab_txt),
            tokenizer_config: named(&files.tokenizer_config),
            added_tokens: named(&files.added_tokens),
            special_tokens_map: named(&files.special_tokens_map),
        };
        let tokenizer = Tokenizer::load(&tokenizer_files, *config.markers).with_context(|| files.source.clone())?;
        check_vocabulary(&files.source, &tokenizer, &roles).with_context(|| files.source.clone())?;
        let doubts = doubts(&roles, &config, &tokenizer);
        warn_of(&doubts, &files.source);
        Ok(Description {
            files,
            checkpoint,
            roles,
            config,
            tokenizer,
            doubts,
            model_config: self.from.model_config.clone(),
            own_notice: of_model,
        })
    }

    /// [`Self::describe`], then opens the device and loads the weights onto it.
    pub fn open(&self, device: &DeviceArgs) -> anyhow::Result<OpenModel> {
        self.open_on(device.open()?)
    }

    /// The same on a device that is open.
    pub fn open_on(&self, device: OpenDevice) -> anyhow::Result<OpenModel> {
        let description = self.describe()?;
        let unused_packed = description
            .stored_layouts(&device.placement)
            .filter(|layouts| !layouts.are_used())
            .map(|layouts| format!("{}: packed weights {layouts}", description.files.source));
        let network = description.load(device.placement)?;
        network.warm_up().with_context(|| description.files.source.clone())?;
        Ok(OpenModel {
            unused_packed,
            description,
            network,
            kernel: device.kernel,
            hash: OnceLock::new(),
        })
    }
}

impl OpenModel {
    /// The hash of weights and settings, which takes as long as reading a gigabyte the first time.
    fn hash(&self) -> anyhow::Result<&[u8; 32]> {
        let Description { checkpoint, files, .. } = &self.description;
        Ok(match self.hash.get() {
            Some(hash) => hash,
            None => {
                let sidecar = named(&files.sidecar).map(Sidecar::parse).transpose()?;
                let of_probabilities = sidecar.and_then(|sidecar| sidecar.of_probabilities());
                let config = files.config.as_ref().map(|file| file.bytes.as_ref());
                let hash = checkpoint.model_hash([config, of_probabilities.as_deref()])?;
                self.hash.get_or_init(|| hash)
            }
        })
    }

    /// A hash of everything that says which probabilities the model answers with: weights, settings and tokenizer.
    pub fn identity(&self) -> anyhow::Result<String> {
        let files = &self.description.files;
        let mut all = blake3::Hasher::new();
        all.update(self.hash()?);
        for (_, file) in files.tokenizer() {
            let bytes = file.as_ref().map(|file| file.bytes.as_ref());
            // A missing file is no empty one.
            all.update(&[u8::from(bytes.is_some())]);
            all.update(blake3::hash(bytes.unwrap_or_default()).as_bytes());
        }
        Ok(all.finalize().to_hex().to_string())
    }

    /// The cache at `path`, as far as it is this model's on this device; `opened` by another model already,
    /// if by any.
    pub fn open_cache(&self, path: &Path, opened: Option<&Cache>) -> anyhow::Result<Cache> {
        Ok(match opened {
            Some(cache) => cache.of_model(self.hash()?, &self.kernel),
            None => Cache::open(path, self.hash()?, &self.kernel)?,
        })
    }
}

impl Description {
    /// What the model is beyond its shapes, and where each came from.
    pub fn setting_rows(&self) -> Vec<SettingRow> {
        let mut rows = Vec::new();
        let mut row = |setting: &'static str, from: String, value: serde_json::Value| {
            let setting = setting.to_owned();
            rows.push(SettingRow { setting, value, from });
        };
        let c = &self.config;
        macro_rules! rows {
            ($($setting:ident = $value:expr;)*) => {
                $(row(stringify!($setting), self.source_of(&c.$setting), $value.into());)*
            };
        }
        rows! {
            num_attention_heads = *c.num_attention_heads;
            layer_norm_eps = *c.layer_norm_eps;
            hidden_act = c.hidden_act.name();
            pooling = c.pooling.name();
            pooling_heads = *c.pooling_heads;
            views = view_names(&c.views);
            activation = c.activation.name();
        }
        if let Some(projections) = &c.projection_activation {
            row(
                "projection_activation",
                self.source_of(projections),
                (**projections).into(),
            );
        }
        rows! {
            markers = *c.markers;
            max_length = *c.max_length;
            threshold = stated(*c.threshold);
        }
        if let Some(calibration) = &c.calibration {
            let stated = Setting {
                value: calibration.method(),
                source: Source::CragJson,
            };
            row("calibration", self.source_of(&stated), stated.value.into());
        }
        rows
    }

    /// The text side.
    pub fn preparer(&self, truncation: Truncation, missing_entity: MissingEntity) -> Preparer<'_> {
        Preparer {
            tokenizer: &self.tokenizer,
            markers: *self.config.markers,
            max_length: *self.config.max_length,
            truncation,
            missing_entity,
        }
    }

    /// Where a setting was read, as whoever looks it up there needs it.
    pub fn source_of<T>(&self, setting: &Setting<T>) -> String {
        match (setting.source, &self.model_config) {
            (Source::CragJson, Some(path)) => format!("{} (--model-config)", path.display()),
            (source, _) => source.to_string(),
        }
    }

    /// The settings in use, but those that are doubted: once they are stated, nobody would hear of it any more.
    pub fn settings(&self) -> Sidecar {
        let mut settings = self.config.to_sidecar();
        settings.notice = settings.notice.or_else(|| self.own_notice.clone());
        if self.roles.end_guess.is_some() {
            settings.projection_activation = None;
        }
        if !views_are_told(&self.roles, &self.config) {
            settings.views = None;
        }
        if !markers_are_told(&self.roles, &self.config, &self.tokenizer) {
            settings.markers = None;
        }
        settings
    }

    /// The packed weights beside the model's own; a GPU has no use for any.
    pub fn stored_layouts(&self, placement: &Placement) -> Option<StoredLayouts> {
        let on_cpu = placement.device.is_cpu();
        on_cpu.then(|| StoredLayouts::of(&self.checkpoint, &self.roles, placement.precision))?
    }

    fn load(&self, placement: Placement) -> anyhow::Result<DualEncoder> {
        DualEncoder::load(&self.checkpoint, &self.roles, &self.config, placement)
            .with_context(|| self.files.source.clone())
    }
}

/// How to reach the hub, by the environment and `--offline`.
pub fn hub_options(offline: bool) -> HubOptions {
    let mut hub = HubOptions::from_env();
    hub.offline |= offline;
    hub.progress &= console::can_draw();
    hub.tell = Some(console::note);
    hub
}

/// What `crag.json` has for whoever uses the model, if it can be read; else reading it for its settings tells.
fn notice(files: &ModelFiles) -> Option<String> {
    let sidecar = named(&files.sidecar).and_then(|file| Sidecar::parse(file).ok());
    sidecar.and_then(|sidecar| sidecar.notice)
}

fn tell(files: &ModelFiles, notice: &str) {
    let notice = shortened(notice, NOTICE_CHARACTERS);
    console::warn(&visible(&format!("{}: {notice}", files.source)));
}

/// Characters of a model's notice that are shown.
const NOTICE_CHARACTERS: usize = 500;

/// The file that `--model-config` names.
pub fn settings_file(path: &Path) -> anyhow::Result<NamedBytes> {
    NamedBytes::read(path).context("--model-config")
}

/// The files of one model, all of one moment: its folder may be replaced by another while it is read.
fn opened(source: &ModelSource, hub: &HubOptions) -> anyhow::Result<(ModelFiles, Checkpoint)> {
    const ATTEMPTS: usize = 10;
    let folder = source.path().filter(|path| path.is_dir());
    let identity = || folder.and_then(|folder| Identity::of_path(folder).ok().flatten());
    for _ in 1..ATTEMPTS {
        let before = identity();
        let files = locate(source, hub)?;
        let checkpoint = Checkpoint::open(&files);
        if identity() == before {
            return Ok((files, checkpoint?));
        }
    }
    let files = locate(source, hub)?;
    let checkpoint = Checkpoint::open(&files)?;
    Ok((files, checkpoint))
}

fn named(file: &Option<NamedBytes>) -> Option<(&str, &[u8])> {
    file.as_ref().map(|f| (f.name.as_str(), f.bytes.as_ref()))
}

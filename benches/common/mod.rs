//! A model to measure: the folder that `CRAG_BENCH_MODEL` names, else the built-in demo.

use std::path::PathBuf;

use candle_core::Device;
use crag::{
    checkpoint::{Checkpoint, HubOptions, ModelFiles, ModelSource, NamedBytes, locate},
    kernels::Precision,
    model::{DualEncoder, ModelConfig, Placement, Roles},
    text::{Tokenizer, TokenizerFiles},
};

/// A model's description; its weights are loaded by [`Model::load`].
pub struct Model {
    pub name: String,
    pub config: ModelConfig,
    pub tokenizer: Tokenizer,
    checkpoint: Checkpoint,
    roles: Roles,
}

impl Model {
    pub fn describe() -> Self {
        let folder = std::env::var_os("CRAG_BENCH_MODEL").map(PathBuf::from);
        let name = folder.as_ref().map_or("demo".into(), |f| f.display().to_string());
        let source = folder.map_or(ModelSource::Demo, ModelSource::Folder);
        let files: ModelFiles = locate(&source, &HubOptions::default()).expect("the model's files");
        let named = |f: &Option<NamedBytes>| f.clone().map(|f| (f.name, f.bytes));
        let (config, sidecar) = (named(&files.config), named(&files.sidecar));
        let json = named(&files.tokenizer_json);
        let (vocab, settings) = (named(&files.vocab_txt), named(&files.tokenizer_config));
        fn view<'a>(file: &'a Option<(String, std::borrow::Cow<'static, [u8]>)>) -> Option<(&'a str, &'a [u8])> {
            file.as_ref().map(|(name, bytes)| (name.as_str(), bytes.as_ref()))
        }
        let checkpoint = Checkpoint::open(&files).expect("weights");
        let roles = Roles::read(checkpoint.tensors()).expect("a dual encoder");
        let config = ModelConfig::read(&roles, view(&config), view(&sidecar)).expect("settings");
        let files = TokenizerFiles {
            tokenizer_json: view(&json),
            vocab_txt: view(&vocab),
            tokenizer_config: view(&settings),
            ..TokenizerFiles::default()
        };
        let tokenizer = Tokenizer::load(&files, *config.markers).expect("a tokenizer");
        Self {
            name,
            config,
            tokenizer,
            checkpoint,
            roles,
        }
    }

    pub fn load(&self, precision: Precision) -> DualEncoder {
        let placement = Placement {
            device: Device::Cpu,
            precision,
        };
        DualEncoder::load(&self.checkpoint, &self.roles, &self.config, placement).expect("a network")
    }
}

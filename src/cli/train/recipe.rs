//! The recipe in flags: each goes before its key in the TOML file.

use crate::{
    cli::values::{parse_number, parse_whole},
    model::{Pooling, View},
    training::{NegativeKind, Settings},
};

/// Each overrides its key in the TOML file.
#[derive(Debug, Default, clap::Args)]
pub struct RecipeArgs {
    /// [seed = 42] Everything random follows from it
    #[arg(long, value_name = "N", value_parser = parse_whole::<u64>)]
    seed: Option<u64>,
    /// [dropout = 0.1] Share of elements that training zeroes, in encoders and head
    #[arg(long, value_name = "SHARE", value_parser = parse_number)]
    dropout: Option<f64>,
    /// [valid_fraction = 0.1] Share of documents to validate on
    #[arg(long, value_name = "SHARE", value_parser = parse_number)]
    valid_fraction: Option<f64>,
    /// [negatives.kind] Negatives to mine, as many as related pairs [default: hard where the data has fewer than half as
    /// many unrelated pairs as related ones, else none]
    #[arg(long, value_enum, value_name = "KIND")]
    negatives: Option<Negatives>,
    /// [negatives.hard_ratio = 0.5] Share of mined negatives that are hard; the others are drawn at random
    #[arg(long, value_name = "SHARE", value_parser = parse_number)]
    hard_ratio: Option<f64>,
    /// [head.pooling = attention] From hidden states to one vector
    #[arg(long, value_enum, value_name = "KIND")]
    pooling: Option<PoolingArg>,
    /// [head.pooling_heads = 4] Heads of attention pooling
    #[arg(long, value_name = "N", value_parser = parse_whole::<usize>)]
    pooling_heads: Option<usize>,
    /// [head.views = bilinear,product] The classifier's input, in order: of bilinear, drug, adr, product, abs_diff
    #[arg(long, value_delimiter = ',', value_parser = parse_view, value_name = "VIEW,…")]
    views: Option<Vec<View>>,
    /// [head.width = 256] Width of representations
    #[arg(long, value_name = "N", value_parser = parse_whole::<usize>)]
    width: Option<usize>,
    /// [head.markers = true] Train without entity markers
    #[arg(long)]
    no_markers: bool,
    /// [head.max_length = 128] Tokens of a text at most
    #[arg(long, value_name = "N", value_parser = parse_whole::<usize>)]
    max_length: Option<usize>,
    /// [contrastive.epochs = 5] Of phase 1; 0 leaves it out
    #[arg(long, value_name = "N", value_parser = parse_whole::<usize>)]
    contrastive_epochs: Option<usize>,
    /// [contrastive.learning_rate = 2e-5] Of phase 1, at its highest
    #[arg(long, value_name = "RATE", value_parser = parse_number)]
    contrastive_learning_rate: Option<f64>,
    /// [contrastive.temperature = 0.05] By which similarities are divided before their softmax (InfoNCE)
    #[arg(long, value_name = "T", value_parser = parse_number)]
    temperature: Option<f64>,
    /// [finetune.epochs = 8] Of phase 2
    #[arg(long, value_name = "N", value_parser = parse_whole::<usize>)]
    epochs: Option<usize>,
    /// [finetune.learning_rate = 2e-5] Of phase 2, at its highest
    #[arg(long, value_name = "RATE", value_parser = parse_number)]
    learning_rate: Option<f64>,
    /// [finetune.focal_gamma = 2] How much less pairs weigh that are right already (focal loss)
    #[arg(long, value_name = "GAMMA", value_parser = parse_number)]
    focal_gamma: Option<f64>,
    /// [finetune.focal_alpha = 0.75] Weight of related pairs
    #[arg(long, value_name = "ALPHA", value_parser = parse_number)]
    focal_alpha: Option<f64>,
    /// [contrastive.batch_size = 16, finetune.batch_size = 16] Pairs in a batch of either phase
    #[arg(long, value_name = "N", value_parser = parse_whole::<usize>)]
    batch_size: Option<usize>,
    /// [contrastive.accumulation = 4, finetune.accumulation = 4] Batches in an optimizer step of either phase
    #[arg(long, value_name = "N", value_parser = parse_whole::<usize>)]
    accumulation: Option<usize>,
    /// [optimizer.warmup_ratio = 0.1] Share of a phase in which the learning rate rises
    #[arg(long, value_name = "SHARE", value_parser = parse_number)]
    warmup_ratio: Option<f64>,
    /// [optimizer.layerwise_decay = 0.9] Factor of the learning rate from one layer to the one beneath
    #[arg(long, value_name = "FACTOR", value_parser = parse_number)]
    layerwise_decay: Option<f64>,
    /// [optimizer.weight_decay = 0.01] Of AdamW
    #[arg(long, value_name = "DECAY", value_parser = parse_number)]
    weight_decay: Option<f64>,
    /// [optimizer.max_grad_norm = 1] Gradients of a larger norm are scaled down to it
    #[arg(long, value_name = "NORM", value_parser = parse_number)]
    max_grad_norm: Option<f64>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Negatives {
    Hard,
    Random,
    None,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PoolingArg {
    Attention,
    Mean,
    Cls,
}

fn parse_view(name: &str) -> Result<View, String> {
    let all = View::ALL;
    let found = all.into_iter().find(|view| view.name() == name);
    found.ok_or_else(|| format!("expected one of {}", all.map(View::name).join(", ")))
}

impl RecipeArgs {
    /// Puts what was given into `settings`.
    pub fn apply(&self, settings: &mut Settings) {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut settings.seed, &self.seed);
        set(&mut settings.dropout, &self.dropout);
        set(&mut settings.valid_fraction, &self.valid_fraction);
        let kind = self.negatives.map(|kind| match kind {
            Negatives::Hard => NegativeKind::Hard,
            Negatives::Random => NegativeKind::Random,
            Negatives::None => NegativeKind::None,
        });
        settings.negatives.kind = kind.or(settings.negatives.kind);
        set(&mut settings.negatives.hard_ratio, &self.hard_ratio);
        let pooling = self.pooling.map(|kind| match kind {
            PoolingArg::Attention => Pooling::Attention,
            PoolingArg::Mean => Pooling::Mean,
            PoolingArg::Cls => Pooling::Cls,
        });
        let head = &mut settings.head;
        set(&mut head.pooling, &pooling);
        set(&mut head.pooling_heads, &self.pooling_heads);
        set(&mut head.views, &self.views);
        set(&mut head.width, &self.width);
        set(&mut head.max_length, &self.max_length);
        head.markers &= !self.no_markers;
        let (contrastive, finetune) = (&mut settings.contrastive, &mut settings.finetune);
        set(&mut contrastive.epochs, &self.contrastive_epochs);
        set(&mut contrastive.learning_rate, &self.contrastive_learning_rate);
        set(&mut contrastive.temperature, &self.temperature);
        set(&mut contrastive.batch_size, &self.batch_size);
        set(&mut contrastive.accumulation, &self.accumulation);
        set(&mut finetune.epochs, &self.epochs);
        set(&mut finetune.learning_rate, &self.learning_rate);
        set(&mut finetune.focal_gamma, &self.focal_gamma);
        set(&mut finetune.focal_alpha, &self.focal_alpha);
        set(&mut finetune.batch_size, &self.batch_size);
        set(&mut finetune.accumulation, &self.accumulation);
        let optimizer = &mut settings.optimizer;
        set(&mut optimizer.warmup_ratio, &self.warmup_ratio);
        set(&mut optimizer.layerwise_decay, &self.layerwise_decay);
        set(&mut optimizer.weight_decay, &self.weight_decay);
        set(&mut optimizer.max_grad_norm, &self.max_grad_norm);
    }
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn keys_in_brackets_are_keys_of_the_recipe() {
        let mut settings = Settings::default();
        settings.negatives.kind = Some(NegativeKind::Hard);
        let recipe = serde_json::to_value(settings).unwrap();
        let command = RecipeArgs::augment_args(clap::Command::new("train"));
        for flag in command.get_arguments() {
            let help = flag.get_help().unwrap().to_string();
            let (keys, _) = help.strip_prefix('[').and_then(|help| help.split_once(']')).unwrap();
            for key in keys.split(", ") {
                let (name, _) = key.split_once(" = ").unwrap_or((key, ""));
                let found = name.split('.').try_fold(&recipe, |table, part| table.get(part));
                assert!(found.is_some(), "{help}");
            }
        }
    }
}

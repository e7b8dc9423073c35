//! What a checkpoint that can be used leaves open, and whether its vocabulary is the tokenizer's.

use super::console;
use super::values::quoted_list;
use crate::Side;
use crate::model::config::{ATTENTION_HEAD_SIZE, Source, view_names, view_sets};
use crate::model::{ModelConfig, Roles};
use crate::text::Tokenizer;

/// What is open: each way to take it is right for some model, and on another every probability is wrong.
pub fn doubts(roles: &Roles, config: &ModelConfig, tokenizer: &Tokenizer) -> Vec<String> {
    let mut doubts = tokenizer.doubts().to_vec();
    if config.num_attention_heads.source == Source::Default {
        doubts.push(format!(
            "no config.json states num_attention_heads, so {} of BERT's usual width {ATTENTION_HEAD_SIZE} are taken: if the backbone has another \
             number, every probability is wrong; put its config.json beside the weights, or write {{\"num_attention_heads\": N}} into one",
            *config.num_attention_heads
        ));
    }
    if let Some(family) = &config.unknown_family {
        doubts.push(format!(
            "config.json says \"model_type\": \"{family}\", and what is computed is BERT: if that family's encoder is another \
             (positions, order of norms, attention), every probability is wrong; compare with the original's answers, and state \
             \"bert\" if they are the same"
        ));
    }
    if !views_are_told(roles, config) {
        doubts.push(format!(
            "nothing states which views the classifier reads, and {} are taken, one of {} sets of its width: if the model was trained with \
             another, every probability is wrong; crag verify tells of the published model, and {{\"views\": […]}} in crag.json states them",
            view_names(&config.views),
            view_sets(roles).len()
        ));
    }
    if !markers_are_told(roles, config, tokenizer) {
        doubts.push(format!(
            "no file of the tokenizer has the entity markers, and the word embeddings' {} rows do not tell whether the model was trained \
             with them ({} ids, markers included): if it was not, every probability is wrong; write {{\"markers\": true}} or \
             {{\"markers\": false}} into crag.json",
            roles.encoder(Side::Drug).vocab_size,
            tokenizer.vocab_size()
        ));
    }
    for guess in &roles.guesses {
        doubts.push(format!(
            "{guess}: if the model was trained otherwise, every probability is wrong; compare with its nn.Sequential, and \
             number its tensors so that the activation's index alone is missing between two linear layers"
        ));
    }
    if let Some(guess) = &roles.end_guess {
        doubts.push(format!(
            "{guess}: if the model was trained otherwise, every probability is wrong; compare with its code, and write \
             {{\"projection_activation\": true}} or {{\"projection_activation\": false}} into crag.json"
        ));
    }
    let without_bias = roles.without_bias();
    if !without_bias.is_empty() {
        doubts.push(format!(
            "no bias goes with {}, but others of the head have one: if one was lost, every probability is \
             wrong; compare with the original file",
            quoted_list(&without_bias)
        ));
    }
    doubts
}

/// Whether `crag.json` tells which views the classifier reads, or no others fit.
pub fn views_are_told(roles: &Roles, config: &ModelConfig) -> bool {
    config.views.source != Source::Default || view_sets(roles).len() == 1
}

/// Whether anything tells that the model was trained with markers or without: `crag.json`, the tokenizer's files, or a row of the
/// embeddings for each.
pub fn markers_are_told(roles: &Roles, config: &ModelConfig, tokenizer: &Tokenizer) -> bool {
    let is_a_row_each = Side::BOTH.map(|side| roles.encoder(side).vocab_size) == [tokenizer.vocab_size(); 2];
    config.markers.source != Source::Default || tokenizer.files_have_markers() || is_a_row_each
}

pub fn warn_of(doubts: &[String], source: &str) {
    doubts
        .iter()
        .for_each(|doubt| console::warn(&format!("{source}: {doubt}")));
}

/// Every token id must have a row in both word embeddings; where there are many more rows, a warning.
pub fn check_vocabulary(source: &str, tokenizer: &Tokenizer, roles: &Roles) -> anyhow::Result<()> {
    let mut warned = false;
    for side in Side::BOTH {
        let encoder = roles.encoder(side);
        let rows = encoder.vocab_size;
        if let Some(id) = tokenizer
            .marker_ids()
            .and_then(|ids| ids.into_iter().find(|&id| id as usize >= rows))
        {
            anyhow::bail!(
                "tensor \"{}\": expected a row for each entity marker, one of which has id {id}, found {rows} rows; \
                 if the model was trained without markers, write {{\"markers\": false}} into crag.json",
                encoder.word_embeddings
            );
        }
        let ids = tokenizer.vocab_size();
        if ids > rows {
            anyhow::bail!(
                "tensor \"{}\": expected a row for each of the tokenizer's {ids} entries, found {rows} rows; \
                 are tokenizer and weights from the same revision?",
                encoder.word_embeddings
            );
        }
        if !is_padding(rows - ids, rows) && !warned {
            warned = true;
            console::warn(&format!(
                "{source}: the word embeddings have {rows} rows, the tokenizer {ids} ids: if its vocabulary was cut short or \
                 is another model's, every probability is wrong"
            ));
        }
    }
    Ok(())
}

/// Whether that many rows more than there are ids are what some training scripts round up to: a multiple of 8 to 128.
fn is_padding(spare: usize, rows: usize) -> bool {
    spare == 0 || (spare < 128 && rows.is_multiple_of(8))
}

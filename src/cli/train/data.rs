//! What is trained on: files read, split and tokenized, and what there is to say of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::TrainArgs;
use crate::checkpoint::FileHash;
use crate::cli::inputs::{format_of, input, note_typing};
use crate::cli::labelled::of_several_fields;
use crate::cli::{UsageError, console, note};
use crate::evaluation::Fields;
use crate::scoring::{Format, RowsAsJson};
use crate::training::{
    LabelledPairs, NegativeKind, Relations, Settings, Source, Split, Start,
    dataset::{self, Dataset},
};
use crate::words::counted;

/// What was read, tokenized and split.
pub struct Data {
    pub train: Dataset,
    pub valid: Dataset,
    pub related: Relations,
    pub negatives: NegativeKind,
    pub files: Vec<FileHash>,
    /// `file:line: reason`
    pub rejected: Vec<String>,
}

impl TrainArgs {
    /// All pairs, split by document, and the files as they were read.
    pub(super) fn read(&self, settings: &Settings) -> anyhow::Result<(Split, LabelledPairs, Vec<FileHash>)> {
        let fields = Fields {
            gold: self.gold.clone(),
            document: self.document.clone(),
            ..Fields::default()
        };
        let mut files = Vec::new();
        let mut read = |paths: &[PathBuf]| -> anyhow::Result<LabelledPairs> {
            let mut pairs = LabelledPairs::default();
            for path in paths {
                files.push(self.read_file(path, &fields, &mut pairs)?);
            }
            Ok(pairs)
        };
        let (pairs, mut held_out) = (read(&self.train)?, read(&self.valid)?);
        let mut all = pairs.clone();
        all.rejected.append(&mut held_out.rejected);
        let without_document =
            |pairs: &LabelledPairs| pairs.pairs.iter().filter(|pair| pair.document.is_none()).count();
        let without_documents = without_document(&pairs) + without_document(&held_out);
        if without_documents == pairs.pairs.len() + held_out.pairs.len() {
            if let Some(field) = &self.document {
                let message = format!("--document {field}: no record has a string or a number in this field");
                return Err(UsageError(message).into());
            }
            note(
                "no record names its document, so each text is one of its own; if several are of one document, name the \
                 field with --document",
            );
        } else if without_documents > 0 {
            console::warn(&format!(
                "{} no document, so each text of theirs is one of its own: it may be trained on while another of the same \
                 document is validated on; --document names the field that all have",
                counted(without_documents as u64, "pair names", "pairs name")
            ));
        }
        let documents = pairs
            .pairs
            .iter()
            .chain(&held_out.pairs)
            .filter_map(|pair| pair.document.as_ref());
        let fields: BTreeSet<&str> = documents.map(|(field, _)| field.as_str()).collect();
        if fields.len() > 1 {
            console::warn(&of_several_fields(&fields));
        }
        let split = match self.valid.is_empty() {
            true => Split::by_fraction(pairs.pairs, settings.valid_fraction, settings.seed),
            false => Split::of_files(pairs.pairs, held_out.pairs),
        };
        if split.shared > 0 {
            note(&format!(
                "{} pairs are left out of training: their documents are in the validation file",
                split.shared
            ));
        }
        if split.repeated > 0 {
            console::warn(&format!(
                "{} pairs to train on have a text that is validated on too, in another document or one without a name: \
                 validation will flatter the model",
                split.repeated
            ));
        }
        if split.valid.is_empty() {
            let message = format!(
                "valid_fraction: {} of all documents are none; give a larger share, or the pairs to validate on (--valid)",
                settings.valid_fraction
            );
            return Err(UsageError(message).into());
        }
        if split.train.is_empty() && self.valid.is_empty() {
            let message = format!(
                "valid_fraction: {} of all documents are all of them; give a smaller share, or the pairs to validate on (--valid)",
                settings.valid_fraction
            );
            return Err(UsageError(message).into());
        }
        Ok((split, all, files))
    }

    fn read_file(&self, path: &Path, fields: &Fields, pairs: &mut LabelledPairs) -> anyhow::Result<FileHash> {
        let file = input(path);
        note_typing(
            std::slice::from_ref(&file),
            "records from the terminal, one JSON object a line",
        );
        let name = file.name();
        let mut open = file.open().with_context(|| name.clone())?;
        let source = Source {
            name: &name,
            fields,
            max_line_bytes: self.max_line_bytes,
        };
        let is_labelled = match format_of(None, std::slice::from_ref(&path.to_owned()))? {
            Format::Jsonl => pairs.read(&source, &mut open)?,
            format => {
                let rows = RowsAsJson::new(&mut open, &name, format, self.max_line_bytes, None)?;
                // Rows that are too long have been told; quotes and keys make the others longer.
                let source = Source {
                    max_line_bytes: usize::MAX,
                    ..source
                };
                pairs.read(&source, rows)?
            }
        };
        if !is_labelled {
            if self.gold != Fields::default().gold {
                let message = format!("--gold {}: no record of {name} has this field", self.gold);
                return Err(UsageError(message).into());
            }
            note(&format!(
                "{name}: no record has \"{}\", so all its pairs are taken as related",
                self.gold
            ));
        }
        let digest = open.finish().with_context(|| name.clone())?;
        Ok(FileHash {
            name,
            bytes: digest.bytes,
            sha256: digest.sha256_hex(),
        })
    }
}

/// Token ids of both halves; says what is no pair.
pub fn prepare(
    settings: &Settings,
    start: &Start,
    split: &Split,
    all: &LabelledPairs,
    files: Vec<FileHash>,
) -> anyhow::Result<Data> {
    let preparer = dataset::preparer(&settings.head, &start.tokenizer);
    let mut rejected = all.rejected.clone();
    let (train, valid) = dataset::prepare(split, &preparer, &mut rejected);
    let relations = Relations::of(&train, &valid);
    let negatives = settings.negatives.kind.unwrap_or(match train.is_short_of_negatives() {
        true => NegativeKind::Hard,
        false => NegativeKind::None,
    });
    let related = train.positives().len();
    let unrelated = train.examples.len() - related;
    if settings.negatives.kind.is_none() && unrelated > 0 && train.is_short_of_negatives() {
        note(&format!(
            "{unrelated} pairs to train on are labelled unrelated, fewer than half as many as the {related} related ones, so \
             that negatives are mined too (--negatives none leaves that out)"
        ));
    }
    report_rejected(&rejected);
    let length = settings.head.max_length;
    report_doubts("", &train, length, "teach nothing of it");
    report_doubts("validation: ", &valid, length, "are judged without it");
    dataset::check(split, &train, &valid, negatives != NegativeKind::None)?;
    Ok(Data {
        train,
        valid,
        related: relations,
        negatives,
        files,
        rejected,
    })
}

/// Says what is odd about pairs that are used all the same. `half`: which of the data's, before each sentence; `cut`: what
/// comes of a mention that is cut off.
fn report_doubts(half: &str, data: &Dataset, max_length: usize, cut: &str) {
    let contexts = data.texts.iter().map(Vec::len).sum::<usize>();
    if data.truncated > 0 {
        console::warn(&format!(
            "{half}{} of {contexts} contexts have no whole mention in their first {max_length} tokens, and {cut}",
            data.truncated
        ));
    }
    let contradicted = data.contradicted();
    if contradicted > 0 {
        console::warn(&format!(
            "{half}{contradicted} pairs come both as related and as unrelated"
        ));
    }
}

pub fn report_rejected(rejected: &[String]) {
    const SHOWN: usize = 5;
    for reason in rejected.iter().take(SHOWN) {
        console::warn(reason);
    }
    if rejected.len() > SHOWN {
        console::warn(&format!(
            "and {} more lines that are no labelled pairs",
            rejected.len() - SHOWN
        ));
    }
}

//! `crag inspect`: what a checkpoint holds and how it was understood.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::model::StoredLayouts;
use crate::words::{thousands, visible};

use super::{Outcome, config::SettingRow, device::DeviceArgs, model::Description, model_args::ModelArgs};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 done; 1 no such model, or it cannot be read; 2 usage; 141 whoever read stdout stopped reading."
)]
pub struct InspectArgs {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// Print one JSON object with every tensor
    #[arg(long)]
    json: bool,
}

pub fn run(args: InspectArgs) -> anyhow::Result<Outcome> {
    let device = args.device.open()?;
    let model = args.model.describe()?;
    let layouts = model.stored_layouts(&device.placement);
    let report = Report::new(&model, device.description, layouts);
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        // Names in it are the file's.
        false => report.table()?.lines().map(|line| visible(line) + "\n").collect(),
    };
    super::print(&text)
}

#[derive(Serialize)]
struct Report {
    model: String,
    revision: Option<String>,
    storage: String,
    tokenizer: String,
    device: String,
    packed: Option<PackedRow>,
    /// What may be wrong with it, in words.
    doubts: Vec<String>,
    parameters: usize,
    parts: Vec<Part>,
    settings: Vec<SourceRow>,
    tensors: Vec<TensorRow>,
}

/// Packed weights that the folder holds, and whether this kernel uses them with this `--dtype`.
#[derive(Serialize)]
struct PackedRow {
    layouts: Vec<String>,
    wanted: String,
    used: bool,
    #[serde(skip)]
    text: String,
}

#[derive(Serialize)]
struct Part {
    part: String,
    tensors: usize,
    parameters: usize,
}

#[derive(Serialize)]
struct SourceRow {
    setting: String,
    value: serde_json::Value,
    source: String,
}

impl From<SettingRow> for SourceRow {
    fn from(SettingRow { setting, value, from }: SettingRow) -> Self {
        Self {
            setting,
            value,
            source: from,
        }
    }
}

#[derive(Serialize)]
struct TensorRow {
    part: String,
    role: String,
    tensor: String,
    shape: Vec<usize>,
    dtype: String,
    file: String,
}

impl Report {
    fn new(model: &Description, device: String, layouts: Option<StoredLayouts>) -> Self {
        let info: BTreeMap<&str, _> = model
            .checkpoint
            .tensors()
            .iter()
            .map(|t| (t.name.as_str(), t))
            .collect();
        let tensors: Vec<TensorRow> = model
            .roles
            .assignments()
            .into_iter()
            .filter_map(|assigned| {
                let info = info.get(assigned.tensor.as_str())?;
                Some(TensorRow {
                    part: assigned.part,
                    role: assigned.role,
                    tensor: assigned.tensor,
                    shape: info.shape.clone(),
                    dtype: info.dtype.as_str().to_owned(),
                    file: info.file.clone(),
                })
            })
            .collect();
        let mut parts: Vec<Part> = Vec::new();
        for row in &tensors {
            let parameters = row.shape.iter().product();
            match parts.iter_mut().find(|p| p.part == row.part) {
                Some(part) => {
                    part.tensors += 1;
                    part.parameters += parameters;
                }
                None => parts.push(Part {
                    part: row.part.clone(),
                    tensors: 1,
                    parameters,
                }),
            }
        }
        Self {
            model: model.files.source.clone(),
            revision: model.files.revision.clone(),
            storage: model.checkpoint.storage().to_owned(),
            tokenizer: model.tokenizer.description(),
            device,
            packed: layouts.map(|layouts| PackedRow {
                used: layouts.are_used(),
                text: layouts.to_string(),
                layouts: layouts.found,
                wanted: layouts.wanted,
            }),
            doubts: model.doubts.clone(),
            parameters: parts.iter().map(|p| p.parameters).sum(),
            parts,
            settings: model.setting_rows().into_iter().map(SourceRow::from).collect(),
            tensors,
        }
    }

    fn table(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        writeln!(out, "model      {}", self.model)?;
        if let Some(revision) = &self.revision {
            writeln!(out, "revision   {revision}")?;
        }
        writeln!(out, "storage    {}", self.storage)?;
        writeln!(out, "tokenizer  {}", self.tokenizer)?;
        writeln!(out, "device     {}", self.device)?;
        if let Some(packed) = &self.packed {
            writeln!(out, "packed     {}", packed.text)?;
        }
        for doubt in &self.doubts {
            writeln!(out, "doubtful   {doubt}")?;
        }
        writeln!(out, "\n{:<22} {:<44} source", "setting", "value")?;
        for row in &self.settings {
            let value = match &row.value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            writeln!(out, "{:<22} {value:<44} {}", row.setting, row.source)?;
        }
        writeln!(
            out,
            "\n{:<18} {:<44} {:<18} {:<6} tensor",
            "part", "role", "shape", "dtype"
        )?;
        for row in self.folded() {
            writeln!(
                out,
                "{:<18} {:<44} {:<18} {:<6} {}",
                row.part,
                row.role,
                shape(&row.shape),
                row.dtype,
                row.tensor
            )?;
        }
        writeln!(out, "\n{:<18} {:>8} {:>14}", "part", "tensors", "parameters")?;
        for part in &self.parts {
            writeln!(
                out,
                "{:<18} {:>8} {:>14}",
                part.part,
                part.tensors,
                thousands(part.parameters)
            )?;
        }
        writeln!(
            out,
            "{:<18} {:>8} {:>14}",
            "total",
            self.tensors.len(),
            thousands(self.parameters)
        )?;
        Ok(out)
    }

    /// The tensors with equal roles of an encoder's layers folded into one row.
    fn folded(&self) -> Vec<TensorRow> {
        let mut rows: Vec<(TensorRow, usize)> = Vec::new();
        for row in &self.tensors {
            let role = layer_role(&row.role).map(|(_, role)| role);
            let known = role.and_then(|role| {
                rows.iter_mut().find(|(r, _)| {
                    r.part == row.part
                        && r.shape == row.shape
                        && r.dtype == row.dtype
                        && layer_role(&r.role).is_some_and(|(_, r)| r == role)
                })
            });
            match known {
                Some((_, count)) => *count += 1,
                None => rows.push((
                    TensorRow {
                        part: row.part.clone(),
                        role: row.role.clone(),
                        tensor: row.tensor.clone(),
                        shape: row.shape.clone(),
                        dtype: row.dtype.clone(),
                        file: row.file.clone(),
                    },
                    1,
                )),
            }
        }
        rows.into_iter()
            .map(|(mut row, count)| {
                if count > 1
                    && let Some((first, role)) = layer_role(&row.role)
                {
                    row.role = format!("layers {first}-{} {role}", first + count - 1);
                }
                row
            })
            .collect()
    }
}

/// `layer 3 query weight` as `(3, "query weight")`.
fn layer_role(role: &str) -> Option<(usize, &str)> {
    let (index, role) = role.strip_prefix("layer ")?.split_once(' ')?;
    Some((index.parse().ok()?, role))
}

fn shape(shape: &[usize]) -> String {
    format!(
        "[{}]",
        shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
    )
}

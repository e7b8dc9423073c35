//! One pair given by flags: as a record in, and for a person out.

use serde_json::{Value, json};

use crate::cli::UsageError;
use crate::cli::config::DATA_HEADING;
use crate::scoring::CALIBRATED_KEY;

/// One pair on the command line.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = DATA_HEADING)]
pub struct PairArgs {
    /// Text of both sides
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["drug_text", "adr_text", "files"])]
    text: Option<String>,

    /// The drug, as written in the text
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, conflicts_with = "files")]
    drug: Option<String>,

    /// The adverse reaction, as written in the text
    #[arg(long, value_name = "NAME", allow_hyphen_values = true, conflicts_with = "files")]
    adr: Option<String>,

    /// Text of the drug's side, where the sides differ
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "files")]
    drug_text: Option<String>,

    /// Text of the reaction's side, where the sides differ
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "files")]
    adr_text: Option<String>,

    /// Code points of the one occurrence of the drug to mark, end excluded
    #[arg(long, value_name = "START:END", value_parser = parse_span, conflicts_with = "files")]
    drug_span: Option<Span>,

    /// Code points of the one occurrence of the reaction to mark, end excluded
    #[arg(long, value_name = "START:END", value_parser = parse_span, conflicts_with = "files")]
    adr_span: Option<Span>,

    /// Print the JSON record on a terminal too
    #[arg(long)]
    pub json: bool,
}

type Span = [usize; 2];

impl PairArgs {
    /// The pair as a record, or none when no flag gives one.
    pub fn record(&self) -> Result<Option<String>, UsageError> {
        let fields = [
            ("drug", self.drug.as_ref().map(|value| json!(value))),
            ("adr", self.adr.as_ref().map(|value| json!(value))),
            ("text", self.text.as_ref().map(|value| json!(value))),
            ("drug_text", self.drug_text.as_ref().map(|value| json!(value))),
            ("adr_text", self.adr_text.as_ref().map(|value| json!(value))),
            ("drug_span", self.drug_span.map(|value| json!(value))),
            ("adr_span", self.adr_span.map(|value| json!(value))),
        ];
        if fields.iter().all(|(_, value)| value.is_none()) {
            return Ok(None);
        }
        let missing = if self.drug.is_none() {
            "--drug"
        } else if self.adr.is_none() {
            "--adr"
        } else if self.text.is_some() || (self.drug_text.is_some() && self.adr_text.is_some()) {
            let members = fields
                .iter()
                .filter_map(|(name, value)| Some(format!("\"{name}\":{}", value.as_ref()?)));
            return Ok(Some(format!("{{{}}}", members.collect::<Vec<_>>().join(","))));
        } else if self.drug_text.is_some() {
            "--adr-text"
        } else if self.adr_text.is_some() {
            "--drug-text"
        } else {
            "--text (or --drug-text and --adr-text)"
        };
        Err(UsageError(format!(
            "one pair takes --drug, --adr and --text (or --drug-text and --adr-text): {missing} is missing"
        )))
    }
}

/// An answer for a person.
pub fn readable_answer(answer: &Value, threshold: f32) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let error = &answer["error"];
    if error.is_object() {
        return format!("not scored: {} ({})\n", text(&error["message"]), text(&error["code"]));
    }
    let causal = answer["causal"].as_bool().unwrap_or(false);
    let mut line = format!(
        "{:.4}  {}  {} -> {}  ({} the threshold of {threshold})",
        answer["probability"].as_f64().unwrap_or(f64::NAN),
        if causal { "causal" } else { "not causal" },
        text(&answer["drug"]),
        text(&answer["adr"]),
        if causal { "at or above" } else { "below" },
    );
    if let Some(calibrated) = answer[CALIBRATED_KEY].as_f64() {
        line += &format!("\ncalibrated: {calibrated:.4}");
    }
    for (name, probability) in answer["probabilities"].as_object().into_iter().flatten() {
        line += &format!("\n{:.4}  by {name}", probability.as_f64().unwrap_or(f64::NAN));
    }
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        line += &format!("\nwarning: {}", text(warning));
    }
    line + "\n"
}

fn parse_span(value: &str) -> Result<Span, String> {
    let parts = value
        .split_once(':')
        .and_then(|(start, end)| Some([start.parse().ok()?, end.parse().ok()?]));
    parts.ok_or_else(|| "expected START:END in code points, such as 3:9".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_checked() {
        assert_eq!(parse_span("3:9"), Ok([3, 9]));
        for value in ["3", "3-9", ":", "a:b", "-1:3"] {
            assert!(parse_span(value).is_err(), "{value}");
        }
    }

    #[test]
    fn an_answer_reads_as_a_line() {
        let answer =
            json!({"drug": "d", "adr": "a", "probability": 0.92308, "causal": true, "warnings": ["adr_truncated"]});
        assert_eq!(
            readable_answer(&answer, 0.55),
            "0.9231  causal  d -> a  (at or above the threshold of 0.55)\nwarning: adr_truncated\n"
        );
        let answer = json!({"drug": "d", "adr": "a", "probability": 0.5, "causal": false,
            "probabilities": {"demo": 0.25, "other": 0.75}});
        assert_eq!(
            readable_answer(&answer, 0.55),
            "0.5000  not causal  d -> a  (below the threshold of 0.55)\n0.2500  by demo\n0.7500  by other\n"
        );
        let answer = json!({"error": {"code": "empty_text", "message": "m"}});
        assert_eq!(readable_answer(&answer, 0.55), "not scored: m (empty_text)\n");
    }
}

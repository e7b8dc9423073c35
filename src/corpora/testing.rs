//! What the unit tests of several adapters share: bytes in, records and problems out.

use serde_json::Value;

use super::{CorpusError, Format, Options, Sources, Summary, run};
use crate::files::Input;

pub struct Extracted {
    pub records: Vec<Value>,
    /// As printed.
    pub problems: Vec<String>,
    pub reasons: Vec<&'static str>,
    pub summary: Summary,
}

impl Extracted {
    pub fn ids(&self) -> Vec<&str> {
        self.records
            .iter()
            .map(|record| record["id"].as_str().unwrap())
            .collect()
    }

    pub fn labels(&self) -> Vec<Option<u64>> {
        self.records
            .iter()
            .map(|record| record.get("label").map(|label| label.as_u64().unwrap()))
            .collect()
    }
}

pub fn extract(format: Format, bytes: impl Into<Vec<u8>>) -> Extracted {
    extract_with(format, bytes, &Options::default()).unwrap()
}

pub fn extract_with(format: Format, bytes: impl Into<Vec<u8>>, options: &Options) -> Result<Extracted, CorpusError> {
    let reader = std::io::Cursor::new(bytes.into());
    extract_from(
        Sources::Streams(format, vec![Input::Reader("test".into(), Box::new(reader))]),
        options,
    )
}

pub fn extract_from(sources: Sources, options: &Options) -> Result<Extracted, CorpusError> {
    let (mut output, mut problems, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
    let summary = run(sources, &mut output, options, &mut |problem| {
        problems.push(problem.to_string());
        reasons.push(problem.reason.name());
    })?;
    let text = String::from_utf8(output).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for record in &records {
        check(record);
    }
    assert_eq!(summary.pairs, records.len() as u64);
    Ok(Extracted {
        records,
        problems,
        reasons,
        summary,
    })
}

/// Each span of a record slices its text to the entity.
fn check(record: &Value) {
    let text: Vec<char> = record["text"].as_str().unwrap().chars().collect();
    for side in ["drug", "adr"] {
        let span = &record[format!("{side}_span")];
        let [start, end] = [0, 1].map(|i| span[i].as_u64().unwrap() as usize);
        let slice: String = text[start..end].iter().collect();
        assert_eq!(record[side].as_str().unwrap(), slice, "{record}");
    }
}

//! The record of one pair, as `crag score` reads it, written as one line of JSON.
//!
//! ```json
//! {"id":"6794356:34-51:52-60","doc_id":"6794356","section":"title","text":"…","drug":"lithium carbonate",
//!  "adr":"toxicity","drug_span":[34,51],"adr_span":[52,60],"drug_type":"Chemical","adr_type":"Disease",
//!  "drug_concepts":["D016651"],"adr_concepts":["D064420"],"label":0}
//! ```
//!
//! `id` is the document's identifier and where the two mentions stand in it, in code points. `drug_fragments` and
//! `adr_fragments`, spans in `text`, are there for discontinuous mentions; `drug` and `drug_span` then reach from the
//! first to the last. `overlap` is true where the two share characters. `section` and `label` are absent where there
//! are none.

use std::io::{self, Write};
use std::ops::Range;

/// One side of a pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Half<'a> {
    pub entity: &'a str,
    /// Code points of the text.
    pub span: Range<u64>,
    /// The same for each piece of a discontinuous mention, else empty.
    pub fragments: Vec<Range<u64>>,
    /// Code points of the document, one for each fragment.
    pub document_spans: Vec<Range<u64>>,
    pub kind: &'a str,
    pub concepts: &'a [&'a str],
}

/// One pair. `text` is a JSON string already, since many pairs share one.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields<'a> {
    pub document: &'a str,
    /// Which time the document comes, from 1.
    pub occurrence: u32,
    pub section: Option<&'a str>,
    pub text_json: &'a str,
    pub drug: Half<'a>,
    pub adr: Half<'a>,
    pub overlap: bool,
    pub label: Option<bool>,
}

pub fn write(output: &mut dyn Write, line: &mut Vec<u8>, fields: &Fields<'_>) -> io::Result<()> {
    line.clear();
    let mut id = format!("{}:{}:{}", fields.document, list(&fields.drug), list(&fields.adr));
    if fields.occurrence > 1 {
        id.push_str(&format!("~{}", fields.occurrence));
    }
    line.extend_from_slice(b"{\"id\":");
    string(line, &id)?;
    line.extend_from_slice(b",\"doc_id\":");
    string(line, fields.document)?;
    if let Some(section) = fields.section {
        line.extend_from_slice(b",\"section\":");
        string(line, section)?;
    }
    line.extend_from_slice(b",\"text\":");
    line.extend_from_slice(fields.text_json.as_bytes());
    let sides = [("drug", &fields.drug), ("adr", &fields.adr)];
    for (name, side) in sides {
        write!(line, ",\"{name}\":")?;
        string(line, side.entity)?;
    }
    for (name, side) in sides {
        write!(line, ",\"{name}_span\":[{},{}]", side.span.start, side.span.end)?;
    }
    for (name, side) in sides {
        if !side.fragments.is_empty() {
            write!(line, ",\"{name}_fragments\":[")?;
            for (i, span) in side.fragments.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                write!(line, "{comma}[{},{}]", span.start, span.end)?;
            }
            line.push(b']');
        }
    }
    for (name, side) in sides {
        write!(line, ",\"{name}_type\":")?;
        string(line, side.kind)?;
    }
    for (name, side) in sides {
        write!(line, ",\"{name}_concepts\":")?;
        serde_json::to_writer(&mut *line, side.concepts)?;
    }
    if fields.overlap {
        line.extend_from_slice(b",\"overlap\":true");
    }
    if let Some(label) = fields.label {
        write!(line, ",\"label\":{}", u8::from(label))?;
    }
    line.extend_from_slice(b"}\n");
    output.write_all(line)
}

fn list(side: &Half<'_>) -> String {
    let spans = side
        .document_spans
        .iter()
        .map(|span| format!("{}-{}", span.start, span.end));
    spans.collect::<Vec<_>>().join(",")
}

fn string(line: &mut Vec<u8>, value: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(line, value)?)
}

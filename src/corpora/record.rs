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

use serde::Serialize;
use serde_json::value::RawValue;

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
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    pub document: &'a str,
    /// Which time the document comes, from 1.
    pub occurrence: u32,
    pub section: Option<&'a str>,
    pub text: &'a RawValue,
    pub drug: Half<'a>,
    pub adr: Half<'a>,
    pub overlap: bool,
    pub label: Option<bool>,
}

/// In the order in which the keys are written.
#[derive(Serialize)]
struct Record<'a> {
    id: String,
    doc_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    section: Option<&'a str>,
    text: &'a RawValue,
    drug: &'a str,
    adr: &'a str,
    drug_span: [u64; 2],
    adr_span: [u64; 2],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    drug_fragments: Vec<[u64; 2]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    adr_fragments: Vec<[u64; 2]>,
    drug_type: &'a str,
    adr_type: &'a str,
    drug_concepts: &'a [&'a str],
    adr_concepts: &'a [&'a str],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overlap: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<u8>,
}

/// Writes the record of a pair as one line. `line`: memory to put it together in.
pub fn write(output: &mut dyn Write, line: &mut Vec<u8>, fields: &Fields<'_>) -> io::Result<()> {
    let Fields { drug, adr, .. } = fields;
    let mut id = format!("{}:{}:{}", fields.document, list(drug), list(adr));
    if fields.occurrence > 1 {
        id.push_str(&format!("~{}", fields.occurrence));
    }
    let spans = |of: &[Range<u64>]| of.iter().map(pair).collect();
    let record = Record {
        id,
        doc_id: fields.document,
        section: fields.section,
        text: fields.text,
        drug: drug.entity,
        adr: adr.entity,
        drug_span: pair(&drug.span),
        adr_span: pair(&adr.span),
        drug_fragments: spans(&drug.fragments),
        adr_fragments: spans(&adr.fragments),
        drug_type: drug.kind,
        adr_type: adr.kind,
        drug_concepts: drug.concepts,
        adr_concepts: adr.concepts,
        overlap: fields.overlap,
        label: fields.label.map(u8::from),
    };
    line.clear();
    serde_json::to_writer(&mut *line, &record)?;
    line.push(b'\n');
    output.write_all(line)
}

fn pair(span: &Range<u64>) -> [u64; 2] {
    [span.start, span.end]
}

fn list(side: &Half<'_>) -> String {
    let spans = side
        .document_spans
        .iter()
        .map(|span| format!("{}-{}", span.start, span.end));
    spans.collect::<Vec<_>>().join(",")
}

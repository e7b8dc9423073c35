//! The names of the formats; [`super::record_format`] is what each has to do, [`super::formats`] who does it.

/// How a file holds its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Jsonl,
    /// RFC 4180: fields between commas, in quotes where they have to be; a header first.
    Csv,
    /// One row a line, fields between tabs; a header first.
    Tsv,
}

impl Format {
    pub const ALL: [Format; 3] = [Format::Jsonl, Format::Csv, Format::Tsv];

    pub fn name(self) -> &'static str {
        match self {
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
        }
    }
}

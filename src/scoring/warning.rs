//! What there is to know about a line that was scored all the same.

/// Something to know about a scored line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The marked drug lies outside the tokens that the network sees.
    DrugTruncated,
    /// The marked reaction lies outside the tokens that the network sees.
    AdrTruncated,
    /// The drug does not occur in its text, and nothing was marked.
    DrugNotFound,
    /// The reaction does not occur in its text, and nothing was marked.
    AdrNotFound,
}

impl Warning {
    pub const ALL: [Warning; 4] = [
        Warning::DrugTruncated,
        Warning::AdrTruncated,
        Warning::DrugNotFound,
        Warning::AdrNotFound,
    ];

    /// The warning as records have it.
    pub fn name(self) -> &'static str {
        match self {
            Warning::DrugTruncated => "drug_truncated",
            Warning::AdrTruncated => "adr_truncated",
            Warning::DrugNotFound => "drug_not_found",
            Warning::AdrNotFound => "adr_not_found",
        }
    }
}

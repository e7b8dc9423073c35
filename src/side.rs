//! The two halves of a pair.

/// Which half of a drug / adverse-reaction pair: each has its own context, markers and encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    Drug,
    Adr,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Drug, Side::Adr];

    pub fn other(self) -> Self {
        match self {
            Side::Drug => Side::Adr,
            Side::Adr => Side::Drug,
        }
    }

    /// What is of this side and what is of the other, the drug's first.
    pub fn drug_first<T>(self, own: T, other: T) -> (T, T) {
        match self {
            Side::Drug => (own, other),
            Side::Adr => (other, own),
        }
    }

    /// `drug` or `adr`: the word used in field names, tensor names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Side::Drug => "drug",
            Side::Adr => "adr",
        }
    }
}

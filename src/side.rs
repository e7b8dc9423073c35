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

    /// `drug` or `adr`: the word used in field names, tensor names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Side::Drug => "drug",
            Side::Adr => "adr",
        }
    }
}

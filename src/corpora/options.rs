//! What to extract: scopes, types, labels and limits.

use crate::Side;

/// How near a drug and a reaction have to be to become a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Sentence,
    Passage,
    Document,
}

/// Which documents' pairs get a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Those of documents for which the corpus states a relation.
    Auto,
    /// All: a document without relations has no related pairs.
    All,
    None,
}

/// What becomes of a pair whose two mentions share characters ("lithium" in "lithium toxicity").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    Keep,
    Drop,
}

/// Which annotations stand for a composite mention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompositeUse {
    Whole,
    Parts,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub scope: Scope,
    /// Sentences around the mentions that the text keeps. None: for sentence scope 0, else the whole scope.
    pub window: Option<usize>,
    pub drug_types: TypeSet,
    pub adr_types: TypeSet,
    pub relation_types: TypeSet,
    /// Relations without a type are of these: a corpus with one kind alone may leave its name out.
    pub untyped_relations: bool,
    pub labels: Labels,
    pub overlap: Overlap,
    pub composite: CompositeUse,
    pub max_pairs_per_document: u64,
    pub max_document_bytes: usize,
    /// The first problem ends the run.
    pub strict: bool,
}

impl Options {
    /// What annotations of this type are: a drug or a reaction, if either.
    pub fn side(&self, kind: &str) -> Option<Side> {
        match (self.drug_types.contains(kind), self.adr_types.contains(kind)) {
            (true, _) => Some(Side::Drug),
            (_, true) => Some(Side::Adr),
            _ => None,
        }
    }

    /// Whether a relation of this type says that a drug caused a reaction.
    pub fn chooses(&self, relation_type: &str) -> bool {
        (relation_type.is_empty() && self.untyped_relations) || self.relation_types.contains(relation_type)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scope: Scope::Sentence,
            window: None,
            drug_types: TypeSet::new(DEFAULT_DRUG_TYPES),
            adr_types: TypeSet::new(DEFAULT_ADR_TYPES),
            relation_types: TypeSet::new(DEFAULT_RELATION_TYPES),
            untyped_relations: true,
            labels: Labels::Auto,
            overlap: Overlap::Keep,
            composite: CompositeUse::Whole,
            max_pairs_per_document: 10_000,
            max_document_bytes: 16 << 20,
            strict: false,
        }
    }
}

/// Drugs are called so in BC5CDR, PubTator, BioRED, n2c2, PHEE and the ADE corpus.
pub const DEFAULT_DRUG_TYPES: &[&str] = &[
    "Chemical",
    "Drug",
    "ChemicalEntity",
    "Medication",
    "Treatment_Drug",
    "Treatment.Drug",
];

/// Reactions are called so in BC5CDR, PubTator, BioRED, n2c2, TAC, CADEC, PHEE and the ADE corpus.
pub const DEFAULT_ADR_TYPES: &[&str] = &[
    "Disease",
    "ADR",
    "ADE",
    "AE",
    "Adverse-Effect",
    "AdverseEvent",
    "AdverseReaction",
    "Adverse-Drug-Reaction",
    "Adverse-Drug-Event",
    "DiseaseOrPhenotypicFeature",
    "SideEffect",
    "Effect",
];

/// Relations that say "causes": `adverse` is MADE's. BioRED's Negative_Correlation and PubTator3's `treat` say the opposite.
pub const DEFAULT_RELATION_TYPES: &[&str] = &[
    "CID",
    "Chemical-Induced-Disease",
    "induce",
    "induces",
    "cause",
    "causes",
    "Positive_Correlation",
    "ADE",
    "ADE-Drug",
    "Drug-ADE",
    "adverse",
    "ADR",
    "AE",
    "Adverse-Effect",
    "Adverse-Event",
    "Adverse-Reaction",
    "SideEffect",
];

/// Names of types, compared by their letters and digits alone: `Adverse-Effect` is `adverse_effect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeSet(Vec<String>);

impl TypeSet {
    pub fn new<S: AsRef<str>>(names: &[S]) -> Self {
        Self(names.iter().map(|name| plain(name.as_ref())).collect())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| {
            let mut letters = letters(name);
            known.chars().all(|c| letters.next() == Some(c)) && letters.next().is_none()
        })
    }

    /// A name that is in both sets.
    pub fn common<'a>(&'a self, other: &Self) -> Option<&'a str> {
        self.0.iter().find(|name| other.0.contains(name)).map(String::as_str)
    }
}

pub(super) fn plain(name: &str) -> String {
    letters(name).collect()
}

fn letters(name: &str) -> impl Iterator<Item = char> {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_by_their_letters_and_digits() {
        let types = TypeSet::new(&["Adverse-Effect", "ÄRZTE"]);
        for name in ["adverse_effect", "AdverseEffect", "ADVERSE EFFECT", "ärzte"] {
            assert!(types.contains(name), "{name}");
        }
        for name in ["Adverse", "Adverse-Effects", "", "-"] {
            assert!(!types.contains(name), "{name}");
        }
    }

    #[test]
    fn the_default_types_of_the_two_sides_are_apart() {
        let options = Options::default();
        assert_eq!(options.drug_types.common(&options.adr_types), None);
    }
}

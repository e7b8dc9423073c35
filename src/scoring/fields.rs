//! Which fields a record has, and where an input keeps them: `--field text=/abstract/body`.
//!
//! A place is a list of steps from the record inwards: the reference tokens of a JSON Pointer (RFC 6901), or the one
//! name of a column.

use super::format::Format;

pub const DRUG: usize = 0;
pub const DRUG_ENTITY: usize = 1;
pub const ADR: usize = 2;
pub const ADR_ENTITY: usize = 3;
pub const TEXT: usize = 4;
pub const DRUG_TEXT: usize = 5;
pub const ADR_TEXT: usize = 6;
pub const DRUG_SPAN: usize = 7;
pub const ADR_SPAN: usize = 8;

/// The fields that are read, in the order of the constants above.
pub const FIELDS: [&str; 9] = [
    "drug",
    "drug_entity",
    "adr",
    "adr_entity",
    "text",
    "drug_text",
    "adr_text",
    "drug_span",
    "adr_span",
];

/// Steps of a pointer; more are a mistake, and walking them takes stack.
const MOST_STEPS: usize = 64;

/// Where each field is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldMap {
    /// Of each field, the steps to it; at least one.
    steps: [Vec<String>; FIELDS.len()],
    /// Of each field, how messages name it.
    labels: [String; FIELDS.len()],
    /// Whether whoever reads the records can say where fields are.
    is_open: bool,
}

impl Default for FieldMap {
    /// Every field under its own name, for good.
    fn default() -> Self {
        Self {
            is_open: false,
            steps: FIELDS.map(|name| vec![name.to_owned()]),
            labels: FIELDS.map(|name| format!("\"{name}\"")),
        }
    }
}

impl FieldMap {
    /// The default, but for `places`: pairs of a field and its place in records of `format`, a JSON Pointer, or the
    /// name of a column (with or without a slash before it). Errors, with what was expected, on anything else.
    pub fn new<'p>(format: Format, places: impl IntoIterator<Item = (&'p str, &'p str)>) -> Result<Self, String> {
        let mut map = Self {
            is_open: true,
            ..Self::default()
        };
        let mut mapped = [false; FIELDS.len()];
        for (field, place) in places {
            let Some(i) = FIELDS.iter().position(|name| *name == field) else {
                return Err(format!("expected one of {}, found {field:?}", FIELDS.join(", ")));
            };
            if std::mem::replace(&mut mapped[i], true) {
                return Err(format!("expected one place for {field}, found two"));
            }
            map.steps[i] = match format {
                Format::Jsonl => pointer_steps(place)?,
                Format::Csv | Format::Tsv => vec![column_name(place)?],
            };
            map.labels[i] = match format {
                Format::Jsonl => format!("\"{field}\" ({place})"),
                Format::Csv | Format::Tsv => format!("\"{field}\" (column {:?})", map.steps[i][0]),
            };
        }
        Ok(map)
    }

    /// Whether whoever reads the records can say where fields are, and what format they have.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// How messages name a field.
    pub(super) fn label(&self, field: usize) -> &str {
        &self.labels[field]
    }

    /// The steps to each field, in the order of [`FIELDS`].
    pub(super) fn steps(&self) -> impl Iterator<Item = &[String]> {
        self.steps.iter().map(Vec::as_slice)
    }

    /// The column of a field.
    pub(super) fn column(&self, field: usize) -> &str {
        self.steps[field].first().map_or("", String::as_str)
    }
}

/// The reference tokens of a JSON Pointer.
fn pointer_steps(pointer: &str) -> Result<Vec<String>, String> {
    let Some(rest) = pointer.strip_prefix('/') else {
        return Err(format!(
            "expected a JSON Pointer such as /abstract/body, found {pointer:?}; names of columns go with --format csv or tsv"
        ));
    };
    let steps: Vec<String> = rest.split('/').map(unescaped).collect::<Result<_, _>>()?;
    match steps.len() {
        0..=MOST_STEPS => Ok(steps),
        count => Err(format!(
            "expected a JSON Pointer of at most {MOST_STEPS} steps, found {count}"
        )),
    }
}

/// `~1` is a slash and `~0` a tilde.
fn unescaped(token: &str) -> Result<String, String> {
    let mut parts = token.split('~');
    let mut step = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (character, rest) = match part.as_bytes().first() {
            Some(b'0') => ('~', &part[1..]),
            Some(b'1') => ('/', &part[1..]),
            _ => return Err(format!("expected ~0 or ~1 for a tilde or a slash, found {token:?}")),
        };
        step.push(character);
        step.push_str(rest);
    }
    Ok(step)
}

fn column_name(place: &str) -> Result<String, String> {
    let name = match place.strip_prefix('/') {
        None => place.to_owned(),
        Some(rest) if rest.contains('/') => {
            return Err(format!("expected the name of a column or /COLUMN, found {place:?}"));
        }
        Some(rest) => unescaped(rest)?,
    };
    match name.is_empty() {
        true => Err("expected the name of a column, found an empty one".to_owned()),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(format: Format, place: &str) -> Result<Vec<String>, String> {
        FieldMap::new(format, [("text", place)]).map(|map| map.steps[TEXT].clone())
    }

    #[test]
    fn pointers_are_read_as_rfc_6901_has_them() {
        for (pointer, expected) in [
            ("/a", ["a"].as_slice()),
            ("/a/b c/0", &["a", "b c", "0"]),
            ("/a~1b/m~0n/~01", &["a/b", "m~n", "~1"]),
            ("/", &[""]),
            ("/a//b", &["a", "", "b"]),
        ] {
            assert_eq!(steps(Format::Jsonl, pointer).unwrap(), expected, "{pointer}");
        }
        for pointer in ["", "a", "#/a", "/a~", "/a~2b", &"/a".repeat(65)] {
            assert!(steps(Format::Jsonl, pointer).is_err(), "{pointer}");
        }
    }

    #[test]
    fn columns_are_named_with_or_without_a_slash() {
        for (place, expected) in [
            ("Abstract", "Abstract"),
            ("/Abstract", "Abstract"),
            ("/a~1b", "a/b"),
            ("a~b", "a~b"),
        ] {
            assert_eq!(steps(Format::Csv, place).unwrap(), [expected], "{place}");
        }
        for place in ["", "/", "/a/b", "/a~"] {
            assert!(steps(Format::Tsv, place).is_err(), "{place}");
        }
    }

    #[test]
    fn fields_are_known_and_mapped_once() {
        let error = FieldMap::new(Format::Jsonl, [("txt", "/a")]).unwrap_err();
        assert!(error.contains("drug_span") && error.contains("\"txt\""), "{error}");
        assert!(FieldMap::new(Format::Jsonl, [("text", "/a"), ("text", "/b")]).is_err());
        assert!(FieldMap::new(Format::Jsonl, [("text", "/a"), ("drug", "/a")]).is_ok());
    }
}

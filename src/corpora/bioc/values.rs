//! Values as JSON writers write them: identifiers as numbers, numbers as strings, infons as objects and arrays.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Names with values. Of a value that is an object, its `identifier` is kept; those of an array stand between bars.
#[derive(Debug, Default)]
pub struct Infons(pub Vec<(String, String)>);

impl Infons {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl<'de> Deserialize<'de> for Infons {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InfonsVisitor;
        impl<'de> Visitor<'de> for InfonsVisitor {
            type Value = Infons;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of infons")
            }

            fn visit_unit<E>(self) -> Result<Infons, E> {
                Ok(Infons::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Infons, A::Error> {
                let mut infons = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if let Some(value) = map.next_value::<Scalar>()?.value {
                        infons.push((key, value));
                    }
                }
                Ok(Infons(infons))
            }
        }
        deserializer.deserialize_any(InfonsVisitor)
    }
}

/// A string as it reads, a number or boolean as it is written, the identifier of an object; none for null.
struct Scalar {
    value: Option<String>,
    /// Several, between bars.
    is_list: bool,
}

/// Objects and arrays within each other are looked into this far.
const MAX_SCALAR_DEPTH: usize = 4;

impl Scalar {
    fn of(raw: &str, depth: usize) -> serde_json::Result<Self> {
        let is_list = raw.starts_with('[');
        let value = match raw.as_bytes().first() {
            Some(b'"') => Some(serde_json::from_str(raw)?),
            Some(b'[' | b'{') if depth == MAX_SCALAR_DEPTH => None,
            Some(b'[') => {
                let scalars = serde_json::from_str::<Vec<&RawValue>>(raw)?;
                let scalars = scalars.into_iter().map(|raw| Self::of(raw.get(), depth + 1));
                let values = scalars.filter_map(|scalar| scalar.map(|scalar| scalar.value).transpose());
                let values = values.collect::<serde_json::Result<Vec<String>>>()?;
                (!values.is_empty()).then(|| values.join("|"))
            }
            Some(b'{') => {
                #[derive(Deserialize)]
                struct Identified<'a> {
                    #[serde(borrow)]
                    identifier: Option<&'a RawValue>,
                }
                match serde_json::from_str::<Identified<'_>>(raw)?.identifier {
                    Some(raw) => Self::of(raw.get(), depth + 1)?.value,
                    None => None,
                }
            }
            Some(b'n') => None,
            _ => Some(raw.to_owned()),
        };
        Ok(Self { value, is_list })
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Self::of(raw.get(), 0).map_err(D::Error::custom)
    }
}

pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(optional_text(deserializer)?.unwrap_or_default())
}

pub fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let scalar = Scalar::deserialize(deserializer)?;
    Ok(scalar.value.filter(|_| !scalar.is_list))
}

/// A number, or one written as a string. None for anything else; it lies outside of every text then.
pub fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(optional_text(deserializer)?.and_then(|text| text.trim().parse().ok()))
}

/// A list; null is an empty one.
pub fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

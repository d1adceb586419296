//! A name or a list of names in the pipeline file, each with its position.
//!
//! Knows no key, and not how many names a list needs.

use std::fmt;
use std::marker::PhantomData;

use schemars::{Schema, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pipeline::position::{At, Name};

/// A type of one name or several.
pub(super) trait OneOrSeveral {
    /// The words for it in errors.
    const EXPECTED: &'static str;
}

/// The names of a `T`: one with the position of the whole value, or several with their own.
pub(super) fn deserialize<'de, T: OneOrSeveral, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Name>, D::Error> {
    let At { value, span } = At::<Written<T>>::deserialize(deserializer)?;
    Ok(match value {
        Written::One(name) => vec![At { value: name, span }],
        Written::Several(names, _) => names,
    })
}

/// At least one name, no two of them `same`. Errors call them `noun`.
pub(super) fn different<E: Error>(names: Vec<Name>, noun: &str, same: impl Fn(&str, &str) -> bool) -> Result<Vec<Name>, E> {
    if names.is_empty() {
        return Err(E::custom(format!("expected at least one {noun}, found none")));
    }
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|other| same(&other.value, &name.value)) {
            return Err(E::custom(format!("the {noun} \"{}\" is named twice", name.value)));
        }
    }
    Ok(names)
}

/// One name as a text, several as a list.
pub(super) fn serialize<S: Serializer>(names: &[Name], serializer: S) -> Result<S::Ok, S::Error> {
    match names {
        [one] => one.serialize(serializer),
        several => several.serialize(serializer),
    }
}

/// The JSON schema of a text or a list of texts.
pub(super) fn schema() -> Schema {
    json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] })
}

/// A value as written for a `T`.
enum Written<T> {
    One(String),
    Several(Vec<Name>, PhantomData<T>),
}

impl<'de, T: OneOrSeveral> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<T>(PhantomData<T>);
        impl<'de, T: OneOrSeveral> Visitor<'de> for Names<T> {
            type Value = Written<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Written<T>, E> {
                Ok(Written::One(name.to_string()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Written<T>, A::Error> {
                let mut several = Vec::new();
                while let Some(name) = names.next_element()? {
                    several.push(name);
                }
                Ok(Written::Several(several, PhantomData))
            }
        }
        deserializer.deserialize_any(Names(PhantomData))
    }
}

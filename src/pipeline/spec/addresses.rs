//! The addresses of a server and of its replicas: one, or a list.
//!
//! Opens no connection.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::one_or_several::{self, OneOrSeveral};
use crate::pipeline::position::At;

/// The addresses of servers with the same model, in order: at least one, no two of them the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Addresses {
    first: At<String>,
    others: Vec<At<String>>,
}

impl Addresses {
    /// The first address. It stands for all where one is needed.
    pub fn first(&self) -> &At<String> {
        &self.first
    }

    /// The addresses, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        [&self.first].into_iter().chain(&self.others).map(|address| address.value.as_str())
    }
}

impl OneOrSeveral for Addresses {
    const EXPECTED: &'static str = "the address of a server, or a list of addresses";
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let addresses = one_or_several::deserialize::<Self, D>(deserializer)?;
        let same = |one: &str, other: &str| one.trim_end_matches('/') == other.trim_end_matches('/');
        let mut addresses = one_or_several::different(addresses, "address", same)?.into_iter();
        let first = addresses.next().ok_or_else(|| D::Error::custom("expected at least one address, found none"))?;
        Ok(Self { first, others: addresses.collect() })
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let all: Vec<At<String>> = [&self.first].into_iter().chain(&self.others).cloned().collect();
        one_or_several::serialize(&all, serializer)
    }
}

impl JsonSchema for Addresses {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Addresses".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        one_or_several::schema()
    }
}

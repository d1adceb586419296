//! A list of devices, each with a copy of a model: `cpu:2`, or `cuda:0` and `cuda:1`.
//!
//! Knows the words, not whether the devices are there.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most replicas on the CPU, and the highest number of a GPU.
const MOST: u32 = 64;

/// Devices of one kind, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Devices {
    /// So many replicas on the CPU.
    Cpu(u32),
    /// These NVIDIA GPUs, in order, none of them twice.
    Cuda(Vec<u32>),
}

impl Devices {
    /// The devices of a list such as `cpu:2`, or `cuda:0`, `cuda:1`.
    ///
    /// # Errors
    /// The first fault: an unknown device, one that is named twice, or devices of both kinds.
    pub fn parse<'a>(written: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut found: Option<Self> = None;
        for word in written {
            let word = word.trim();
            let (kind, number) = word.split_once(':').map_or((word, None), |(kind, number)| (kind, Some(number)));
            let count = |number: &str| number.parse::<u32>().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()));
            let expected = |what: &str| format!("expected {what}, found \"{word}\"");
            found = Some(match (kind, found) {
                ("cuda", Some(Self::Cpu(_))) | ("cpu", Some(Self::Cuda(_))) => {
                    let problem = "expected GPUs or the CPU, found both: their numbers differ in the last digits; choose one kind";
                    return Err(problem.to_string());
                }
                ("cpu", Some(Self::Cpu(_))) => {
                    return Err("the CPU is named twice; write cpu:2 for two replicas on it".to_string());
                }
                ("cpu", None) => {
                    let replicas = number.map_or(Some(1), count).filter(|replicas| (1..=MOST).contains(replicas));
                    Self::Cpu(replicas.ok_or_else(|| expected(&format!("1 to {MOST} replicas on the CPU, as cpu:2")))?)
                }
                ("cuda", gpus) => {
                    let gpu = number.map_or(Some(0), count).filter(|gpu| *gpu <= MOST);
                    let gpu = gpu.ok_or_else(|| expected(&format!("a GPU by its number of at most {MOST}, as cuda:0")))?;
                    let mut gpus = if let Some(Self::Cuda(gpus)) = gpus { gpus } else { Vec::new() };
                    if gpus.contains(&gpu) {
                        return Err(format!("the GPU cuda:{gpu} is named twice; a GPU takes one replica"));
                    }
                    gpus.push(gpu);
                    Self::Cuda(gpus)
                }
                _ => return Err(expected("devices such as cpu:2 or cuda:0")),
            });
        }
        found.ok_or_else(|| "expected at least one device, found none".to_string())
    }

    /// The devices as in the file.
    fn words(&self) -> Vec<String> {
        match self {
            Self::Cpu(replicas) => vec![format!("cpu:{replicas}")],
            Self::Cuda(gpus) => gpus.iter().map(|gpu| format!("cuda:{gpu}")).collect(),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        Self::parse(words.iter().map(String::as_str)).map_err(D::Error::custom)
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.words().serialize(serializer)
    }
}

impl JsonSchema for Devices {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Devices".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string", "pattern": "^(cpu|cuda)(:[0-9]+)?$" }, "minItems": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::Devices;

    #[test]
    fn lists_of_one_kind_are_read_and_written_as_they_are() {
        let read = |written: &str| Devices::parse(written.split(','));
        assert_eq!(read("cpu"), Ok(Devices::Cpu(1)));
        assert_eq!(read("cpu:4"), Ok(Devices::Cpu(4)));
        assert_eq!(read("cuda:1, cuda"), Ok(Devices::Cuda(vec![1, 0])));
        assert_eq!(read("cuda:1,cuda:0").unwrap().words(), ["cuda:1", "cuda:0"]);
        for (written, expected) in [
            ("gpu:0", "expected devices such as cpu:2 or cuda:0, found \"gpu:0\""),
            ("cpu:0", "expected 1 to 64 replicas on the CPU, as cpu:2, found \"cpu:0\""),
            ("cpu:+2", "expected 1 to 64 replicas on the CPU, as cpu:2, found \"cpu:+2\""),
            ("cpu:99999999999", "expected 1 to 64 replicas on the CPU, as cpu:2, found \"cpu:99999999999\""),
            ("cuda:x", "expected a GPU by its number of at most 64, as cuda:0, found \"cuda:x\""),
            ("cpu,cpu", "the CPU is named twice; write cpu:2 for two replicas on it"),
            ("cuda,cuda:0", "the GPU cuda:0 is named twice; a GPU takes one replica"),
            ("cpu:2,cuda:0", "expected GPUs or the CPU, found both: their numbers differ in the last digits; choose one kind"),
            ("cuda:0,cpu", "expected GPUs or the CPU, found both: their numbers differ in the last digits; choose one kind"),
        ] {
            assert_eq!(read(written), Err(expected.to_string()));
        }
        assert_eq!(Devices::parse([]), Err("expected at least one device, found none".to_string()));
    }
}

//! TensorBoard's event files: records of TFRecord, each a protocol buffer `Event`.
//!
//! A record is its length (u64, little endian), the masked CRC-32C of that, the bytes, the masked
//! CRC-32C of these (tensorflow/core/lib/io/record_writer.h). Of `Event` and `Summary`
//! (tensorflow/core/util/event.proto, framework/summary.proto) five fields are needed, so they are
//! written here.

/// `wire type`s of protocol buffers.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// The record that a file begins with: its version.
pub(super) fn version(seconds: f64) -> Vec<u8> {
    record(&event(seconds, 0, &field_bytes(3, b"brain.Event:2")))
}

/// The record of a program's start. A reader drops the steps from 0 on of the program before.
pub(super) fn start(seconds: f64) -> Vec<u8> {
    // SessionLog.status = START.
    record(&event(seconds, 0, &field_bytes(7, &field_varint(1, 1))))
}

/// The record of one value.
pub(super) fn scalar(seconds: f64, step: i64, tag: &str, value: f64) -> Vec<u8> {
    let mut inner = field_bytes(1, tag.as_bytes());
    inner.extend(key(2, FIXED_32));
    inner.extend((value as f32).to_le_bytes());
    // Event.summary, Summary.value.
    record(&event(seconds, step, &field_bytes(5, &field_bytes(1, &inner))))
}

fn event(seconds: f64, step: i64, what: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A 0 is left out, as protocol buffers do.
    if seconds != 0.0 {
        bytes.extend(key(1, FIXED_64));
        bytes.extend(seconds.to_le_bytes());
    }
    if step != 0 {
        bytes.extend(field_varint(2, step as u64));
    }
    bytes.extend(what);
    bytes
}

fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let parts = [&length[..], &masked(&length), bytes, &masked(bytes)];
    parts.concat()
}

/// The masked checksum of TFRecord: the mask keeps a checksum useful over bytes with checksums in
/// them.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn key(field: u64, wire: u64) -> Vec<u8> {
    varint(field << 3 | wire)
}

fn field_varint(field: u64, value: u64) -> Vec<u8> {
    [key(field, VARINT), varint(value)].concat()
}

fn field_bytes(field: u64, bytes: &[u8]) -> Vec<u8> {
    [key(field, BYTES), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tests/python/event_files.py made the golden records by TensorBoard's own writer.
    #[test]
    fn records_are_those_that_tensorboard_writes() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/event_file.json")).unwrap();
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(version(12.5)), golden["version"]);
        assert_eq!(hex(start(12.5)), golden["start"]);
        for scalar in golden["scalars"].as_array().unwrap() {
            let number = |key: &str| scalar[key].as_f64().unwrap();
            let (step, tag) = (scalar["step"].as_i64().unwrap(), scalar["tag"].as_str().unwrap());
            assert_eq!(hex(super::scalar(number("seconds"), step, tag, number("value"))), scalar["record"], "{tag}");
        }
    }

    #[test]
    fn numbers_are_varints() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }
}

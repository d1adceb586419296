//! The number formats of weights on disk, and rounding to them. Knows nothing of files.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{bf16, f16};

use super::ModelError;

/// A number format of stored weights; in memory they are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision, 4 bytes.
    F32,
    /// The upper half of a single: its range with 8 bits of precision, 2 bytes.
    Bf16,
    /// IEEE half precision: 11 bits of precision up to 65,504, 2 bytes.
    F16,
}

impl Dtype {
    const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// Its name in a safetensors header.
    pub(super) fn in_safetensors(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }

    /// The one with this name in a safetensors header, if it can be read.
    pub(super) fn from_safetensors(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.in_safetensors() == name)
    }

    /// Its name in `config.json`.
    pub(super) fn in_config(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// Bytes a number.
    pub(super) fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Little-endian bytes as numbers; exact.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|word| bf16::from_le_bytes(*word).to_f32()).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|word| f16::from_le_bytes(*word).to_f32()).collect(),
        }
    }

    /// Numbers as little-endian bytes, rounded to the nearest, ties to even.
    ///
    /// # Errors
    /// The first finite number beyond the format's range.
    pub(super) fn encode(self, values: &[f32]) -> Result<Vec<u8>, f32> {
        let mut bytes = Vec::with_capacity(values.len() * self.width());
        for &value in values {
            let rounded = match self {
                Self::F32 => {
                    bytes.extend(value.to_le_bytes());
                    value
                }
                Self::Bf16 => {
                    let rounded = bf16::from_f32(value);
                    bytes.extend(rounded.to_le_bytes());
                    rounded.to_f32()
                }
                Self::F16 => {
                    let rounded = f16::from_f32(value);
                    bytes.extend(rounded.to_le_bytes());
                    rounded.to_f32()
                }
            };
            if rounded.is_infinite() && value.is_finite() {
                return Err(value);
            }
        }
        Ok(bytes)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for Dtype {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let found = Self::ALL.into_iter().find(|dtype| dtype.to_string() == text);
        found.ok_or_else(|| ModelError::Dtype(format!("expected f32, bf16 or f16, found {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::Dtype;

    #[test]
    fn rounding_is_to_the_nearest_and_ties_go_to_even() {
        let rounded = |dtype: Dtype, value: f32| dtype.decode(&dtype.encode(&[value]).unwrap())[0];
        let bits = f32::from_bits;
        assert_eq!(rounded(Dtype::Bf16, bits(0x3f80_8000)), bits(0x3f80_0000));
        assert_eq!(rounded(Dtype::Bf16, bits(0x3f81_8000)), bits(0x3f82_0000));
        assert_eq!(rounded(Dtype::Bf16, bits(0x3f80_8001)), bits(0x3f81_0000));
        assert_eq!(rounded(Dtype::F16, 2049.0), 2048.0);
        assert_eq!(rounded(Dtype::F16, 2051.0), 2052.0);
        assert_eq!(rounded(Dtype::F16, 65_519.0), 65_504.0);
        assert_eq!(rounded(Dtype::F32, 0.1), 0.1);
        // The smallest subnormal half, and half of it.
        assert_eq!(rounded(Dtype::F16, 5.960_464_5e-8), 5.960_464_5e-8);
        assert_eq!(rounded(Dtype::F16, 2.980_232_2e-8), 0.0);
    }

    #[test]
    fn what_a_format_cannot_hold_is_an_error_unless_it_was_infinite_before() {
        assert_eq!(Dtype::F16.encode(&[1.0, 65_520.0]), Err(65_520.0));
        assert_eq!(Dtype::Bf16.encode(&[f32::MIN]), Err(f32::MIN));
        assert!(Dtype::F16.encode(&[f32::INFINITY, f32::NAN]).is_ok());
    }
}

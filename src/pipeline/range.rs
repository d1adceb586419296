//! Checks the ranges of settings during deserialization, for errors at the number.
//!
//! Knows numbers, not the settings with these ranges.

use serde::de::{Deserialize, Deserializer, Error};

fn checked<'de, D: Deserializer<'de>>(deserializer: D, holds: fn(f64) -> bool, expected: &str) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number.is_finite() && holds(number) { Ok(number) } else { Err(D::Error::custom(format!("expected {expected}, found {number}"))) }
}

/// A share: above 0 and at most 1.
pub fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |x| x > 0.0 && x <= 1.0, "a number above 0 and at most 1")
}

/// A fraction: at least 0 and below 1.
pub fn fraction<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |x| (0.0..1.0).contains(&x), "a number of at least 0 and below 1")
}

/// A number above 0.
pub fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |x| x > 0.0, "a number above 0")
}

/// A number from 0 to 1.
pub fn from_0_to_1<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

/// A number from -2 to 2.
pub fn from_minus_2_to_2<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |x| (-2.0..=2.0).contains(&x), "a number from -2 to 2")
}

/// A number of at least 0.
pub fn not_negative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |x| x >= 0.0, "a number of at least 0")
}

/// A share below a half.
pub fn below_half<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    checked(deserializer, |x| (0.0..0.5).contains(&x), "a number of at least 0 and below 0.5")
}

/// [`positive`], or nothing.
pub fn optional_positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = Option::<f64>::deserialize(deserializer)?;
    match number {
        Some(x) if !(x.is_finite() && x > 0.0) => Err(D::Error::custom(format!("expected a number above 0, found {x}"))),
        _ => Ok(number),
    }
}

/// [`not_negative`], or nothing.
pub fn optional_not_negative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = Option::<f64>::deserialize(deserializer)?;
    match number {
        Some(x) if !(x.is_finite() && x >= 0.0) => Err(D::Error::custom(format!("expected a number of at least 0, found {x}"))),
        _ => Ok(number),
    }
}

/// Any finite number, or nothing.
pub fn optional_finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = Option::<f64>::deserialize(deserializer)?;
    match number {
        Some(x) if !x.is_finite() => Err(D::Error::custom(format!("expected a finite number, found {x}"))),
        _ => Ok(number),
    }
}

/// Adam's two decay rates, each a [`fraction`].
pub fn betas<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 2], D::Error> {
    let betas = <[f64; 2]>::deserialize(deserializer)?;
    match betas.iter().find(|beta| !(0.0..1.0).contains(*beta)) {
        Some(beta) => Err(D::Error::custom(format!("expected two numbers of at least 0 and below 1, found {beta}"))),
        None => Ok(betas),
    }
}

/// A whole number of at least 1.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("expected a whole number of at least 1, found 0")),
        number => Ok(number),
    }
}

/// [`count`], or nothing.
pub fn optional_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match Option::<u32>::deserialize(deserializer)? {
        Some(0) => Err(D::Error::custom("expected a whole number of at least 1, found 0")),
        number => Ok(number),
    }
}

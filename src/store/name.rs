//! Checks of names before they become file names, so that no path leaves its folder.

use super::{OutputKey, StoreError};

/// Refuses a `name` unless it is one plain file name on every system. `noun` is for the message.
pub(super) fn check_name(noun: &'static str, name: &str) -> Result<(), StoreError> {
    let plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if plain && !name.is_empty() && !name.starts_with('.') && !name.ends_with('.') && name.len() <= 128 {
        Ok(())
    } else {
        Err(StoreError::Name { what: noun, name: name.to_string() })
    }
}

/// Refuses a key unless the node's name is a plain file name.
pub(super) fn check_key(key: &OutputKey) -> Result<(), StoreError> {
    check_name(key.kind.name(), &key.name)
}

//! The unit for products in bf16, chosen once. Knows nothing of matrices.
//!
//! All units give the same bits. A unit is used after it gave the bits of plain f32 on a small
//! product.

use std::env;
use std::sync::OnceLock;

use super::check;
use super::unit::Unit;

/// The environment variable with a unit's name, for comparisons.
const VARIABLE: &str = "OPTUNE_CPU_UNIT";

/// The unit in use, and findings about others.
struct Chosen {
    unit: Unit,
    /// Units with wrong bits.
    wrong: Vec<&'static str>,
    /// An unusable name in the variable.
    problem: Option<String>,
}

/// Chooses once.
fn chosen() -> &'static Chosen {
    static CHOSEN: OnceLock<Chosen> = OnceLock::new();
    CHOSEN.get_or_init(|| choose(env::var_os(VARIABLE).map(|name| name.to_string_lossy().into_owned()).as_deref()))
}

/// The unit called `wanted`, or the best.
fn choose(wanted: Option<&str>) -> Chosen {
    let (right, wrong): (Vec<Unit>, Vec<Unit>) = Unit::usable().into_iter().partition(|unit| check::is_right(*unit));
    let wanted = wanted.filter(|name| !name.is_empty());
    let found = wanted.and_then(|name| right.iter().find(|unit| unit.name() == name));
    let problem = wanted.filter(|_| found.is_none()).map(|name| {
        let names: Vec<&str> = right.iter().map(|unit| unit.name()).collect();
        format!("{VARIABLE}: expected one of the units of this CPU ({}), found {name}", names.join(", "))
    });
    let unit = found.or(right.first()).copied().unwrap_or(Unit::Portable);
    Chosen { unit, wrong: wrong.iter().map(|unit| unit.name()).collect(), problem }
}

/// The unit of this process.
pub(in crate::compute::cpu::kernels) fn unit() -> Unit {
    chosen().unit
}

/// Whether bf16 numbers are multiplied by a matrix unit: the more rows at once, the faster each.
pub fn has_matrix_unit() -> bool {
    unit().name() == "amx"
}

/// The unit of bf16 products, in words.
pub fn bf16_unit() -> String {
    let Chosen { unit, wrong, .. } = chosen();
    let name = match unit.name() {
        "amx" => "AMX",
        "avx512" => "AVX-512",
        "avx2" => "AVX2",
        "neon" => "NEON",
        _ => "no vectors",
    };
    if wrong.is_empty() { name.to_string() } else { format!("{name} ({} not used: wrong results)", wrong.join(", ")) }
}

/// Whether the unit named by the environment can be used.
///
/// # Errors
/// When this CPU has no such unit, in words.
pub fn check_bf16_unit() -> Result<(), String> {
    if env::var_os(VARIABLE).is_none() {
        return Ok(());
    }
    chosen().problem.clone().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_can_be_named() {
        assert_eq!(choose(Some("portable")).unit.name(), "portable");
        assert!(choose(Some("portable")).problem.is_none() && choose(None).problem.is_none());
        let problem = choose(Some("abacus")).problem.unwrap();
        assert!(problem.contains("portable") && problem.ends_with("found abacus"), "{problem}");
    }

    #[test]
    fn every_unit_of_this_machine_is_right() {
        for unit in Unit::usable() {
            assert!(check::is_right(unit), "{}", unit.name());
        }
        assert!(check::is_right(Unit::Software));
    }
}

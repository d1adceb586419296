//! The length-controlled win rate against the package alpaca_eval, on the same annotations.

use std::path::Path;

use optune::win_rates::{Compared, LengthControl};
use serde_json::Value;

use crate::fixtures::python::run_script;

fn assert_equal(cases: &Value) {
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 10);
    let mut largest: f64 = 0.0;
    for case in cases {
        let number = |value: &Value| value.as_f64().unwrap();
        let pair = |pair: &Value| Compared { preference: number(&pair[0]), length: number(&pair[1]), baseline_length: number(&pair[2]) };
        let pairs: Vec<Compared> = case["pairs"].as_array().unwrap().iter().map(pair).collect();
        let plain = 100.0 * pairs.iter().map(|pair| pair.preference).sum::<f64>() / pairs.len() as f64;
        assert!((plain - number(&case["win_rate"])).abs() < 1e-9, "{}", case["name"]);
        let fitted = LengthControl::fit(&pairs).unwrap();
        let found = 100.0 * fitted.win_rate();
        let difference = (found - number(&case["length_controlled"])).abs();
        let by_default = (found - number(&case["length_controlled_by_default"])).abs();
        eprintln!(
            "{}: {found:.6}, differs by {difference:e}; from the package's own tolerance by {by_default:e}; {fitted:?}",
            case["name"]
        );
        largest = largest.max(difference);
    }
    assert!(largest < 1e-6, "{largest:e}");
}

#[test]
fn win_rates_equal_those_of_alpaca_eval() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/length_control.json");
    assert_equal(&serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap());
}

#[test]
fn the_package_says_the_same_today() {
    let Some(output) = run_script("length_control.py", &[]) else { return };
    assert_equal(&serde_json::from_slice(&output).unwrap());
}

#[test]
fn fewer_than_five_pairs_have_no_length_control() {
    let pair = Compared { preference: 1.0, length: 1.0, baseline_length: 2.0 };
    assert_eq!(LengthControl::fit(&[pair; 4]), None);
    // Equal differences say nothing about length.
    let fitted = LengthControl::fit(&[pair; 20]).unwrap();
    assert!(fitted.of_length == 0.0 && fitted.win_rate() > 0.9, "{fitted:?}");
}

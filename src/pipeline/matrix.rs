//! Sweeps: one file with a `matrix` for many runs, one for each of its points.
//!
//! As in GitHub Actions: every combination of the values of all axes, without the combinations of
//! `exclude` and with those of `include`. Unlike there, an entry of `include` can be several
//! combinations, and never changes others.
//!
//! Knows params and their values, not their use.

use serde::Deserialize;

use super::error::Diagnostic;
use super::position::Span;
use super::spec::Param;
use super::tree::{Tree, Value};
use crate::did_you_mean::{one_of, suggestion};

/// The axis besides the params: the seed of all random numbers.
const SEED: &str = "seed";

/// The most points; a sweep of more is a mistake.
const MOST_POINTS: usize = 1_000;

/// One run of a sweep: a value for every axis, in the order of the axes, then for further params of
/// `include`.
#[derive(Clone, Debug, Default)]
pub(super) struct Point(Vec<(String, Tree)>);

impl Point {
    /// The values, as a person writes them.
    pub(super) fn values(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(axis, value)| (axis.clone(), written(value))).collect()
    }

    /// The file of this run, with the params, the seed and the name of the point.
    pub(super) fn apply(&self, file: &Tree) -> Result<Tree, Diagnostic> {
        let mut file = file.clone();
        let Value::Mapping(entries) = &mut file.value else {
            return Err(Diagnostic::internal("matrix: the file is no mapping"));
        };
        for (axis, value) in &self.0 {
            let values = match axis.as_str() {
                SEED => &mut *entries,
                _ => match entries.iter_mut().find(|(key, _)| key.text() == Some("params")) {
                    Some((_, Tree { value: Value::Mapping(params), .. })) => params,
                    _ => return Err(Diagnostic::internal(format!("matrix: the axis {axis} is no param"))),
                },
            };
            match values.iter_mut().find(|(key, _)| key.text() == Some(axis)) {
                Some((_, old)) => *old = value.clone(),
                None => values.push((Tree { value: Value::Text(axis.clone()), span: value.span }, value.clone())),
            }
        }
        if let Some((_, name)) = entries.iter_mut().find(|(key, _)| key.text() == Some("name"))
            && let Some(base) = name.text()
        {
            let values = self.0.iter().map(|(_, value)| format!("-{}", in_a_name(&written(value))));
            name.value = Value::Text(format!("{base}{}", values.collect::<String>()));
        }
        Ok(file)
    }
}

/// A value as a person writes it.
fn written(value: &Tree) -> String {
    Param::deserialize(value).map_or(String::new(), |param| param.to_string())
}

/// A value as part of a run's name.
fn in_a_name(value: &str) -> String {
    value.chars().map(|c| if c.is_ascii_alphanumeric() || ['.', '_'].contains(&c) { c } else { '_' }).collect()
}

/// Removes the matrix from a file and returns its points; none without a matrix. `sets` of axes
/// keep the points with these values, and are removed from `sets`.
pub(super) fn points(file: &mut Tree, sets: &mut Vec<(String, String)>) -> Result<Option<Vec<Point>>, Diagnostic> {
    let Value::Mapping(entries) = &mut file.value else { return Ok(None) };
    let Some(at) = entries.iter().position(|(key, _)| key.text() == Some("matrix")) else { return Ok(None) };
    let (key, matrix) = entries.remove(at);
    let defaults = defaults(entries);
    let Value::Mapping(parts) = &matrix.value else {
        return Err(Diagnostic::at(matrix.span, "expected the axes of the matrix, each with the list of its values"));
    };
    let mut axes = Vec::new();
    let mut excluded = Vec::new();
    let mut included = Vec::new();
    for (name, part) in parts {
        match name.text().unwrap_or_default() {
            "exclude" => excluded = entries_of(part)?,
            "include" => included = entries_of(part)?,
            axis => {
                let default = default_of(axis, name.span, &defaults)?;
                axes.push((axis.to_string(), values(part, default)?));
            }
        }
    }
    if axes.is_empty() && included.is_empty() {
        return Err(Diagnostic::at(key.span, "expected an axis at least: a param, or seed, and the list of its values"));
    }
    let mut points = if axes.is_empty() { Vec::new() } else { product(&axes, key.span)? };
    for entry in excluded {
        let mut values = Vec::new();
        for (name, value) in mapping(entry)? {
            let axis = name.text().unwrap_or_default();
            if !axes.iter().any(|(other, _)| other == axis) {
                let names: Vec<&str> = axes.iter().map(|(name, _)| name.as_str()).collect();
                return Err(Diagnostic::at(name.span, format!("unknown axis \"{axis}\"{}", suggestion(axis, &names))));
            }
            values.push((axis, value));
        }
        let before = points.len();
        points.retain(|Point(point)| !values.iter().all(|(axis, value)| point.iter().any(|(a, v)| a == axis && v.value == value.value)));
        if points.len() == before {
            return Err(Diagnostic::at(entry.span, "expected values that some combination has, found none that has them all"));
        }
    }
    for entry in included {
        let mut own = Vec::new();
        for (name, value) in mapping(entry)? {
            let axis = name.text().unwrap_or_default();
            let default = default_of(axis, name.span, &defaults)?;
            own.push((
                axis.to_string(),
                if matches!(value.value, Value::List(_)) { values(value, default)? } else { one(value, default)? },
            ));
        }
        // In the order of the axes, for similar names.
        let mut all = Vec::new();
        for (axis, _) in &axes {
            let given = own.iter().position(|(name, _)| name == axis).map(|at| own.remove(at).1);
            all.push((
                axis.clone(),
                given.unwrap_or_else(|| defaults.iter().filter(|(name, _)| name == axis).map(|(_, v)| v.clone()).collect()),
            ));
        }
        all.extend(own);
        for point in product(&all, entry.span)? {
            if !points.iter().any(|other| other.values() == point.values()) {
                points.push(point);
            }
        }
    }
    let is_axis = |name: &str| points.iter().any(|Point(point)| point.iter().any(|(axis, _)| axis == name));
    let (of_axes, others) = std::mem::take(sets).into_iter().partition(|(name, _)| is_axis(name));
    *sets = others;
    for (name, value) in of_axes {
        let value_of = |point: &Point| point.values().into_iter().find(|(axis, _)| *axis == name).map(|(_, value)| value);
        let mut there: Vec<String> = points.iter().filter_map(value_of).collect();
        there.dedup();
        points.retain(|point| value_of(point).as_ref() == Some(&value));
        if points.is_empty() {
            let there: Vec<&str> = there.iter().map(String::as_str).collect();
            return Err(Diagnostic::nowhere(format!("--set {name}={value}: no run of the matrix has it; expected {}", one_of(&there))));
        }
    }
    match points.len() {
        0 => Err(Diagnostic::at(key.span, "expected a combination at least, found every one excluded")),
        many if many > MOST_POINTS => Err(too_many(key.span)),
        _ => Ok(Some(points)),
    }
}

/// The params and the seed of the file without its matrix.
fn defaults(entries: &[(Tree, Tree)]) -> Vec<(String, Tree)> {
    let of = |name: &str| entries.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value);
    let params = match of("params").map(|params| &params.value) {
        Some(Value::Mapping(params)) => params.as_slice(),
        _ => &[],
    };
    let seed = of(SEED).cloned().unwrap_or(Tree { value: Value::Integer(0), span: Span::default() });
    let named = |(key, value): &(Tree, Tree)| Some((key.text()?.to_string(), value.clone()));
    [(SEED.to_string(), seed)].into_iter().chain(params.iter().filter_map(named)).collect()
}

/// The value of a param without a matrix.
fn default_of<'a>(axis: &str, span: Span, defaults: &'a [(String, Tree)]) -> Result<&'a Tree, Diagnostic> {
    match defaults.iter().rfind(|(name, _)| name == axis) {
        Some((name, _)) if name == SEED && defaults.iter().filter(|(name, _)| name == SEED).count() > 1 => {
            Err(Diagnostic::at(span, "expected to know which seed is meant, found a param of that name; give the param another name"))
        }
        Some((_, value)) => Ok(value),
        None => {
            let names: Vec<&str> = defaults.iter().map(|(name, _)| name.as_str()).collect();
            Err(Diagnostic::at(span, format!("unknown param \"{axis}\"{}", suggestion(axis, &names))))
        }
    }
}

fn entries_of(part: &Tree) -> Result<Vec<&Tree>, Diagnostic> {
    match &part.value {
        Value::List(items) => Ok(items.iter().collect()),
        _ => Err(Diagnostic::at(part.span, "expected a list of combinations")),
    }
}

fn mapping(entry: &Tree) -> Result<&[(Tree, Tree)], Diagnostic> {
    match &entry.value {
        Value::Mapping(entries) if !entries.is_empty() => Ok(entries),
        _ => Err(Diagnostic::at(entry.span, "expected a combination, such as { ratio: 0.5 }")),
    }
}

/// The values of an axis: at least one, no two alike.
fn values(part: &Tree, default: &Tree) -> Result<Vec<Tree>, Diagnostic> {
    let Value::List(items) = &part.value else {
        return Err(Diagnostic::at(part.span, "expected the list of values that the axis takes"));
    };
    if items.is_empty() {
        return Err(Diagnostic::at(part.span, "expected a value at least"));
    }
    for (index, item) in items.iter().enumerate() {
        one(item, default)?;
        if items.iter().take(index).any(|other| other.value == item.value) {
            return Err(Diagnostic::at(item.span, "the axis has this value already"));
        }
    }
    Ok(items.clone())
}

/// A value of the same kind as the param.
fn one(item: &Tree, default: &Tree) -> Result<Vec<Tree>, Diagnostic> {
    let is_text = item.text().is_some_and(|text| !text.contains("${"));
    let (fits, expected) = match &default.value {
        Value::Text(_) => (is_text, "text, as the param is"),
        Value::Padded(_) => (is_text || item.value.is_number(), "a number or text, as the param is"),
        Value::Boolean(_) => (matches!(item.value, Value::Boolean(_)), "true or false, as the param is"),
        _ => (item.value.is_number(), "a number, as the param is"),
    };
    if fits { Ok(vec![item.clone()]) } else { Err(Diagnostic::at(item.span, format!("expected {expected}"))) }
}

/// Every combination of the axes' values, the last axis changing first.
fn product(axes: &[(String, Vec<Tree>)], span: Span) -> Result<Vec<Point>, Diagnostic> {
    let count = axes.iter().fold(1_usize, |count, (_, values)| count.saturating_mul(values.len()));
    if count > MOST_POINTS {
        return Err(too_many(span));
    }
    let mut points = vec![Point::default()];
    for (axis, values) in axes {
        let with = |Point(point): Point| {
            let further = move |value: &Tree| Point(point.iter().cloned().chain([(axis.clone(), value.clone())]).collect());
            values.iter().map(further).collect::<Vec<_>>()
        };
        points = points.into_iter().flat_map(with).collect();
    }
    Ok(points)
}

fn too_many(span: Span) -> Diagnostic {
    Diagnostic::at(span, format!("expected at most {MOST_POINTS} combinations, found more"))
}

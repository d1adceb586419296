//! Tracking: displays of a run besides its tables.
//!
//! Knows the keys, not the displayed numbers. Never part of a fingerprint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::error::Diagnostic;
use crate::pipeline::position::{At, Span};

/// Programs with live curves of a run. They only read its tables and never change its outputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tracking {
    /// Whether to write event files for TensorBoard to `runs/<name>/tensorboard`.
    #[serde(default)]
    pub tensorboard: bool,
    /// An MLflow server to send metrics to. An unreachable server does not stop the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mlflow: Option<Mlflow>,
}

/// An MLflow tracking server. A token comes from MLflow's own variable MLFLOW_TRACKING_TOKEN; a
/// user with a password needs a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mlflow {
    /// The server's address, such as `http://localhost:5000`.
    pub uri: At<String>,
    /// The experiment of the run; created if it does not exist.
    #[serde(default = "experiment")]
    pub experiment: At<String>,
}

impl Tracking {
    /// Whether tracking is off.
    pub fn is_off(&self) -> bool {
        !self.tensorboard && self.mlflow.is_none()
    }

    /// Checks the address and the name.
    pub(in crate::pipeline) fn check(&self) -> Result<(), Diagnostic> {
        let Some(Mlflow { uri, experiment }) = &self.mlflow else { return Ok(()) };
        let rest = uri.value.strip_prefix("http://").or_else(|| uri.value.strip_prefix("https://"));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        if host.is_empty() {
            let found = &uri.value;
            return Err(Diagnostic::at(uri.span, format!("expected an address such as http://localhost:5000, found \"{found}\"")));
        }
        if host.contains('@') {
            // The address is written into the run folder, with a password in it.
            let problem = "expected an address without user and password; put a token into the variable MLFLOW_TRACKING_TOKEN instead";
            return Err(Diagnostic::at(uri.span, problem));
        }
        if uri.value.contains(['?', '#']) {
            return Err(Diagnostic::at(uri.span, format!("expected an address without \"?\" and \"#\", found \"{}\"", uri.value)));
        }
        let name = experiment.value.trim();
        if name.is_empty() || name.contains(['\'', '"', '`', '\n']) {
            return Err(Diagnostic::at(experiment.span, format!("expected a name without quotes, found {:?}", experiment.value)));
        }
        Ok(())
    }
}

fn experiment() -> At<String> {
    At { value: "optune".to_string(), span: Span::default() }
}

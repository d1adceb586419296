//! Where the numbers of a run are shown besides its tables.
//!
//! Knows what a user may write about it, not what is shown. Never part of any fingerprint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pipeline::error::Diagnostic;
use crate::pipeline::position::{At, Span};

/// Programs that draw curves of a run as it goes on. They change nothing about it: what they are given is read from its tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tracking {
    /// Whether event files for TensorBoard are written to `runs/<name>/tensorboard`.
    #[serde(default)]
    pub tensorboard: bool,
    /// An MLflow server that is told; one that is down does not stop the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mlflow: Option<Mlflow>,
}

/// An MLflow tracking server. A token, or a user and a password, come from MLflow's own variable MLFLOW_TRACKING_TOKEN, as a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mlflow {
    /// The server's address, such as `http://localhost:5000`.
    pub uri: At<String>,
    /// The experiment that the run belongs to; made where there is none of this name.
    #[serde(default = "experiment")]
    pub experiment: At<String>,
}

impl Tracking {
    /// Whether nothing is shown.
    pub fn is_off(&self) -> bool {
        !self.tensorboard && self.mlflow.is_none()
    }

    /// Checks what is no address or no name.
    pub(in crate::pipeline) fn check(&self) -> Result<(), Diagnostic> {
        let Some(Mlflow { uri, experiment }) = &self.mlflow else { return Ok(()) };
        let rest = uri.value.strip_prefix("http://").or_else(|| uri.value.strip_prefix("https://"));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
        if host.is_empty() {
            let found = &uri.value;
            return Err(Diagnostic::at(uri.span, format!("expected an address such as http://localhost:5000, found \"{found}\"")));
        }
        if host.contains('@') {
            // The address is written into the run folder, and so would be the password.
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

//! Checks of the servers of a node: a policy of the pipeline gets into them, and by one way only.
//!
//! Opens no connection.

use super::link::Link;
use crate::pipeline::error::Diagnostic;
use crate::pipeline::scope::Target;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::Spec;
use crate::pipeline::spec::engine::{Engine, Server};
use crate::pipeline::spec::input::Input;
use crate::pipeline::spec::update::Update;

/// Checks that a server can load the policy. A server keeps answering with its loaded model, so a
/// policy made by the pipeline needs a way into it.
pub(super) fn check_server(engine: Option<&Engine>, links: &[Link]) -> Result<(), Diagnostic> {
    let Some(engine) = engine else { return Ok(()) };
    check_update(engine)?;
    let made = links.iter().find(|link| link.slot == Slot::Policy && !matches!(link.target, Target::Source(_)));
    match made {
        Some(policy) if !loads(engine) => Err(Diagnostic::at(
            policy.span,
            format!(
                "the policy \"{}\" is made by this pipeline, and the server of \"{}\" would go on answering with an older one; \
                 add to engine how it gets there: `update: vllm`, sglang, lora or {{ command: […] }}, or a command that has it load \
                 {{model}}: `serve: \"… {{model}}\"`",
                policy.name, engine.model.value
            ),
        )),
        _ => Ok(()),
    }
}

/// Checks that a server of an evaluation can load the baselines too: one model has one name there.
pub(super) fn check_baseline_server(spec: &Spec, engine: Option<&Engine>, links: &[Link]) -> Result<(), Diagnostic> {
    let is_table = |link: &Link| spec.inputs.get(link.name.as_str()).is_some_and(|input| matches!(input, Input::Table(_)));
    let model = links.iter().find(|link| link.slot == Slot::Baseline && !is_table(link));
    match (engine, model) {
        (Some(engine), Some(baseline)) if !loads(engine) => Err(Diagnostic::at(
            baseline.span,
            format!(
                "the server's \"{}\" is the policy and not the baseline \"{}\"; add to engine how both get there: `update: vllm`, \
                 sglang, lora or {{ command: […] }}, or a command that has it load {{model}}: `serve: \"… {{model}}\"`; or compare \
                 with a table of texts",
                engine.model.value, baseline.name
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether the engine says how a policy gets into its servers.
fn loads(engine: &Engine) -> bool {
    engine.serve.is_some() || engine.update.is_some()
}

/// Checks `update` with the keys that it goes with.
fn check_update(engine: &Engine) -> Result<(), Diagnostic> {
    let Some(update) = &engine.update else {
        return match &engine.admin {
            Some(admin) => Err(Diagnostic::at(
                admin.first().span,
                "\"admin\" is read by `update` only; add how the policy gets into the servers, or leave it out",
            )),
            None => Ok(()),
        };
    };
    if engine.serve.is_some() {
        let problem = "expected `update` or `serve`, found both; each of them loads the policy, so leave out one";
        return Err(Diagnostic::at(update.span, problem));
    }
    let fits = match (&update.value, engine.server) {
        (_, Server::Auto) | (Update::Command(_), _) => true,
        (Update::Vllm | Update::Lora, server) => server == Server::Vllm,
        (Update::Sglang, server) => server == Server::Sglang,
    };
    if !fits {
        let kind = if matches!(update.value, Update::Sglang) { "sglang" } else { "vllm" };
        let name = update.value.name();
        let problem = format!("expected `server: {kind}`, or none, beside `update: {name}`, found another; leave one of them out");
        return Err(Diagnostic::at(update.span, problem));
    }
    let servers = engine.openai.iter().count();
    let found = engine.admin.as_ref().map_or(servers, |admin| admin.iter().count());
    match &engine.admin {
        Some(admin) if servers > 1 && found != servers => Err(Diagnostic::at(
            admin.first().span,
            format!(
                "expected {servers} addresses, one for each of `openai` in the same order, found {found}; a router has one address in \
                 `openai`"
            ),
        )),
        _ => Ok(()),
    }
}

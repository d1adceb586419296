//! Adapters of vLLM, loaded while it serves (vllm-project/vllm, `docs/features/lora.md`).
//!
//! | call | body |
//! |---|---|
//! | POST `/v1/load_lora_adapter` | `lora_name`, `lora_path`; answers a text; 400 if the name is loaded already |
//! | POST `/v1/unload_lora_adapter` | `lora_name`; answers a text |
//! | GET `/v1/models` | the adapters among the models |
//!
//! From `vllm/entrypoints/serve/lora/api_router.py`. Requests name the adapter as their model. A
//! server that has lost it answers 404.

use serde_json::{Value, json};

use super::calls::{Calls, told};
use crate::remote::error::RemoteError;
use crate::remote::printable::printable;
use crate::remote::stop::Stopped;

/// What a server without these calls needs.
const HINT: &str = "serve vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora, and let it see the adapter's directory";
/// The longest list of models in an error.
const MODELS_SHOWN: usize = 20;

/// The version if the server has an adapter of that name, else the names of its models.
pub(super) fn version(calls: &Calls, wanted: &str, stopped: Stopped) -> Result<String, RemoteError> {
    let names = models(calls, stopped)?;
    Ok(if names.iter().any(|name| name == wanted) {
        wanted.to_string()
    } else {
        let names: Vec<String> = names.iter().take(MODELS_SHOWN).map(|name| printable(name)).collect();
        format!("the models {}", names.join(", "))
    })
}

/// Loads the adapter in `path` under its version, in the place of those that it replaces.
pub(super) fn load(calls: &Calls, path: &str, wanted: &str, replaced: &[String], stopped: Stopped) -> Result<(), RemoteError> {
    let loaded = models(calls, stopped)?;
    for name in replaced.iter().filter(|name| loaded.contains(*name)) {
        // One that stays takes room, and no answer comes from it.
        if let Err(RemoteError::Stopped) = calls.long.tell("/v1/unload_lora_adapter", &json!({ "lora_name": name }), stopped) {
            return Err(RemoteError::Stopped);
        }
    }
    let body = json!({ "lora_name": wanted, "lora_path": path });
    let told_by = || version(calls, wanted, stopped);
    let is_done = || told_by().is_ok_and(|found| found == wanted);
    calls.persist(stopped, is_done, || {
        calls.long.tell("/v1/load_lora_adapter", &body, stopped).map_err(|error| told(error, HINT))?;
        // Any text is a success: a proxy's would be one too.
        calls.expect(wanted, told_by()?)
    })
}

/// The names of the served models, adapters among them.
fn models(calls: &Calls, stopped: Stopped) -> Result<Vec<String>, RemoteError> {
    let names = |answer: Value| {
        let models = answer.get("data").and_then(Value::as_array);
        let models = models.ok_or_else(|| "expected a list of models as \"data\", found none".to_string())?;
        Ok(models.iter().filter_map(|model| Some(model.get("id")?.as_str()?.to_string())).collect())
    };
    calls.short.get("/v1/models", stopped, names).map_err(|error| told(error, HINT))
}

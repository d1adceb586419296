//! SGLang's update of weights from a disk (sgl-project/sglang,
//! `docs/advanced_features/sglang_for_rl.md`).
//!
//! | call | body |
//! |---|---|
//! | POST `/pause_generation` | `mode`: `abort` ends requests in flight |
//! | POST `/update_weight_version` | `new_version`, `abort_all_requests` |
//! | POST `/update_weights_from_disk` | `model_path`, `weight_version`; answers `success` and `message`, 400 if it failed |
//! | POST `/continue_generation` | |
//! | GET `/model_info`, once `/get_model_info` | answers `weight_version` |
//!
//! From `python/sglang/srt/entrypoints/http_server.py`. An update also renames the served model to
//! its path (`_update_model_path_info` of the tokenizer manager).

use serde_json::{Value, json};

use super::calls::{Calls, told, unfinished, version_in};
use crate::remote::error::RemoteError;
use crate::remote::stop::Stopped;

/// What a server without these calls needs.
const HINT: &str = "serve a version of SGLang with /pause_generation and weight_version";

/// The version that the server tells.
pub(super) fn version(calls: &Calls, stopped: Stopped) -> Result<String, RemoteError> {
    let version = |answer: Value| version_in(&answer);
    let found = match calls.short.get("/model_info", stopped, version) {
        Err(error) if error.status() == Some(404) => calls.short.get("/get_model_info", stopped, version),
        found => found,
    };
    found.map_err(|error| told(error, HINT))
}

/// Ends a pause, if there is one.
pub(super) fn resume(calls: &Calls, stopped: Stopped) -> Result<(), RemoteError> {
    calls.call("/continue_generation", json!({}), HINT, stopped)
}

/// Loads the weights in `path`. After a failure the server stays paused: its weights may be those
/// of two policies.
pub(super) fn load(calls: &Calls, path: &str, wanted: &str, stopped: Stopped) -> Result<(), RemoteError> {
    calls.call("/pause_generation", json!({ "mode": "abort" }), HINT, stopped)?;
    let mut taken = unfinished();
    taken["abort_all_requests"] = json!(false);
    if let Err(error) = calls.call("/update_weight_version", taken, HINT, stopped) {
        // Its weights are whole still. The reason is the first error.
        let _ = resume(calls, stopped);
        return Err(error);
    }
    let body = json!({ "model_path": path, "weight_version": wanted });
    let loaded = |answer: Value| match answer.get("success").and_then(Value::as_bool) {
        Some(true) => Ok(()),
        _ => Err("expected \"success\": true, found another answer".to_string()),
    };
    let once = calls.long.once();
    let is_done = || version(calls, stopped).is_ok_and(|found| found == wanted);
    let attempt = || once.post("/update_weights_from_disk", &body, stopped, loaded).map_err(|error| told(error, HINT));
    calls.persist(stopped, is_done, attempt)?;
    resume(calls, stopped)
}

//! vLLM's weight transfer from a disk (vllm-project/vllm, `docs/training/weight_transfer/disk.md`).
//!
//! | call | body |
//! |---|---|
//! | POST `/pause` | requests in flight are aborted, caches cleared |
//! | POST `/update_weight_version` | `new_version` |
//! | POST `/init_weight_transfer_engine` | `init_info`, empty: a disk needs no rendezvous |
//! | POST `/start_weight_update` | |
//! | POST `/update_weights` | `update_info.path` |
//! | POST `/finish_weight_update` | `weight_version` |
//! | POST `/resume` | |
//! | GET `/weight_info` | answers `weight_version` |
//!
//! From `vllm/entrypoints/serve/dev/rlhf/api_router.py`. Start, update and finish are a session of
//! `vllm/distributed/weight_transfer/disk_engine.py`: one that is open refuses another start, and a
//! failed update closes it.

use serde_json::{Value, json};

use super::calls::{Calls, told, unfinished, version_in};
use crate::remote::error::RemoteError;
use crate::remote::stop::Stopped;

/// What a server without these calls needs.
const HINT: &str = "serve vLLM with VLLM_SERVER_DEV_MODE=1 and --weight-transfer-config '{\"backend\": \"disk\"}', in a version with \
                    /weight_info and that backend";

/// The version that the server tells.
pub(super) fn version(calls: &Calls, stopped: Stopped) -> Result<String, RemoteError> {
    calls.short.get("/weight_info", stopped, |answer| version_in(&answer)).map_err(|error| told(error, HINT))
}

/// Ends a pause, if there is one.
pub(super) fn resume(calls: &Calls, stopped: Stopped) -> Result<(), RemoteError> {
    calls.call("/resume", json!({}), HINT, stopped)
}

/// Loads the weights in `path`.
pub(super) fn load(calls: &Calls, path: &str, wanted: &str, stopped: Stopped) -> Result<(), RemoteError> {
    calls.call("/pause", json!({}), HINT, stopped)?;
    let prepared = calls
        .call("/update_weight_version", unfinished(), HINT, stopped)
        .and_then(|()| calls.call("/init_weight_transfer_engine", json!({ "init_info": {} }), HINT, stopped));
    if let Err(error) = prepared {
        // Its weights are whole still. The reason is the first error.
        let _ = resume(calls, stopped);
        return Err(error);
    }
    let is_done = || version(calls, stopped).is_ok_and(|found| found == wanted);
    calls.persist(stopped, is_done, || session(calls, path, wanted, stopped))?;
    resume(calls, stopped)
}

/// One session. After a failure the server stays paused: its weights may be those of two policies.
fn session(calls: &Calls, path: &str, version: &str, stopped: Stopped) -> Result<(), RemoteError> {
    let post = |path: &str, body: Value| calls.long.once().post(path, &body, stopped, |_| Ok(())).map_err(|error| told(error, HINT));
    match post("/start_weight_update", json!({})) {
        Ok(()) => {}
        Err(RemoteError::Stopped) => return Err(RemoteError::Stopped),
        Err(_) => {
            // A session that was cut off is open. Its end gives it no version.
            match post("/finish_weight_update", json!({})) {
                Err(RemoteError::Stopped) => return Err(RemoteError::Stopped),
                Ok(()) | Err(_) => post("/start_weight_update", json!({}))?,
            }
        }
    }
    post("/update_weights", json!({ "update_info": { "path": path } }))?;
    post("/finish_weight_update", json!({ "weight_version": version }))
}

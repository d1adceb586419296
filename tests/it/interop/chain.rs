//! The whole chain on real data (OPTUNE_REAL_DIR): preferences, sft, reward models, OPTune by the
//! learned reward models, export.

use std::path::{Path, PathBuf};

use crate::fixtures::files::copy_folder;
use crate::fixtures::python::run_script;
use crate::fixtures::real_data::real_folder;
use crate::fixtures::repository::optune;

/// The model with a chat template: a turn a line.
fn chat_model(real: &Path, folder: &Path) -> PathBuf {
    let chat = folder.join("chat");
    copy_folder(&real.join("stories260K"), &chat);
    let template = "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}\
                    {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    std::fs::write(chat.join("chat_template.jinja"), template).unwrap();
    chat
}

#[test]
fn preferences_become_a_reward_model_and_that_a_policy() {
    let Some(real) = real_folder() else { return };
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let (data, chat) = (format!("data={}", real.display()), format!("chat={}", chat_model(&real, folder.path()).display()));
    optune(&runs, &["run", "tests/chain/chain.yaml", "--set", &data, "--set", &chat]);
    let query = |sql: &str| -> f64 {
        let csv = optune(&runs, &["sql", "chain", sql, "--format", "csv"]);
        csv.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{sql}: {csv}"))
    };
    let accuracy = query("SELECT avg(CAST(correct AS DOUBLE)) FROM judge_ranking");
    let held_out = query("SELECT CAST(count(*) AS DOUBLE) FROM judge_ranking");
    let chats = query("SELECT CAST(count(*) AS DOUBLE) FROM manners_ranking");
    let start = query("SELECT avg(baseline_reward) FROM happier");
    let end = query("SELECT avg(reward) FROM happier WHERE iteration = 2");
    let learned_start = query("SELECT avg(baseline_reward) FROM evaluation");
    let learned_end = query("SELECT avg(reward) FROM evaluation WHERE iteration = 2");
    eprintln!("judge: accuracy {accuracy:.3} on {held_out} held-out pairs; {chats} chats held out");
    eprintln!("happiness {start:.3} to {end:.3}; learned reward {learned_start:.3} to {learned_end:.3}");
    assert!(held_out > 50.0 && accuracy > 0.6, "accuracy {accuracy} on {held_out} held-out pairs");
    assert!(learned_end > learned_start, "learned reward: {learned_start} to {learned_end}");
    assert!(end > start + 0.3, "happiness: {start} to {end}");
    assert_eq!(query("SELECT CAST(count(*) AS DOUBLE) FROM rewards WHERE reward IS NULL"), 0.0);

    for node in ["policy", "judge", "manners"] {
        let output = folder.path().join(node);
        optune(&runs, &["export", "policy", "chain", &output.to_string_lossy(), "--node", node]);
    }
    if let Some(said) = run_script("chain.py", &[folder.path().as_os_str()]) {
        eprintln!("{}", String::from_utf8_lossy(&said));
    }
}

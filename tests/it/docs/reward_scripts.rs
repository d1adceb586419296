//! The scripts of the page about rewards, run as the page says.

use std::path::Path;

use crate::fixtures::workspace::Workspace;

/// The blocks of Python on the page, each with the file named in its first line.
fn scripts() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/rewards.md")).unwrap();
    let blocks = page.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| {
            let name =
                block.lines().next().and_then(|line| line.strip_prefix("# ")).expect("a block of Python begins with its file's name");
            (name.to_string(), block.to_string())
        })
        .collect()
}

#[test]
fn scripts_of_the_page_about_rewards_run() {
    let scripts = scripts();
    assert_eq!(scripts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["rewards.py", "compile.py"]);
    let Some(python) = std::env::var_os("OPTUNE_PYTHON") else {
        eprintln!("skipped: OPTUNE_PYTHON is not set");
        return;
    };
    let python = std::path::absolute(python).unwrap().display().to_string();
    for (reward, expected) in [
        (
            r#"{ python: "rewards.py:close" }"#.to_string(),
            "r.reward = CASE WHEN a.text = p.reference_answer THEN 1.0 ELSE -abs(character_length(a.text) - character_length(p.reference_answer)) / 10.0 END",
        ),
        (
            format!("{{ command: [{python:?}, compile.py], files: [compile.py] }}"),
            "r.reward IN (0.0, 1.0) AND r.components['tokens'] = array_length(a.token_ids) - a.prompt_token_count",
        ),
    ] {
        let workspace = Workspace::new();
        for (name, text) in &scripts {
            workspace.write(name, text);
        }
        workspace.edit("pipeline.yaml", "iterations: 2", "iterations: 1");
        workspace.edit("pipeline.yaml", "{ reward: { sql: reward.sql } }", &format!("{{ reward: {reward} }}"));
        let output = workspace.optune(&["run", "pipeline.yaml"]);
        let error = String::from_utf8_lossy(&output.stderr);
        // A model this small may write nothing that compiles; then there is no pair to train on.
        assert!(output.status.success() || error.contains("pairs"), "{error}");
        let rows = "FROM rewards AS r JOIN responses AS a USING (prompt_id, sampled_iteration, response_index) JOIN prompts AS p USING (prompt_id)";
        assert_eq!(workspace.query("small", &format!("SELECT count(*) {rows} WHERE NOT ({expected})")), "0");
        assert_eq!(workspace.query("small", &format!("SELECT count(*) {rows}")), "60");
    }
}

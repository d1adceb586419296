//! Broken tables, models, tokenizers and queries: each is found with a clear error, exit code 2,
//! and before anything is made.
//!
//! Broken pipeline files are in `pipeline/broken_files.rs`.

use crate::fixtures::workspace::Workspace;

/// Breaks something, runs, and expects each of `said` in the error and no output.
fn refused(breaks: impl FnOnce(&Workspace), said: &[&str]) {
    let workspace = Workspace::new();
    breaks(&workspace);
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    for text in said {
        assert!(error.contains(text), "expected {text:?} in: {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
    assert!(
        !workspace.path("runs/small/tables").exists() && !workspace.path("runs/small/models").exists(),
        "left something behind: {error}"
    );
}

#[test]
fn tables() {
    refused(|w| w.write("prompts.jsonl", "{\"prompt\": \"a\", \"reference_answer\": \"b\"}\n{\"prompt\": \n"), &["prompts.jsonl"]);
    refused(|w| w.write("prompts.jsonl", ""), &["prompts"]);
    refused(|w| w.write("prompts.jsonl", "{\"question\": \"a\"}\n"), &["expected a column prompt or messages", "question"]);
    let row = |id: &str, prompt: &str| {
        format!("{{\"prompt_id\": \"{id}\", \"prompt\": {prompt}, \"reference_answer\": \"x\", \"group\": \"g\"}}\n")
    };
    refused(|w| w.write("prompts.jsonl", &(row("a", "\"q\"") + &row("a", "\"r\""))), &["prompts, row 1", "prompt_id a", "row 0"]);
    refused(|w| w.write("prompts.jsonl", &(row("a", "\"q\"") + &row("b", "null"))), &["prompts, row 1", "found neither"]);
    refused(|w| w.write("held_out.jsonl", &row("", "\"q\"")), &["held_out, row 0", "prompt_id"]);
    refused(|w| w.edit("pipeline.yaml", "response: reference_answer", "response: answer"), &["base", "answer", "reference_answer"]);
    refused(|w| w.edit("pipeline.yaml", "{ table: prompts.jsonl }", "{ table: prompts.parquet }"), &["prompts.parquet"]);
    refused(
        |w| {
            w.write("prompts.parquet", "this is not parquet");
            w.edit("pipeline.yaml", "{ table: prompts.jsonl }", "{ table: prompts.parquet }");
        },
        &["prompts.parquet"],
    );
    refused(
        |w| {
            w.write("prompts.csv", "prompt_id,prompt,reference_answer\na,b,1\na2,b,x\n");
            w.edit(
                "pipeline.yaml",
                "{ table: prompts.jsonl }",
                "{ table: prompts.csv, columns: { prompt_id: text, prompt: text, reference_answer: int64 } }",
            );
        },
        &["prompts.csv"],
    );
}

#[test]
fn models() {
    refused(|w| std::fs::remove_file(w.path("shape/config.json")).unwrap(), &["config.json"]);
    refused(|w| w.write("shape/config.json", "{ not json"), &["config.json"]);
    refused(
        |w| w.edit("shape/config.json", "LlamaForCausalLM", "BertForMaskedLM"),
        &["config.json", "BertForMaskedLM", "LlamaForCausalLM"],
    );
    refused(|w| w.edit("shape/config.json", "\"hidden_size\": ", "\"hidden_size\": 9999999999"), &["config.json", "hidden_size"]);
    refused(|w| w.edit("shape/config.json", "\"num_attention_heads\": ", "\"num_attention_heads\": 7"), &["config.json"]);
    refused(|w| w.edit("shape/config.json", "\"vocab_size\": ", "\"vocab_sizes\": "), &["config.json", "vocab_size"]);
    refused(|w| std::fs::remove_dir_all(w.path("shape")).unwrap(), &["shape"]);
    refused(|w| w.edit("pipeline.yaml", "initialize: random", "initialize: checkpoint"), &["shape", "safetensors"]);
    refused(
        |w| {
            w.write("shape/model.safetensors", "\u{1}garbage and more garbage");
            w.edit("pipeline.yaml", "initialize: random", "initialize: checkpoint");
        },
        &["model.safetensors"],
    );
}

#[test]
fn tokenizers() {
    refused(|w| std::fs::remove_file(w.path("shape/tokenizer.json")).unwrap(), &["tokenizer.json"]);
    refused(|w| w.write("shape/tokenizer.json", "{}"), &["tokenizer.json"]);
    refused(|w| w.edit("shape/config.json", "\"vocab_size\": 99", "\"vocab_size\": 9"), &["tokenizer.json", "vocab_size"]);
    refused(|w| w.write("shape/tokenizer_config.json", "[broken"), &["tokenizer_config.json"]);
    refused(|w| w.write("shape/chat_template.jinja", "{% for %}"), &["template"]);
}

#[test]
fn queries() {
    refused(|w| w.edit("reward.sql", "responses.text", "responses.txt"), &["rewards", "txt"]);
    refused(|w| w.edit("reward.sql", "AS reward", "AS points"), &["rewards", "expected a column reward", "points"]);
    refused(|w| w.edit("reward.sql", "levenshtein(", "levenstein("), &["levenstein"]);
    refused(|w| w.edit("reward.sql", "responses.response_index, ", ""), &["expected a column response_index"]);
    refused(
        |w| w.write("reward.sql", "SELECT prompt_id, response_index, text AS reward FROM responses"),
        &["column reward", "expected a number"],
    );
    refused(|w| w.write("reward.sql", "SELECT prompt_id, response_index, 1.0 AS reward FROM answers"), &["answers"]);
    refused(|w| w.write("reward.sql", "DELETE FROM responses"), &["reward"]);
    refused(|w| w.write("reward.sql", "SELECT FROM WHERE"), &["reward"]);
}

#[test]
fn devices() {
    if !cfg!(feature = "cuda") {
        let workspace = Workspace::new();
        let error = workspace.fail(&["run", "pipeline.yaml", "--device", "cuda"], 2);
        assert!(error.contains("--features cuda"), "{error}");
        assert!(!workspace.path("runs/small/tables").exists());
        refused(
            |w| w.edit("pipeline.yaml", "resources: { rows_per_part: 4 }", "resources: { rows_per_part: 4, device: cuda }"),
            &["--features cuda"],
        );
    }
}

/// Some errors show in the rows only. They stop the node that reads them, and earlier outputs stay.
#[test]
fn rewards_that_are_none() {
    let found = |sql: &str, said: &[&str]| {
        let workspace = Workspace::new();
        workspace.write("reward.sql", sql);
        let error = workspace.fail(&["run", "pipeline.yaml"], 2);
        for text in said {
            assert!(error.contains(text), "expected {text:?} in: {error}");
        }
        assert!(workspace.path("runs/small/manifests/responses/iteration=1.json").exists());
        assert!(!workspace.path("runs/small/tables/rewards/iteration=1").exists());
    };
    found(
        "SELECT prompt_id, response_index, CAST('NaN' AS DOUBLE) AS reward FROM responses",
        &["rewards[1]", "finite reward", "NaN", "p-0"],
    );
    found("SELECT prompt_id, response_index, CAST(NULL AS DOUBLE) AS reward FROM responses", &["finite reward", "null"]);
    found("SELECT prompt_id, response_index, 1.0 AS reward FROM responses WHERE response_index > 0", &["found no row", "response_index 0"]);
    found("SELECT prompt_id, 0 AS response_index, 1.0 AS reward FROM responses", &["one row for each response"]);
    found("SELECT prompt_id, response_index + 3 AS response_index, 1.0 AS reward FROM responses", &["found no row"]);
    // Equal rewards for all: nothing to learn from, said so.
    let workspace = Workspace::new();
    workspace.write("reward.sql", "SELECT prompt_id, response_index, 1.0 AS reward FROM responses");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("policy[1]: expected at least one pair") || error.contains("expected at least one pair to train on"), "{error}");
}

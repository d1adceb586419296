//! From prompts and messages to token ids and back, at the places of silent errors elsewhere:
//! special tokens twice or not at all, ends of turns, empty responses, too long prompts,
//! vocabularies of another size.

use std::fs;

use optune::model::{Checkpoint, Message, PromptContent, SpecialTokens};
use serde_json::json;

use crate::fixtures::files::copy_folder;
use crate::fixtures::models::blank_checkpoint;
use crate::fixtures::workspace::Workspace;

const BOS: i32 = 1;
const EOS: i32 = 2;
const TURN_END: i32 = 30;

/// In the manner of Llama 3: the template writes the bos token, and turns end with a token other
/// than the first end token.
const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.role[0] }} {{ m.content | trim }}<e>\n{% endfor %}{% if add_generation_prompt %}a {% endif %}";

/// A folder with this chat template and three special tokens: `<s>` (the tokenizer adds it too),
/// `</s>` and `<e>`; a line end is token 31.
fn folder(template: &str, pad_token: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    blank_checkpoint(folder.path(), true);
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let special = json!({"id": TURN_END, "content": "<e>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    tokenizer["added_tokens"].as_array_mut().unwrap().push(special);
    tokenizer["model"]["vocab"]["<e>"] = json!(TURN_END);
    tokenizer["model"]["vocab"]["\n"] = json!(31);
    fs::write(path, tokenizer.to_string()).unwrap();
    let write = |name: &str, value: serde_json::Value| fs::write(folder.path().join(name), value.to_string()).unwrap();
    write("generation_config.json", json!({"eos_token_id": [EOS, TURN_END]}));
    write("tokenizer_config.json", json!({"bos_token": "<s>", "eos_token": "<e>", "pad_token": pad_token}));
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

fn checkpoint(template: &str) -> Checkpoint {
    Checkpoint::open_blank(folder(template, "<e>").path()).unwrap()
}

fn text(text: &str) -> PromptContent {
    PromptContent::Text(text.to_string())
}

fn asked(content: &str) -> PromptContent {
    PromptContent::Messages(vec![Message::new("user", content)].into())
}

/// The ids of a text with its special tokens spelled out.
fn ids(checkpoint: &Checkpoint, text: &str) -> Vec<i32> {
    checkpoint.tokenizer.encode(text, SpecialTokens::Written).unwrap()
}

#[test]
fn no_prompt_begins_with_the_bos_token_twice() {
    let model = checkpoint(TEMPLATE);
    let once = |ids: Vec<i32>| {
        assert_eq!(ids.iter().filter(|id| **id == BOS).count(), 1, "{ids:?}");
        assert_eq!(ids[0], BOS);
    };
    // The template writes it and the tokenizer would add it.
    once(model.encode_prompt(&asked("hi")).unwrap());
    once(model.encode_pair(&asked("hi"), "yo").unwrap().token_ids);
    once(model.encode_conversation(&asked("hi"), "yo").unwrap());
    // The prompt brings it along.
    assert_eq!(model.encode_prompt(&text("<s>hi")).unwrap(), model.encode_prompt(&text("hi")).unwrap());
    once(model.encode_pair(&text("<s>hi"), "yo").unwrap().token_ids);
    once(model.encode_conversation(&text("hi"), "yo").unwrap());
    // No doubling: a token written twice by the user stays, and one left out by the template is not
    // added.
    assert_eq!(model.encode_prompt(&text("<s><s>hi")).unwrap()[..3], [BOS, BOS, 11]);
    assert_eq!(checkpoint("{{ messages[0].content }}").encode_prompt(&asked("hi")).unwrap(), [11, 12]);
}

#[test]
fn a_response_ends_with_the_token_that_ends_the_models_turn() {
    let model = checkpoint(TEMPLATE);
    let pair = model.encode_pair(&asked("hi"), "yo").unwrap();
    // <e>, not the first end token </s>; without the template's line end behind it.
    assert_eq!(pair.token_ids, ids(&model, "<s>u hi<e>\na yo<e>"));
    assert_eq!(pair.token_ids[..pair.prompt_token_count], model.encode_prompt(&asked("hi")).unwrap());
    // A reward model reads the conversation as the template writes it, line end included; text is
    // one turn each.
    let conversation = model.encode_conversation(&asked("hi"), "yo").unwrap();
    assert_eq!(conversation, ids(&model, "<s>u hi<e>\na yo<e>\n"));
    assert_eq!(model.encode_conversation(&text("hi"), "yo").unwrap(), conversation);
    // A template without an end: none is added, and an empty answer is no response.
    let endless = checkpoint("{% for m in messages %}{{ m.content }}{% endfor %}");
    assert_eq!(endless.encode_pair(&asked("hi"), "yo").unwrap().token_ids, ids(&endless, "hiyo"));
    let error = endless.encode_pair(&asked("hi"), "").unwrap_err().to_string();
    assert!(error.contains("expected a response of at least one token, found none"), "{error}");
    // Plain text: the first end token.
    assert_eq!(model.encode_pair(&text("hi"), "yo").unwrap().token_ids, ids(&model, "<s>hiyo<e>"));
}

#[test]
fn a_response_that_is_empty_or_only_an_end_token_is_one_end_token() {
    let model = checkpoint(TEMPLATE);
    for (response, end) in [("", TURN_END), ("</s>", EOS), ("<e>", TURN_END)] {
        let pair = model.encode_pair(&text("hi"), response).unwrap();
        assert_eq!(pair.token_ids[pair.prompt_token_count..], [end], "{response:?}");
    }
    for response in ["", "<e>"] {
        let pair = model.encode_pair(&asked("hi"), response).unwrap();
        assert_eq!(pair.token_ids[pair.prompt_token_count..], [TURN_END], "{response:?}");
    }
}

#[test]
fn a_response_that_goes_on_behind_an_end_token_is_refused() {
    let model = checkpoint(TEMPLATE);
    for asked in [text("hi"), asked("hi")] {
        let error = model.encode_pair(&asked, "yo<e>and more").unwrap_err().to_string();
        assert!(error.contains("end token at its end only") && error.contains("token 30 after 2"), "{error}");
    }
}

#[test]
fn a_template_that_changes_the_prompt_once_a_response_follows_is_refused() {
    // As templates of reasoning models do: the prompt opens a thought, the finished turn has none.
    let model =
        checkpoint("{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}athink{% endif %}");
    assert!(model.encode_prompt(&asked("hi")).is_ok());
    let error = model.encode_pair(&asked("hi"), "yo").unwrap_err().to_string();
    assert!(error.contains("changes the prompt once a response follows"), "{error}");
    assert!(error.contains("\"uhia\"") && error.contains("\"think\"") && error.contains("\"yo\""), "{error}");
}

#[test]
fn an_end_token_that_is_also_the_pad_token_is_kept_as_an_end() {
    let (same, other) = (folder(TEMPLATE, "<e>"), folder(TEMPLATE, "<unk>"));
    let pair = |folder: &tempfile::TempDir| Checkpoint::open_blank(folder.path()).unwrap().encode_pair(&asked("hi"), "yo").unwrap();
    assert_eq!(pair(&same), pair(&other));
    // And in a run: the same bytes with any pad token. Lengths, not ids, mark the padding.
    let runs = ["<pad>", "<eos>"].map(|pad| {
        let workspace = Workspace::new();
        workspace.edit("shape/tokenizer_config.json", "\"pad_token\": \"<pad>\"", &format!("\"pad_token\": \"{pad}\""));
        let id = if pad == "<pad>" { 0 } else { EOS };
        workspace.edit("shape/config.json", "\"pad_token_id\": 0", &format!("\"pad_token_id\": {id}"));
        workspace.edit("shape/generation_config.json", "\"pad_token_id\": 0", &format!("\"pad_token_id\": {id}"));
        workspace.succeed(&["run", "pipeline.yaml"]);
        workspace.query(
            "small",
            "SELECT prompt_id, sampled_iteration, response_index, array_to_string(token_ids, ' '), logprob FROM responses ORDER BY sampled_iteration, prompt_id, response_index",
        )
    });
    assert!(runs[0].contains("p-0") && runs[0] == runs[1]);
}

#[test]
fn a_truncated_response_is_given_no_end_token_and_a_stopped_one_keeps_its_own() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let count = |condition: &str| workspace.query("small", &format!("SELECT count(*) FROM responses WHERE {condition}"));
    for reason in ["stop", "length"] {
        assert_ne!(count(&format!("finish_reason = '{reason}'")), "0", "no response of the kind that is asked about");
    }
    assert_eq!(count("finish_reason = 'length' AND array_has(token_ids, 2)"), "0");
    assert_eq!(count("finish_reason = 'length' AND array_length(token_ids) - prompt_token_count <> 8"), "0");
    assert_eq!(count("finish_reason = 'stop' AND array_element(token_ids, -1) <> 2"), "0");
    // Training and scoring use the stored ids: as many tokens as there are, no end added.
    let tokens = "array_length(r.token_ids) - r.prompt_token_count";
    let query = format!(
        "SELECT count(*) FROM pool p JOIN responses r ON p.prompt_id = r.prompt_id AND p.sampled_iteration = r.sampled_iteration AND p.response_index = r.response_index \
         WHERE p.token_count <> {tokens}"
    );
    assert_eq!(workspace.query("small", &query), "0");
}

#[test]
fn a_run_survives_responses_that_are_only_an_end_token() {
    let workspace = Workspace::new();
    let row = |i: usize| {
        format!("{{\"prompt_id\": \"p-{i:03}\", \"prompt\": \"say nothing {i}\", \"reference_answer\": \"\", \"group\": \"g\"}}\n")
    };
    workspace.write("prompts.jsonl", &(0..20).map(row).collect::<String>());
    workspace.write("reward.sql", "SELECT prompt_id, response_index, CAST(response_index AS DOUBLE) AS reward FROM responses");
    workspace.edit("pipeline.yaml", "epochs: 3,", "epochs: 30,");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let empty = "SELECT count(*) FROM responses WHERE iteration = 1 AND text = '' AND finish_reason = 'stop' AND array_length(token_ids) = prompt_token_count + 1";
    assert_ne!(workspace.query("small", empty), "0");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM rewards WHERE reward IS NULL"), "0");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM pairs WHERE iteration = 1"), "20");
}

#[test]
fn a_prompt_longer_than_the_context_is_an_error_row_and_the_rest_goes_on() {
    let workspace = Workspace::new();
    let rows = fs::read_to_string(workspace.path("prompts.jsonl")).unwrap();
    let long = "x".repeat(80);
    workspace.write(
        "more.jsonl",
        &format!("{rows}{{\"prompt_id\": \"z-long\", \"prompt\": \"{long}\", \"reference_answer\": \"X\", \"group\": \"upper\"}}\n"),
    );
    workspace.edit("pipeline.yaml", "  shape: ", "  more:     { table: more.jsonl }\n  shape: ");
    workspace.edit("pipeline.yaml", "prompts: prompts, selection: selection", "prompts: more, selection: selection");
    workspace.edit("pipeline.yaml", "select: { prompts: prompts", "select: { prompts: more");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let errors = workspace
        .query("small", "SELECT DISTINCT prompt_id, finish_reason, error FROM responses WHERE iteration = 1 AND error IS NOT NULL");
    assert_eq!(errors, "z-long,error,\"expected a prompt of at most 63 tokens, found 81\"");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM responses WHERE iteration = 1 AND error IS NULL"), "60");
    // In demonstrations it stops the run, since nothing can be learned from it.
    workspace.edit("pipeline.yaml", "demonstrations: prompts", "demonstrations: more");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("(z-long)") && error.contains("at most 64 tokens"), "{error}");
}

#[test]
fn a_model_with_more_logits_than_the_tokenizer_has_tokens_draws_only_what_can_be_decoded() {
    let workspace = Workspace::new();
    workspace.edit("shape/config.json", "\"vocab_size\": 99", "\"vocab_size\": 400");
    // So hot: every token is about equally likely, and not one of 301 meaningless ones is drawn.
    workspace.edit("pipeline.yaml", "max_new_tokens: 8 }, resources", "max_new_tokens: 8, temperature: 100.0, top_p: 1.0 }, resources");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let largest = workspace.query("small", "SELECT max(array_max(token_ids)) FROM responses");
    assert!(largest.parse::<i32>().unwrap() <= 98, "{largest}");
    assert_eq!(workspace.query("small", "SELECT count(*) FROM responses WHERE finish_reason <> 'stop' AND text = ''"), "0");
}

#[test]
fn demonstrations_that_a_template_changes_name_their_row() {
    let workspace = conversing("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}?{% endif %}");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("demonstrations, row 0 (p-000)") && error.contains("changes the prompt once a response follows"), "{error}");
}

/// The small pipeline with conversations for prompts, and this chat template.
fn conversing(template: &str) -> Workspace {
    let workspace = Workspace::new();
    for name in ["prompts.jsonl", "held_out.jsonl"] {
        let rows = fs::read_to_string(workspace.path(name)).unwrap();
        let rows = rows.lines().map(|row| {
            let mut row: serde_json::Value = serde_json::from_str(row).unwrap();
            let prompt = row.as_object_mut().unwrap().remove("prompt").unwrap();
            row["messages"] = json!([{"role": "user", "content": prompt}]);
            format!("{row}\n")
        });
        workspace.write(name, &rows.collect::<String>());
    }
    workspace.write("shape/chat_template.jinja", template);
    workspace
}

#[test]
fn conversations_run_from_demonstrations_to_evaluation() {
    let workspace = conversing(
        "{{ bos_token }}{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}\n{% endif %}{% endfor %}",
    );
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.query("small", "SELECT count(*) FROM responses WHERE token_ids[1] <> 1 OR token_ids[2] = 1"), "0");
    assert_ne!(workspace.query("small", "SELECT count(*) FROM responses WHERE finish_reason = 'stop'"), "0");
}

#[test]
fn a_template_that_wants_the_date_is_found_before_anything_runs_and_runs_with_the_line_that_the_error_names() {
    let workspace = conversing(
        "{{ bos_token }}{{ strftime_now('%d %b') }} {% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
    );
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("date: 2026-11-23") && error.contains("base"), "{error}");
    assert!(!workspace.path("runs/small/models").exists());
    workspace.edit("pipeline.yaml", "seed: 5\n", "seed: 5\ndate: 2026-11-23\n");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let written = fs::read_to_string(workspace.path("runs/small/pipeline.yaml")).unwrap();
    assert!(written.contains("\ndate: ") && written.contains("2026-11-23"), "{written}");
    // Another date makes another run of everything with the model's words, and of nothing else.
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().all(|line| line.ends_with("done")), "{plan}");
    workspace.edit("pipeline.yaml", "date: 2026-11-23", "date: 2026-11-24");
    let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
    assert!(plan.lines().any(|line| line.starts_with("base ") && line.contains("date was")), "{plan}");
    workspace.edit("pipeline.yaml", "date: 2026-11-24", "date: 2026-02-30");
    let error = workspace.fail(&["plan", "pipeline.yaml"], 2);
    assert!(error.contains("pipeline.yaml:4:7: expected a date such as 2026-11-23, found \"2026-02-30\""), "{error}");
}

#[test]
fn messages_without_a_chat_template_and_templates_that_refuse_every_prompt_are_found_before_anything_runs() {
    let workspace = conversing("{{ raise_exception('only for dogs') }}");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("only for dogs") && error.contains("base"), "{error}");
    fs::remove_file(workspace.path("shape/chat_template.jinja")).unwrap();
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("expected a chat template because prompts are messages") && error.contains("chat_template.jinja"), "{error}");
    assert!(!workspace.path("runs/small/models").exists());
}

#[test]
fn a_reward_models_template_that_wants_the_date_is_found_before_anything_runs() {
    let workspace = Workspace::new();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reward_model");
    copy_folder(&golden, &workspace.path("judge"));
    workspace.write("judge/chat_template.jinja", "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}");
    workspace.edit("pipeline.yaml", "{ sql: reward.sql }", "{ model: judge }");
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("rewards") && error.contains("date: 2026-11-23"), "{error}");
    assert!(!workspace.path("runs/small/models").exists());
    workspace.edit("pipeline.yaml", "seed: 5\n", "seed: 5\ndate: 2026-11-23\n");
    workspace.succeed(&["plan", "pipeline.yaml"]);
}

//! Offline DPO: given pairs feed `train`, its numbers are PyTorch's, and the pairs go out again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use optune::pipeline::spec::input::DatasetFormat;
use serde_json::{Value, json};

use crate::fixtures::import::{Use, folder, imported, rows, says};
use crate::fixtures::preferences::offline;
use crate::fixtures::python::run_script;
use crate::fixtures::real_data::real_folder;
use crate::fixtures::workspace::Workspace;

#[test]
fn given_pairs_feed_train_and_are_exported() {
    for messages in [false, true] {
        let workspace = offline(messages);
        let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
        let shape = if messages { "ultrafeedback" } else { "rows" };
        let line = |plan: &str, node: &str| plan.lines().find(|line| line.starts_with(&format!("{node} "))).unwrap().to_string();
        assert!(line(&plan, "prefs").ends_with(&format!("{shape}, to run")), "{plan}");
        let output = workspace.optune(&["run", "pipeline.yaml"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("reference logprobs of 15 pairs, 1 without gap"), "{said}");
        let manifest = fs::read_to_string(workspace.path("runs/offline/manifests/prefs.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["counts"][format!("rows_as_{shape}")], 16);
        let pairs = workspace
            .query("offline", "SELECT prompt_id, chosen_index, rejected_index, reward_gap, weight FROM policy_pairs ORDER BY 1 LIMIT 2");
        assert_eq!(pairs, "p00,0,1,0.5,1.0\np01,0,1,0.75,1.0");
        let loss = workspace.query("offline", "SELECT abs(loss - ln(2)) < 1e-6 FROM policy_training WHERE step = 1");
        assert_eq!(loss, "true", "policy and reference are the same at first");
        assert_eq!(workspace.query("offline", "SELECT count(*) FROM policy_training"), "8");

        // A changed file is named.
        let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
        let (notes, states): (Vec<&str>, Vec<&str>) = plan.lines().partition(|line| line.starts_with("note: "));
        assert!(states.iter().all(|line| line.ends_with("done")), "{plan}");
        // The template of the messages ends no turn.
        assert_eq!(notes.len(), usize::from(messages), "{plan}");
        assert!(notes.iter().all(|note| note.contains("so responses to messages are learned without an end")), "{plan}");
        workspace.edit("prefs/b.jsonl", "p08", "p99");
        let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
        assert!(line(&plan, "prefs").ends_with("stale: prefs/b.jsonl changed"), "{plan}");
        assert!(line(&plan, "prompts").ends_with("done") && line(&plan, "policy").contains("stale: input"), "{plan}");
        workspace.edit("prefs/b.jsonl", "p99", "p08");
        fs::copy(workspace.path("prefs/b.jsonl"), workspace.path("prefs/c.jsonl")).unwrap();
        let plan = workspace.succeed(&["plan", "pipeline.yaml"]);
        assert!(line(&plan, "prefs").ends_with("stale: 3 files, were 2"), "{plan}");
        fs::remove_file(workspace.path("prefs/c.jsonl")).unwrap();

        workspace.succeed(&["export", "pairs", "offline", "pairs.jsonl"]);
        workspace.succeed(&["export", "pairs", "offline", "pairs.parquet", "--node", "policy_pairs"]);
        let text = fs::read_to_string(workspace.path("pairs.jsonl")).unwrap();
        let exported: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let said = |role: &str, text: &str| if messages { json!([says(role, text)]) } else { json!(text) };
        let first = json!({
            "prompt": said("user", "upper adg="), "chosen": said("assistant", "ADG"), "rejected": said("assistant", "adg"), "weight": 1.0, "margin": 0.5
        });
        assert_eq!((exported.len(), &exported[0]), (15, &first));
        assert_eq!(rows(&[optune::store::read_parquet(&workspace.path("pairs.parquet")).unwrap()]), exported);
        if let Some(kept) = std::env::var_os("OPTUNE_EXPORT_DIR") {
            let kept = PathBuf::from(kept).join(if messages { "pairs_messages" } else { "pairs_text" });
            fs::create_dir_all(&kept).unwrap();
            for name in ["pairs.jsonl", "pairs.parquet"] {
                fs::copy(workspace.path(name), kept.join(name)).unwrap();
            }
        }
        // Exported pairs come in again.
        let folder = folder();
        fs::copy(workspace.path("pairs.parquet"), folder.path().join("pairs.parquet")).unwrap();
        let found = imported(folder.path(), "table: pairs.parquet", Use::Preferences).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found.dataset_format, Some(if messages { DatasetFormat::Trl } else { DatasetFormat::Rows }));
        let again = rows(&found.batches);
        assert_eq!((again.len(), &again[0]["chosen"], &again[0]["weight"]), (15, &json!("ADG"), &json!(1.0)));
    }
}

#[test]
fn pairs_with_tools_are_exported_with_all_fields() {
    let workspace = offline(true);
    let call = |arguments: Value| json!([{"type": "function", "function": {"name": "up", "arguments": arguments}}]);
    let tool = json!({"type": "function", "function": {"name": "up", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}});
    let given = [
        json!({
            "prompt": [
                says("user", "upper abc="),
                {"role": "assistant", "tool_calls": call(json!({"text": "abc", "times": 2}))},
                {"role": "tool", "content": "ABC", "name": "up"},
            ],
            "chosen": [{"role": "assistant", "content": "ABC", "reasoning_content": "it said so"}],
            "rejected": [{"role": "assistant", "tool_calls": call(json!({"other": [1.5, true]}))}],
            "tools": [tool],
            "chat_template_kwargs": {"enable_thinking": false},
        }),
        json!({"prompt": [says("user", "upper ad=")], "chosen": [says("assistant", "AD")], "rejected": [says("assistant", "ad")]}),
    ];
    let lines = given.iter().enumerate().map(|(at, row)| {
        let mut row = row.clone();
        row["prompt_id"] = json!(format!("p{at}"));
        format!("{row}\n")
    });
    workspace.write("prefs/a.jsonl", &lines.collect::<String>());
    fs::remove_file(workspace.path("prefs/b.jsonl")).unwrap();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace.succeed(&["export", "pairs", "offline", "pairs.jsonl"]);
    workspace.succeed(&["export", "pairs", "offline", "pairs.parquet"]);
    let text = fs::read_to_string(workspace.path("pairs.jsonl")).unwrap();
    let exported: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = given.iter().map(|row| {
        // TRL wants an object in every row.
        let kwargs = row.get("chat_template_kwargs").cloned().unwrap_or_else(|| json!({}));
        let tools = &row["tools"];
        json!({
            "prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"], "tools": tools, "chat_template_kwargs": kwargs,
            "weight": 1.0, "margin": 1.0,
        })
    });
    assert_eq!(exported, expected.collect::<Vec<_>>());
    // Both files come in again as what they were.
    let preferences = |folder: &Path, table: &str| {
        let found = imported(folder, &format!("table: {table}"), Use::Preferences).unwrap_or_else(|error| panic!("{table}: {error}"));
        let found = optune::import::Preferences::from_batches("data", found.batches).unwrap();
        let mut found: Vec<_> = found.iter().map(|row| (format!("{:?}", row.prompt), row.chosen.clone(), row.messages.clone())).collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    };
    let folder = folder();
    for name in ["prefs/a.jsonl", "pairs.jsonl", "pairs.parquet"] {
        fs::copy(workspace.path(name), folder.path().join(Path::new(name).file_name().unwrap())).unwrap();
    }
    let given_again = preferences(folder.path(), "a.jsonl");
    for name in ["pairs.jsonl", "pairs.parquet"] {
        assert_eq!(preferences(folder.path(), name), given_again, "{name}");
    }
    fs::write(folder.path().join("given.json"), json!(given).to_string()).unwrap();
    run_script("tool_pairs.py", &[folder.path().as_os_str()]);
}

#[test]
fn pairs_of_which_none_is_left_say_why() {
    let workspace = offline(false);
    let longer = |name: &str| std::fs::read_to_string(workspace.path(name)).unwrap().replace("upper ", &"upper ".repeat(400));
    for name in ["prefs/a.jsonl", "prefs/b.jsonl"] {
        workspace.write(name, &longer(name));
    }
    let error = workspace.fail(&["run", "pipeline.yaml"], 2);
    assert!(error.contains("policy_pairs: warning: 15 of 16 preferences are left out: longer than the model allows"), "{error}");
    let found =
        "pipeline.yaml:10: policy: expected at least one pair to train on, found none: of the preferences are 15 too long, 1 without gap";
    assert!(error.contains(found), "{error}");
}

#[test]
fn an_offline_run_killed_and_run_again_ends_in_the_same_bytes() {
    ["f32", "bf16"].into_iter().for_each(assert_same_bytes_after_kills);
}

fn assert_same_bytes_after_kills(precision: &str) {
    let offline = || {
        let workspace = offline(false);
        workspace.edit("pipeline.yaml", "name: offline\n", &format!("name: offline\nprecision: {precision}\n"));
        workspace
    };
    let whole = offline();
    let start = Instant::now();
    whole.succeed(&["run", "pipeline.yaml"]);
    let time = start.elapsed();
    let workspace = offline();
    for part in 1..6 {
        let mut child = workspace.start(&["run", "pipeline.yaml"]);
        std::thread::sleep(Duration::from_micros(time.as_micros() as u64 * part / 8));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    workspace.succeed(&["run", "pipeline.yaml"]);
    assert_eq!(workspace.result("offline"), whole.result("offline"));
}

#[test]
fn offline_dpo_is_that_of_pytorch() {
    let Some(real) = real_folder() else { return };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/offline_dpo.json");
    let golden: Value = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
    let workspace = Workspace::new();
    let pairs = golden["pairs"].as_array().unwrap();
    let row = |(index, pair): (usize, &Value)| {
        let mut row = pair.clone();
        row["prompt_id"] = json!(index);
        format!("{row}\n")
    };
    workspace.write("prefs.jsonl", &pairs.iter().enumerate().map(row).collect::<String>());
    workspace.write("pipeline.yaml", &format!(
        "optune: 1\nname: dpo\ninputs:\n  rows: {{ table: prefs.jsonl }}\n  base: {{ model: \"{}\" }}\nnodes:\n  \
         prefs: {{ sql: {{ query: \"select prompt_id, prompt, chosen, rejected, weight from rows\" }} }}\n  \
         policy: {{ train: {{ from: base, reference: base, pairs: prefs, beta: 0.1, learning_rate: 1.0e-4, schedule: constant, warmup_ratio: 0, \
         optimizer: {{ adamw: {{ weight_decay: 0.01 }} }}, batch_size: 4, epochs: 2, max_gradient_norm: null }} }}\n",
        real.join("stories260K").display()
    ));
    workspace.succeed(&["run", "pipeline.yaml"]);
    let close = |found: &str, expected: &Value, what: &str| {
        let (found, expected) = (found.parse::<f64>().unwrap(), expected.as_f64().unwrap());
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{what}: found {found}, expected {expected}");
    };
    let table = workspace.query(
        "dpo",
        "SELECT reference_logprob_chosen, reference_logprob_rejected, weight, reward_gap FROM policy_pairs ORDER BY prompt_id",
    );
    for (line, pair) in table.lines().zip(pairs) {
        let numbers: Vec<&str> = line.split(',').collect();
        close(numbers[0], &pair["reference_logprob_chosen"], "chosen");
        close(numbers[1], &pair["reference_logprob_rejected"], "rejected");
        close(numbers[2], &pair["weight"], "weight");
        assert_eq!(numbers[3], "1.0", "without scores the gap is 1");
    }
    let table = workspace.query("dpo", "SELECT loss, gradient_norm FROM policy_training ORDER BY step");
    assert_eq!((table.lines().count(), pairs.len()), (2, 4));
    for (step, line) in table.lines().enumerate() {
        let (loss, norm) = line.split_once(',').unwrap();
        close(loss, &golden["losses"][step], "loss");
        close(norm, &golden["gradient_norms"][step], "gradient norm");
    }
    workspace.succeed(&["export", "pairs", "dpo", "pairs.parquet"]);
}

//! The pipeline file: the unrolled graph of the design's example, and the errors of wrong files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use optune::pipeline::spec::input::DatasetFormat;
use optune::pipeline::spec::select::Strategy;
use optune::pipeline::{Graph, Input, Operator, Pipeline, SourceKind, Task};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::fixtures::pipeline_folder::{REWARD, folder};

const DESIGN: &str = r#"optune: 1
name: optune
seed: 17
params: { ratio: 0.5, iterations: 3 }
inputs:
  prompts:  { table: datasets/tasks/train.parquet }
  held_out: { table: datasets/tasks/held_out.parquet }
  base:     { model: models/base }                        # a Hugging Face directory
  judge:    { reward: { sql: datasets/tasks/reward.sql } }
iterate:
  t: 1..${iterations}
  start: { policy: base, pool: none }                     # what policy[t-1] and pool[t-1] are at t = 1
  nodes:
    selection:  { select:   { prompts: prompts, pool: "pool[t-1]", strategy: lowest_reward, ratio: "${ratio}" } }
    responses:  { generate: { policy: "policy[t-1]", prompts: prompts, selection: selection, responses_per_prompt: 4, max_new_tokens: 48 } }
    rewards:    { score:    { responses: responses, reward: judge } }
    pool:       { merge:    { fresh: rewards, carried: "pool[t-1]" } }
    pairs:      { pair:     { pool: pool, weight: { kind: linear, gap_scale: 1.0 } } }
    policy:     { train:    { from: "policy[t-1]", reference: "policy[t-1]", pairs: pairs, loss: dpo, beta: 0.1, learning_rate: 5.0e-7 } }
    evaluation: { evaluate: { policy: policy, baseline: base, prompts: held_out, reward: judge } }
"#;

fn graph(text: &str, sets: &[(&str, &str)]) -> Graph {
    let sets: Vec<_> = sets.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let folder = folder();
    let graph = Pipeline::read("test.yaml", text, &sets).and_then(|pipeline| pipeline.graph(folder.path()));
    graph.unwrap_or_else(|error| panic!("{error}"))
}

/// The resolved file, for the folder of the paths. The folder of the test is gone: it is made anew.
fn yaml(graph: &Graph) -> String {
    fs::create_dir_all(&graph.folder).unwrap();
    graph.to_yaml(&graph.folder).unwrap()
}

fn error(text: &str, sets: &[(&str, &str)]) -> String {
    let sets: Vec<_> = sets.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let folder = folder();
    let graph = Pipeline::read("test.yaml", text, &sets).and_then(|pipeline| pipeline.graph(folder.path()));
    graph.map(|_| "no error".to_string()).unwrap_or_else(|error| error.to_string())
}

/// A task as one line: `policy@2: train from=policy@1 pairs=policy_pairs@2 …`.
fn line(graph: &Graph, task: &Task) -> String {
    let place = |iteration: Option<u32>| iteration.map_or(String::new(), |t| format!("@{t}"));
    let inputs = task.inputs.iter().map(|slot| {
        let at = graph.task(slot.input).and_then(|task| task.iteration);
        format!(" {}={}{}", slot.slot, slot.name, place(at))
    });
    format!("{}{}: {}{}", task.name, place(task.iteration), task.operator.name(), inputs.collect::<String>())
}

fn lines(graph: &Graph) -> Vec<String> {
    graph.tasks.iter().map(|task| line(graph, task)).collect()
}

fn task<'a>(graph: &'a Graph, name: &str, t: u32) -> &'a Task {
    graph.tasks.iter().find(|task| task.name == name && task.iteration == Some(t)).unwrap()
}

#[test]
fn the_designs_example_unrolls() {
    let graph = graph(DESIGN, &[]);
    assert_eq!((graph.name.as_str(), graph.seed, graph.iterations), ("optune", 17, 3));
    let expected = "
        evaluation_baseline_responses: generate policy=base prompts=held_out
        evaluation_baseline_rewards: score responses=evaluation_baseline_responses reward=judge prompts=held_out
        selection@1: select prompts=prompts
        responses@1: generate policy=base prompts=prompts selection=selection@1
        rewards@1: score responses=responses@1 reward=judge prompts=prompts
        pool@1: merge fresh=rewards@1 responses=responses@1
        pairs@1: pair pool=pool@1
        policy_pairs@1: reference reference=base pairs=pairs@1 responses=responses@1
        policy@1: train from=base pairs=policy_pairs@1 responses=responses@1
        evaluation_responses@1: generate policy=policy@1 prompts=held_out
        evaluation_rewards@1: score responses=evaluation_responses@1 reward=judge prompts=held_out
        evaluation@1: evaluate responses=evaluation_responses@1 rewards=evaluation_rewards@1 \
            baseline_responses=evaluation_baseline_responses baseline_rewards=evaluation_baseline_rewards initial=base
        selection@2: select prompts=prompts pool=pool@1
        responses@2: generate policy=policy@1 prompts=prompts selection=selection@2
        rewards@2: score responses=responses@2 reward=judge prompts=prompts
        pool@2: merge fresh=rewards@2 carried=pool@1 responses=responses@2
        pairs@2: pair pool=pool@2
        policy_pairs@2: reference reference=policy@1 pairs=pairs@2 responses=responses@1 responses=responses@2
        policy@2: train from=policy@1 pairs=policy_pairs@2 responses=responses@1 responses=responses@2
        evaluation_responses@2: generate policy=policy@2 prompts=held_out";
    let expected: Vec<&str> = expected.trim().lines().map(str::trim).collect();
    assert_eq!(lines(&graph)[..expected.len()], expected);
    assert_eq!(graph.tasks.len(), 2 + 3 * 10);
    for (index, task) in graph.tasks.iter().enumerate() {
        for slot in &task.inputs {
            assert!(!matches!(slot.input, Input::Task(other) if other >= index), "{} comes before what it reads", task.name);
        }
    }
    assert_eq!(task(&graph, "policy", 3).line, 19);
}

#[test]
fn runs_that_differ_in_ratio_share_the_first_iteration() {
    let (half, most) = (graph(DESIGN, &[]), graph(DESIGN, &[("ratio", "0.7")]));
    for (one, other) in half.tasks.iter().zip(&most.tasks) {
        let differs = one.name == "selection" && one.iteration > Some(1);
        assert_eq!(one.settings != other.settings, differs, "{}", line(&half, one));
    }
    let Operator::Select(first) = &task(&half, "selection", 1).operator else { panic!("selection is select") };
    assert_eq!(first.strategy, Strategy::All);
    assert_eq!(task(&half, "selection", 1).settings["strategy"], "all");
    assert_eq!(task(&most, "selection", 2).settings["ratio"], 0.7);
}

#[test]
fn settings_hold_values_and_no_names_or_resources() {
    let resources = DESIGN.replace("learning_rate: 5.0e-7 }", "learning_rate: 5.0e-7 }, resources: { device: cpu, checkpoint_every: 7 }");
    let renamed = resources.replace("prompts:  {", "questions:  {").replace("prompts: prompts", "prompts: questions");
    let renamed = renamed.replace("  judge: ", "  critic: ").replace("reward: judge", "reward: critic");
    let renamed = renamed.replace("  base: ", "  origin: ").replace(": base", ": origin");
    let (plain, renamed) = (graph(DESIGN, &[]), graph(&renamed, &[]));
    for (one, other) in plain.tasks.iter().zip(&renamed.tasks) {
        assert_eq!(one.settings, other.settings, "{}", one.name);
    }
    assert_eq!(task(&renamed, "policy", 1).resources.checkpoint_every, Some(7));
    assert_eq!(task(&renamed, "policy_pairs", 1).resources.checkpoint_every, Some(7));
    let text = |name: &str| serde_json::to_string(&task(&plain, name, 1).settings).unwrap();
    assert_eq!(text("rewards"), format!(r#"{{"reward":{{"sql":{}}}}}"#, serde_json::json!(REWARD)));
    assert_eq!(text("policy_pairs"), "{}");
    assert_eq!(text("pairs"), r#"{"weight":{"kind":"linear","gap_scale":1.0,"normalize":"none","clip":null}}"#);
    let expected = r#"{"max_new_tokens":48,"max_prompt_tokens":512,"responses_per_prompt":4,"temperature":1.0,"top_k":null,"top_p":1.0}"#;
    assert_eq!(text("responses"), expected);
    let expected = r#"{"batch_size":128,"beta":0.1,"epochs":1,"learning_rate":5e-7,"loss":"dpo","max_gradient_norm":1.0,"#;
    let optimizer = r#""optimizer":{"rmsprop":{"alpha":0.99,"eps":1e-8,"weight_decay":0.0}},"schedule":"linear","warmup_ratio":0.1}"#;
    assert_eq!(text("policy"), format!("{expected}{optimizer}"));
}

#[test]
fn the_precision_of_the_file_or_node_is_a_setting_where_a_model_is_computed() {
    let precisions = |text: &str| -> Vec<(String, String)> {
        let graph = graph(text, &[]);
        let of = |task: &Task| match task.settings.get("precision") {
            Some(precision) => (task.name.clone(), precision.as_str().unwrap().to_string()),
            None => (task.name.clone(), "none".to_string()),
        };
        for task in &graph.tasks {
            let expected = task.settings.get("precision").map_or("f32", |precision| precision.as_str().unwrap());
            assert_eq!(task.precision.name(), expected, "{}", task.name);
        }
        graph.tasks.iter().filter(|task| task.iteration.is_none_or(|t| t == 1)).map(of).collect()
    };
    let with = |bf16: &[&str], text: &str| {
        for (name, found) in precisions(text) {
            assert_eq!(found, if bf16.contains(&name.as_str()) { "bf16" } else { "none" }, "{name}");
        }
    };
    with(&[], DESIGN);
    let evaluation = ["evaluation_baseline_responses", "evaluation_responses", "evaluation"];
    let all = [&["responses", "policy_pairs", "policy"], &evaluation[..]].concat();
    let whole = DESIGN.replace("seed: 17", "seed: 17\nprecision: bf16");
    with(&all, &whole);
    // The file's own is the default, and f32 is no setting.
    let own = whole.replace("beta: 0.1,", "beta: 0.1, precision: f32,");
    with(&[&["responses"], &evaluation[..]].concat(), &own);
    with(&[], &DESIGN.replace("beta: 0.1,", "beta: 0.1, precision: f32,").replace("seed: 17", "seed: 17\nprecision: f32"));
    with(&["policy_pairs", "policy"], &DESIGN.replace("beta: 0.1,", "beta: 0.1, precision: bf16,"));
    with(&evaluation, &DESIGN.replace("prompts: held_out,", "prompts: held_out, precision: bf16,"));
    // A server has its own, and a reward model has the precision of whoever asks it.
    let engine = "max_new_tokens: 48, engine: { openai: \"http://localhost:8000/v1\", model: m, serve: \"load {model}\" } }";
    let served = whole.replace("max_new_tokens: 48 }", engine);
    with(&[&["policy_pairs", "policy"], &evaluation[..]].concat(), &served);
    let learned = whole.replace("iterate:", "nodes:\n  learned: { reward_model: { from: base, preferences: prompts } }\niterate:");
    let learned = learned.replace("{ sql: datasets/tasks/reward.sql }", "[{ sql: datasets/tasks/reward.sql }, { reward: learned }]");
    let models = ["learned", "learned_ranking", "rewards", "evaluation_rewards", "evaluation_baseline_rewards"];
    with(&[&all[..], &models].concat(), &learned);
    let param = DESIGN.replace("params: {", "params: { precision: f32, ").replace("beta: 0.1,", "beta: 0.1, precision: \"${precision}\",");
    assert_eq!(task(&graph(&param, &[("precision", "bf16")]), "policy", 2).settings["precision"], "bf16");
    let read = graph(&yaml(&graph(&own, &[])), &[]);
    assert_eq!(read.tasks.iter().filter(|task| task.precision.name() == "bf16").count(), 1 + 3 * 3);
}

#[test]
fn the_resolved_file_loads_as_the_same_graph() {
    let text = DESIGN.replace("beta: 0.1", "optimizer: adamw, beta: 0.1").replace(
        "  judge: ",
        "  lexicon: { table: datasets/tasks/lexicon.txt, format: csv, delimiter: \"\\t\", header: false, columns: { token: text, valence: float64 } }\n  judge: ",
    );
    let mut written = graph(&text, &[("ratio", "0.25")]);
    written.name = "quarter".to_string();
    let yaml = self::yaml(&written);
    assert!(yaml.starts_with("optune: 1\nname: quarter\nseed: 17\n"), "{yaml}");
    let read = graph(&yaml, &[]);
    assert_eq!(self::yaml(&read), yaml);
    assert_eq!(lines(&read), lines(&written));
    for (one, other) in written.tasks.iter().zip(&read.tasks) {
        assert_eq!(one.settings, other.settings, "{}", one.name);
    }
    assert_eq!(task(&read, "selection", 2).settings["ratio"], 0.25);
}

#[test]
fn queries_read_tables_by_name_and_by_alias() {
    let text = DESIGN
        .replace("{ sql: datasets/tasks/reward.sql }", "{ sql: \"select * from responses join lexicon using (token) join wide using (token)\" }")
        .replace("  judge: ", "  lexicon: { table: datasets/tasks/lexicon.txt, format: csv }\n  judge: ")
        .replace("iterate:\n", "nodes:\n  wide: { sql: { query: \"select * from lexicon\" } }\niterate:\n")
        .replace("    rewards: ", "    drift: { sql: { query: \"select * from now join prompts using (prompt_id)\", tables: { now: selection } } }\n    rewards: ");
    let graph = graph(&text, &[]);
    let lines = lines(&graph);
    assert_eq!(lines[0], "wide: sql tables=lexicon");
    assert!(lines.contains(&"drift@2: sql tables=now@2 tables=prompts".to_string()), "{lines:?}");
    let tables = "tables=lexicon tables=wide";
    assert!(lines.contains(&format!("rewards@1: score responses=responses@1 reward=judge {tables} prompts=prompts")), "{lines:?}");
    let baseline = "evaluation_baseline_rewards: score responses=evaluation_baseline_responses reward=judge prompts=held_out";
    assert!(lines.contains(&format!("{baseline} {tables}")), "{lines:?}");
    assert_eq!(task(&graph, "drift", 1).settings["query"], "select * from now join prompts using (prompt_id)");
}

#[test]
fn nodes_may_come_in_any_order_and_run_once() {
    let text = "optune: 1\nname: warm\ninputs:\n  prompts: { table: datasets/tasks/train.parquet }\n  base: { model: models/base }\n\
        nodes:\n  tuned: { sft: { from: student, demonstrations: good, epochs: 2 } }\n  good: { sql: { query: select * from prompts } }\n  \
        student: { sft: { from: base, initialize: random, demonstrations: prompts, response: reference_answer } }\n";
    let expected =
        ["good: sql tables=prompts", "student: sft from=base demonstrations=prompts", "tuned: sft from=student demonstrations=good"];
    let graph = graph(text, &[]);
    assert_eq!(lines(&graph), expected);
    assert_eq!(graph.iterations, 0);
}

#[test]
fn set_replaces_params_of_the_same_type() {
    assert_eq!(graph(DESIGN, &[("iterations", "1")]).iterations, 1);
    assert_eq!(graph(DESIGN, &[("ratio", "1")]).params["ratio"].to_string(), "1");
    assert_eq!(error(DESIGN, &[("ratios", "1")]), "test.yaml: --set ratios: unknown param \"ratios\"; did you mean \"ratio\"?");
    assert_eq!(error(DESIGN, &[("ratio", "much")]), "test.yaml: --set ratio=much: expected a number, found \"much\"");
    assert!(error(DESIGN, &[("ratio", "1.5")]).starts_with("test.yaml:14:100: expected a number above 0 and at most 1, found 1.5\n"));
    let text = DESIGN
        .replace("params: {", "params: { data: train, ")
        .replace("datasets/tasks/train.parquet", "\"datasets/tasks/${data}.parquet\"");
    assert!(error(&text, &[("data", "2024")]).contains("expected a file, but \"datasets/tasks/2024.parquet\" is not there"));
    assert_eq!(error("optune: 1\nname: x\n", &[("a", "1")]), "test.yaml: --set a: the pipeline has no params");
}

#[test]
fn an_error_shows_the_place() {
    let text = DESIGN.replace("prompts: prompts, selection", "prompts: promts, selection").replace(", max_new_tokens: 48", "");
    let expected = [
        r#"test.yaml:15:63: unknown input "promts": expected a table; did you mean "prompts"?"#,
        r#"   15 |     responses:  { generate: { policy: "policy[t-1]", prompts: promts, selection: selection, responses_per_prompt: 4 } }"#,
        r#"      |                                                               ^^^^^^"#,
    ];
    assert_eq!(error(&text, &[]).lines().collect::<Vec<_>>(), expected);
}

#[test]
fn train_takes_a_table_of_preferences_in_the_place_of_pairs() {
    let text = r#"optune: 1
name: offline
inputs:
  prefs: { table: [datasets/tasks/train.parquet, "datasets/tasks/h*.parquet"], map: { chosen: best } }
  base:  { model: models/base }
nodes:
  policy: { train: { from: base, reference: base, pairs: prefs } }
  again:  { train: { from: policy, reference: base, pairs: some } }
  some:   { sql: { query: select * from prefs limit 5 } }
"#;
    let graph = graph(text, &[]);
    let expected = [
        "policy_pairs: reference reference=base from=base preferences=prefs",
        "policy: train from=base pairs=policy_pairs preferences=prefs",
        "some: sql tables=prefs",
        "again_pairs: reference reference=base from=policy preferences=some",
        "again: train from=policy pairs=again_pairs preferences=some",
    ];
    assert_eq!(lines(&graph), expected);
    let SourceKind::Table { paths, dataset_format, map, .. } = &graph.sources[0].kind else { panic!("prefs is a table") };
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_string_lossy()).collect();
    assert_eq!(
        (names.join(" ").as_str(), *dataset_format, map["chosen"].as_str()),
        ("held_out.parquet train.parquet", DatasetFormat::Auto, "best")
    );
    let written = yaml(&graph);
    let folder = folder();
    let again = Pipeline::read("again.yaml", &written, &[]).and_then(|pipeline| pipeline.graph(folder.path())).unwrap();
    assert_eq!(lines(&again), expected, "the resolved file gives the same graph");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let found = Pipeline::load(Path::new("nowhere.yaml"), &[]).unwrap_err().to_string();
    assert!(found.starts_with("nowhere.yaml: cannot read the pipeline file: "), "{found}");
}

#[test]
fn no_text_makes_it_panic() {
    let folder = folder();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut below = |limit: usize| (random.next_u64() % limit.max(1) as u64) as usize;
    let pieces = [
        "{", "}", "[", "]", ":", "- ", "\"", "'", "\n", "  ", "\t", "&a ", "*a", "${", "[t-1]", "none", "0", "-1", "1e999", ".nan", "é",
        "!!int ", "|", "\0", "#",
    ];
    for _ in 0..4_000 {
        let mut bytes = DESIGN.as_bytes().to_vec();
        for _ in 0..=below(4) {
            let place = below(bytes.len());
            match below(4) {
                0 => drop(bytes.drain(place..(place + 1 + below(12)).min(bytes.len()))),
                1 => drop(bytes.splice(place..place, pieces[below(pieces.len())].bytes())),
                2 => bytes.truncate(place),
                _ => {
                    let other = below(bytes.len().max(1));
                    if place < bytes.len() && other < bytes.len() {
                        bytes.swap(place, other);
                    }
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = Pipeline::read("test.yaml", &text, &[]).and_then(|pipeline| pipeline.graph(folder.path())) {
            assert!(!error.message().is_empty() && !error.to_string().is_empty());
        }
    }
}

#[test]
fn a_yaml_bomb_is_refused() {
    let mut text = "optune: 1\nname: bomb\nparams:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_string();
    for level in 1..10 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        text += &format!("  a{level}: &a{level} [{items}]\n");
    }
    assert!(Pipeline::read("bomb.yaml", &text, &[]).is_err());
    assert!(Pipeline::read("deep.yaml", &"[".repeat(100_000), &[]).is_err());
    assert!(Pipeline::read("deep.yaml", &"{a: ".repeat(100_000), &[]).is_err());
    assert!(Pipeline::read("deep.yaml", &"- ".repeat(100_000), &[]).is_err());
    assert!(Pipeline::read("large.yaml", &"x".repeat(2 << 20), &[]).is_err());
}

#[test]
fn the_schema_describes_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&optune::pipeline::schema()).unwrap();
    let mut undescribed = BTreeSet::new();
    let definitions = schema["$defs"].as_object().unwrap();
    for (name, definition) in definitions.iter().chain([(&"the file".to_string(), &schema)]) {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            if property["description"].as_str().is_none_or(str::is_empty) {
                undescribed.insert(format!("{name}.{key}"));
            }
        }
    }
    assert!(undescribed.is_empty(), "{undescribed:?}");
    assert_eq!(definitions["Train"]["properties"]["beta"]["default"], 0.1);
    assert_eq!(definitions["Train"]["additionalProperties"], false);
    assert!(definitions.contains_key("Generate") && definitions.contains_key("Resources"));
    let input = &definitions["Input"]["properties"];
    assert!(input["table"].to_string().contains("array") && input["map"]["additionalProperties"]["type"] == "string", "{input}");
    let shapes = definitions["DatasetFormat"]["oneOf"].as_array().unwrap();
    assert!(shapes.iter().any(|shape| shape["const"] == "sharegpt"), "{shapes:?}");
}

#[test]
fn generate_and_evaluate_sample_by_the_same_settings() {
    let schema: serde_json::Value = serde_json::from_str(&optune::pipeline::schema()).unwrap();
    let of = |name: &str| schema["$defs"][name]["properties"].as_object().unwrap().clone();
    let (generate, evaluate) = (of("Generate"), of("Evaluate"));
    // The precision of an evaluation is that of its other models too.
    let own = ["policy", "prompts", "selection", "responses_per_prompt", "first_index", "engine", "precision"];
    let shared: Vec<&String> = generate.keys().filter(|key| !own.contains(&key.as_str())).collect();
    assert!(shared.len() >= 10, "{shared:?}");
    for key in shared {
        // Evaluate's own descriptions name the paper's limits.
        let settings = |properties: &serde_json::Map<String, serde_json::Value>| {
            let mut property = properties.get(key).unwrap_or_else(|| panic!("evaluate has no {key}")).clone();
            property["description"] = property["description"].as_str().unwrap().replace(" The paper's: 512.", "").into();
            property
        };
        assert_eq!(settings(&generate), settings(&evaluate), "{key}");
    }
}

#[test]
fn the_papers_pipeline_loads_once_its_inputs_are_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/optune.yaml");
    let folder = folder();
    for file in ["prompts.parquet", "held_out.parquet"] {
        fs::write(folder.path().join("datasets").join(file), "").unwrap();
    }
    fs::write(folder.path().join("datasets/reward.sql"), REWARD).unwrap();
    let own = folder.path().join("pipelines");
    fs::create_dir(&own).unwrap();
    let graph = Pipeline::load(&path, &[]).and_then(|pipeline| pipeline.graph(&own)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((graph.iterations, graph.tasks.len()), (3, 2 + 3 * 10));
    let Operator::Generate(generate) = &task(&graph, "responses", 2).operator else { panic!("responses is generate") };
    assert_eq!((generate.responses_per_prompt.count(), generate.temperature, generate.top_p), (2, 1.0, 0.9));
    assert_eq!(task(&graph, "selection", 2).settings["ratio"], 0.5);
    assert_eq!(task(&graph, "policy", 3).settings["learning_rate"], 5e-7);
}

#[test]
fn the_pipeline_from_preferences_loads_once_its_inputs_are_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/preferences.yaml");
    let folder = folder();
    fs::create_dir(folder.path().join("datasets/preferences")).unwrap();
    for file in ["preferences/one.jsonl", "prompts.jsonl", "held_out.jsonl"] {
        fs::write(folder.path().join("datasets").join(file), "").unwrap();
    }
    let own = folder.path().join("pipelines");
    fs::create_dir(&own).unwrap();
    let graph = Pipeline::load(&path, &[("lora_rank".to_string(), "8".to_string())]).and_then(|pipeline| pipeline.graph(&own));
    let graph = graph.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(graph.iterations, 3);
    assert_eq!(task(&graph, "policy", 3).settings["lora"]["rank"], 8);
    assert!(graph.tasks.iter().any(|task| task.name == "offline_pairs" && task.iteration.is_none()));
}

#[test]
fn the_pipeline_of_checked_instructions_loads_without_its_files() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/ifeval.yaml");
    let folder = folder();
    fs::create_dir(folder.path().join("pipelines")).unwrap();
    fs::copy(path.with_extension("py"), folder.path().join("pipelines/ifeval.py")).unwrap();
    let graph = Pipeline::load(&path, &[])
        .and_then(|pipeline| pipeline.graph(&folder.path().join("pipelines")))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(graph.iterations, 3);
    for kind in ["evaluation", "kept", "policy"] {
        assert!(graph.tasks.iter().any(|task| task.name == kind && task.iteration == Some(3)), "{kind}");
    }
    assert_eq!(task(&graph, "rewards", 1).settings["reward"]["python"], "pipelines/ifeval.py:followed");
}

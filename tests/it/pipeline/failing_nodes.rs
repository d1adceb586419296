//! A failing node stops only the nodes that need it. The error names the place and the way on.

use std::collections::BTreeMap;
use std::fs;

use optune::store::{OutputKey, Runs};
use optune::tables::{TableKind, pairs};

use crate::fixtures::files::copy_folder;
use crate::fixtures::store::locked;
use crate::fixtures::workspace::Workspace;

/// Two independent lines: the first one's model gives logits that are not numbers.
const PIPELINE: &str = r#"optune: 1
name: two
seed: 5
inputs:
  prompts: { table: prompts.jsonl }
  poison:  { model: poison }
  base:    { model: base }
  judge:   { reward: { sql: "SELECT prompt_id, response_index, CAST(length(text) AS DOUBLE) AS reward FROM responses" } }
nodes:
  broken:  { generate: { policy: poison, prompts: prompts, responses_per_prompt: 1, max_new_tokens: 4 }, resources: { rows_per_part: 4 } }
  nothing: { score: { responses: broken, reward: judge } }
  neither: { merge: { fresh: nothing } }
  answers: { generate: { policy: base, prompts: prompts, responses_per_prompt: 2, max_new_tokens: 4 }, resources: { rows_per_part: 4 } }
  scores:  { score: { responses: answers, reward: judge } }
  pool:    { merge: { fresh: scores } }
"#;

#[test]
fn a_node_that_fails_leaves_those_that_do_not_need_it_finished() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    for copy in ["base", "poison"] {
        copy_folder(&workspace.path("runs/small/models/base"), &workspace.path(copy));
        fs::remove_file(workspace.path(copy).join("manifest.json")).unwrap();
    }
    // The last weight of the file.
    let weights = workspace.path("poison/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let mut poisoned = whole.clone();
    let last = poisoned.len() - 4;
    poisoned[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::remove_file(&weights).unwrap();
    fs::write(&weights, poisoned).unwrap();
    workspace.write("two.yaml", PIPELINE);

    let said = workspace.fail(&["run", "two.yaml"], 1);
    assert!(said.contains("two.yaml:10: broken: part-00000 of 5: "), "{said}");
    assert!(said.contains("not run because of that: nothing, neither"), "{said}");
    assert!(said.contains("what is finished is kept; the same command goes on from there"), "{said}");
    let done = |node: &str| workspace.journal("two", "node_done").iter().filter(|(done, _, _)| done == node).count();
    for (node, times) in [("broken", 0), ("nothing", 0), ("neither", 0), ("answers", 1), ("scores", 1), ("pool", 1)] {
        assert_eq!(done(node), times, "{node}");
    }
    let events = "SELECT node, message FROM journal WHERE event = 'node_failed'";
    assert!(workspace.query("two", events).starts_with("broken,part-00000 of 5: "));

    // Mended, the same command does the rest.
    fs::write(&weights, whole).unwrap();
    workspace.succeed(&["run", "two.yaml"]);
    for node in ["broken", "nothing", "neither", "answers", "scores", "pool"] {
        assert_eq!(done(node), 1, "{node}");
    }
}

#[test]
fn an_impossible_state_is_reported_as_a_bug() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml", "--set", "iterations=1"]);
    // Pairs without the logprobs that training needs: the program never writes such a table.
    let key = OutputKey::table("policy_pairs", Some(1));
    let run = Runs::open(workspace.path("runs")).unwrap().run("small").unwrap();
    let recipe = run.manifest(&key).unwrap().unwrap().recipe;
    let batches = run.read_table(&key, Some(TableKind::Pairs)).unwrap();
    let mut rows: Vec<pairs::Row> = batches.iter().flat_map(|batch| pairs::rows(batch).unwrap()).collect();
    for row in &mut rows {
        row.reference_logprob_chosen = None;
        row.reference_logprob_rejected = None;
    }
    for removed in ["runs/.cache", "runs/small/tables/policy_pairs", "runs/small/models/policy"] {
        fs::remove_dir_all(workspace.path(removed)).unwrap();
    }
    let lock = locked(&run).unwrap();
    let mut writer = lock.write_table(&key, &recipe, Some(TableKind::Pairs), rows.len(), rows.len()).unwrap();
    writer.commit(0, &pairs::batch(&rows)).unwrap();
    writer.finish(BTreeMap::new()).unwrap();
    drop(lock);

    let said = workspace.fail(&["run", "pipeline.yaml", "--set", "iterations=1"], 1);
    assert!(said.contains("policy[1]: internal error in operators::train: pair of prompt p-"), "{said}");
    assert!(said.contains(": no reference logprob; this is a bug in optune, please report it"), "{said}");
}

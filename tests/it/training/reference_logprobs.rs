//! Logprobs under the reference and under the initial policy are computed once for all runs, and
//! nobody could tell from the results.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use optune::store::{OutputKey, Runs};
use optune::tables::{TableKind, pairs, responses};

use crate::fixtures::preferences::offline;
use crate::fixtures::workspace::Workspace;

/// The messages of a run about one node's reference logprobs, or about anything else.
fn said(workspace: &Workspace, arguments: &[&str]) -> String {
    let output = workspace.optune(&[&["run", "pipeline.yaml"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// The token ids of all responses in the pairs of a run's iteration, with where their prompts end:
/// one entry a response, so maybe twice.
fn paired(workspace: &Workspace, run: &str, iteration: u32) -> Vec<(i32, Vec<i32>)> {
    let run = Runs::open(workspace.path("runs")).unwrap().run(run).unwrap();
    let mut sampled = std::collections::HashMap::new();
    for sampled_iteration in 1..=iteration {
        for batch in run.read_table(&OutputKey::table("responses", Some(sampled_iteration)), Some(TableKind::Responses)).unwrap() {
            for row in responses::rows(&batch).unwrap() {
                sampled.insert((row.prompt_id, row.sampled_iteration, row.response_index), (row.prompt_token_count, row.token_ids));
            }
        }
    }
    let mut found = Vec::new();
    for batch in run.read_table(&OutputKey::table("policy_pairs", Some(iteration)), Some(TableKind::Pairs)).unwrap() {
        for row in pairs::rows(&batch).unwrap() {
            found.push(sampled[&(row.prompt_id.clone(), row.chosen_sampled_iteration, row.chosen_index)].clone());
            found.push(sampled[&(row.prompt_id, row.rejected_sampled_iteration, row.rejected_index)].clone());
        }
    }
    found
}

/// The memoized parts, of all references.
fn kept(workspace: &Workspace) -> Vec<PathBuf> {
    let list = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut parts: Vec<PathBuf> = list(workspace.path("runs/.cache/logprobs")).flat_map(list).collect();
    parts.sort();
    parts
}

#[test]
fn another_run_computes_no_logprob_that_a_run_before_it_has() {
    let workspace = Workspace::new();
    let first = said(&workspace, &[]);
    let mut seen: HashSet<(i32, Vec<i32>)> = paired(&workspace, "small", 1).into_iter().collect();
    for (index, setting) in ["learning_rate=2.0e-3", "ratio=0.7", "ratio=1.0"].into_iter().enumerate() {
        seen.extend(paired(&workspace, "small", 2));
        let name = format!("other{index}");
        let said = said(&workspace, &["--set", setting, "--name", &name]);
        let responses = paired(&workspace, &name, 2);
        let shared = responses.iter().filter(|response| seen.contains(*response)).count();
        let expected = format!("reference logprobs of {} pairs, {shared} of {} known before", responses.len() / 2, responses.len());
        assert!(shared > 0 && shared < responses.len(), "{shared} of {}: {setting} makes a bad test", responses.len());
        assert!(said.contains(&expected), "{setting}: expected {expected:?} in: {said}");
        assert!(!said.contains("policy_pairs[1]"), "iteration 1 is the same, as a whole: {said}");
        seen.extend(responses);

        // Whoever was here before: the same bytes.
        let alone = Workspace::new();
        alone.succeed(&["run", "pipeline.yaml", "--set", setting, "--name", &name]);
        assert_eq!(workspace.result(&name), alone.result(&name), "{setting}");
    }
    // Within a run: the pairs carried over by iteration 2.
    let before: HashSet<_> = paired(&workspace, "small", 1).into_iter().collect();
    let responses = paired(&workspace, "small", 2);
    let carried = responses.iter().filter(|response| before.contains(*response)).count();
    assert!(first.contains(&format!("{carried} of {} known before", responses.len())), "{first}");
}

/// The token ids of all evaluated responses of a run, with where their prompts end.
fn evaluated(workspace: &Workspace, run: &str) -> HashSet<(i32, Vec<i32>)> {
    let run = Runs::open(workspace.path("runs")).unwrap().run(run).unwrap();
    let tables = [("evaluation_responses", Some(1)), ("evaluation_responses", Some(2)), ("evaluation_baseline_responses", None)];
    let batches = tables.map(|(name, iteration)| run.read_table(&OutputKey::table(name, iteration), Some(TableKind::Responses)).unwrap());
    let rows = batches.iter().flatten().flat_map(|batch| responses::rows(batch).unwrap());
    rows.map(|row| (row.prompt_token_count, row.token_ids)).collect()
}

#[test]
fn the_nll_of_a_response_is_computed_once_for_all_baselines_iterations_and_runs() {
    let workspace = Workspace::new();
    workspace.edit("pipeline.yaml", "baseline: base", "baseline: [base, \"policy[t-1]\"]");
    let rows = || kept(&workspace).iter().map(|part| optune::store::read_parquet(part).unwrap().num_rows()).sum::<usize>();
    let [mut pairs, mut texts] = [HashSet::new(), HashSet::new()];
    for (setting, name) in [("learning_rate=1.0e-3", "small"), ("learning_rate=2.0e-3", "other")] {
        workspace.succeed(&["run", "pipeline.yaml", "--set", setting, "--name", name]);
        pairs.extend([1, 2].into_iter().flat_map(|iteration| paired(&workspace, name, iteration)));
        let before = texts.len();
        let new = evaluated(&workspace, name);
        assert!(new.len() > 8 && new.len() < 24, "{} of 24 texts differ", new.len());
        texts.extend(new);
        assert!(texts.len() > before);
        assert_eq!(rows(), pairs.len() + texts.len());
    }
    let differing = "SELECT count(*) FROM evaluation AS a JOIN evaluation_vs_policy AS b USING (iteration, prompt_id)
        WHERE a.nll_initial <> b.nll_initial";
    assert_eq!(workspace.query("other", differing), "0");
}

#[test]
fn the_cache_may_vanish_at_any_time() {
    let whole = Workspace::new();
    whole.succeed(&["run", "pipeline.yaml"]);
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml", "--set", "iterations=1"]);
    fs::remove_dir_all(workspace.path("runs/.cache")).unwrap();
    let said = said(&workspace, &[]);
    assert!(said.contains("reference logprobs of") && !said.contains("known before"), "{said}");
    assert_eq!(workspace.result("small"), whole.result("small"));
}

#[test]
fn a_damaged_part_is_reported_and_computed_again() {
    for cut in [false, true] {
        let workspace = Workspace::new();
        workspace.succeed(&["run", "pipeline.yaml"]);
        let parts = kept(&workspace);
        assert_eq!(parts.len(), 5, "pairs and policy of two iterations, and the baseline");
        let damage = |part: &PathBuf| {
            let mut bytes = fs::read(part).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 16;
            bytes.truncate(if cut { middle } else { bytes.len() });
            fs::write(part, &bytes).unwrap();
            bytes
        };
        let damaged: Vec<Vec<u8>> = parts.iter().map(damage).collect();
        let said = said(&workspace, &["--set", "learning_rate=2.0e-3", "--name", "other"]);
        for (part, damaged) in parts.iter().zip(&damaged) {
            let name = part.file_name().unwrap().to_string_lossy().into_owned();
            assert!(said.lines().any(|line| line.contains("warning") && line.contains(&name) && line.contains("blake3")), "{name}: {said}");
            // What does not depend on the policy is computed again, and has the same name.
            assert!(fs::read(part).ok().as_ref() != Some(damaged), "{name} is moved aside");
        }
        assert!(!said.contains("known before"), "{said}");
        assert_eq!(workspace.journal("other", "quarantined").len(), 5);
        let alone = Workspace::new();
        alone.succeed(&["run", "pipeline.yaml", "--set", "learning_rate=2.0e-3", "--name", "other"]);
        assert_eq!(workspace.result("other"), alone.result("other"));
    }
}

#[test]
fn a_part_that_was_computed_and_not_committed_costs_nothing_again() {
    let workspace = offline(false);
    workspace.succeed(&["run", "pipeline.yaml"]);
    let (before, parts) = (workspace.result("offline"), kept(&workspace));
    assert_eq!(parts.len(), 3, "one for each of the table's");
    // Prompt 8 is prompt 0 again, and so on: 8 prompts of two responses each.
    let computed: usize = parts.iter().map(|part| optune::store::read_parquet(part).unwrap().num_rows()).sum();
    assert_eq!(computed, 16);
    let part = workspace.path("runs/offline/tables/policy_pairs/part-00001.parquet");
    let without = |cache: bool| {
        fs::remove_file(&part).unwrap();
        // The finished table's entry as a whole, or all of the cache.
        for entry in fs::read_dir(workspace.path("runs/.cache")).unwrap() {
            let path = entry.unwrap().path();
            // Beside the entries lies the cache's lock.
            if path.is_dir() && (cache || !path.ends_with("logprobs")) {
                fs::remove_dir_all(path).unwrap();
            }
        }
        said(&workspace, &[])
    };
    let told = without(false);
    assert!(told.contains("reference logprobs of 15 pairs, 30 of 30 known before, 1 without gap"), "{told}");
    assert_eq!((workspace.result("offline"), kept(&workspace)), (before.clone(), parts.clone()));
    let told = without(true);
    assert!(told.contains("reference logprobs of 15 pairs, 1 without gap"), "{told}");
    assert_eq!(workspace.result("offline"), before);
    assert_eq!(kept(&workspace).len(), 1);

    // Other weights make another table of pairs, of the same responses. Kept are those of prompts
    // 5, 6, 8, 9 and 10, and so of 0, 1, 2, 13, 14.
    workspace.edit("prefs/b.jsonl", "\"chosen_score\":", "\"weight\":0.5,\"chosen_score\":");
    workspace.edit("prefs/a.jsonl", "\"chosen_score\":", "\"weight\":2.0,\"chosen_score\":");
    let told = said(&workspace, &[]);
    assert!(told.contains("reference logprobs of 15 pairs, 20 of 30 known before, 1 without gap"), "{told}");
    workspace.edit("prefs/a.jsonl", "\"weight\":2.0", "\"weight\":1.5");
    let told = said(&workspace, &[]);
    assert!(told.contains("reference logprobs of 15 pairs, 30 of 30 known before, 1 without gap"), "{told}");
}

#[test]
fn another_reference_or_another_adapter_shares_nothing() {
    let workspace = offline(false);
    let nodes =
        "  tuned:  { train: { from: base, reference: base, pairs: prefs, learning_rate: 1.0e-3, batch_size: 4, lora: { rank: 2 } } }
  again:  { train: { from: base, reference: tuned, pairs: prefs, learning_rate: 1.0e-3, batch_size: 4 } }\n";
    let pipeline = fs::read_to_string(workspace.path("pipeline.yaml")).unwrap();
    workspace.write("pipeline.yaml", &format!("{pipeline}{nodes}"));
    let line = |said: &str, node: &str| {
        let line = said.lines().find(|line| line.contains(node) && line.contains("reference logprobs"));
        line.unwrap_or_else(|| panic!("{node}: {said}")).to_string()
    };
    let references = || fs::read_dir(workspace.path("runs/.cache/logprobs")).unwrap().count();
    let told = said(&workspace, &[]);
    // The base is the reference of two nodes. The second finds the logprobs of the first.
    assert_eq!(told.matches("30 of 30 known before").count(), 1, "{told}");
    assert!(!line(&told, "again_pairs").contains("known"), "{told}");
    let differing = "SELECT count(*) FROM policy_pairs AS one JOIN again_pairs AS other ON one.prompt_id = other.prompt_id
 WHERE one.reference_logprob_chosen <> other.reference_logprob_chosen";
    assert!(workspace.query("offline", differing).parse::<u32>().unwrap() > 10);
    assert_eq!(references(), 2);

    workspace.edit("pipeline.yaml", "learning_rate: 1.0e-3, batch_size: 4, lora", "learning_rate: 2.0e-3, batch_size: 4, lora");
    let told = said(&workspace, &[]);
    assert!(!line(&told, "again_pairs").contains("known"), "another adapter: {told}");
    assert_eq!(references(), 3);

    workspace.edit("pipeline.yaml", "epochs: 2, batch_size: 8", "epochs: 3, batch_size: 8");
    let told = said(&workspace, &[]);
    assert_eq!(told.matches("30 of 30 known before").count(), 1, "another base, of two nodes again: {told}");
    assert_eq!(references(), 5);
}

#[test]
fn logprobs_of_one_precision_are_not_those_of_another() {
    let workspace = offline(false);
    let first = said(&workspace, &[]);
    assert!(!first.contains("known before"), "{first}");
    let logprobs = |run: &str| workspace.query(run, "SELECT reference_logprob_chosen FROM policy_pairs ORDER BY prompt_id");
    workspace.edit("pipeline.yaml", "pairs: prefs,", "pairs: prefs, precision: bf16,");
    let second = said(&workspace, &["--name", "shortened"]);
    assert!(!second.contains("known before"), "{second}");
    let (exact, shortened) = (logprobs("offline"), logprobs("shortened"));
    assert_eq!(exact.lines().count(), shortened.lines().count());
    let numbers = |text: &str| -> Vec<f64> { text.lines().map(|line| line.parse().unwrap()).collect() };
    for (exact, shortened) in numbers(&exact).into_iter().zip(numbers(&shortened)) {
        // Of factors with 9 bits instead of 24.
        assert!(exact != shortened && (exact - shortened).abs() < 0.01 * exact.abs(), "{exact}, in bf16 {shortened}");
    }
    let loss = workspace.query("shortened", "SELECT abs(loss - ln(2)) < 1e-6 FROM policy_training WHERE step = 1");
    assert_eq!(loss, "true", "policy and reference are the same at first, to the last bit");
}

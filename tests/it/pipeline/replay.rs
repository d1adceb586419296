//! Selection asked of recorded rewards, without a model: `pipelines/replay.yaml`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::fixtures::real_data::real;
use crate::fixtures::repository::optune;

/// The mean gain of a run, and its standard deviation over the repetitions.
fn gain(runs: &Path, run: &str) -> (f64, f64) {
    let found = optune(runs, &["sql", run, "SELECT avg(gain), stddev(gain) FROM gains", "--format", "csv"]);
    let (mean, deviation) = found.lines().nth(1).unwrap().split_once(',').unwrap();
    (mean.parse().unwrap(), deviation.parse().unwrap())
}

/// 11 responses each to 805 prompts, sampled from a model of 13 billion parameters and judged by
/// another; the figures are of the same replay in Python, 200 repetitions, each ranked by itself.
#[test]
fn selections_on_recorded_rewards_gain_what_they_gain_elsewhere() {
    let Some(recorded) = real("data/best_of_16_tulu2_13b.csv") else { return };
    let runs = tempfile::tempdir().unwrap();
    let data = format!("data={}", recorded.display());
    optune(runs.path(), &["run", "pipelines/replay.yaml", "--set", &data, "--set", "reward=gpt4_turbo_pref_minus1"]);
    // The gain elsewhere, and NumPy's with the same shuffles and draws (tests/python/expected_gain.py).
    let expected = [
        ("1.0-lowest_reward", Some(0.0809), 0.080913842049),
        ("0.7-lowest_reward", Some(0.0770), 0.076908643982),
        ("0.7-random", Some(0.0563), 0.056616046726),
        ("0.7-highest_reward", Some(0.0633), 0.063438296062),
        ("0.5-lowest_reward", Some(0.0513), 0.051346841168),
        ("0.5-random", Some(0.0406), 0.040532045198),
        ("0.5-highest_reward", Some(0.0294), 0.029567000881),
        ("0.3-lowest_reward", Some(0.0175), 0.017478425879),
        ("0.3-random", Some(0.0242), 0.024560269427),
        ("0.3-highest_reward", Some(0.0039), 0.004006265836),
        ("0.7-posterior", None, 0.075436374742),
        ("0.5-posterior", None, 0.066698479267),
        ("0.3-posterior", None, 0.046547921149),
    ];
    let found: BTreeMap<&str, (f64, f64)> = expected.iter().map(|(run, ..)| (*run, gain(runs.path(), &format!("replay-{run}")))).collect();
    eprintln!("{found:#?}");
    for (run, expected, numpy) in expected {
        let (mean, deviation) = found[run];
        // Beliefs equally far from the middle are many. Rounding orders them, so a few of the 161,000 can differ.
        let tolerance = if run.ends_with("posterior") { 5e-6 } else { 1e-9 };
        assert!((mean - numpy).abs() < tolerance, "{run}: {mean}, NumPy has {numpy}");
        let Some(expected) = expected else { continue };
        // Both are means of 200: four standard errors of their difference.
        assert!((mean - expected).abs() < 4.0 * deviation * (2.0 / 200.0_f64).sqrt(), "{run}: {mean} ± {deviation}, expected {expected}");
    }
}

/// Steps, responses in each, budget of a step, strategy, and NumPy's gain of the best reward in order 1.
const NUMPY: [(u32, u32, u32, &str, f64); 24] = [
    (1, 2, 483, "random", 0.022913356010),
    (1, 2, 483, "lowest_reward", 0.017570317984),
    (1, 2, 483, "expected_gain", 0.051488032662),
    (1, 2, 805, "random", 0.043562945120),
    (1, 2, 805, "lowest_reward", 0.048150193583),
    (1, 2, 805, "expected_gain", 0.074619134933),
    (1, 2, 1127, "random", 0.059789144431),
    (1, 2, 1127, "lowest_reward", 0.082480356557),
    (1, 2, 1127, "expected_gain", 0.083441763032),
    (1, 2, 1610, "random", 0.085960089055),
    (1, 2, 1610, "lowest_reward", 0.085960089055),
    (1, 2, 1610, "expected_gain", 0.085960089055),
    (16, 1, 30, "random", 0.028227826253),
    (16, 1, 30, "lowest_reward", 0.005812473936),
    (16, 1, 30, "expected_gain", 0.054640741199),
    (16, 1, 50, "random", 0.042394285878),
    (16, 1, 50, "lowest_reward", 0.011125904049),
    (16, 1, 50, "expected_gain", 0.073264723690),
    (16, 1, 70, "random", 0.054374505184),
    (16, 1, 70, "lowest_reward", 0.016057784224),
    (16, 1, 70, "expected_gain", 0.095011243291),
    (16, 1, 100, "random", 0.075757017112),
    (16, 1, 100, "lowest_reward", 0.035884278624),
    (16, 1, 100, "expected_gain", 0.118936795313),
];

/// Budgets decided once and in steps, on one order of the same responses: `pipelines/replay_steps.yaml`.
/// NumPy spends them by the same rules and draws, and gets the same gains
/// (tests/python/expected_gain.py).
#[test]
fn budgets_on_recorded_rewards_gain_what_they_gain_in_numpy() {
    let Some(recorded) = real("data/best_of_16_tulu2_13b.csv") else { return };
    let runs = tempfile::tempdir().unwrap();
    let data = format!("data={}", recorded.display());
    let arguments = ["run", "pipelines/replay_steps.yaml", "--set", &data, "--set", "reward=gpt4_turbo_pref_minus1"];
    optune(runs.path(), &[&arguments[..], &["--set", "order=1"]].concat());
    let mut found = BTreeMap::new();
    for (steps, each, tokens, strategy, expected) in NUMPY {
        let run = format!("replay_steps-{steps}-{each}-{tokens}-{strategy}-1");
        let rows =
            optune(runs.path(), &["sql", &run, "SELECT best, sampled FROM gains ORDER BY iteration DESC LIMIT 1", "--format", "csv"]);
        let (best, sampled) = rows.lines().nth(1).unwrap().split_once(',').unwrap();
        let (best, sampled): (f64, u32) = (best.parse().unwrap(), sampled.parse().unwrap());
        // The budget, and one prompt's responses more at most in each step; fewer only where a
        // prompt has no more recorded ones.
        assert!(sampled <= tokens * steps + (each - 1) * steps, "{run}: {sampled}");
        assert!(sampled * 100 >= tokens * steps * 95, "{run}: {sampled}");
        assert!((best - expected).abs() < 1e-9, "{run}: expected {expected}, found {best}");
        found.insert((strategy, steps, tokens), best);
    }
    // The best rule at every budget, decided once and in steps.
    for ((strategy, steps, tokens), best) in &found {
        assert!(found[&("expected_gain", *steps, *tokens)] >= best - 0.002, "{strategy}, {steps}, {tokens}: {best}");
    }
}

/// A table of rewards of the user's own, in no order, is ranked as a pool is.
#[test]
fn rewards_of_ones_own_are_ranked() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let prompts = file(
        "prompts.jsonl",
        "{\"prompt_id\":\"a\",\"prompt\":\"A\"}\n{\"prompt_id\":\"b\",\"prompt\":\"B\"}\n{\"prompt_id\":\"c\",\"prompt\":\"C\"}\n",
    );
    let write = |rewards: &str| file("rewards.csv", rewards);
    let rewards = write("prompt_id,reward\nb,0.1\na,1\nc,0.5\nb,0.2\na,\n");
    let pipeline = format!(
        "optune: 1\nname: own\ninputs:\n  prompts: {{ table: {prompts} }}\n  rewards: {{ table: {rewards} }}\nnodes:\n  selection: {{ select: {{ prompts: prompts, pool: rewards, ratio: 0.5 }} }}\n"
    );
    let pipeline = file("own.yaml", &pipeline);
    let runs = folder.path().join("runs");
    optune(&runs, &["run", &pipeline]);
    let query = "SELECT prompt_id, score, selected FROM selection ORDER BY rank";
    let found = optune(&runs, &["sql", "own", query, "--format", "csv"]);
    assert_eq!(found.lines().skip(1).collect::<Vec<_>>(), ["b,0.15000000000000002,true", "c,0.5,true", "a,1.0,false"]);
    // A NaN reward stops it, and a table without rewards is refused before anything runs.
    write("prompt_id,reward\nb,NaN\na,1\n");
    let fails = |said: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_optune"));
        let output = command.arg("--runs").arg(&runs).args(["run", &pipeline]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.contains(said)), (Some(2), true), "{error}");
    };
    fails("pool: expected a prompt_id and a finite reward in every row, found 1 rows without");
    write("prompt_id,score,reward_\nb,1,2\n");
    fails("pool: expected the columns prompt_id and reward, found");
}

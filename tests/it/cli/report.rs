//! `optune report`: one HTML file. It loads nothing, agrees with the tables, and escapes the texts
//! of a run.

use std::process::Command;

use optune::report::statistics::{Interval, histogram, quantile, stretches};

use crate::fixtures::browser::chromium;
use crate::fixtures::workspace::{PIPELINE, Workspace};

/// Prompts with markup. No page may run it. They are short because the small model reads 64 tokens.
const HOSTILE: [&str; 2] = ["</script><script>document.title='taken'</script>", "<img src=x onerror=\"document.title='taken'\">&amp;"];

/// The report of some runs.
fn report(workspace: &Workspace, runs: &[&str]) -> String {
    workspace.succeed(&[&["report"], runs, &["--output", "report.html"]].concat());
    std::fs::read_to_string(workspace.path("report.html")).unwrap()
}

/// A workspace with markup as prompts and groups.
fn hostile() -> Workspace {
    let workspace = Workspace::new();
    let row = |index: usize| {
        let prompt = format!("{index:02}{}", HOSTILE[index % 2]);
        serde_json::json!({ "prompt_id": format!("<tt>{index:02}"), "prompt": prompt, "reference_answer": "ABC", "group": "<i>" })
            .to_string()
            + "\n"
    };
    workspace.write("prompts.jsonl", &(0..20).map(row).collect::<String>());
    let held_out = std::fs::read_to_string(workspace.path("held_out.jsonl")).unwrap();
    workspace.write("held_out.jsonl", &held_out.replacen("\"upper\"}", "\"<u>{{ 7 * 7 }}\"}", 3));
    workspace
}

/// The page without the contents of its scripts. Texts of ours and of the libraries are in there.
fn without_scripts(page: &str) -> String {
    without(page, "<script", "</script>")
}

/// A text without everything between two marks.
fn without(text: &str, begin: &str, end: &str) -> String {
    let (mut rest, mut kept) = (text, String::new());
    while let Some((before, after)) = rest.split_once(begin) {
        kept.push_str(before);
        rest = after.split_once(end).unwrap().1;
    }
    kept + rest
}

/// Every `<div …>` has its `</div>`, and so have all elements with an end.
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let tag = piece.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
        match tag.starts_with('/') {
            _ if ["!doctype", "meta"].contains(&name) => {}
            true => assert_eq!(open.pop(), Some(name), "before: …{}", piece.get(..80.min(piece.len())).unwrap_or_default()),
            false => open.push(name),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

/// One file, nothing loaded, no NaN.
fn assert_sound(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(page.contains("default-src 'none'"));
    let shown = without_scripts(page);
    assert_well_formed(&shown);
    // The page without texts of the run: without its prompts, its pipeline file and its errors.
    let shown = HOSTILE.iter().fold(shown, |shown, text| shown.replace(&escaped(text), ""));
    let shown = without(&without(&shown, "<pre", "</pre>"), "<p class=\"note\">", "</p>");
    for loads in ["src=", "@import", "url(", "<link", "<iframe", "<object", "<embed", "<base"] {
        assert!(!shown.contains(loads), "{loads}");
    }
    for word in ["NaN", "undefined", "inf", "null"] {
        assert!(!shown.contains(&format!(">{word}")) && !shown.contains(&format!(" {word} ")), "{word}");
    }
}

/// A text as the template engine writes it.
fn escaped(text: &str) -> String {
    let pairs = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&#x27;"), ("/", "&#x2f;")];
    pairs.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn a_report_is_one_file_with_every_section_and_the_same_bytes_twice() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let page = report(&workspace, &["small"]);
    assert_sound(&page);
    assert_eq!(page, report(&workspace, &["small"]));
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    for id in ["overview", "evaluation", "quality", "rewards", "regeneration", "pairs", "training", "cost", "graph", "settings"] {
        assert!(page.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
    assert!(page.contains("<span class=\"state finished\">") && !page.contains("Not there yet"));
}

#[test]
fn a_report_says_what_the_tables_say() {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let page = report(&workspace, &["small"]);
    let gap: f64 = workspace.query("small", "SELECT max(reward_gap) FROM pairs WHERE iteration = 2").parse().unwrap();
    let shown: f64 = page.split_once("gap <b>").unwrap().1.split_once('<').unwrap().0.parse().unwrap();
    assert!((gap - shown).abs() < 1e-3 * gap, "{gap} {shown}");
    let tokens = workspace.query("small", "SELECT sum(array_length(token_ids) - prompt_token_count) FROM responses");
    let (thousands, rest) = tokens.split_at(tokens.len().saturating_sub(3));
    let grouped = if thousands.is_empty() { rest.to_string() } else { format!("{thousands},{rest}") };
    assert!(page.contains(&format!("<dd>{grouped}</dd>")), "{tokens}");
    // Quality by cost: until the second iteration, everything was sampled.
    let (_, quality) = page.split_once("<section id=\"quality\">").unwrap();
    let (quality, _) = quality.split_once("</section>").unwrap();
    assert!(quality.contains(&format!(">{grouped}<")), "{tokens}");
    let first = workspace.query("small", "SELECT sum(sampled_tokens) FROM cost_by_stage WHERE iteration = 1");
    assert!(first.len() <= 3 && quality.contains(&format!(">{first}<")), "{first}");
    let losses = workspace.query("small", "SELECT loss FROM policy_training ORDER BY iteration, step LIMIT 1");
    let first = format!("{:.4}", losses.parse::<f64>().unwrap());
    assert!(page.contains(&format!(">{}<", first.trim_end_matches('0'))), "{first}");
}

#[test]
fn texts_of_a_run_stay_texts() {
    let workspace = hostile();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let page = report(&workspace, &["small"]);
    assert_sound(&page);
    for markup in ["<script>document", "<img", "<tt>", "<i>", "<u>"] {
        assert!(!page.contains(markup), "{markup}");
    }
    let shown = page.matches("class=\"pair\"").count();
    assert!(shown > 0);
    assert_eq!(HOSTILE.iter().map(|text| page.matches(&escaped(text)).count()).sum::<usize>(), shown);
    assert!(page.contains(&format!("<td>{}</td>", escaped("<u>{{ 7 * 7 }}"))));
}

#[test]
fn a_run_that_is_not_finished_is_reported_with_what_is_missing() {
    let workspace = Workspace::new();
    workspace.edit(
        "reward.sql",
        " AS reward,",
        " + CASE WHEN responses.sampled_iteration = 2 THEN CAST('NaN' AS DOUBLE) ELSE 0.0 END AS reward,",
    );
    workspace.fail(&["run", "pipeline.yaml"], 2);
    let page = report(&workspace, &["small"]);
    assert_sound(&page);
    assert!(page.contains("<span class=\"state failed\">"));
    assert!(page.contains("Not there yet: rewards[2], pool[2], pairs[2], policy[2], evaluation[2]."));
    assert!(page.contains("rewards[2] failed: "));
    assert!(page.contains("<section id=\"evaluation\">") && !page.contains("<section id=\"regeneration\">"));
}

#[test]
fn a_pipeline_of_other_nodes_is_reported_by_the_kinds_of_its_tables() {
    let workspace = Workspace::new();
    let text = "optune: 1\nname: other\ninputs:\n  rows: { table: prompts.jsonl }\nnodes:\n  words: { sql: { query: \"select prompt_id, length(prompt) as letters from rows\" } }\n";
    workspace.write("other.yaml", text);
    workspace.succeed(&["run", "other.yaml"]);
    let page = report(&workspace, &["other"]);
    assert_sound(&page);
    assert!(page.contains("<td>words</td><td class=\"number\">20</td><td>prompt_id, letters</td>"));
    for id in ["evaluation", "rewards", "pairs", "training"] {
        assert!(!page.contains(&format!("<section id=\"{id}\">")), "{id}");
    }
}

#[test]
fn pairs_that_a_user_brought_are_shown_with_their_texts() {
    let workspace = crate::fixtures::preferences::offline(false);
    workspace.succeed(&["run", "pipeline.yaml"]);
    let page = report(&workspace, &["offline"]);
    assert_sound(&page);
    assert!(page.contains("class=\"pair\""));
}

#[test]
fn runs_are_compared_and_seeds_averaged() {
    let workspace = Workspace::new();
    workspace.write("pipeline.yaml", &PIPELINE.replace("seed: 5\n", "seed: \"${seed}\"\n").replace("params: { ", "params: { seed: 5, "));
    for (name, seed, ratio) in [("a-1", "1", "0.5"), ("a-2", "2", "0.5"), ("b-1", "1", "1.0")] {
        let (seed, ratio) = (format!("seed={seed}"), format!("ratio={ratio}"));
        workspace.succeed(&["run", "pipeline.yaml", "--name", name, "--set", &seed, "--set", &ratio]);
    }
    let page = report(&workspace, &["a-1", "a-2", "b-1", "runs/a-1"]);
    assert_sound(&page);
    assert!(page.contains("3 runs compared"));
    // Two groups, named by the settings in which they differ. Settings derived from these are not
    // in the name.
    assert!(page.contains("<td>ratio 0.5</td><td class=\"number\">2</td><td>0.5</td></tr>"));
    assert!(page.contains("<td>ratio 1.0</td><td class=\"number\">1</td><td>1.0</td></tr>"));
    assert_eq!(page, report(&workspace, &["a-1", "a-2", "b-1"]));
}

#[test]
fn a_run_that_is_not_there_is_the_users_error() {
    let workspace = Workspace::new();
    assert!(workspace.fail(&["report", "nothing"], 2).contains("expected the name or the folder of a run"));
}

/// The page's own description of itself in a frame of this width, and the messages of the console.
/// A window cannot be so narrow.
fn looked_at(browser: &str, workspace: &Workspace, page: &str, width: u32) -> (serde_json::Value, String) {
    let nonce = page.split_once("'nonce-").unwrap().1.split_once('\'').unwrap().0;
    let probe = r#"
        const wrong = /NaN|undefined|Infinity/;
        const broken = [...document.querySelectorAll("svg *")].filter(part => [...part.attributes].some(attribute => wrong.test(attribute.value)));
        const page = document.documentElement;
        parent.postMessage({
            over: page.scrollWidth - page.clientWidth, width: innerWidth, drawn: Number(document.body.dataset.drawn), title: document.title,
            broken: broken.length, wrong: (document.querySelector("main").innerText.match(wrong) ?? []).length,
            empty: [...document.querySelectorAll(".chart")].filter(chart => !chart.querySelector("svg path, svg rect, svg circle, svg line")).length,
        }, "*");"#;
    workspace.write("probe.html", &page.replace("</body>", &format!("<script nonce=\"{nonce}\">{probe}</script></body>")));
    let listen = "onmessage = event => { document.body.dataset.said = JSON.stringify(event.data).replaceAll('\"', '`'); }";
    let frame = format!("<script>{listen}</script><body><iframe src=\"probe.html\" width=\"{width}\" height=\"2000\"></iframe>");
    workspace.write("frame.html", &frame);
    let profile = format!("--user-data-dir={}", workspace.path(&format!("profile-{width}")).display());
    let quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--enable-logging=stderr",
            "--dump-dom",
            "--virtual-time-budget=5000",
            "--window-size=1400,2000",
        ])
        .args(quiet)
        .args([profile, format!("file://{}", workspace.path("frame.html").display())])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let console = String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("CONSOLE")).collect::<Vec<_>>().join("\n");
    let dom = String::from_utf8(output.stdout).unwrap();
    let said =
        dom.split_once("data-said=\"").unwrap_or_else(|| panic!("the page said nothing: {console}{dom}")).1.split_once('"').unwrap().0;
    (serde_json::from_str(&said.replace('`', "\"")).unwrap(), console)
}

#[test]
fn a_browser_draws_every_chart_without_an_error_at_any_width() {
    let Some(browser) = chromium("a report") else { return };
    let workspace = hostile();
    workspace.succeed(&["run", "pipeline.yaml"]);
    let page = report(&workspace, &["small"]);
    let charts = page.matches("<figure>").count();
    assert!(charts > 10, "{charts}");
    for width in [400, 1200] {
        let (said, console) = looked_at(&browser, &workspace, &page, width);
        let expected = serde_json::json!({
            "over": 0, "width": width, "drawn": charts, "title": "small · optune report", "broken": 0, "wrong": 0, "empty": 0
        });
        assert_eq!(said, expected, "{console}");
        assert_eq!(console, "");
    }
}

#[test]
fn intervals_are_those_of_numpy() {
    // numpy's percentiles of 400,000 means of values drawn again; ours are of 1,000, so they stray
    // by a few percent of the width.
    let even: Vec<f64> = (0..60).map(|i| f64::from((i * 37) % 101) / 101.0).collect();
    let skewed = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 12.0];
    assert_ne!(Interval::of(&even, "seed"), Interval::of(&even, "another seed"));
    for (values, mean, low, high) in [(even.as_slice(), 0.490_264_026, 0.417_327, 0.563_202), (&skewed, 1.333_333_333, 0.0, 3.5)] {
        let found = Interval::of(values, "seed").unwrap();
        let near = |one: f64, other: f64| (one - other).abs() < 0.08 * (high - low);
        assert!((found.mean - mean).abs() < 1e-8 && near(found.low, low) && near(found.high, high), "{found:?}");
        assert_eq!(found, Interval::of(values, "seed").unwrap());
    }
    assert_eq!(Interval::of(&[2.0], "seed").map(|one| (one.low, one.high)), Some((2.0, 2.0)));
    assert_eq!(Interval::of(&[], "seed"), None);
    let mut ascending = skewed;
    ascending.sort_by(f64::total_cmp);
    for (share, expected) in [(0.0, 0.0), (0.5, 0.0), (0.9, 2.8), (0.95, 7.05), (1.0, 12.0)] {
        assert!((quantile(&ascending, share) - expected).abs() < 1e-9, "{share}");
    }
}

#[test]
fn histograms_and_thinned_curves_lose_no_value() {
    let values: Vec<f64> = (0..997).map(|i| f64::from((i * 331) % 997) / 7.0 + 0.003).collect();
    let bins = histogram(&values, 0.0, 143.0, 30);
    assert_eq!((bins.len(), bins.iter().map(|(_, _, count)| count).sum::<u64>()), (30, 997));
    for (from, to, count) in bins.iter().rev().skip(1) {
        assert_eq!(*count as usize, values.iter().filter(|value| (*from..*to).contains(*value)).count());
    }
    for (rows, most) in [(0, 400), (1, 400), (400, 400), (401, 400), (12_345, 400)] {
        let ranges: Vec<_> = stretches(rows, most).collect();
        assert!(ranges.len() <= most && ranges.iter().all(|range| !range.is_empty()));
        assert_eq!(ranges.into_iter().flatten().collect::<Vec<_>>(), (0..rows).collect::<Vec<_>>());
    }
}

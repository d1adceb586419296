//! YAML's scalars, tags, anchors and limits: every row of `docs/reference/yaml.md`, where a text, a
//! whole number, a number, or true or false is wanted.

use std::fs;
use std::path::Path;

use optune::pipeline::spec::input::Input;
use optune::pipeline::spec::operator::Operator;
use optune::pipeline::{Pipeline, PipelineError};

use crate::fixtures::workspace::Workspace;

/// A file with values of each kind: the text `name`, the whole number `seed`, a `temperature`, and
/// whether a table has a `header`.
fn file(values: [&str; 4]) -> String {
    let [name, seed, temperature, header] = values;
    format!(
        "optune: 1\nname: {name}\nseed: {seed}\ninputs:\n  prompts:\n    table: prompts.csv\n    header: {header}\n    columns: {{ prompt: text }}\n  base: {{ model: base }}\n\
         nodes:\n  responses:\n    generate:\n      policy: base\n      prompts: prompts\n      temperature: {temperature}\n"
    )
}

const RIGHT: [&str; 4] = ["name", "1", "1.0", "true"];

fn read(text: &str) -> Result<Pipeline, PipelineError> {
    Pipeline::read("test.yaml", text, &[])
}

/// The value at one of the four positions.
fn value(pipeline: &Pipeline, position: usize) -> String {
    let spec = &pipeline.spec;
    match position {
        0 => spec.name.value.clone(),
        1 => spec.seed.to_string(),
        2 => match &spec.nodes["responses"].operator {
            Operator::Generate(generate) => format!("{:?}", generate.temperature),
            other => panic!("{}", other.name()),
        },
        _ => match &spec.inputs["prompts"] {
            Input::Table(table) => table.header.unwrap().to_string(),
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn every_row_of_the_page_is_read_as_it_says() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/yaml.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let mut wrong = String::new();
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" |").map(str::trim).collect();
        let written = cells[0].trim_matches('`');
        assert_eq!(cells.len(), 5, "{row}");
        for position in 0..4 {
            let mut values = RIGHT;
            values[position] = written;
            let expected = cells[position + 1];
            // An optional value that is nothing has its default; a header is none then.
            if position == 3 && ["null", "~"].contains(&written) {
                assert!(read(&file(values)).is_ok(), "{row}");
                continue;
            }
            let found = match read(&file(values)) {
                Ok(pipeline) => value(&pipeline, position),
                Err(error) => {
                    let line = [2, 3, 15, 7][position];
                    assert_eq!(error.span().line, line, "{row}: {error}");
                    "refused".to_string()
                }
            };
            if found != expected {
                wrong += &format!("{written} at position {position}: expected {expected:?}, found {found:?}\n");
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(count > 120, "{count}");
}

fn error(text: &str) -> String {
    match read(text) {
        Ok(_) => "no error".to_string(),
        Err(error) => format!("{}:{} {}", error.span().line, error.span().column, error.message()),
    }
}

#[test]
fn errors_about_scalars_say_what_to_write() {
    for (values, expected) in [
        (["name", "1", "1.0", "yes"], "7:13 expected true or false, found \"yes\"; write true"),
        (["name", "1", "1.0", "Off"], "7:13 expected true or false, found \"Off\"; write false"),
        (["name", "1e3", "1.0", "true"], "3:7 expected a whole number, found 1000.0"),
        (["17", "1", "1.0", "true"], "2:7 expected text, found 17"),
        (["~", "1", "1.0", "true"], "2:7 expected text, found nothing"),
        (["name", "-007", "1.0", "true"], "3:7 expected a whole number, found -7"),
        (["name", "099999999999999999999999", "1.0", "true"], "3:7 expected a whole number of 64 bits, found 99999999999999999999999"),
    ] {
        assert_eq!(error(&file(values)), expected);
    }
}

#[test]
fn tags_are_refused_on_values_keys_lists_and_mappings() {
    for (tagged, expected) in [
        ("!secret word", "!secret"),
        ("!!set { a }", "!!set"),
        ("!!binary SGVsbG8=", "!!binary"),
        ("!<tag:example.com,2026:x> word", "tag:example.com,2026:x"),
        ("[!secret word]", "!secret"),
        ("{ a: { !secret b: 1 } }", "!secret"),
    ] {
        let found = error(&format!("optune: 1\nname: name\nparams:\n  x: {tagged}\n"));
        assert!(found.starts_with("4:"), "{tagged}: {found}");
        assert!(found.contains(&format!("unknown tag \"{expected}\"; leave it out, or quote it if it is text")), "{tagged}: {found}");
    }
}

#[test]
fn zeros_in_front_stay_in_texts_programs_and_names_of_runs() {
    let workspace = Workspace::new();
    workspace.write(
        "padded.yaml",
        "optune: 1\nname: run-${id}\nseed: ${id}\nparams: { id: 017 }\nnodes:\n  made: { command: { run: [sh, -c, 'echo \"$@\"', sh, 00012, \"${id}\"], output: table } }\n",
    );
    let graph = Pipeline::load(&workspace.path("padded.yaml"), &[]).unwrap().graph(&workspace.path("")).unwrap();
    assert_eq!((graph.name.as_str(), graph.seed), ("run-017", 17));
    let arguments = graph.tasks[0].settings["run"].to_string();
    assert!(arguments.ends_with("\"00012\",\"017\"]"), "{arguments}");
    // A run's own file says the same.
    workspace.write("again.yaml", &graph.to_yaml(&workspace.path("")).unwrap());
    let again = Pipeline::load(&workspace.path("again.yaml"), &[]).unwrap().graph(&workspace.path("")).unwrap();
    assert_eq!((again.name.as_str(), again.seed), ("run-017", 17));
    assert_eq!(again.tasks[0].settings, graph.tasks[0].settings);
    // Another value may be a number or a text.
    for (set, name) in [("0005", "run-0005"), ("5", "run-5"), ("word", "run-word")] {
        let text = fs::read_to_string(workspace.path("padded.yaml")).unwrap().replace("seed: ${id}\n", "");
        let sets = [("id".to_string(), set.to_string())];
        assert_eq!(Pipeline::read("test.yaml", &text, &sets).unwrap().spec.name.value, name);
    }
}

#[test]
fn axes_of_a_matrix_keep_zeros_in_front() {
    let text = "optune: 1\nname: n\nparams: { id: 000 }\nmatrix: { id: [001, 010, word] }\nnodes: {}\n";
    let sweep = optune::pipeline::Sweep::read("test.yaml", text, &[]).unwrap();
    let names: Vec<&str> = sweep.runs.iter().map(|run| run.spec.name.value.as_str()).collect();
    assert_eq!(names, ["n-001", "n-010", "n-word"]);
}

#[test]
fn anchors_repeat_values_and_merges_give_way_to_keys_beside_them() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/yaml.md")).unwrap();
    let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let spec = read(block).unwrap().spec;
    let settings = |name: &str| match &spec.nodes[name].operator {
        Operator::Generate(generate) => (generate.prompts.value.clone(), generate.max_new_tokens, generate.temperature),
        other => panic!("{}", other.name()),
    };
    assert_eq!(settings("responses"), ("prompts".to_string(), 12, 0.7));
    assert_eq!(settings("others"), ("held_out".to_string(), 12, 0.7));
    // An alias of digits keeps them.
    let text = "optune: 1\nname: &id 017\nseed: *id\nnodes: {}\n";
    let spec = read(text).unwrap().spec;
    assert_eq!((spec.name.value.as_str(), spec.seed), ("017", 17));
}

#[test]
fn aliases_cannot_fill_the_memory() {
    let mut bomb = "optune: 1\nname: n\nparams:\n  a0: &a0 [x, x, x, x, x, x, x, x]\n".to_string();
    for level in 1..10 {
        let of = format!("*a{}", level - 1);
        bomb += &format!("  a{level}: &a{level} [{}]\n", [of.as_str(); 8].join(", "));
    }
    assert_ne!(error(&bomb), "no error");
    assert_ne!(error("optune: 1\nname: n\nparams: &p { a: *p }\n"), "no error");
    let many = format!("optune: 1\nname: &n n\nparams:\n{}", (0..101).map(|i| format!("  a{i}: *n\n")).collect::<String>());
    assert_ne!(error(&many), "no error");
}

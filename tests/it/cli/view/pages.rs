//! What the pages say is what SQL says, and a wrong filter is an error with a message.

use serde_json::{Value, json};

use super::Server;
use crate::fixtures::workspace::Workspace;

/// A finished run of two iterations.
fn finished() -> Workspace {
    let workspace = Workspace::new();
    workspace.succeed(&["run", "pipeline.yaml"]);
    workspace
}

/// A query's rows as JSON.
fn sql(workspace: &Workspace, query: &str) -> Vec<Value> {
    let text = workspace.succeed(&["sql", "small", query, "--format", "json"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn near(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => (one - other).abs() < 1e-12,
        _ => one == other,
    }
}

fn ids(page: &Value) -> Vec<&str> {
    page["rows"].as_array().unwrap().iter().map(|row| row["prompt_id"].as_str().unwrap()).collect()
}

#[test]
fn the_table_of_prompts_has_the_values_of_sql() {
    let workspace = finished();
    let server = Server::start(&workspace, &["small"]);
    let page = server.ask("prompts", &[("run", "small")]);
    assert_eq!((page["tables"].clone(), page["iterations"].clone()), (json!(["prompts", "held_out"]), json!([1, 2])));
    assert_eq!((&page["iteration"], &page["more"]), (&json!(2), &json!(false)));
    for iteration in ["1", "2"] {
        let page = server.ask("prompts", &[("run", "small"), ("iteration", iteration)]);
        let expected = sql(
            &workspace,
            &format!(
                "SELECT p.prompt_id, p.prompt AS text, p.\"group\", count(q.reward) AS responses, avg(q.reward) AS reward, max(q.reward) AS best, min(q.reward) AS worst,
       first_value(s.selected) AS selected, first_value(s.rank) AS rank, first_value(s.score) AS score, first_value(r.reward_gap) AS reward_gap, first_value(r.weight) AS weight
FROM prompts p JOIN pool q ON q.prompt_id = p.prompt_id AND q.iteration = {iteration}
JOIN selection s ON s.prompt_id = p.prompt_id AND s.iteration = {iteration}
LEFT JOIN pairs r ON r.prompt_id = p.prompt_id AND r.iteration = {iteration}
GROUP BY 1, 2, 3 ORDER BY 1"
            ),
        );
        let rows = page["rows"].as_array().unwrap();
        assert_eq!((rows.len(), expected.len()), (20, 20));
        for (row, expected) in rows.iter().zip(&expected) {
            let differing = expected.as_object().unwrap().iter().find(|(name, value)| !near(&row[name.as_str()], value));
            assert!(differing.is_none(), "{differing:?} in {row}");
        }
    }
    let held_out = server.ask("prompts", &[("run", "small"), ("prompts", "held_out")]);
    let expected = sql(&workspace, "SELECT prompt_id, reward FROM evaluation WHERE iteration = 2 ORDER BY 1");
    let rows = held_out["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().zip(&expected).all(|(row, expected)| near(&row["reward"], &expected["reward"])));
}

#[test]
fn filters_and_sorting_are_those_of_sql() {
    let workspace = finished();
    let server = Server::start(&workspace, &["small"]);
    let summary =
        "(SELECT prompt_id, avg(reward) AS reward, max(reward) AS best, min(reward) AS worst FROM pool WHERE iteration = 2 GROUP BY 1)";
    let half = sql(&workspace, &format!("SELECT median(reward) AS m FROM {summary}"))[0]["m"].as_f64().unwrap();
    let half = format!("{half:?}");
    let of_summary = |rest: &str| format!("SELECT prompt_id FROM {summary} {rest}");
    let cases: Vec<(Vec<(&str, &str)>, String)> = vec![
        (vec![("text", "UPPER A")], "SELECT prompt_id FROM prompts WHERE prompt ILIKE '%upper a%'".into()),
        (vec![("response", "a")], "SELECT DISTINCT prompt_id FROM responses WHERE text ILIKE '%a%'".into()),
        (vec![("column", "reference_answer"), ("value", "ADG")], "SELECT prompt_id FROM prompts WHERE reference_answer = 'ADG'".into()),
        (vec![("column", "rank"), ("value", "3")], "SELECT prompt_id FROM selection WHERE iteration = 2 AND rank = 3".into()),
        (vec![("reward_from", &half)], of_summary(&format!("WHERE reward >= {half}"))),
        (vec![("reward_to", &half)], of_summary(&format!("WHERE reward <= {half}"))),
        (vec![("selected", "yes")], "SELECT prompt_id FROM selection WHERE iteration = 2 AND selected".into()),
        (vec![("selected", "no")], "SELECT prompt_id FROM selection WHERE iteration = 2 AND NOT selected".into()),
        (vec![("where", "best - worst > 0.1 -- a comment")], of_summary("WHERE best - worst > 0.1")),
        (
            vec![("where", "weight IS NULL OR rank IN (1, 2)"), ("selected", "yes")],
            "SELECT s.prompt_id FROM selection s LEFT JOIN pairs p ON p.prompt_id = s.prompt_id AND p.iteration = 2 WHERE s.iteration = 2 AND selected AND (weight IS NULL OR rank IN (1, 2))".into(),
        ),
        (
            vec![("where", "prompt_id IN (SELECT prompt_id FROM pairs WHERE reward_gap > 0.2 AND iteration = 1)")],
            "SELECT prompt_id FROM pairs WHERE reward_gap > 0.2 AND iteration = 1".into(),
        ),
        (vec![("text", "'; DROP TABLE pool; --")], "SELECT prompt_id FROM prompts WHERE FALSE".into()),
        (vec![("text", "%")], "SELECT prompt_id FROM prompts WHERE FALSE".into()),
    ];
    for (mut parameters, query) in cases {
        parameters.extend([("run", "small"), ("sort", "prompt_id")]);
        let expected = sql(&workspace, &format!("SELECT prompt_id FROM ({query}) ORDER BY 1"));
        let expected: Vec<&str> = expected.iter().map(|row| row["prompt_id"].as_str().unwrap()).collect();
        let page = server.ask("prompts", &parameters);
        assert_eq!(ids(&page), expected, "{parameters:?}");
        assert_eq!(server.ask("prompts/count", &parameters)["count"], json!(expected.len()), "{parameters:?}");
    }
    for (column, descending, order) in [("reward", "yes", "reward DESC"), ("worst", "no", "worst"), ("best", "yes", "best DESC")] {
        let page = server.ask("prompts", &[("run", "small"), ("sort", column), ("descending", descending)]);
        let expected = sql(&workspace, &of_summary(&format!("ORDER BY {order}, prompt_id")));
        assert_eq!(ids(&page), expected.iter().map(|row| row["prompt_id"].as_str().unwrap()).collect::<Vec<_>>(), "{order}");
    }
    let rest = server.ask("prompts", &[("run", "small"), ("sort", "prompt_id"), ("offset", "15")]);
    assert_eq!((ids(&rest).len(), ids(&rest)[0], &rest["more"]), (5, "p-015", &json!(false)));
}

#[test]
fn a_wrong_filter_is_an_error_with_a_message() {
    let workspace = Workspace::finished();
    let before = workspace.result("small");
    let server = Server::start(&workspace, &["small"]);
    for (name, value, words) in [
        ("where", "reward <", "expected a condition as after WHERE"),
        ("where", "DROP TABLE pool", "expected a condition as after WHERE"),
        ("where", "reward < 1; DROP TABLE pool", "expected a condition as after WHERE"),
        ("where", "1 = 1) UNION SELECT prompt_id FROM pool --", "expected a condition as after WHERE"),
        ("where", "INSERT INTO pool VALUES (1)", "expected a condition as after WHERE"),
        ("where", "'", "expected a condition as after WHERE"),
        ("where", "rewards < 1", "rewards"),
        ("where", "reward", "filter"),
        ("where", "prompt_id IN (SELECT x FROM '/etc/passwd')", "/etc/passwd"),
        ("column", "nothing", ""),
        ("sort", "nothing", "expected a column, one of: prompt_id"),
        ("sort", "1; DROP TABLE pool", "expected a column, one of: prompt_id"),
        ("reward_from", "much", "reward_from: expected a number, found \"much\""),
        ("selected", "perhaps", "selected: expected yes or no, found \"perhaps\""),
        ("offset", "-1", "offset: expected a number, found \"-1\""),
        ("iteration", "7", "iteration: expected one of 1, found 7"),
    ] {
        for path in ["prompts", "prompts/count"] {
            let answer = server.get(path, &[("run", "small"), (name, value), ("value", "x")]);
            if path == "prompts/count" && name == "offset" {
                continue;
            }
            assert_eq!(answer.status, 400, "{path} {name}={value}: {}", answer.body);
            assert!(answer.error().to_ascii_lowercase().contains(&words.to_ascii_lowercase()), "{name}={value}: {}", answer.body);
        }
    }
    for value in ["reward <", "reward > 0; DROP TABLE rewards", "nothing = 1"] {
        assert_eq!(server.get("rows", &[("run", "small"), ("table", "rewards"), ("where", value)]).status, 400, "{value}");
    }
    assert_eq!(server.get("rows", &[("run", "small")]).error(), "expected the parameter table, found none");
    assert!(server.get("prompts", &[("run", "other")]).error().contains("expected a run, one of: small"));
    assert_eq!(workspace.result("small"), before);
}

#[test]
fn one_prompt_has_its_responses_rewards_selection_and_pairs() {
    let workspace = finished();
    let server = Server::start(&workspace, &["small"]);
    for pair in sql(&workspace, "SELECT * FROM pairs ORDER BY iteration, prompt_id") {
        let id = pair["prompt_id"].as_str().unwrap();
        let detail = server.ask("prompt", &[("run", "small"), ("prompts", "prompts"), ("id", id)]);
        let rows = |node: &str| -> Vec<Value> {
            let table = detail["tables"].as_array().unwrap().iter().find(|table| table["node"] == node);
            table.map_or(Vec::new(), |table| table["rows"].as_array().unwrap().clone())
        };
        for table in ["responses", "rewards", "selection", "pool", "pairs"] {
            let expected = sql(&workspace, &format!("SELECT * FROM {table} WHERE prompt_id = '{id}'"));
            let found = rows(table);
            assert_eq!(found.len(), expected.len(), "{table} {id}");
            for (found, expected) in found.iter().zip(&expected) {
                assert!(expected.as_object().unwrap().iter().all(|(name, value)| near(&found[name.as_str()], value)), "{found} {expected}");
            }
        }
        let shown = detail["pairs"].as_array().unwrap().iter().find(|shown| shown["row"]["iteration"] == pair["iteration"]).unwrap();
        for side in ["chosen", "rejected"] {
            let query = format!(
                "SELECT text FROM responses WHERE prompt_id = '{id}' AND sampled_iteration = {} AND response_index = {}",
                pair[format!("{side}_sampled_iteration")],
                pair[format!("{side}_index")]
            );
            let text: String = shown[side].as_array().unwrap().iter().map(|piece| piece["text"].as_str().unwrap()).collect();
            assert_eq!(sql(&workspace, &query)[0]["text"], json!(text));
        }
        assert!(shown["row"]["reward_gap"].as_f64().unwrap() > 0.0 && near(&shown["row"]["weight"], &pair["weight"]));
        for reason in detail["selections"].as_array().unwrap() {
            assert_eq!((&reason["prompts"], &reason["node"]), (&json!(20), &json!("selection")));
            let selected =
                sql(&workspace, &format!("SELECT count(*) AS n FROM selection WHERE selected AND iteration = {}", reason["iteration"]));
            assert_eq!(reason["counts"]["selected"], selected[0]["n"]);
            assert!(reason["settings"]["strategy"] != Value::Null, "{reason}");
        }
    }
    let held_out = server.ask("prompt", &[("run", "small"), ("prompts", "held_out"), ("id", "p-021")]);
    let nodes: Vec<&str> = held_out["tables"].as_array().unwrap().iter().map(|table| table["node"].as_str().unwrap()).collect();
    assert!(nodes.contains(&"evaluation") && nodes.contains(&"evaluation_responses") && !nodes.contains(&"responses"), "{nodes:?}");
    let missing = server.get("prompt", &[("run", "small"), ("id", "p-999")]);
    assert_eq!((missing.status, missing.error()), (404, "expected a prompt of prompts, found \"p-999\"".to_string()));
}

#[test]
fn tokens_have_the_ids_of_the_table_and_the_names_of_the_vocabulary() {
    let workspace = Workspace::finished();
    let server = Server::start(&workspace, &["small"]);
    let found = server
        .ask("tokens", &[("run", "small"), ("node", "responses"), ("id", "p-003"), ("sampled_iteration", "1"), ("response_index", "1")]);
    let row = &sql(
        &workspace,
        "SELECT token_ids, prompt_token_count, logprob, token_logprobs FROM responses WHERE prompt_id = 'p-003' AND response_index = 1",
    )[0];
    let ids: Vec<&Value> = found["tokens"].as_array().unwrap().iter().map(|token| &token[0]).collect();
    assert_eq!(ids, row["token_ids"].as_array().unwrap().iter().collect::<Vec<_>>());
    assert_eq!((&found["prompt_token_count"], &found["logprob"]), (&row["prompt_token_count"], &row["logprob"]));
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|one| one.as_f64().unwrap() as f32).collect::<Vec<f32>>();
    assert_eq!(numbers(&found["logprobs"]), numbers(&row["token_logprobs"]));
    let vocabulary: Value = serde_json::from_str(&std::fs::read_to_string(workspace.path("shape/tokenizer.json")).unwrap()).unwrap();
    let added = vocabulary["added_tokens"].as_array().unwrap();
    for token in found["tokens"].as_array().unwrap() {
        let word = token[1].as_str().unwrap();
        assert!(
            vocabulary["model"]["vocab"][word] == token[0] || added.iter().any(|added| added["content"] == word && added["id"] == token[0])
        );
    }
}

#[test]
fn tables_are_listed_and_their_rows_are_those_of_sql() {
    let workspace = finished();
    let server = Server::start(&workspace, &["small"]);
    let tables = server.ask("tables", &[("run", "small")]);
    let names: Vec<&str> = tables.as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    for name in ["responses", "rewards", "evaluation", "policy_training", "journal", "outputs", "annotations", "largest_gaps", "prompts"] {
        assert!(names.contains(&name), "{name} {names:?}");
    }
    let responses = tables.as_array().unwrap().iter().find(|table| table["name"] == "responses").unwrap();
    assert_eq!((&responses["prompts"], &responses["kind"], &responses["rows"]), (&json!("prompts"), &json!("responses"), &json!(90)));
    let page = server.ask("rows", &[("run", "small"), ("table", "responses")]);
    assert_eq!((page["rows"].as_array().unwrap().len(), &page["more"]), (50, &json!(true)));
    let second = server.ask("rows", &[("run", "small"), ("table", "responses"), ("offset", "50")]);
    assert_eq!((second["rows"].as_array().unwrap().len(), &second["more"]), (40, &json!(false)));
    for (parameters, filter) in [
        (vec![("iteration", "2")], "iteration = 2"),
        (vec![("text", "P-003")], "prompt_id = 'p-003'"),
        (vec![("column", "finish_reason"), ("value", "stop")], "finish_reason = 'stop'"),
        (vec![("where", "response_index = 0 AND logprob > -5")], "response_index = 0 AND logprob > -5"),
    ] {
        let parameters = [parameters, vec![("run", "small"), ("table", "responses")]].concat();
        let expected = workspace.query("small", &format!("SELECT count(*) FROM responses WHERE {filter}"));
        assert_eq!(server.ask("rows/count", &parameters)["count"].to_string(), expected, "{filter}");
    }
    // Sorted by a value that many rows share, every row is on one page.
    let sorted = |offset: &str| {
        let page = server.ask("rows", &[("run", "small"), ("table", "responses"), ("sort", "finish_reason"), ("offset", offset)]);
        page["rows"].as_array().unwrap().clone()
    };
    let rows: Vec<Value> = [sorted("0"), sorted("50")].concat();
    let key = |row: &Value| ["iteration", "prompt_id", "response_index"].map(|column| row[column].to_string());
    let different: std::collections::BTreeSet<[String; 3]> = rows.iter().map(key).collect();
    assert_eq!((rows.len(), different.len()), (90, 90));
    let one = server.ask("rows", &[("run", "small"), ("table", "responses"), ("one", "yes"), ("offset", "7")]);
    assert_eq!(one["rows"][0], sql_with_nulls(&workspace, "SELECT * FROM responses LIMIT 1 OFFSET 7"));
    let sections = server.ask("report", &[("run", "small")]);
    let titles: Vec<&str> = sections.as_array().unwrap().iter().map(|section| section["id"].as_str().unwrap()).collect();
    for id in ["overview", "evaluation", "rewards", "pairs", "training", "cost", "graph"] {
        assert!(titles.contains(&id), "{titles:?}");
    }
}

/// A query's single row, with its nulls.
fn sql_with_nulls(workspace: &Workspace, query: &str) -> Value {
    let mut row = sql(workspace, query).remove(0);
    let columns = workspace.succeed(&["sql", "small", query, "--format", "csv"]);
    for column in columns.lines().next().unwrap().split(',') {
        row.as_object_mut().unwrap().entry(column).or_insert(Value::Null);
    }
    row
}

#[test]
fn hostile_texts_stay_texts() {
    let workspace = Workspace::new();
    let hostile = ["<img src=x onerror=alert(1)>", "</script><b>\u{202e}x", "\"'`${1}\\\u{1b}[31m\u{0}"];
    let row = |index: usize| {
        let prompt = format!("{index:02}{}", hostile[index % 3]);
        json!({ "prompt_id": format!("<i>'{index:02}\"&#"), "prompt": prompt, "reference_answer": "ABC", "group": "<u>\n' OR 1=1 --" })
            .to_string()
            + "\n"
    };
    workspace.write("prompts.jsonl", &(0..20).map(row).collect::<String>());
    workspace.succeed(&["run", "pipeline.yaml"]);
    let server = Server::start(&workspace, &["small"]);
    let page = server.ask("prompts", &[("run", "small"), ("sort", "prompt_id")]);
    for (index, row) in page["rows"].as_array().unwrap().iter().enumerate() {
        let id = format!("<i>'{index:02}\"&#");
        assert_eq!((&row["prompt_id"], &row["text"]), (&json!(id), &json!(format!("{index:02}{}", hostile[index % 3]))));
        let detail = server.ask("prompt", &[("run", "small"), ("prompts", "prompts"), ("id", &id)]);
        assert_eq!(detail["row"]["prompt"], row["text"]);
    }
    let parameters = [("run", "small"), ("column", "group"), ("value", "<u>\n' OR 1=1 --")];
    assert_eq!(server.ask("prompts/count", &parameters)["count"], 20);
    let found = server.ask("prompts", &[("run", "small"), ("text", "onerror=alert(1)>")]);
    assert_eq!(found["rows"].as_array().unwrap().len(), 7);
}

#[test]
fn prompts_of_messages_are_searched_and_shown() {
    let workspace = Workspace::new();
    let row = |index: usize| {
        let messages = json!([{ "role": "system", "content": "be brief" }, { "role": "user", "content": format!("upper w{index:02}") }]);
        json!({ "messages": messages, "reference_answer": "ABC" }).to_string() + "\n"
    };
    workspace.write("prompts.jsonl", &(0..20).map(row).collect::<String>());
    workspace.write("shape/chat_template.jinja", "{% for message in messages %}{{ message.content }} {% endfor %}");
    workspace.succeed(&["run", "pipeline.yaml"]);
    let server = Server::start(&workspace, &["small"]);
    let found = server.ask("prompts", &[("run", "small"), ("text", "upper W07")]);
    let rows = found["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["text"]), (1, &json!("system: be brief\nuser: upper w07")));
    // The id is the hash of the content.
    let id = rows[0]["prompt_id"].as_str().unwrap();
    let detail = server.ask("prompt", &[("run", "small"), ("id", id)]);
    assert_eq!(detail["row"]["messages"][1]["content"], "upper w07");
}

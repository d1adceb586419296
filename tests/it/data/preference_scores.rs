//! The scores of preferences: every spelling and shape, and scores that contradict the responses.

use std::fs;

use optune::import::Preferences;
use serde_json::{Value, json};

use crate::fixtures::import::{Use, folder, imported, says, write};

/// The gaps of a table of preferences with these rows.
fn gaps(rows: &[Value], settings: &str) -> Result<Vec<Option<f64>>, String> {
    let folder = folder();
    write(folder.path(), "x", "jsonl", rows).unwrap();
    let found = imported(folder.path(), &format!("table: x.jsonl{settings}"), Use::Preferences)?;
    let preferences = Preferences::from_batches("data", found.batches).map_err(|error| error.to_string())?;
    Ok(preferences.iter().map(|row| row.reward_gap).collect())
}

/// The columns of both scores, in every spelling, as part of a row with texts.
fn spellings(chosen: f64, rejected: f64) -> Vec<Value> {
    vec![
        json!({"chosen_score": chosen, "rejected_score": rejected}),
        json!({"score_chosen": chosen, "score_rejected": rejected}),
        json!({"chosen_rating": chosen, "rejected_rating": rejected}),
        json!({"chosen-rating": chosen, "rejected-rating": rejected}),
        json!({"rating_chosen": chosen, "rating_rejected": rejected}),
        json!({"chosen_reward": chosen, "rejected_reward": rejected}),
        json!({"rewards_chosen": chosen, "rewards_rejected": rejected}),
        json!({"scoreChosen": chosen, "scoreRejected": rejected}),
        json!({"chosen_avg_rating": chosen, "rejected_avg_rating": rejected}),
        json!({"score_chosen": chosen, "score_reject": rejected}),
        json!({"scores": {"chosen": chosen, "rejected": rejected}}),
        json!({"metadata": {"source": "s", "chosen_score": chosen, "rejected_score": rejected}}),
        json!({"a": {"score": {"chosen": chosen, "rejected": rejected}}}),
        json!({"score_chosen": chosen.to_string(), "score_rejected": rejected.to_string()}),
        json!({"chosen_score": chosen, "rejected_score": rejected, "score_chosen": 0, "score_rejected": 9}),
        json!({"chosen_score": chosen, "rejected_score": rejected, "chosen_length_score": 1, "rejected_length_score": 2}),
    ]
}

fn with(mut row: Value, more: &Value) -> Value {
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    row
}

#[test]
fn scores_are_read_in_every_spelling_and_shape() {
    let texts = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
    let turns = |answer: &str| json!([says("user", "q"), says("assistant", answer)]);
    let messages = json!({"prompt": "q", "chosen": turns("a"), "rejected": turns("b")});
    let conversation = json!({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}});
    let alpaca = json!({"instruction": "i", "chosen": "a", "rejected": "b"});
    for scores in spellings(8.5, 6.0) {
        for (row, settings) in [(&texts, ""), (&messages, ", dataset_format: trl"), (&conversation, ""), (&alpaca, "")] {
            let row = with(row.clone(), &scores);
            assert_eq!(gaps(std::slice::from_ref(&row), settings), Ok(vec![Some(2.5)]), "{row}");
        }
    }
    for name in ["reward_gap", "margin", "score_margin"] {
        assert_eq!(gaps(&[with(texts.clone(), &json!({name: 0.75}))], ""), Ok(vec![Some(0.75)]), "{name}");
    }
    // The response itself has the score.
    let scored = |answer: &str, score: f64| json!([says("user", "q"), {"role": "assistant", "content": answer, "score": score}]);
    let row = json!({"chosen": scored("a", 3.0), "rejected": scored("b", 1.0)});
    assert_eq!(gaps(&[row], ""), Ok(vec![Some(2.0)]));
    // Equal scores are a gap of 0; rows without any have none.
    let unscored = json!({"prompt_id": "z", "prompt": "r", "chosen": "a", "rejected": "b", "chosen_rating": null, "rejected_rating": null});
    let tie = with(json!({"prompt_id": "a", "chosen_rating": 3, "rejected_rating": 3}), &texts);
    assert_eq!(gaps(&[unscored, tie], ""), Ok(vec![Some(0.0), None]));
}

#[test]
fn scores_that_contradict_the_responses_are_refused() {
    let good = json!({"prompt": "p", "chosen": "a", "rejected": "b"});
    let bad = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
    for (good_scores, bad_scores) in spellings(8.5, 6.0).iter().zip(spellings(2.0, 9.0)) {
        let rows = [with(good.clone(), good_scores), with(bad.clone(), &bad_scores)];
        let error = gaps(&rows, "").err().unwrap();
        let expected = "x.jsonl:2: table data, row 1: expected the chosen response to score at least as high as the rejected one, found ";
        assert!(error.starts_with(expected) && error.contains(" 2 and ") && error.ends_with(" 9; swap the two responses"), "{error}");
        assert_eq!(gaps(&rows, ", malformed: skip"), Ok(vec![Some(2.5)]), "{bad_scores}");
    }
    let table = "x.jsonl:1: table data, row 0: ";
    for (more, expected) in [
        (json!({"margin": -0.5}), format!("{table}margin: expected 0 or more, as chosen is the better response, found -0.5; swap the two responses")),
        (json!({"score_chosen": 1, "score_rejected": null}), format!("{table}expected scores of both responses, found score_chosen without score_rejected")),
        (
            json!({"score_chosen": "good", "score_rejected": "bad"}),
            format!("{table}score_chosen: expected a number, found \"good\"; if it is no score, rename it with `map:`"),
        ),
        (
            json!({"chosen_score": true, "rejected_score": false}),
            "table data: chosen_score: expected a number, found Boolean; if it is no score, leave it out with `columns: { chosen_score: skip }`".to_string(),
        ),
        (
            json!({"chosen_score": [1], "rejected_score": [2]}),
            "table data: chosen_score: expected a number, found List(Int64); if it is no score, leave it out with `columns: { chosen_score: skip }`"
                .to_string(),
        ),
        (
            json!({"score_chosen": 1, "score_rejected": 0, "rating_chosen": 1, "rating_rejected": 2}),
            "table data: expected one score for each response, found rating_chosen and rating_rejected, or score_chosen and score_rejected; \
             say which with `map: { chosen_score: …, rejected_score: … }`"
                .to_string(),
        ),
    ] {
        assert_eq!(gaps(&[with(good.clone(), &more)], ""), Err(expected));
    }
    let two = with(good.clone(), &json!({"score_chosen": 1, "score_rejected": 0, "rating_chosen": 1, "rating_rejected": 2}));
    assert_eq!(gaps(&[two], ", map: { chosen_score: score_chosen, rejected_score: score_rejected }"), Ok(vec![Some(1.0)]));
}

#[test]
fn what_is_left_out_or_not_used_is_told() {
    let folder = folder();
    let row =
        |chosen: Value, score: f64| json!({"prompt": "q", "chosen": chosen, "rejected": "b", "chosen_score": score, "rejected_score": 1.0});
    let rows = [row(json!("a"), 0.0), row(Value::Null, 2.0), row(json!("a"), 2.0), row(json!("a"), 0.5)];
    write(folder.path(), "x", "jsonl", &rows).unwrap();
    let found = imported(folder.path(), "table: x.jsonl, malformed: skip", Use::Preferences).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((found.rows(), found.left_out.count()), (1, 3));
    let note = &found.notes[0];
    assert!(
        note.starts_with(
            "3 of 4 rows are left out: 2 × expected the chosen response to score at least as high as the rejected one (first: "
        ),
        "{note}"
    );
    assert!(note.contains("x.jsonl:1: table data, row 0); 1 × chosen: expected a response (first: ") && note.contains("row 1)"), "{note}");
    write(folder.path(), "x", "jsonl", &rows[..2]).unwrap();
    let error = imported(folder.path(), "table: x.jsonl, malformed: skip", Use::Preferences).err().unwrap();
    assert!(error.starts_with("table data: expected at least one preference, found none; 2 of 2 rows are left out: "), "{error}");
    fs::write(folder.path().join("x.jsonl"), "{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\", \"chosen_score\": 1}\n").unwrap();
    let found = imported(folder.path(), "table: x.jsonl", Use::Preferences).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.notes, ["chosen_score is the score of one response, none of the other one is there; it is not used"]);
    write(folder.path(), "x", "jsonl", &[json!({"prompt": "q", "chosen": "a", "rejected": "b", "rating": [8.0, 6.0]})]).unwrap();
    let found = imported(folder.path(), "table: x.jsonl", Use::Preferences).unwrap_or_else(|error| panic!("{error}"));
    assert!(found.notes[0].starts_with("rating is a list and does not say which score is whose; it is not used; "), "{:?}", found.notes);
    write(folder.path(), "x", "jsonl", &[json!({"prompt": "q", "system": "s", "chosen": "a", "rejected": "b"})]).unwrap();
    let found = imported(folder.path(), "table: x.jsonl", Use::Preferences).unwrap_or_else(|error| panic!("{error}"));
    assert!(found.notes[0].starts_with("the column system is not read in the format rows"), "{:?}", found.notes);
}

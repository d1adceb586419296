//! The tables: rows survive the way to Arrow and back. A row that breaks a rule is named with its
//! table and number.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use optune::tables::{
    FinishReason, Outcome, TableKind, annotations, column, evaluation, judge_answers, judgments, logprobs, pairs, pool, prompts, ranking,
    responses, rewards, selection, training,
};

use crate::fixtures::rows::{
    Draw, annotation_rows, evaluation_rows, judge_answer_rows, judgment_rows, logprob_rows, pair_rows, pool_rows, prompt_rows,
    random_batches, ranking_rows, response_rows, reward_rows, selection_rows, training_rows,
};

#[test]
fn rows_survive_the_way_to_arrow_and_back() {
    for seed in 0..20 {
        let draw = &mut Draw(seed);
        let count = draw.below(60) as usize;
        let rows = prompt_rows(draw, count);
        assert_eq!(prompts::rows(&prompts::batch(&rows)).unwrap(), rows);
        let rows = selection_rows(draw, count);
        assert_eq!(selection::rows(&selection::batch(&rows)).unwrap(), rows);
        let rows = response_rows(draw, count);
        let batch = responses::batch(&rows);
        assert_eq!(responses::rows(&batch).unwrap(), rows);
        let lists = responses::token_ids(&batch).unwrap();
        assert_eq!(lists.values().len(), rows.iter().map(|row| row.token_ids.len()).sum::<usize>());
        let rows = reward_rows(draw, count);
        assert_eq!(rewards::rows(&rewards::batch(&rows)).unwrap(), rows);
        let rows = pool_rows(draw, count);
        assert_eq!(pool::rows(&pool::batch(&rows)).unwrap(), rows);
        let rows = pair_rows(draw, count);
        assert_eq!(pairs::rows(&pairs::batch(&rows)).unwrap(), rows);
        let rows = training_rows(draw, count);
        assert_eq!(training::rows(&training::batch(&rows)).unwrap(), rows);
        let rows = evaluation_rows(draw, count);
        assert_eq!(evaluation::rows(&evaluation::batch(&rows)).unwrap(), rows);
        let rows = ranking_rows(draw, count);
        assert_eq!(ranking::rows(&ranking::batch(&rows)).unwrap(), rows);
        let rows = logprob_rows(draw, count);
        assert_eq!(logprobs::rows(&logprobs::batch(&rows)).unwrap(), rows);
        let rows = judgment_rows(draw, count);
        assert_eq!(judgments::rows(&judgments::batch(&rows)).unwrap(), rows);
        let rows = judge_answer_rows(draw, count);
        assert_eq!(judge_answers::rows(&judge_answers::batch(&rows)).unwrap(), rows);
        let rows = annotation_rows(draw, count);
        assert_eq!(annotations::rows(&annotations::batch(&rows)).unwrap(), rows);
    }
}

#[test]
fn random_rows_pass_their_checks_and_slices_do_too() {
    for seed in 0..20 {
        for (kind, batch) in random_batches(seed, 50) {
            kind.check(&batch).unwrap();
            kind.check(&batch.slice(7, 30)).unwrap();
            kind.check(&RecordBatch::new_empty(kind.schema())).unwrap();
            assert_eq!(kind.conform(&batch).unwrap(), batch);
        }
    }
}

#[test]
fn every_table_has_a_name_a_key_and_a_version() {
    for kind in TableKind::ALL {
        assert_eq!(kind.name().parse::<TableKind>().unwrap(), kind);
        assert_eq!(kind.schema().metadata()["table"], kind.name());
        let version = match kind {
            TableKind::Responses => "3",
            TableKind::Selection => "2",
            _ => "1",
        };
        assert_eq!(kind.schema().metadata()["schema_version"], version);
        assert!(kind.key().iter().all(|column| kind.schema().field_with_name(column).is_ok()));
        assert!(kind.schema().field_with_name("iteration").is_err());
    }
    let error = "reward".parse::<TableKind>().unwrap_err().to_string();
    assert!(error.contains("found \"reward\"") && error.contains("rewards"), "{error}");
}

/// Breaks row 1 of three good rows and expects a message with the table, the row and `words`.
macro_rules! broken {
    ($table:ident, $rows:ident, $($words:literal => |$row:ident| $break:expr;)+) => {
        $({
            let mut rows = $rows(&mut Draw(3), 3);
            { let $row = &mut rows[1]; $break; }
            let error = TableKind::check($table::batch(&rows).schema().metadata()["table"].parse().unwrap(), &$table::batch(&rows)).unwrap_err().to_string();
            assert!(error.starts_with(concat!("table ", stringify!($table), ", row 1: ")), "{error}");
            assert!(error.contains($words), "expected {:?} in: {error}", $words);
        })+
    };
}

#[test]
fn a_row_that_breaks_a_rule_is_named() {
    broken!(prompts, prompt_rows,
        "prompt_id: expected a text, found an empty one" => |row| row.prompt_id.clear();
        "expected prompt or messages, found neither" => |row| (row.prompt, row.messages) = (None, None);
        "found both" => |row| (row.prompt, row.messages) = (Some("a".into()), Some(Vec::new()));
        "messages: expected at least one" => |row| (row.prompt, row.messages) = (None, Some(Vec::new()));
    );
    broken!(selection, selection_rows,
        "rank: expected 1 or more, found 0" => |row| row.rank = 0;
        "score: expected a finite number, found NaN" => |row| row.score = Some(f64::NAN);
        "prompt_id" => |row| row.prompt_id.clear();
    );
    broken!(responses, response_rows,
        "sampled_iteration: expected 0 or more, found -1" => |row| row.sampled_iteration = -1;
        "response_index: expected 0 or more" => |row| row.response_index = -1;
        "prompt_token_count: expected 0 or more" => |row| row.prompt_token_count = -2;
        "prompt_token_count: expected at most the 2 of token_ids, found 3" => |row| { row.token_ids = vec![1, 2]; row.prompt_token_count = 3 };
        "token_ids: expected 0 or more, found -5" => |row| row.token_ids.push(-5);
        "logprob: expected a finite number, found inf" => |row| row.logprob = Some(f64::INFINITY);
        "because finish_reason is error, found null" => |row| (row.finish_reason, row.error) = (FinishReason::Error, None);
        "because finish_reason is stop, found \"why\"" => |row| (row.finish_reason, row.error) = (FinishReason::Stop, Some("why".into()));
    );
    broken!(annotations, annotation_rows,
        "node: expected a text, found an empty one" => |row| row.node.clear();
        "expected a prompt_id or an item, found neither" => |row| (row.prompt_id, row.item) = (None, None);
        "expected a flag or a note, found neither" => |row| (row.flagged, row.note) = (false, None);
        "note: expected a text, found an empty one" => |row| row.note = Some(String::new());
        "response_index: expected 0 or more, found -1" => |row| row.response_index = Some(-1);
    );
    broken!(rewards, reward_rows,
        "reward: expected a finite number" => |row| (row.reward, row.error) = (Some(f64::NAN), None);
        "found neither" => |row| (row.reward, row.error) = (None, None);
        "found both" => |row| (row.reward, row.error) = (Some(1.0), Some("no".into()));
        "components[length]: expected a finite number" => |row| row.components = Some([("length".to_string(), f64::NEG_INFINITY)].into());
    );
    broken!(pool, pool_rows,
        "reward: expected a finite number" => |row| row.reward = f64::NAN;
        "token_count: expected 0 or more" => |row| row.token_count = -1;
        "sampled_iteration" => |row| row.sampled_iteration = -1;
        "response_index" => |row| row.response_index = -1;
    );
    broken!(pairs, pair_rows,
        "reward_gap: expected more than 0, found 0" => |row| row.reward_gap = 0.0;
        "reward_gap: expected a finite number" => |row| row.reward_gap = f64::NAN;
        "weight: expected 0 or more, found -1" => |row| row.weight = -1.0;
        "weight: expected a finite number" => |row| row.weight = f64::INFINITY;
        "expected two responses, found response 2 of iteration 1 twice" => |row| {
            (row.chosen_sampled_iteration, row.chosen_index, row.rejected_sampled_iteration, row.rejected_index) = (1, 2, 1, 2)
        };
        "of both responses or of neither" => |row| (row.reference_logprob_chosen, row.reference_logprob_rejected) = (Some(-1.0), None);
        "reference_logprob_chosen: expected a finite" => |row| row.reference_logprob_chosen = Some(f64::NAN);
    );
    broken!(training, training_rows,
        "step: expected 0 or more" => |row| row.step = -1;
        "loss: expected a finite number" => |row| row.loss = f64::NAN;
        "accuracy: expected a share between 0 and 1, found 1.5" => |row| row.accuracy = Some(1.5);
        "accuracy: expected a share between 0 and 1, found NaN" => |row| row.accuracy = Some(f64::NAN);
        "gradient_norm: expected a finite number" => |row| row.gradient_norm = f64::INFINITY;
        "learning_rate: expected 0 or more" => |row| row.learning_rate = -1.0;
        "kl: expected a finite" => |row| row.kl = Some(f64::NAN);
        "tokens: expected 0 or more" => |row| row.tokens = -1;
    );
    broken!(ranking, ranking_rows,
        "correct: expected" => |row| row.correct = !row.correct;
        "reward_chosen: expected a finite number" => |row| row.reward_chosen = f64::NAN;
        "reward_gap: expected a finite" => |row| row.reward_gap = Some(f64::INFINITY);
    );
    broken!(evaluation, evaluation_rows,
        "baseline_reward: expected a finite number" => |row| row.baseline_reward = f64::NAN;
        "truncated: expected a share between 0 and 1, found 2" => |row| row.truncated = 2.0;
        "nll_initial: expected a finite number" => |row| row.nll_initial = f64::NAN;
        "token_count: expected 0 or more" => |row| row.token_count = -0.5;
    );
    broken!(judgments, judgment_rows,
        "order: expected policy_first or baseline_first, found \"first\"" => |row| row.order = "first".to_string();
        "expected a verdict or an error, found neither" => |row| (row.verdict, row.error) = (None, None);
        "expected a verdict or an error, found both" => |row| (row.verdict, row.error) = (Some(Outcome::Win), Some("no".into()));
        "prompt_tokens: expected 0 or more, found -1" => |row| row.prompt_tokens = Some(-1);
        "response_index: expected 0 or more" => |row| row.response_index = -1;
    );
    broken!(judge_answers, judge_answer_rows,
        "prompt_tokens: expected 0 or more" => |row| row.prompt_tokens = -1;
        "completion_tokens: expected 0 or more" => |row| row.completion_tokens = -1;
        "first_token[7]: expected a finite number" => |row| row.first_token = Some([("7".to_string(), f64::NEG_INFINITY)].into());
    );
    broken!(logprobs, logprob_rows,
        "logprob: expected a finite number, found NaN" => |row| row.logprob = f64::NAN;
    );
}

#[test]
fn rows_far_down_are_numbered_from_the_start_of_the_batch() {
    let mut rows = selection_rows(&mut Draw(1), 20_000);
    rows[17_001].rank = -3;
    let error = TableKind::Selection.check(&selection::batch(&rows)).unwrap_err().to_string();
    let key = format!("prompt_id = {}", rows[17_001].prompt_id);
    assert_eq!(error, format!("table selection, row 17001: rank: expected 1 or more, found -3 ({key})"));
}

#[test]
fn a_key_that_is_there_twice_is_named_within_and_across_batches() {
    let mut rows = response_rows(&mut Draw(1), 5);
    (rows[4].prompt_id, rows[1].prompt_id) = ("p".into(), "p".into());
    (rows[4].sampled_iteration, rows[4].response_index) = (rows[1].sampled_iteration, rows[1].response_index);
    let batch = responses::batch(&rows);
    let error = TableKind::Responses.check(&batch).unwrap_err().to_string();
    assert!(error.starts_with("table responses, row 4: the key (prompt_id = p, sampled_iteration = "), "{error}");
    assert!(error.ends_with("is the same as in row 1"), "{error}");
    let error = TableKind::Responses.check_keys([&batch.slice(0, 3), &batch.slice(3, 2)]).unwrap_err().to_string();
    assert!(error.contains("row 4"), "{error}");
}

#[test]
fn a_word_that_is_unknown_is_named_with_its_row() {
    let rows = pool_rows(&mut Draw(1), 3);
    let batch = with_column(&pool::batch(&rows), "finish_reason", Arc::new(StringArray::from(vec!["stop", "length", "eos"])));
    let error = TableKind::Pool.check(&batch).unwrap_err().to_string();
    assert_eq!(
        error,
        "table pool, row 2: finish_reason: expected one of stop, length, error, found \"eos\" (prompt_id = 2, response_index = 3, sampled_iteration = 1)"
    );
}

#[test]
fn another_schema_is_refused_with_the_column() {
    let batch = pool::batch(&pool_rows(&mut Draw(1), 3));
    let says = |batch: &RecordBatch, words: &str| {
        let error = TableKind::Pool.check(batch).unwrap_err().to_string();
        assert!(error.contains(words), "expected {words:?} in: {error}");
    };
    says(
        &batch.project(&[0, 1, 2]).unwrap(),
        "expected a column reward in place 4, found only prompt_id, response_index, sampled_iteration",
    );
    says(&batch.project(&[0, 1, 3, 2, 4, 5]).unwrap(), "expected a column sampled_iteration in place 3");
    says(
        &with_column(&batch, "sampled_iteration", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        "column sampled_iteration should be Int32, found Int64",
    );
    let nullable: Vec<_> = batch.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    says(
        &RecordBatch::try_new(Arc::new(Schema::new(nullable)), batch.columns().to_vec()).unwrap(),
        "column prompt_id should be Utf8, found Utf8 or null",
    );
    let mut columns: Vec<(String, ArrayRef, bool)> = named_columns(&batch);
    columns.push(("seconds".into(), Arc::new(Float64Array::from(vec![1.0; 3])), false));
    says(&RecordBatch::try_from_iter_with_nullable(columns).unwrap(), "unexpected column seconds");
    let old = Schema::new_with_metadata(batch.schema().fields().clone(), [("schema_version".to_string(), "0".to_string())].into());
    says(&RecordBatch::try_new(Arc::new(old), batch.columns().to_vec()).unwrap(), "expected schema version 1, found 0");
    assert!(column::<StringArray>(&batch, "reward").unwrap_err().to_string().contains("column reward should be"));
    assert!(column::<StringArray>(&batch, "text").unwrap_err().to_string().contains("expected a column text"));
    assert_eq!(column::<Float64Array>(&batch, "reward").unwrap().len(), 3);
}

#[test]
fn a_querys_batch_conforms_when_nothing_is_lost() {
    let query = RecordBatch::try_from_iter_with_nullable([
        ("rank", Arc::new(UInt64Array::from(vec![1, 2])) as ArrayRef, true),
        ("selected", Arc::new(arrow::array::BooleanArray::from(vec![true, false])) as ArrayRef, true),
        ("prompt_id", Arc::new(StringViewArray::from(vec!["a", "b"])) as ArrayRef, true),
        ("score", Arc::new(Float32Array::from(vec![Some(0.5), None])) as ArrayRef, true),
        ("expected_gain", Arc::new(Float32Array::from(vec![None, Some(0.25)])) as ArrayRef, true),
        ("expected_tokens", Arc::new(Float64Array::from(vec![None, Some(9.0)])) as ArrayRef, true),
        ("belief_mean", Arc::new(Float64Array::from(vec![None, Some(0.5)])) as ArrayRef, true),
        ("belief_variance", Arc::new(Float64Array::from(vec![None, None])) as ArrayRef, true),
        ("more", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef, true),
    ])
    .unwrap();
    let rows = selection::rows(&TableKind::Selection.conform(&query).unwrap()).unwrap();
    let row = |prompt_id: &str, score, rank, selected, (expected_gain, expected_tokens)| selection::Row {
        prompt_id: prompt_id.into(),
        score,
        rank,
        selected,
        expected_gain,
        expected_tokens,
        belief_mean: expected_gain.map(|_| 0.5),
        belief_variance: None,
    };
    assert_eq!(rows, [row("a", Some(0.5), 1, true, (None, None)), row("b", None, 2, false, (Some(0.25), Some(9.0)))]);

    let says = |batch: RecordBatch, words: &str| {
        let error = TableKind::Selection.conform(&batch).unwrap_err().to_string();
        assert!(error.contains(words), "expected {words:?} in: {error}");
    };
    says(with_column(&query, "rank", Arc::new(UInt64Array::from(vec![Some(1), None]))), "row 1: rank: expected a value, found null");
    says(with_column(&query, "rank", Arc::new(Float64Array::from(vec![1.0, 2.0]))), "column rank should be Int64, found Float64");
    says(with_column(&query, "rank", Arc::new(UInt64Array::from(vec![1, u64::MAX]))), "column rank");
    says(query.project(&[0, 1, 3]).unwrap(), "table selection: expected a column prompt_id");
}

fn named_columns(batch: &RecordBatch) -> Vec<(String, ArrayRef, bool)> {
    batch
        .schema()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| (field.name().clone(), column.clone(), field.is_nullable()))
        .collect()
}

/// The batch with one column's values replaced.
fn with_column(batch: &RecordBatch, name: &str, values: ArrayRef) -> RecordBatch {
    let schema = batch.schema();
    let index = schema.index_of(name).unwrap();
    let field = |(other, field): (usize, &Arc<Field>)| {
        let data_type: DataType = if other == index { values.data_type().clone() } else { field.data_type().clone() };
        field.as_ref().clone().with_data_type(data_type)
    };
    let fields: Vec<_> = schema.fields().iter().enumerate().map(field).collect();
    let mut columns = batch.columns().to_vec();
    columns[index] = values;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

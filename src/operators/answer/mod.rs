//! answer: a model's answers to the items of a benchmark, part by part: the logprobs of choices, or
//! generated texts.
//!
//! Texts, tokens and truncation follow lm-evaluation-harness 0.4.13 (`HFLM`), so that results are
//! comparable. Knows neither metrics nor a baseline.

mod choices;
mod context;
mod generated;

use std::collections::BTreeMap;

use burn::tensor::Device;

use super::support::advance::Advance;
use super::support::benchmark_items::{Item, items};
use super::support::replicas::{self, Part, Replica};
use super::support::rows::rows_of;
use super::{Context, OperatorError, Summary};
use crate::model::Checkpoint;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::benchmark::answer::{Answer, Question};
use crate::tables::{FinishReason, TableKind, answers};

/// Items in one part, unless the node's resources set another number.
const ITEMS_PER_PART: usize = 64;

/// This module in internal errors.
const PLACE: &str = "operators::answer";

/// One task with its items.
struct AskedTask<'a> {
    name: &'a str,
    question: &'a Question,
    items: Vec<Item>,
    /// The items of the table of examples; `None` where they are the task's own.
    examples: Option<Vec<Item>>,
}

/// An item to answer.
#[derive(Clone, Copy)]
struct Asked<'a> {
    task: &'a AskedTask<'a>,
    item: &'a Item,
}

/// Answers all items of all tasks.
pub(super) fn run(context: &Context, settings: &Answer) -> Result<Summary, OperatorError> {
    let tasks = tasks(context, settings)?;
    let all: Vec<Asked> = tasks.iter().flat_map(|task| task.items.iter().map(move |item| Asked { task, item })).collect();
    let mut writer = context.writer(Some(TableKind::Answers), all.len(), ITEMS_PER_PART)?;
    let label = context.task.label();
    let missing = replicas::missing(&writer);
    let done = all.len() - missing.iter().map(|part| part.rows.len()).sum::<usize>();
    let advance = Advance::start(context, "items", done, all.len());
    if !missing.is_empty() {
        let checkpoint = context.checkpoint(Slot::Policy)?;
        let replicas = replicas::all(context)?;
        let load = |replica: &Replica| {
            let device = replica.device.clone();
            Ok(Model { context, checkpoint: &checkpoint, device, replicas: replicas.len(), advance: &advance, loaded: Loaded::Nothing })
        };
        let compute =
            |model: &mut Model, part: &Part| model.answer(rows_of(&all, part.rows.clone(), PLACE)?).map_err(|error| error.of(&part.name));
        replicas::each_part(context, &replicas, missing, load, compute, |part, answered| {
            writer.commit(part.number, &answers::batch(&answered.rows))?;
            advance.finish(part.rows.len(), answered.tokens, answered.observed);
            Ok(())
        })?;
    }
    let tokens = advance.tokens();
    // Totals are over all committed parts, so an interrupted node has the same ones.
    let (mut cut, mut truncated) = (0, 0);
    for batch in writer.committed()? {
        for row in answers::rows(&batch)? {
            cut += i64::from(row.cut_tokens > 0);
            truncated += i64::from(row.finish_reason == Some(FinishReason::Length));
        }
    }
    if cut > 0 {
        let problem = format!("{cut} of {} questions are cut at their start to fit into the model", all.len());
        context.progress.warned(&label, &problem);
    }
    let counts = [("items", all.len() as i64), ("cut", cut), ("truncated", truncated)];
    writer.finish(BTreeMap::from(counts.map(|(name, count)| (name.to_string(), count))))?;
    let mut text = format!("{} items of {} tasks answered", all.len(), tasks.len());
    for (count, what) in [(cut, "questions cut to fit"), (truncated, "answers cut by the length limit")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    Ok(Summary { text, tokens })
}

/// The tasks with the rows of their tables.
fn tasks<'a>(context: &Context, settings: &'a Answer) -> Result<Vec<AskedTask<'a>>, OperatorError> {
    let missing = || OperatorError::internal(PLACE, format!("{}: a task without a table", context.task.label()));
    let mut tables = context.task.inputs(Slot::Items);
    let mut examples = context.task.inputs(Slot::Examples);
    let mut tasks = Vec::with_capacity(settings.questions.len());
    for (name, question) in &settings.questions {
        let of_task = |error: OperatorError| error.of(&format!("task {name}"));
        let table = tables.next().ok_or_else(missing)?;
        let examples = match &question.few_shot {
            Some(few_shot) if few_shot.has_table => {
                let table = examples.next().ok_or_else(missing)?;
                Some(items(question, &table.name, &context.batches_of(table.input)?).map_err(of_task)?)
            }
            _ => None,
        };
        let items = items(question, &table.name, &context.batches_of(table.input)?).map_err(of_task)?;
        tasks.push(AskedTask { name, question, items, examples });
    }
    Ok(tasks)
}

/// Rows of a part, and the tokens computed for them.
struct Answered {
    rows: Vec<answers::Row>,
    tokens: u64,
    /// Of these tokens, those told to the observer already.
    observed: usize,
}

/// The model in the form that is needed just now.
struct Model<'a> {
    context: &'a Context<'a>,
    checkpoint: &'a Checkpoint,
    device: Device,
    /// The number of models with a share of the memory.
    replicas: usize,
    advance: &'a Advance<'a>,
    loaded: Loaded,
}

enum Loaded {
    Nothing,
    Scoring(Box<crate::compute::CausalLm>),
    Sampling(Box<crate::generation::Generator>),
}

impl Model<'_> {
    /// Answers items, in order.
    fn answer(&mut self, asked: &[Asked]) -> Result<Answered, OperatorError> {
        let mut all = Answered { rows: Vec::with_capacity(asked.len()), tokens: 0, observed: 0 };
        for asked in asked.chunk_by(|one, other| std::ptr::eq(one.task, other.task)) {
            let Some(task) = asked.first().map(|asked| asked.task) else { continue };
            let answered = match &task.question.generate {
                Some(settings) => self.generate(task, settings, asked),
                None => self.score(task, asked),
            };
            let answered = answered.map_err(|error| error.of(&format!("task {}", task.name)))?;
            all.rows.extend(answered.rows);
            all.tokens += answered.tokens;
            all.observed += answered.observed;
        }
        Ok(all)
    }
}

/// The row of an item without its answer.
fn empty_row(asked: &Asked) -> answers::Row {
    answers::Row {
        task: asked.task.name.to_string(),
        item: asked.item.row as i64,
        item_id: asked.item.id.clone(),
        logprobs: None,
        token_ids: Vec::new(),
        prompt_token_count: 0,
        text: String::new(),
        finish_reason: None,
        cut_tokens: 0,
    }
}

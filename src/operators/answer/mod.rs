//! answer: a model's answers to the items of a benchmark, part by part: the logprobs of choices, or
//! generated texts.
//!
//! Texts, tokens and truncation follow lm-evaluation-harness 0.4.13 (`HFLM`), so that results are
//! comparable. Knows neither metrics nor a baseline.

mod asked;
mod choices;
mod context;
mod generated;

use std::collections::BTreeMap;

use super::support::advance::Advance;
use super::support::benchmark_items::items;
use super::support::model_work::{Found, Job, Work};
use super::support::parted_task::PartedTask;
use super::support::parts;
use super::support::replicas::{self, Part};
use super::support::rows::rows_of;
use super::support::task_model::TaskModel;
use super::{Context, OperatorError, Summary};
use crate::model::Checkpoint;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::benchmark::answer::Answer;
use crate::pipeline::spec::benchmark::task::GenerateAnswer;
use crate::tables::{FinishReason, TableKind, answers};
use asked::{Answered, Asked, AskedTask};
use choices::Choices;
use generated::Prompts;

/// Items in one part, unless the node's resources set another number.
const ITEMS_PER_PART: usize = 64;

/// This module in internal errors.
const PLACE: &str = "operators::answer";

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
        let model = TaskModel::from_slot(Slot::Policy);
        let checkpoint = model.checkpoint(context)?;
        let batch_size = context.task.resources.batch_size.map(|size| size as usize);
        let prepare = |part: &Part| works(&checkpoint, rows_of(&all, part.rows.clone(), PLACE)?, batch_size);
        let take = |part: &Part, questions: Vec<AskedTogether>, found: Vec<Found>| {
            let answered = answered(&checkpoint, &questions, found).map_err(|error| error.of(&part.name))?;
            writer.commit(part.number, &answers::batch(&answered.rows))?;
            Ok(answered.tokens)
        };
        let task = PartedTask { context, models: &[model], advance: &advance };
        parts::each_part(task, missing, replicas::all, prepare, take)?;
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

/// Items of one task, as they are asked of the model.
struct AskedTogether<'a> {
    task: &'a AskedTask<'a>,
    asked: &'a [Asked<'a>],
    tokens: Tokens<'a>,
}

/// The token ids of the items of one task.
enum Tokens<'a> {
    Choices(Choices),
    Prompts(Prompts, &'a GenerateAnswer),
}

/// The work of the model for these items, task by task.
fn works<'a>(
    checkpoint: &Checkpoint,
    asked: &'a [Asked<'a>],
    batch_size: Option<usize>,
) -> Result<(Vec<Work>, Vec<AskedTogether<'a>>), OperatorError> {
    let mut works = Vec::new();
    let mut questions = Vec::new();
    for asked in asked.chunk_by(|one, other| std::ptr::eq(one.task, other.task)) {
        let Some(task) = asked.first().map(|asked| asked.task) else { continue };
        let of = format!("task {}", task.name);
        let (tokens, job) = work(checkpoint, task, asked, batch_size).map_err(|error| error.of(&of))?;
        works.push(Work { model: 0, of: Some(of), job });
        questions.push(AskedTogether { task, asked, tokens });
    }
    Ok((works, questions))
}

/// The work of the model for items of one task.
fn work<'a>(
    checkpoint: &Checkpoint,
    task: &'a AskedTask,
    asked: &[Asked],
    batch_size: Option<usize>,
) -> Result<(Tokens<'a>, Job), OperatorError> {
    match &task.question.generate {
        Some(settings) => {
            let prompts = Prompts::new(checkpoint, settings, asked)?;
            let job = prompts.job(checkpoint, settings, batch_size)?;
            Ok((Tokens::Prompts(prompts, settings), job))
        }
        None => {
            let choices = Choices::new(checkpoint, task, asked)?;
            let job = choices.job(batch_size)?;
            Ok((Tokens::Choices(choices), job))
        }
    }
}

/// The rows of all these items, in order, and the tokens computed for them.
fn answered(checkpoint: &Checkpoint, questions: &[AskedTogether], found: Vec<Found>) -> Result<Answered, OperatorError> {
    if found.len() != questions.len() {
        let problem = format!("{} computations for the items of {} tasks", found.len(), questions.len());
        return Err(OperatorError::internal(PLACE, problem));
    }
    let mut all = Answered { rows: Vec::new(), tokens: 0 };
    for (AskedTogether { task, asked, tokens }, found) in questions.iter().zip(found) {
        let answered = match tokens {
            Tokens::Prompts(prompts, settings) => {
                found.samples().and_then(|generated| prompts.answers(checkpoint, settings, asked, generated))
            }
            Tokens::Choices(choices) => choices.answers(task, asked, found),
        };
        let answered = answered.map_err(|error| error.of(&format!("task {}", task.name)))?;
        all.rows.extend(answered.rows);
        all.tokens += answered.tokens;
    }
    Ok(all)
}

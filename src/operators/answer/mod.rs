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
use std::sync::Arc;

use super::support::benchmark_items::items;
use super::support::model_work::{Found, TaskModel, Work};
use super::support::parts::{self, Parts};
use super::support::rows::rows_of;
use super::{Context, OperatorError, Summary};
use crate::model::Checkpoint;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::benchmark::answer::Answer;
use crate::store::TableWriter;
use crate::tables::{FinishReason, TableKind, answers};
use asked::{Asked, AskedTask};
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
    let writer = context.writer(Some(TableKind::Answers), all.len(), ITEMS_PER_PART)?;
    let label = context.task.label();
    let missing = writer.missing();
    let done = all.len() - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    context.progress.started(&label, "items", done as u64, all.len() as u64);
    let mut model = TaskModel::of_slot(Slot::Policy);
    let checkpoint = model.checkpoint(context)?;
    let mut parts = AnsweredParts { context, checkpoint, all: &all, writer, asked: BTreeMap::new(), done, tokens: 0 };
    parts::compute(context, &mut [model], missing, &mut parts)?;
    let AnsweredParts { writer, tokens, .. } = parts;
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
    asked: &'a [Asked<'a>],
    tokens: Tokens,
}

/// The token ids of the items of one task.
enum Tokens {
    Choices(Choices),
    Prompts(Prompts),
}

/// The parts of the answers.
struct AnsweredParts<'a, 'c> {
    context: &'a Context<'c>,
    checkpoint: Arc<Checkpoint>,
    all: &'a [Asked<'a>],
    writer: TableWriter<'a>,
    /// The parts in work.
    asked: BTreeMap<usize, Vec<AskedTogether<'a>>>,
    done: usize,
    tokens: u64,
}

impl Parts for AnsweredParts<'_, '_> {
    fn name(&self, part: usize) -> String {
        self.writer.name_of(part)
    }

    fn work(&mut self, part: usize) -> Result<Vec<Work>, OperatorError> {
        let all = rows_of(self.all, self.writer.rows_of(part), PLACE)?;
        let batch_size = self.context.task.resources.batch_size.map(|size| size as usize);
        let mut questions = Vec::new();
        let mut works = Vec::new();
        for asked in all.chunk_by(|one, other| std::ptr::eq(one.task, other.task)) {
            let Some(task) = asked.first().map(|asked| asked.task) else { continue };
            let of = format!("task {}", task.name);
            let tokens = match &task.question.generate {
                Some(settings) => Prompts::new(&self.checkpoint, settings, asked).map(Tokens::Prompts),
                None => Choices::new(&self.checkpoint, task, asked).map(Tokens::Choices),
            };
            let tokens = tokens.map_err(|error| error.of(&of).of(&self.writer.name_of(part)))?;
            let job = match (&tokens, &task.question.generate) {
                (Tokens::Prompts(prompts), Some(settings)) => prompts.job(&self.checkpoint, settings, batch_size)?,
                (Tokens::Choices(choices), _) => choices.job(batch_size)?,
                (Tokens::Prompts(_), None) => return Err(OperatorError::internal(PLACE, "prompts of a task without generation")),
            };
            works.push(Work { model: 0, of: Some(of), job });
            questions.push(AskedTogether { asked, tokens });
        }
        self.asked.insert(part, questions);
        Ok(works)
    }

    fn take(&mut self, part: usize, found: Vec<Found>) -> Result<(), OperatorError> {
        let mut rows = Vec::new();
        for (AskedTogether { asked, tokens }, found) in self.asked.remove(&part).unwrap_or_default().into_iter().zip(found) {
            let Some(task) = asked.first().map(|asked| asked.task) else { continue };
            let answered = match (&tokens, &task.question.generate) {
                (Tokens::Prompts(prompts), Some(settings)) => prompts.answers(&self.checkpoint, settings, asked, found.samples()?),
                (Tokens::Choices(choices), _) => choices.answers(task, asked, found),
                (Tokens::Prompts(_), None) => return Err(OperatorError::internal(PLACE, "prompts of a task without generation")),
            };
            let answered = answered.map_err(|error| error.of(&format!("task {}", task.name)).of(&self.writer.name_of(part)))?;
            rows.extend(answered.rows);
            self.tokens += answered.tokens;
        }
        self.writer.commit(part, &answers::batch(&rows))?;
        self.done += rows.len();
        self.context.progress.advanced(&self.context.task.label(), self.done as u64, self.tokens);
        Ok(())
    }

    fn so_far(&self) -> (u64, u64) {
        (self.done as u64, self.tokens)
    }
}

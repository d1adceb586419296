//! A sample of each outside table, encoded as the task's model will: a broken chat template, or a
//! row that the model cannot read, fails now and not in an hour.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;

use super::super::OperatorError;
use super::super::malformed_rows::MalformedRows;
use super::progress::{Preflight, Sample};
use crate::import::{Preference, Preferences, Prompts, Repeats};
use crate::model::{Answer, Checkpoint, ModelError, PromptContent};
use crate::operators::sft;
use crate::pipeline::graph::{Input, Task};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::malformed::Malformed;
use crate::pipeline::spec::operator::Operator;
use crate::pipeline::spec::sft::Sft;

/// The number of a table's rows tried.
const ROWS_TRIED: usize = 100;

/// Rows from the whole length of a table, the first and the last among them.
pub(super) fn of(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Sample, OperatorError> {
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let tried = total.min(ROWS_TRIED);
    let rows: Vec<usize> = (0..tried).map(|index| if tried < 2 { 0 } else { index * (total - 1) / (tried - 1) }).collect();
    let mut wanted = rows.iter().peekable();
    let mut before = 0;
    let mut pieces = Vec::with_capacity(tried);
    for batch in batches {
        while let Some(row) = wanted.next_if(|row| **row < before + batch.num_rows()) {
            pieces.push(batch.slice(row - before, 1));
        }
        before += batch.num_rows();
    }
    Ok(Sample { batch: concat_batches(schema, &pieces)?, rows })
}

impl<'a> Preflight<'a> {
    fn name_of(&self, table: usize) -> &'a str {
        self.graph.sources.get(table).map_or("", |source| source.name.as_str())
    }

    /// Encodes prompts of an outside table as the task's policy will. A single prompt refused by
    /// the chat template becomes a row with an error when the task runs.
    pub(super) fn encode_prompts(&mut self, task: &Task) -> Result<(), OperatorError> {
        let (Some(model), Some(Input::Source(table))) = (task.input(Slot::Policy), task.input(Slot::Prompts)) else { return Ok(()) };
        let Some(folder) = self.base_model(model) else { return Ok(()) };
        let Some(sample) = self.samples.get(&table) else { return Ok(()) };
        if !self.encoded.insert((folder, table, "prompts")) {
            return Ok(());
        }
        let prompts = Prompts::from_batches(self.name_of(table), Repeats::Number, vec![sample.batch.clone()])?;
        if prompts.iter().all(|prompt| matches!(prompt.content, PromptContent::Text(_))) {
            return Ok(());
        }
        let checkpoint = Checkpoint::open_blank(folder)?.with_template_settings(task.template_settings());
        let mut refusals = Vec::new();
        for prompt in prompts.iter() {
            match checkpoint.encode_prompt(&prompt.content) {
                Ok(_) => {}
                Err(error @ (ModelError::Chat(_) | ModelError::Invalid { .. })) => return Err(error.into()),
                Err(refused) => refusals.push(refused),
            }
        }
        let all = refusals.len() == prompts.len();
        refusals.into_iter().next().filter(|_| all).map_or(Ok(()), |first| Err(first.into()))
    }

    /// Encodes examples of the outside tables as the task's training will.
    pub(super) fn encode_examples(&mut self, task: &Task) -> Result<(), OperatorError> {
        let malformed = match &task.operator {
            Operator::Sft(settings) => settings.malformed,
            Operator::Train(settings) => settings.malformed,
            Operator::RewardModel(settings) => settings.malformed,
            _ => return Ok(()),
        };
        let slots = [Slot::Demonstrations, Slot::Preferences, Slot::HeldOut];
        slots.into_iter().try_for_each(|slot| self.encode_examples_in(slot, malformed, task))
    }

    fn encode_examples_in(&mut self, slot: Slot, malformed: Malformed, task: &Task) -> Result<(), OperatorError> {
        let (Some(model), Some(Input::Source(table))) = (task.input(Slot::From), task.input(slot)) else { return Ok(()) };
        let Some(folder) = self.base_model(model) else { return Ok(()) };
        let Some(sample) = self.samples.get(&table) else { return Ok(()) };
        if !self.encoded.insert((folder, table, task.operator.name())) {
            return Ok(());
        }
        let name = self.name_of(table);
        let checkpoint = Checkpoint::open_blank(folder)?.with_template_settings(task.template_settings());
        let tried = match &task.operator {
            Operator::Sft(settings) => demonstrations(name, settings, &checkpoint, sample)?,
            operator => preferences(name, matches!(operator, Operator::RewardModel(_)), &checkpoint, sample)?,
        };
        let mut rows = MalformedRows::new(malformed);
        for (place, problem) in &tried {
            if let Some(problem) = problem {
                rows.add(problem, || place.clone())?;
            }
        }
        match rows.text(tried.len()) {
            Some(text) if rows.count() == tried.len() => {
                Err(OperatorError::Input(format!("{name}: expected usable rows; of a sample, {text}")))
            }
            Some(text) => {
                self.checked.note(&task.label(), format!("of a sample of {name}, {text}"));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The place of each demonstration, with its problem if it has one.
fn demonstrations(
    name: &str,
    settings: &Sft,
    checkpoint: &Checkpoint,
    sample: &Sample,
) -> Result<Vec<(String, Option<String>)>, OperatorError> {
    // A missing column is reported by the check of the task's tables.
    if sample.batch.column_by_name(&settings.response).is_none() {
        return Ok(Vec::new());
    }
    let answers = sft::answers(settings, &sample.batch, 0)?;
    let prompts = Prompts::from_batches(name, Repeats::Number, vec![sample.batch.clone()])?;
    let tried = prompts.iter().zip(&sample.rows).zip(answers).map(|((prompt, row), answer)| {
        let problem = sft::encode(settings, checkpoint, &prompt.content, answer).err();
        (format!("demonstrations, row {row} ({})", prompt.id), problem)
    });
    Ok(tried.collect())
}

/// The place of each preference, with its problem if it has one.
fn preferences(name: &str, whole: bool, checkpoint: &Checkpoint, sample: &Sample) -> Result<Vec<(String, Option<String>)>, OperatorError> {
    let preferences = Preferences::from_batches(name, vec![sample.batch.clone()])?;
    // `train` makes no pair of the others, whatever their texts.
    let is_pair =
        |preference: &&Preference| whole || (preference.reward_gap.is_none_or(|gap| gap > 0.0) && preference.chosen != preference.rejected);
    let tried = preferences.iter().filter(is_pair).map(|preference| {
        let encode = |response: Answer| {
            let encoded = if whole {
                checkpoint.encode_conversation(&preference.prompt, response).map(drop)
            } else {
                checkpoint.encode_pair(&preference.prompt, response).map(drop)
            };
            encoded.map_err(|error| error.to_string())
        };
        let problem = encode(preference.chosen()).and_then(|()| encode(preference.rejected())).err();
        (format!("preference {}", preference.id), problem)
    });
    Ok(tried.collect())
}

//! The prompts behind a node's rows, as texts and as a table with their groups.

use std::collections::HashMap;

use super::error::ReportError;
use super::outline::Part;
use super::source::{Source, quoted};
use crate::import::{Prompts, Repeats};
use crate::model::PromptContent;
use crate::store::OutputKey;

/// The prompts of an input table or a node.
pub struct Asking {
    prompts: Prompts,
}

impl Asking {
    /// The prompts in the table read by the node of an output; `None` if it is not there yet, or
    /// not finished.
    ///
    /// # Errors
    /// The table is not one of prompts, or is damaged.
    pub fn of(source: &Source, node: &str) -> Result<Option<Self>, ReportError> {
        let reads = source.owner(node).into_iter().flat_map(|node| &node.reads);
        let Some(table) = reads.filter(|read| read.slot == "prompts").map(|read| read.name.as_str()).next() else { return Ok(None) };
        // A table made in every iteration has other prompts in each.
        let place = OutputKey::table(table, None);
        let finished = source.outputs.iter().any(|(other, manifest)| *other == place && manifest.complete);
        let iterated = source.node(table).is_some_and(|node| node.part == Part::Loop);
        if !finished || iterated {
            return Ok(None);
        }
        Ok(Some(Self { prompts: Prompts::from_batches(table, Repeats::Number, source.run.read_table(&place, None)?)? }))
    }

    /// The messages, by prompt_id.
    pub fn texts(&self) -> HashMap<&str, &PromptContent> {
        self.prompts.iter().map(|prompt| (prompt.id.as_str(), &prompt.content)).collect()
    }

    /// Adds the prompts with a group to the session as the table `name`: prompt_id, group. Returns
    /// false if there are none.
    ///
    /// # Errors
    /// The SQL engine fails.
    pub fn register_groups(&self, source: &Source, name: &str) -> Result<bool, ReportError> {
        let grouped = self.prompts.batches.first().is_some_and(|batch| batch.column_by_name("group").is_some());
        if grouped && !source.session().tables().iter().any(|table| table == name) {
            let all = format!("{name} all");
            source.session().register_batches(&all, self.prompts.batches.clone())?;
            let query =
                format!("SELECT prompt_id, CAST(\"group\" AS VARCHAR) AS \"group\" FROM {} WHERE \"group\" IS NOT NULL", quoted(&all));
            source.session().register_view(name, &query)?;
        }
        Ok(grouped)
    }
}

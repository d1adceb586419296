//! The inputs that a task reads besides the names in the file, found behind its inputs.
//!
//! A command says by the names of its own inputs what is behind its output: the prompts of its
//! responses are its input `prompts`. Knows no other names.

use super::{Unrolling, only};
use crate::pipeline::error::Diagnostic;
use crate::pipeline::graph::{Binding, Input, Reward, SourceKind};
use crate::pipeline::position::Span;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::operator::{Operator, Output};

impl Unrolling<'_> {
    /// The input in `slot` of the task behind `input`; of a command, its input with the slot's
    /// name. None if there is no such input.
    fn behind(&self, input: Input, slot: Slot, span: Span) -> Result<Option<Binding>, Diagnostic> {
        for binding in self.inputs_of(input)? {
            if binding.slot == slot {
                return Ok(Some(binding.clone()));
            }
            if binding.slot == Slot::Inputs && binding.name == slot.name() {
                let expected = kind(slot);
                let found = self.output(binding.input)?;
                if expected != found {
                    let problem = format!(
                        "the input \"{slot}\" of the command \"{}\" is read here as {}, but it is {}",
                        self.name(input)?,
                        expected.noun(),
                        found.noun()
                    );
                    return Err(Diagnostic::at(span, problem));
                }
                return Ok(Some(Binding { slot, name: self.name(binding.input)?, input: binding.input }));
            }
        }
        Ok(None)
    }

    /// As [`Self::behind`], for an input that the node at `span` needs. Only a command can be
    /// without it.
    pub(super) fn required_behind(&self, input: Input, slot: Slot, span: Span) -> Result<Binding, Diagnostic> {
        if let Some(found) = self.behind(input, slot, span)? {
            return Ok(found);
        }
        match input {
            Input::Task(index) if matches!(self.task(index)?.operator, Operator::Command(_)) => Err(Diagnostic::at(
                span,
                format!(
                    "\"{}\" is made by a command, and this node needs the {slot} behind it: name them among the inputs of that command, \
                     `inputs: {{ {slot}: … }}`",
                    self.name(input)?
                ),
            )),
            _ => Err(Diagnostic::internal(format!("unroll: nothing fills the slot {slot}"))),
        }
    }

    /// The policy behind `responses`, if the reward asks a server: the server gets texts in the
    /// chat template of the policy.
    pub(super) fn policy_for_server(&self, inputs: &[Binding], responses: Input, span: Span) -> Result<Option<Binding>, Diagnostic> {
        for reward in only(inputs, |slot| [Slot::Reward, Slot::Rewards].contains(&slot)) {
            let Input::Source(index) = reward.input else { continue };
            if let SourceKind::Reward { reward } = &self.source(index)?.kind
                && reward.leaves().iter().any(|leaf| matches!(leaf, Reward::Http(_)))
            {
                return self.required_behind(responses, Slot::Policy, span).map(Some);
            }
        }
        Ok(None)
    }

    /// The responses of all iterations with responses in these pairs, oldest first.
    pub(super) fn responses_of_pairs(&self, pairs: Input, span: Span) -> Result<Vec<Binding>, Diagnostic> {
        let mut next = self.behind(pairs, Slot::Pool, span)?;
        if next.is_none()
            && let Some(responses) = self.behind(pairs, Slot::Responses, span)?
        {
            return Ok(vec![responses]);
        }
        if next.is_none() {
            next = Some(self.required_behind(pairs, Slot::Pool, span)?);
        }
        let mut found = Vec::new();
        while let Some(pool) = next {
            let first = self.required_behind(pool.input, Slot::Responses, span)?;
            let others = only(self.inputs_of(pool.input)?, |slot| slot == Slot::Responses).into_iter().skip(1);
            let mut sampled: Vec<Binding> = std::iter::once(first).chain(others).collect();
            sampled.reverse();
            found.extend(sampled);
            next = self.behind(pool.input, Slot::Carried, span)?;
        }
        found.reverse();
        Ok(found)
    }

    /// Whether an input is a table of the user's own, from outside, from a query or from a command.
    pub(super) fn is_own_table(&self, input: Input) -> Result<bool, Diagnostic> {
        Ok(self.output(input)? == Output::Table)
    }

    /// The kind of an input.
    fn output(&self, input: Input) -> Result<Output, Diagnostic> {
        Ok(match input {
            Input::Task(index) => self.task(index)?.output(),
            Input::Source(index) => match self.source(index)?.kind {
                SourceKind::Table { .. } => Output::Table,
                SourceKind::Model { .. } => Output::Model,
                SourceKind::Reward { .. } => Output::Reward,
            },
        })
    }
}

/// The kind of the inputs behind others.
fn kind(slot: Slot) -> Output {
    match slot {
        Slot::Responses => Output::Responses,
        Slot::Pool | Slot::Carried => Output::Pool,
        Slot::Policy => Output::Model,
        _ => Output::Table,
    }
}

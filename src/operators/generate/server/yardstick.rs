//! The policy's own greedy responses, computed here on the CPU, and the comparison of a server with
//! them.
//!
//! A server computes in another precision, so near ties may be decided otherwise, and logprobs
//! differ a little. A server of other weights, of another chat template or tokenizer, or with a
//! penalty of its own differs much more. Knows the policy's weights, not how a server is asked.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;

use super::super::super::OperatorError;
use super::super::super::support::memory_budget::{self, Budget};
use super::super::response_text;
use super::job::{Item, ServerJob};
use super::row::Decoding;
use crate::compute::Precision;
use crate::generation::{Generator, Sampling};
use crate::remote::{Completion, Finish};
use crate::token_lists::TokenLists;
use crate::training::{Responses, response_logprobs};

/// So many prompts are compared, the shortest ones.
const PROMPTS: usize = 2;

/// The most tokens of a compared response.
const TOKENS: usize = 32;

/// A longer prompt is not compared: its computation here would take longer than it is worth.
const LONGEST_PROMPT: usize = 1024;

/// Where the server's most likely token is another one: so many nats may lie between both in the
/// policy. Arithmetic in bf16 moves a logit by some hundredths, in 8 bits by some tenths.
const TIE: f64 = 0.5;

/// The server's mean logprob of a token may differ by so many nats. In bf16 it is off by some
/// hundredths at most; another model is off by whole nats.
const LOGPROB: f64 = 0.1;

/// The policy's own responses.
pub(super) struct Yardstick {
    pub(super) probes: Vec<Probe>,
    /// Logprobs of responses, by the ids of prompt and response.
    known: Mutex<HashMap<Vec<i32>, f64>>,
}

/// A prompt with the policy's greedy response.
pub(super) struct Probe {
    /// One of the node's items, with this prompt.
    pub(super) item: Item,
    greedy: Vec<i32>,
}

/// The result for one probe.
pub(super) enum Compared {
    /// The server's distribution is the policy's, and its texts are decoded so.
    Same(Decoding),
    /// It is another one.
    Other(String),
}

impl Yardstick {
    /// Computes the greedy responses to the shortest prompts of `items`.
    ///
    /// # Errors
    /// The reason why the policy cannot be computed here.
    pub(super) fn new(job: &ServerJob, items: &[Item]) -> Result<Self, OperatorError> {
        let checkpoint = &job.checkpoint;
        if let Some(budget) = Budget::new(&job.context.task.resources, true) {
            memory_budget::check(budget, &job.context.task.operator, checkpoint)?;
        }
        let mut shortest: Vec<(Item, &[i32])> = Vec::new();
        for item in items {
            let ids = job.prompt_ids(item)?;
            if ids.len() <= LONGEST_PROMPT && !shortest.iter().any(|(_, known)| *known == ids) {
                shortest.push((*item, ids));
                shortest.sort_by_key(|(_, ids)| ids.len());
                shortest.truncate(PROMPTS);
            }
        }
        if shortest.is_empty() {
            return Err(OperatorError::Failed(format!("every prompt has more than {LONGEST_PROMPT} tokens")));
        }
        let sampling = Sampling::greedy(checkpoint, Self::tokens(job));
        let generator = Generator::load(checkpoint, &Device::flex(), Precision::F32)?;
        let prompts: Vec<&[i32]> = shortest.iter().map(|(_, ids)| *ids).collect();
        let seeds = vec![vec![[0; 32]]; prompts.len()];
        let stopped = job.context.stopped;
        let mut each = |_| if stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let generated = generator.generate(&TokenLists::from_rows(&prompts)?, &seeds, &sampling, PROMPTS, &mut each)?;
        let probes = shortest.iter().zip(generated.sequences.iter());
        let probes = probes.map(|((item, ids), row)| Probe { item: *item, greedy: row.get(ids.len()..).unwrap_or_default().to_vec() });
        Ok(Self { probes: probes.collect(), known: Mutex::default() })
    }

    /// The most tokens of a compared response.
    pub(super) fn tokens(job: &ServerJob) -> usize {
        TOKENS.min(job.settings.max_new_tokens as usize)
    }

    /// Compares a server's greedy response. `expected` is the decoding that its kind is known for.
    ///
    /// # Errors
    /// The policy's logprobs cannot be computed.
    pub(super) fn compare(
        &self,
        job: &ServerJob,
        probe: &Probe,
        answer: &Completion,
        expected: Decoding,
    ) -> Result<Compared, OperatorError> {
        let prompt_ids = job.prompt_ids(&probe.item)?;
        let tokenizer = &job.checkpoint.tokenizer;
        let mut decoding = expected;
        let mut theirs = match &answer.token_ids {
            Some(ids) => ids.clone(),
            None => {
                let behind = response_text(tokenizer, prompt_ids, &probe.greedy)?;
                let alone = tokenizer.decode(&probe.greedy)?;
                if answer.text == behind || answer.text == alone {
                    let decoding = if answer.text == behind { Decoding::Behind } else { Decoding::Alone };
                    return Ok(Compared::Same(decoding));
                }
                if !answer.text.is_empty() && answer.text == behind.trim() {
                    let problem = format!(
                        "expected the greedy text {behind:?}, found it without the white space at its ends; the server strips its texts"
                    );
                    return Ok(Compared::Other(problem));
                }
                if behind != alone && shares(&answer.text, &alone) > shares(&answer.text, &behind) {
                    decoding = Decoding::Alone;
                }
                job.tokenize(&probe.item, &answer.text, decoding)?
            }
        };
        let vocabulary = job.checkpoint.config.vocab_size;
        if let Some(id) = theirs.iter().find(|id| !usize::try_from(**id).is_ok_and(|id| id < vocabulary)) {
            return Ok(Compared::Other(format!("expected token ids below {vocabulary}, found {id}; the server serves another model")));
        }
        let is_end = |id: &i32| job.checkpoint.generation.eos_token_ids.contains(id);
        if answer.finish == Finish::Stop
            && !theirs.last().is_some_and(is_end)
            && let Some(end) = job.checkpoint.end_token(&job.prompts[probe.item.prompt].content)
        {
            theirs.push(end);
        }
        let ours = &probe.greedy;
        let same = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
        let behind = |ids: &[i32]| [prompt_ids, ids].concat();
        match (ours.get(same), theirs.get(same)) {
            (None, None) => {}
            (Some(own), Some(other)) => {
                let with = |id: &i32| behind(&[&ours[..same], &[*id]].concat());
                let logprobs = self.logprobs(job, prompt_ids.len(), &[with(own), with(other)])?;
                let between = logprobs[0] - logprobs[1];
                if between.is_nan() || between > TIE {
                    let word = |id: &i32| tokenizer.decode(&[*id]).unwrap_or_default();
                    return Ok(Compared::Other(format!(
                        "expected the policy's distribution; after {same} greedy tokens the policy goes on with {:?}, found {:?}, which is \
                         {between:.1} nats less likely in the policy (up to {TIE} is taken for rounding)",
                        word(own),
                        word(other)
                    )));
                }
            }
            _ => {
                let problem =
                    format!("expected a greedy response of {} tokens, found {} of which {same} are the same", ours.len(), theirs.len());
                return Ok(Compared::Other(problem));
            }
        }
        // One more logprob than ids is an end token's that has no id.
        let given =
            answer.logprobs.as_deref().and_then(|logprobs| logprobs.get(..same)).filter(|given| given.iter().any(|one| *one != 0.0));
        if let Some(given) = given {
            let own = self.logprobs(job, prompt_ids.len(), &[behind(&ours[..same])])?[0];
            let off = (given.iter().sum::<f64>() - own).abs() / same as f64;
            if off.is_nan() || off > LOGPROB {
                return Ok(Compared::Other(format!(
                    "expected the logprobs of the policy; over {same} greedy tokens the server's mean differs from the policy's by {off:.2} nats \
                     (up to {LOGPROB} is taken for rounding)"
                )));
            }
        }
        Ok(Compared::Same(decoding))
    }

    /// The logprob of the response in each row, in nats; the first `prompt` tokens are the prompt.
    fn logprobs(&self, job: &ServerJob, prompt: usize, rows: &[Vec<i32>]) -> Result<Vec<f64>, OperatorError> {
        // Servers are compared one after the other: the weights are in memory once.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<&[i32]> = rows.iter().filter(|row| !known.contains_key(*row)).map(Vec::as_slice).collect();
        if !open.is_empty() {
            let model = job.checkpoint.load(&Device::flex())?;
            let responses = Responses::new(TokenLists::from_rows(&open)?, vec![prompt; open.len()])?;
            let all: Vec<usize> = (0..open.len()).collect();
            let found = response_logprobs(&model, &responses, &all, open.len())?;
            known.extend(open.into_iter().map(<[i32]>::to_vec).zip(found));
        }
        Ok(rows.iter().map(|row| known.get(row).copied().unwrap_or(f64::NAN)).collect())
    }
}

/// The number of bytes that two texts share at their beginning.
fn shares(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

//! score: a reward for every response, from queries, reward models, servers, judges, processes, or
//! a weighted sum of them.
//!
//! A part is a fixed range of the responses, sorted by their keys. A committed part is not scored
//! again. Knows how a sum is computed. Each kind of scorer is a file of its own.

mod again;
mod judge;
mod model;
mod process;
mod query;
mod response;
mod score_error;
mod server;

use std::collections::{BTreeMap, HashMap};

use arrow::array::RecordBatch;

pub use process::{check_process, process_identity};
pub use query::check_columns;
pub use server::clients;

use super::support::advance::Advance;
use super::support::model_work::{Found, Work};
use super::support::parted_task::PartedTask;
use super::support::parts;
use super::support::replicas::{self, Part, Replica};
use super::support::reward_tree;
use super::support::rows::rows_of;
use super::support::summary::rounded;
use super::support::task_model::TaskModel;
use super::{Context, OperatorError, Summary};
use crate::pipeline::graph::{Component, Reward};
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::non_finite::NonFinite;
use crate::pipeline::spec::score as spec;
use crate::store::TableWriter;
use crate::tables::{TableKind, responses, rewards};
use model::{Conversations, ModelScorer};
use response::{ResponseToScore, Score, Scores, ScoringPrompt};
use score_error::{ScoreError, is_not_finite};

/// Name of this module in internal errors.
const PLACE: &str = "operators::score";

/// Responses in one part with a model, a server or a process, unless the node's resources have
/// another number.
const RESPONSES_PER_PART: usize = 256;

/// Scores the responses in the slot `responses`, with their prompts in the slot `prompts`.
pub(super) fn run(context: &Context, settings: &spec::Score) -> Result<Summary, OperatorError> {
    let reward = reward_tree::resolve(context.graph, context.task)?;
    let fingerprint = fingerprint(context)?;
    let mut all: Vec<responses::Row> = context.rows(Slot::Responses, responses::rows)?;
    all.sort_by(|a, b| (&a.prompt_id, a.sampled_iteration, a.response_index).cmp(&(&b.prompt_id, b.sampled_iteration, b.response_index)));
    let (batches, prompts) = if reward.is_relational() { Default::default() } else { scoring_prompts(context)? };
    // Queries run before anything is written, so a failed query leaves nothing behind.
    let mut models = Vec::new();
    let scorer = Scorer::open(context, &reward, &all, &batches, settings.non_finite, &mut models)?;
    let rows_per_part = if reward.is_relational() { all.len().max(1) } else { RESPONSES_PER_PART };
    let scoring = Scoring { scorer, prompts, fingerprint, non_finite: settings.non_finite };
    let mut writer = context.writer(Some(TableKind::Rewards), all.len(), rows_per_part)?;
    let mut missing = writer.missing();
    let unanswered = again::Unanswered::of(&all);
    if !scoring.scorer.judges().is_empty() {
        missing.extend(again::parts(&writer, &unanswered)?);
        missing.sort_unstable();
    }
    let part = |number| Part { number, rows: writer.rows_of(number), name: writer.name_of(number) };
    let missing: Vec<Part> = missing.into_iter().map(part).collect();
    let done = all.len() - missing.iter().map(|part| part.rows.len()).sum::<usize>();
    let advance = Advance::start(context, "responses", done, all.len());
    let prepare = |part: &Part| scoring.work(rows_of(&all, part.rows.clone(), PLACE)?);
    let take = |part: &Part, asked: Vec<Conversations>, found: Vec<Found>| {
        let responses = rows_of(&all, part.rows.clone(), PLACE)?;
        let rows = scoring.rewards(context, responses, Asked::new(asked, found)?).map_err(|error| error.of(&part.name))?;
        writer.replace(part.number, &rewards::batch(&rows))?;
        Ok(0)
    };
    let task = PartedTask { context, models: &models, advance: &advance };
    parts::each_part(task, missing, |context| replicas_for(context, &reward), prepare, take)?;
    scoring.scorer.record(context)?;
    let judges = scoring.scorer.judges();
    if judges.iter().any(|judge| judge.stops())
        && let Some((failed, first)) = again::first(&writer, &unanswered)?
    {
        return Err(OperatorError::Failed(format!(
            "{failed} of {} responses have no score, the first: {first}; the same command asks only for these again \
             (`failures: keep` in judge goes on without them)",
            all.len()
        )));
    }
    let mut counts = BTreeMap::new();
    judges.iter().try_for_each(|judge| judge.count(&all, &mut counts))?;
    finish(writer, counts, &judges)
}

/// The fingerprint of the reward: of the input `reward`, and of the inputs `rewards` named by it.
fn fingerprint(context: &Context) -> Result<String, OperatorError> {
    let own = context.fingerprint_of(Slot::Reward)?.to_string();
    let named = context.recipe.inputs.get(Slot::Rewards.name()).map_or(&[][..], Vec::as_slice);
    if named.is_empty() {
        return Ok(own);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(own.as_bytes());
    for named in named {
        hasher.update(named.to_string().as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The table in the slot `prompts`, and its prompts by id.
fn scoring_prompts(context: &Context) -> Result<(Vec<RecordBatch>, HashMap<String, ScoringPrompt>), OperatorError> {
    let prompts = context.prompts(Slot::Prompts)?;
    let mut answers = Vec::with_capacity(prompts.len());
    for batch in &prompts.batches {
        answers.extend(server::reference_answers(batch)?);
    }
    if answers.len() != prompts.len() {
        let problem = format!("expected {} reference answers, one for each prompt, found {}", prompts.len(), answers.len());
        return Err(OperatorError::internal(PLACE, problem));
    }
    let places = prompts.batches.iter().enumerate().flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)));
    let scoring_prompt = |((prompt, reference_answer), place): ((&super::Prompt, Option<String>), (usize, usize))| {
        (prompt.id.clone(), ScoringPrompt { content: prompt.content.clone(), reference_answer, place })
    };
    let by_id = prompts.iter().zip(answers).zip(places).map(scoring_prompt).collect();
    Ok((prompts.batches, by_id))
}

/// The replicas for a reward on this machine.
fn replicas_for(context: &Context, reward: &Reward) -> Result<Vec<Replica>, OperatorError> {
    match (reward.has_model(), reward.is_computed_here()) {
        (true, true) => replicas::all(context),
        // Servers, judges and processes have a concurrency of their own: one part at a time.
        (true, false) => replicas::first(context),
        (false, _) => Ok(vec![replicas::without_model()]),
    }
}

/// The conversations of a part for each of its models, and the models' results.
struct Asked {
    conversations: std::vec::IntoIter<Conversations>,
    found: std::vec::IntoIter<Found>,
}

impl Asked {
    /// A model without a conversation to score has no result.
    fn new(conversations: Vec<Conversations>, found: Vec<Found>) -> Result<Self, OperatorError> {
        let expected = conversations.iter().filter(|conversations| conversations.scored() > 0).count();
        if expected != found.len() {
            let problem = format!("expected results of {expected} reward models, found {}", found.len());
            return Err(OperatorError::internal(PLACE, problem));
        }
        Ok(Self { conversations: conversations.into_iter(), found: found.into_iter() })
    }

    /// Those of the next model.
    fn next(&mut self) -> Result<(Conversations, Option<Found>), OperatorError> {
        let missing = || OperatorError::internal(PLACE, "a reward model was not asked");
        let conversations = self.conversations.next().ok_or_else(missing)?;
        let found = if conversations.scored() > 0 { self.found.next() } else { None };
        Ok((conversations, found))
    }
}

/// A reward, ready to score.
enum Scorer<'a> {
    Query(query::QueryScorer),
    Model(ModelScorer),
    Server(Box<server::ServerScorer<'a>>),
    Process(Box<process::ProcessScorer<'a>>),
    Judge(Box<judge::JudgeScorer<'a>>),
    Sum(Vec<WeightedScorer<'a>>),
}

/// A component of a sum.
struct WeightedScorer<'a> {
    weight: f64,
    name: &'a str,
    scorer: Scorer<'a>,
}

impl<'a> Scorer<'a> {
    /// Runs the queries and opens the models, which are added to `models`. Processes start with the
    /// first batch. `prompts` are the table of prompts.
    fn open(
        context: &'a Context,
        reward: &'a Reward,
        all: &[responses::Row],
        prompts: &[RecordBatch],
        non_finite: NonFinite,
        models: &mut Vec<TaskModel>,
    ) -> Result<Self, OperatorError> {
        Ok(match reward {
            Reward::Sql(sql) => Self::Query(query::QueryScorer::run(context, sql, all, non_finite)?),
            Reward::Model(path) => Self::Model(ModelScorer::open(context, path, models)?),
            Reward::Task(index) => Self::Model(ModelScorer::open(context, &context.model_of_task(*index)?, models)?),
            Reward::Http(settings) => Self::Server(Box::new(server::ServerScorer::open(context, settings)?)),
            Reward::Process(process) => Self::Process(Box::new(process::ProcessScorer::open(process, prompts)?)),
            Reward::Judge(settings) => Self::Judge(Box::new(judge::JudgeScorer::open(context, settings, all)?)),
            Reward::Named(name) => {
                let problem = format!("the name {name} in a resolved reward");
                return Err(OperatorError::internal(PLACE, problem));
            }
            Reward::Sum(components) => {
                let open = |Component { weight, name, reward }: &'a Component| {
                    let scorer = Self::open(context, reward, all, prompts, non_finite, models)
                        .map_err(|error| error.of(&format!("component {name}")))?;
                    Ok(WeightedScorer { weight: *weight, name: name.as_str(), scorer })
                };
                Self::Sum(components.iter().map(open).collect::<Result<_, OperatorError>>()?)
            }
        })
    }

    /// Records what its servers did.
    fn record(&self, context: &Context) -> Result<(), OperatorError> {
        match self {
            Self::Server(server) => server.record(context),
            Self::Judge(judge) => judge.record(),
            Self::Sum(components) => components.iter().try_for_each(|component| component.scorer.record(context)),
            Self::Query(_) | Self::Model(_) | Self::Process(_) => Ok(()),
        }
    }

    /// The judges in it.
    fn judges(&self) -> Vec<&judge::JudgeScorer<'a>> {
        match self {
            Self::Judge(judge) => vec![judge],
            Self::Sum(components) => components.iter().flat_map(|component| component.scorer.judges()).collect(),
            _ => Vec::new(),
        }
    }

    /// The models in it.
    fn models(&self) -> Vec<&ModelScorer> {
        match self {
            Self::Model(model) => vec![model],
            Self::Sum(components) => components.iter().flat_map(|component| component.scorer.models()).collect(),
            _ => Vec::new(),
        }
    }

    /// One score for each response, in the same order. `asked` has the results of its models, in
    /// the order of [`Scorer::models`].
    fn score(&self, context: &Context, responses: &[ResponseToScore], asked: &mut Asked) -> Result<Scores, OperatorError> {
        let scores = match self {
            Self::Query(query) => query.score(responses)?,
            Self::Model(model) => {
                let (conversations, found) = asked.next()?;
                model.score(responses, conversations, found)?
            }
            Self::Server(server) => server.score(context, responses)?,
            Self::Process(process) => process.score(context, responses)?,
            Self::Judge(judge) => judge.score(responses)?,
            Self::Sum(components) => weighted_sum(context, components, responses, asked)?,
        };
        if scores.len() != responses.len() {
            let problem = format!("expected {} scores, one for each response, found {}", responses.len(), scores.len());
            return Err(OperatorError::internal(PLACE, problem));
        }
        Ok(scores)
    }
}

/// Σ weight · reward over the components.
fn weighted_sum(
    context: &Context,
    components: &[WeightedScorer],
    responses: &[ResponseToScore],
    asked: &mut Asked,
) -> Result<Scores, OperatorError> {
    let mut sums: Scores = vec![Ok(Score::default()); responses.len()];
    for WeightedScorer { weight, name, scorer } in components {
        let scores = scorer.score(context, responses, asked).map_err(|error| error.of(&format!("component {name}")))?;
        for (sum, score) in sums.iter_mut().zip(scores) {
            add_component(sum, *weight, name, score);
        }
    }
    let finite = |sum: Score| {
        if sum.reward.is_finite() { Ok(sum) } else { Err(ScoreError::not_finite("weighted sum", sum.reward)) }
    };
    Ok(sums.into_iter().map(|sum| sum.and_then(finite)).collect())
}

/// Adds a component to a sum. Its reward becomes the component `name`, and its own components
/// become `name.component`. The first error stays.
fn add_component(sum: &mut Result<Score, ScoreError>, weight: f64, name: &str, score: Result<Score, ScoreError>) {
    match (sum.as_mut(), score) {
        (Ok(sum), Ok(score)) => {
            sum.reward += weight * score.reward;
            sum.components.insert(name.to_string(), score.reward);
            sum.components.extend(score.components.into_iter().map(|(own, value)| (format!("{name}.{own}"), value)));
        }
        (Ok(_), Err(error)) => *sum = Err(error.in_component(name)),
        (Err(_), _) => {}
    }
}

/// Everything needed to score a part.
struct Scoring<'a> {
    scorer: Scorer<'a>,
    /// Empty if all scorers are queries.
    prompts: HashMap<String, ScoringPrompt>,
    /// The fingerprint of the reward, for the rows.
    fingerprint: String,
    non_finite: NonFinite,
}

impl Scoring<'_> {
    /// The responses with a text to score.
    fn to_score<'r>(&'r self, responses: &'r [responses::Row]) -> Vec<ResponseToScore<'r>> {
        let answered = responses.iter().filter(|row| row.error.is_none());
        answered.map(|row| ResponseToScore { row, prompt: self.prompts.get(&row.prompt_id) }).collect()
    }

    /// The work of its models for these responses.
    fn work(&self, responses: &[responses::Row]) -> Result<(Vec<Work>, Vec<Conversations>), OperatorError> {
        let to_score = self.to_score(responses);
        let mut works = Vec::new();
        let mut asked = Vec::new();
        if !to_score.is_empty() {
            for model in self.scorer.models() {
                let (conversations, work) = model.work(&to_score)?;
                asked.push(conversations);
                works.extend(work);
            }
        }
        Ok((works, asked))
    }

    /// The rewards of some responses. The error of a failed response becomes the error of its
    /// reward.
    ///
    /// # Errors
    /// Under `non_finite: stop`, the first reward that is not finite.
    fn rewards(&self, context: &Context, responses: &[responses::Row], mut asked: Asked) -> Result<Vec<rewards::Row>, OperatorError> {
        let to_score = self.to_score(responses);
        let scores = if to_score.is_empty() { Vec::new() } else { self.scorer.score(context, &to_score, &mut asked)? };
        if self.non_finite == NonFinite::Stop {
            for (response, score) in to_score.iter().zip(&scores) {
                let error = score.as_ref().err();
                if let Some(message) = error.and_then(|error| error.stop_message(&response.description())) {
                    return Err(OperatorError::Input(message));
                }
            }
        }
        let mut scores = scores.into_iter();
        let mut rows = Vec::with_capacity(responses.len());
        for response in responses {
            let scored = match &response.error {
                Some(error) => Err(error.clone()),
                None => {
                    let missing = || OperatorError::internal(PLACE, "a response has no score");
                    scores.next().ok_or_else(missing)?.map_err(|error| error.to_string())
                }
            };
            rows.push(self.row(response, scored));
        }
        Ok(rows)
    }

    fn row(&self, response: &responses::Row, scored: Result<Score, String>) -> rewards::Row {
        let (reward, components, error) = match scored {
            Ok(Score { reward, components }) if components.is_empty() => (Some(reward), None, None),
            Ok(Score { reward, components }) => (Some(reward), Some(components), None),
            Err(error) => (None, None, Some(error)),
        };
        rewards::Row {
            prompt_id: response.prompt_id.clone(),
            sampled_iteration: response.sampled_iteration,
            response_index: response.response_index,
            reward,
            reward_fingerprint: self.fingerprint.clone(),
            components,
            error,
        }
    }
}

/// Finishes the table. Totals are over all committed parts, so an interrupted node has the same
/// ones. `counts` has the judges' own.
fn finish(writer: TableWriter, mut counts: BTreeMap<String, i64>, judges: &[&judge::JudgeScorer]) -> Result<Summary, OperatorError> {
    let mut count = 0;
    let mut non_finite = 0;
    let mut scored: Vec<f64> = Vec::new();
    for batch in writer.committed()? {
        for row in rewards::rows(&batch)? {
            count += 1;
            scored.extend(row.reward);
            non_finite += usize::from(row.error.is_some_and(|error| is_not_finite(&error)));
        }
    }
    let failed = count - scored.len();
    let mut failures = if failed > 0 { format!(", {failed} without a reward") } else { String::new() };
    counts.extend([("responses".to_string(), count as i64), ("scored".to_string(), scored.len() as i64)]);
    if non_finite > 0 {
        failures += &format!(", of {non_finite} it is not finite");
        counts.insert("non_finite".to_string(), non_finite as i64);
    }
    writer.finish(counts)?;
    let asked = judges.iter().map(|judge| judge.cost()).reduce(|one, other| one.and(other));
    let asked = asked.map_or(String::new(), |cost| format!(", {cost}"));
    let text = match scored.len() {
        0 => format!("none of {count} responses scored{failures}"),
        of if of == count => format!("{count} responses scored, mean reward {}", mean(&scored)),
        of => format!("{of} of {count} responses scored, mean reward {}{failures}", mean(&scored)),
    };
    Ok(Summary::new(text + &asked))
}

/// The mean of the rewards, for people.
fn mean(rewards: &[f64]) -> String {
    rounded(rewards.iter().sum::<f64>() / rewards.len() as f64)
}

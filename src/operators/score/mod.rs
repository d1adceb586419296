//! score: a reward for every response, by queries, reward models, servers, or a weighted sum of them.
//!
//! A part is a fixed slice of the responses in the order of their keys; what is committed is not scored again. Knows how sources are
//! added up; each source is a file of its own.

mod model;
mod problem;
mod query;
mod server;

use std::collections::{BTreeMap, HashMap};

pub use query::check_columns;
pub use server::client;

use super::support::reward_tree::{Reward, Term};
use super::{Context, OperatorError, Summary};
use crate::model::PromptContent;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::non_finite::NonFinite;
use crate::pipeline::spec::relational;
use crate::store::TableWriter;
use crate::tables::{TableKind, responses, rewards};
use problem::Problem;

/// Responses in one part when a model or a server scores them, unless the node's resources say otherwise.
const RESPONSES_PER_PART: usize = 256;

/// Scores the responses in the slot `responses`, asked by the prompts in the slot `prompts`.
pub(super) fn run(context: &Context, settings: &relational::Score) -> Result<Summary, OperatorError> {
    let reward = Reward::of(context.graph, context.task)?;
    let fingerprint = fingerprint(context)?;
    let mut all: Vec<responses::Row> = context.rows(Slot::Responses, responses::rows)?;
    all.sort_by(|a, b| (&a.prompt_id, a.sampled_iteration, a.response_index).cmp(&(&b.prompt_id, b.sampled_iteration, b.response_index)));
    let questions = if reward.is_relational() { HashMap::new() } else { questions(context)? };
    // Before anything is written, so that a query that gives no rewards leaves nothing behind.
    let source = Source::open(context, &reward, &all, settings.non_finite)?;
    let rows_per_part = if reward.is_relational() { all.len().max(1) } else { RESPONSES_PER_PART };
    let mut writer = context.writer(Some(TableKind::Rewards), all.len(), rows_per_part)?;
    let (label, missing) = (context.task.label(), writer.missing());
    let mut done = all.len() - missing.iter().map(|part| writer.rows_of(*part).len()).sum::<usize>();
    context.progress.started(&label, "responses", done as u64, all.len() as u64);
    for part in missing {
        context.check_stopped()?;
        let slice = all.get(writer.rows_of(part)).unwrap_or(&[]);
        let rows = score(context, &source, slice, &questions, &fingerprint, settings.non_finite);
        let rows = rows.map_err(|error| error.of(&writer.name_of(part)))?;
        writer.commit(part, &rewards::batch(&rows))?;
        done += slice.len();
        context.progress.advanced(&label, done as u64, 0);
    }
    finish(writer)
}

/// Which rewards these are: what fills the slot `reward`, and what fills the rewards that it names.
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

/// A prompt as sources other than queries see it.
struct Question {
    asked: PromptContent,
    reference_answer: Option<String>,
}

/// The prompts in the slot `prompts`, by id.
fn questions(context: &Context) -> Result<HashMap<String, Question>, OperatorError> {
    let prompts = context.prompts(Slot::Prompts)?;
    let mut answers = Vec::with_capacity(prompts.len());
    for batch in &prompts.batches {
        answers.extend(server::reference_answers(batch)?);
    }
    let question = |(prompt, reference_answer): (&super::Prompt, Option<String>)| {
        (prompt.id.clone(), Question { asked: prompt.content.clone(), reference_answer })
    };
    Ok(prompts.iter().zip(answers).map(question).collect())
}

/// A response that a source is to score.
struct Item<'a> {
    row: &'a responses::Row,
    /// What it answers; `None` when there are only queries, which look it up themselves.
    question: Option<&'a Question>,
}

impl Item<'_> {
    /// Which response it is, for errors.
    fn place(&self) -> String {
        format!("prompt_id {}, response_index {}", self.row.prompt_id, self.row.response_index)
    }

    fn question(&self) -> Result<&Question, OperatorError> {
        self.question
            .ok_or_else(|| OperatorError::Input(format!("expected the prompt of {}, found none in the table of prompts", self.place())))
    }
}

/// What a source says of a response.
#[derive(Clone, Debug, Default)]
struct Score {
    reward: f64,
    components: BTreeMap<String, f64>,
}

impl Score {
    /// A reward without components, which must be finite; `whose` says what gave it.
    fn plain(whose: &str, reward: f64) -> Result<Self, Problem> {
        let score = Self { reward, components: BTreeMap::new() };
        if reward.is_finite() { Ok(score) } else { Err(Problem::not_finite(whose, reward)) }
    }
}

/// What a source says of each of several responses: a score, or why this response has none.
type Scores = Vec<Result<Score, Problem>>;

/// A reward, ready to score.
enum Source<'a> {
    Query(query::Query),
    Model(Box<model::Model>),
    Server(Box<server::Server<'a>>),
    Sum(Vec<(f64, &'a str, Source<'a>)>),
}

impl<'a> Source<'a> {
    /// Runs the queries and loads the models.
    fn open(context: &'a Context, reward: &Reward<'a>, all: &[responses::Row], non_finite: NonFinite) -> Result<Self, OperatorError> {
        Ok(match reward {
            Reward::Query(sql) => Self::Query(query::Query::run(context, sql, all, non_finite)?),
            Reward::Model(at) => Self::Model(Box::new(model::Model::load(context, *at)?)),
            Reward::Server(settings) => Self::Server(Box::new(server::Server::open(context, settings)?)),
            Reward::Sum(terms) => {
                let open = |Term { weight, name, reward }: &Term<'a>| {
                    let source = Self::open(context, reward, all, non_finite);
                    Ok((*weight, *name, source.map_err(|error| error.of(&format!("component {name}")))?))
                };
                Self::Sum(terms.iter().map(open).collect::<Result<_, OperatorError>>()?)
            }
        })
    }

    fn score(&self, context: &Context, items: &[Item]) -> Result<Scores, OperatorError> {
        match self {
            Self::Query(query) => Ok(query.score(items)),
            Self::Model(model) => model.score(context, items),
            Self::Server(server) => server.score(context, items),
            Self::Sum(terms) => {
                let mut sums: Scores = vec![Ok(Score::default()); items.len()];
                for (weight, name, source) in terms {
                    let scores = source.score(context, items).map_err(|error| error.of(&format!("component {name}")))?;
                    for (sum, score) in sums.iter_mut().zip(scores) {
                        add(sum, *weight, name, score);
                    }
                }
                let finite = |sum: Score| match sum.reward.is_finite() {
                    true => Ok(sum),
                    false => Err(Problem::not_finite("weighted sum", sum.reward)),
                };
                Ok(sums.into_iter().map(|sum| sum.and_then(finite)).collect())
            }
        }
    }
}

/// Adds one term to a sum. It stays as the component `name`, and its own components as `name.theirs`.
fn add(sum: &mut Result<Score, Problem>, weight: f64, name: &str, score: Result<Score, Problem>) {
    match (sum.as_mut(), score) {
        (Ok(sum), Ok(score)) => {
            sum.reward += weight * score.reward;
            sum.components.insert(name.to_string(), score.reward);
            sum.components.extend(score.components.into_iter().map(|(own, value)| (format!("{name}.{own}"), value)));
        }
        (Ok(_), Err(problem)) => *sum = Err(problem.of(&format!("component {name}"))),
        (Err(_), _) => {}
    }
}

/// The rewards of some responses; one that is an error stays one. Where rewards that are not finite stop the node, the first one is its error.
fn score(
    context: &Context,
    source: &Source,
    slice: &[responses::Row],
    questions: &HashMap<String, Question>,
    fingerprint: &str,
    non_finite: NonFinite,
) -> Result<Vec<rewards::Row>, OperatorError> {
    let answered = slice.iter().filter(|row| row.error.is_none());
    let items: Vec<Item> = answered.map(|row| Item { row, question: questions.get(&row.prompt_id) }).collect();
    let scores = if items.is_empty() { Vec::new() } else { source.score(context, &items)? };
    if non_finite == NonFinite::Stop {
        let stops = |(item, score): (&Item, &Result<Score, Problem>)| score.as_ref().err()?.stop(&item.place());
        if let Some(error) = items.iter().zip(&scores).find_map(stops) {
            return Err(OperatorError::Input(error));
        }
    }
    let mut scores = scores.into_iter();
    let row = |response: &responses::Row| {
        let scored = match &response.error {
            Some(error) => Err(error.clone()),
            // Every source gives one score an item, so there is a next one.
            None => {
                scores.next().map_or_else(|| Err("it was not scored".to_string()), |score| score.map_err(|problem| problem.to_string()))
            }
        };
        let (reward, components, error) = match scored {
            Ok(Score { reward, components }) => (Some(reward), (!components.is_empty()).then_some(components), None),
            Err(error) => (None, None, Some(error)),
        };
        let (prompt_id, reward_fingerprint) = (response.prompt_id.clone(), fingerprint.to_string());
        rewards::Row {
            prompt_id,
            sampled_iteration: response.sampled_iteration,
            response_index: response.response_index,
            reward,
            reward_fingerprint,
            components,
            error,
        }
    };
    Ok(slice.iter().map(row).collect())
}

/// Totals over all committed parts, so that they do not depend on how often the node was interrupted.
fn finish(writer: TableWriter) -> Result<Summary, OperatorError> {
    let (mut values, mut non_finite) = (Vec::new(), 0);
    for batch in writer.committed()? {
        for row in rewards::rows(&batch)? {
            values.push(row.reward);
            non_finite += usize::from(row.error.is_some_and(|error| problem::is_not_finite(&error)));
        }
    }
    let scored: Vec<f64> = values.iter().copied().flatten().collect();
    let mean = scored.iter().sum::<f64>() / scored.len().max(1) as f64;
    let (count, failed) = (values.len(), values.len() - scored.len());
    let mut failures = if failed > 0 { format!(", {failed} without a reward") } else { String::new() };
    let mut counts = BTreeMap::from([("responses".to_string(), count as i64), ("scored".to_string(), scored.len() as i64)]);
    if non_finite > 0 {
        failures += &format!(", of {non_finite} it is not finite");
        counts.insert("non_finite".to_string(), non_finite as i64);
    }
    writer.finish(counts)?;
    Ok(Summary::new(format!("{count} responses scored, mean reward {mean:.3}{failures}")))
}

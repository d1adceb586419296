//! The policy in the servers of a node: loaded into each before it is asked, and again after a
//! restart.
//!
//! An answer counts once its server has told the policy's version after it came, and has had no
//! other since it joined. So an answer of other weights is never a row. Knows policies and servers,
//! not prompts and rows.

use std::path::{PathBuf, absolute};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::super::super::OperatorError;
use super::job::{ServerJob, seconds};
use super::program;
use crate::dag::fingerprint::Fingerprint;
use crate::pipeline::slot::Slot;
use crate::pipeline::spec::engine::Engine;
use crate::pipeline::spec::update::{Update, UpdateProgram};
use crate::remote::{Admin, Interface, Patience, RemoteError, ServerKind, Stopped, Weights, in_order};
use crate::store::Manifest;

/// The longest answer of a server about its version.
const LONGEST_LOOK: Duration = Duration::from_secs(30);
/// The most retries of such a question: an answer of the policy waits meanwhile.
const MOST_LOOKS: usize = 3;
/// The beginning of a version.
const PREFIX: &str = "optune-";
/// The length of the hash in a version.
const HASH_CHARACTERS: usize = 32;

/// The policy of a node, for its servers.
pub(super) struct PolicyUpdate<'a> {
    job: &'a ServerJob<'a>,
    how: &'a Update,
    version: String,
    /// Adapters of this run that no server needs any more.
    replaced: Vec<String>,
    path: OnceLock<Result<PathBuf, String>>,
}

/// The policy in one server, or in all those behind a router.
pub(super) struct ServerUpdate<'a> {
    policy: &'a PolicyUpdate<'a>,
    urls: Vec<&'a str>,
    confirmed: Mutex<Confirmed>,
}

/// What is known of a server since it joined.
#[derive(Default)]
struct Confirmed {
    /// Counts the times at which the weights may have changed.
    round: u64,
    /// The calls that tell the version; none where the server does not tell it.
    witnesses: Vec<Admin>,
    /// The begin of the last question with the policy's version as its answer, in this round.
    since: Option<Instant>,
}

/// Whether an answer is the policy's.
pub(super) enum Verdict {
    Confirmed,
    /// The server has joined again since it was asked.
    Outdated,
    /// The server has other weights, or does not tell. It has to join again.
    Refused(String),
    Stopped,
}

/// Checks the addresses of an engine's servers, and its key.
///
/// # Errors
/// An invalid URL, or a missing key.
pub(super) fn check(engine: &Engine) -> Result<(), OperatorError> {
    let count = if engine.update.is_some() { engine.openai.iter().count() } else { 0 };
    for url in (0..count).flat_map(|index| engine.admins(index)) {
        admin(engine, url, Interface::Vllm)?;
    }
    Ok(())
}

fn admin(engine: &Engine, url: &str, interface: Interface) -> Result<Admin, OperatorError> {
    let key = engine.api_key_env.as_ref().map(|name| name.value.as_str());
    let retries = engine.retries as usize;
    let look = LONGEST_LOOK.min(seconds(engine.timeout_seconds));
    let short = Patience { timeout: look, retries: retries.min(MOST_LOOKS), ..Patience::default() };
    let loading = Patience { timeout: seconds(engine.serve_timeout_seconds), retries, ..Patience::default() };
    Ok(Admin::new(url, key, interface, short, loading)?)
}

impl<'a> PolicyUpdate<'a> {
    /// The node's policy; `None` where nothing is to be loaded: without `update`, and for a whole
    /// model where adapters are loaded, since the servers have it already.
    pub(super) fn new(job: &'a ServerJob<'a>) -> Result<Option<Self>, OperatorError> {
        let Some(how) = job.engine.update.as_ref().map(|update| &update.value) else { return Ok(None) };
        if *how == Update::Lora && job.checkpoint.adapter().is_none() {
            return Ok(None);
        }
        let context = job.context;
        let made = context.task.input(Slot::Policy).and_then(|input| context.graph.task(input));
        let manifest = made.map_or(Ok(None), |task| context.run.manifest(&task.output_key()))?;
        let version = version(&context.fingerprint_of(Slot::Policy)?, manifest.as_ref());
        let mut replaced = Vec::new();
        if *how == Update::Lora {
            for task in context.graph.tasks.iter().filter(|task| task.operator.lora().is_some()) {
                let manifest = context.run.manifest(&task.output_key())?.filter(|manifest| manifest.complete);
                replaced.extend(manifest.map(|manifest| self::version(&manifest.fingerprint, Some(&manifest))));
            }
            replaced.retain(|other| *other != version);
        }
        Ok(Some(Self { job, how, version, replaced, path: OnceLock::new() }))
    }

    /// The name of the policy in requests.
    pub(super) fn model(&self) -> &str {
        if *self.how == Update::Lora { &self.version } else { &self.job.engine.model.value }
    }

    /// The kind of the servers, where the way of the update decides it.
    pub(super) fn kind(&self) -> Option<ServerKind> {
        match self.how {
            Update::Vllm | Update::Lora => Some(ServerKind::Vllm),
            Update::Sglang => Some(ServerKind::Sglang),
            Update::Command(_) => None,
        }
    }

    /// Whether the servers list the policy under its name. SGLang lists the path of the last
    /// update.
    pub(super) fn is_listed(&self) -> bool {
        *self.how != Update::Sglang
    }

    /// The calls of a server of this kind; `None` where it does not tell its version.
    fn interface(&self, kind: Option<ServerKind>) -> Option<Interface> {
        match (self.how, kind) {
            (Update::Lora, _) => Some(Interface::Lora),
            (Update::Vllm, _) | (Update::Command(_), Some(ServerKind::Vllm)) => Some(Interface::Vllm),
            (Update::Sglang, _) | (Update::Command(_), Some(ServerKind::Sglang)) => Some(Interface::Sglang),
            (Update::Command(_), _) => None,
        }
    }

    /// The directory of the policy, as the servers load it. A merged copy is made once.
    fn path(&self) -> Result<&PathBuf, OperatorError> {
        let made = self.path.get_or_init(|| {
            let context = self.job.context;
            let path = if *self.how == Update::Lora { context.model(Slot::Policy) } else { context.whole_model(Slot::Policy) };
            let path = path.map_err(|error| error.to_string())?;
            absolute(&path).map_err(|error| format!("{}: {error}", path.display()))
        });
        made.as_ref().map_err(|problem| OperatorError::Failed(problem.clone()))
    }
}

/// A policy's version, from its fingerprint and the hashes of its files: on a GPU one fingerprint
/// can have several files.
fn version(fingerprint: &Fingerprint, manifest: Option<&Manifest>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(fingerprint.to_string().as_bytes());
    for file in manifest.into_iter().flat_map(|manifest| &manifest.files) {
        hasher.update(format!("\n{} {}", file.file, file.blake3).as_bytes());
    }
    format!("{PREFIX}{}", &hasher.finalize().to_hex().as_str()[..HASH_CHARACTERS])
}

impl<'a> ServerUpdate<'a> {
    /// Of the server at `index` of the engine's.
    pub(super) fn new(policy: &'a PolicyUpdate<'a>, index: usize) -> Self {
        Self { policy, urls: policy.job.engine.admins(index), confirmed: Mutex::default() }
    }

    pub(super) fn policy(&self) -> &'a PolicyUpdate<'a> {
        self.policy
    }

    fn lock(&self) -> MutexGuard<'_, Confirmed> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls of all its servers.
    fn admins(&self, interface: Interface) -> Result<Vec<Admin>, OperatorError> {
        self.urls.iter().map(|url| admin(self.policy.job.engine, url, interface)).collect()
    }

    /// Loads the policy, unless the server tells its version already. Returns the round, and the
    /// words for the journal.
    ///
    /// # Errors
    /// It does not get there, or a server of several behind a router does not answer.
    pub(super) fn load(&self, is_over: Stopped) -> Result<(u64, String), OperatorError> {
        let begun = Instant::now();
        let round = {
            let mut confirmed = self.lock();
            *confirmed = Confirmed { round: confirmed.round + 1, ..Confirmed::default() };
            confirmed.round
        };
        let mut loaded = 0;
        match self.policy.how {
            Update::Command(UpdateProgram(words)) => {
                for url in &self.urls {
                    program::run(self.policy.job, words, url, self.policy.path()?, &self.policy.version, is_over)?;
                    loaded += 1;
                }
            }
            Update::Vllm | Update::Sglang | Update::Lora => {
                let interface = self.policy.interface(None);
                let admins = interface.map_or(Ok(Vec::new()), |interface| self.admins(interface))?;
                for result in in_order(&admins, admins.len(), is_over, |admin| self.load_one(admin, is_over)) {
                    loaded += usize::from(result.ok_or(OperatorError::Stopped)??);
                }
                self.lock().witnesses = admins;
            }
        }
        let version = &self.policy.version;
        let words =
            if loaded == 0 { format!("has {version}") } else { format!("{version} loaded in {:.1} s", begun.elapsed().as_secs_f64()) };
        Ok((round, words))
    }

    /// Loads the policy into one server. Returns whether this was needed.
    fn load_one(&self, admin: &Admin, is_over: Stopped) -> Result<bool, OperatorError> {
        let PolicyUpdate { version, replaced, .. } = self.policy;
        match admin.once().check(version, is_over) {
            Ok(()) => {
                admin.resume(is_over)?;
                return Ok(false);
            }
            Err(RemoteError::OtherPolicy { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let path = self.policy.path()?;
        admin.load(&Weights { path, version, replaced }, is_over)?;
        Ok(true)
    }

    /// Finds out whether a server that a program has updated tells the version. Returns the words
    /// for the journal, if it does not.
    pub(super) fn find_witnesses(&self, kind: ServerKind, is_over: Stopped) -> Result<Option<String>, OperatorError> {
        if !matches!(self.policy.how, Update::Command(_)) {
            return Ok(None);
        }
        let admins = self.policy.interface(Some(kind)).map_or(Ok(Vec::new()), |interface| self.admins(interface))?;
        for admin in &admins {
            match admin.check(&self.policy.version, is_over) {
                Ok(()) => {}
                Err(RemoteError::Stopped) => return Err(OperatorError::Stopped),
                Err(error) => {
                    let problem = format!("does not tell the policy's version, so its answers are not checked for it: {error}");
                    return Ok(Some(problem));
                }
            }
        }
        if admins.is_empty() {
            let problem = format!("a server of the kind {} tells no version, so its answers are not checked for it", kind.name());
            return Ok(Some(problem));
        }
        self.lock().witnesses = admins;
        Ok(None)
    }

    /// Whether an answer to a question of this round is the policy's; it came just now. `told` is
    /// the version in the answer itself.
    pub(super) fn confirm(&self, round: u64, told: Option<&str>, stopped: Stopped) -> Verdict {
        let came = Instant::now();
        let version = &self.policy.version;
        let mut confirmed = self.lock();
        if confirmed.round != round {
            return Verdict::Outdated;
        }
        if confirmed.witnesses.is_empty() {
            return Verdict::Confirmed;
        }
        // An adapter's answers tell the version of the model below it.
        match told.filter(|_| *self.policy.how != Update::Lora) {
            Some(told) if told == version => return Verdict::Confirmed,
            Some(told) => {
                confirmed.round += 1;
                return Verdict::Refused(format!("expected an answer of the policy {version}, found one of {told}"));
            }
            None => {}
        }
        // One question confirms all answers that came before it.
        if confirmed.since.is_some_and(|since| since >= came) {
            return Verdict::Confirmed;
        }
        let begun = Instant::now();
        for result in in_order(&confirmed.witnesses, confirmed.witnesses.len(), stopped, |admin| admin.check(version, stopped)) {
            match result {
                Some(Ok(())) => {}
                None | Some(Err(RemoteError::Stopped)) => return Verdict::Stopped,
                Some(Err(error)) => {
                    confirmed.round += 1;
                    return Verdict::Refused(error.to_string());
                }
            }
        }
        confirmed.since = Some(begun);
        Verdict::Confirmed
    }
}

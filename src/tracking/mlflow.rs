//! An MLflow tracking server, by its REST interface (mlflow.org/docs/latest/rest-api.html): one run
//! there for a run here.
//!
//! The state of the server is written down beside the run, so that the next process goes on with
//! the same run there. If the recipe of an output changes with the pipeline, another run is begun
//! there. If the answer to a metric is lost, the metric is sent again with the same step and time;
//! MLflow takes both for one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::TrackingError;
use super::series::{Point, Series};
use super::sink::{Ended, Sink};
use crate::dag::fingerprint::Fingerprint;
use crate::disk;
use crate::pipeline::spec::tracking;
use crate::remote::{Client, Patience, RemoteError};
use crate::store::{OutputKey, Run};

/// MLflow's own limits of one request.
const MOST_METRICS: usize = 1_000;
const MOST_PARAMS: usize = 100;
const MOST_PARAM_CHARACTERS: usize = 6_000;

/// The variable of MLflow's clients for a token.
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";

/// A server that is slow to answer is asked again at the next look.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Mlflow {
    client: Client,
    experiment: String,
    /// The experiment's id, once it is known.
    experiment_id: Option<String>,
    /// The run's name here and there.
    name: String,
    params: Vec<(String, String)>,
    file: PathBuf,
    outputs: BTreeMap<String, Fingerprint>,
    sent: Option<Sent>,
    /// The status last sent for the run's end.
    status: Option<&'static str>,
}

/// The data sent to a server so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sent {
    uri: String,
    experiment: String,
    run_id: String,
    /// Whether it knows the params.
    #[serde(default)]
    params: bool,
    /// By `<node>/<tag>`: how many points.
    series: BTreeMap<String, usize>,
    /// The recipes of the outputs of these points.
    outputs: BTreeMap<String, Fingerprint>,
}

impl Mlflow {
    /// `outputs` are the sources of the series.
    pub fn new(
        run: &Run,
        server: &tracking::Mlflow,
        outputs: &HashMap<OutputKey, Fingerprint>,
        params: Vec<(String, String)>,
    ) -> Result<Self, RemoteError> {
        let key = std::env::var_os(TOKEN).map(|_| TOKEN);
        let client = Client::new(&server.uri.value, key, Patience { timeout: TIMEOUT, retries: 0, first_wait: Duration::ZERO })?;
        let file = run.folder().join("mlflow.json");
        // An unreadable record counts as an empty one.
        let sent = disk::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Sent>(&bytes).ok());
        let experiment = server.experiment.value.trim().to_string();
        let outputs: BTreeMap<String, Fingerprint> = outputs.iter().map(|(place, recipe)| (place.to_string(), recipe.clone())).collect();
        let same = |sent: &Sent| outputs.iter().all(|(place, recipe)| sent.outputs.get(place).is_none_or(|before| before == recipe));
        let sent = sent.filter(|sent| sent.uri == client.url() && sent.experiment == experiment && same(sent));
        let sent = sent.map(|sent| Sent { outputs: outputs.clone(), ..sent });
        Ok(Self { client, experiment, experiment_id: None, name: run.name().to_string(), params, file, outputs, sent, status: None })
    }

    fn post<T>(&self, path: &str, body: &Value, read: impl Fn(Value) -> Result<T, String>) -> Result<T, RemoteError> {
        self.client.post(&format!("/api/2.0/mlflow/{path}"), body, &|| false, read)
    }

    fn tell(&self, path: &str, body: &Value) -> Result<(), RemoteError> {
        self.post(path, body, |_| Ok(()))
    }

    /// The id of the experiment; the experiment is made if there is none.
    fn experiment(&self) -> Result<String, RemoteError> {
        let search = json!({ "filter": format!("name = '{}'", self.experiment), "max_results": 1 });
        let found = self.post("experiments/search", &search, |answer| Ok(text(&answer, "/experiments/0/experiment_id").ok()))?;
        match found {
            Some(id) => Ok(id),
            None => self.post("experiments/create", &json!({ "name": self.experiment }), |answer| text(&answer, "/experiment_id")),
        }
    }

    /// Begins a run there.
    fn begin(&mut self) -> Result<Sent, TrackingError> {
        let experiment_id = match self.experiment_id.clone() {
            Some(id) => id,
            None => self.experiment()?,
        };
        self.experiment_id = Some(experiment_id.clone());
        let tag = |key: &str, value: &str| json!({ "key": key, "value": value });
        let tags =
            [tag("mlflow.source.name", "optune"), tag("mlflow.source.type", "LOCAL"), tag("optune.version", env!("CARGO_PKG_VERSION"))];
        let body = json!({ "experiment_id": experiment_id, "run_name": self.name, "start_time": now(), "tags": tags });
        let run_id = self.post("runs/create", &body, |answer| text(&answer, "/run/info/run_id"))?;
        let sent = Sent {
            uri: self.client.url().to_string(),
            experiment: self.experiment.clone(),
            run_id,
            params: false,
            series: BTreeMap::new(),
            outputs: self.outputs.clone(),
        };
        // Written down first: a process ending here leaves no unknown run behind.
        self.write(&sent)?;
        Ok(sent)
    }

    /// Sends the params, which a server takes again as long as they are the same.
    fn send_params(&self, sent: &mut Sent) -> Result<(), TrackingError> {
        for params in self.params.chunks(MOST_PARAMS) {
            let param = |(key, value): &(String, String)| json!({ "key": key, "value": value.chars().take(MOST_PARAM_CHARACTERS).collect::<String>() });
            self.tell("runs/log-batch", &json!({ "run_id": sent.run_id, "params": params.iter().map(param).collect::<Vec<_>>() }))?;
        }
        sent.params = true;
        self.write(sent)
    }

    fn write(&self, sent: &Sent) -> Result<(), TrackingError> {
        let failed = |source| TrackingError::Write { path: self.file.clone(), source };
        let text = serde_json::to_vec_pretty(sent).map_err(|error| failed(error.into()))?;
        let temporary = self.file.with_extension("json.new");
        disk::write(&temporary, text).and_then(|()| disk::rename(&temporary, &self.file)).map_err(failed)
    }

    /// Sends the points missing in `sent`, and notes them there.
    fn send(&self, sent: &mut Sent, series: &Series) -> Result<(), TrackingError> {
        let mut fresh = Vec::new();
        for (name, points) in series {
            let key = key(&name.node, &name.tag);
            let known = sent.series.get(&key).copied().unwrap_or(0);
            fresh.extend(points.iter().skip(known).map(|point| (key.clone(), *point)));
        }
        for batch in fresh.chunks(MOST_METRICS) {
            let metric =
                |(key, point): &(String, Point)| json!({ "key": key, "value": point.value, "timestamp": point.at, "step": point.step });
            self.tell("runs/log-batch", &json!({ "run_id": sent.run_id, "metrics": batch.iter().map(metric).collect::<Vec<_>>() }))?;
            batch.iter().for_each(|(key, _)| *sent.series.entry(key.clone()).or_default() += 1);
            self.write(sent)?;
        }
        Ok(())
    }

    /// Tells the status, unless it was told last.
    fn set_status(&mut self, sent: &Sent, status: &'static str) -> Result<(), TrackingError> {
        if self.status == Some(status) {
            return Ok(());
        }
        let mut body = json!({ "run_id": sent.run_id, "status": status });
        if status != "RUNNING" {
            body["end_time"] = json!(now());
        }
        self.tell("runs/update", &body)?;
        self.status = Some(status);
        Ok(())
    }
}

impl Sink for Mlflow {
    fn name(&self) -> &'static str {
        "mlflow"
    }

    fn show(&mut self, series: &Series) -> Result<(), TrackingError> {
        let mut sent = match self.sent.take() {
            Some(sent) => sent,
            None => self.begin()?,
        };
        let told = self.set_status(&sent, "RUNNING").and_then(|()| if sent.params { Ok(()) } else { self.send_params(&mut sent) });
        let result = told.and_then(|()| self.send(&mut sent, series));
        // If the run is gone, the next look begins it again.
        let gone = matches!(&result, Err(TrackingError::Remote(RemoteError::Status { status: 404, .. })));
        if gone {
            // Maybe with its experiment.
            self.experiment_id = None;
            self.sent = None;
        } else {
            self.sent = Some(sent);
        }
        result
    }

    fn end(&mut self, ended: Ended) -> Result<(), TrackingError> {
        let status = match ended {
            Ended::Finished => "FINISHED",
            Ended::Failed => "FAILED",
            Ended::Interrupted => "KILLED",
        };
        self.sent.clone().map_or(Ok(()), |sent| self.set_status(&sent, status))
    }
}

/// A metric's name, in the characters allowed by MLflow.
fn key(node: &str, tag: &str) -> String {
    let allowed = |c: char| if c.is_alphanumeric() || "_-./ ".contains(c) { c } else { '_' };
    format!("{node}/{tag}").chars().map(allowed).collect()
}

fn text(answer: &Value, pointer: &str) -> Result<String, String> {
    let found = answer.pointer(pointer).and_then(Value::as_str).map(String::from);
    found.ok_or_else(|| format!("expected a text at {pointer}, found none"))
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

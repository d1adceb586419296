//! A simulation of a fleet that samples: replicas with slots, responses of different lengths,
//! parts, and failures at random times.
//!
//! As in `src/remote/fleet`: one queue in the order of the rows, a failed response goes first, a
//! failed replica joins again later. As in `src/operators/generate/server`: a part is on the disk
//! when all of its rows are there, and a kill of the process loses the rest. Knows no network.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The longest response, in tokens.
const MOST_TOKENS: f64 = 512.0;
/// The mean of the lengths before they are cut there.
const MEAN_TOKENS: f64 = 340.0;

/// What is simulated. Times are in seconds.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub responses: usize,
    /// Responses in a part.
    pub part: usize,
    pub replicas: usize,
    /// Requests at once to each replica.
    pub slots: usize,
    /// Tokens a second of a replica with all slots busy.
    pub rate: f64,
    /// The mean time between failures of one replica; infinite for none.
    pub replica_fails: f64,
    /// Until it has its weights again.
    pub repair: f64,
    /// The mean time between kills of the process; infinite for none.
    pub killed: f64,
    /// Until the same command asks again.
    pub restart: f64,
    /// The first replica is this many times slower.
    pub slower: f64,
    /// Whether each replica has a fixed share instead of the queue.
    pub has_shares: bool,
}

impl Default for Scenario {
    /// The 70B model on eight GPUs, two a replica.
    fn default() -> Self {
        Self {
            responses: 96_000,
            part: 188,
            replicas: 4,
            slots: 64,
            rate: 4_205.0,
            replica_fails: f64::INFINITY,
            repair: 300.0,
            killed: f64::INFINITY,
            restart: 60.0,
            slower: 1.0,
            has_shares: false,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The time until the last response.
    pub seconds: f64,
    /// That time by the time of the same tokens on the same replicas without failures and gaps.
    pub over_ideal: f64,
    /// Tokens sampled in vain, by the tokens of the responses.
    pub lost: f64,
    pub kills: usize,
    pub failures: usize,
    pub answered: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Answer { replica: usize, item: usize, life: usize },
    Fails { replica: usize },
    Back { replica: usize },
    Kill,
    Asks,
}

struct World<'a> {
    scenario: &'a Scenario,
    random: ChaCha8Rng,
    tokens: Vec<f64>,
    now: f64,
    events: BinaryHeap<Reverse<(u64, usize, usize)>>,
    planned: Vec<Event>,
    queues: Vec<VecDeque<usize>>,
    /// The replica of each response in flight, and its begin.
    asked: BTreeMap<usize, (usize, f64)>,
    answered: Vec<bool>,
    /// Rows of each part that are not there, and of all parts.
    open: Vec<usize>,
    left: usize,
    free: Vec<usize>,
    is_up: Vec<bool>,
    is_asking: bool,
    /// Raised by everything that ends requests in flight.
    life: Vec<usize>,
    lost: f64,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, seed: u64) -> Outcome {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let tokens: Vec<f64> = (0..scenario.responses).map(|_| exponential(&mut random, MEAN_TOKENS).ceil().min(MOST_TOKENS)).collect();
    let total: f64 = tokens.iter().sum();
    let queues = if scenario.has_shares { scenario.replicas } else { 1 };
    let parts = scenario.responses.div_ceil(scenario.part);
    let mut world = World {
        scenario,
        random,
        tokens,
        now: 0.0,
        events: BinaryHeap::new(),
        planned: Vec::new(),
        queues: (0..queues).map(|queue| (queue..scenario.responses).step_by(queues).collect()).collect(),
        asked: BTreeMap::new(),
        answered: vec![false; scenario.responses],
        open: (0..parts).map(|part| scenario.part.min(scenario.responses - part * scenario.part)).collect(),
        left: scenario.responses,
        free: vec![scenario.slots; scenario.replicas],
        is_up: vec![true; scenario.replicas],
        is_asking: true,
        life: vec![0; scenario.replicas],
        lost: 0.0,
    };
    let (kills, failures) = world.go();
    let rates: f64 = (0..scenario.replicas).map(|replica| scenario.rate / scenario.slower_at(replica)).sum();
    let answered = world.answered.iter().filter(|answered| **answered).count();
    Outcome { seconds: world.now, over_ideal: world.now * rates / total, lost: world.lost / total, kills, failures, answered }
}

impl Scenario {
    fn slower_at(&self, replica: usize) -> f64 {
        if replica == 0 { self.slower } else { 1.0 }
    }
}

impl World<'_> {
    /// Goes on until everything is answered. Returns the kills and the failures of replicas.
    fn go(&mut self) -> (usize, usize) {
        let (mut kills, mut failures) = (0, 0);
        for replica in 0..self.scenario.replicas {
            self.plan_random(self.scenario.replica_fails, Event::Fails { replica });
        }
        self.plan_random(self.scenario.killed, Event::Kill);
        self.ask();
        while self.left > 0 {
            let Some(Reverse((time, _, event))) = self.events.pop() else { panic!("nothing goes on") };
            self.now = f64::from_bits(time);
            match self.planned[event] {
                Event::Answer { replica, item, life } if life == self.life[replica] => {
                    self.asked.remove(&item);
                    self.free[replica] += 1;
                    self.answered[item] = true;
                    self.open[item / self.scenario.part] -= 1;
                    self.left -= 1;
                }
                Event::Answer { .. } => continue,
                Event::Fails { replica } => {
                    failures += 1;
                    self.end_requests(|of| of == replica);
                    self.is_up[replica] = false;
                    self.plan(self.scenario.repair, Event::Back { replica });
                }
                Event::Back { replica } => {
                    self.is_up[replica] = true;
                    self.plan_random(self.scenario.replica_fails, Event::Fails { replica });
                }
                Event::Kill => {
                    kills += 1;
                    self.end_requests(|_| true);
                    self.forget();
                    self.is_asking = false;
                    self.plan(self.scenario.restart, Event::Asks);
                }
                Event::Asks => {
                    self.is_asking = true;
                    self.plan_random(self.scenario.killed, Event::Kill);
                }
            }
            self.ask();
        }
        (kills, failures)
    }

    fn plan(&mut self, after: f64, event: Event) {
        // Times are not negative: their bits have their order.
        self.events.push(Reverse(((self.now + after).to_bits(), self.planned.len(), self.planned.len())));
        self.planned.push(event);
    }

    fn plan_random(&mut self, mean: f64, event: Event) {
        if mean.is_finite() {
            let after = exponential(&mut self.random, mean);
            self.plan(after, event);
        }
    }

    /// Fills the free slots.
    fn ask(&mut self) {
        for replica in 0..self.scenario.replicas {
            let queue = if self.scenario.has_shares { replica } else { 0 };
            while self.is_asking && self.is_up[replica] && self.free[replica] > 0 {
                let Some(item) = self.queues[queue].pop_front() else { break };
                self.free[replica] -= 1;
                self.asked.insert(item, (replica, self.now));
                let a_token = self.scenario.slots as f64 / self.scenario.rate * self.scenario.slower_at(replica);
                self.plan(self.tokens[item] * a_token, Event::Answer { replica, item, life: self.life[replica] });
            }
        }
    }

    /// Requests to some replicas end without an answer, and go to the front of the queue.
    fn end_requests(&mut self, of: impl Fn(usize) -> bool) {
        let ended: Vec<(usize, (usize, f64))> =
            self.asked.iter().filter(|(_, (replica, _))| of(*replica)).map(|(item, asked)| (*item, *asked)).collect();
        for (item, (replica, begun)) in ended.into_iter().rev() {
            self.asked.remove(&item);
            self.free[replica] += 1;
            let a_token = self.scenario.slots as f64 / self.scenario.rate * self.scenario.slower_at(replica);
            self.lost += (self.now - begun) / a_token;
            let queue = item % self.queues.len();
            self.queues[queue].push_front(item);
        }
        for replica in (0..self.scenario.replicas).filter(|replica| of(*replica)) {
            self.life[replica] += 1;
        }
    }

    /// The process loses what is in no whole part.
    fn forget(&mut self) {
        for item in 0..self.scenario.responses {
            let part = item / self.scenario.part;
            if self.answered[item] && self.open[part] > 0 {
                self.answered[item] = false;
                self.lost += self.tokens[item];
                let queue = item % self.queues.len();
                self.queues[queue].push_front(item);
                self.open[part] += 1;
                self.left += 1;
            }
        }
        for queue in &mut self.queues {
            queue.make_contiguous().sort_unstable();
        }
    }
}

/// A time by the exponential law.
fn exponential(random: &mut ChaCha8Rng, mean: f64) -> f64 {
    let share = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    -mean * (1.0 - share).ln()
}

#[test]
fn every_response_is_answered_and_losses_are_those_of_the_law() {
    let calm = run(&Scenario::default(), 1);
    assert_eq!((calm.answered, calm.lost, calm.kills, calm.failures), (96_000, 0.0, 0, 0));
    assert!(calm.over_ideal >= 1.0 && calm.over_ideal < 1.01, "{calm:?}");
    assert_eq!(calm, run(&Scenario::default(), 1));
    let wild = Scenario { replica_fails: 400.0, killed: 200.0, ..Scenario::default() };
    let wild = run(&wild, 2);
    assert!(wild.answered == 96_000 && wild.kills > 5 && wild.failures > 10, "{wild:?}");

    // A failure ends the requests of a replica. One in flight at a random time has, on average, the
    // mean of the squared lengths by twice the mean length behind it.
    let failing = Scenario { replica_fails: 300.0, ..Scenario::default() };
    let outcome = run(&failing, 3);
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let lengths: Vec<f64> = (0..96_000).map(|_| exponential(&mut random, MEAN_TOKENS).ceil().min(MOST_TOKENS)).collect();
    let (sum, squares) = lengths.iter().fold((0.0, 0.0), |(sum, squares), length| (sum + length, squares + length * length));
    let expected = outcome.failures as f64 * failing.slots as f64 * squares / (2.0 * sum) / sum;
    assert!((outcome.lost / expected - 1.0).abs() < 0.1, "{} instead of {expected}", outcome.lost);

    // A kill costs the requests in flight, and of a large part half on average.
    let lost = |part: usize| run(&Scenario { part, killed: 300.0, ..Scenario::default() }, 4);
    let [small, large] = [lost(2), lost(9_600)];
    assert!(small.lost < large.lost / 3.0, "{small:?}, {large:?}");
    let slow = |has_shares: bool| run(&Scenario { slower: 10.0, has_shares, ..Scenario::default() }, 5).over_ideal;
    assert!(slow(false) < 1.1 && slow(true) > 5.0, "{} and {}", slow(false), slow(true));
}

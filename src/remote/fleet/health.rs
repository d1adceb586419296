//! The health of a server, judged by its answers.
//!
//! After a few failures in a row a server rests, each time twice as long, and then has to join
//! again. Knows neither items nor requests.

use std::time::{Duration, Instant};

/// So many failures in a row, and a server rests.
const FAILURES_IN_A_ROW: u32 = 3;

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// What a server did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Its address.
    pub url: String,
    /// Items that it answered.
    pub answers: u64,
    /// Requests without a usable answer.
    pub failures: u64,
    /// How often it was left.
    pub rests: u64,
    /// The time of its answers, in seconds, all requests added up.
    pub seconds: f64,
}

/// Why a server cannot be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Absence {
    /// The reason.
    pub problem: String,
    /// Whether waiting does not help: the server is the wrong one.
    pub is_final: bool,
}

/// A server of a fleet.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) statistics: Statistics,
    /// Whether it may be asked.
    pub(super) is_member: bool,
    /// Whether a thread is joining it.
    pub(super) is_joining: bool,
    /// The number of its requests in flight.
    pub(super) asked: usize,
    rests_until: Option<Instant>,
    failures: u32,
    /// Rests since its last answer.
    pub(super) rests: u32,
    /// Why it is no member.
    pub(super) absence: Option<Absence>,
}

impl Health {
    pub(super) fn new(url: &str) -> Self {
        Self {
            statistics: Statistics { url: url.to_string(), ..Statistics::default() },
            is_member: false,
            is_joining: false,
            asked: 0,
            rests_until: None,
            failures: 0,
            rests: 0,
            absence: None,
        }
    }

    /// Whether it rests at this moment.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// Whether it takes items at this moment. After a rest one answer has to come first.
    pub(super) fn works(&self, now: Instant) -> bool {
        self.is_member && !self.rests(now)
    }

    /// Whether it takes one more item: after a rest one at a time, until the first answer.
    pub(super) fn has_room(&self) -> bool {
        self.rests == 0 || self.asked == 0
    }

    pub(super) fn joined(&mut self) {
        self.is_member = true;
        self.failures = 0;
        self.rests_until = None;
        self.absence = None;
    }

    pub(super) fn answered(&mut self, seconds: f64) {
        self.statistics.answers += 1;
        self.statistics.seconds += seconds;
        self.failures = 0;
        self.rests = 0;
    }

    /// Counts a failure. Returns whether the server leaves. One that asks for a wait has it, and
    /// stays a member.
    pub(super) fn failed(&mut self, problem: &str, wait: Option<Duration>, first_wait: Duration, now: Instant) -> bool {
        self.statistics.failures += 1;
        if let Some(wait) = wait {
            self.rests_until = Some(now + wait);
            return false;
        }
        self.failures += 1;
        // After a rest the first failure decides.
        let most = if self.rests == 0 { FAILURES_IN_A_ROW } else { 1 };
        if self.failures < most || !self.is_member {
            return false;
        }
        self.rest(Absence { problem: problem.to_string(), is_final: false }, first_wait, now);
        true
    }

    /// Sends the server to rest.
    pub(super) fn rest(&mut self, absence: Absence, first_wait: Duration, now: Instant) {
        let rest = first_wait.saturating_mul(1 << self.rests.min(16)).min(LONGEST_REST);
        self.statistics.rests += 1;
        self.rests += 1;
        self.failures = 0;
        self.is_member = false;
        self.rests_until = Some(now + rest);
        self.absence = Some(absence);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Health;

    #[test]
    fn rests_grow_until_an_answer() {
        let first = Duration::from_secs(1);
        let mut health = Health::new("u");
        let mut now = Instant::now();
        for rest in [1, 2, 4] {
            health.joined();
            if rest == 1 {
                assert!(!health.failed("x", None, first, now) && !health.failed("x", None, first, now));
            }
            assert!(health.failed("x", None, first, now), "rest {rest}");
            assert!(health.rests(now + Duration::from_secs(rest) - Duration::from_millis(1)));
            now += Duration::from_secs(rest);
            assert!(!health.rests(now) && !health.works(now));
        }
        health.joined();
        health.asked = 1;
        assert!(!health.has_room());
        health.answered(0.1);
        assert!(health.has_room() && health.works(now));
        assert!(!health.failed("busy", Some(Duration::from_secs(9)), first, now));
        assert!(!health.works(now + Duration::from_secs(8)) && health.works(now + Duration::from_secs(9)));
        assert_eq!((health.statistics.failures, health.statistics.rests, health.statistics.answers), (6, 3, 1));
    }
}

//! The queue of a fleet: which item a server takes next.
//!
//! All servers take from one queue, so that a slow one delays nobody. A server takes the items of a
//! group one after the other, and prefers groups whose prefix it has had: it has their keys and
//! values in its cache. Knows items by their numbers. Knows no server.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// A server looks so many groups ahead for one whose prefix it has had. The order of the items is
/// kept roughly, so that parts of a table are finished early.
const WINDOW: usize = 64;

/// Where an item belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Items of one group go to one server. They stand together.
    pub group: usize,
    /// Groups of the same prefix go to one server while it is not behind.
    pub prefix: u64,
}

/// The items that are not answered yet, and not being asked.
#[derive(Debug)]
pub(super) struct Queue {
    places: Vec<Place>,
    groups: VecDeque<VecDeque<usize>>,
    /// The rest of the groups that each server took.
    taken: Vec<VecDeque<usize>>,
    failed: Vec<FailedItem>,
    /// The server that had a prefix last.
    homes: HashMap<u64, usize>,
    asked: usize,
}

/// An item to be asked again.
#[derive(Clone, Copy, Debug)]
struct FailedItem {
    item: usize,
    server: usize,
    not_before: Instant,
}

/// What a server does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ask(usize),
    /// Others are asking, and an item may come back.
    Wait,
    Done,
}

impl Queue {
    pub(super) fn new(places: Vec<Place>, servers: usize) -> Self {
        let mut groups: VecDeque<VecDeque<usize>> = VecDeque::new();
        for (item, place) in places.iter().enumerate() {
            match groups.back_mut() {
                Some(group) if group.front().is_some_and(|first| places[*first].group == place.group) => group.push_back(item),
                _ => groups.push_back(VecDeque::from([item])),
            }
        }
        Self { places, groups, taken: vec![VecDeque::new(); servers], failed: Vec::new(), homes: HashMap::new(), asked: 0 }
    }

    /// Whether every item is answered.
    pub(super) fn is_done(&self) -> bool {
        self.asked == 0 && self.groups.is_empty() && self.failed.is_empty() && self.taken.iter().all(VecDeque::is_empty)
    }

    /// The next item for a server. `others_work` tells whether another server could take an item
    /// that failed on this one.
    pub(super) fn next(&mut self, server: usize, others_work: bool, now: Instant) -> Next {
        let found = self.failed_item(server, others_work, now).or_else(|| self.open_item(server));
        match found {
            Some(item) => {
                self.asked += 1;
                Next::Ask(item)
            }
            None if self.is_done() => Next::Done,
            None => Next::Wait,
        }
    }

    fn failed_item(&mut self, server: usize, others_work: bool, now: Instant) -> Option<usize> {
        let is_for = |failed: &FailedItem| now >= failed.not_before && (failed.server != server || !others_work);
        let at = self.failed.iter().position(is_for)?;
        Some(self.failed.swap_remove(at).item)
    }

    fn open_item(&mut self, server: usize) -> Option<usize> {
        if let Some(item) = self.taken.get_mut(server)?.pop_front() {
            return Some(item);
        }
        let home = |group: &VecDeque<usize>| group.front().and_then(|item| self.homes.get(&self.places[*item].prefix));
        let own = self.groups.iter().take(WINDOW).position(|group| home(group).is_none_or(|home| *home == server));
        // Groups at the front that belong to others wait there because those others are behind.
        if let Some(mut group) = self.groups.remove(own.unwrap_or(0)) {
            let first = group.pop_front()?;
            self.homes.insert(self.places[first].prefix, server);
            self.taken[server] = group;
            return Some(first);
        }
        // At the end, from the group of which most is left.
        self.taken.iter_mut().max_by_key(|taken| taken.len())?.pop_back()
    }

    /// An item is answered for good.
    pub(super) fn answered(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// An item failed on a server, and waits for another attempt.
    pub(super) fn failed(&mut self, item: usize, server: usize, wait: Duration, now: Instant) {
        self.asked = self.asked.saturating_sub(1);
        self.failed.push(FailedItem { item, server, not_before: now + wait });
    }

    /// A server stops taking items: its own go back, and its prefixes are anybody's.
    pub(super) fn leave(&mut self, server: usize) {
        let taken = self.taken.get_mut(server).map(std::mem::take).unwrap_or_default();
        if !taken.is_empty() {
            self.groups.push_front(taken);
        }
        self.homes.retain(|_, home| *home != server);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{Next, Place, Queue};

    fn places(groups: &[(usize, u64)], items: usize) -> Vec<Place> {
        groups.iter().flat_map(|(group, prefix)| (0..items).map(|_| Place { group: *group, prefix: *prefix })).collect()
    }

    #[test]
    fn a_group_and_its_prefix_stay_with_one_server() {
        let groups: Vec<(usize, u64)> = (0..12).map(|group| (group, group as u64 % 2)).collect();
        let mut queue = Queue::new(places(&groups, 3), 2);
        let now = Instant::now();
        for turn in 0..18 {
            for server in [0, 1] {
                let Next::Ask(item) = queue.next(server, true, now) else { panic!("nothing at turn {turn}") };
                assert_eq!(item / 3 % 2, server, "turn {turn}");
                queue.answered();
            }
        }
        assert_eq!((queue.next(0, true, now), queue.is_done()), (Next::Done, true));
    }

    #[test]
    fn a_server_that_takes_nothing_delays_nobody() {
        // All prefixes are at home at server 1, which takes one item and no other.
        let mut queue = Queue::new(places(&(0..200).map(|group| (group, 7)).collect::<Vec<_>>(), 4), 2);
        let now = Instant::now();
        assert_eq!(queue.next(1, true, now), Next::Ask(0));
        let mut taken = BTreeSet::new();
        while let Next::Ask(item) = queue.next(0, true, now) {
            queue.answered();
            taken.insert(item);
        }
        assert_eq!(taken, (1..800).collect());
        assert_eq!(queue.next(0, true, now), Next::Wait);
        queue.answered();
        assert_eq!(queue.next(0, true, now), Next::Done);
    }

    #[test]
    fn a_failed_item_goes_to_another_server() {
        let mut queue = Queue::new(places(&[(0, 0)], 1), 2);
        let now = Instant::now();
        assert_eq!(queue.next(0, true, now), Next::Ask(0));
        queue.failed(0, 0, Duration::ZERO, now);
        assert_eq!(queue.next(0, true, now), Next::Wait);
        assert_eq!(queue.next(1, true, now), Next::Ask(0));
        queue.failed(0, 1, Duration::from_secs(1), now);
        assert_eq!(queue.next(1, false, now), Next::Wait);
        assert_eq!(queue.next(1, false, now + Duration::from_secs(1)), Next::Ask(0));
        queue.answered();
        assert_eq!(queue.next(1, false, now), Next::Done);
    }

    proptest! {
        /// Whatever servers do, every item is answered exactly once.
        #[test]
        fn every_item_is_answered_once(
            sizes in prop::collection::vec((1usize..5, 0u64..4), 0..40),
            turns in prop::collection::vec((0usize..3, 0u8..10), 0..400),
        ) {
            let places: Vec<Place> = sizes
                .iter()
                .enumerate()
                .flat_map(|(group, (size, prefix))| (0..*size).map(move |_| Place { group, prefix: *prefix }))
                .collect();
            let items = places.len();
            let mut queue = Queue::new(places, 3);
            let now = Instant::now();
            let mut answered = Vec::new();
            let mut step = |queue: &mut Queue, server: usize, luck: u8| match queue.next(server, false, now) {
                Next::Ask(item) if luck == 0 => queue.failed(item, server, Duration::ZERO, now),
                Next::Ask(item) => {
                    queue.answered();
                    answered.push(item);
                    if luck == 1 {
                        queue.leave(server);
                    }
                }
                Next::Wait | Next::Done => {}
            };
            for (server, luck) in turns {
                step(&mut queue, server, luck);
            }
            for _ in 0..=items {
                step(&mut queue, 0, 5);
            }
            answered.sort_unstable();
            prop_assert_eq!(answered, (0..items).collect::<Vec<_>>());
            prop_assert!(queue.is_done());
        }
    }
}

//! Which of the due runs begin, so that a slow or absent receiver delays no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sendshot_model::PeerName;
use tokio::time::Instant;

use crate::decide::schedule::backoff;
use crate::schedule::outlook::Pair;

/// How often to look which unchanged volumes have to be confirmed.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The scheduled pushes that run, and the receivers that could not be reached.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Number of running pushes of each receiver.
    running: BTreeMap<PeerName, usize>,
    /// Failed attempts in a row, and the moment before which no other run to this receiver begins.
    unreachable: BTreeMap<PeerName, (u32, Instant)>,
    /// When it was last looked which volumes have to be confirmed.
    confirmed_at: Option<Instant>,
}

/// A run that has its turn, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    receiver: PeerName,
    /// Whether the receiver could be reached; `None` if that was not tried.
    pub reached: Option<bool>,
}

impl Turns {
    /// Chooses runs from those that are due, in this order. A receiver without a running push may always begin one, so that a
    /// slow one delays no other; further ones begin up to `max` at one time, those of receivers with the fewest first.
    pub fn choose<T>(self: &Arc<Self>, due: Vec<(T, Pair)>, max: usize) -> Vec<(T, Pair, Turn)> {
        let now = Instant::now();
        let mut inner = self.lock();
        let is_blocked = |pair: &Pair| {
            let blocked = inner.unreachable.get(&pair.receiver);
            blocked.is_some_and(|(_, until)| *until > now)
        };
        let mut left: Vec<_> = due
            .into_iter()
            .filter(|(_, pair)| !is_blocked(pair))
            .collect();
        let mut chosen = Vec::new();
        loop {
            let count = |pair: &Pair| inner.running.get(&pair.receiver).copied().unwrap_or(0);
            let total: usize = inner.running.values().sum();
            // One attempt at a time on a receiver that could not be reached.
            let is_open = |pair: &Pair| {
                count(pair) == 0 || (total < max && !inner.unreachable.contains_key(&pair.receiver))
            };
            let open = left.iter().enumerate().filter(|(_, of)| is_open(&of.1));
            let Some((at, _)) = open.min_by_key(|(at, of)| (count(&of.1), *at)) else {
                break;
            };
            let (of, pair) = left.remove(at);
            *inner.running.entry(pair.receiver.clone()).or_default() += 1;
            let turn = Turn {
                turns: Arc::clone(self),
                receiver: pair.receiver.clone(),
                reached: None,
            };
            chosen.push((of, pair, turn));
        }
        chosen
    }

    /// Has the next look find out again which volumes have to be confirmed: not all had their turn.
    pub fn confirm_soon(&self) {
        self.lock().confirmed_at = None;
    }

    fn ended(&self, receiver: &PeerName, reached: Option<bool>) {
        let mut inner = self.lock();
        if let Some(count) = inner.running.get_mut(receiver) {
            *count = count.saturating_sub(1);
        }
        inner.running.retain(|_, count| *count > 0);
        match reached {
            None => {}
            Some(true) => drop(inner.unreachable.remove(receiver)),
            Some(false) => {
                let failed = inner
                    .unreachable
                    .get(receiver)
                    .map_or(0, |(failed, _)| *failed)
                    + 1;
                let until = Instant::now() + backoff(failed);
                inner.unreachable.insert(receiver.clone(), (failed, until));
            }
        }
    }

    /// Whether to look now which unchanged volumes have to be confirmed although no run of theirs is due.
    pub fn is_time_to_confirm(&self) -> bool {
        let mut inner = self.lock();
        let now = Instant::now();
        let is_time = inner
            .confirmed_at
            .is_none_or(|at| now.duration_since(at) >= CONFIRM_INTERVAL);
        if is_time {
            inner.confirmed_at = Some(now);
        }
        is_time
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.ended(&self.receiver, self.reached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(pairs: &[(&str, &str)]) -> Vec<((), Pair)> {
        let pair = |(receiver, volume): &(&str, &str)| Pair {
            receiver: receiver.parse().unwrap(),
            volume: volume.parse().unwrap(),
        };
        pairs.iter().map(|of| ((), pair(of))).collect()
    }

    fn volumes(chosen: &[((), Pair, Turn)]) -> Vec<String> {
        let name = |of: &((), Pair, Turn)| format!("{}:{}", of.1.receiver, of.1.volume);
        chosen.iter().map(name).collect()
    }

    #[test]
    fn each_receiver_gets_its_turn() {
        let turns = Arc::new(Turns::default());
        let all = due(&[("a", "1"), ("a", "2"), ("a", "3"), ("b", "1")]);
        let mut first = turns.choose(all, 2);
        assert_eq!(volumes(&first), ["a:1", "b:1"]);
        // A third receiver is not delayed by the two.
        let third = turns.choose(due(&[("a", "2"), ("c", "1")]), 2);
        assert_eq!(volumes(&third), ["c:1"]);
        drop(third);
        let (_, _, mut done) = first.remove(0);
        done.reached = Some(true);
        drop(done);
        let next = turns.choose(due(&[("a", "2"), ("a", "3")]), 2);
        assert_eq!(volumes(&next), ["a:2"]);
    }

    #[test]
    fn an_absent_receiver_delays_no_other() {
        let turns = Arc::new(Turns::default());
        let all = due(&[("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]);
        let mut first = turns.choose(all, 2);
        assert_eq!(volumes(&first), ["a:1", "b:1"]);
        first[0].2.reached = Some(false);
        drop(first);
        let rest = due(&[("a", "1"), ("a", "2"), ("b", "2")]);
        let next = turns.choose(rest, 2);
        assert_eq!(volumes(&next), ["b:2"]);
        assert!(
            turns.choose(due(&[("a", "1")]), 2).is_empty(),
            "it is left alone for a minute"
        );
    }
}

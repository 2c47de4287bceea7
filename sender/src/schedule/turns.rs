//! Which of the due runs begin, so that a slow or absent receiver delays no other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use sendshot_model::PeerName;

use crate::decide::schedule::backoff;
use crate::schedule::outlook::Pair;

/// The scheduled pushes that run, and the receivers that could not be reached.
#[derive(Debug, Default)]
pub struct Turns(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Number of running pushes of each receiver.
    running: BTreeMap<PeerName, usize>,
    /// Failed attempts in a row, and the time before which no other run to this receiver begins.
    unreachable: BTreeMap<PeerName, (u32, Timestamp)>,
}

impl Turns {
    /// Chooses runs from those that are due, the longest due first: those of receivers with the fewest running pushes begin,
    /// up to `max` at one time. They count as running until [`Self::ended`].
    pub fn choose(&self, due: Vec<(Timestamp, Pair)>, max: usize) -> Vec<(Timestamp, Pair)> {
        let now = Timestamp::now();
        let mut inner = self.lock();
        let mut left: Vec<_> = due
            .into_iter()
            .filter(|(_, pair)| {
                let blocked = inner.unreachable.get(&pair.receiver);
                blocked.is_none_or(|(_, until)| *until <= now)
            })
            .collect();
        let mut chosen = Vec::new();
        while inner.running.values().sum::<usize>() < max {
            let count =
                |of: &(Timestamp, Pair)| inner.running.get(&of.1.receiver).copied().unwrap_or(0);
            // One attempt at a time on a receiver that could not be reached.
            let is_open = |of: &(Timestamp, Pair)| {
                count(of) == 0 || !inner.unreachable.contains_key(&of.1.receiver)
            };
            let best = left.iter().enumerate().filter(|(_, of)| is_open(of));
            let Some((at, _)) = best.min_by_key(|(at, of)| (count(of), *at)) else {
                break;
            };
            let of = left.remove(at);
            *inner.running.entry(of.1.receiver.clone()).or_default() += 1;
            chosen.push(of);
        }
        chosen
    }

    /// Notes that a run has ended, and whether its receiver could be reached.
    pub fn ended(&self, receiver: &PeerName, reached: bool) {
        let now = Timestamp::now();
        let mut inner = self.lock();
        if let Some(count) = inner.running.get_mut(receiver) {
            *count = count.saturating_sub(1);
        }
        inner.running.retain(|_, count| *count > 0);
        if reached {
            inner.unreachable.remove(receiver);
            return;
        }
        let failed = inner
            .unreachable
            .get(receiver)
            .map_or(0, |(failed, _)| *failed)
            + 1;
        let wait = SignedDuration::try_from(backoff(failed)).unwrap_or(SignedDuration::ZERO);
        let until = now.saturating_add(wait).unwrap_or(now);
        inner.unreachable.insert(receiver.clone(), (failed, until));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(pairs: &[(&str, &str)]) -> Vec<(Timestamp, Pair)> {
        let pair = |(receiver, volume): &(&str, &str)| Pair {
            receiver: receiver.parse().unwrap(),
            volume: volume.parse().unwrap(),
        };
        pairs
            .iter()
            .map(|of| (Timestamp::UNIX_EPOCH, pair(of)))
            .collect()
    }

    fn volumes(chosen: &[(Timestamp, Pair)]) -> Vec<String> {
        let name = |of: &(Timestamp, Pair)| format!("{}:{}", of.1.receiver, of.1.volume);
        chosen.iter().map(name).collect()
    }

    #[test]
    fn each_receiver_gets_its_turn() {
        let turns = Turns::default();
        let all = due(&[("a", "1"), ("a", "2"), ("a", "3"), ("b", "1")]);
        assert_eq!(volumes(&turns.choose(all.clone(), 2)), ["a:1", "b:1"]);
        assert!(turns.choose(all.clone(), 2).is_empty());
        turns.ended(&"a".parse().unwrap(), true);
        assert_eq!(
            volumes(&turns.choose(due(&[("a", "2"), ("a", "3")]), 2)),
            ["a:2"]
        );
    }

    #[test]
    fn an_absent_receiver_delays_no_other() {
        let turns = Turns::default();
        let all = due(&[("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]);
        assert_eq!(volumes(&turns.choose(all.clone(), 2)), ["a:1", "b:1"]);
        turns.ended(&"a".parse().unwrap(), false);
        let rest = due(&[("a", "1"), ("a", "2"), ("b", "2")]);
        assert_eq!(volumes(&turns.choose(rest.clone(), 2)), ["b:2"]);
        assert!(
            turns.choose(rest, 2).is_empty(),
            "the absent one is left alone for a minute"
        );
    }
}

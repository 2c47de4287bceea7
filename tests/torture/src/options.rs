//! The options of a run, from environment variables.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant, SystemTime};

use crate::kind::{Fault, Kind};
use crate::life::Life;

/// The options of a run.
#[derive(Debug, Clone)]
pub struct Options<F = Kind> {
    /// Seed of all random choices.
    pub seed: u64,
    /// Duration; `None` to run until all counts are reached.
    pub time: Option<Duration>,
    /// Pairs of hosts at a time.
    pub workers: usize,
    /// Number of faults of each kind; empty for any.
    pub counts: BTreeMap<F, u64>,
    /// Number of faults of all kinds; `None` for no limit.
    pub total: Option<u64>,
    /// The only life to run, if given.
    pub(super) replay: Option<Life<F>>,
}

impl<F: Fault> Options<F> {
    /// A run of this duration, with faults of any kind.
    pub fn lasting(time: Duration, seed: u64) -> Self {
        Self {
            seed,
            time: Some(time),
            workers: 2,
            counts: BTreeMap::new(),
            total: None,
            replay: None,
        }
    }

    /// A run of this many faults of any kind.
    pub fn counted(total: u64, seed: u64) -> Self {
        Self {
            time: None,
            total: Some(total),
            ..Self::lasting(Duration::ZERO, seed)
        }
    }

    /// Reads `MINUTES`, `SEED`, `WORKERS`, `LIFE`, the number of all faults from the variable `total`, and a number for
    /// each kind: [`Fault::variable`]. Without `MINUTES` the run lasts until all numbers are reached, or three minutes
    /// if there are none.
    ///
    /// # Panics
    /// If one of them is not a number.
    pub fn from_environment(total: &str) -> Self {
        let numbers = F::ALL.iter().copied();
        let counts: BTreeMap<_, _> = numbers
            .filter_map(|kind| Some((kind, number(kind.variable())?)))
            .filter(|(_, n)| *n > 0)
            .collect();
        let replay = variable("LIFE").map(|text| {
            let life = Life::parse(&text);
            life.unwrap_or_else(|| panic!("LIFE={text}: no SEED:KIND,KIND,…"))
        });
        let total = number(total);
        let usual = match counts.is_empty() && total.is_none() && replay.is_none() {
            true => Some(3.0),
            false => None,
        };
        let minutes = variable("MINUTES").map(|text| {
            let number = text.parse::<f64>();
            number.unwrap_or_else(|_| panic!("MINUTES={text}: no number"))
        });
        Self {
            seed: number("SEED").unwrap_or_else(any_seed),
            time: minutes.or(usual).map(|m| Duration::from_secs_f64(60.0 * m)),
            workers: number("WORKERS").unwrap_or(2) as usize,
            counts,
            total,
            replay,
        }
    }

    /// When a run that begins now has to end.
    pub(super) fn end(&self) -> Option<Instant> {
        self.time.map(|time| Instant::now() + time)
    }
}

/// A seed from the clock.
pub fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_nanos() as u64 % 1_000_000_000
}

/// Returns a variable; an empty one counts as not set, because a Makefile passes on unset ones as empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

//! What is asked for, by variables of the environment.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant, SystemTime};

use crate::kind::Kind;
use crate::life::Life;

/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// What follows all that is random.
    pub seed: u64,
    /// How long; `None` for until all that was asked for is done.
    pub time: Option<Duration>,
    /// Pairs of hosts at a time.
    pub workers: usize,
    /// How many faults of each kind; empty for any.
    pub counts: BTreeMap<Kind, u64>,
    /// Only this life.
    pub(super) replay: Option<Life>,
}

impl Options {
    /// A run of a length, with faults of any kind.
    pub fn lasting(time: Duration, seed: u64) -> Self {
        Self {
            seed,
            time: Some(time),
            workers: 2,
            counts: BTreeMap::new(),
            replay: None,
        }
    }

    /// `MINUTES`, `SEED`, `WORKERS`, `LIFE`, and a number for each kind: [`Kind::variable`].
    /// Without `MINUTES` it lasts until all numbers are reached, or three minutes if there are none.
    ///
    /// # Panics
    /// If one of them is no number.
    pub fn from_environment() -> Self {
        let numbers = Kind::ALL.into_iter();
        let counts: BTreeMap<_, _> = numbers
            .filter_map(|kind| Some((kind, number(kind.variable())?)))
            .filter(|(_, n)| *n > 0)
            .collect();
        let replay = variable("LIFE").map(|text| {
            let life = Life::parse(&text);
            life.unwrap_or_else(|| panic!("LIFE={text}: no SEED:KIND,KIND,…"))
        });
        let usual = match counts.is_empty() && replay.is_none() {
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
            replay,
        }
    }

    /// When it is to be over, if it begins now.
    pub(super) fn end(&self) -> Option<Instant> {
        self.time.map(|time| Instant::now() + time)
    }
}

/// One that nobody chose.
pub fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_nanos() as u64 % 1_000_000_000
}

/// Empty is as good as not set: a Makefile passes on what nobody gave.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

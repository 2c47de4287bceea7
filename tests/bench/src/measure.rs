//! Wall time, and the time that the machine's processors were busy.

use std::fs;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Took {
    /// Wall time in seconds.
    pub seconds: f64,
    /// Seconds that the machine's processors were busy, kernel threads included.
    pub busy: f64,
}

/// Measures a piece of work.
pub fn measured<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let (start, before) = (Instant::now(), busy());
    let done = work();
    let took = Took {
        seconds: start.elapsed().as_secs_f64(),
        busy: busy() - before,
    };
    (done, took)
}

/// The medians of both figures.
///
/// # Panics
/// If there is no measurement.
#[must_use]
pub fn median(all: &[Took]) -> Took {
    let middle = |of: fn(&Took) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Took {
        seconds: middle(|took| took.seconds),
        busy: middle(|took| took.busy),
    }
}

/// Returns the seconds that the processors were busy since boot: user, nice, system, and interrupts of
/// `/proc/stat` (proc(5)), counted in hundredths of a second. The first of these numbers stands in the second column.
///
/// # Panics
/// If the kernel's counters cannot be read.
#[must_use]
pub fn busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("the kernel's counters");
    let line = stat.lines().next().unwrap_or_default();
    let ticks = line.split_whitespace().skip(1).map(str::parse::<u64>);
    let ticks: Vec<u64> = ticks.map_while(Result::ok).collect();
    let idle = [3, 4];
    let busy = ticks.iter().take(7).enumerate();
    let busy = busy.filter(|(n, _)| !idle.contains(n)).map(|(_, n)| n);
    busy.sum::<u64>() as f64 / 100.0
}

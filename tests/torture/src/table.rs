//! Counts of the results.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::kind::{Fault, Kind};

/// Result of an iteration in which no check failed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Went {
    /// The fault came before the operation ended.
    pub(super) struck: bool,
    /// The operation succeeded despite the fault.
    pub(super) survived: bool,
    /// The operation, or the next one, resumed in the middle.
    pub(super) resumed: bool,
    /// The fail point at which a daemon died.
    pub(super) died_at: Option<&'static str>,
}

impl Went {
    /// Combines the results of several pushes.
    pub(super) fn and(self, next: Self) -> Self {
        Self {
            struck: self.struck || next.struck,
            survived: next.survived,
            resumed: self.resumed || next.resumed,
            died_at: next.died_at.or(self.died_at),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Row {
    passed: u64,
    failed: u64,
    missed: u64,
    survived: u64,
    resumed: u64,
    time: Duration,
}

/// Results by kind of fault.
#[derive(Debug, Clone)]
pub struct Table<F = Kind> {
    rows: BTreeMap<F, Row>,
    died_at: BTreeMap<&'static str, u64>,
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            died_at: BTreeMap::new(),
        }
    }
}

impl<F: Fault> Table<F> {
    /// Counts an iteration; `None` if it failed.
    pub(super) fn count(&mut self, kind: F, went: Option<Went>, time: Duration) {
        let row = self.rows.entry(kind).or_default();
        row.time += time;
        let Some(went) = went else {
            row.failed += 1;
            return;
        };
        row.passed += 1;
        row.missed += u64::from(!went.struck);
        row.survived += u64::from(went.struck && went.survived);
        row.resumed += u64::from(went.resumed);
        if let Some(place) = went.died_at {
            *self.died_at.entry(place).or_default() += 1;
        }
    }

    /// Number of iterations whose checks passed.
    pub fn passed(&self) -> u64 {
        self.rows.values().map(|row| row.passed).sum()
    }

    /// Number of iterations with a failed check.
    pub fn failed(&self) -> u64 {
        self.rows.values().map(|row| row.failed).sum()
    }
}

impl<F: Fault> fmt::Display for Table<F> {
    /// `struck` counts the faults that came in time, `survived` the operations that succeeded despite these.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "struck", "survived", "resumed", "missed", "passed", "failed", "s each",
        ];
        write!(f, "{:<15}", "fault")?;
        head.iter().try_for_each(|name| write!(f, "{name:>9}"))?;
        for (kind, row) in &self.rows {
            let all = row.passed + row.failed;
            write!(f, "\n{kind:<15}{:>9}", all - row.missed)?;
            for number in [
                row.survived,
                row.resumed,
                row.missed,
                row.passed,
                row.failed,
            ] {
                write!(f, "{number:>9}")?;
            }
            write!(f, "{:>9.2}", row.time.as_secs_f64() / all.max(1) as f64)?;
        }
        let deaths = self.died_at.iter();
        let deaths: Vec<_> = deaths.map(|(place, n)| format!("{place} {n}")).collect();
        if !deaths.is_empty() {
            write!(f, "\ndied at: {}", deaths.join(", "))?;
        }
        write!(f, "\n{} passed, {} failed", self.passed(), self.failed())
    }
}

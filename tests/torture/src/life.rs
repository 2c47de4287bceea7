//! A life: several iterations on the same hosts.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

use crate::end::is_over;
use crate::kind::{Fault, Kind};
use crate::table::{Table, Went};

/// Lines of each log shown for a failure.
const TAIL: usize = 40;

/// The hosts of a life.
pub(super) trait Hosts: Sized {
    /// The faults that they suffer.
    type Fault: Fault;

    /// Makes them, and does what is needed before the first fault.
    fn new(seed: u64) -> Self;

    /// Disturbs one or more operations by a fault, repairs everything, and checks that the next operation succeeds.
    fn iteration(&mut self, number: u64, kind: Self::Fault) -> Went;

    /// Checks everything once more at the end.
    fn end(&self);

    /// Prints the ends of the logs.
    fn show(&self, lines: usize);

    /// Skips the log checks of all hosts.
    fn forgive(&mut self);
}

/// A planned life. Its text can be parsed to repeat it.
#[derive(Debug, Clone)]
pub(super) struct Life<F = Kind> {
    pub(super) seed: u64,
    pub(super) kinds: Vec<F>,
}

impl<F: Fault> Life<F> {
    /// Parses a list `SEED:KIND,KIND` of any length.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (seed, kinds) = text.split_once(':')?;
        Some(Self {
            seed: seed.parse().ok()?,
            kinds: kinds.split(',').map(F::parse).collect::<Option<_>>()?,
        })
    }

    /// Runs it until a failure or the end of the time. Returns the faults that did not happen.
    pub(super) fn live<H: Hosts<Fault = F>>(
        &self,
        table: &Mutex<Table<F>>,
        end: Option<Instant>,
    ) -> Vec<F> {
        let mut world = match catch(|| H::new(self.seed)) {
            Ok(world) => world,
            Err(why) => {
                self.fail(table, 0, Instant::now(), &why);
                return self.kinds.clone();
            }
        };
        let mut again = Vec::new();
        for (number, kind) in self.kinds.iter().enumerate() {
            if is_over(end) {
                again.extend(&self.kinds[number..]);
                break;
            }
            let began = Instant::now();
            match catch(|| world.iteration(number as u64, *kind)) {
                Ok(went) => {
                    table
                        .lock()
                        .unwrap()
                        .count(*kind, Some(went), began.elapsed());
                    again.extend((!went.struck).then_some(kind));
                }
                Err(why) => {
                    self.fail(table, number, began, &why);
                    world.show(TAIL);
                    world.forgive();
                    again.extend(&self.kinds[number + 1..]);
                    drop(catch(|| drop(world)));
                    return again;
                }
            }
        }
        let (last, began) = (self.kinds.len() - 1, Instant::now());
        if let Err(why) = catch(|| world.end()) {
            self.fail(table, last, began, &why);
            world.forgive();
        }
        // Dropping the hosts checks that the daemons stop cleanly and that their disks are free.
        if let Err(why) = catch(|| drop(world)) {
            self.fail(table, last, began, &why);
        }
        again
    }

    fn fail(&self, table: &Mutex<Table<F>>, number: usize, began: Instant, why: &str) {
        let kind = self.kinds[number];
        table.lock().unwrap().count(kind, None, began.elapsed());
        let until_here = Self {
            kinds: self.kinds[..=number].to_vec(),
            ..*self
        };
        println!("FAILED: iteration {number}, {kind}: {why}\n  again: LIFE={until_here}");
    }
}

impl<F: Fault> fmt::Display for Life<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.name()).collect();
        write!(f, "{}:{}", self.seed, kinds.join(","))
    }
}

/// Catches a failed assertion, so that it ends an iteration, not the run.
fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| text(&*panic))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = literal.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_can_be_lived_again_from_its_text() {
        let text = "17:cut,kill-sender,lie";
        assert_eq!(Life::<Kind>::parse(text).unwrap().to_string(), text);
        for text in ["", "cut", "x:cut", "1:", "1:cut,nothing"] {
            assert!(Life::<Kind>::parse(text).is_none(), "{text}");
        }
    }
}

//! Executes the commands of one subvolume: runs that are independent of each other at the same time, by several
//! appliers, and everything else in the order of the stream.
//!
//! Nothing is left to do when a call returns: what has been applied is always a prefix of the stream.

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use sendshot_stream::Command;
use uuid::Uuid;

use crate::commands::applier::{Applier, Content};
use crate::commands::batch::Batch;
use crate::commands::budget::Budget;
use crate::commands::clone::CloneSources;
use crate::commands::run::{self, Renamed, Run};
use crate::commands::run_policy::{self, Order, RunPolicy};
use crate::error::ApplyError;

/// Fewest runs for which it pays to start a thread.
const FEWEST: usize = 4;

/// Appliers for one subvolume.
#[derive(Debug)]
pub(crate) struct Workers {
    first: Applier,
    /// The others, made when they are needed.
    others: Vec<Applier>,
    policy: RunPolicy,
    /// Whether what the others know of directories may be wrong by now.
    stale: bool,
    /// Whether files may have several names. Then commands on two paths may concern one file.
    links: bool,
    makes_early: bool,
}

/// Independent runs have no clones.
struct NoSources;

impl CloneSources for NoSources {
    fn open(&mut self, uuid: Uuid, _: u64) -> Result<OwnedFd, Box<dyn Error + Send + Sync>> {
        Err(format!("a clone from {uuid} was not expected").into())
    }
}

impl Workers {
    pub(crate) fn new(first: Applier, content: Content) -> Self {
        Self {
            policy: first.run_policy().for_this_process(),
            first,
            others: Vec::new(),
            stale: false,
            links: content == Content::Some,
            makes_early: run_policy::may_reach_all(),
        }
    }

    /// Continues with an existing budget.
    pub(crate) fn with(self, budget: Budget) -> Self {
        Self {
            first: self.first.with(budget),
            others: Vec::new(),
            ..self
        }
    }

    pub(crate) fn first(&self) -> &Applier {
        &self.first
    }

    pub(crate) fn first_mut(&mut self) -> &mut Applier {
        &mut self.first
    }

    pub(crate) fn into_first(self) -> Applier {
        self.first
    }

    /// Whether nothing forbids to execute a command together with others of the batch, if it is of a kind for which that
    /// is possible.
    pub(crate) fn may_batch(&self, command: &Command<'_>, batch: &Batch<'_>) -> bool {
        let path = command.path();
        let has_one_name = !self.links
            || run::makes_entry(command)
            || matches!(command, Command::Mkdir { .. })
            || batch.last_path() == Some(path)
            || batch.is_of_new_dir(command);
        // The times of the root are kept.
        !self.first.makes_exceptions() && !path.is_empty() && has_one_name
    }

    /// Whether directories may be made before the runs of a batch.
    pub(crate) fn makes_early(&self) -> bool {
        self.makes_early
    }

    /// Makes an entry where the stream renames it. Returns whether that is done: if not, both commands have to be
    /// executed.
    pub(crate) fn make_in_place(&mut self, make: &Command<'_>, renamed: Renamed<'_>) -> bool {
        self.first.make_in_place(make, renamed, &mut NoSources)
    }

    /// Executes one command.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub(crate) fn apply(
        &mut self,
        command: &Command<'_>,
        offset: u64,
        sources: &mut dyn CloneSources,
    ) -> Result<(), ApplyError> {
        match command {
            Command::Link { .. } => self.links = true,
            Command::Rename { .. }
            | Command::Rmdir { .. }
            | Command::SetXattr { .. }
            | Command::RemoveXattr { .. }
            | Command::Fileattr { .. } => self.stale = true,
            _ => {}
        }
        self.first.apply(command, offset, sources)
    }

    /// Executes independent runs.
    ///
    /// # Errors
    /// The error of the first command in the stream that failed. Commands behind it may have been executed.
    pub(crate) fn run(&mut self, runs: &[Run<'_>]) -> Result<(), ApplyError> {
        let threads = match self.policy.order {
            Order::OfStream if runs.len() < FEWEST => 1,
            _ => self.policy.count().min(runs.len() / 2).max(1),
        };
        if std::mem::take(&mut self.stale) {
            self.others.clear();
        }
        while self.others.len() < threads - 1 {
            self.others.push(self.first.fork());
        }
        let shared = Shared::new(runs, self.policy.order);
        let failed = std::thread::scope(|scope| {
            let others = self.others[..threads - 1].iter_mut();
            let started: Vec<_> = others
                .filter_map(|other| {
                    let thread = std::thread::Builder::new().name("apply-more".to_owned());
                    // Without a thread, those that there are do all.
                    thread.spawn_scoped(scope, || shared.work(other)).ok()
                })
                .collect();
            let own = shared.work(&mut self.first);
            let theirs = started.into_iter().map(|thread| match thread.join() {
                Ok(failed) => failed,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            let all = theirs.chain([own]).flatten();
            all.min_by_key(|(at, _)| *at)
        });
        for other in &mut self.others {
            self.first.take_over(other);
        }
        match failed {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

/// Runs from which several appliers take.
struct Shared<'r, 'a> {
    runs: &'r [Run<'a>],
    taking: Taking,
    /// Place of the first run that failed.
    failed: AtomicUsize,
}

/// How runs are taken.
enum Taking {
    /// Each applier takes the runs of one directory, then those of the next; at the end it helps others. Only one at a time can
    /// make an entry in a directory, and the kernel lets the others spin.
    ByDirectory {
        groups: Vec<Group>,
        /// The first group that no applier has begun.
        next: AtomicUsize,
    },
    /// One after the other in this order of their places.
    InOrder {
        order: Vec<usize>,
        next: AtomicUsize,
    },
}

/// Runs that follow each other and are in the same directory.
struct Group {
    next: AtomicUsize,
    end: usize,
}

impl Group {
    fn take(&self) -> Option<usize> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        (at < self.end).then_some(at)
    }
}

impl Taking {
    fn new(runs: &[Run<'_>], order: Order) -> Self {
        let next = AtomicUsize::new(0);
        match order {
            Order::OfStream => Self::ByDirectory {
                groups: groups(runs),
                next,
            },
            Order::Shuffled(seed) => Self::InOrder {
                order: shuffled(runs.len(), seed),
                next,
            },
        }
    }

    /// Returns the place of a run that no applier has taken; `None` if none is left. `group` is that of the applier's last run.
    fn take(&self, group: &mut Option<usize>) -> Option<usize> {
        match self {
            Self::InOrder { order, next } => {
                let next = next.fetch_add(1, Ordering::Relaxed);
                order.get(next).copied()
            }
            Self::ByDirectory { groups, next } => loop {
                if let Some(at) = group.and_then(|group| groups.get(group)?.take()) {
                    return Some(at);
                }
                let begun = next.fetch_add(1, Ordering::Relaxed);
                if begun < groups.len() {
                    *group = Some(begun);
                    continue;
                }
                // What others have begun is left.
                let mut all = groups.iter().enumerate();
                let found = all.find_map(|(n, begun)| Some((n, begun.take()?)));
                *group = found.map(|(n, _)| n);
                return found.map(|(_, at)| at);
            },
        }
    }
}

impl<'r, 'a> Shared<'r, 'a> {
    fn new(runs: &'r [Run<'a>], order: Order) -> Self {
        Self {
            runs,
            taking: Taking::new(runs, order),
            failed: AtomicUsize::new(usize::MAX),
        }
    }

    /// Takes runs and executes them. Returns the first that failed.
    fn work(&self, applier: &mut Applier) -> Option<(usize, ApplyError)> {
        let mut first: Option<(usize, ApplyError)> = None;
        let mut group = None;
        while let Some(at) = self.taking.take(&mut group) {
            // Those before it go on: one of them may fail, too, and is the first then.
            if at > self.failed.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = applier.apply_run(&self.runs[at], &mut NoSources) {
                self.failed.fetch_min(at, Ordering::Relaxed);
                if first.as_ref().is_none_or(|(first, _)| at < *first) {
                    first = Some((at, error));
                }
            }
        }
        first
    }
}

/// Groups runs by the directory of their path.
fn groups(runs: &[Run<'_>]) -> Vec<Group> {
    let mut begin = 0;
    let same = |a: &Run<'_>, b: &Run<'_>| directory(a) == directory(b);
    let group = |runs: &[Run<'_>]| {
        let end = begin + runs.len();
        let next = AtomicUsize::new(std::mem::replace(&mut begin, end));
        Group { next, end }
    };
    runs.chunk_by(same).map(group).collect()
}

/// Returns the path of the directory in which a run works.
fn directory<'a>(run: &Run<'a>) -> &'a [u8] {
    let path = run.commands.first().map_or(&[][..], |(c, _)| c.path());
    let name = path.rsplit(|byte| *byte == b'/').next();
    &path[..path.len() - name.map_or(0, <[u8]>::len)]
}

/// The numbers below `len` in an order that depends on `seed`, often the opposite one.
fn shuffled(len: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).rev().collect();
    if !seed.is_multiple_of(4) {
        let key = |place: &usize| {
            let mut hash = DefaultHasher::new();
            (seed, place).hash(&mut hash);
            hash.finish()
        };
        order.sort_by_key(key);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(paths: &[&'static str]) -> Vec<Run<'static>> {
        let run = |path: &&'static str| Run {
            commands: vec![(
                Command::Mkfile {
                    path: path.as_bytes(),
                },
                0,
            )],
            renamed: None,
        };
        paths.iter().map(run).collect()
    }

    #[test]
    fn appliers_take_from_other_directories_until_none_is_left() {
        let runs = runs(&["a/1", "a/2", "a/3", "a/4", "b/1", "c", "d"]);
        let taking = Taking::new(&runs, Order::OfStream);
        let (mut one, mut two) = (None, None);
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push((taking.take(&mut one), taking.take(&mut two)));
        }
        assert_eq!(
            taken,
            [(Some(0), Some(4)), (Some(1), Some(5)), (Some(2), Some(6)),]
        );
        // The second has to help the first.
        assert_eq!(
            (taking.take(&mut two), taking.take(&mut one)),
            (Some(3), None)
        );
        assert_eq!(taking.take(&mut two), None);
    }

    #[test]
    fn each_run_is_taken_once() {
        let runs = runs(&["x", "a/1", "a/2", "y", "a/3", "a/b/1", "a/b/2", "z"]);
        for order in [Order::OfStream, Order::Shuffled(4), Order::Shuffled(7)] {
            let taking = Taking::new(&runs, order);
            let mut groups = [None; 3];
            let mut taken: Vec<usize> = (0..30)
                .filter_map(|n| taking.take(&mut groups[n * 7 / 3 % 3]))
                .collect();
            taken.sort_unstable();
            assert_eq!(taken, (0..runs.len()).collect::<Vec<_>>(), "{order:?}");
        }
    }
}

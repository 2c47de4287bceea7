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
    /// Places of the runs, if they are not taken in their order.
    order: Option<Vec<usize>>,
    next: AtomicUsize,
    /// Place of the first run that failed.
    failed: AtomicUsize,
}

impl<'r, 'a> Shared<'r, 'a> {
    fn new(runs: &'r [Run<'a>], order: Order) -> Self {
        Self {
            runs,
            order: match order {
                Order::OfStream => None,
                Order::Shuffled(seed) => Some(shuffled(runs.len(), seed)),
            },
            next: AtomicUsize::new(0),
            failed: AtomicUsize::new(usize::MAX),
        }
    }

    /// Takes runs and executes them. Returns the first that failed.
    fn work(&self, applier: &mut Applier) -> Option<(usize, ApplyError)> {
        let mut first: Option<(usize, ApplyError)> = None;
        while let Some((at, run)) = self.take() {
            // Those before it go on: one of them may fail, too, and is the first then.
            if at > self.failed.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = applier.apply_run(run, &mut NoSources) {
                self.failed.fetch_min(at, Ordering::Relaxed);
                if first.as_ref().is_none_or(|(first, _)| at < *first) {
                    first = Some((at, error));
                }
            }
        }
        first
    }

    fn take(&self) -> Option<(usize, &Run<'a>)> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let at = match &self.order {
            Some(order) => *order.get(next)?,
            None => next,
        };
        self.runs.get(at).map(|run| (at, run))
    }
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

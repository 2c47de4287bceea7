//! How commands that are independent of each other are executed.

use std::num::NonZeroUsize;

use sendshot_sys::crash;

/// Most appliers that work for one subvolume. More would mostly wait for the file system's locks.
const MOST: usize = 4;

/// How commands are executed whose order cannot be seen in the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunPolicy {
    /// How many runs of them may be executed at the same time. `None` means as many as there are processors, at most
    /// four; and one at a time without root's privileges.
    pub workers: Option<NonZeroUsize>,
    /// In which order they are begun.
    pub order: Order,
    /// How attributes of new files are set.
    pub attributes: Attributes,
}

impl RunPolicy {
    /// The default.
    pub const USUAL: Self = Self {
        workers: None,
        order: Order::OfStream,
        attributes: Attributes::Fold,
    };

    /// With what tests set for whole daemons: `SENDSHOT_WORKERS` (a number) and `SENDSHOT_SHUFFLE` (a seed).
    pub(crate) fn for_this_process(self) -> Self {
        let number = |name| crash::setting(name)?.parse::<u64>().ok();
        let workers = number("SENDSHOT_WORKERS").and_then(|n| NonZeroUsize::new(n as usize));
        Self {
            workers: self.workers.or(workers),
            order: match (self.order, number("SENDSHOT_SHUFFLE")) {
                (Order::OfStream, Some(seed)) => Order::Shuffled(seed),
                (order, _) => order,
            },
            ..self
        }
    }

    pub(crate) fn count(self) -> usize {
        self.workers.map_or_else(default_count, NonZeroUsize::get)
    }
}

/// The order in which independent runs are begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// That of the stream.
    #[default]
    OfStream,
    /// An order that depends on this number only. For tests: any order must give the same copy.
    Shuffled(u64),
}

/// How a new entry gets its attributes and its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attributes {
    /// A command that would change nothing is left out, and what is made and renamed is made in its place.
    #[default]
    Fold,
    /// All commands are executed as they are.
    SetAll,
}

/// Whether modes forbid this process nothing. Otherwise the mode of a directory decides whether its entries can be
/// reached: what the stream sets first must be in effect first.
pub(crate) fn may_reach_all() -> bool {
    rustix::process::geteuid().is_root()
}

/// How many appliers work for one subvolume by default.
fn default_count() -> usize {
    match may_reach_all() {
        true => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST)),
        false => 1,
    }
}

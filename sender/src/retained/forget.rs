//! `sendshotctl forget`: letting go of kept states because the user says so.
//!
//! The user may do what no policy does: let go of what is unconfirmed, of what a receiver holds
//! that is not paired any more, and, when that is said too, of the last state from which the
//! next push could be incremental. Nobody lets go of what a running push may use.

use std::collections::BTreeSet;
use std::io;

use sendshot_model::{PushId, Target};

use crate::decide::forget::{Error, Which, check_chains, find};
use crate::retained::list::{self, Kept};
use crate::retained::prune;
use crate::retained::selection::{self, Selection};
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::filesystems::NotLookedAt;
use crate::state::record::{Item, Record};
use sendshot_proto::problem::with_causes;

/// Whether the last state that the next push could build on may be let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// It may not.
    Keep,
    /// It may: the user knows that the next push sends everything.
    Break,
}

/// What the user wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Of which receiver and volume.
    pub target: Target,
    /// Which of them.
    pub which: Which,
    /// Whether even the last.
    pub chain: Chain,
    /// Whether it is really done.
    pub mode: prune::Mode,
    /// If not empty, the pushes that the user was shown and agreed to.
    pub agreed: BTreeSet<PushId>,
}

/// What was, or would be, let go.
#[derive(Debug)]
pub struct Forgotten {
    /// The states, as they were.
    pub states: Vec<Kept>,
    /// What it means for the next push.
    pub consequence: String,
    /// File systems that were not looked at.
    pub not_looked_at: Vec<NotLookedAt>,
}

/// Why nothing, or not all, is forgotten.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// It is not clear what is meant.
    #[error(transparent)]
    Selection(#[from] selection::Error),
    /// It is not among what could be looked at.
    #[error("{error}")]
    NotFound {
        /// Why not.
        error: Error,
        /// What could not be looked at.
        missed: Vec<NotLookedAt>,
    },
    /// It may not be.
    #[error(transparent)]
    Kept(#[from] Error),
    /// A disk failed on the way.
    #[error("{done} of {of} let go, then: {}", with_causes(.source))]
    NotDeleted {
        /// How many were deleted before.
        done: usize,
        /// Of how many.
        of: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Lets go of what the user names. No push may start meanwhile, see [`Sender::hold_starts`].
/// Blocks.
///
/// # Errors
/// See [`Failed`]; nothing was let go then, but for a disk's failure on the way.
pub fn forget(sender: &Sender, wish: &Wish) -> Result<Forgotten, Failed> {
    let target = format!("{}:{}", wish.target.receiver, wish.target.volume);
    let selection = Selection::resolve(sender, Some(wish.target.clone()))?;
    // What lies on another file system is no parent here.
    let mut disks: Vec<Vec<Item>> = Vec::new();
    let missed = list::each(sender, &selection, |_, items| disks.push(items));
    let items = disks.concat();
    let chosen = match find(&items, &target, &wish.which) {
        Ok(chosen) => chosen,
        Err(error) => return Err(Failed::NotFound { error, missed }),
    };
    let consequence = judge(sender, wish, &target, &disks, &chosen)?;
    let pushes: BTreeSet<PushId> = chosen.iter().map(|record| record.push).collect();
    let states = let_go(sender, &selection, &pushes, wish.mode)?;
    Ok(Forgotten {
        states,
        consequence,
        not_looked_at: missed,
    })
}

/// Says what it means, if it may be done.
fn judge(
    sender: &Sender,
    wish: &Wish,
    target: &str,
    disks: &[Vec<Item>],
    chosen: &[&Record],
) -> Result<String, Error> {
    for record in chosen {
        if sender.table().contains(record.push) {
            return Err(Error::InUse {
                volume: record.volume_name.to_string(),
                receiver: record.receiver_name.to_string(),
            });
        }
        if let Some(running) = sender.table().of_volume(record.volume) {
            return Err(Error::InUse {
                volume: running.volume.to_string(),
                receiver: running.receiver.to_string(),
            });
        }
    }
    let agreed_to_other =
        !wish.agreed.is_empty() && wish.agreed != chosen.iter().map(|record| record.push).collect();
    if agreed_to_other {
        return Err(Error::Changed {
            target: target.to_owned(),
            which: wish.which.to_string(),
        });
    }
    let checked = disks
        .iter()
        .try_for_each(|items| check_chains(items, chosen));
    match (checked, wish.chain) {
        (_, _) if matches!(wish.which, Which::Root(_)) => Ok(format!(
            "if this disk of {} comes back, the next push to it sends everything again; its copies stay",
            wish.target.receiver
        )),
        (Ok(()), _) => Ok("the next push can still be incremental".to_owned()),
        (Err(error), Chain::Keep) => Err(error),
        (Err(_), Chain::Break) => Ok(format!(
            "the next push to {} sends everything again; the copies there stay",
            wish.target.receiver
        )),
    }
}

fn let_go(
    sender: &Sender,
    selection: &Selection,
    pushes: &BTreeSet<PushId>,
    mode: prune::Mode,
) -> Result<Vec<Kept>, Failed> {
    let mut states = Vec::new();
    let mut failed: Option<io::Error> = None;
    list::each(sender, selection, |state, items| {
        for item in items {
            if !pushes.contains(&item.record.push) {
                continue;
            }
            let kept = Kept::of(state, item);
            let result = match mode {
                prune::Mode::Delete => discard::let_go(state, &kept.record),
                prune::Mode::DryRun => Ok(()),
            };
            match result {
                Ok(()) => states.push(kept),
                Err(e) => failed = Some(e),
            }
        }
    });
    if mode == prune::Mode::Delete {
        states.iter().for_each(|kept| log(&kept.record));
    }
    match failed {
        None => Ok(states),
        Some(source) => Err(Failed::NotDeleted {
            done: states.len(),
            of: pushes.len(),
            source,
        }),
    }
}

fn log(record: &Record) {
    tracing::info!(
        push = %record.push,
        volume = %record.volume_name,
        receiver = %record.receiver_name,
        uuid = record.snapshot.map(|s| tracing::field::display(s.uuid)),
        "forgotten because the user said so"
    );
}

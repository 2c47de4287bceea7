//! `sendshotctl forget`: deletes kept states at the user's request.
//!
//! A user may delete what no policy does: unconfirmed states, states common with a receiver that is no longer
//! paired, and, with a further option, the last state from which the next push could be incremental. A state that
//! a running push may use is never deleted.

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

/// Whether the last possible parent of the next push may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// It may not be deleted.
    Keep,
    /// It may be deleted: the user knows that the next push sends everything.
    Break,
}

/// The user's request.
#[derive(Debug, Clone)]
pub struct ParentChoice {
    pub target: Target,
    pub which: Which,
    pub chain: Chain,
    pub mode: prune::Mode,
    /// If not empty, the pushes that the user was shown and agreed to.
    pub agreed: BTreeSet<PushId>,
}

/// What was deleted, or would be.
#[derive(Debug)]
pub struct Forgotten {
    /// The states, as they were.
    pub states: Vec<Kept>,
    /// The consequence for the next push, for the user.
    pub consequence: String,
    pub not_looked_at: Vec<NotLookedAt>,
}

/// Why not everything was deleted.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The target is ambiguous or invalid.
    #[error(transparent)]
    Selection(#[from] selection::Error),
    /// The states are not on the file systems that could be read.
    #[error("{error}")]
    NotFound {
        error: Error,
        /// The file systems that could not be read.
        missed: Vec<NotLookedAt>,
    },
    /// The states may not be deleted.
    #[error(transparent)]
    Kept(#[from] Error),
    /// I/O error after some deletions.
    #[error("{done} of {of} deleted, then: {}", with_causes(.source))]
    NotDeleted {
        /// Number of states deleted before.
        done: usize,
        /// Number of states to delete.
        of: usize,
        source: io::Error,
    },
}

/// Deletes the requested states. No push may start meanwhile, see [`Sender::hold_starts`]. Blocks.
///
/// # Errors
/// See [`Failed`]; nothing was deleted then, except before an I/O error.
pub fn forget(sender: &Sender, wish: &ParentChoice) -> Result<Forgotten, Failed> {
    let target = format!("{}:{}", wish.target.receiver, wish.target.volume);
    let selection = Selection::resolve(sender, Some(wish.target.clone()))?;
    // A state on another file system cannot be a parent here.
    let mut disks: Vec<Vec<Item>> = Vec::new();
    let missed = list::each(sender, &selection, |_, items| disks.push(items));
    let items = disks.concat();
    let chosen = match find(&items, &target, &wish.which) {
        Ok(chosen) => chosen,
        Err(error) => return Err(Failed::NotFound { error, missed }),
    };
    let consequence = judge(sender, wish, &target, &disks, &chosen)?;
    let pushes: BTreeSet<PushId> = chosen.iter().map(|record| record.push).collect();
    let states = discard(sender, &selection, &pushes, wish.mode)?;
    Ok(Forgotten {
        states,
        consequence,
        not_looked_at: missed,
    })
}

/// Checks that the states may be deleted, and describes the consequence.
fn judge(
    sender: &Sender,
    wish: &ParentChoice,
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

fn discard(
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
                prune::Mode::Delete => discard::discard(state, &kept.record),
                prune::Mode::DryRun => Ok(()),
            };
            match result {
                Ok(()) => states.push(kept),
                Err(e) => failed = Some(e),
            }
        }
    });
    if mode == prune::Mode::Delete {
        for kept in &states {
            log(&kept.record);
            sender.note(kept.record.pruned("it was forgotten on request"));
        }
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
        "forgotten on request"
    );
}

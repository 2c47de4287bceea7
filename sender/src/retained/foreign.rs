//! States that other hosts left on a disk. They are listed, and no policy touches them. Root deletes them
//! (`sendshotctl forget --foreign PATH`) or makes them this host's own (`sendshotctl take-over PATH`).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use rustix::fs::{Mode, OFlags};
use sendshot_model::{PushId, Reason, ReasonCode, VolumeName};
use sendshot_sys::filesystem;
use sendshot_sys::top_level::{self, TopLevel};

use crate::retained::list::Kept;
use crate::retained::prune;
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::presence;
use crate::state::record::{Item, Presence, Record};
use crate::state::store::{self, StateSubvolume};
use crate::volume::register::{self, Register};
use sendshot_proto::problem::JOURNAL;

/// What to do with the states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Delete them.
    Forget,
    /// Make them this host's own.
    TakeOver,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The path is on another kind of file system.
    #[error("{} is not on btrfs", path.display())]
    NotBtrfs { path: PathBuf },
    /// The file system has no states of other hosts.
    #[error("the file system of {} holds no states of other hosts", path.display())]
    Nothing { path: PathBuf },
    /// The states have changed since the user agreed.
    #[error("the states of other hosts on the file system of {} have changed since you were asked", path.display())]
    Changed { path: PathBuf },
    #[error(transparent)]
    TopLevel(#[from] top_level::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The journal of pushes cannot be read or written.
    #[error("cannot {JOURNAL}: {0}")]
    Journal(io::Error),
    /// The list of volumes on the disk cannot be read or written.
    #[error("cannot read or write .sendshot/register.json: {0}")]
    Register(io::Error),
    /// The file system cannot be recorded in the state directory.
    #[error("cannot record the file systems in use: {0}")]
    StateDir(io::Error),
    /// A state cannot be deleted.
    #[error("cannot delete the state of {volume} at {taken_at}: {source}")]
    NotDeleted {
        volume: VolumeName,
        /// When the state was taken, seconds since 1970 UTC.
        taken_at: i64,
        source: io::Error,
    },
}

/// Reads the records of other hosts on a file system, each with its host's name.
fn items(state: &StateSubvolume, sender: &Sender) -> io::Result<Vec<(Item, String)>> {
    let register = Register::load(state)?;
    let host = |sender| match register.host(sender) {
        Some(name) => name.to_owned(),
        None => format!("sender {sender}"),
    };
    let items = presence::items(state)?.into_iter();
    let vouched = sender.vouched();
    let is_own = |record: &Record| {
        record.sender == sender.id() || vouched.contains(&(record.receiver, record.sender))
    };
    let foreign = items.filter(|item| !is_own(&item.record));
    Ok(foreign
        .map(|item| (host(item.record.sender), item))
        .map(|(host, item)| (item, host))
        .collect())
}

/// A state that another host left.
#[derive(Debug, Clone)]
pub struct Foreign {
    pub kept: Kept,
    pub host: String,
    /// Why it is listed.
    pub reason: Reason,
}

/// Lists what other hosts left on the file systems that this host uses, one list per file system. Blocks.
pub fn list(sender: &Sender) -> Vec<Vec<Foreign>> {
    let mut listed = Vec::new();
    // The list of this host's own states reports the file systems that could not be read.
    sender.filesystems().each(|state| {
        listed.push(shown(state, items(state, sender)?));
        Ok(())
    });
    listed
}

fn shown(state: &StateSubvolume, items: Vec<(Item, String)>) -> Vec<Foreign> {
    let here = items
        .into_iter()
        .filter(|(item, _)| item.presence == Presence::Here);
    let mut found: Vec<Foreign> = here
        .map(|(item, host)| {
            let reason = format!(
                "{host} left it; `take-over PATH` makes it this host's own, `forget --foreign PATH` deletes it"
            );
            Foreign {
                kept: Kept::of(state, item),
                host,
                reason: Reason::new(ReasonCode::OtherHost, reason),
            }
        })
        .collect();
    found.sort_by_key(|foreign| (foreign.host.clone(), foreign.kept.order()));
    found
}

/// Applies `action` to all states of other hosts on the file system of `path`; returns the states as they were. If
/// `agreed` is not empty, they must be exactly these. No push may start meanwhile, see [`Sender::hold_starts`].
/// Blocks.
///
/// # Errors
/// See [`Error`].
pub fn act(
    sender: &Sender,
    path: &Path,
    action: Action,
    mode: prune::Mode,
    agreed: &BTreeSet<PushId>,
) -> Result<Vec<Foreign>, Error> {
    let state = open(sender, path)?;
    let items = items(&state, sender).map_err(Error::Journal)?;
    if items.is_empty() {
        let path = path.to_owned();
        return Err(Error::Nothing { path });
    }
    let pushes: BTreeSet<PushId> = items.iter().map(|(item, _)| item.record.push).collect();
    if !agreed.is_empty() && *agreed != pushes {
        let path = path.to_owned();
        return Err(Error::Changed { path });
    }
    let told = shown(&state, items.clone());
    if mode == prune::Mode::DryRun {
        return Ok(told);
    }
    match action {
        Action::Forget => {
            for (item, _) in &items {
                discard::discard(&state, &item.record).map_err(|source| Error::NotDeleted {
                    volume: item.record.volume_name.clone(),
                    taken_at: item.record.taken_at,
                    source,
                })?;
            }
            let own = sender.own_ids();
            let _alone = register::WRITING
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let mut kept = Register::load(&state).map_err(Error::Register)?;
            kept.keep_only(|sender| own.contains(&sender));
            kept.store(&state).map_err(Error::Register)?;
        }
        Action::TakeOver => {
            register::adopt(&state, sender.id(), |_| true).map_err(Error::Journal)?;
            let remembered = sender.filesystems().remember(state.top().fsid(), path);
            remembered.map_err(Error::StateDir)?;
        }
    }
    tracing::info!(path = %path.display(), states = items.len(), ?action, "states of other hosts were deleted or taken over");
    Ok(told)
}

fn open(sender: &Sender, path: &Path) -> Result<StateSubvolume, Error> {
    let path = path.to_owned();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(e) => {
            let source = e.into();
            return Err(Error::Open { path, source });
        }
    };
    match filesystem::is_btrfs(&fd) {
        Ok(true) => {}
        Ok(false) => return Err(Error::NotBtrfs { path }),
        Err(source) => return Err(Error::Open { path, source }),
    }
    // A forgotten file system is recorded again.
    if let Err(e) = sender.filesystems().remember_if_ours(&path) {
        tracing::debug!(path = %path.display(), "cannot look for this host's states: {e:#}");
    }
    let state = StateSubvolume::open(TopLevel::of(&fd)?)?;
    state.ok_or(Error::Nothing { path })
}

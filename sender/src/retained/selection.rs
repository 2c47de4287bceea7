//! Finds the kept states that a user means by HOST:VOL.
//!
//! States outlive the receiver's pairing and the volume's configuration. So the names in the journal count, which
//! `sendshotctl list` shows, and for a configured volume its id, which survives renames.

use std::path::{Path, PathBuf};

use sendshot_model::{PeerName, Target, VolumeId, VolumeName, VolumeRef};

use sendshot_proto::problem::with_causes;

use crate::shared::sender::Sender;
use crate::state::record::Record;
use crate::volume::ids::Naming;
use crate::volume::resolve;

/// A choice of records.
#[derive(Debug, Clone)]
pub enum Selection {
    /// All of this sender.
    All,
    Of(PeerName, Wanted),
}

/// How the records of a volume are found.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// By the volume's name at the time of the push.
    name: Option<VolumeName>,
    id: Option<VolumeId>,
}

/// Why a target cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", with_causes(.0))]
    Path(#[from] resolve::Error),
    /// The path leads to a volume that was never pushed.
    #[error("{} was never pushed from this host", .0.display())]
    NeverPushed(PathBuf),
}

impl Selection {
    /// Resolves a target on this host; `None` means all. Blocks.
    ///
    /// # Errors
    /// See [`Error`]: if a path is not a volume that was ever pushed.
    pub fn resolve(sender: &Sender, target: Option<Target>) -> Result<Self, Error> {
        let Some(Target { receiver, volume }) = target else {
            return Ok(Self::All);
        };
        let config = sender.config();
        let wanted = match volume {
            VolumeRef::Name(name) => by_name(sender, name),
            VolumeRef::Path(path) => match config.volumes.iter().find(|(_, v)| v.path == path) {
                Some((name, _)) => by_name(sender, name.clone()),
                None => by_path(sender, &path)?,
            },
        };
        Ok(Self::Of(receiver, wanted))
    }

    /// Whether a record is selected. One of another sender never is.
    pub fn selects(&self, sender: &Sender, record: &Record) -> bool {
        record.sender == sender.id()
            && self.names(&record.receiver_name, (&record.volume_name, record.volume))
    }

    /// Whether a receiver and a volume are selected.
    pub fn names(&self, receiver: &PeerName, (name, id): (&VolumeName, VolumeId)) -> bool {
        match self {
            Self::All => true,
            Self::Of(selected, wanted) => {
                receiver == selected
                    && (wanted.id == Some(id) || wanted.name.as_ref() == Some(name))
            }
        }
    }
}

fn by_name(sender: &Sender, name: VolumeName) -> Wanted {
    let binding = sender
        .volume_ids()
        .by_naming(&Naming::Configured(name.clone()));
    Wanted {
        id: binding.map(|binding| binding.id),
        name: Some(name),
    }
}

fn by_path(sender: &Sender, path: &Path) -> Result<Wanted, Error> {
    let id = sender.find(|finder| resolve::known_at(finder, path))?;
    let id = id.ok_or_else(|| Error::NeverPushed(path.to_owned()))?;
    Ok(Wanted {
        name: None,
        id: Some(id),
    })
}

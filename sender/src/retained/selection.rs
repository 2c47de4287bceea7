//! Which of the kept states a user means by HOST:VOL.
//!
//! What is kept outlives what it was made of: a receiver that was unpaired, a volume that the
//! configuration does not name any more. So the journal's own names count, the ones that
//! `sendshotctl list` shows, and of a configured volume its id, which survives renames.

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
    /// All that are ours.
    All,
    /// Those of one receiver and volume.
    Of(PeerName, Wanted),
}

/// How a volume is known.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// By the name that was used for the push.
    name: Option<VolumeName>,
    /// By its id.
    id: Option<VolumeId>,
}

/// Why it is not clear what is meant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path was given that leads to no volume.
    #[error("{}", with_causes(.0))]
    Path(#[from] resolve::Error),
    /// It leads to one of which nothing was ever pushed.
    #[error("{} was never pushed from this box", .0.display())]
    NeverPushed(PathBuf),
}

impl Selection {
    /// What a target means on this box; `None` means all. Blocks.
    ///
    /// # Errors
    /// See [`Error`]: if a path is no volume that was ever pushed.
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

    /// Whether a record is meant. One of another sender never is.
    pub fn selects(&self, sender: &Sender, record: &Record) -> bool {
        record.sender == sender.id()
            && match self {
                Self::All => true,
                Self::Of(receiver, wanted) => {
                    record.receiver_name == *receiver && wanted.is(record)
                }
            }
    }
}

impl Wanted {
    fn is(&self, record: &Record) -> bool {
        self.id == Some(record.volume) || self.name.as_ref() == Some(&record.volume_name)
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

//! Parsing that the calls share: receivers, volumes, pushes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use sendshot_config::ReceiverEntry;
use sendshot_model::{PushId, Target, VolumeRef};
use sendshot_proto::problem::{Kind, Problem};

use crate::retained::list;
use crate::retained::prune;
use crate::shared::sender::Sender;

pub(super) fn needs_root(what: &str) -> Problem {
    Problem::new(Kind::Refused, format!("{what} needs root"))
        .remedy("run it with sudo, or name a volume that sender.toml configures")
}

/// Parses the names of a receiver and a volume; `None` if both are empty. Opening a path shows whether it
/// exists, which only root may learn.
pub(super) fn target(
    receiver: String,
    volume: Vec<u8>,
    root: bool,
) -> Result<Option<Target>, Problem> {
    if receiver.is_empty() && volume.is_empty() {
        return Ok(None);
    }
    let mut argument = OsString::from(receiver);
    argument.push(":");
    argument.push(OsString::from_vec(volume));
    let target = Target::parse(argument).map_err(|e| usage(&e))?;
    if matches!(target.volume, VolumeRef::Path(_)) && !root {
        return Err(needs_root("naming a path"));
    }
    Ok(Some(target))
}

pub(super) fn usage(error: &dyn std::error::Error) -> Problem {
    Problem::from_error(Kind::Usage, error)
}

pub(super) fn mode(dry_run: bool) -> prune::Mode {
    match dry_run {
        true => prune::Mode::DryRun,
        false => prune::Mode::Delete,
    }
}

pub(super) fn pushes(ids: &[Vec<u8>]) -> Result<BTreeSet<PushId>, Problem> {
    ids.iter()
        .map(|bytes| PushId::try_from(bytes.as_slice()).map_err(|e| usage(&e)))
        .collect()
}

pub(super) async fn paired(sender: &Arc<Sender>) -> Result<list::Paired, Problem> {
    let receivers = sender.receivers().await?;
    let instance = |(name, entry): (_, ReceiverEntry)| (name, entry.receiver_id);
    Ok(receivers.into_iter().map(instance).collect())
}

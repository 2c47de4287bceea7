//! `sendshotctl copy root`: the disks that take turns as the root.

use std::sync::Arc;

use sendshot_model::{ReceiverId, RootId};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;

use super::request::blocking;
use crate::shared::receiver::Receiver;
use crate::store::root::{Disk, Error};

fn state(id: RootId, disk: &Disk, present: Option<RootId>) -> v1::RootState {
    v1::RootState {
        id: id.to_bytes().to_vec(),
        fsid: disk.fsid.as_bytes().to_vec(),
        added_at: disk.added_at,
        seen_at: disk.seen_at,
        present: present == Some(id),
    }
}

/// Lists the recorded disks. Blocks.
pub fn list(receiver: &Receiver) -> v1::RootsResponse {
    // The list works without a disk.
    let present = receiver.root().open().ok().map(|root| root.id());
    let disks = receiver.root().disks().known;
    let roots = disks.iter().map(|(id, disk)| state(*id, disk, present));
    v1::RootsResponse {
        roots: roots.collect(),
        ..Default::default()
    }
}

fn only(receiver: &Receiver, id: RootId) -> v1::RootsResponse {
    let mut all = list(receiver);
    all.roots.retain(|root| root.id == id.to_bytes());
    all
}

/// Marks the current disk. Blocks.
///
/// # Errors
/// See [`Error`].
pub fn add(receiver: &Receiver) -> Result<v1::RootsResponse, Error> {
    let id = receiver.root().add()?;
    tracing::info!(%id, "a disk is one of this receiver's now");
    Ok(only(receiver, id))
}

/// Stops using a disk; `text` is its id, or the beginning of it. Blocks.
///
/// # Errors
/// See [`Error`].
pub fn remove(receiver: &Receiver, text: &str) -> Result<v1::RootsResponse, Error> {
    let known = receiver.root().disks().known.into_keys();
    let found: Vec<RootId> = known
        .filter(|id| id.to_string().starts_with(text))
        .collect();
    let id = || sendshot_model::printable_within(text, 64);
    match found[..] {
        [found] => {
            receiver.root().remove(found)?;
            tracing::info!(id = %found, "a disk is not used any more");
            Ok(list(receiver))
        }
        [] => Err(Error::Unknown { id: id() }),
        [..] => Err(Error::Ambiguous { id: id(), found }),
    }
}

/// Makes the current disk this receiver's, if it still belongs to the `owner` that the user was shown; without
/// `owner` it only returns the owner. Blocks.
///
/// # Errors
/// See [`Error`].
pub fn take_over(receiver: &Receiver, owner: &[u8]) -> Result<v1::RootsResponse, Error> {
    let root = receiver.root();
    let Ok(agreed) = ReceiverId::try_from(owner) else {
        let found = root.owner()?;
        return Ok(v1::RootsResponse {
            roots: Vec::new(),
            owner_id: found.receiver.to_bytes().to_vec(),
            senders: found.senders,
            problem: None,
        });
    };
    let id = root.take_over(agreed)?;
    tracing::info!(%id, from = %agreed, "a disk was taken over");
    Ok(only(receiver, id))
}

/// Runs `work` on a thread, and converts its error for the user.
pub async fn about(
    receiver: &Arc<Receiver>,
    work: impl FnOnce(&Receiver) -> Result<v1::RootsResponse, Error> + Send + 'static,
) -> Result<v1::RootsResponse, Problem> {
    let receiver = Arc::clone(receiver);
    let done = blocking(move || work(&receiver)).await?;
    done.map_err(|e| Problem::new(kind(&e), e.to_string()).remedy(e.remedy()))
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Own { .. } | Error::Nobodys { .. } => Kind::Usage,
        _ => Kind::Failed,
    }
}

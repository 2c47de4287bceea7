//! The inventory of a volume: its copies, the disk, and where interrupted transfers can be resumed.

use std::io;

use sendshot_apply::staging::Area;
use sendshot_proto::inventory::Inventory;
use sendshot_proto::resume::Partial;
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::filesystem;

use crate::receive::failures::io_failure;
use crate::shared::receiver::Receiver;
use crate::store::partials;
use crate::store::root::OpenRoot;
use crate::store::volumes::{self, Caller};

/// Reads what the receiver holds of a volume from the file system.
pub(super) fn look(
    receiver: &Receiver,
    caller: &Caller,
    volume: &VolumeKey,
) -> Result<Inventory, sendshot_proto::failure::Failure> {
    // Read before the copies: a push that ends in between has committed before they are read.
    let commit_pending = receiver.transfers().has(caller, volume.id);
    let root = receiver.root().open()?;
    let failed = |e| io_failure("read the copies of the volume", &e);
    let partials = resumable(receiver, &root, caller, volume).map_err(failed)?;
    let Some(dir) = volumes::find(&root, caller, volume).map_err(failed)? else {
        return Ok(Inventory {
            commit_pending,
            partials,
            root: Some(root.id()),
            label: volumes::label_of_name(&root, caller, volume).map_err(failed)?,
            free_bytes: free_bytes(receiver, &root),
            ..Inventory::default()
        });
    };
    Ok(Inventory {
        copies: volumes::copies(&dir.fd).map_err(failed)?,
        directory: dir.name,
        commit_pending,
        partials,
        root: Some(root.id()),
        label: None,
        free_bytes: free_bytes(receiver, &root),
    })
}

/// Bytes that a push may still write; `None` if the disk does not say.
fn free_bytes(receiver: &Receiver, root: &OpenRoot) -> Option<u64> {
    let space = filesystem::space(root).ok()?;
    let least = receiver.config().min_free.of(space.total);
    Some(space.free.saturating_sub(least))
}

/// The interrupted transfers of a volume, each with all points at which it can be resumed.
fn resumable(
    receiver: &Receiver,
    root: &OpenRoot,
    caller: &Caller,
    volume: &VolumeKey,
) -> io::Result<Vec<Partial>> {
    let mut found: Vec<Partial> = Vec::new();
    let area = Area::new(root)?;
    if area.exists() {
        let dir = area.dir().map_err(io::Error::other)?;
        let all = partials::all(&dir)?.into_iter();
        let ours = all.filter(|partial| partial.record.concerns(caller, volume.id));
        found.extend(ours.map(|partial| Partial {
            transfer: partial.record.transfer,
            points: partial.checkpoints.iter().map(|(c, _)| c.point).collect(),
        }));
    }
    let waiting = receiver.transfers().status_of(caller, volume.id);
    if let Some((transfer, point)) = waiting.and_then(|w| Some((w.transfer, w.parked_at?))) {
        match found
            .iter_mut()
            .find(|partial| partial.transfer == transfer)
        {
            Some(partial) => partial.points.push(point),
            None => found.push(Partial {
                transfer,
                points: vec![point],
            }),
        }
    }
    found.retain(|partial| !partial.points.is_empty());
    Ok(found)
}

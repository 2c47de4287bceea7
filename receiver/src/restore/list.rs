//! The volumes and copies of a sender.

use std::io;

use sendshot_model::PeerName;
use sendshot_model::ReasonCode;
use sendshot_proto::failure::Failure;
use sendshot_proto::inventory::HeldCopy;
use sendshot_proto::restore::{HeldVolume, RestorableCopy, Volumes};

use crate::receive::failures::io_failure;
use crate::store::root::OpenRoot;
use crate::store::{usage, volumes};

/// Reads the volumes of a sender from the file system: all of them, or the one called `name`.
///
/// # Errors
/// The failure for the sender.
pub fn list(root: &OpenRoot, sender: &PeerName, name: Option<&str>) -> Result<Volumes, Failure> {
    let failed = |e| io_failure("read the copies", &e);
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => volumes::names_of(root, sender).map_err(failed)?,
    };
    let mut found = Vec::new();
    for name in names {
        found.extend(volume(root, sender, name).map_err(failed)?);
    }
    Ok(Volumes {
        root: Some(root.id()),
        volumes: found,
    })
}

fn volume(root: &OpenRoot, sender: &PeerName, name: String) -> io::Result<Option<HeldVolume>> {
    let Some((dir, id)) = volumes::open_named(root, sender, &name)? else {
        return Ok(None);
    };
    // A damaged list of sizes hides no copies.
    let sizes = usage::sizes(&dir).unwrap_or_default();
    let copies = volumes::copies(&dir)?.into_iter().map(|copy| {
        let received_bytes = sizes.get(&(copy.uuid, copy.ctransid)).copied();
        restorable(copy, received_bytes)
    });
    Ok(Some(HeldVolume {
        name,
        id,
        copies: copies.collect(),
    }))
}

fn restorable(copy: HeldCopy, received_bytes: Option<u64>) -> RestorableCopy {
    let writable = |code| code == ReasonCode::CopyWritable;
    RestorableCopy {
        uuid: copy.uuid,
        ctransid: copy.ctransid,
        name: copy.name.to_string(),
        committed_at: copy.committed_at,
        received_bytes,
        is_writable: copy.unusable.as_ref().is_some_and(|why| writable(why.code)),
        doubt: copy.unusable.map(|unusable| unusable.why.to_string()),
    }
}

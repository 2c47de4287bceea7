//! `sendshotctl copy list`: the copies.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use sendshot_model::NotKept;
use sendshot_proto::failure::Failure;
use sendshot_proto::inventory::HeldCopy;
use sendshot_proto::problem::Problem;
use sendshot_proto::{not_kept, v1};

use super::request::{blocking, failed};
use crate::receive::failures::io_failure;
use crate::shared::receiver::Receiver;
use crate::store::usage;
use crate::store::volumes;

/// Lists the copies.
pub(super) async fn answer(
    receiver: &Arc<Receiver>,
    wanted: v1::CopiesRequest,
) -> Result<v1::CopiesResponse, Problem> {
    let receiver = Arc::clone(receiver);
    let copies = blocking(move || list(&receiver, &wanted))
        .await?
        .map_err(failed)?;
    Ok(v1::CopiesResponse {
        copies,
        problem: None,
    })
}

fn list(receiver: &Receiver, wanted: &v1::CopiesRequest) -> Result<Vec<v1::CopyState>, Failure> {
    let root = receiver.root().open()?;
    let failed = |e| io_failure("read the copies", &e);
    let mut copies = Vec::new();
    for (sender, volume, dir) in volumes::all(&root).map_err(failed)? {
        let asked = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        if !asked(&wanted.sender, &sender) || !asked(&wanted.volume, &volume) {
            continue;
        }
        let path = root.path().join(&sender).join(&volume);
        let not_kept = usage::not_kept(&dir).map_err(failed)?;
        for copy in volumes::copies(&dir).map_err(failed)? {
            let path = path.join(copy.name.as_ref());
            let lacks = not_kept.copy((copy.uuid, copy.ctransid));
            let path = path.as_os_str().as_bytes();
            copies.push(describe(&sender, &volume, copy, path, &lacks));
        }
    }
    Ok(copies)
}

fn describe(
    sender: &str,
    volume: &str,
    copy: HeldCopy,
    path: &[u8],
    lacks: &NotKept,
) -> v1::CopyState {
    let (unusable, unusable_code) = match &copy.unusable {
        Some(unusable) => (unusable.why.to_string(), unusable.code.to_string()),
        None => Default::default(),
    };
    v1::CopyState {
        sender: sender.to_owned(),
        volume: volume.to_owned(),
        name: copy.name.to_string(),
        uuid: copy.uuid.as_bytes().to_vec(),
        committed_at: copy.committed_at,
        unusable,
        unusable_code,
        path: path.to_vec(),
        not_kept: not_kept::message(lacks),
    }
}

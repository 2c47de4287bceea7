//! The calls of the program that restores: it holds the pushes of a volume back, and has a restored subvolume recorded.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use sendshot_model::history::SenderEvent;
use sendshot_model::{PeerName, VolumeName};
use sendshot_proto::answer::only_root;
use sendshot_proto::malformed;
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use uuid::Uuid;

use super::request::usage;
use crate::restore::record::{self, Restored};
use crate::shared::blocking::blocking;
use crate::shared::running::HeldVolume;
use crate::shared::sender::Sender;

/// The events of a hold.
pub(super) type Events = ReceiverStream<Result<v1::HoldVolumeEvent, Status>>;

/// Holds the pushes of a volume back until the caller has gone.
pub(super) async fn hold(
    sender: &Arc<Sender>,
    message: v1::HoldVolumeRequest,
    root: bool,
) -> Events {
    let (tell, events) = mpsc::channel(1);
    let held = take(sender, &message, root).await;
    let (held, problem) = match held {
        Ok(held) => (Some(held), None),
        Err(problem) => (None, Some(problem.into())),
    };
    // Cannot fail: the channel is new.
    let _ = tell.try_send(Ok(v1::HoldVolumeEvent { problem }));
    if let Some(held) = held {
        let sender = Arc::clone(sender);
        tokio::spawn(async move {
            tokio::select! {
                () = tell.closed() => {}
                () = sender.stop.cancelled() => {}
            }
            drop(held);
            // It may have left something to continue from, which expires.
            sender.interrupted().note();
        });
    }
    ReceiverStream::new(events)
}

async fn take(
    sender: &Arc<Sender>,
    message: &v1::HoldVolumeRequest,
    root: bool,
) -> Result<HeldVolume, Problem> {
    only_root(root, "restoring a volume in its place")?;
    let volume = VolumeName::parse(&message.volume).map_err(|e| usage(&e))?;
    // A push that has reported is only deleting.
    sender.wait_for_releases().await;
    let _starts = sender.hold_starts().await;
    sender.table().hold(&volume).map_err(|running| {
        let (message, remedy) = match running {
            Some(running) => (
                format!("a push of `{volume}` to {} is running", running.receiver),
                "wait until it has ended, or cancel it",
            ),
            None => (
                format!("`{volume}` is being restored in its place already"),
                "wait until that has ended",
            ),
        };
        Problem::new(Kind::Refused, message).remedy(remedy)
    })
}

/// Records a restored subvolume.
pub(super) async fn record(
    sender: &Arc<Sender>,
    message: v1::RecordRestoredRequest,
    root: bool,
) -> Result<v1::RecordRestoredResponse, Problem> {
    only_root(root, "restoring a volume in its place")?;
    let volume = VolumeName::parse(&message.volume).map_err(|e| usage(&e))?;
    if !sender.table().is_held(&volume) {
        return Err(Problem::new(
            Kind::Usage,
            format!("the pushes of `{volume}` are not held back"),
        ));
    }
    let receiver = PeerName::parse(&message.receiver).map_err(|e| usage(&e))?;
    let entry = sender.receiver(&receiver).await?;
    let id = |bytes: &[u8], field| {
        let id = malformed::id_bytes(bytes, field).map_err(|e| usage(&e));
        id.map(Uuid::from_bytes)
    };
    let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
    let restored = Restored {
        volume,
        receiver,
        receiver_id: entry.receiver_id,
        root: malformed::root_id(&message.root_id).map_err(|e| usage(&e))?,
        uuid: id(&message.uuid, "uuid")?,
        ctransid: message.ctransid,
        copy: message.copy,
        fsid: id(&message.fsid, "fsid")?,
        device: Some(path(message.device)).filter(|path| !path.as_os_str().is_empty()),
        staging: path(message.staging),
        snapshot: path(message.snapshot),
    };
    let sender = Arc::clone(sender);
    let work = move || -> Result<(), record::Error> {
        record::record(&sender, &restored)?;
        sender.note(SenderEvent::Restored {
            receiver: restored.receiver,
            volume: restored.volume,
            copy: restored.copy,
            in_place: true,
        });
        Ok(())
    };
    blocking("record", work).await??;
    Ok(v1::RecordRestoredResponse { problem: None })
}

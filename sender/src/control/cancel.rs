//! `sendshotctl cancel`: finds the running pushes that the request means.

use sendshot_model::PushId;
use sendshot_proto::report::path_bytes;
use sendshot_proto::{malformed, v1};
use tonic::Status;

use crate::shared::running::Running;
use crate::shared::sender::Sender;

/// Cancels the selected pushes, and waits until they end; returns how many there were.
///
/// # Errors
/// If the request is invalid.
pub(super) async fn answer(
    sender: &Sender,
    message: v1::CancelRequest,
) -> Result<v1::CancelResponse, Status> {
    let wanted = Selection::parse(message)?;
    let mut cancelled = 0;
    for running in sender.table().all() {
        if wanted.selects(&running) && !running.is_reported() {
            running.cancel.cancel();
            running.over().await;
            cancelled += 1;
        }
    }
    Ok(v1::CancelResponse { cancelled })
}

/// The running pushes that a request means; empty fields mean all.
struct Selection {
    push: Option<PushId>,
    receiver: String,
    volume: Vec<u8>,
}

impl Selection {
    fn parse(message: v1::CancelRequest) -> Result<Self, Status> {
        let push = match message.push_id.as_slice() {
            [] => None,
            bytes => Some(PushId::from_bytes(malformed::id_bytes(bytes, "push_id")?)),
        };
        Ok(Self {
            push,
            receiver: message.receiver,
            volume: message.volume,
        })
    }

    fn selects(&self, running: &Running) -> bool {
        let receiver = self.receiver.is_empty() || running.receiver.as_str() == self.receiver;
        let volume = self.volume.is_empty()
            || running.volume.as_str().as_bytes() == self.volume
            || path_bytes(&running.path) == self.volume;
        receiver && volume && self.push.is_none_or(|push| running.push == push)
    }
}

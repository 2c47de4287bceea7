//! The handles that all stages of one push share. It decides nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_model::{Engine, PeerName, PushId, ReceiverId, RootId, VolumeId};
use sendshot_proto::volume::VolumeKey;

use crate::connection::link::Link;
use crate::push::error::Error;
use crate::push::progress::Listener;
use crate::shared::blocking::{Died, blocking};
use crate::shared::pushed_states::PushedState;
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::journal;
use crate::state::record::{Intent, Phase, Record};
use crate::state::store::StateSubvolume;

pub(crate) struct PushContext {
    pub(crate) sender: Arc<Sender>,
    pub(crate) running: Arc<Running>,
    pub(crate) listener: Listener,
    pub(crate) key: VolumeKey,
    /// What the receiver knows the volume by.
    pub(crate) key_there: VolumeKey,
    /// The receiver's disk that the last inventory described, if the receiver reports one.
    pub(crate) root: Option<RootId>,
    /// The copies that the last inventory reported: the times of their commits, and their names.
    pub(crate) reported: Vec<(i64, Arc<str>)>,
    /// The state of the live volume that was delivered last.
    pub(crate) delivered: Option<PushedState>,
    pub(crate) link: Link,
    /// Bytes on the connections before this one.
    pub(crate) wire_before: u64,
    pub(crate) state: Arc<StateSubvolume>,
    pub(crate) engine: Engine,
}

impl PushContext {
    /// Reports that the push has entered a stage.
    pub(crate) fn enter(&self, stage: &'static str, detail: impl Into<String>) {
        self.listener.stage(&self.running, stage, detail);
    }

    /// Runs `work` on the state subvolume, on a thread called `name`.
    pub(crate) async fn on_store<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&StateSubvolume) -> T + Send + 'static,
    ) -> Result<T, Died> {
        let state = Arc::clone(&self.state);
        blocking(name, move || work(&state)).await
    }

    /// The stream version that both sides speak.
    pub(crate) fn stream_version(&self) -> u32 {
        self.link.stream_version()
    }

    /// Bytes on all connections of this push.
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.wire_before + self.link.wire_bytes()
    }

    /// The volume, the receiver with its disk, and the receiver's name on this host.
    pub(crate) fn destination(&self) -> (VolumeId, (ReceiverId, Option<RootId>), PeerName) {
        let receiver = (self.link.receiver(), self.root);
        (self.key.id, receiver, self.running.receiver.clone())
    }

    pub(crate) fn intent(&self, push: PushId) -> Intent {
        Intent {
            sender: self.sender.id(),
            volume: self.key.id,
            volume_name: self.key.name.clone(),
            receiver: self.link.receiver(),
            receiver_name: self.running.receiver.clone(),
            push,
            taken_at: Timestamp::now().as_second(),
            engine: self.engine,
        }
    }

    /// Discards a push that did not complete, with its snapshot, unless the receiver may have committed.
    pub(crate) async fn discard(&self, record: Record) {
        if self.state.is_temporary() {
            return;
        }
        let push = record.push;
        let discarded = self.on_store("abandon", move |state| {
            match journal::find(state.pushes(), push)? {
                Some(now) if now.phase == Phase::Sending => discard::discard(state, &now),
                Some(_) | None => Ok(()),
            }
        });
        if let Err(e) = discarded.await.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%push, "an abandoned push is left to be reconciled later: {e}");
        }
    }
}

pub(crate) fn another(fd: impl AsFd) -> Result<OwnedFd, Error> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(Error::volume("open the volume again"))
}

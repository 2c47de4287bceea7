//! What uses the copies of a volume: a copy in use is not deleted.

use std::io;
use std::os::fd::OwnedFd;

use sendshot_apply::staging::Area;
use sendshot_sys::subvolume::Info;
use uuid::Uuid;

use crate::shared::receiver::Receiver;
use crate::store::partials;
use crate::store::root::OpenRoot;
use crate::store::volumes;

/// What uses the copies of a volume.
#[derive(Debug)]
pub(super) struct Uses {
    is_pushed: bool,
    /// Whether a push of the volume was interrupted.
    pub(super) has_partial: bool,
    /// The states that interrupted pushes build on.
    parents: Vec<(Uuid, u64)>,
    /// Names of the copies that are being fetched.
    fetched: Vec<String>,
}

impl Uses {
    pub(super) fn of(
        receiver: &Receiver,
        root: &OpenRoot,
        sender: &str,
        volume: &str,
        dir: &OwnedFd,
    ) -> io::Result<Self> {
        let id = volumes::id_of(dir);
        let area = Area::new(root)?;
        let partials = match area.exists() {
            true => partials::all(area.dir().map_err(io::Error::other)?)?,
            false => Vec::new(),
        };
        let own = partials
            .iter()
            .filter(|partial| Some(partial.record.volume) == id);
        let own: Vec<_> = own.collect();
        Ok(Self {
            has_partial: !own.is_empty(),
            // A push can clone from any copy of its volume.
            is_pushed: receiver.transfers().is_at_work(sender, id),
            parents: own
                .iter()
                .filter_map(|partial| partial.record.parent())
                .collect(),
            fetched: receiver.fetches().copies_of(sender, volume),
        })
    }

    pub(super) fn of_copy(&self, name: &str, info: &Info) -> Option<&'static str> {
        if self.fetched.iter().any(|fetched| fetched == name) {
            return Some("it is being restored");
        }
        if self.parents.contains(&(info.received_uuid, info.stransid)) {
            return Some("an interrupted push builds on it");
        }
        self.is_pushed.then_some("a push of its volume is running")
    }
}

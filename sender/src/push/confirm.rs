//! Asks a receiver whether it still holds the state that a volume has, instead of a push.

use std::sync::Arc;

use jiff::Timestamp;
use sendshot_model::{PeerName, VolumeName};
use sendshot_proto::confirm::Confirmation;
use sendshot_proto::volume::VolumeKey;

use crate::connection;
use crate::connection::link::{self, Link};
use crate::connection::renewal;
use crate::push::error::Error;
use crate::push::stages::negotiate;
use crate::shared::pushed_states::PushedState;
use crate::shared::sender::Sender;
use crate::volume::ids::Naming;

/// Reports a volume as unchanged since a state. Returns the state with the time of the answer, if the receiver still holds it.
///
/// # Errors
/// See [`Error`].
pub async fn confirm(
    sender: &Arc<Sender>,
    (receiver, volume): (&PeerName, &VolumeName),
    pushed: PushedState,
) -> Result<Option<PushedState>, Error> {
    let naming = Naming::Configured(volume.clone());
    let Some(binding) = sender.volume_ids().by_naming(&naming) else {
        return Ok(None);
    };
    let entry = sender.receiver(receiver).await?;
    let mut link = link::connect(&entry, sender.key()).await?;
    renewal::if_due(sender, receiver, &entry, &mut link).await;
    let key = VolumeKey {
        id: binding.id_at(link.receiver()),
        name: volume.clone(),
    };
    let now = Timestamp::now();
    let pause = sender.pauses().of(receiver, volume, now);
    let confirmation = Confirmation {
        volume: key.clone(),
        uuid: pushed.uuid,
        ctransid: pushed.ctransid,
        paused: pause.map(|pause| pause.as_confirmed()),
    };
    let is_held = match connection::confirm::ask(&mut link, confirmation).await? {
        Some(is_held) => is_held,
        None => by_inventory(&mut link, &key, &pushed).await?,
    };
    let confirmed = PushedState {
        reported_at: now.as_second(),
        ..pushed
    };
    let confirmed = is_held.then_some(confirmed);
    let states = sender.pushed_states();
    states.note(link.receiver(), volume, confirmed.clone());
    Ok(confirmed)
}

async fn by_inventory(
    link: &mut Link,
    key: &VolumeKey,
    pushed: &PushedState,
) -> Result<bool, Error> {
    let inventory = negotiate::inventory(link, key, None).await?;
    let mut copies = inventory.copies.iter();
    Ok(copies.any(|copy| {
        (copy.uuid, copy.ctransid) == (pushed.uuid, pushed.ctransid) && copy.unusable.is_none()
    }))
}

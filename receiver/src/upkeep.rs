//! Periodic checks: transfers whose sender does not come back, old partials, this receiver's own certificate, and
//! permissions to read copies that have ended.

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_identity::{Moment, PeerId};
use sendshot_model::PeerName;
use sendshot_model::history::{Key, ReceiverEvent};
use sendshot_service::notify;

use crate::receive::table::PARK_TIMEOUT;
use crate::shared::receiver::Receiver;
use crate::store::partials;

/// Drops transfers that have waited too long for their senders, deletes expired partials, ends permissions to read
/// whose time is over, and renews the receiver's own certificate when it is time. Blocks.
pub fn look_after(receiver: &Receiver) {
    notify::status(&in_a_line(receiver));
    for incoming in receiver.transfers().take_parked(PARK_TIMEOUT) {
        let (transfer, offset) = (incoming.transfer(), incoming.offset());
        tracing::info!(%transfer, offset, "its sender did not come back; a checkpoint stays, if there is one");
        drop(incoming);
    }
    match receiver.authority().renew_server(Timestamp::now()) {
        Ok(true) => tracing::info!("this receiver's own certificate was renewed"),
        Ok(false) => {}
        Err(e) => tracing::warn!("cannot renew this receiver's own certificate: {e}"),
    }
    end_permissions(receiver);
    let root = receiver.root().open_to_read().ok();
    let keep = receiver.config().partial_keep;
    receiver
        .captures()
        .expire(root.as_ref(), keep, Timestamp::now());
    if let Err(e) = expire_partials(receiver) {
        tracing::warn!("cannot look for old partials: {e:#}");
    }
}

/// What the daemon is doing, for `systemctl status`.
fn in_a_line(receiver: &Receiver) -> String {
    let transfers = receiver.transfers().statuses();
    let running: Vec<_> = transfers
        .iter()
        .filter(|transfer| transfer.parked_at.is_none())
        .collect();
    match (running.as_slice(), receiver.root().open_to_read()) {
        ([], Err(_)) => "its disk is absent".to_owned(),
        ([], Ok(_)) => "waits for pushes".to_owned(),
        ([one], _) => format!("receives {} from {}", one.volume, one.sender),
        (several, _) => format!("receives {} pushes", several.len()),
    }
}

/// Removes the permissions to read that have ended, and closes the connections of their temporary keys.
fn end_permissions(receiver: &Receiver) {
    let ended = match receiver.senders().end_expired(&Moment::now()) {
        Ok(ended) => ended,
        Err(e) => {
            return tracing::warn!("cannot remove permissions to restore that have ended: {e}");
        }
    };
    for granted in ended {
        let (sender, volume) = (&granted.name, granted.grant.volume.as_ref());
        let shown = volume.map(tracing::field::display);
        let by = match granted.temporary_key {
            Some(id) => {
                receiver.connections().end_all_of(PeerId::Sender(id));
                tracing::info!(%sender, %id, volume = shown, "the time of its temporary key has ended");
                Key::Temporary
            }
            None => {
                tracing::info!(%sender, volume = shown, "a grant to read its copies has ended");
                Key::Own
            }
        };
        receiver.note(ReceiverEvent::GrantEnded {
            sender: sender.clone(),
            volume: volume.map(ToString::to_string),
            by,
        });
    }
}

fn expire_partials(receiver: &Receiver) -> anyhow::Result<()> {
    let in_use: Vec<_> = receiver.transfers().statuses();
    let area = Area::new(receiver.root().open()?)?;
    if !area.exists() {
        return Ok(());
    }
    let (dir, now) = (area.dir()?, Timestamp::now());
    partials::forget_those(&dir, |partial| {
        let record = &partial.record;
        let free = in_use
            .iter()
            .all(|status| status.transfer != record.transfer);
        let over = free && partial.is_over(now, receiver.config().partial_keep);
        if over {
            tracing::info!(transfer = %record.transfer, sender = %record.sender_name,
                volume = %record.volume_name,
                "an interrupted push was not resumed in time; its partial is deleted");
        }
        over
    })?;
    Ok(())
}

/// Deletes the interrupted pushes of a sender. Running ones end by themselves. Blocks.
pub fn drop_interrupted(receiver: &Receiver, sender: &PeerName) {
    for incoming in receiver.transfers().take_parked_of(sender) {
        incoming.forget();
    }
    // On a root that is absent they stay until they expire.
    let Ok(root) = receiver.root().open() else {
        return;
    };
    let running: Vec<_> = receiver
        .transfers()
        .statuses()
        .into_iter()
        .map(|g| g.transfer)
        .collect();
    let forget = || -> anyhow::Result<usize> {
        let area = Area::new(&root)?;
        if !area.exists() {
            return Ok(0);
        }
        Ok(partials::forget_those(area.dir()?, |partial| {
            let record = &partial.record;
            record.sender_name == *sender && !running.contains(&record.transfer)
        })?)
    };
    if let Err(e) = forget() {
        tracing::warn!(%sender, "cannot delete the partials of its pushes: {e:#}");
    }
}

//! Stage *negotiate*: versions and features, and what the receiver holds of the volume.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sendshot_model::{RootId, TransferId, VolumeId};
use sendshot_proto::inventory::{self, Inventory, Question};
use sendshot_proto::problem::JOURNAL;
use sendshot_proto::transfer::Windows;
use sendshot_proto::v1;
use sendshot_proto::volume::VolumeKey;

use crate::connection;
use crate::connection::call::{MAX_ANSWER, failed, within};
use crate::connection::link::Link;
use crate::push::context::PushContext;
use crate::push::error::Error;
use crate::retained::reconcile::{self, Purpose};
use crate::shared::blocking::blocking;
use crate::state::journal;
use crate::state::record::{Phase, Record};

/// Longest wait for an inventory: the receiver opens every copy, possibly from a cold disk.
const INVENTORY_DEADLINE: Duration = Duration::from_secs(120);

/// Most disks of one receiver for which states are kept.
const MAX_ROOTS: usize = 32;

/// Asks for the receiver's inventory, and reconciles the records with it. `resuming` is the push that is about to
/// be resumed.
///
/// A push also names the transfer that any push of this volume opened last: it is no longer running, and the
/// receiver ends its call before it answers, so that the next transfer finds the slot free.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn negotiate(
    context: &mut PushContext,
    resuming: Option<&Record>,
    purpose: Purpose,
) -> Result<Inventory, Error> {
    let resuming = resuming.and_then(|record| Some(record.transfer.as_ref()?.id));
    let over = match purpose {
        Purpose::Push => {
            let table = context.sender.table();
            table.last_transfer(context.key.id, context.link.receiver())
        }
        Purpose::DryRun => None,
    };
    let (inventory, label) = ask_by_label(context, resuming.or(over)).await?;
    if let (Some(label), Purpose::Push) = (label, purpose) {
        take_label(context, label).await?;
    }
    let detail = match inventory.copies.len() {
        0 => "the receiver holds no copy yet".to_owned(),
        1 => "the receiver holds 1 copy".to_owned(),
        n => format!("the receiver holds {n} copies"),
    };
    context.enter("negotiate", detail);
    context.root = inventory.root;
    let reported = inventory.copies.iter();
    let reported = reported.map(|copy| (copy.committed_at, Arc::clone(&copy.name)));
    context.reported = reported.collect();
    let (volume, receiver) = (context.key.id, context.link.receiver());
    let (sender, name) = (
        Arc::clone(&context.sender),
        context.running.receiver.clone(),
    );
    let reconciled = context.on_store("reconcile", move |state| {
        let running = |push| sender.table().contains(push);
        let told = reconcile::ReceiverReport {
            inventory: &inventory,
            receiver,
            name: &name,
            paired: &sender.paired_ids(),
        };
        reconcile::acknowledgements(state, volume, &told, purpose, running).map(|()| inventory)
    });
    reconciled.await?.map_err(Error::volume(JOURNAL))
}

/// Asks again by the id in the receiver's own label, if this host has lost that id; returns it then.
async fn ask_by_label(
    context: &mut PushContext,
    transfer: Option<TransferId>,
) -> Result<(Inventory, Option<VolumeId>), Error> {
    let cancel = context.running.cancel.clone();
    let asked = async {
        let inventory = inventory(&mut context.link, &context.key_there, transfer).await?;
        let ids = context.sender.volume_ids();
        let forgotten = inventory
            .label
            .filter(|label| ids.is_free(*label, context.key.id));
        let Some(label) = forgotten else {
            return Ok((inventory, None));
        };
        context.key_there.id = label;
        let again = self::inventory(&mut context.link, &context.key_there, transfer);
        Ok((again.await?, Some(label)))
    };
    tokio::select! {
        asked = asked => asked,
        () = cancel.cancelled() => Err(Error::cancelled()),
    }
}

/// Records the id in the receiver's own label as the one by which the receiver knows the volume.
async fn take_label(context: &PushContext, label: VolumeId) -> Result<(), Error> {
    let (sender, state) = (Arc::clone(&context.sender), Arc::clone(&context.state));
    let (volume, receiver) = (context.key.id, context.link.receiver());
    tracing::info!(volume = %context.key.name, receiver = %context.running.receiver, %label,
        "the receiver knows the volume by an id that this host had forgotten");
    let work = move || -> std::io::Result<()> {
        match sender.volume_ids().take_label(volume, receiver, label)? {
            Some(binding) => sender.register(&state, &binding),
            None => Ok(()),
        }
    };
    blocking("label", work).await?.map_err(Error::state_dir(
        "record the id by which the receiver knows the volume",
    ))
}

/// Limits the number of a receiver's disks: a lying receiver must not fill this host's disks with the states
/// common to each.
///
/// # Errors
/// [`Error::TooManyRoots`], and I/O errors of the journal.
pub(crate) async fn check_root(context: &PushContext) -> Result<(), Error> {
    let Some(root) = context.root else {
        return Ok(());
    };
    let receiver = context.link.receiver();
    let known = context.on_store(
        "journal",
        move |state| -> std::io::Result<BTreeSet<RootId>> {
            let records = journal::records(state.pushes())?.into_iter();
            let of_receiver = records.filter(|record| record.receiver == receiver);
            Ok(of_receiver.filter_map(|record| record.root).collect())
        },
    );
    let known = known.await?.map_err(Error::volume(JOURNAL))?;
    if known.contains(&root) || known.len() < MAX_ROOTS {
        return Ok(());
    }
    Err(Error::TooManyRoots {
        receiver: context.running.receiver.clone(),
        volume: context.key.name.clone(),
        known: known.len(),
        root,
    })
}

/// Whether the receiver may have a commit pending of an earlier push of this volume.
///
/// # Errors
/// I/O errors of the journal.
pub(crate) async fn has_unconfirmed_push(context: &PushContext) -> Result<bool, Error> {
    let sender = Arc::clone(&context.sender);
    let chain = (sender.id(), context.key.id, context.link.receiver());
    let root = context.root;
    let found = context.on_store("journal", move |state| -> std::io::Result<bool> {
        let records = journal::records(state.pushes())?;
        Ok(records.iter().any(|record| {
            record.replication_key() == chain
                && record.phase == Phase::Unconfirmed
                && (record.root.is_none() || root.is_none() || record.root == root)
                && !sender.table().contains(record.push)
        }))
    });
    found.await?.map_err(Error::volume(JOURNAL))
}

/// Asks for the receiver's inventory. `resuming` is the transfer that is to be resumed: a call that still carries
/// it is dead.
///
/// # Errors
/// See [`connection::error::Error`].
pub async fn inventory(
    link: &mut Link,
    volume: &VolumeKey,
    resuming: Option<TransferId>,
) -> Result<Inventory, connection::error::Error> {
    let question = Question {
        volume: volume.clone(),
        resuming,
    };
    let request = v1::InventoryRequest::from(question);
    let address = link.address().to_owned();
    within(&address, INVENTORY_DEADLINE, ask(link, request)).await
}

async fn ask(
    link: &mut Link,
    request: v1::InventoryRequest,
) -> Result<Inventory, connection::error::Error> {
    let (address, wire) = (link.address().to_owned(), link.wire());
    let failed = |status| failed(&address, &status);
    let parts = link.client().inventory(request).await;
    let mut parts = parts.map_err(failed)?.into_inner();
    let mut whole = inventory::Parts::default();
    loop {
        // An endless answer must not keep the task from the deadline or from being cancelled.
        tokio::task::consume_budget().await;
        // The next parts may be under way already.
        wire.read_at_most(MAX_ANSWER + u64::from(Windows::FAR.stream));
        match parts.message().await.map_err(failed)? {
            Some(part) => whole
                .add(part)
                .map_err(connection::error::Error::invalid)??,
            None => return whole.finish().map_err(connection::error::Error::invalid),
        }
    }
}

//! A dry run: what a push would do, without doing it.
//!
//! With the sendshot engine it runs the stages of a push up to the plan: it takes and captures a hidden
//! snapshot, so the length of the stream is known exactly. The snapshot has a record like a push's, which never
//! gets beyond `sending`: after a crash, reconciliation deletes it with the snapshot and both sendshots.
//! The length of a kernel stream cannot be known; no snapshot is taken for it.

use std::sync::Arc;

use sendshot_engine::Sendshot;
use sendshot_engine::diff::rule::Kinship;
use sendshot_engine::stream::measure::{PathCost, Size};
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::top_level::TopLevel;

use crate::connection::link;
use crate::decide::costs::{self, Found};
use crate::decide::parent::{Acknowledged, ParentChoice, Plan};
use crate::push::context::PushContext;
use crate::push::error::Error;
use crate::push::generate;
use crate::push::progress::Listener;
use crate::push::request::Request;
use crate::push::room;
use crate::push::stages::connect;
use crate::push::stages::negotiate;
use crate::push::stages::prepare::{self, BySendshots, HeldSendshot, Prepared};
use crate::push::stages::source::{self, SourceSnapshot};
use crate::retained::reconcile::Purpose;
use crate::shared::blocking::blocking;
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::state::journal;
use crate::state::store::StateSubvolume;
use crate::volume::engine;
use crate::volume::resolve::Volume;
use sendshot_model::Engine;
use sendshot_proto::problem::JOURNAL;

#[derive(Debug)]
pub struct PushEstimate {
    pub key: VolumeKey,
    pub plan: Plan,
    /// The engine that would make the stream.
    pub engine: Engine,
    /// Length of the stream; only with the sendshot engine.
    pub size: Option<Size>,
    /// The paths that cost most of the stream, most expensive first; as many as requested.
    pub top: Vec<PathCost>,
    /// What costs more than the changes alone, for the user.
    pub notes: Vec<String>,
}

/// Plans a push and measures its stream.
///
/// # Errors
/// See [`Error`].
pub async fn run(
    sender: Arc<Sender>,
    request: Request,
    volume: Volume,
    running: Arc<Running>,
    top: usize,
) -> Result<PushEstimate, Error> {
    let usual = sender.engine(&volume.key.name);
    match engine::choose(request.engine, usual, &volume)? {
        Engine::Sendshot => by_sendshots(sender, request, volume, running, top).await,
        Engine::Kernel => by_snapshots(&sender, &request, volume).await,
    }
}

async fn by_snapshots(
    sender: &Sender,
    request: &Request,
    volume: Volume,
) -> Result<PushEstimate, Error> {
    let entry = sender.receiver(&request.receiver).await?;
    let mut link = link::connect(&entry, sender.key()).await?;
    let mut key_there = VolumeKey {
        id: volume.binding.id_at(link.receiver()),
        name: volume.key.name.clone(),
    };
    let mut inventory = negotiate::inventory(&mut link, &key_there, None).await?;
    if let Some(label) = inventory
        .label
        .filter(|label| sender.volume_ids().is_free(*label, volume.key.id))
    {
        key_there.id = label;
        inventory = negotiate::inventory(&mut link, &key_there, None).await?;
    }
    let (held, root) = (inventory.copies, inventory.root);
    let (key, info, parent_choice) = (
        volume.key.clone(),
        volume.info.clone(),
        request.parent_choice,
    );
    let (receiver, receiver_name) = (link.receiver(), request.receiver.clone());
    let plan = blocking("plan", move || -> Result<Plan, Error> {
        let ours = match StateSubvolume::open(TopLevel::of(&volume.fd)?)? {
            Some(state) => journal::records(state.pushes()).map_err(Error::volume(JOURNAL))?,
            None => Vec::new(),
        };
        let plan = prepare::decide(
            &TopLevel::of(&volume.fd)?,
            &ours,
            &info,
            held,
            parent_choice,
        )?;
        let acknowledged = Acknowledged::of(&ours, volume.key.id, (receiver, root), &receiver_name);
        Ok(plan.with(acknowledged))
    })
    .await??;
    Ok(PushEstimate {
        key,
        plan,
        engine: Engine::Kernel,
        size: None,
        top: Vec::new(),
        notes: Vec::new(),
    })
}

/// Deletes the snapshot and closes the file system before it returns. It does not wait until the space is
/// freed: so young a snapshot holds next to none.
async fn by_sendshots(
    sender: Arc<Sender>,
    request: Request,
    volume: Volume,
    running: Arc<Running>,
    top: usize,
) -> Result<PushEstimate, Error> {
    let (key, engine) = (volume.key.clone(), Engine::Sendshot);
    let listener = Listener::none();
    let begun = connect::begin(
        sender,
        &request.receiver,
        engine,
        &volume,
        running,
        listener,
    );
    let mut context = begun.await?;
    let source = source::take(&context, volume).await?;
    let estimate = look(&mut context, &source, request.parent_choice, top, key).await;
    if let Some(record) = source.record {
        context.discard(record).await;
    }
    estimate
}

async fn look(
    context: &mut PushContext,
    source: &SourceSnapshot,
    parent_choice: ParentChoice,
    top: usize,
    key: VolumeKey,
) -> Result<PushEstimate, Error> {
    let inventory = negotiate::negotiate(context, None, Purpose::DryRun).await?;
    let (held, free) = (inventory.copies, inventory.free_bytes);
    let demand = source.demand(parent_choice);
    let (prepared, captured_held) =
        prepare::prepare(context, source, held, demand, HeldSendshot::Temporary).await?;
    let version = context.stream_version();
    let measured = blocking("measure", move || measure(prepared, version, top, key)).await;
    if let Some(captured_held) = captured_held {
        context.discard(captured_held.record).await;
    }
    let mut estimate = measured??;
    let needed = estimate.size.map_or(0, |size| size.bytes);
    let receiver = &context.running.receiver;
    estimate.notes.extend(room::note(receiver, needed, free));
    Ok(estimate)
}

fn measure(
    prepared: Prepared,
    stream_version: u32,
    top: usize,
    key: VolumeKey,
) -> Result<PushEstimate, Error> {
    let Some(BySendshots {
        new,
        parent,
        effort,
        ..
    }) = prepared.by_sendshots
    else {
        return Err(Error::NothingCaptured);
    };
    let (size, top) = generate::size_by_paths(parent.as_deref(), &new, stream_version, top)?;
    let found = Found {
        kinship: parent.as_ref().map(|m| Kinship::of(m.head(), new.head())),
        effort,
        inodes: new.counts().inodes,
        changed: changed(parent.as_deref(), &new)?,
        size,
    };
    Ok(PushEstimate {
        key,
        plan: prepared.plan,
        engine: Engine::Sendshot,
        size: Some(size),
        top,
        notes: costs::notes(&found),
    })
}

/// Counts the inodes that changed since the parent, or all without one.
fn changed(
    parent: Option<&Sendshot>,
    new: &Sendshot,
) -> Result<u64, sendshot_engine::format::error::Error> {
    let since = parent.map_or(0, |parent| parent.head().otransid);
    let mut changed = 0;
    let mut reader = new.reader()?;
    while let Some(inode) = reader.next_inode()? {
        changed += u64::from(inode.item.transid > since);
    }
    Ok(changed)
}

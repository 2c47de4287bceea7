//! Pushes a series of read-only snapshots as one volume: finds those that the receiver's disk has never
//! acknowledged, and sends them, oldest first.
//!
//! A snapshot once acknowledged is not sent again, even if the receiver has deleted its copy by a rule or by
//! hand. Acknowledgements are recorded on the disk of the snapshots, for those that still exist there.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use sendshot_model::{NotKept, ReasonCode, ReceiverId, RootId, SenderId, VolumeId, VolumeName};
use sendshot_sys::durable;
use sendshot_sys::subvolume;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::connection;
use crate::decide::parent::ParentChoice;
use crate::push;
use crate::push::context::PushContext;
use crate::push::error::Error;
use crate::push::progress::Listener;
use crate::push::request::Request;
use crate::push::stages::connect;
use crate::push::stages::negotiate;
use crate::push::stages::release::Release;
use crate::retained::reconcile::Purpose;
use crate::shared::blocking::blocking;
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::state::journal;
use crate::state::store::{self, StateSubvolume};
use crate::volume::register;
use crate::volume::resolve::{self, Volume};
use crate::volume::series::Member;
use sendshot_model::Engine;
use sendshot_proto::confirm::Confirmation;
use sendshot_proto::report::Report;
use sendshot_transfer::retry::RetryBudget;

/// Most disks of one receiver that are remembered for one series.
const MAX_ROOTS: usize = 32;
/// Layout version of the file.
const VERSION: u32 = 1;

/// The states of series that the receivers' disks have acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Acknowledged {
    version: u32,
    lists: Vec<List>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct List {
    sender: SenderId,
    volume: VolumeId,
    receiver: ReceiverId,
    root: Option<RootId>,
    states: Vec<(Uuid, u64)>,
}

/// The volume, receiver and disk whose acknowledgements count.
#[derive(Debug, Clone, Copy)]
struct From {
    volume: VolumeId,
    receiver: ReceiverId,
    root: Option<RootId>,
}

impl Acknowledged {
    /// Reads the file. A damaged one counts as empty: the receiver itself reports what it holds.
    fn load(state: &StateSubvolume) -> io::Result<Self> {
        let empty = Self {
            version: VERSION,
            lists: Vec::new(),
        };
        match durable::read_json_at::<Self>(state.root(), OsStr::new(store::SERIES)) {
            Ok(Some(read)) if read.version == VERSION => Ok(read),
            Ok(Some(read)) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                journal::other_version(read.version, VERSION),
            )),
            Ok(None) => Ok(empty),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!("the list of acknowledged snapshots is damaged: {e}");
                Ok(empty)
            }
            Err(e) => Err(e),
        }
    }

    fn has(&self, sender: &Sender, from: From, state: (Uuid, u64)) -> bool {
        let own = sender.own_ids();
        let paired = sender.paired_ids();
        let mut lists = self.lists.iter().filter(|list| {
            // A receiver that was set up again has taken over the disk of one that is no longer paired.
            let inherited = list.root.is_some() && !paired.contains(&list.receiver);
            own.contains(&list.sender)
                && list.volume == from.volume
                && list.root == from.root
                && (list.receiver == from.receiver || inherited)
        });
        lists.any(|list| list.states.contains(&state))
    }

    fn note(&mut self, sender: SenderId, from: From, state: (Uuid, u64)) {
        let is_it = |list: &List| {
            list.sender == sender
                && list.volume == from.volume
                && (list.receiver, list.root) == (from.receiver, from.root)
        };
        match self.lists.iter_mut().find(|list| is_it(list)) {
            Some(list) if list.states.contains(&state) => {}
            Some(list) => list.states.push(state),
            None => self.lists.push(List {
                sender,
                volume: from.volume,
                receiver: from.receiver,
                root: from.root,
                states: vec![state],
            }),
        }
    }

    /// Forgets the receiver's oldest disk if it has too many: a lying receiver must not fill the list, and loses
    /// only its own entries.
    fn make_room(&mut self, sender: SenderId, from: From) {
        let of_receiver = |list: &List| {
            (list.sender, list.volume, list.receiver) == (sender, from.volume, from.receiver)
        };
        let known = self.lists.iter().filter(|list| of_receiver(list)).count();
        let is_known = |list: &List| of_receiver(list) && list.root == from.root;
        if known < MAX_ROOTS || self.lists.iter().any(is_known) {
            return;
        }
        if let Some(first) = self.lists.iter().position(of_receiver) {
            self.lists.remove(first);
        }
    }

    /// Writes the file without the snapshots that were deleted here: they cannot be sent again.
    fn store(mut self, state: &StateSubvolume) -> io::Result<()> {
        for list in &mut self.lists {
            let mut there = Vec::new();
            for (uuid, ctransid) in list.states.drain(..) {
                let ids = subvolume::ids_by_uuid(state.top(), uuid)?;
                if !ids.is_empty()
                    || !subvolume::ids_by_received_uuid(state.top(), uuid)?.is_empty()
                {
                    there.push((uuid, ctransid));
                }
            }
            list.states = there;
        }
        self.lists.retain(|list| !list.states.is_empty());
        durable::write_json_at(state.root(), OsStr::new(store::SERIES), &self)
    }
}

fn note(sender: &Sender, state: &StateSubvolume, from: From, members: &[Member]) -> io::Result<()> {
    let _alone = register::WRITING
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut acknowledged = Acknowledged::load(state)?;
    acknowledged.make_room(sender.id(), from);
    for member in members {
        acknowledged.note(sender.id(), from, (member.uuid, member.ctransid));
    }
    acknowledged.store(state)
}

/// The snapshots that a disk lacks.
struct Due {
    state: Arc<StateSubvolume>,
    from: From,
    members: Vec<Member>,
}

/// Pushes what the receiver's disk has never acknowledged, oldest first. The report is that of the newest.
///
/// # Errors
/// See [`Error`]; snapshots pushed before it stay acknowledged.
pub async fn push_all(
    sender: Arc<Sender>,
    request: Request,
    mut volume: Volume,
    running: Arc<Running>,
    listener: Listener,
) -> (Result<Report, Error>, Option<Release>) {
    let members = std::mem::take(&mut volume.series);
    let (name, newest) = (volume.key.name.clone(), volume.info.wire_uuid());
    let due = look(&sender, &request, volume, &running, &listener, members).await;
    let Due {
        state,
        from,
        members,
    } = match due {
        Ok(due) => due,
        Err(error) => return (Err(error), None),
    };
    let count = members.len();
    let mut request = request;
    let mut done: Option<(Report, Option<Release>)> = None;
    for (n, member) in members.into_iter().enumerate() {
        if let Some((_, Some(release))) = done
            .as_mut()
            .map(|(report, release)| (report, release.take()))
        {
            release.carry_out().await;
        }
        let (outcome, release) =
            push_one(&sender, &request, &name, &member, (&running, &listener)).await;
        let noted = match outcome {
            // The current disk now holds this one; the next push determines what else it and the first disk lack.
            Ok(report) if report.root != from.root => Err(Error::DiskExchanged),
            Ok(report) => {
                let (sender, state) = (Arc::clone(&sender), Arc::clone(&state));
                let noted =
                    blocking("series", move || note(&sender, &state, from, &[member])).await;
                let failed = Error::volume("record the acknowledged snapshots");
                noted
                    .map_err(Error::from)
                    .and_then(|noted| noted.map_err(failed))
                    .map(|()| report)
            }
            Err(error) => Err(error),
        };
        match noted {
            Ok(report) => {
                let before = done.take().map(|(before, _)| before);
                done = Some((report.after_others(before), release));
            }
            Err(error) => {
                let error = Error::InSeries {
                    pushed: n,
                    of: count,
                    source: Box::new(error),
                };
                return (Err(error), release);
            }
        }
        // A requested parent is meant for the first snapshot.
        request.parent_choice = ParentChoice::Auto;
        // The receiver was reached, so the next connection is retried like a broken one.
        let retry_for = request.retry_for.unwrap_or(sender.config().retry_for);
        request.retry_for = Some(retry_for);
    }
    match done {
        Some((report, release)) => (Ok(report), release),
        None => (Ok(nothing_due(&request, name, newest, &running)), None),
    }
}

/// Finds what the receiver's disk lacks. Copies that it reports count as acknowledged.
async fn look(
    sender: &Arc<Sender>,
    request: &Request,
    volume: Volume,
    running: &Arc<Running>,
    listener: &Listener,
    members: Vec<Member>,
) -> Result<Due, Error> {
    let mut retry_budget = RetryBudget::new(request.retry_for, sender.config().retry_for);
    let engine = Engine::Kernel;
    let begun = connect::begin_patiently(
        sender,
        request,
        engine,
        &volume,
        (running, listener),
        &mut retry_budget,
    );
    let mut context: PushContext = begun.await?;
    let inventory = negotiate::negotiate(&mut context, None, Purpose::Push).await?;
    let from = From {
        volume: context.key.id,
        receiver: context.link.receiver(),
        root: inventory.root,
    };
    let reported = |member: &Member| {
        let mut copies = inventory.copies.iter();
        copies.any(|copy| (copy.uuid, copy.ctransid) == (member.uuid, member.ctransid))
    };
    let newest = members.last().filter(|newest| reported(newest)).cloned();
    let noting = (Arc::clone(sender), Arc::clone(&context.state));
    let looked = blocking("series", move || -> io::Result<Due> {
        let (sender, state) = noting;
        let acknowledged = Acknowledged::load(&state)?;
        let is_held = |member: &Member| {
            let mut copies = inventory.copies.iter();
            copies.any(|copy| (copy.uuid, copy.ctransid) == (member.uuid, member.ctransid))
        };
        let (held, lacking): (Vec<_>, Vec<_>) = members.into_iter().partition(is_held);
        let is_new =
            |member: &Member| !acknowledged.has(&sender, from, (member.uuid, member.ctransid));
        if held.iter().any(is_new) {
            note(&sender, &state, from, &held)?;
        }
        let members = lacking.into_iter().filter(is_new).collect();
        Ok(Due {
            state,
            from,
            members,
        })
    });
    let due = looked
        .await?
        .map_err(Error::volume("read the list of acknowledged snapshots"))?;
    if let (true, Some(newest)) = (due.members.is_empty(), newest) {
        confirm(sender, &mut context, &newest).await;
    }
    Ok(due)
}

/// Reports that there is no newer snapshot than one that the receiver holds, so that it does not take silence for a failure; but
/// not if that snapshot is older than the volume's `max_age`: then whatever makes the snapshots may have stopped.
async fn confirm(sender: &Sender, context: &mut PushContext, newest: &Member) {
    let (receiver, volume) = (&context.running.receiver, &context.running.volume);
    let config = sender.config();
    let max_age = config.volumes.get(volume).and_then(|of| of.max_age);
    let age = Timestamp::now().duration_since(newest.made_at);
    if max_age.is_some_and(|max| age.as_secs().unsigned_abs() > max.as_secs()) {
        return;
    }
    let pause = sender.pauses().of(receiver, volume, Timestamp::now());
    let confirmation = Confirmation {
        volume: context.key_there.clone(),
        uuid: newest.uuid,
        ctransid: newest.ctransid,
        paused: pause.map(|pause| pause.as_confirmed()),
    };
    if let Err(e) = connection::confirm::ask(&mut context.link, confirmation).await {
        tracing::debug!("cannot report that there is no newer snapshot: {e}");
    }
}

async fn push_one(
    sender: &Arc<Sender>,
    request: &Request,
    name: &VolumeName,
    member: &Member,
    (running, listener): (&Arc<Running>, &Listener),
) -> (Result<Report, Error>, Option<Release>) {
    let (looking, volume_name, path) = (Arc::clone(sender), name.clone(), member.path.clone());
    let opened = blocking("resolve", move || {
        looking.find(|finder| resolve::resolve_member(finder, &volume_name, &path))
    });
    let volume = match opened
        .await
        .map_err(Error::from)
        .and_then(|opened| Ok(opened?))
    {
        Ok(volume) => volume,
        Err(error) => return (Err(error), None),
    };
    if (volume.info.wire_uuid(), volume.info.ctransid) != (member.uuid, member.ctransid) {
        return (Err(Error::Replaced(member.path.clone())), None);
    }
    let (sender, request) = (Arc::clone(sender), request.clone());
    let (running, listener) = (Arc::clone(running), listener.clone());
    push::run(sender, request, volume, running, listener).await
}

fn nothing_due(request: &Request, volume: VolumeName, newest: Uuid, running: &Running) -> Report {
    Report {
        volume,
        receiver: request.receiver.clone(),
        uuid: newest,
        parent: None,
        parent_reason: "nothing to send: the receiver has acknowledged every snapshot before"
            .to_owned(),
        parent_reason_code: ReasonCode::AllAcknowledged,
        engine: Engine::Kernel.to_string(),
        stream_bytes: 0,
        not_recorded: false,
        wire_bytes: 0,
        resumed_at: None,
        seconds: running.elapsed().as_secs_f64(),
        pruned: Vec::new(),
        skipped: Vec::new(),
        newly_skipped: Vec::new(),
        copy: String::new(),
        completed_first: None,
        earlier: Vec::new(),
        root: None,
        not_kept: NotKept::default(),
    }
}

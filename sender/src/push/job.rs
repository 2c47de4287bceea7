//! One state on its way to the receiver, through as many attempts as it takes: negotiate, prepare or
//! resume, generate, transfer, record.
//!
//! Steps of the first attempt, and what a crash after each leaves:
//!
//! 1. Prepare: the sendshot of the state is durable, and why it builds on which parent is known. — A
//!    snapshot and a sendshot of a push that never began; settling deletes them.
//! 2. Write into the record what it takes to make the same stream again. — The same, but the next push
//!    takes it up.
//! 3. Transfer, marking it now and then ([`crate::state::segment_log`]). — The same; it goes on from the receiver's
//!    last checkpoint.
//! 4. Before the receiver is told that it is all: mark the record `unconfirmed`. — The next push asks.
//! 5. Record the acknowledgement; see [`crate::push::stages::record`].

use std::sync::Arc;
use std::time::Duration;

use sendshot_model::{NotKept, PushId, Reason, ReasonCode, TransferId, printable_within};
use sendshot_proto::hello::Support;
use sendshot_proto::inventory::{HeldCopy, Inventory};
use sendshot_proto::transfer::{Begin, ParentRef, Resumable, SEGMENT};
use sendshot_sys::crash;
use sendshot_sys::send_pipe;
use sendshot_sys::subvolume::Info;

use crate::decide::parent::{Local, Plan, Wish};
use crate::decide::resume::{self, Start};
use crate::push::context::{Push, another};
use crate::push::error::{Class, Error};
use crate::push::generate::{self, Generator};
use crate::push::request::{Request, Subject};
use crate::push::retry::{self, Next, Patience};
use crate::push::stages::candidates::Demand;
use crate::push::stages::prepare::{Adoption, BySendshots, Prepared};
use crate::push::stages::record::Superfluous;
use crate::push::stages::resume::Interrupted;
use crate::push::stages::standing::{self, CapturedFrom, Refused};
use crate::push::stages::transfer::{self, Committed, Transfer};
use crate::retained::reconcile::Purpose;
use crate::shared::blocking::blocking;
use crate::shared::running::Protected;
use crate::shared::sender::Sender;
use crate::state::journal::{self, ParentState, Record, Standing, State, Transferring};
use crate::state::segment_log::{Memory, Trail, Waypoint};
use sendshot_proto::problem::JOURNAL;
use sendshot_proto::report::Report;

/// Longest wait for a cancelled send to end. It ends at once, unless the kernel compares trees
/// without finding anything to write; its snapshot is then left to be settled later.
const ENDING: Duration = Duration::from_secs(30);

/// How often in a row a state is sent anew because what was agreed on did not hold: a receiver
/// with which that goes on is not one to be trusted.
const MOST_RESTARTS: u32 = 3;

/// Bytes of what a receiver says of a stream that are logged and kept as a reason. The user is told all
/// of it if the push fails.
const MAX_REFUSAL: usize = 400;

/// Why everything is sent of a volume that no snapshot can be made of.
pub(crate) fn read_as_it_is() -> Reason {
    Reason::new(
        ReasonCode::ReadAsItIs,
        "the file system is read-only, so the volume is read as it is: without a snapshot what has changed \
         since the last one is not known",
    )
}

/// A state on its way.
#[derive(Debug)]
pub(crate) struct Job {
    subject: Subject,
    origin: Origin,
    prepared: Option<Prepared>,
    trail: Option<Arc<Trail>>,
    /// What an earlier push remembers of the stream.
    memory: Memory,
    /// How far the receiver has come at most.
    furthest: u64,
    /// Whether the transfer of the record was begun: the receiver may have a part of it.
    begun: bool,
    resumed_at: Option<u64>,
    restarts: u32,
    /// Why it is to be sent in full, if the receiver could apply nothing else.
    full_because: Option<Reason>,
    /// The parent that was rejected for that.
    rejected: Option<PushId>,
    _protected: Option<Protected>,
}

/// Where a state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was snapshotted for this push.
    Fresh,
    /// It was, for a push that broke off.
    Interrupted,
}

/// Why a job came to no end.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// For the user.
    Failed(Error),
    /// There is nothing to go on from; the present state of the volume is the better one to send.
    StartOver,
}

/// Why an attempt failed, and what to do.
struct Failed {
    error: Error,
    next: Next,
}

impl Failed {
    fn at_work(push: &Push) -> Self {
        Error::AtWork(push.running.receiver.clone()).into()
    }
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        let error = error.into();
        let next = retry::after(&error);
        Self { error, next }
    }
}

/// How an attempt ended well.
enum Attempt {
    Done(Box<(Report, Superfluous)>),
    StartOver,
    /// It waits for another of the receiver's disks.
    Elsewhere,
}

impl Job {
    /// For a snapshot that was just taken, or for the user's own.
    pub(crate) fn fresh(subject: Subject) -> Self {
        Self {
            subject,
            origin: Origin::Fresh,
            prepared: None,
            trail: None,
            memory: Memory::default(),
            furthest: 0,
            begun: false,
            resumed_at: None,
            restarts: 0,
            full_because: None,
            rejected: None,
            _protected: None,
        }
    }

    /// For a push that broke off. Nobody settles its record as long as this lives.
    pub(crate) fn resumed(interrupted: Interrupted, sender: &Sender) -> Self {
        let plan = interrupted.plan();
        let protected = sender.table().protect(interrupted.record.push);
        let memory = sender.take_memory(interrupted.record.push);
        Self {
            subject: Subject {
                fd: interrupted.fd,
                info: interrupted.info,
                taken_at: interrupted.record.taken_at,
                record: Some(interrupted.record),
                still: None,
            },
            origin: Origin::Interrupted,
            prepared: Some(Prepared {
                plan,
                by_sendshots: Some(BySendshots {
                    new: Arc::new(interrupted.new),
                    parent: interrupted.parent.map(Arc::new),
                    effort: sendshot_engine::capture::recapture::Effort::Changes(0),
                    from: CapturedFrom::Unknown,
                }),
            }),
            trail: None,
            memory,
            furthest: 0,
            begun: true,
            resumed_at: None,
            restarts: 0,
            full_because: None,
            rejected: None,
            _protected: Some(protected),
        }
    }

    /// What the kernel knows of its snapshot.
    pub(crate) fn snapshot_info(&self) -> &Info {
        &self.subject.info
    }

    /// Tries until it is done, or there is no more to try.
    pub(crate) async fn run(
        &mut self,
        push: &mut Push,
        request: &Request,
        patience: &mut Patience,
    ) -> Result<(Report, Superfluous), Stopped> {
        patience.contact();
        loop {
            let failed = match self.attempt(push, request).await {
                Ok(Attempt::Done(done)) => {
                    patience.progress();
                    return Ok(*done);
                }
                Ok(Attempt::StartOver) => {
                    self.let_go(push).await;
                    return Err(Stopped::StartOver);
                }
                // It stays as it is until that one is back.
                Ok(Attempt::Elsewhere) => return Err(Stopped::StartOver),
                Err(failed) => failed,
            };
            let applied = push.running.progress().1;
            if applied >= self.furthest + SEGMENT as u64 {
                self.furthest = applied;
                patience.progress();
            }
            self.before_next(push, request, failed, patience).await?;
        }
    }

    /// Waits until the next attempt, if there is to be one.
    async fn before_next(
        &mut self,
        push: &mut Push,
        request: &Request,
        failed: Failed,
        patience: &mut Patience,
    ) -> Result<(), Stopped> {
        let Failed { error, next } = failed;
        match next {
            Next::Never => {
                return Err(Stopped::Failed(self.give_up(push, error, next).await));
            }
            Next::Later => {}
            Next::Otherwise => return self.after_refusal(push, request, error).await,
            Next::Negotiate | Next::Afresh | Next::Hopeless
                if self.origin == Origin::Interrupted =>
            {
                let detail = format!("it begins anew: {}", error);
                push.listener.stage(&push.running, "resume", &*detail);
                tracing::info!(push = %push.running.push, volume = %push.running.volume,
                    "an interrupted push cannot go on: {}", error);
                self.let_go(push).await;
                return Err(Stopped::StartOver);
            }
            Next::Hopeless => {
                self.let_go(push).await;
                return Err(Stopped::Failed(error));
            }
            Next::Negotiate | Next::Afresh if self.restarts >= MOST_RESTARTS => {
                return Err(Stopped::Failed(self.give_up(push, error, next).await));
            }
            Next::Negotiate | Next::Afresh => {
                self.restarts += 1;
                // What was agreed on, or sent, is void.
                self.prepared = None;
                self.begun = false;
                self.furthest = 0;
                let detail = format!("{}; it is sent anew", error);
                push.listener.stage(&push.running, "retry", detail);
                tracing::info!(push = %push.running.push, "{}; it is sent anew", error);
                return Ok(());
            }
        }
        let mut error = error;
        loop {
            let (running, listener) = (Arc::clone(&push.running), push.listener.clone());
            if let Err(error) = patience.wait(error, &running, &listener).await {
                return Err(Stopped::Failed(
                    self.give_up(push, error, Next::Later).await,
                ));
            }
            match push.reconnect().await {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
            let next = retry::after(&error);
            if next != Next::Later {
                return Err(Stopped::Failed(self.give_up(push, error, next).await));
            }
        }
    }

    /// The receiver could not apply the stream. It is not made again from the same two sendshots: see
    /// [`crate::push::stages::standing`].
    async fn after_refusal(
        &mut self,
        push: &mut Push,
        request: &Request,
        error: Error,
    ) -> Result<(), Stopped> {
        let Some(refused) = self.refused() else {
            // A full send, or a stream of the kernel: there is nothing else to make.
            if let Some(parent) = self.rejected {
                let state = Arc::clone(&push.state);
                let work = move || standing::note_full_refusal(&state, parent);
                let noted = blocking("journal", work).await;
                if let Err(e) = noted.map_err(std::io::Error::other).flatten() {
                    tracing::warn!(push = %parent, "a parent that is not at fault stays rejected: {e}");
                }
            }
            self.let_go(push).await;
            return Err(Stopped::Failed(error));
        };
        let state = Arc::clone(&push.state);
        let noted = blocking("journal", move || standing::note_refusal(&state, refused)).await;
        let standing = noted
            .map_err(Error::from)
            .and_then(|noted| noted.map_err(Error::volume(JOURNAL)))
            .map_err(Stopped::Failed)?;
        let what = printable_within(&error.to_string(), MAX_REFUSAL);
        let (volume, receiver) = (&push.running.volume, &push.running.receiver);
        let next = match standing {
            Standing::Good | Standing::Suspect => "the volume is captured whole and sent again",
            Standing::Rejected => "everything is sent",
        };
        tracing::warn!(push = %push.running.push, %volume, %receiver,
            "a stream could not be applied: {what}; {next}");
        let detail = format!("{what}; {next}");
        push.listener.stage(&push.running, "retry", detail);
        if self.origin == Origin::Interrupted {
            self.let_go(push).await;
            return Err(Stopped::StartOver);
        }
        if standing == Standing::Rejected {
            self.rejected = Some(refused.parent);
            if let Wish::Uuid(_) = request.wish {
                self.let_go(push).await;
                return Err(Stopped::Failed(Error::ParentRefused(Box::new(error))));
            }
            self.full_because = Some(Reason::new(
                ReasonCode::StreamRefused,
                format!(
                    "the receiver could not apply a stream that was built on a copy of its own: {what}"
                ),
            ));
        }
        (self.prepared, self.begun, self.furthest) = (None, false, 0);
        Ok(())
    }

    /// The stream that was refused, if it was built on a sendshot.
    fn refused(&self) -> Option<Refused> {
        let prepared = self.prepared.as_ref()?;
        let by_sendshots = prepared.by_sendshots.as_ref()?;
        match prepared.plan.parent?.local {
            Local::Sendshot(parent) => Some(Refused {
                push: self.subject.record.as_ref()?.push,
                parent,
                captured: by_sendshots.from,
            }),
            Local::Snapshot(_) => None,
        }
    }

    fn demand(&self, request: &Request) -> Demand {
        match &self.full_because {
            Some(reason) => Demand::Full(reason.clone()),
            None if self.subject.still.is_some() && request.wish == Wish::Auto => {
                Demand::Full(read_as_it_is())
            }
            None => Demand::Wish(request.wish),
        }
    }

    async fn attempt(&mut self, push: &mut Push, request: &Request) -> Result<Attempt, Failed> {
        self.reread(push).await?;
        let record = self.subject.record.as_ref().filter(|_| self.begun);
        let inventory = push.negotiate(record, Purpose::Push).await?;
        if self.was_sent_to_another_disk(push) {
            let state = self.subject.record.as_ref().map(|record| record.state);
            match (self.origin, state) {
                (Origin::Interrupted, _) => return Ok(Attempt::Elsewhere),
                // That disk may have it; only that disk can tell.
                (Origin::Fresh, Some(State::Unconfirmed)) => {
                    return Err(Failed {
                        error: Error::SentToOtherDisk,
                        next: Next::Never,
                    });
                }
                // What was agreed on was agreed on for that one.
                (Origin::Fresh, _) => {
                    self.prepared = None;
                    self.begun = false;
                }
            }
        }
        if let Some(done) = self.already_held(push, &inventory).await? {
            return Ok(Attempt::Done(Box::new(done)));
        }
        push.check_root().await?;
        if let Some(record) = &mut self.subject.record {
            record.root = push.root;
        }
        // What is about to be committed has to be known of first: another push beside it would leave one
        // more state that waits for the receiver's word.
        if inventory.push_at_work && (self.begun || push.awaits_word().await?) {
            return Err(Failed::at_work(push));
        }
        let start = match self.start(&inventory) {
            None => None,
            Some(Start::At(waypoint)) => Some(waypoint),
            Some(Start::Beginning(why)) => {
                let detail = format!("it begins anew: {}", why.reason());
                push.listener.stage(&push.running, "resume", &*detail);
                tracing::info!(push = %push.running.push, volume = %push.running.volume,
                    "an interrupted push cannot go on: {}", why.reason());
                if self.origin == Origin::Interrupted {
                    return Ok(Attempt::StartOver);
                }
                self.begun = false;
                None
            }
        };
        if self.prepared.is_none() {
            let held = inventory.copies;
            let (prepared, _) = push
                .prepare(&self.subject, held, self.demand(request), Adoption::Kept)
                .await?;
            // Why each copy is parent or not is for a plan; it would be held as long as the push runs.
            let plan = Plan {
                verdicts: Vec::new(),
                ..prepared.plan
            };
            self.prepared = Some(Prepared { plan, ..prepared });
        }
        let committed = self.transfer(push, start).await?;
        self.finish(push, committed)
            .await
            .map(|done| Attempt::Done(Box::new(done)))
    }

    /// Whether it broke off on another disk than the one that is there.
    fn was_sent_to_another_disk(&self, push: &Push) -> bool {
        let sent_to = self.subject.record.as_ref().and_then(|record| record.root);
        sent_to.is_some() && push.root.is_some() && sent_to != push.root
    }

    /// The record as it is now: the attempt before may have written it.
    async fn reread(&mut self, push: &Push) -> Result<(), Error> {
        let Some(record) = &self.subject.record else {
            return Ok(());
        };
        let (state, id) = (Arc::clone(&push.state), record.push);
        let (known, memory) = (self.trail.clone(), std::mem::take(&mut self.memory));
        let now = blocking("journal", move || {
            let record = journal::find(state.pushes(), id)?;
            // What this process remembers is more than what is in the file.
            let trail = match known {
                Some(trail) => trail,
                None => Arc::new(Trail::open(state.pushes(), id, memory)?),
            };
            Ok::<_, std::io::Error>((record, trail))
        })
        .await?;
        let (record, trail) = now.map_err(Error::volume(JOURNAL))?;
        self.subject.record = Some(record.ok_or(Error::RecordGone)?);
        self.trail = Some(trail);
        Ok(())
    }

    /// Whether the receiver holds just this state already.
    async fn already_held(
        &mut self,
        push: &mut Push,
        inventory: &Inventory,
    ) -> Result<Option<(Report, Superfluous)>, Failed> {
        let info = &self.subject.info;
        let (uuid, ctransid) = match self.captured() {
            Some(head) => head,
            None => (info.wire_uuid(), info.ctransid),
        };
        let held = inventory
            .copies
            .iter()
            .find(|copy| copy.uuid == uuid && copy.ctransid == ctransid && copy.unusable.is_none());
        let Some(copy) = held else { return Ok(None) };
        // A volume that was read as it is may have been pushed before, of which nothing could be kept.
        let record = self.subject.record.as_ref();
        let record = record.filter(|_| self.subject.still.is_none());
        match record.map(|record| record.state) {
            None => Ok(Some((
                self.nothing_to_do(push, copy),
                Superfluous::default(),
            ))),
            Some(State::Unconfirmed) => {
                tracing::info!(push = %push.running.push, "a lost acknowledgement was found out");
                let committed = Committed {
                    copy: format!("{}/{}", inventory.directory, copy.name),
                    stream_bytes: push.running.total(),
                    not_kept: NotKept::default(),
                };
                let (report, superfluous) = self.finish(push, committed).await?;
                let reason = report.parent_reason;
                let report = Report {
                    parent_reason: format!(
                        "{reason}; it had been committed before, and the word of it lost"
                    ),
                    ..report
                };
                Ok(Some((report, superfluous)))
            }
            // Nobody can have what was never sent whole.
            Some(State::Sending | State::Acknowledged) => Err(transfer::Error::Nonsense(
                "it claims to hold a state that was not sent to it".to_owned(),
            )
            .into()),
        }
    }

    /// UUID and ctransid of the state, if it was captured.
    fn captured(&self) -> Option<(uuid::Uuid, u64)> {
        let by_sendshots = self.prepared.as_ref()?.by_sendshots.as_ref()?;
        let head = by_sendshots.new.head();
        Some((head.wire_uuid, head.wire_ctransid))
    }

    /// Where to go on with what was begun; `None` if nothing was.
    fn start(&self, inventory: &Inventory) -> Option<Start> {
        let record = self.subject.record.as_ref().filter(|_| self.begun)?;
        let transfer = record.transfer.as_ref()?;
        let offered = resume::offered(&inventory.partials, transfer.id);
        let known = self
            .trail
            .as_ref()
            .map_or_else(Vec::new, |trail| trail.known());
        Some(resume::choose(&known, &offered))
    }

    /// What was decided.
    fn plan(&self) -> Plan {
        let prepared = self.prepared.as_ref();
        prepared.map_or_else(Plan::default, |prepared| prepared.plan.clone())
    }

    async fn transfer(
        &mut self,
        push: &mut Push,
        from: Option<Waypoint>,
    ) -> Result<Committed, Failed> {
        let begin = self.begin(push, from).await?;
        let cancel = push.running.cancel.clone();
        let detail = match from {
            Some(from) => format!(
                "goes on at {}",
                sendshot_model::human::bytes_human(from.place.offset)
            ),
            None => String::new(),
        };
        push.listener.stage(&push.running, "transfer", detail);
        // The receiver may get to know of it whether or not we hear of that.
        self.begun = true;
        let table = push.sender.table();
        table.opens(push.key.id, push.link.receiver(), begin.transfer);
        let (accepted, policy) = tokio::select! {
            accepted = Transfer::open(&mut push.link, begin) => accepted?,
            () = cancel.cancelled() => return Err(transfer::Error::Cancelled.into()),
        };
        let offset = from.map(|from| from.place.offset);
        self.resumed_at = offset;
        push.running.goes_on_at(offset.unwrap_or(0));
        let trail = self.trail.clone();
        if let Some(trail) = trail.clone().filter(|_| self.is_resumable(push)) {
            blocking("trail", move || {
                // Without marks it has further to go back after a crash.
                if let Err(e) = trail.restart(from, policy) {
                    tracing::info!("marks to resume from are not kept: {e}");
                }
            })
            .await?;
        }
        let generator = self.generate(push, from).await?;
        let record = self.subject.record.clone();
        let still = match self.subject.still {
            Some(still) => Some((still, another(&self.subject.fd)?)),
            None => None,
        };
        let before_end = async || push.announce_end(record, still).await;
        let stall_after = push.sender.config().stall_after;
        let running = &push.running;
        let outcome = tokio::select! {
            outcome = accepted.run(generator.outputs, running, trail.as_deref(), stall_after, before_end) => outcome,
            never = push.listener.tick(Arc::clone(running)) => match never {},
        };
        // A snapshot that is still being sent could not be deleted.
        let _ = tokio::time::timeout(ENDING, generator.over.wait()).await;
        Ok(outcome?)
    }

    fn is_resumable(&self, push: &Push) -> bool {
        let by_sendshots = self
            .prepared
            .as_ref()
            .is_some_and(|p| p.by_sendshots.is_some());
        by_sendshots && self.subject.record.is_some() && push.link.resume() == Support::Has
    }

    /// What the receiver is told first. For a transfer that begins it is written down before.
    async fn begin(&mut self, push: &Push, from: Option<Waypoint>) -> Result<Begin, Error> {
        let plan = self.plan();
        let resumable = self.is_resumable(push);
        if from.is_none() && resumable {
            self.note_transfer(push, &plan).await?;
        }
        let record = self.subject.record.as_ref();
        let noted = record.and_then(|record| record.transfer.as_ref());
        let noted = noted.filter(|_| resumable);
        // What the stream says: a snapshot that was deduplicated since it was taken has another.
        let (uuid, ctransid) = match self.captured() {
            Some(head) => head,
            None => (self.subject.info.wire_uuid(), self.subject.info.ctransid),
        };
        Ok(Begin {
            transfer: noted.map_or_else(TransferId::generate, |noted| noted.id),
            volume: push.key_there.clone(),
            uuid,
            ctransid,
            parent: plan.parent.map(|parent| ParentRef {
                uuid: parent.uuid,
                ctransid: parent.ctransid,
            }),
            taken_at: self.subject.taken_at,
            stream_version: noted.map_or_else(|| push.stream_version(), |n| n.stream_version),
            resumable: if resumable {
                Resumable::Yes
            } else {
                Resumable::No
            },
            resume_at: from.map(|from| from.point()),
            root: push.root,
        })
    }

    async fn note_transfer(&mut self, push: &Push, plan: &Plan) -> Result<(), Error> {
        let Some(record) = &mut self.subject.record else {
            return Ok(());
        };
        let parent = plan.parent.and_then(|parent| match parent.local {
            Local::Sendshot(push) => Some(ParentState {
                push,
                uuid: parent.uuid,
                ctransid: parent.ctransid,
            }),
            Local::Snapshot(_) => None,
        });
        record.transfer = Some(Transferring {
            id: TransferId::generate(),
            stream_version: push.stream_version(),
            parent,
            reason: plan.reason.text.clone(),
            reason_code: plan.reason.code,
        });
        let (state, record) = (Arc::clone(&push.state), record.clone());
        blocking("journal", move || {
            record.store(state.pushes())?;
            crash::point("begin-noted");
            Ok::<_, std::io::Error>(())
        })
        .await?
        .map_err(Error::volume(JOURNAL))
    }

    async fn generate(&self, push: &Push, from: Option<Waypoint>) -> Result<Generator, Failed> {
        let snapshot = another(&self.subject.fd)?;
        let record = self.subject.record.as_ref();
        let prepared = self.prepared.as_ref();
        let by_sendshots = prepared.and_then(|prepared| prepared.by_sendshots.as_ref());
        let (Some(BySendshots { new, parent, .. }), Some(record), Some(trail)) =
            (by_sendshots, record, &self.trail)
        else {
            let parent = match self.plan().parent.map(|parent| parent.local) {
                Some(Local::Snapshot(id)) => Some(id),
                Some(Local::Sendshot(_)) | None => None,
            };
            let stream_version = push.stream_version();
            let source = send_pipe::Source {
                snapshot,
                parent,
                clone_sources: Vec::new(),
                stream_version,
            };
            return Ok(generate::kernel(source).map_err(transfer::Error::from)?);
        };
        let noted = record.transfer.as_ref().filter(|_| self.is_resumable(push));
        let stream_version = noted.map_or_else(|| push.stream_version(), |n| n.stream_version);
        let source = generate::Sendshots {
            snapshot,
            parent: parent.clone(),
            new: Arc::clone(new),
            place: (another(push.state.sendshots())?, record.sendshot_name()),
            stream_version,
            from,
            trail: Arc::clone(trail),
        };
        let running = Arc::clone(&push.running);
        let work = move || -> Result<Generator, generate::Error> {
            let size = generate::size(source.parent.as_deref(), &source.new, stream_version)?;
            running.expect(size.bytes);
            generate::sendshot(source)
        };
        Ok(blocking("measure", work)
            .await?
            .map_err(transfer::Error::from)?)
    }

    async fn finish(
        &mut self,
        push: &mut Push,
        committed: Committed,
    ) -> Result<(Report, Superfluous), Failed> {
        let parent = self.plan().parent;
        let superfluous = push.record(self.subject.record.clone(), parent).await?;
        let (uuid, _) = self
            .captured()
            .unwrap_or((self.subject.info.wire_uuid(), 0));
        let plan = self.plan();
        let pruned = superfluous.older.iter();
        let report = Report {
            uuid,
            parent: plan.parent.map(|parent| parent.uuid),
            parent_reason: plan.reason.text,
            parent_reason_code: plan.reason.code,
            stream_bytes: committed.stream_bytes,
            resumed_at: self.resumed_at,
            pruned: pruned
                .filter_map(|record| Some(record.snapshot?.uuid))
                .collect(),
            copy: committed.copy,
            not_kept: committed.not_kept,
            ..self.report(push)
        };
        Ok((report, superfluous))
    }

    fn nothing_to_do(&self, push: &Push, copy: &HeldCopy) -> Report {
        Report {
            uuid: self.subject.info.wire_uuid(),
            parent_reason: "nothing to send: the receiver holds this snapshot already".into(),
            parent_reason_code: ReasonCode::AlreadyHeld,
            copy: copy.name.to_string(),
            ..self.report(push)
        }
    }

    /// What is the same in all reports.
    fn report(&self, push: &Push) -> Report {
        Report {
            volume: push.key.name.clone(),
            receiver: push.running.receiver.clone(),
            uuid: uuid::Uuid::nil(),
            parent: None,
            parent_reason: String::new(),
            parent_reason_code: ReasonCode::NotRecorded,
            engine: push.engine.to_string(),
            stream_bytes: 0,
            not_recorded: push.state.is_passing() && self.subject.still.is_some(),
            wire_bytes: push.wire_bytes(),
            resumed_at: None,
            seconds: push.running.elapsed().as_secs_f64(),
            pruned: Vec::new(),
            skipped: Vec::new(),
            newly_skipped: Vec::new(),
            copy: String::new(),
            completed_first: None,
            earlier: Vec::new(),
            root: push.root,
            not_kept: NotKept::default(),
        }
    }

    /// Keeps what the next push can go on from; says so.
    async fn give_up(&self, push: &Push, error: Error, next: Next) -> Error {
        // Whatever is kept is looked at again, also what the receiver may have committed.
        push.sender.note_interrupted();
        if self.is_worth_keeping(push, &error, next) {
            if let (Some(record), Some(trail)) = (&self.subject.record, &self.trail) {
                push.sender.keep_memory(record.push, trail.memory());
            }
            return Error::Kept(Box::new(error));
        }
        self.let_go(push).await;
        error
    }

    /// Whether the receiver has, or will have when it is back, a part to go on from.
    fn is_worth_keeping(&self, push: &Push, error: &Error, next: Next) -> bool {
        if !self.begun || !self.is_resumable(push) || push.state.is_passing() {
            return false;
        }
        let Some(trail) = &self.trail else {
            return false;
        };
        match (next, error.class()) {
            // It waits there for us.
            (Next::Later, _) | (_, Class::Passing | Class::Cancelled) => !trail.known().is_empty(),
            // What it had applied is void; its checkpoint may not be. Where there is a mark there may be
            // one, told of or not.
            (_, Class::Failed) => {
                let checkpoint = trail.last_checkpoint() > 0 || trail.last_mark() > 0;
                checkpoint || self.resumed_at.is_some() || self.origin == Origin::Interrupted
            }
            (_, Class::Refused) => false,
        }
    }

    async fn let_go(&self, push: &Push) {
        if let Some(record) = &self.subject.record {
            push.let_go(Record::clone(record)).await;
        }
    }
}

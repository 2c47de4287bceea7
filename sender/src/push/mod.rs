//! The way of a push: its stages in order. Each is a module of its name. From negotiate to acknowledge
//! they are run by [`crate::push::job`], again and again if need be ([`crate::push::retry`]).
//!
//! | stage | module |
//! |---|---|
//! | snapshot | [`crate::push::stages::snapshot`] |
//! | negotiate | [`crate::push::stages::negotiate`] |
//! | (resume, if one broke off) | [`crate::push::job`] by [`crate::push::stages::resume`] and [`crate::state::trail`] |
//! | (adopt, capture, with our engine) | [`crate::push::stages::prepare`] runs [`crate::push::stages::adopt`], [`crate::push::stages::capture`] |
//! | plan | [`crate::push::stages::prepare`] asks; [`crate::decide::plan`] decides by [`crate::volume::lineage`], [`crate::decide::plan_sendshots`] by [`crate::push::stages::sendshots`] |
//! | generate | [`crate::push::generate`] |
//! | transfer, apply, commit, acknowledge | [`crate::push::stages::transfer`], and the receiver |
//! | record | [`crate::push::stages::record`] |
//! | prune | [`crate::retained::prune`] chooses |
//! | (report) | here the user is told |
//! | release | [`crate::push::stages::release`] |

pub mod dry_run;
pub mod generate;
mod job;
pub mod progress;
pub mod retry;
pub mod series;
pub mod stages;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_model::{PeerName, PushId, RootId, VolumeId, VolumeRef};
use sendshot_proto::inventory::Inventory;
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::top_level::TopLevel;
use sendshot_sys::{crash, filesystem};

use crate::connection::receiver_link::{self, Link};
use crate::connection::renewal;
use crate::decide::plan::{Parent, Wish};
use crate::decide::retention;
use crate::problem::{JOURNAL, Kind, Problem};
use crate::push::job::{Job, Stopped};
use crate::push::progress::Listener;
use crate::push::retry::{Next, Patience};
use crate::push::stages::negotiate;
use crate::push::stages::record::{self, Superfluous};
use crate::push::stages::release::Release;
use crate::push::stages::resume::{self, Interrupted};
use crate::push::stages::snapshot;
use crate::push::stages::still::Still;
use crate::push::stages::transfer;
use crate::report::Report;
use crate::retained::prune;
use crate::retained::settle::{self, Purpose};
use crate::shared::blocking::blocking;
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::state::journal::{self, Intent, Record, SnapshotId, State};
use crate::state::state_subvolume::StateSubvolume;
use crate::volume::engine::{self, Engine};
use crate::volume::resolve::{self, Volume};

/// Most disks of one receiver that states are kept for.
const MOST_ROOTS: usize = 32;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where to.
    pub receiver: PeerName,
    /// What.
    pub volume: VolumeRef,
    /// The parent that the user wants.
    pub wish: Wish,
    /// What is to make the stream; `None` for what is usual for the volume.
    pub engine: Option<Engine>,
    /// For how long to try again; `None` for what the configuration says.
    pub retry_for: Option<Duration>,
}

/// What is read by this push: a snapshot taken for it or for one that broke off, or the user's own.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) fd: OwnedFd,
    pub(crate) info: Info,
    pub(crate) taken_at: i64,
    /// `None` for the user's own snapshot: nothing of it is ours to record or delete.
    pub(crate) record: Option<Record>,
    /// What must not have moved when all was read, if it is no snapshot.
    pub(crate) still: Option<Still>,
}

/// What all stages of one push share.
pub(crate) struct Push {
    pub(crate) sender: Arc<Sender>,
    pub(crate) running: Arc<Running>,
    pub(crate) listener: Listener,
    pub(crate) key: VolumeKey,
    /// What the receiver knows it by.
    pub(crate) key_there: VolumeKey,
    /// The receiver's disk that the last inventory was of, if it says.
    pub(crate) root: Option<RootId>,
    pub(crate) link: Link,
    /// Bytes on the connections before this one.
    pub(crate) wire_before: u64,
    pub(crate) state: Arc<StateSubvolume>,
    pub(crate) engine: Engine,
}

/// Runs a push until its user can be told how it ended. What is to be done after that is returned
/// with the outcome; `None` if the push has not come so far that there is anything.
///
/// An earlier push of the volume to this receiver that broke off is completed first, if it can be;
/// if the volume has changed since, what it is now follows.
///
/// A push that fails leaves nothing but what the next one can go on from, or what the receiver may
/// have committed.
pub async fn run(
    sender: Arc<Sender>,
    request: Request,
    volume: Volume,
    running: Arc<Running>,
    listener: Listener,
) -> (Result<Report, Problem>, Option<Release>) {
    let usual = sender.engine(&volume.key.name);
    let engine = match engine::choose(request.engine, usual, &volume) {
        Ok(engine) => engine,
        Err(e) => return (Err(e.into()), None),
    };
    let mut patience = Patience::new(request.retry_for, sender.config().retry_for);
    let told = (&running, &listener);
    let begun = begin_patiently(&sender, &request, engine, &volume, told, &mut patience);
    let mut push = match begun.await {
        Ok(push) => push,
        Err(problem) => return (Err(problem), None),
    };
    let skipped: Vec<String> = volume
        .skipped
        .iter()
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let known = sender.history().left_out(&volume.key.name);
    let is_new = |path: &&String| !known.contains(*path);
    let newly_skipped: Vec<String> = skipped.iter().filter(is_new).cloned().collect();
    let (outcome, superfluous) = push.carry_out(volume, &request, &mut patience).await;
    let outcome = outcome.map(|report| Report {
        skipped,
        newly_skipped,
        ..report
    });
    (outcome, Some(push.release(superfluous)))
}

/// Begins a push, again and again while the receiver may come back.
///
/// # Errors
/// A [`Problem`] for the user.
pub(crate) async fn begin_patiently(
    sender: &Arc<Sender>,
    request: &Request,
    engine: Engine,
    volume: &Volume,
    (running, listener): (&Arc<Running>, &Listener),
    patience: &mut Patience,
) -> Result<Push, Problem> {
    loop {
        let (sender, beginning) = (Arc::clone(sender), Arc::clone(running));
        let receiver = &request.receiver;
        let begun = Push::begin(
            sender,
            receiver,
            engine,
            volume,
            beginning,
            listener.clone(),
        );
        let problem = match begun.await {
            Ok(push) => return Ok(push),
            Err(problem) => problem,
        };
        if retry::after_problem(&problem) != Next::Later {
            return Err(problem);
        }
        patience.wait(problem, running, listener).await?;
    }
}

async fn connect(
    sender: &Arc<Sender>,
    receiver: &PeerName,
    running: &Running,
) -> Result<Link, Problem> {
    let entry = sender.receiver(receiver).await?;
    let connecting = async {
        let mut link = receiver_link::connect(&entry, sender.key()).await?;
        renewal::if_due(sender, receiver, &entry, &mut link).await;
        Ok(link)
    };
    tokio::select! {
        link = connecting => link,
        () = running.cancel.cancelled() => Err(transfer::Error::Cancelled.into()),
    }
}

/// Opens our state subvolume, takes over what former instances of this sender left in it, and settles what
/// crashed pushes did.
async fn prepare(sender: &Arc<Sender>, volume: &Volume) -> Result<StateSubvolume, Problem> {
    let fd = another(&volume.fd)?;
    let binding = volume.binding.clone();
    let sender = Arc::clone(sender);
    let path = volume.path.clone();
    blocking("state-subvolume", move || -> Result<_, Problem> {
        let top = TopLevel::of(&fd)?;
        sender
            .filesystems()
            .remember(top.fsid(), &path)
            .map_err(|e| Problem::state_io("write down which file systems are used", &e))?;
        let is_read_only = filesystem::is_read_only_everywhere(&fd)
            .map_err(|e| Problem::local_io("look whether the file system is read-only", &e))?;
        if is_read_only {
            // Book-keeping is no condition of work that needs none.
            let path = sender.passing_dir().join(PushId::generate().to_string());
            return Ok(StateSubvolume::passing(top, &path)?);
        }
        let state = StateSubvolume::open_or_create(top)?;
        let register = |e: std::io::Error| register_problem(&e);
        sender.take_over_former(&state).map_err(register)?;
        sender.register(&state, &binding).map_err(register)?;
        settle::leftovers(&state, sender.id(), |push| sender.table().contains(push))
            .map_err(|e| Problem::local_io(JOURNAL, &e))?;
        Ok(state)
    })
    .await?
}

fn register_problem(error: &std::io::Error) -> Problem {
    let what = "write down which volumes are on the disk, in .sendshot/register.json";
    let problem = Problem::local_io(what, error);
    match problem.remedy.is_empty() {
        false => problem,
        true => problem.remedy(
            "look at that file in the top-level subvolume (`mount -o subvolid=5 DEVICE DIR`); without it, \
             what the disk says of its volumes is written anew",
        ),
    }
}

impl Push {
    /// Connects, and opens what is kept on the volume's file system.
    pub(crate) async fn begin(
        sender: Arc<Sender>,
        receiver: &PeerName,
        engine: Engine,
        volume: &Volume,
        running: Arc<Running>,
        listener: Listener,
    ) -> Result<Self, Problem> {
        listener.stage(&running, "connect", "");
        let link = connect(&sender, receiver, &running).await?;
        let (noting, from, former) = (Arc::clone(&sender), link.receiver(), link.former().to_vec());
        let noted = blocking("former-ids", move || noting.former().note(from, &former)).await?;
        noted.map_err(|e| Problem::state_io("write down what this sender was before", &e))?;
        let state = Arc::new(prepare(&sender, volume).await?);
        Ok(Self {
            key: volume.key.clone(),
            key_there: VolumeKey {
                id: volume.binding.id_at(link.receiver()),
                name: volume.key.name.clone(),
            },
            sender,
            running,
            listener,
            root: None,
            link,
            wire_before: 0,
            state,
            engine,
        })
    }

    /// The version of the stream that both sides speak.
    pub(crate) fn stream_version(&self) -> u32 {
        self.link.stream_version()
    }

    /// Takes the push snapshot; an existing read-only one is read as it is.
    pub(crate) async fn snapshot(&self, volume: Volume) -> Result<Subject, Problem> {
        if volume.kind == resolve::Kind::Snapshot {
            let detail = format!("{} is read-only already", volume.path.display());
            self.listener.stage(&self.running, "snapshot", detail);
            return Ok(Subject {
                taken_at: volume.info.otime,
                fd: volume.fd,
                info: volume.info,
                record: None,
                still: None,
            });
        }
        let intent = self.intent(self.running.push);
        if self.state.is_passing() {
            let path = volume.path.display();
            let detail =
                format!("none: {path} is read as it is, on a file system that is read-only");
            self.listener.stage(&self.running, "snapshot", detail);
            return self.as_it_is(volume, intent).await;
        }
        let detail = format!("of {}", volume.path.display());
        self.listener.stage(&self.running, "snapshot", detail);
        let state = Arc::clone(&self.state);
        let taken = blocking("snapshot", move || {
            snapshot::take(&state, &volume.fd, &volume.path, intent)
        })
        .await??;
        Ok(Subject {
            fd: taken.fd,
            info: taken.info,
            taken_at: taken.record.taken_at,
            record: Some(taken.record),
            still: None,
        })
    }

    /// A live volume on a file system that is read-only everywhere. Nothing holds it still, so it is checked
    /// before the receiver gets the end of the stream: see [`Still`].
    async fn as_it_is(&self, volume: Volume, intent: Intent) -> Result<Subject, Problem> {
        let (state, fd) = (Arc::clone(&self.state), another(&volume.fd)?);
        let looked = blocking("look", move || -> Result<(Info, Still, Record), Problem> {
            // Before anything of it is read.
            let look = |e| Problem::local_io("look at the volume", &e);
            let still = Still::of(&fd).map_err(look)?;
            let info = subvolume::info(&fd).map_err(look)?;
            let mut record = Record::new(intent);
            record.snapshot = Some(SnapshotId {
                uuid: info.uuid,
                otransid: info.otransid,
            });
            // Nothing can be written on the disk itself, so this goes into the state directory.
            let stored = record.store(state.pushes());
            stored.map_err(|e| Problem::state_io("write the record of the push", &e))?;
            Ok((info, still, record))
        });
        let (info, still, record) = looked.await??;
        Ok(Subject {
            fd: volume.fd,
            info,
            taken_at: record.taken_at,
            record: Some(record),
            still: Some(still),
        })
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

    /// Dials the receiver again.
    pub(crate) async fn reconnect(&mut self) -> Result<(), Problem> {
        let link = connect(&self.sender, &self.running.receiver, &self.running).await?;
        if link.receiver() != self.link.receiver() {
            // What this push has sent, and will note as acknowledged, is the other's.
            let message = format!(
                "`{}` was paired with another receiver while the push was under way",
                self.running.receiver
            );
            return Err(Problem::new(Kind::Failed, message).remedy("push again"));
        }
        self.wire_before += self.link.wire_bytes();
        self.link = link;
        Ok(())
    }

    /// Completes what broke off, and sends the present state.
    async fn carry_out(
        &mut self,
        volume: Volume,
        request: &Request,
        patience: &mut Patience,
    ) -> (Result<Report, Problem>, Superfluous) {
        let mut completed = None;
        match self.interrupted(&volume, request).await {
            Ok(Some(interrupted)) => {
                let mut job = Job::resumed(interrupted, &self.sender);
                match job.run(self, request, patience).await {
                    Ok((report, superfluous)) => {
                        if self.is_unchanged(&volume, &job).await {
                            return (Ok(report), superfluous);
                        }
                        Release::new(Arc::clone(&self.state), superfluous)
                            .carry_out()
                            .await;
                        completed = Some(report);
                    }
                    Err(Stopped::StartOver) => {}
                    Err(Stopped::Failed(problem)) => {
                        return (Err(problem), Superfluous::default());
                    }
                }
            }
            Ok(None) => {}
            Err(problem) => return (Err(problem), Superfluous::default()),
        }
        match self.send_present_state(volume, request, patience).await {
            Ok((report, superfluous)) => (Ok(report.after(completed)), superfluous),
            Err(problem) => (Err(problem), Superfluous::default()),
        }
    }

    async fn send_present_state(
        &mut self,
        volume: Volume,
        request: &Request,
        patience: &mut Patience,
    ) -> Result<(Report, Superfluous), Problem> {
        self.let_go_of_interrupted().await?;
        let subject = self.snapshot(volume).await?;
        let mut job = Job::fresh(subject);
        match job.run(self, request, patience).await {
            Ok(done) => Ok(done),
            Err(Stopped::Failed(problem)) => Err(problem),
            // Only what was interrupted before is started over.
            Err(Stopped::StartOver) => Err(Problem::new(Kind::Failed, "the push came to nothing")),
        }
    }

    /// The push that broke off and is to be completed; none if the user wants something else.
    async fn interrupted(
        &self,
        volume: &Volume,
        request: &Request,
    ) -> Result<Option<Interrupted>, Problem> {
        if request.wish != Wish::Auto || self.engine != Engine::Sendshot {
            return Ok(None);
        }
        let (state, sender) = (Arc::clone(&self.state), Arc::clone(&self.sender));
        let chain = (sender.id(), volume.key.id, self.link.receiver());
        let running = move |push| sender.table().contains(push);
        blocking("resume", move || resume::find(&state, chain, running))
            .await?
            .map_err(|e| Problem::local_io(JOURNAL, &e))
    }

    /// Lets go of pushes of this volume to this receiver that broke off and will not be completed.
    /// What the receiver may have committed stays until it has told.
    async fn let_go_of_interrupted(&self) -> Result<(), Problem> {
        let (state, sender) = (Arc::clone(&self.state), Arc::clone(&self.sender));
        let chain = (self.sender.id(), self.key.id, self.link.receiver());
        let root = self.root;
        let work = move || -> std::io::Result<()> {
            for record in journal::records(state.pushes())? {
                let mine = retention::chain(&record) == chain;
                let unfinished = record.state == State::Sending && record.is_resumable();
                // What waits for another of its disks is gone on with when that one is back.
                let elsewhere = record.root.is_some() && root.is_some() && record.root != root;
                if mine && unfinished && !elsewhere && !sender.table().contains(record.push) {
                    tracing::info!(push = %record.push, "an interrupted push is let go: another one takes its place");
                    sender.take_memory(record.push);
                    prune::let_go(&state, &record)?;
                }
            }
            Ok(())
        };
        blocking("let-go", work)
            .await?
            .map_err(|e| Problem::local_io(JOURNAL, &e))
    }

    /// A receiver whose disks take turns has so many at most: one that lies must not fill this host's disks
    /// with what it has in common with each.
    pub(crate) async fn check_root(&self) -> Result<(), Problem> {
        let Some(root) = self.root else { return Ok(()) };
        let (state, receiver) = (Arc::clone(&self.state), self.link.receiver());
        let work = move || -> std::io::Result<BTreeSet<RootId>> {
            let records = journal::records(state.pushes())?.into_iter();
            let of_receiver = records.filter(|record| record.receiver == receiver);
            Ok(of_receiver.filter_map(|record| record.root).collect())
        };
        let known = blocking("journal", work)
            .await?
            .map_err(|e| Problem::local_io(JOURNAL, &e))?;
        if known.contains(&root) || known.len() < MOST_ROOTS {
            return Ok(());
        }
        let (name, volume) = (&self.running.receiver, &self.key.name);
        let message = format!(
            "{name} has had {} disks that this host has something in common with, and {root} is one more",
            known.len()
        );
        Err(Problem::new(Kind::Refused, message).remedy(format!(
            "`sendshotctl forget {name}:{volume} --root ID` lets go of one that is gone for good; `sendshotctl list` shows them"
        )))
    }

    /// Whether the receiver may be about to commit an earlier push of this volume.
    pub(crate) async fn awaits_word(&self) -> Result<bool, Problem> {
        let (state, sender) = (Arc::clone(&self.state), Arc::clone(&self.sender));
        let chain = (sender.id(), self.key.id, self.link.receiver());
        let root = self.root;
        let work = move || -> std::io::Result<bool> {
            let records = journal::records(state.pushes())?;
            Ok(records.iter().any(|record| {
                retention::chain(record) == chain
                    && record.state == State::Unconfirmed
                    && (record.root.is_none() || root.is_none() || record.root == root)
                    && !sender.table().contains(record.push)
            }))
        };
        blocking("journal", work)
            .await?
            .map_err(|e| Problem::local_io(JOURNAL, &e))
    }

    /// Whether a volume is what it was when the snapshot of a push was taken of it. In doubt it is
    /// not.
    async fn is_unchanged(&self, volume: &Volume, job: &Job) -> bool {
        let snapshot = job.snapshot_info();
        let (uuid, otransid) = (snapshot.parent_uuid, snapshot.otransid);
        let Ok(fd) = another(&volume.fd) else {
            return false;
        };
        let work = move || -> std::io::Result<bool> {
            filesystem::sync(&fd)?;
            let now = subvolume::info(&fd)?;
            Ok(now.uuid == uuid && now.ctransid <= otransid)
        };
        matches!(blocking("compare", work).await, Ok(Ok(true)))
    }

    /// Asks what the receiver holds, and settles what that decides. `resuming` is the push that is
    /// about to go on.
    ///
    /// A push also says which transfer was opened last, by whichever push of this volume: none runs any
    /// more, and the receiver lets go of its call before it answers, so that the next transfer finds the
    /// place free.
    pub(crate) async fn negotiate(
        &mut self,
        resuming: Option<&Record>,
        purpose: Purpose,
    ) -> Result<Inventory, Problem> {
        let resuming = resuming.and_then(|record| Some(record.transfer.as_ref()?.id));
        let over = match purpose {
            Purpose::Push => {
                let table = self.sender.table();
                table.last_transfer(self.key.id, self.link.receiver())
            }
            Purpose::Look => None,
        };
        let transfer = resuming.or(over);
        let asked = async {
            let inventory = negotiate::inventory(&mut self.link, &self.key_there, transfer).await?;
            // An id that this box has forgotten.
            let label = inventory.label;
            match label.filter(|label| self.sender.volume_ids().is_free(*label, self.key.id)) {
                None => Ok((inventory, None)),
                Some(label) => {
                    self.key_there.id = label;
                    let again = negotiate::inventory(&mut self.link, &self.key_there, transfer);
                    Ok((again.await?, Some(label)))
                }
            }
        };
        let asked: Result<_, Problem> = tokio::select! {
            asked = asked => asked,
            () = self.running.cancel.cancelled() => return Err(transfer::Error::Cancelled.into()),
        };
        let (inventory, label) = asked?;
        if let (Some(label), Purpose::Push) = (label, purpose) {
            self.take_label(label).await?;
        }
        let detail = match inventory.copies.len() {
            0 => "the receiver holds no copy yet".to_owned(),
            1 => "the receiver holds 1 copy".to_owned(),
            n => format!("the receiver holds {n} copies"),
        };
        self.listener.stage(&self.running, "negotiate", detail);
        let (state, volume, receiver) =
            (Arc::clone(&self.state), self.key.id, self.link.receiver());
        let sender = Arc::clone(&self.sender);
        let name = self.running.receiver.clone();
        self.root = inventory.root;
        blocking("settle", move || {
            let running = |push| sender.table().contains(push);
            let told = settle::Told {
                inventory: &inventory,
                receiver,
                name: &name,
                paired: &sender.paired_ids(),
            };
            settle::acknowledgements(&state, volume, &told, purpose, running).map(|()| inventory)
        })
        .await?
        .map_err(|e| Problem::local_io(JOURNAL, &e))
    }

    /// Notes that the receiver knows the volume by the id in its own label.
    async fn take_label(&self, label: VolumeId) -> Result<(), Problem> {
        let (sender, state) = (Arc::clone(&self.sender), Arc::clone(&self.state));
        let (volume, receiver) = (self.key.id, self.link.receiver());
        tracing::info!(volume = %self.key.name, receiver = %self.running.receiver, %label,
            "the receiver knows the volume by an id that this box had forgotten");
        let work = move || -> std::io::Result<()> {
            match sender.volume_ids().take_label(volume, receiver, label)? {
                Some(binding) => sender.register(&state, &binding),
                None => Ok(()),
            }
        };
        blocking("label", work)
            .await?
            .map_err(|e| Problem::state_io("write down what the receiver knows the volume by", &e))
    }

    /// Bytes on all connections of this push.
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.wire_before + self.link.wire_bytes()
    }

    /// From here on the receiver may commit without our hearing of it. `still` is what must not have moved.
    pub(crate) async fn announce_end(
        &self,
        record: Option<Record>,
        still: Option<(Still, OwnedFd)>,
    ) -> std::io::Result<()> {
        if let Some((still, fd)) = still {
            let checked = blocking("check", move || still.check(&fd)).await;
            checked.map_err(|problem| std::io::Error::other(problem.message))??;
        }
        self.listener.stage(&self.running, "commit", "");
        let Some(mut record) = record else {
            return Ok(());
        };
        let state = Arc::clone(&self.state);
        let work = move || {
            record.state = State::Unconfirmed;
            record.store(state.pushes())?;
            crash::point("end-announced");
            Ok(())
        };
        blocking("record", work)
            .await
            .map_err(|problem| std::io::Error::other(problem.message))?
    }

    /// Records the acknowledgement and finds what it makes superfluous.
    pub(crate) async fn record(
        &self,
        record: Option<Record>,
        parent: Option<Parent>,
    ) -> Result<Superfluous, Problem> {
        self.listener.stage(&self.running, "record", "");
        let Some(record) = record else {
            return Ok(Superfluous::default());
        };
        let state = Arc::clone(&self.state);
        let keep = self.sender.keep(&self.key.name);
        let superfluous = blocking("record", move || {
            record::acknowledged(&state, record, parent, keep)
        })
        .await?
        .map_err(|e| Problem::local_io(JOURNAL, &e))?;
        let detail = match superfluous.older.len() {
            0 => "nothing to let go".to_owned(),
            1 => "1 older state is let go".to_owned(),
            n => format!("{n} older states are let go"),
        };
        self.listener.stage(&self.running, "prune", detail);
        Ok(superfluous)
    }

    /// What is left to do when the user has been told.
    pub(crate) fn release(self, superfluous: Superfluous) -> Release {
        Release::new(self.state, superfluous)
    }

    /// Lets go of the snapshot of a push that came to nothing, unless the receiver may have committed.
    pub(crate) async fn let_go(&self, record: Record) {
        if self.state.is_passing() {
            return;
        }
        let (state, push) = (Arc::clone(&self.state), record.push);
        let work = move || match journal::find(state.pushes(), push)? {
            Some(now) if now.state == State::Sending => prune::let_go(&state, &now),
            Some(_) | None => Ok(()),
        };
        let let_go = blocking("abandon", work).await;
        if let Err(e) = let_go.and_then(|done| done.map_err(Problem::from)) {
            tracing::warn!(%push, "an abandoned push is left to be settled later: {e}");
        }
    }
}

pub(crate) fn another(fd: impl AsFd) -> Result<OwnedFd, Problem> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|e| Problem::local_io("open the volume once more", &e))
}

//! What all stages of one push share, and how it begins.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_model::{PeerName, PushId, RootId, VolumeId};
use sendshot_proto::inventory::Inventory;
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::subvolume::{self, Info};
use sendshot_sys::top_level::TopLevel;
use sendshot_sys::{crash, filesystem};

use crate::connection::link::{self, Link};
use crate::connection::renewal;
use crate::decide::parent::Parent;
use crate::decide::retention;
use crate::push::error::Error;
use crate::push::progress::Listener;
use crate::push::retry::{self, Next, Patience};
use crate::push::stages::negotiate;
use crate::push::stages::record::{self, Superfluous};
use crate::push::stages::release::Release;
use crate::push::stages::snapshot;
use crate::push::stages::still::Still;
use crate::retained::reconcile::{self, Purpose};
use crate::shared::blocking::blocking;
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::state::discard;
use crate::state::journal::{self, Intent, Record, SnapshotId, State};
use crate::state::store::StateSubvolume;
use crate::volume::resolve::{self, Volume};
use sendshot_model::Engine;
use sendshot_proto::problem::JOURNAL;

use crate::push::request::{Request, Subject};

/// Most disks of one receiver that states are kept for.
const MOST_ROOTS: usize = 32;

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

/// Begins a push, again and again while the receiver may come back.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn begin_patiently(
    sender: &Arc<Sender>,
    request: &Request,
    engine: Engine,
    volume: &Volume,
    (running, listener): (&Arc<Running>, &Listener),
    patience: &mut Patience,
) -> Result<Push, Error> {
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
        let error = match begun.await {
            Ok(push) => return Ok(push),
            Err(error) => error,
        };
        if retry::after(&error) != Next::Later {
            return Err(error);
        }
        patience.wait(error, running, listener).await?;
    }
}

async fn connect(
    sender: &Arc<Sender>,
    receiver: &PeerName,
    running: &Running,
) -> Result<Link, Error> {
    let entry = sender.receiver(receiver).await?;
    let connecting = async {
        let mut link = link::connect(&entry, sender.key()).await?;
        renewal::if_due(sender, receiver, &entry, &mut link).await;
        Ok(link)
    };
    tokio::select! {
        link = connecting => link,
        () = running.cancel.cancelled() => Err(Error::cancelled()),
    }
}

/// Opens our state subvolume, takes over what former instances of this sender left in it, and settles what
/// crashed pushes did.
async fn prepare(sender: &Arc<Sender>, volume: &Volume) -> Result<StateSubvolume, Error> {
    let fd = another(&volume.fd)?;
    let binding = volume.binding.clone();
    let sender = Arc::clone(sender);
    let path = volume.path.clone();
    blocking("state-subvolume", move || -> Result<_, Error> {
        let top = TopLevel::of(&fd)?;
        sender
            .filesystems()
            .remember(top.fsid(), &path)
            .map_err(Error::state_dir("write down which file systems are used"))?;
        let is_read_only = filesystem::is_read_only_everywhere(&fd)
            .map_err(Error::volume("look whether the file system is read-only"))?;
        if is_read_only {
            // Book-keeping is no condition of work that needs none.
            let path = sender.passing_dir().join(PushId::generate().to_string());
            return Ok(StateSubvolume::passing(top, &path)?);
        }
        let state = StateSubvolume::open_or_create(top)?;
        sender.take_over_former(&state).map_err(Error::Register)?;
        sender.register(&state, &binding).map_err(Error::Register)?;
        reconcile::leftovers(&state, sender.id(), |push| sender.table().contains(push))
            .map_err(Error::volume(JOURNAL))?;
        Ok(state)
    })
    .await?
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
    ) -> Result<Self, Error> {
        listener.stage(&running, "connect", "");
        let link = connect(&sender, receiver, &running).await?;
        let (noting, from, former) = (Arc::clone(&sender), link.receiver(), link.former().to_vec());
        let noted = blocking("former-ids", move || noting.former().note(from, &former)).await?;
        noted.map_err(Error::state_dir("write down what this sender was before"))?;
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
    pub(crate) async fn snapshot(&self, volume: Volume) -> Result<Subject, Error> {
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
    async fn as_it_is(&self, volume: Volume, intent: Intent) -> Result<Subject, Error> {
        let (state, fd) = (Arc::clone(&self.state), another(&volume.fd)?);
        let looked = blocking("look", move || -> Result<(Info, Still, Record), Error> {
            // Before anything of it is read.
            let look = Error::volume("look at the volume");
            let still = Still::of(&fd).map_err(look)?;
            let info = subvolume::info(&fd).map_err(look)?;
            let mut record = Record::new(intent);
            record.snapshot = Some(SnapshotId {
                uuid: info.uuid,
                otransid: info.otransid,
            });
            // Nothing can be written on the disk itself, so this goes into the state directory.
            let stored = record.store(state.pushes());
            stored.map_err(Error::state_dir("write the record of the push"))?;
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
    pub(crate) async fn reconnect(&mut self) -> Result<(), Error> {
        let link = connect(&self.sender, &self.running.receiver, &self.running).await?;
        if link.receiver() != self.link.receiver() {
            // What this push has sent, and will note as acknowledged, is the other's.
            return Err(Error::OtherReceiver(self.running.receiver.clone()));
        }
        self.wire_before += self.link.wire_bytes();
        self.link = link;
        Ok(())
    }

    /// A receiver whose disks take turns has so many at most: one that lies must not fill this host's disks
    /// with what it has in common with each.
    pub(crate) async fn check_root(&self) -> Result<(), Error> {
        let Some(root) = self.root else { return Ok(()) };
        let (state, receiver) = (Arc::clone(&self.state), self.link.receiver());
        let work = move || -> std::io::Result<BTreeSet<RootId>> {
            let records = journal::records(state.pushes())?.into_iter();
            let of_receiver = records.filter(|record| record.receiver == receiver);
            Ok(of_receiver.filter_map(|record| record.root).collect())
        };
        let known = blocking("journal", work)
            .await?
            .map_err(Error::volume(JOURNAL))?;
        if known.contains(&root) || known.len() < MOST_ROOTS {
            return Ok(());
        }
        Err(Error::TooManyRoots {
            receiver: self.running.receiver.clone(),
            volume: self.key.name.clone(),
            known: known.len(),
            root,
        })
    }

    /// Whether the receiver may be about to commit an earlier push of this volume.
    pub(crate) async fn awaits_word(&self) -> Result<bool, Error> {
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
            .map_err(Error::volume(JOURNAL))
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
    ) -> Result<Inventory, Error> {
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
        let asked: Result<_, Error> = tokio::select! {
            asked = asked => asked,
            () = self.running.cancel.cancelled() => return Err(Error::cancelled()),
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
            let told = reconcile::Told {
                inventory: &inventory,
                receiver,
                name: &name,
                paired: &sender.paired_ids(),
            };
            reconcile::acknowledgements(&state, volume, &told, purpose, running).map(|()| inventory)
        })
        .await?
        .map_err(Error::volume(JOURNAL))
    }

    /// Notes that the receiver knows the volume by the id in its own label.
    async fn take_label(&self, label: VolumeId) -> Result<(), Error> {
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
        blocking("label", work).await?.map_err(Error::state_dir(
            "write down what the receiver knows the volume by",
        ))
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
            checked.map_err(std::io::Error::other)??;
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
            .map_err(std::io::Error::other)?
    }

    /// Records the acknowledgement and finds what it makes superfluous.
    pub(crate) async fn record(
        &self,
        record: Option<Record>,
        parent: Option<Parent>,
    ) -> Result<Superfluous, Error> {
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
        .map_err(Error::volume(JOURNAL))?;
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
            Some(now) if now.state == State::Sending => discard::let_go(&state, &now),
            Some(_) | None => Ok(()),
        };
        let let_go = blocking("abandon", work).await;
        if let Err(e) = let_go.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%push, "an abandoned push is left to be settled later: {e}");
        }
    }
}

pub(crate) fn another(fd: impl AsFd) -> Result<OwnedFd, Error> {
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(Error::volume("open the volume once more"))
}

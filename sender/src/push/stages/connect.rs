//! Stage *connect*: the connection to the receiver, and the state subvolume of the volume's file system.

use std::sync::Arc;

use sendshot_model::{Engine, PeerName, PushId};
use sendshot_proto::problem::JOURNAL;
use sendshot_proto::volume::VolumeKey;
use sendshot_sys::filesystem;
use sendshot_sys::top_level::TopLevel;

use crate::connection::link::{self, Link};
use crate::connection::renewal;
use crate::push::context::{PushContext, another};
use crate::push::error::Error;
use crate::push::progress::Listener;
use crate::push::request::Request;
use crate::push::retry::{self, RetryDecision};
use crate::retained::reconcile;
use crate::shared::blocking::blocking;
use crate::shared::running::Running;
use crate::shared::sender::Sender;
use crate::state::store::StateSubvolume;
use crate::volume::resolve::Volume;
use sendshot_transfer::retry::RetryBudget;

/// Begins a push; retries while the error is transient.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn begin_patiently(
    sender: &Arc<Sender>,
    request: &Request,
    engine: Engine,
    volume: &Volume,
    (running, listener): (&Arc<Running>, &Listener),
    retry_budget: &mut RetryBudget,
) -> Result<PushContext, Error> {
    loop {
        let (sender, beginning) = (Arc::clone(sender), Arc::clone(running));
        let receiver = &request.receiver;
        let begun = begin(
            sender,
            receiver,
            engine,
            volume,
            beginning,
            listener.clone(),
        );
        let error = match begun.await {
            Ok(context) => return Ok(context),
            Err(error) => error,
        };
        if retry::after(&error) != RetryDecision::Later {
            return Err(error);
        }
        retry::wait(retry_budget, error, running, listener).await?;
    }
}

/// Connects to the receiver, and opens the state subvolume on the volume's file system.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn begin(
    sender: Arc<Sender>,
    receiver: &PeerName,
    engine: Engine,
    volume: &Volume,
    running: Arc<Running>,
    listener: Listener,
) -> Result<PushContext, Error> {
    listener.stage(&running, "connect", "");
    let link = dial(&sender, receiver, &running).await?;
    let (noting, from, former) = (Arc::clone(&sender), link.receiver(), link.former().to_vec());
    let noted = blocking("former-ids", move || noting.former().note(from, &former)).await?;
    noted.map_err(Error::state_dir("record the former id of this sender"))?;
    let state = Arc::new(open_store(&sender, volume).await?);
    Ok(PushContext {
        key: volume.key.clone(),
        key_there: VolumeKey {
            id: volume.binding.id_at(link.receiver()),
            name: volume.key.name.clone(),
        },
        sender,
        running,
        listener,
        root: None,
        reported: Vec::new(),
        delivered: None,
        link,
        wire_before: 0,
        state,
        engine,
    })
}

/// Connects to the receiver again.
///
/// # Errors
/// See [`Error`]; [`Error::OtherReceiver`] if another receiver answers at the address.
pub(crate) async fn reconnect(context: &mut PushContext) -> Result<(), Error> {
    let receiver = &context.running.receiver;
    let link = dial(&context.sender, receiver, &context.running).await?;
    if link.receiver() != context.link.receiver() {
        // What this push has sent and will record as acknowledged belongs to the first receiver.
        return Err(Error::OtherReceiver(receiver.clone()));
    }
    context.wire_before += context.link.wire_bytes();
    context.link = link;
    Ok(())
}

async fn dial(sender: &Arc<Sender>, receiver: &PeerName, running: &Running) -> Result<Link, Error> {
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

/// Opens the state subvolume, takes over what former instances of this sender left in it, and reconciles what
/// crashed pushes left.
async fn open_store(sender: &Arc<Sender>, volume: &Volume) -> Result<StateSubvolume, Error> {
    let fd = another(&volume.fd)?;
    let binding = volume.binding.clone();
    let sender = Arc::clone(sender);
    let path = volume.path.clone();
    blocking("state-subvolume", move || -> Result<_, Error> {
        let top = TopLevel::of(&fd)?;
        sender
            .filesystems()
            .remember(top.fsid(), &path)
            .map_err(Error::state_dir("record the file systems in use"))?;
        let is_read_only = filesystem::is_read_only_everywhere(&fd)
            .map_err(Error::volume("check whether the file system is read-only"))?;
        if is_read_only {
            // A push that reads in place needs no records, so it must not fail for lack of them.
            let path = sender.temporary_dir().join(PushId::generate().to_string());
            return Ok(StateSubvolume::temporary(top, &path)?);
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

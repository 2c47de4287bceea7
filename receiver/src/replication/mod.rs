//! The data path's calls: authorise, then hand over to the stage.

pub mod pairing;
pub mod transfer;

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_identity::{PeerId, PeerIdentity, PeerInfo, Refusal, RenewError};
use sendshot_proto::hello::{self, Hello, Support, VERSION, Welcome};
use sendshot_proto::inventory::{self, Inventory, Question};
use sendshot_proto::refusal::refusal;
use sendshot_proto::resume::Partial;
use sendshot_proto::v1;
use sendshot_proto::v1::replication_server::Replication;
use sendshot_proto::volume::VolumeKey;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::receive::failures::io_failure;
use crate::shared::receiver::Receiver;
use crate::store::partials;
use crate::store::root::OpenRoot;
use crate::store::volumes::{self, Caller};

/// Serves the data path.
#[derive(Debug, Clone)]
pub struct ReplicationService(pub Arc<Receiver>);

/// The caller, by its certificate and the live list of senders.
fn authorize(receiver: &Receiver, peer: Option<&PeerIdentity>) -> Result<Caller, Status> {
    let senders = receiver.senders();
    let name = senders.authorize(peer).map_err(|why| refuse(&why))?;
    match peer.map(|peer| peer.id) {
        Some(PeerId::Sender(id)) => Ok(Caller { name, id }),
        Some(PeerId::Receiver(_)) | None => Err(refuse(&Refusal::NoCertificate)),
    }
}

fn refuse(why: &Refusal) -> Status {
    let code = match why {
        Refusal::NoCertificate => Code::Unauthenticated,
        Refusal::Unknown { .. } | Refusal::Revoked { .. } | Refusal::KeyChanged { .. } => {
            Code::PermissionDenied
        }
    };
    refusal(code, why.to_string(), &why.remedy())
}

/// Refuses a caller without a certificate before anything of its message is read: a call is
/// authorised only when its message is there, and strangers could have us hold many of them.
///
/// # Errors
/// The same status as a call's own.
pub fn with_certificate(request: Request<()>) -> Result<Request<()>, Status> {
    match identity(&request) {
        Some(_) => Ok(request),
        None => Err(refuse(&Refusal::NoCertificate)),
    }
}

fn identity<T>(request: &Request<T>) -> Option<PeerIdentity> {
    request
        .extensions()
        .get::<PeerInfo>()
        .and_then(|info| info.identity.clone())
}

impl ReplicationService {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        authorize(&self.0, identity(request).as_ref())
    }
}

#[tonic::async_trait]
impl Replication for ReplicationService {
    type InventoryStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<v1::InventoryResponse, Status>>>;
    type TransferStream = ReceiverStream<Result<v1::TransferDown, Status>>;

    async fn hello(
        &self,
        request: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloResponse>, Status> {
        let caller = self.caller(&request)?;
        let hello = Hello::try_from(request.into_inner())?;
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            let message = format!(
                "this receiver speaks version {VERSION} of the protocol, the sender versions {} to {}",
                hello.version_min, hello.version_max
            );
            let remedy = "upgrade the older of the two";
            return Err(refusal(Code::FailedPrecondition, message, remedy));
        }
        if hello.receiver.is_some_and(|id| id != self.0.id()) {
            return Err(refusal(
                Code::FailedPrecondition,
                "this receiver was set up anew since it was paired",
                "pair again: `sendshotctl peer invite NAME` on the receiver, then \
                 `sendshotctl pair HOST` on the sender",
            ));
        }
        tracing::debug!(sender = %caller.name, software = %hello.software, "connected");
        let welcome = Welcome {
            version: VERSION,
            stream_version: 2,
            resume: Support::Has,
            renew: Support::Has,
            software: hello::software("sendshot-receiver"),
            receiver: self.0.id(),
            former: self.0.senders().former_ids(&caller.name),
        };
        Ok(Response::new(welcome.into()))
    }

    async fn inventory(
        &self,
        request: Request<v1::InventoryRequest>,
    ) -> Result<Response<Self::InventoryStream>, Status> {
        let caller = self.caller(&request)?;
        let Question { volume, resuming } = Question::try_from(request.into_inner())?;
        let receiver = Arc::clone(&self.0);
        if let Some(transfer) = resuming {
            let transfers = receiver.transfers();
            transfers.interrupt(&caller, volume.id, transfer).await;
        }
        let sender = Some(caller.id);
        let work = move || look(&receiver, &caller, &volume);
        let looked = self.0.calls().run(sender, "inventory", work);
        let outcome = looked.await.map_err(|e| Status::internal(e.to_string()))?;
        let parts: Vec<_> = inventory::parts(outcome).into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = self.caller(&request)?;
        let peer = identity(&request);
        let (receiver, csr) = (Arc::clone(&self.0), request.into_inner().signing_request);
        let renewed = self.0.calls().run(Some(caller.id), "renew", move || {
            let now = Timestamp::now();
            receiver.senders().renew(peer.as_ref(), &csr, now)
        });
        let renewed = renewed
            .await
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(|e| not_renewed(&e))?;
        tracing::info!(sender = %caller.name, until = %renewed.not_after, "its certificate was renewed");
        let certificate = renewed.pem;
        Ok(Response::new(v1::RenewResponse { certificate }))
    }

    async fn transfer(
        &self,
        request: Request<Streaming<v1::TransferUp>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        let caller = self.caller(&request)?;
        let (receiver, peer) = (Arc::clone(&self.0), identity(&request));
        let still_welcome = Arc::new(move || authorize(&receiver, peer.as_ref()).map(drop));
        let messages = request.into_inner();
        let answers = transfer::serve(Arc::clone(&self.0), caller, messages, still_welcome).await?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

fn not_renewed(error: &RenewError) -> Status {
    let (code, remedy) = match error {
        RenewError::Refused(refusal) => (Code::PermissionDenied, refusal.remedy()),
        RenewError::OtherKey | RenewError::Sign(_) => (Code::InvalidArgument, String::new()),
        RenewError::Registry(_) => (
            Code::Internal,
            "look into the journal of sendshot-receiver".to_owned(),
        ),
    };
    refusal(code, error.to_string(), &remedy)
}

/// What is held of a volume, from the file system as it is now.
fn look(
    receiver: &Receiver,
    caller: &Caller,
    volume: &VolumeKey,
) -> Result<Inventory, sendshot_proto::failure::Failure> {
    // Asked before looking: a push that ends in between has committed before we look.
    let push_at_work = receiver.transfers().has(caller, volume.id);
    let root = receiver.root().open()?;
    let failed = |e| io_failure("look at the copies of the volume", &e);
    let partials = resumable(receiver, &root, caller, volume).map_err(failed)?;
    let Some(dir) = volumes::find(&root, caller, volume).map_err(failed)? else {
        return Ok(Inventory {
            push_at_work,
            partials,
            root: Some(root.id()),
            label: volumes::label_of_name(&root, caller, volume).map_err(failed)?,
            ..Inventory::default()
        });
    };
    Ok(Inventory {
        copies: volumes::copies(&dir.fd).map_err(failed)?,
        directory: dir.name,
        push_at_work,
        partials,
        root: Some(root.id()),
        label: None,
    })
}

/// The transfers of a volume that broke off, each with all the places it can be taken up at.
fn resumable(
    receiver: &Receiver,
    root: &OpenRoot,
    caller: &Caller,
    volume: &VolumeKey,
) -> io::Result<Vec<Partial>> {
    let mut found: Vec<Partial> = Vec::new();
    let area = Area::new(root)?;
    if area.exists() {
        let dir = area.dir().map_err(io::Error::other)?;
        let all = partials::all(&dir)?.into_iter();
        let ours = all.filter(|partial| partial.record.concerns(caller, volume.id));
        found.extend(ours.map(|partial| Partial {
            transfer: partial.record.transfer,
            points: partial.checkpoints.iter().map(|(c, _)| c.point).collect(),
        }));
    }
    let waiting = receiver.transfers().glance(caller, volume.id);
    if let Some((transfer, point)) = waiting.and_then(|w| Some((w.transfer, w.waits_at?))) {
        match found
            .iter_mut()
            .find(|partial| partial.transfer == transfer)
        {
            Some(partial) => partial.points.push(point),
            None => found.push(Partial {
                transfer,
                points: vec![point],
            }),
        }
    }
    found.retain(|partial| !partial.points.is_empty());
    Ok(found)
}

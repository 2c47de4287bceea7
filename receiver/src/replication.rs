//! The data path's calls: authorise, then hand over to the stage.

use std::sync::Arc;

use sendshot_identity::{PeerId, PeerIdentity, PeerInfo, Refusal};
use sendshot_proto::hello::{self, Hello, VERSION, Welcome};
use sendshot_proto::inventory::{self, Inventory, VolumeKey};
use sendshot_proto::refusal::refusal;
use sendshot_proto::v1;
use sendshot_proto::v1::replication_server::Replication;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::apply::io_failure;
use crate::holdings::{self, Caller};
use crate::receiver::Receiver;
use crate::transfer;

/// Serves the data path.
#[derive(Debug, Clone)]
pub struct ReplicationService(pub Arc<Receiver>);

/// The caller, by its certificate and the live list of senders.
fn authorize(receiver: &Receiver, peer: Option<&PeerIdentity>) -> Result<Caller, Status> {
    let refuse = |why: Refusal| {
        let code = match why {
            Refusal::NoCertificate => Code::Unauthenticated,
            Refusal::Unknown { .. } | Refusal::Revoked { .. } | Refusal::KeyChanged { .. } => {
                Code::PermissionDenied
            }
        };
        refusal(code, why.to_string(), &why.remedy())
    };
    let name = receiver.senders().authorize(peer).map_err(refuse)?;
    match peer.map(|peer| peer.id) {
        Some(PeerId::Sender(id)) => Ok(Caller { name, id }),
        Some(PeerId::Receiver(_)) | None => Err(refuse(Refusal::NoCertificate)),
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
            software: hello::software("sendshot-receiver"),
            receiver: self.0.id(),
        };
        Ok(Response::new(welcome.into()))
    }

    async fn inventory(
        &self,
        request: Request<v1::InventoryRequest>,
    ) -> Result<Response<v1::InventoryResponse>, Status> {
        let caller = self.caller(&request)?;
        let volume = VolumeKey::try_from(request.into_inner())?;
        let receiver = Arc::clone(&self.0);
        let looked =
            sendshot_service::blocking::run("inventory", move || look(&receiver, &caller, &volume));
        let outcome = looked.await.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(inventory::response(outcome)))
    }

    async fn transfer(
        &self,
        request: Request<Streaming<v1::TransferUp>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        let caller = self.caller(&request)?;
        let (receiver, peer) = (Arc::clone(&self.0), identity(&request));
        let still_welcome = move || authorize(&receiver, peer.as_ref()).map(drop);
        let messages = request.into_inner();
        let answers = transfer::serve(Arc::clone(&self.0), caller, messages, still_welcome).await?;
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// What is held of a volume, from the file system as it is now.
fn look(
    receiver: &Receiver,
    caller: &Caller,
    volume: &VolumeKey,
) -> Result<Inventory, sendshot_proto::failure::Failure> {
    // Asked before looking: a push that ends in between has committed before we look.
    let push_at_work = receiver.busy().has(caller, volume.id);
    let root = receiver.root().open()?;
    let failed = |e| io_failure("look at the copies of the volume", &e);
    let Some(dir) = holdings::find(&root, caller, volume).map_err(failed)? else {
        return Ok(Inventory {
            push_at_work,
            ..Inventory::default()
        });
    };
    Ok(Inventory {
        copies: holdings::copies(&dir.fd).map_err(failed)?,
        directory: dir.name,
        push_at_work,
    })
}

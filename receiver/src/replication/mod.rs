//! The calls of the data path: each is authorised, then handed over to its stage.

mod authorize;
mod confirm;
mod fetch;
mod inventory;
pub mod pairing;
pub mod permission;
pub mod transfer;

use std::sync::Arc;

use jiff::Timestamp;
use sendshot_identity::RenewError;
use sendshot_proto::confirm::Confirmation;
use sendshot_proto::hello::{self, Hello, Support, VERSION, Welcome};
use sendshot_proto::inventory::{self as told, Question};
use sendshot_proto::refusal::refusal;
use sendshot_proto::restore::{self, FetchRequest};
use sendshot_proto::v1;
use sendshot_proto::v1::replication_server::Replication;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

pub use crate::replication::authorize::with_certificate;

use crate::replication::authorize::{authorize, greet, identity};
use crate::restore::list;
use crate::shared::receiver::Receiver;
use crate::store::volumes::Caller;

#[derive(Debug, Clone)]
pub struct ReplicationService(pub Arc<Receiver>);

impl ReplicationService {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        authorize(&self.0, identity(request).as_ref())
    }
}

#[tonic::async_trait]
impl Replication for ReplicationService {
    type InventoryStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<v1::InventoryResponse, Status>>>;
    type VolumesStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<v1::VolumesResponse, Status>>>;
    type FetchStream = ReceiverStream<Result<v1::FetchResponse, Status>>;
    type TransferStream = ReceiverStream<Result<v1::TransferDown, Status>>;

    async fn hello(
        &self,
        request: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloResponse>, Status> {
        let caller = greet(&self.0, identity(&request).as_ref())?;
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
                "this receiver was set up again since it was paired",
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
            restore: Support::Has,
            software: hello::software("sendshot-receiver"),
            receiver: self.0.id(),
            former: caller.former_ids,
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
        let work = move || inventory::look(&receiver, &caller, &volume);
        let looked = self.0.calls().run(sender, "inventory", work);
        let outcome = looked.await.map_err(|e| Status::internal(e.to_string()))?;
        let parts: Vec<_> = told::parts(outcome).into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let caller = self.caller(&request)?;
        let confirmation = Confirmation::try_from(request.into_inner())?;
        let receiver = Arc::clone(&self.0);
        let sender = Some(caller.id);
        let work = move || confirm::confirm(&receiver, &caller, &confirmation);
        let confirmed = self.0.calls().run(sender, "confirm", work);
        let outcome = confirmed
            .await
            .map_err(|e| Status::internal(e.to_string()))?;
        let (held, failure) = match outcome {
            Ok(held) => (held, None),
            Err(failure) => (false, Some(failure.into())),
        };
        Ok(Response::new(v1::ConfirmResponse { held, failure }))
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

    async fn volumes(
        &self,
        request: Request<v1::VolumesRequest>,
    ) -> Result<Response<Self::VolumesStream>, Status> {
        let reader = permission::reader(&self.0, identity(&request).as_ref())?;
        let name = restore::wanted(request.into_inner())?;
        let receiver = Arc::clone(&self.0);
        let sender = Some(reader.id);
        let work = move || {
            let root = receiver.root().open_to_read()?;
            let mut list = list::list(&root, &reader.name, name.as_deref())?;
            permission::hide(&receiver, &reader, &mut list);
            Ok(list)
        };
        let listed = self.0.calls().run(sender, "volumes", work);
        let outcome = listed.await.map_err(|e| Status::internal(e.to_string()))?;
        let parts: Vec<_> = restore::parts(outcome).into_iter().map(Ok).collect();
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let (receiver, peer) = (Arc::clone(&self.0), identity(&request));
        let reader = permission::reader(&receiver, peer.as_ref())?;
        let request = FetchRequest::try_from(request.into_inner())?;
        let volume = request.volume.clone();
        let permission =
            Arc::new(move || permission::still_permitted(&receiver, peer.as_ref(), &volume));
        let answers = fetch::serve(&self.0, reader, request, permission);
        Ok(Response::new(ReceiverStream::new(answers)))
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
            "read the journal of sendshot-receiver".to_owned(),
        ),
    };
    refusal(code, error.to_string(), &remedy)
}

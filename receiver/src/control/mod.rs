//! The control socket: the calls of sendshotctl to the receiving daemon, one file per subject.

mod config;
mod copies;
mod history;
pub(crate) mod metrics;
mod partials;
mod peers;
mod request;
mod roots;
mod status;

use std::sync::Arc;

use sendshot_proto::answer::{answered, only_root};
use sendshot_proto::v1;
use sendshot_proto::v1::receiver_control_server::ReceiverControl;
use sendshot_service::is_root;
use tonic::{Request, Response, Status};

use crate::shared::receiver::Receiver;

#[derive(Debug, Clone)]
pub struct Control(pub Arc<Receiver>);

#[tonic::async_trait]
impl ReceiverControl for Control {
    type HistoryStream = history::Parts;

    async fn invite(
        &self,
        request: Request<v1::InviteRequest>,
    ) -> Result<Response<v1::InviteResponse>, Status> {
        answered(peers::invite(&self.0, request).await)
    }

    async fn peers(
        &self,
        _: Request<v1::PeersRequest>,
    ) -> Result<Response<v1::PeersResponse>, Status> {
        Ok(Response::new(peers::list(&self.0)))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        answered(peers::revoke(&self.0, request).await)
    }

    async fn grant(
        &self,
        request: Request<v1::GrantRequest>,
    ) -> Result<Response<v1::GrantResponse>, Status> {
        answered(peers::grant(&self.0, request).await)
    }

    async fn grants(
        &self,
        _: Request<v1::GrantsRequest>,
    ) -> Result<Response<v1::GrantsResponse>, Status> {
        Ok(Response::new(peers::grants(&self.0)))
    }

    async fn copies(
        &self,
        request: Request<v1::CopiesRequest>,
    ) -> Result<Response<v1::CopiesResponse>, Status> {
        answered(copies::answer(&self.0, request.into_inner()).await)
    }

    async fn prune_copies(
        &self,
        request: Request<v1::PruneCopiesRequest>,
    ) -> Result<Response<v1::PruneCopiesResponse>, Status> {
        if let Err(problem) = only_root(is_root(&request), "deleting copies") {
            return answered(Err(problem));
        }
        answered(copies::prune(&self.0, request.into_inner()).await)
    }

    async fn change_copy(
        &self,
        request: Request<v1::ChangeCopyRequest>,
    ) -> Result<Response<v1::ChangeCopyResponse>, Status> {
        if let Err(problem) = only_root(is_root(&request), "changing a copy") {
            return answered(Err(problem));
        }
        answered(copies::change(&self.0, request.into_inner()).await)
    }

    async fn accept_clock(
        &self,
        request: Request<v1::AcceptClockRequest>,
    ) -> Result<Response<v1::AcceptClockResponse>, Status> {
        if let Err(problem) = only_root(is_root(&request), "accepting the clock") {
            return answered(Err(problem));
        }
        answered(copies::accept_clock(&self.0, request.into_inner()).await)
    }

    async fn partials(
        &self,
        request: Request<v1::CopiesRequest>,
    ) -> Result<Response<v1::PartialsResponse>, Status> {
        answered(partials::answer(&self.0, request.into_inner()).await)
    }

    async fn show_config(
        &self,
        _: Request<v1::ShowConfigRequest>,
    ) -> Result<Response<v1::ShowConfigResponse>, Status> {
        config::answer(&self.0).await.map(Response::new)
    }

    async fn status(
        &self,
        _: Request<v1::ReceiverStatusRequest>,
    ) -> Result<Response<v1::ReceiverStatusResponse>, Status> {
        answered(status::answer(&self.0).await)
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        history::answer(&self.0, request.into_inner()).map(Response::new)
    }

    async fn roots(
        &self,
        _: Request<v1::RootsRequest>,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        answered(roots::about(&self.0, |receiver| Ok(roots::list(receiver))).await)
    }

    async fn add_root(
        &self,
        request: Request<v1::RootsRequest>,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        if let Err(problem) = only_root(is_root(&request), "adding a disk") {
            return answered(Err(problem));
        }
        answered(roots::about(&self.0, roots::add).await)
    }

    async fn remove_root(
        &self,
        request: Request<v1::RootsRequest>,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        if let Err(problem) = only_root(is_root(&request), "removing a disk") {
            return answered(Err(problem));
        }
        let id = request.into_inner().id;
        answered(roots::about(&self.0, move |receiver| roots::remove(receiver, &id)).await)
    }

    async fn take_over_root(
        &self,
        request: Request<v1::RootsRequest>,
    ) -> Result<Response<v1::RootsResponse>, Status> {
        if let Err(problem) = only_root(is_root(&request), "taking a disk over") {
            return answered(Err(problem));
        }
        let owner = request.into_inner().owner_id;
        answered(roots::about(&self.0, move |receiver| roots::take_over(receiver, &owner)).await)
    }
}

//! The control socket: the calls of sendshotctl to the sending daemon, one file per call. Requests are parsed here,
//! and answers become messages here; the rooms below do the work.

mod cancel;
mod config;
mod foreign;
mod forget;
mod history;
mod list;
pub(crate) mod metrics;
mod pair;
mod pause;
mod plan;
mod prune;
mod push;
mod replications;
mod request;
mod restore;
mod running;
mod status;

use std::sync::Arc;

use sendshot_proto::answer::answered;
use sendshot_proto::v1;
use sendshot_proto::v1::sender_control_server::SenderControl;
use sendshot_service::is_root;
use tonic::{Request, Response, Status};

use crate::shared::sender::Sender;

#[derive(Debug, Clone)]
pub struct Control(pub Arc<Sender>);

#[tonic::async_trait]
impl SenderControl for Control {
    type PushStream = push::Events;
    type HoldVolumeStream = restore::Events;
    type HistoryStream = history::Parts;

    async fn hold_volume(
        &self,
        request: Request<v1::HoldVolumeRequest>,
    ) -> Result<Response<Self::HoldVolumeStream>, Status> {
        let root = is_root(&request);
        Ok(Response::new(
            restore::hold(&self.0, request.into_inner(), root).await,
        ))
    }

    async fn record_restored(
        &self,
        request: Request<v1::RecordRestoredRequest>,
    ) -> Result<Response<v1::RecordRestoredResponse>, Status> {
        let root = is_root(&request);
        answered(restore::record(&self.0, request.into_inner(), root).await)
    }

    async fn push(
        &self,
        request: Request<v1::PushRequest>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let root = is_root(&request);
        Ok(Response::new(
            push::answer(&self.0, request.into_inner(), root).await,
        ))
    }

    async fn plan(
        &self,
        request: Request<v1::PushRequest>,
    ) -> Result<Response<v1::PlanResponse>, Status> {
        let root = is_root(&request);
        answered(plan::answer(&self.0, request.into_inner(), root).await)
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let root = is_root(&request);
        answered(list::answer(&self.0, request.into_inner(), root).await)
    }

    async fn prune(
        &self,
        request: Request<v1::PruneRequest>,
    ) -> Result<Response<v1::PruneResponse>, Status> {
        let root = is_root(&request);
        answered(prune::answer(&self.0, request.into_inner(), root).await)
    }

    async fn forget(
        &self,
        request: Request<v1::ForgetRequest>,
    ) -> Result<Response<v1::ForgetResponse>, Status> {
        let root = is_root(&request);
        answered(forget::answer(&self.0, request.into_inner(), root).await)
    }

    async fn foreign(
        &self,
        request: Request<v1::ForeignRequest>,
    ) -> Result<Response<v1::ForeignResponse>, Status> {
        let root = is_root(&request);
        answered(foreign::answer(&self.0, request.into_inner(), root).await)
    }

    async fn forget_filesystem(
        &self,
        request: Request<v1::ForgetFilesystemRequest>,
    ) -> Result<Response<v1::ForgetFilesystemResponse>, Status> {
        let root = is_root(&request);
        answered(forget::filesystem(&self.0, request.into_inner(), root).await)
    }

    async fn pair(
        &self,
        request: Request<v1::PairCommand>,
    ) -> Result<Response<v1::PairResult>, Status> {
        let root = is_root(&request);
        answered(pair::answer(&self.0, request.into_inner(), root).await)
    }

    async fn pause(
        &self,
        request: Request<v1::PauseRequest>,
    ) -> Result<Response<v1::PauseResponse>, Status> {
        let root = is_root(&request);
        answered(pause::pause(&self.0, request.into_inner(), root).await)
    }

    async fn r#continue(
        &self,
        request: Request<v1::ContinueRequest>,
    ) -> Result<Response<v1::ContinueResponse>, Status> {
        let root = is_root(&request);
        answered(pause::unpause(&self.0, request.into_inner(), root).await)
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        cancel::answer(&self.0, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn show_config(
        &self,
        _: Request<v1::ShowConfigRequest>,
    ) -> Result<Response<v1::ShowConfigResponse>, Status> {
        config::answer(&self.0).await.map(Response::new)
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<Self::HistoryStream>, Status> {
        history::answer(&self.0, request.into_inner()).map(Response::new)
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        status::answer(&self.0).await.map(Response::new)
    }
}

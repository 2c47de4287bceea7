//! `sendshotctl cancel`.

use std::ffi::OsString;
use std::process::ExitCode;

use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1::CancelRequest;
use serde::Serialize;

use crate::client::{self, Sender};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::sender::plan;

#[derive(Serialize)]
struct Cancelled {
    cancelled: u32,
}

/// Cancels running pushes and waits until they have ended.
pub async fn run(
    mut client: Sender,
    target: Option<OsString>,
    all: bool,
    output: &Output,
) -> Outcome {
    let request = match &target {
        Some(target) => {
            let target = plan::parse(target)?;
            CancelRequest {
                receiver: target.receiver.to_string(),
                volume: plan::volume_bytes(&target.volume),
                push_id: Vec::new(),
            }
        }
        None => CancelRequest::default(),
    };
    let answer = client
        .cancel(request)
        .await
        .map_err(client::failed)?
        .into_inner();
    if answer.cancelled == 0 && !all {
        let target = target.unwrap_or_default();
        return Err(Problem::new(
            Kind::Failed,
            format!("no push of {} is running", target.to_string_lossy()),
        ));
    }
    let cancelled = Cancelled {
        cancelled: answer.cancelled,
    };
    output.result(&cancelled, || match cancelled.cancelled {
        1 => "1 push cancelled".to_owned(),
        n => format!("{n} pushes cancelled"),
    });
    Ok(ExitCode::SUCCESS)
}

//! `sendshotctl plan`, and the parsing of requests that it shares with `push`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;

use sendshot_model::{Engine, Target, VolumeRef};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::report::path_bytes;
use sendshot_proto::v1;
use uuid::Uuid;

use super::request::{needs_root, usage};
use crate::decide::parent::ParentChoice;
use crate::push::dry_run::PushEstimate;
use crate::push::request::Request;
use crate::shared::sender::Sender;

/// Describes what a push would do.
pub(super) async fn answer(
    sender: &Arc<Sender>,
    message: v1::PushRequest,
    root: bool,
) -> Result<v1::PlanResponse, Problem> {
    let top = message.top as usize;
    let request = parse(message, root)?;
    sender.receiver(&request.receiver).await?;
    let volume = sender.resolve(&request).await?;
    let skipped = volume.skipped.iter().map(|path| path_bytes(path)).collect();
    let receiver = request.receiver.to_string();
    let estimate = sender.plan(request, volume, top).await?;
    Ok(v1::PlanResponse {
        receiver,
        skipped,
        ..planned(estimate)
    })
}

fn parent_choice(text: &str) -> Result<ParentChoice, Problem> {
    match text {
        "" | "auto" => Ok(ParentChoice::Auto),
        "none" => Ok(ParentChoice::None),
        uuid => Uuid::parse_str(uuid).map(ParentChoice::Uuid).map_err(|_| {
            Problem::new(Kind::Usage, format!("`{uuid}` is not a parent"))
                .remedy("give `auto`, `none` or the UUID of a snapshot")
        }),
    }
}

fn engine(text: &str) -> Result<Option<Engine>, Problem> {
    match text {
        "" => Ok(None),
        name => name.parse().map(Some).map_err(|e| usage(&e)),
    }
}

/// Parses a request, and checks that its caller may make it.
pub(super) fn parse(message: v1::PushRequest, root: bool) -> Result<Request, Problem> {
    let mut argument = OsString::from(message.receiver);
    argument.push(":");
    argument.push(OsString::from_vec(message.volume));
    let target = Target::parse(argument).map_err(|e| usage(&e))?;
    if matches!(target.volume, VolumeRef::Path(_)) && !root {
        return Err(needs_root("pushing a path"));
    }
    Ok(Request {
        receiver: target.receiver,
        volume: target.volume,
        parent_choice: parent_choice(&message.parent)?,
        retry_for: message.retry_milliseconds.map(Duration::from_millis),
        engine: engine(&message.engine)?,
    })
}

fn planned(estimate: PushEstimate) -> v1::PlanResponse {
    let PushEstimate { plan, size, .. } = estimate;
    v1::PlanResponse {
        volume: estimate.key.name.to_string(),
        parent: plan
            .parent
            .map(|parent| parent.uuid.as_bytes().to_vec())
            .unwrap_or_default(),
        parent_reason: plan.reason.text,
        parent_reason_code: plan.reason.code.to_string(),
        engine: estimate.engine.to_string(),
        candidates: plan
            .verdicts
            .into_iter()
            .map(|(copy, verdict)| v1::Candidate {
                uuid: copy.uuid.as_bytes().to_vec(),
                name: copy.name.to_string(),
                verdict: verdict.to_string(),
                verdict_code: verdict.code().to_string(),
                remedy: verdict.remedy(&copy).unwrap_or_default(),
            })
            .collect(),
        stream_bytes: size.map(|size| size.bytes),
        commands: size.map(|size| size.commands),
        top: estimate
            .top
            .into_iter()
            .map(|cost| v1::PathCost {
                path: cost.path,
                stream_bytes: cost.bytes,
            })
            .collect(),
        notes: estimate.notes,
        ..Default::default()
    }
}

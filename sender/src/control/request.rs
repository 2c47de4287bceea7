//! What the calls have in common: who makes one, what it names, and how a problem gets into its answer.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use sendshot_config::ReceiverEntry;
use sendshot_model::{PushId, Target, VolumeRef};
use sendshot_proto::problem::{Kind, Problem};
use sendshot_proto::v1;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::retained::kept;
use crate::retained::prune;
use crate::shared::sender::Sender;

/// An answer that has a place for a problem.
pub(super) trait Answer: Default {
    /// The answer of a call that failed.
    fn failed(problem: v1::Problem) -> Self;
}

macro_rules! answers {
    ($($answer:ident),*) => {
        $(impl Answer for v1::$answer {
            fn failed(problem: v1::Problem) -> Self {
                Self { problem: Some(problem), ..Self::default() }
            }
        })*
    };
}

answers!(
    PlanResponse,
    ListResponse,
    PruneResponse,
    ForgetResponse,
    ForeignResponse,
    ForgetFilesystemResponse,
    PairResult
);

/// Puts what a call came to into its answer.
pub(super) fn answered<A: Answer>(done: Result<A, Problem>) -> Result<Response<A>, Status> {
    Ok(Response::new(
        done.unwrap_or_else(|problem| A::failed(problem.into())),
    ))
}

/// Refuses what only root may do.
pub(super) fn only_root(is_root: bool, what: &str) -> Result<(), Problem> {
    match is_root {
        true => Ok(()),
        false => {
            Err(Problem::new(Kind::Refused, format!("{what} needs root"))
                .remedy("run it with sudo"))
        }
    }
}

/// Who calls, by the kernel's word.
pub(super) fn is_root<T>(request: &Request<T>) -> bool {
    request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred)
        .is_some_and(|cred| cred.uid() == 0)
}

pub(super) fn needs_root(what: &str) -> Problem {
    Problem::new(Kind::Refused, format!("{what} needs root"))
        .remedy("run it with sudo, or name a volume that sender.toml configures")
}

/// Parses what names a receiver and a volume; `None` if it names neither. Opening a path tells
/// whether it is there, which is not everybody's to know.
pub(super) fn target(
    receiver: String,
    volume: Vec<u8>,
    root: bool,
) -> Result<Option<Target>, Problem> {
    if receiver.is_empty() && volume.is_empty() {
        return Ok(None);
    }
    let mut argument = OsString::from(receiver);
    argument.push(":");
    argument.push(OsString::from_vec(volume));
    let target = Target::parse(argument).map_err(|e| usage(&e))?;
    if matches!(target.volume, VolumeRef::Path(_)) && !root {
        return Err(needs_root("naming a path"));
    }
    Ok(Some(target))
}

pub(super) fn usage(error: &dyn std::error::Error) -> Problem {
    Problem::from_error(Kind::Usage, error)
}

pub(super) fn mode(dry_run: bool) -> prune::Mode {
    match dry_run {
        true => prune::Mode::DryRun,
        false => prune::Mode::Delete,
    }
}

pub(super) fn pushes(ids: &[Vec<u8>]) -> Result<BTreeSet<PushId>, Problem> {
    ids.iter()
        .map(|bytes| PushId::try_from(bytes.as_slice()).map_err(|e| usage(&e)))
        .collect()
}

/// The receivers that are paired now.
pub(super) async fn paired(sender: &Arc<Sender>) -> Result<kept::Paired, Problem> {
    let receivers = sender.receivers().await?;
    let instance = |(name, entry): (_, ReceiverEntry)| (name, entry.receiver_id);
    Ok(receivers.into_iter().map(instance).collect())
}

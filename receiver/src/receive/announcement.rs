//! What was announced of a push, and what follows from it.

use std::time::Duration;

use sendshot_apply::Identity;
use sendshot_config::SenderPolicy;
use sendshot_model::CopyName;
use sendshot_proto::failure::Failure;
use sendshot_proto::resume::CheckpointPolicy;
use sendshot_proto::transfer::Begin;

use crate::receive::failures::rule_broken;
use crate::store::root::Root;
use crate::store::volumes::Caller;

/// One push to take in.
#[derive(Debug)]
pub struct Work {
    /// Where to.
    pub root: Root,
    /// Whose it is.
    pub caller: Caller,
    /// What was announced.
    pub begin: Begin,
    /// When checkpoints are taken.
    pub checkpoints: CheckpointPolicy,
    /// What its sender may have here.
    pub policy: SenderPolicy,
}

pub(crate) fn stream_version(begin: &Begin) -> Result<sendshot_stream::Version, Failure> {
    sendshot_stream::Version::from_number(begin.stream_version)
        .ok_or_else(|| rule_broken("the stream has a version that does not exist"))
}

/// What a stream calls the state that was announced.
pub(crate) fn announced_identity(begin: &Begin) -> Identity {
    Identity {
        uuid: begin.uuid,
        ctransid: begin.ctransid,
    }
}

pub(crate) fn copy_name(taken_at: i64) -> Result<CopyName, Failure> {
    jiff::Timestamp::from_second(taken_at)
        .map(CopyName::from_time)
        .map_err(|_| rule_broken("the snapshot's time is impossible"))
}

/// The policy that a configuration asks for.
pub fn policy(bytes: u64, interval: Duration) -> CheckpointPolicy {
    CheckpointPolicy {
        bytes,
        milliseconds: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
    }
}

//! The announcement of a transfer, and what follows from it.

use std::time::Duration;

use sendshot_apply::Identity;
use sendshot_config::{MinFree, SenderPolicy};
use sendshot_model::CopyName;
use sendshot_proto::failure::Failure;
use sendshot_proto::resume::CheckpointPolicy;
use sendshot_proto::transfer::Begin;

use crate::receive::failures::rule_broken;
use crate::receive::ledger_writer::LedgerWriter;
use crate::store::root::Root;
use crate::store::volumes::Caller;

/// An announced transfer.
#[derive(Debug)]
pub struct Announcement {
    /// The receiver's disk that it goes to.
    pub root: Root,
    /// The calling sender.
    pub caller: Caller,
    /// The sender's first message.
    pub begin: Begin,
    pub checkpoints: CheckpointPolicy,
    /// The limits of its sender.
    pub policy: SenderPolicy,
    /// The least free space of the disk.
    pub min_free: MinFree,
    /// What it takes to enter its copy into the ledger.
    pub ledger_writer: LedgerWriter,
}

pub(crate) fn stream_version(begin: &Begin) -> Result<sendshot_stream::Version, Failure> {
    sendshot_stream::Version::from_number(begin.stream_version)
        .ok_or_else(|| rule_broken("the stream has a version that does not exist"))
}

/// The identity that the stream must give to the announced state.
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

/// Makes the policy from the configured values.
pub fn policy(bytes: u64, interval: Duration) -> CheckpointPolicy {
    CheckpointPolicy {
        bytes,
        milliseconds: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
    }
}

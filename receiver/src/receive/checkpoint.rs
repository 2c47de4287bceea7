//! Checkpoints: they let an interrupted push resume in its middle after this host has crashed.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Before the first checkpoint, write the record with its owner. — A record without a checkpoint; the next start
//!    deletes it.
//! 2. Write everything to disk, and learn whether any write has failed since staging was opened. — Staging, which
//!    the next start deletes.
//! 3. Make one read-only snapshot of staging, whose name contains the position in the stream; that is atomic, and
//!    durable when the call returns. — The checkpoint; the push resumes from it.
//! 4. Delete the previous checkpoint. — The same, and perhaps the previous one, which the next start deletes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use sendshot_apply::commit::flush;
use sendshot_apply::staging::Area;
use sendshot_apply::{Session, SessionError};
use sendshot_proto::failure::Failure;
use sendshot_proto::resume::{CheckpointPolicy, Point};
use sendshot_proto::transfer::{Mark, Segment};
use sendshot_sys::crash;
use sendshot_sys::subvolume::{self, Access};

use crate::receive::announcement::Announcement;
use crate::receive::failures::{io_failure, rule_broken, session_failure};
use crate::receive::staging::StagingHost;
use crate::store::partials::{self, Checkpoint, Partial, Record};

/// A checkpoint may take this part of the time between two at most: each one writes everything to disk, and commits.
const COST_SHARE: u32 = 30;

/// Longest time between two checkpoints that their cost alone makes: what is sent again after a crash stays limited.
const MAX_STRETCH: Duration = Duration::from_secs(60);

/// The checkpoints of one transfer.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    area: OwnedFd,
    record: Record,
    policy: CheckpointPolicy,
    last: Option<Checkpoint>,
    /// Whether the record has been written.
    noted: bool,
    last_offset: u64,
    last_at: Instant,
    /// How long the last one took.
    cost: Duration,
}

impl Checkpoints {
    /// For a transfer that begins or resumes at `offset`.
    pub(crate) fn new(area: &Area, work: &Announcement, offset: u64) -> Result<Self, Failure> {
        let area = area
            .dir()
            .map_err(|e| crate::receive::failures::staging_failure(&e))?;
        Ok(Self {
            area,
            record: Record::new(&work.caller, &work.begin),
            policy: work.checkpoints,
            last: None,
            noted: false,
            last_offset: offset,
            last_at: Instant::now(),
            cost: Duration::ZERO,
        })
    }

    /// Sets the checkpoint from which the transfer resumes.
    pub(crate) fn with(self, last: Checkpoint) -> Self {
        Self {
            last: Some(last),
            ..self
        }
    }

    pub(crate) fn area(&self) -> BorrowedFd<'_> {
        self.area.as_fd()
    }

    /// Whether a checkpoint is due at `point`, after the segment `behind`.
    pub(crate) fn is_due(&self, behind: &Segment, point: Point) -> bool {
        behind.mark == Mark::Durable
            && point.offset.saturating_sub(self.last_offset) >= self.policy.bytes
            && self.last_at.elapsed() >= interval(self.policy.milliseconds, self.cost)
    }

    /// Takes a checkpoint, while the session is between two commands; returns its offset. `None` if there is
    /// nothing to keep: no subvolume was begun yet, or it is complete, and only the commit is left.
    pub(crate) fn take(
        &mut self,
        session: &mut Session<StagingHost>,
        point: Point,
    ) -> Result<Option<u64>, Failure> {
        let position = session
            .checkpoint()
            .map_err(|cause| session_failure(SessionError::Staging(cause)))?;
        let (Some(position), Some(staging)) = (position, session.host().staging()) else {
            return Ok(None);
        };
        if position.offset != point.offset {
            return Err(rule_broken(
                "the stream is not at the offset of its segments",
            ));
        }
        let began = Instant::now();
        let failed = |e| io_failure("take a checkpoint", &e);
        if self.last.is_none() {
            // A concurrent transfer with the same id: its checkpoints would be taken for this one's.
            let of_another = |found: &Partial| {
                found.record.transfer == self.record.transfer
                    && found.record.volume != self.record.volume
            };
            let all = partials::all(&self.area).map_err(failed)?;
            if all.iter().any(of_another) {
                return Err(rule_broken("another transfer has this id"));
            }
        }
        if !self.noted {
            partials::note(&self.area, &self.record).map_err(failed)?; // 1
            self.noted = true;
        }
        flush(staging).map_err(failed)?; // 2
        crash::point("checkpoint-flushed");
        let new = Checkpoint {
            transfer: self.record.transfer,
            point,
        };
        subvolume::snapshot(staging, &self.area, &new.name(), Access::ReadOnly).map_err(failed)?; // 3
        crash::point("checkpoint-made");
        if let Some(before) = self.last.replace(new) {
            partials::delete(&self.area, before).map_err(failed)?; // 4
            crash::point("checkpoint-old-dropped");
        }
        (self.last_offset, self.last_at) = (point.offset, Instant::now());
        self.cost = began.elapsed();
        Ok(Some(point.offset))
    }

    /// Deletes the partials that `is_expired` selects.
    pub(crate) fn forget_those(
        &self,
        is_expired: impl FnMut(&Partial) -> bool,
    ) -> io::Result<usize> {
        partials::forget_those(&self.area, is_expired)
    }

    /// Deletes all checkpoints of this transfer. What cannot be deleted now, the next start tries again.
    pub(crate) fn forget(self) {
        let transfer = self.record.transfer;
        if self.last.is_none() {
            return;
        }
        if let Err(e) = partials::forget(&self.area, transfer) {
            tracing::warn!(%transfer, "a partial stays until the next start: {e}");
        }
    }
}

/// The time from one checkpoint to the next. The configured time is the least; without one, only the bytes count.
fn interval(configured_millis: u64, cost: Duration) -> Duration {
    let configured = Duration::from_millis(configured_millis);
    match configured.is_zero() {
        true => configured,
        false => configured.max((cost * COST_SHARE).min(MAX_STRETCH)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_that_cost_much_come_less_often() {
        let millis = Duration::from_millis;
        assert_eq!(interval(2000, millis(10)), millis(2000));
        assert_eq!(interval(2000, millis(200)), millis(6000));
        assert_eq!(interval(2000, millis(10_000)), MAX_STRETCH);
        assert_eq!(interval(90_000, millis(10_000)), millis(90_000));
        assert_eq!(interval(0, millis(200)), Duration::ZERO);
    }
}

//! The outcome of a failed push: another attempt, or the decision to keep or discard it.

use crate::bounds::Fault;
use crate::real;
use crate::state::{Came, Daemon, Job, Kind, Next, Origin, Phase, Record, Then, Trail, World};

/// Limit for restarts of one state in a row; the daemon's limit is higher.
const MAX_RESTARTS: u8 = 1;

impl World {
    /// Ends the attempt.
    pub fn fail(&mut self, slot: usize, job: &mut Job, (next, kind): (Next, Kind)) {
        self.receivers[slot].call = None;
        job.phase = Phase::Failed(next, kind);
    }

    /// Whether there is another attempt after this failure, within the bounds.
    pub fn can_try_again(&self, slot: usize, job: &Job, next: Next, fault: Fault) -> bool {
        let receiver = &self.receivers[slot];
        match next {
            Next::Never => false,
            Next::Later => {
                let same = receiver.instance == job.link || fault == Fault::ReconnectToAnother;
                self.left.attempts > 0 && receiver.up && same
            }
            Next::Again => job.origin == Origin::Interrupted || job.restarts < MAX_RESTARTS,
        }
    }

    /// Reconnects and continues.
    pub fn try_again(&mut self, slot: usize, fault: Fault) {
        let Some(mut job) = self.sender.jobs[slot].take() else {
            return;
        };
        if let Phase::Failed(next, _) = job.phase {
            if next == Next::Later {
                self.left.attempts -= 1;
                job.connected = true;
                job.link = self.receivers[slot].instance;
            }
            self.sender.jobs[slot] = Some(job);
            self.step_sender(slot, fault);
        }
    }

    /// Prepares the next attempt after a failure, as `Job::before_next` does.
    pub fn again(&mut self, job: &mut Job, next: Next) {
        if next == Next::Again && job.origin == Origin::Interrupted {
            job.phase = Phase::LetGo(Then::StartOver);
            return;
        }
        if next == Next::Again {
            job.restarts += 1;
            job.prepared = None;
            job.begun = false;
        }
        job.phase = Phase::Ask;
    }

    /// Whether the daemon may keep, and may discard, a failed push. After a failure other than a broken
    /// connection it keeps the push if the receiver reported a checkpoint: both cases are explored.
    pub fn is_worth_keeping(&self, job: &Job, kind: Kind) -> (bool, bool) {
        let marks = job.push.and_then(|push| self.sender.record(push));
        let known = job.recent.places | marks.map_or(0, |record| record.marks.places);
        match kind {
            _ if !job.begun => (false, true),
            Kind::Unreachable if known != 0 => (true, false),
            Kind::Failed => (true, true),
            Kind::Unreachable | Kind::Refused => (false, true),
        }
    }

    /// Gives up a push.
    pub fn give_up(&mut self, slot: usize, keep: bool) {
        let job = self.sender.jobs[slot].take();
        if let Some(job) = job.filter(|_| !keep) {
            self.sender.jobs[slot] = Some(Job {
                phase: Phase::LetGo(Then::Over),
                ..job
            });
        }
    }

    /// Ends the attempt while a thread that cannot be cancelled still writes its record.
    pub fn fail_while_announcing(&mut self, slot: usize) {
        let Some(mut job) = self.sender.jobs[slot].take() else {
            return;
        };
        let written = Record {
            came: Came::Unconfirmed,
            ..self.record_of(&job).clone()
        };
        self.sender.stray = Some(written);
        self.fail(slot, &mut job, real::after_break());
        self.sender.jobs[slot] = Some(job);
    }

    /// Applies the write of that thread, whatever has become of the push.
    pub fn write_stray(&mut self) {
        let Some(written) = self.sender.stray.take() else {
            return;
        };
        match self.sender.record_mut(written.push) {
            Some(record) => {
                record.came = written.came;
                record.transfer = written.transfer;
            }
            None => self.sender.records.push(Record {
                snapshot: false,
                sendshot: false,
                marks: Trail::default(),
                ..written
            }),
        }
    }

    /// Kills the sender and its unsent messages; of the sent ones `arrives` messages still arrive.
    pub fn crash_sender(&mut self, arrives: usize) {
        self.sender.daemon = Daemon::Dead;
        self.sender.stray = None;
        for slot in 0..self.receivers.len() {
            self.receivers[slot].hang_up(arrives);
            self.sender.jobs[slot] = None;
        }
    }
}

//! What the sender deletes, and when, step by step: `reconcile.rs`, `prune.rs`, `release.rs` and
//! `expire.rs` of the daemon.

use sendshot_sender::decide::reconcile::Verdict;

use crate::bounds::Fault;
use crate::real;
use crate::state::{Came, Inventory, Job, Phase, Push, Then, Trail, World, bit};

impl World {
    /// Reconciles the next leftover of a starting sender; `false` when none is left.
    pub fn settle_leftovers(&mut self, fault: Fault) -> bool {
        let records = &self.sender.records;
        let mut idle = records.iter().filter(|r| !self.sender.runs(r.push));
        let found = idle.find_map(|record| {
            let over = record.came == Came::Acknowledged && record.snapshot;
            let unheard = fault == Fault::DropUnconfirmed && record.came == Came::Unconfirmed;
            let goes = unheard || real::at_start(record) == Verdict::Drop;
            (over || goes).then_some((record.push, goes))
        });
        match found {
            Some((push, true)) => self.let_go_step(push),
            Some((push, false)) => self.release(push),
            None => return false,
        }
        true
    }

    /// Applies the receiver's report to pushes that are not running: `reconcile::acknowledgements`.
    pub fn reconcile_report(&mut self, job: &mut Job, told: Inventory, fault: Fault) {
        let told_of_work = Inventory {
            at_work: told.at_work && fault != Fault::IgnoreWork,
            ..told.clone()
        };
        let mut records = self.sender.records.iter();
        let found = records.find_map(|record| {
            if record.instance != job.link || self.sender.runs(record.push) {
                return None;
            }
            match real::after_inventory(record, &told_of_work) {
                Verdict::Keep if record.came == Came::Acknowledged && record.snapshot => {
                    Some((record.push, Verdict::Keep))
                }
                Verdict::Keep => None,
                verdict => Some((record.push, verdict)),
            }
        });
        match found {
            None => job.phase = Phase::Start(told_of_work),
            Some((push, Verdict::Keep)) => self.release(push),
            Some((push, Verdict::Drop)) => self.let_go_step(push),
            Some((push, Verdict::Acknowledge)) => self.mark_acknowledged(push),
        }
    }

    /// Deletes the next part of a push: the snapshot with its marks, then the sendshot, then the
    /// record.
    pub fn let_go_step(&mut self, push: Push) {
        let Some(record) = self.sender.record_mut(push) else {
            return;
        };
        if record.snapshot {
            self.release(push);
        } else if record.sendshot {
            record.sendshot = false;
        } else {
            self.sender.records.retain(|record| record.push != push);
        }
    }

    /// Deletes a push's snapshot, and notes the deletion if the receiver has not committed the push.
    fn release(&mut self, push: Push) {
        let Some(record) = self.sender.record_mut(push) else {
            return;
        };
        record.snapshot = false;
        record.marks = Trail::default();
        let committed = self.ghost.committed[usize::from(record.instance)];
        if committed & bit(push) == 0 {
            self.ghost.discarded |= bit(push);
        }
    }

    /// Discards an interrupted push that is too old.
    pub fn let_go_of_old(&mut self, push: Push) {
        let Some(record) = self.sender.record_mut(push) else {
            return;
        };
        match record.came {
            Came::Unconfirmed => {
                record.snapshot = false;
                record.marks = Trail::default();
            }
            Came::Sending | Came::Acknowledged => {
                self.release(push);
                self.sender.records.retain(|record| record.push != push);
            }
        }
    }

    /// Finds a push that `Push::let_go_of_interrupted` discards.
    pub fn unfinished(&self, instance: u8) -> Option<Push> {
        let mut records = self.sender.records.iter();
        let found = records.find(|record| {
            record.instance == instance
                && record.came == Came::Sending
                && real::is_resumable(record)
                && !self.sender.runs(record.push)
        });
        found.map(|record| record.push)
    }

    /// Records that the receiver has committed the push.
    pub fn mark_acknowledged(&mut self, push: Push) {
        let Some(record) = self.sender.record_mut(push) else {
            return;
        };
        record.came = Came::Acknowledged;
        let newest = &mut self.ghost.newest[usize::from(record.instance)];
        *newest = (*newest).max(Some(push));
    }

    /// Discards the push's own record, unless the receiver may have committed it.
    pub fn let_go_job(&mut self, job: &mut Job, then: Then) -> bool {
        let push = job.push.filter(|push| {
            let record = self.sender.record(*push);
            record.is_some_and(|record| record.came == Came::Sending)
        });
        if let Some(push) = push {
            self.let_go_step(push);
            return true;
        }
        *job = Job {
            phase: Phase::LetGoInterrupted,
            reported: job.reported,
            connected: job.connected,
            ..Job::new(job.link, job.wish)
        };
        then == Then::StartOver
    }

    /// Deletes the push's own snapshot, then superseded states; `false` when that is done.
    pub fn release_step(&mut self, job: &mut Job, mut older: Vec<Push>) -> bool {
        let record = self.record_of(job);
        let push = record.push;
        if record.snapshot {
            self.release(push);
            return true;
        }
        let Some(&next) = older.last() else {
            return false;
        };
        self.let_go_step(next);
        if self.sender.record(next).is_none() {
            older.pop();
        }
        job.phase = Phase::Release(older);
        true
    }
}

//! The sender's part of a transfer, from the announcement to the acknowledgement.

use crate::bounds::Fault;
use crate::real;
use crate::sender::stream;
use crate::state::{
    Begin, Call, Came, Down, Job, Phase, Point, Record, Trail, Up, Violation, World, bit,
};

impl World {
    /// Announces the push.
    pub fn begin(&mut self, slot: usize, job: &mut Job, from: Option<Point>) {
        let record = self.record_of(job);
        let transfer = record.transfer.expect("it was noted").id;
        let stream = stream(job);
        let unreported = |parent| job.reported & bit(parent) == 0;
        if from.is_none() && stream.parent.is_some_and(unreported) {
            self.ghost.violation = Some(Violation::ParentNotReported);
        }
        self.receivers[slot].call = Some(Call {
            begin: Some(Begin {
                transfer,
                stream,
                resume_at: from,
            }),
            down: Vec::new(),
        });
        job.phase = Phase::Opening(from.map_or(0, |from| from.at));
    }

    /// Handles the receiver's answer to the announcement.
    pub fn opened(&mut self, slot: usize, job: &mut Job, from: u8) {
        match self.receivers[slot].answer() {
            Some(Down::Accepted(at)) if at == from => {
                job.begun = true;
                job.resumed_at = from;
                job.recent = Trail::at(stream(job), from);
                self.record_of(job).marks.keep_up_to(from);
                job.phase = Phase::Sending(from);
            }
            Some(Down::Failure(code)) => self.fail(slot, job, real::after_refusal(code)),
            Some(Down::Accepted(_) | Down::Committed) => self.accuse(),
            None => {}
        }
    }

    /// Sends the next segment, marked or not.
    pub fn send(&mut self, slot: usize, marked: bool, fault: Fault) {
        let Some(mut job) = self.sender.jobs[slot].take() else {
            return;
        };
        if let Phase::Sending(sent) = job.phase {
            let stream = stream(&job);
            let ends = Point {
                stream,
                at: sent + 1,
            };
            job.recent.places |= 1 << ends.at;
            job.phase = Phase::Sending(ends.at);
            if marked && fault == Fault::MarkAfterSegment {
                job.phase = Phase::Mark(ends.at);
            } else if marked {
                self.record_of(&job).mark(ends);
            }
            self.receivers[slot].receive(Up::Segment { ends, marked });
        }
        self.sender.jobs[slot] = Some(job);
    }

    /// Handles the end of the segments, or the receiver's refusal.
    pub fn all_sent(&mut self, slot: usize, job: &mut Job, sent: u8, fault: Fault) {
        match self.receivers[slot].answer() {
            Some(Down::Failure(code)) => self.fail(slot, job, real::after_refusal(code)),
            Some(_) => self.accuse(),
            None if sent < self.left.segments => {}
            None if fault == Fault::EndBeforeUnconfirmed => job.phase = Phase::End,
            None => job.phase = Phase::Announce,
        }
    }

    /// Records that the receiver may commit from now on.
    pub fn announce(&mut self, job: &mut Job, fault: Fault) {
        self.record_of(job).came = match fault {
            Fault::RecordBeforeAcknowledge => Came::Acknowledged,
            _ => Came::Unconfirmed,
        };
        job.phase = match fault {
            Fault::EndBeforeUnconfirmed => Phase::Waiting,
            _ => Phase::End,
        };
    }

    /// Sends the end of the stream.
    pub fn end(&mut self, slot: usize, job: &mut Job, fault: Fault) {
        let end = Point {
            stream: stream(job),
            at: self.left.segments,
        };
        self.receivers[slot].receive(Up::End(end));
        job.phase = match fault {
            Fault::EndBeforeUnconfirmed => Phase::Announce,
            _ => Phase::Waiting,
        };
    }

    /// Records the acknowledgement and decides what it supersedes.
    pub fn acknowledge(&mut self, slot: usize, job: &mut Job, fault: Fault) {
        let record = self.record_of(job).clone();
        self.mark_acknowledged(record.push);
        let mut acknowledged = self.sender.records.clone();
        acknowledged.retain(|r| r.came == Came::Acknowledged);
        if fault == Fault::PruneAcrossInstances {
            acknowledged
                .iter_mut()
                .for_each(|r| r.instance = record.instance);
        }
        acknowledged.retain(|r| r.instance == record.instance);
        let older = real::superseded(record.push, &acknowledged, self.left.keep);
        self.receivers[slot].call = None;
        job.phase = Phase::Release(older);
    }
}

impl Record {
    pub fn mark(&mut self, point: Point) {
        self.marks.stream = Some(point.stream);
        self.marks.places |= 1 << point.at;
    }
}

impl Trail {
    fn keep_up_to(&mut self, at: u8) {
        self.places &= (2 << at) - 1;
        if at == 0 || self.places == 0 {
            *self = Self::default();
        }
    }
}

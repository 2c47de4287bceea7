//! The steps of a push, each as small as a crash can distinguish it from the next: `push.rs`, `snapshot.rs`,
//! `job.rs` and `prepare.rs` of the daemon.

use crate::bounds::Fault;
use crate::real;
use crate::state::{
    Came, Down, Instance, Inventory, Job, Origin, Phase, Point, Push, Record, Stream, Then, Trail,
    Transfer, Violation, Wish, World, bit,
};

impl Job {
    /// A push that was just requested, connected to `link`.
    pub fn new(link: Instance, wish: Wish) -> Self {
        Self {
            push: None,
            wish,
            origin: Origin::Fresh,
            begun: false,
            prepared: None,
            recent: Trail::default(),
            reported: 0,
            resumed_at: 0,
            restarts: 0,
            connected: true,
            link,
            phase: Phase::Leftovers,
        }
    }

    /// Whether the current step needs the receiver.
    fn talks(&self) -> bool {
        matches!(
            self.phase,
            Phase::Ask
                | Phase::Begin(_)
                | Phase::Opening(_)
                | Phase::Sending(_)
                | Phase::End
                | Phase::Waiting
        )
    }
}

impl World {
    /// Takes one step of a push.
    pub fn step_sender(&mut self, slot: usize, fault: Fault) {
        let Some(mut job) = self.sender.jobs[slot].take() else {
            return;
        };
        if job.talks() && !job.connected {
            self.fail(slot, &mut job, real::after_break());
            self.sender.jobs[slot] = Some(job);
            return;
        }
        // Other jobs see it as running while it takes its step.
        self.sender.jobs[slot] = Some(job.clone());
        let goes_on = self.step_job(slot, &mut job, fault);
        self.sender.jobs[slot] = goes_on.then_some(job);
    }

    /// Takes the next step of the push; `false` when it has ended.
    fn step_job(&mut self, slot: usize, job: &mut Job, fault: Fault) -> bool {
        let phase = job.phase.clone();
        match phase {
            Phase::Leftovers => {
                if !self.settle_leftovers(fault) {
                    job.phase = Phase::Find;
                }
            }
            Phase::Find => self.find_interrupted(job),
            Phase::LetGoInterrupted => match self.unfinished(job.link) {
                Some(push) => self.let_go_step(push),
                None if self.left.snapshots[slot] == 0 => return false,
                None => job.phase = Phase::WriteRecord,
            },
            Phase::WriteRecord => self.write_record(slot, job),
            Phase::TakeSnapshot => {
                self.record_of(job).snapshot = true;
                job.phase = Phase::NameSnapshot;
            }
            Phase::NameSnapshot => {
                self.record_of(job).is_named = true;
                job.phase = Phase::Ask;
            }
            Phase::Ask => {
                let told = self.receivers[slot].inventory();
                job.reported |= told.copies.iter().fold(0, |all, push| all | bit(*push));
                job.phase = Phase::Reconcile(told);
            }
            Phase::Reconcile(told) => self.reconcile_report(job, told, fault),
            Phase::Start(told) => self.start(slot, job, told, fault),
            Phase::Capture(told) => self.capture(job, &told),
            Phase::NoteTransfer => self.note_transfer(job),
            Phase::Begin(from) => self.begin(slot, job, from),
            Phase::Opening(from) => self.opened(slot, job, from),
            Phase::Sending(sent) => self.all_sent(slot, job, sent, fault),
            Phase::Mark(sent) => {
                let stream = stream(job);
                self.record_of(job).mark(Point { stream, at: sent });
                job.phase = Phase::Sending(sent);
            }
            Phase::Announce => self.announce(job, fault),
            Phase::End => self.end(slot, job, fault),
            Phase::Waiting => match self.receivers[slot].answer() {
                Some(Down::Failure(code)) => self.fail(slot, job, real::after_refusal(code)),
                Some(Down::Accepted(_)) => self.accuse(),
                Some(Down::Committed) => job.phase = Phase::Acknowledge,
                None => {}
            },
            Phase::Acknowledge => self.acknowledge(slot, job, fault),
            Phase::Release(older) => return self.release_step(job, older),
            Phase::LetGo(then) => return self.let_go_job(job, then),
            Phase::Failed(next, _) => self.again(job, next),
        }
        true
    }

    /// Returns the record of a running push.
    pub fn record_of(&mut self, job: &Job) -> &mut Record {
        let push = job.push.expect("it has a record");
        self.sender
            .record_mut(push)
            .expect("only this step removes it")
    }

    /// Notes that the sender reported an invalid response, although the receiver is honest.
    pub fn accuse(&mut self) {
        self.ghost.violation = Some(Violation::HonestReceiverAccused);
    }

    /// Finds the newest interrupted push with everything that it needs, as `resume::find` does.
    fn find_interrupted(&self, job: &mut Job) {
        let whole = |record: &&Record| {
            let parent = record.transfer.and_then(|transfer| transfer.parent);
            let parent = parent.is_none_or(|p| self.sender.record(p).is_some_and(|r| r.sendshot));
            record.snapshot && record.sendshot && parent
        };
        let records = self.sender.records.iter();
        let records = records.filter(|_| job.wish == Wish::Best);
        let ours = records.filter(|r| r.instance == job.link && real::is_resumable(r));
        let Some(found) = ours.filter(whole).max_by_key(|record| record.push) else {
            job.phase = Phase::LetGoInterrupted;
            return;
        };
        job.push = Some(found.push);
        job.origin = Origin::Interrupted;
        job.begun = true;
        job.prepared = found.transfer.map(|transfer| transfer.parent);
        job.phase = Phase::Ask;
    }

    /// Takes the first step of a snapshot.
    fn write_record(&mut self, slot: usize, job: &mut Job) {
        let push = self.sender.next_push;
        self.sender.next_push += 1;
        self.left.snapshots[slot] -= 1;
        self.sender.records.push(Record {
            push,
            instance: job.link,
            came: Came::Sending,
            transfer: None,
            is_named: false,
            snapshot: false,
            sendshot: false,
            marks: Trail::default(),
        });
        job.push = Some(push);
        job.phase = Phase::TakeSnapshot;
    }

    /// Decides from the inventory what to send and from where: `Job::attempt`.
    fn start(&mut self, slot: usize, job: &mut Job, told: Inventory, fault: Fault) {
        let record = self.record_of(job).clone();
        if told.copies.contains(&record.push) {
            match record.came {
                Came::Unconfirmed => job.phase = Phase::Acknowledge,
                Came::Sending | Came::Acknowledged => self.accuse(),
            }
            return;
        }
        if job.begun && told.at_work {
            self.fail(slot, job, real::after_break());
            return;
        }
        let transfer = record.transfer.filter(|_| job.begun);
        if let Some(transfer) = transfer {
            let known: Vec<Point> = job.recent.points().chain(record.marks.points()).collect();
            match real::resumes_at(known.into_iter(), &told, transfer.id) {
                Some(point) => {
                    job.phase = Phase::Begin(Some(point));
                    return;
                }
                None if job.origin == Origin::Interrupted => {
                    job.phase = Phase::LetGo(Then::StartOver);
                    return;
                }
                None => job.begun = false,
            }
        }
        job.phase = match job.prepared {
            Some(_) => Phase::NoteTransfer,
            None if fault == Fault::PlanWithoutAsking => Phase::Capture(Inventory {
                copies: (0..self.sender.next_push).collect(),
                ..told
            }),
            None => Phase::Capture(told),
        };
    }

    /// Captures and plans.
    fn capture(&mut self, job: &mut Job, told: &Inventory) {
        let record = self.record_of(job);
        record.sendshot = true;
        let push = record.push;
        let records = self.sender.records.iter();
        let known = records.filter(|r| r.came == Came::Acknowledged && r.sendshot);
        let known: Vec<Push> = known.map(|record| record.push).collect();
        job.prepared = Some(real::parent(push, job.wish, &told.copies, &known));
        job.phase = Phase::NoteTransfer;
    }

    /// Makes everything that a resumption needs durable before the transfer begins.
    fn note_transfer(&mut self, job: &mut Job) {
        let parent = job.prepared.flatten();
        let record = self.record_of(job);
        let id = record.transfer.map_or(record.push * 16, |t| t.id + 1);
        record.transfer = Some(Transfer { id, parent });
        job.phase = Phase::Begin(None);
    }
}

/// Returns what determines the bytes of the push's stream.
pub fn stream(job: &Job) -> Stream {
    Stream {
        push: job.push.expect("it has a record"),
        parent: job.prepared.flatten(),
    }
}

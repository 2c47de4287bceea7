//! The sender's steps, each as far as a crash can tell it from the next.

use sendshot_sender::settle::Verdict;

use crate::bounds::Fault;
use crate::real;
use crate::state::{
    Begin, Call, Came, Daemon, Down, Inventory, Job, Kind, Next, Origin, Phase, Point, Push,
    Record, Stream, Then, Trail, Transfer, Up, Violation, World, bit,
};

/// How often in a row a state is sent anew; the daemon's bound is higher.
const MOST_RESTARTS: u8 = 1;

impl Job {
    /// A push that was just asked for, connected to `link`.
    pub fn new(link: u8) -> Self {
        Self {
            push: None,
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

    /// Whether the present step needs the receiver.
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
    /// The next step of what a starting sender settles; `false` when all is settled.
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

    /// Deletes the next of what a record names: the snapshot with its marks, the sendshot, the
    /// record.
    fn let_go_step(&mut self, push: Push) {
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

    /// Deletes a push's snapshot, and notes it if nobody has committed it.
    fn release(&mut self, push: Push) {
        let Some(record) = self.sender.record_mut(push) else {
            return;
        };
        record.snapshot = false;
        record.marks = Trail::default();
        let committed = self.ghost.committed[usize::from(record.instance)];
        if committed & bit(push) == 0 {
            self.ghost.let_go |= bit(push);
        }
    }

    /// Ends an interrupted push that is too old.
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

    /// One step of a push.
    pub fn step_sender(&mut self, slot: usize, fault: Fault) {
        let Some(mut job) = self.sender.jobs[slot].take() else {
            return;
        };
        if job.talks() && !job.connected {
            self.fail(slot, &mut job, real::after_break());
            self.sender.jobs[slot] = Some(job);
            return;
        }
        // Others see it as running while its step is taken.
        self.sender.jobs[slot] = Some(job.clone());
        let goes_on = self.step_job(slot, &mut job, fault);
        self.sender.jobs[slot] = goes_on.then_some(job);
    }

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
                job.phase = Phase::Settle(told);
            }
            Phase::Settle(told) => self.settle_told(job, told, fault),
            Phase::Start(told) => self.start(slot, job, told, fault),
            Phase::Capture(told) => self.capture(job, &told, fault),
            Phase::NoteTransfer => self.note_transfer(job),
            Phase::Begin(from) => self.begin(slot, job, from),
            Phase::Opening(from) => self.opened(slot, job, from),
            Phase::Sending(sent) => self.all_sent(slot, job, sent, fault),
            Phase::Mark(sent) => {
                let stream = stream(job);
                self.record_of(job).mark(Point { stream, at: sent });
                job.phase = Phase::Sending(sent);
            }
            Phase::Announce => {
                self.record_of(job).came = match fault {
                    Fault::RecordBeforeAcknowledge => Came::Acknowledged,
                    _ => Came::Unconfirmed,
                };
                job.phase = match fault {
                    Fault::EndBeforeUnconfirmed => Phase::Waiting,
                    _ => Phase::End,
                };
            }
            Phase::End => {
                let end = Point {
                    stream: stream(job),
                    at: self.left.segments,
                };
                self.receivers[slot].take_up(Up::End(end));
                job.phase = match fault {
                    Fault::EndBeforeUnconfirmed => Phase::Announce,
                    _ => Phase::Waiting,
                };
            }
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

    fn record_of(&mut self, job: &Job) -> &mut Record {
        let push = job.push.expect("it has a record");
        self.sender
            .record_mut(push)
            .expect("nobody else removes it")
    }

    fn accuse(&mut self) {
        self.ghost.violation = Some(Violation::HonestReceiverAccused);
    }

    fn fail(&mut self, slot: usize, job: &mut Job, (next, kind): (Next, Kind)) {
        self.receivers[slot].call = None;
        job.phase = Phase::Failed(next, kind);
    }

    /// The newest push that broke off for which everything is there, as `resume::find` has it.
    fn find_interrupted(&self, job: &mut Job) {
        let whole = |record: &&Record| {
            let parent = record.transfer.and_then(|transfer| transfer.parent);
            let parent = parent.is_none_or(|p| self.sender.record(p).is_some_and(|r| r.sendshot));
            record.snapshot && record.sendshot && parent
        };
        let records = self.sender.records.iter();
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

    /// What `Push::let_go_of_interrupted` lets go.
    fn unfinished(&self, instance: u8) -> Option<Push> {
        let mut records = self.sender.records.iter();
        let found = records.find(|record| {
            record.instance == instance
                && record.came == Came::Sending
                && real::is_resumable(record)
                && !self.sender.runs(record.push)
        });
        found.map(|record| record.push)
    }

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

    fn settle_told(&mut self, job: &mut Job, told: Inventory, fault: Fault) {
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

    /// From the inventory to what is sent from where: `Job::attempt`.
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
            match real::goes_on_at(known.into_iter(), &told, transfer.id) {
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

    /// Capture, and plan.
    fn capture(&mut self, job: &mut Job, told: &Inventory, _: Fault) {
        let record = self.record_of(job);
        record.sendshot = true;
        let push = record.push;
        let records = self.sender.records.iter();
        let known = records.filter(|r| r.came == Came::Acknowledged && r.sendshot);
        let known: Vec<Push> = known.map(|record| record.push).collect();
        job.prepared = Some(real::parent(push, &told.copies, &known));
        job.phase = Phase::NoteTransfer;
    }

    fn note_transfer(&mut self, job: &mut Job) {
        let parent = job.prepared.flatten();
        let record = self.record_of(job);
        let id = record.transfer.map_or(record.push * 16, |t| t.id + 1);
        record.transfer = Some(Transfer { id, parent });
        job.phase = Phase::Begin(None);
    }

    fn begin(&mut self, slot: usize, job: &mut Job, from: Option<Point>) {
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

    fn opened(&mut self, slot: usize, job: &mut Job, from: u8) {
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
            self.receivers[slot].take_up(Up::Segment { ends, marked });
        }
        self.sender.jobs[slot] = Some(job);
    }

    fn all_sent(&mut self, slot: usize, job: &mut Job, sent: u8, fault: Fault) {
        match self.receivers[slot].answer() {
            Some(Down::Failure(code)) => self.fail(slot, job, real::after_refusal(code)),
            Some(_) => self.accuse(),
            None if sent < self.left.segments => {}
            None if fault == Fault::EndBeforeUnconfirmed => job.phase = Phase::End,
            None => job.phase = Phase::Announce,
        }
    }

    fn mark_acknowledged(&mut self, push: Push) {
        let Some(record) = self.sender.record_mut(push) else {
            return;
        };
        record.came = Came::Acknowledged;
        let newest = &mut self.ghost.newest[usize::from(record.instance)];
        *newest = (*newest).max(Some(push));
    }

    fn acknowledge(&mut self, slot: usize, job: &mut Job, fault: Fault) {
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

    fn release_step(&mut self, job: &mut Job, mut older: Vec<Push>) -> bool {
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

    /// Lets go of the push's own record, unless the receiver may have committed.
    fn let_go_job(&mut self, job: &mut Job, then: Then) -> bool {
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
            ..Job::new(job.link)
        };
        then == Then::StartOver
    }

    /// After a failure: the next attempt, as `Job::before_next` has it.
    fn again(&mut self, job: &mut Job, next: Next) {
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

    /// Whether there is another attempt after this failure, with what is left.
    pub fn can_try_again(&self, slot: usize, job: &Job, next: Next, fault: Fault) -> bool {
        let receiver = &self.receivers[slot];
        match next {
            Next::Never => false,
            Next::Later => {
                let same = receiver.instance == job.link || fault == Fault::ReconnectToAnother;
                self.left.attempts > 0 && receiver.up && same
            }
            Next::Again => job.origin == Origin::Interrupted || job.restarts < MOST_RESTARTS,
        }
    }

    /// Dials again and goes on.
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

    /// Whether the daemon keeps what a failed push has left. Of one that did not fail by its
    /// connection it does if the receiver has told of a checkpoint: both are looked at.
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

    /// The attempt ends while its record is being written by a thread that nobody stops.
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

    /// What such a thread has written is there, whatever has become of the push.
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

    /// Gives a push up.
    pub fn give_up(&mut self, slot: usize, keep: bool) {
        let job = self.sender.jobs[slot].take();
        if let Some(job) = job.filter(|_| !keep) {
            self.sender.jobs[slot] = Some(Job {
                phase: Phase::LetGo(Then::Over),
                ..job
            });
        }
    }

    /// The sender dies, and with it what it had not sent; of the rest `arrives` messages do.
    pub fn crash_sender(&mut self, arrives: usize) {
        self.sender.daemon = Daemon::Dead;
        self.sender.stray = None;
        for slot in 0..self.receivers.len() {
            self.receivers[slot].hang_up(arrives);
            self.sender.jobs[slot] = None;
        }
    }
}

impl Record {
    fn mark(&mut self, point: Point) {
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

/// What the push's stream is made of.
fn stream(job: &Job) -> Stream {
    Stream {
        push: job.push.expect("it has a record"),
        parent: job.prepared.flatten(),
    }
}

//! The receiver's steps, each as small as a crash can distinguish it from the next.

use crate::bounds::Fault;
use crate::state::{
    Begin, Code, Copy, Doing, Down, Entry, Ghost, Intake, Inventory, Partial, Point, Push,
    Receiver, Thread, Tree, Up, Violation, bit,
};

impl Receiver {
    fn holds(&self, push: Push) -> bool {
        self.copies.iter().any(|copy| copy.push == push)
    }

    /// Answers an inventory request.
    pub fn inventory(&self) -> Inventory {
        let mut points = Vec::new();
        for partial in &self.partials {
            let stream = partial.stream;
            let checkpoints = partial.checkpoints.iter();
            points.extend(checkpoints.map(|(at, _)| (partial.transfer, Point { stream, at: *at })));
        }
        if let Some(Entry::Waiting(intake)) = &self.entry {
            points.extend(intake.point().map(|point| (intake.transfer, point)));
        }
        Inventory {
            copies: self.copies.iter().map(|copy| copy.push).collect(),
            at_work: matches!(self.entry, Some(Entry::Running(_))),
            points,
        }
    }

    /// Receives a message of the current call.
    pub fn receive(&mut self, up: Up) {
        if let Some(Entry::Running(thread)) = &mut self.entry
            && thread.live
        {
            thread.input.push(up);
        }
    }

    /// Returns the next answer of the current call.
    pub fn answer(&mut self) -> Option<Down> {
        let call = self.call.as_mut()?;
        (!call.down.is_empty()).then(|| call.down.remove(0))
    }

    fn report(&mut self, down: Down) {
        if let Some(call) = &mut self.call {
            call.down.push(down);
        }
    }

    /// Breaks the connection; of the messages in flight to this side `arrives` still arrive.
    pub fn hang_up(&mut self, arrives: usize) {
        if let Some(begin) = self.call.take().and_then(|call| call.begin)
            && arrives > 0
        {
            self.late = Some(begin);
        }
        if let Some(Entry::Running(thread)) = &mut self.entry
            && thread.live
        {
            thread.live = false;
            thread.input.truncate(arrives);
        }
    }

    /// Delivers the announcement of the current call.
    pub fn deliver(&mut self, ghost: &mut Ghost) {
        if let Some(begin) = self.call.as_mut().and_then(|call| call.begin.take()) {
            match self.enter(begin, true, ghost) {
                Ok(at) => self.report(Down::Accepted(at)),
                Err(code) => self.report(Down::Failure(code)),
            }
        }
    }

    /// Delivers an announcement of a dead connection.
    pub fn deliver_late(&mut self, ghost: &mut Ghost) {
        if let Some(begin) = self.late.take() {
            let _ = self.enter(begin, false, ghost);
        }
    }

    fn enter(&mut self, begin: Begin, live: bool, ghost: &mut Ghost) -> Result<u8, Code> {
        let waiting = match self.entry.take() {
            Some(Entry::Running(thread)) => {
                self.entry = Some(Entry::Running(thread));
                return Err(Code::Busy);
            }
            Some(Entry::Waiting(intake)) => Some(intake),
            None => None,
        };
        let intake = match (begin.resume_at, waiting) {
            (Some(point), Some(waiting)) if waiting.resumes_at(begin, point) => waiting,
            (Some(point), _) => self.at_checkpoint(begin, point)?,
            (None, _) => self.begin_fresh(begin)?,
        };
        if begin.resume_at.is_none() && begin.stream.parent.is_some_and(|p| !self.holds(p)) {
            ghost.violation = Some(Violation::ParentNotHeld);
        }
        let at = intake.offset;
        self.entry = Some(Entry::Running(Thread {
            intake,
            input: Vec::new(),
            live,
            doing: Doing::Take,
        }));
        Ok(at)
    }

    fn begin_fresh(&mut self, begin: Begin) -> Result<Intake, Code> {
        if self.holds(begin.stream.push) {
            return Err(Code::AlreadyHeld);
        }
        self.partials.clear();
        if begin
            .stream
            .parent
            .is_some_and(|parent| !self.holds(parent))
        {
            return Err(Code::ParentGone);
        }
        let tree = Tree {
            base: begin.stream.parent,
            applied: Vec::new(),
        };
        Ok(Intake {
            transfer: begin.transfer,
            stream: begin.stream,
            offset: 0,
            tree,
            last: None,
        })
    }

    fn at_checkpoint(&self, begin: Begin, point: Point) -> Result<Intake, Code> {
        if self.holds(begin.stream.push) {
            return Err(Code::AlreadyHeld);
        }
        let mut partials = self.partials.iter();
        let partial = partials
            .find(|partial| (partial.transfer, partial.stream) == (begin.transfer, begin.stream));
        let partial = partial.ok_or(Code::ResumeImpossible)?;
        let mut checkpoints = partial.checkpoints.iter();
        let found = checkpoints.find(|(at, _)| *at == point.at && partial.stream == point.stream);
        let (at, tree) = found.ok_or(Code::ResumeImpossible)?;
        if begin
            .stream
            .parent
            .is_some_and(|parent| !self.holds(parent))
        {
            return Err(Code::ParentGone);
        }
        Ok(Intake {
            transfer: begin.transfer,
            stream: begin.stream,
            offset: *at,
            tree: tree.clone(),
            last: Some(*at),
        })
    }

    /// Takes one step of the applying thread.
    pub fn step(&mut self, segments: u8, ghost: &mut Ghost) {
        let Some(Entry::Running(mut thread)) = self.entry.take() else {
            return;
        };
        match thread.doing {
            Doing::Take => return self.take(thread),
            Doing::NotePartial => {
                self.partials.push(Partial {
                    transfer: thread.intake.transfer,
                    stream: thread.intake.stream,
                    checkpoints: Vec::new(),
                });
                thread.doing = Doing::Checkpoint;
            }
            Doing::Checkpoint => {
                let (at, tree) = (thread.intake.offset, thread.intake.tree.clone());
                if let Some(partial) = self.partial_of(&thread.intake) {
                    partial.checkpoints.push((at, tree));
                }
                thread.doing = Doing::DropOlder;
            }
            Doing::DropOlder => {
                let at = thread.intake.offset;
                if let Some(partial) = self.partial_of(&thread.intake) {
                    partial.checkpoints.retain(|(other, _)| *other == at);
                }
                thread.intake.last = Some(at);
                thread.doing = Doing::Take;
            }
            Doing::Commit => {
                let Intake { stream, tree, .. } = &thread.intake;
                if ghost.discarded & bit(stream.push) != 0 {
                    ghost.violation = Some(Violation::CommittedAfterLetGo);
                }
                ghost.committed[usize::from(self.instance)] |= bit(stream.push);
                self.copies.push(Copy {
                    push: stream.push,
                    is_right: tree.is(*stream, segments),
                });
                thread.doing = Doing::Forget;
            }
            Doing::Forget => {
                self.forget(&thread.intake);
                if thread.live {
                    self.report(Down::Committed);
                }
                return;
            }
        }
        self.entry = Some(Entry::Running(thread));
    }

    fn partial_of(&mut self, intake: &Intake) -> Option<&mut Partial> {
        let mut partials = self.partials.iter_mut();
        partials.find(|partial| partial.transfer == intake.transfer)
    }

    fn forget(&mut self, intake: &Intake) {
        if intake.last.is_some() {
            self.partials.retain(|p| p.transfer != intake.transfer);
        }
    }

    fn take(&mut self, mut thread: Thread) {
        let refused = if thread.input.is_empty() {
            // The connection broke: a transfer between two commands is parked.
            if !thread.live && thread.intake.point().is_some() {
                self.entry = Some(Entry::Waiting(thread.intake));
                return;
            }
            if !thread.live {
                return;
            }
            None
        } else {
            match thread.input.remove(0) {
                Up::Segment { ends, marked } => thread.apply(ends, marked).err(),
                Up::End(end) => thread.end(end).err(),
            }
        };
        match refused {
            None => self.entry = Some(Entry::Running(thread)),
            Some(code) => {
                self.forget(&thread.intake);
                if thread.live {
                    self.report(Down::Failure(code));
                }
            }
        }
    }

    /// The receiver dies.
    pub fn crash(&mut self, fault: Fault) {
        self.up = false;
        let entry = self.entry.take();
        self.relic = match entry {
            _ if fault != Fault::ReplayOverStaging => None,
            Some(Entry::Running(thread)) => Some(thread.intake),
            Some(Entry::Waiting(intake)) => Some(intake),
            None => None,
        };
        self.call = None;
        self.late = None;
    }

    /// The receiver starts, and reconciles what a dead daemon left.
    pub fn start(&mut self) {
        self.up = true;
        let copies = &self.copies;
        for partial in &mut self.partials {
            let newest = partial.checkpoints.iter().map(|(at, _)| *at).max();
            partial.checkpoints.retain(|(at, _)| Some(*at) == newest);
        }
        self.partials.retain(|partial| {
            let is_committed = copies.iter().any(|copy| copy.push == partial.stream.push);
            !partial.checkpoints.is_empty() && !is_committed
        });
        let relic = self.relic.take();
        let noted = |intake: &Intake| {
            let mut partials = self.partials.iter();
            let own = partials.find(|partial| partial.transfer == intake.transfer)?;
            Some(own.checkpoints.last()?.0)
        };
        self.entry = relic.and_then(|intake| {
            let offset = noted(&intake)?;
            let last = Some(offset);
            Some(Entry::Waiting(Intake {
                offset,
                last,
                ..intake
            }))
        });
    }

    /// The receiver is reinstalled, empty, and paired again.
    pub fn replace(&mut self, instance: u8) {
        self.crash(Fault::None);
        self.copies.clear();
        self.partials.clear();
        self.instance = instance;
        self.up = true;
    }
}

impl Intake {
    fn point(&self) -> Option<Point> {
        (self.offset > 0).then_some(Point {
            stream: self.stream,
            at: self.offset,
        })
    }

    fn resumes_at(&self, begin: Begin, point: Point) -> bool {
        (self.transfer, self.stream) == (begin.transfer, begin.stream)
            && self.point() == Some(point)
    }
}

impl Thread {
    fn apply(&mut self, ends: Point, marked: bool) -> Result<(), Code> {
        let intake = &mut self.intake;
        if ends.at != intake.offset + 1 {
            return Err(Code::InvalidStream);
        }
        if ends.stream != intake.stream {
            return Err(Code::HashMismatch);
        }
        intake.tree.applied.push(ends);
        intake.offset = ends.at;
        self.doing = match (marked, intake.last) {
            (false, _) => Doing::Take,
            (true, None) => Doing::NotePartial,
            (true, Some(_)) => Doing::Checkpoint,
        };
        Ok(())
    }

    fn end(&mut self, end: Point) -> Result<(), Code> {
        if (end.stream, end.at) != (self.intake.stream, self.intake.offset) {
            return Err(Code::HashMismatch);
        }
        self.doing = Doing::Commit;
        Ok(())
    }
}

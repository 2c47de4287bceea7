//! The possible events in a state, and their effects.

use stateright::{Model, Property};

use crate::bounds::{Bounds, Fault, SLOTS};
use crate::properties;
use crate::real;
use crate::state::{
    Daemon, Doing, Entry, Job, Partial, Phase, Push, Receiver, Up, Wish, World, bit,
};

/// The protocol within bounds, with at most one fault.
#[derive(Debug, Clone)]
pub struct Protocol {
    pub bounds: Bounds,
    pub fault: Fault,
    /// Properties to check in addition to those that must always hold.
    pub more: fn() -> Vec<Property<Protocol>>,
}

/// An event. Receivers are given by their slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A user requests a push.
    Ask(usize),
    /// A user requests a full send.
    AskFull(usize),
    /// The push takes its next step.
    Sender(usize),
    /// The push sends a segment, marked or not.
    Send(usize, bool),
    /// The push notices that it has failed while a thread records that it may be committed.
    FailWhileAnnouncing(usize),
    /// That thread completes its write.
    WriteStray,
    /// The push makes another attempt.
    TryAgain(usize),
    /// The push is given up, and either kept for a later resumption or discarded.
    GiveUp { slot: usize, keep: bool },
    /// The receiver's thread takes its next step.
    Receiver(usize),
    /// An announcement arrives.
    Deliver(usize),
    /// An announcement arrives after its connection has died.
    DeliverLate(usize),
    /// A parked transfer has waited too long for its sender.
    StopWaiting(usize),
    /// The connection breaks; `arrives` messages to the receiver still arrive.
    Break { slot: usize, arrives: usize },
    /// The last message to the receiver is duplicated.
    Duplicate(usize),
    /// The sender dies; `arrives` of its messages to each receiver still arrive.
    CrashSender { arrives: usize },
    /// The sender starts.
    StartSender,
    /// The starting sender reconciles its next record.
    Reconcile,
    /// A receiver dies.
    CrashReceiver(usize),
    /// A receiver starts.
    StartReceiver(usize),
    /// A receiver is reinstalled, empty, and paired again.
    Replace(usize),
    /// A user deletes a copy.
    Delete(usize, Push),
    /// An interrupted push expires.
    LetGoOfOld(Push),
    /// A receiver's partial expires.
    ForgetOld(usize),
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.bounds)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // States after a violation are of no interest.
        if world.ghost.violation.is_some() {
            return;
        }
        match world.sender.daemon {
            Daemon::Dead => actions.push(Action::StartSender),
            Daemon::Starting => actions.push(Action::Reconcile),
            Daemon::Up => {}
        }
        for slot in 0..SLOTS {
            self.of_sender(world, slot, actions);
            self.of_receiver(world, slot, actions);
            self.of_users(world, slot, actions);
            of_network(world, slot, actions);
        }
        if world.left.sender_crashes > 0 && world.sender.daemon != Daemon::Dead {
            let under_way = world.receivers.iter().map(under_way).max().unwrap_or(0);
            actions.extend((0..=under_way).map(|arrives| Action::CrashSender { arrives }));
        }
        if world.sender.stray.is_some() {
            actions.push(Action::WriteStray);
        }
        let idle = world.sender.jobs.iter().all(Option::is_none);
        if world.left.ages > 0 && idle && world.sender.daemon == Daemon::Up {
            let records = world.sender.records.iter();
            let kept = records.filter(|r| r.snapshot && real::is_resumable(r));
            actions.extend(kept.map(|record| Action::LetGoOfOld(record.push)));
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        let fault = self.fault;
        match action {
            Action::Ask(slot) => {
                world.ask(slot, Wish::Best);
            }
            Action::AskFull(slot) => {
                world.left.full_sends -= 1;
                world.ask(slot, Wish::FullSend);
            }
            Action::Sender(slot) => world.step_sender(slot, fault),
            Action::Send(slot, marked) => world.send(slot, marked, fault),
            Action::FailWhileAnnouncing(slot) => world.fail_while_announcing(slot),
            Action::WriteStray => world.write_stray(),
            Action::TryAgain(slot) => world.try_again(slot, fault),
            Action::GiveUp { slot, keep } => world.give_up(slot, keep),
            Action::Receiver(slot) => {
                let segments = world.left.segments;
                world.receivers[slot].step(segments, &mut world.ghost);
            }
            Action::Deliver(slot) => world.receivers[slot].deliver(&mut world.ghost),
            Action::DeliverLate(slot) => world.receivers[slot].deliver_late(&mut world.ghost),
            Action::StopWaiting(slot) => world.receivers[slot].entry = None,
            Action::Break { slot, arrives } => {
                world.left.breaks -= 1;
                world.disconnect(slot);
                world.receivers[slot].hang_up(arrives);
            }
            Action::Duplicate(slot) => {
                world.left.duplicates -= 1;
                world.receivers[slot].duplicate();
            }
            Action::CrashSender { arrives } => {
                world.left.sender_crashes -= 1;
                world.crash_sender(arrives);
            }
            Action::StartSender => world.sender.daemon = Daemon::Starting,
            Action::Reconcile => {
                if !world.settle_leftovers(fault) {
                    world.sender.daemon = Daemon::Up;
                }
            }
            Action::CrashReceiver(slot) => {
                world.left.receiver_crashes[slot] -= 1;
                world.disconnect(slot);
                world.receivers[slot].crash(fault);
            }
            Action::StartReceiver(slot) => {
                world.left.receiver_starts[slot] -= 1;
                world.receivers[slot].start();
            }
            Action::Replace(slot) => {
                world.left.replacements[slot] -= 1;
                world.disconnect(slot);
                world.receivers[slot].replace((SLOTS + slot) as u8);
            }
            Action::Delete(slot, push) => {
                world.left.deletions -= 1;
                world.ghost.deleted |= bit(push);
                world.receivers[slot]
                    .copies
                    .retain(|copy| copy.push != push);
            }
            Action::LetGoOfOld(push) => {
                world.left.ages -= 1;
                world.let_go_of_old(push);
            }
            Action::ForgetOld(slot) => {
                world.left.ages -= 1;
                world.receivers[slot].partials.clear();
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = properties::always();
        properties.extend((self.more)());
        properties
    }
}

impl Protocol {
    /// Makes the model, with properties in addition to those that must always hold.
    pub fn new(bounds: Bounds, fault: Fault, more: fn() -> Vec<Property<Protocol>>) -> Self {
        Self {
            bounds,
            fault,
            more,
        }
    }

    fn of_sender(&self, world: &World, slot: usize, actions: &mut Vec<Action>) {
        let receiver = &world.receivers[slot];
        let Some(job) = &world.sender.jobs[slot] else {
            let asked = world.left.requests[slot] > 0 && receiver.up;
            if asked && world.sender.daemon == Daemon::Up {
                actions.push(Action::Ask(slot));
                actions.extend((world.left.full_sends > 0).then_some(Action::AskFull(slot)));
            }
            return;
        };
        match job.phase {
            Phase::Sending(sent) if job.connected && sent < world.left.segments => {
                actions.extend([true, false].map(|marked| Action::Send(slot, marked)));
            }
            Phase::Announce if !job.connected && world.sender.stray.is_none() => {
                actions.push(Action::FailWhileAnnouncing(slot));
            }
            Phase::Failed(next, kind) => {
                if world.can_try_again(slot, job, next, self.fault) {
                    actions.push(Action::TryAgain(slot));
                }
                let (keep, delete) = world.is_worth_keeping(job, kind);
                let choices = [(keep, true), (delete, false)];
                let choices = choices.into_iter().filter(|(possible, _)| *possible);
                actions.extend(choices.map(|(_, keep)| Action::GiveUp { slot, keep }));
                return;
            }
            _ => {}
        }
        actions.push(Action::Sender(slot));
    }

    fn of_receiver(&self, world: &World, slot: usize, actions: &mut Vec<Action>) {
        let receiver = &world.receivers[slot];
        if !receiver.up {
            if world.left.receiver_starts[slot] > 0 {
                actions.push(Action::StartReceiver(slot));
            }
            return;
        }
        if receiver
            .call
            .as_ref()
            .is_some_and(|call| call.begin.is_some())
        {
            actions.push(Action::Deliver(slot));
        }
        if receiver.late.is_some() {
            actions.push(Action::DeliverLate(slot));
        }
        match &receiver.entry {
            Some(Entry::Running(thread)) => {
                let waits = thread.doing == Doing::Take && thread.input.is_empty() && thread.live;
                actions.extend((!waits).then_some(Action::Receiver(slot)));
            }
            Some(Entry::Waiting(_)) => actions.push(Action::StopWaiting(slot)),
            None => {}
        }
        if world.left.receiver_crashes[slot] > 0 {
            actions.push(Action::CrashReceiver(slot));
        }
    }

    fn of_users(&self, world: &World, slot: usize, actions: &mut Vec<Action>) {
        let receiver = &world.receivers[slot];
        if world.left.replacements[slot] > 0 {
            actions.push(Action::Replace(slot));
        }
        if world.left.deletions > 0 {
            let copies = receiver.copies.iter();
            actions.extend(copies.map(|copy| Action::Delete(slot, copy.push)));
        }
        let at_rest = receiver.entry.is_none() && receiver.up;
        let made: fn(&Partial) -> bool = |partial| !partial.checkpoints.is_empty();
        if world.left.ages > 0 && at_rest && receiver.partials.iter().any(made) {
            actions.push(Action::ForgetOld(slot));
        }
    }
}

fn of_network(world: &World, slot: usize, actions: &mut Vec<Action>) {
    let connected = world.sender.jobs[slot]
        .as_ref()
        .is_some_and(|job| job.connected);
    if connected && world.left.breaks > 0 {
        let arrives = 0..=under_way(&world.receivers[slot]);
        actions.extend(arrives.map(|arrives| Action::Break { slot, arrives }));
    }
    if world.left.duplicates > 0 && under_way(&world.receivers[slot]) > 0 {
        actions.push(Action::Duplicate(slot));
    }
}

/// Counts the messages on their way to a receiver whose sender is connected.
fn under_way(receiver: &Receiver) -> usize {
    let begins = receiver
        .call
        .iter()
        .filter(|call| call.begin.is_some())
        .count();
    let behind = match &receiver.entry {
        Some(Entry::Running(thread)) if thread.live => thread.input.len(),
        Some(Entry::Running(_) | Entry::Waiting(_)) | None => 0,
    };
    begins + behind
}

impl World {
    fn ask(&mut self, slot: usize, wish: Wish) {
        self.left.requests[slot] -= 1;
        self.sender.jobs[slot] = Some(Job::new(self.receivers[slot].instance, wish));
    }

    fn disconnect(&mut self, slot: usize) {
        if let Some(job) = &mut self.sender.jobs[slot] {
            job.connected = false;
        }
    }
}

impl Receiver {
    fn duplicate(&mut self) {
        if let Some(begin) = self.call.as_ref().and_then(|call| call.begin) {
            self.late = Some(begin);
        } else if let Some(Entry::Running(thread)) = &mut self.entry {
            let last: Option<Up> = thread.input.last().copied();
            thread.input.extend(last);
        }
    }
}

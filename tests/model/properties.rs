//! Properties that must always hold, and properties that must be possible.

use stateright::{Model, Property};

use crate::bounds::SLOTS;
use crate::model::Protocol;
use crate::real;
use crate::state::{
    Came, Daemon, Doing, Entry, Job, Origin, Phase, Push, Receiver, Record, Violation, World, bit,
};

/// Properties that must always hold, with the number that ARCHITECTURE.md gives them.
pub fn always() -> Vec<Property<Protocol>> {
    vec![
        Property::always("1: a copy is what was snapshotted", |_, world: &World| {
            let mut copies = world.receivers.iter().flat_map(|r| &r.copies);
            copies.all(|copy| copy.is_right)
        }),
        Property::always(
            "2: a parent was reported in this push",
            |_, world: &World| world.ghost.violation != Some(Violation::ParentNotReported),
        ),
        Property::always(
            "2: a parent is held when its push is accepted",
            |_, world: &World| world.ghost.violation != Some(Violation::ParentNotHeld),
        ),
        Property::always(
            "3: what was deleted is not committed after",
            |_, world: &World| world.ghost.violation != Some(Violation::CommittedAfterLetGo),
        ),
        Property::always(
            "3: what is acknowledged was committed",
            |_, world: &World| {
                acknowledged(world).all(|record| {
                    world.ghost.committed[usize::from(record.instance)] & bit(record.push) != 0
                })
            },
        ),
        Property::always("4: the last common sendshot stays", |_, world: &World| {
            let mut newest = world.ghost.newest.iter().flatten();
            newest.all(|push| has_sendshot(world, *push) || world.ghost.deleted & bit(*push) != 0)
        }),
        Property::always(
            "5: between pushes no snapshot is held for nothing",
            |_, world: &World| {
                let at_rest = world.sender.daemon == Daemon::Up && !is_pushing(world);
                !at_rest || world.sender.records.iter().all(has_reason)
            },
        ),
        Property::always("10: staging is what its offset says", |_, world: &World| {
            world.receivers.iter().all(holds_what_it_says)
        }),
        Property::always(
            "a checkpoint is one from which the sender can resume",
            |_, world: &World| {
                let mut records = world.sender.records.iter();
                records.all(|record| can_go_on_from_checkpoints(world, record))
            },
        ),
        Property::always("who waits for an answer is owed one", |_, world: &World| {
            let jobs = world.sender.jobs.iter().zip(&world.receivers);
            jobs.filter_map(|(job, receiver)| Some((job.as_ref()?, receiver)))
                .all(|(job, receiver)| is_owed_an_answer(job, receiver))
        }),
        Property::always("an honest receiver is not accused", |_, world: &World| {
            world.ghost.violation != Some(Violation::HonestReceiverAccused)
        }),
    ]
}

/// Properties that must be possible with one receiver, some deaths and some broken connections.
pub fn sometimes() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a resumed push completes", |_, world: &World| {
            resumed(world).any(|job| job.resumed_at > 0)
        }),
        Property::sometimes(
            "a push is resumed by the process that began it",
            |_, world: &World| resumed(world).any(|job| job.origin == Origin::Fresh),
        ),
        Property::sometimes(
            "a push is resumed after the sender has died",
            |model: &Protocol, world: &World| {
                died(model, world) == (true, false) && resumed(world).any(is_another)
            },
        ),
        Property::sometimes(
            "a push is resumed after the receiver has died",
            |model: &Protocol, world: &World| {
                died(model, world) == (false, true) && resumed(world).count() > 0
            },
        ),
        Property::sometimes(
            "a push is resumed after both have died",
            |model: &Protocol, world: &World| {
                died(model, world) == (true, true) && resumed(world).any(is_another)
            },
        ),
        Property::sometimes(
            "a lost acknowledgement is found out",
            |model: &Protocol, world: &World| {
                let unheard = done(world).filter(|job| job.reported & job.push.map_or(0, bit) != 0);
                died(model, world) == (false, false) && unheard.count() > 0
            },
        ),
        Property::sometimes(
            "one is after the sender has died",
            |model: &Protocol, world: &World| {
                let unheard = done(world).filter(|job| job.reported & job.push.map_or(0, bit) != 0);
                died(model, world).0 && unheard.count() > 0
            },
        ),
        Property::sometimes("a push builds on the one before", |_, world: &World| {
            done(world).any(|job| job.prepared.flatten().is_some())
        }),
        Property::sometimes("older states are pruned", |_, world: &World| {
            world.ghost.newest[0].is_some_and(|newest| newest > 0)
                && !is_pushing(world)
                && world.sender.records.len() == 1
        }),
    ]
}

/// Property that must be possible when a receiver is replaced: each instance has its own last common state.
pub fn replaced() -> Vec<Property<Protocol>> {
    vec![Property::sometimes(
        "the old instance's last common state outlives pushes to the new one",
        |_, world: &World| {
            let newest = world.ghost.newest;
            matches!((newest[0], newest[SLOTS]), (Some(old), Some(new)) if old < new)
                && !is_pushing(world)
                && world.sender.records.len() == 2
        },
    )]
}

/// Property that must be possible with two receivers.
pub fn both() -> Vec<Property<Protocol>> {
    vec![Property::sometimes(
        "both receivers have the volume",
        |_, world: &World| {
            !is_pushing(world) && world.ghost.newest[..2].iter().all(Option::is_some)
        },
    )]
}

/// Properties for the case that the first receiver goes away for good.
pub fn second_completes() -> Vec<Property<Protocol>> {
    vec![
        Property::always(
            "5: nothing ends before the push to the second has completed",
            |model: &Protocol, world: &World| {
                let is_complete = world.ghost.newest[1].is_some();
                is_complete || !model.next_states(world).is_empty()
            },
        ),
        Property::sometimes(
            "it completes while the first push is in its middle",
            |_, world: &World| {
                let first = world.sender.jobs[0].as_ref();
                let is_away = !world.receivers[0].up;
                let is_begun = first.is_some_and(|job| job.begun);
                is_away && is_begun && world.ghost.newest[1].is_some()
            },
        ),
    ]
}

/// Whether the sendshot exists, and its record says that the receiver may have its state. (A late write
/// by a thread can set a record to `unconfirmed` again, until the next report of the receiver.)
fn has_sendshot(world: &World, push: Push) -> bool {
    let record = world.sender.record(push);
    record.is_some_and(|record| record.sendshot && record.came != Came::Sending)
}

fn acknowledged(world: &World) -> impl Iterator<Item = &Record> {
    let records = world.sender.records.iter();
    records.filter(|record| record.came == Came::Acknowledged)
}

fn is_pushing(world: &World) -> bool {
    world.sender.jobs.iter().any(Option::is_some)
}

fn has_reason(record: &Record) -> bool {
    !record.snapshot || record.came == Came::Unconfirmed || real::is_resumable(record)
}

fn holds_what_it_says(receiver: &Receiver) -> bool {
    let intake = receiver.entry.as_ref().map(|entry| match entry {
        Entry::Running(thread) => &thread.intake,
        Entry::Waiting(intake) => intake,
    });
    let in_staging = intake.map(|intake| (intake.offset, &intake.tree));
    let checkpoints = receiver.partials.iter().flat_map(|p| &p.checkpoints);
    let mut all = checkpoints.map(|(at, tree)| (*at, tree)).chain(in_staging);
    all.all(|(at, tree)| tree.applied.len() == usize::from(at))
}

/// Whether the sender durably knows every checkpoint of a transfer that both sides know.
fn can_go_on_from_checkpoints(world: &World, record: &Record) -> bool {
    let mut receivers = world.receivers.iter();
    let receiver = receivers.find(|receiver| receiver.instance == record.instance);
    let (Some(receiver), Some(transfer), true) = (receiver, record.transfer, record.snapshot)
    else {
        return true;
    };
    let mut own = receiver
        .partials
        .iter()
        .filter(|p| p.transfer == transfer.id);
    own.all(|partial| {
        let mut checkpoints = partial.checkpoints.iter();
        let marks = record.marks;
        checkpoints
            .all(|(at, _)| marks.stream == Some(partial.stream) && marks.places & (1 << at) != 0)
    })
}

/// Whether a waiting push has an answer on its way, and so cannot wait for ever.
fn is_owed_an_answer(job: &Job, receiver: &Receiver) -> bool {
    if !job.connected || !matches!(job.phase, Phase::Opening(_) | Phase::Waiting) {
        return true;
    }
    let call = receiver.call.as_ref();
    let on_the_wire = call.is_some_and(|call| call.begin.is_some() || !call.down.is_empty());
    let at_work = match &receiver.entry {
        Some(Entry::Running(thread)) => {
            thread.live && (thread.doing != Doing::Take || !thread.input.is_empty())
        }
        Some(Entry::Waiting(_)) | None => false,
    };
    on_the_wire || at_work
}

/// Pushes to the first receiver whose copy was just acknowledged.
fn done(world: &World) -> impl Iterator<Item = &Job> {
    let job = world.sender.jobs[0].as_ref();
    job.into_iter()
        .filter(|job| matches!(job.phase, Phase::Release(_)))
}

fn resumed(world: &World) -> impl Iterator<Item = &Job> {
    done(world).filter(|job| job.resumed_at > 0)
}

fn is_another(job: &Job) -> bool {
    job.origin == Origin::Interrupted
}

/// Whether the sender, and the first receiver, have died so far.
fn died(model: &Protocol, world: &World) -> (bool, bool) {
    let (most, left) = (&model.bounds, &world.left);
    (
        left.sender_crashes < most.sender_crashes,
        left.receiver_crashes[0] < most.receiver_crashes[0],
    )
}

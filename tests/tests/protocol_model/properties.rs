//! What must always hold, and what must be possible.

use stateright::Property;

use crate::model::Protocol;
use crate::real;
use crate::state::{
    Came, Daemon, Entry, Job, Origin, Phase, Receiver, Record, Violation, World, bit,
};

/// What must always hold, by the numbers of ARCHITECTURE.md where it has one.
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
            "3: what was let go is not committed after",
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
            let newest = world.ghost.newest.iter().flatten();
            let kept = |push| acknowledged(world).any(|r| r.push == push && r.sendshot);
            newest.copied().all(kept)
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
            "a checkpoint is one the sender can go on from",
            |_, world: &World| {
                let mut records = world.sender.records.iter();
                records.all(|record| can_go_on_from_checkpoints(world, record))
            },
        ),
        Property::always("an honest receiver is not accused", |_, world: &World| {
            world.ghost.violation != Some(Violation::HonestReceiverAccused)
        }),
    ]
}

/// What must be possible with one receiver, some deaths and some breaks.
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

/// What must come about when the first receiver is away for ever.
pub fn second_completes() -> Vec<Property<Protocol>> {
    let mut properties = always();
    properties.push(Property::eventually(
        "5: the push to the other completes",
        |_, world: &World| world.ghost.newest[1].is_some(),
    ));
    properties.push(Property::sometimes(
        "the first push is in its middle then",
        |_, world: &World| {
            let first = world.sender.jobs[0].as_ref();
            world.ghost.newest[1].is_some() && first.is_some_and(|job| job.begun)
        },
    ));
    properties
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

/// Of a transfer that both sides know, the sender knows every checkpoint durably.
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

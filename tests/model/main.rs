//! The protocol as a model that is explored exhaustively: every order of the steps of both daemons,
//! with broken connections, messages that are lost, late or duplicated, and deaths of either side
//! between any two steps.
//!
//! | module | what |
//! |---|---|
//! | `bounds` | limits for the number of events, and the faults that can be built in |
//! | `state` | both sides and the messages between them, in small numbers |
//! | `sender`, `sending`, `reconciling`, `failing` | the sender's steps, as the numbered ones in the daemon's modules |
//! | `receiver` | the receiver's steps |
//! | `real` | the daemons' own decisions, which the steps call: reconciling, resuming, the plan, retention, retries |
//! | `model` | the possible events in a state |
//! | `properties` | what must always hold, and what must be possible |
//!
//! A step is as small as a crash can distinguish it from the next: one durable write, one deletion, one
//! message. A step that is atomic and durable in the model is so in the daemon, too (a rename, a
//! snapshot). A stream is one to three segments, and its chain value encodes the snapshot, the parent and
//! the segment; staging is the list of the segments applied over a parent, so segments that are left
//! out, applied twice, or of another stream make a copy that is visibly wrong.
//!
//! Each test states its bounds; within them the exploration is complete. Most have two segments, two
//! snapshots of the volume, two or three pushes, one death of the sender, one of the receiver, one broken
//! connection with any number of the messages in flight lost and the others late, and one more attempt
//! after that; each adds more of one kind. `-- --nocapture` prints the number of states.
//!
//! Not in the model: clocks (an event that depends on time can happen at any time), the kernel engine,
//! segments of other lengths after a resumption, a cancelled push (it equals a broken connection), and a
//! receiver that is paired under the name of another in the middle of a push, which the sender refuses to
//! continue with ([`Fault::ReconnectToAnother`] shows the outcome without that refusal).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure in a test ends it, and its location says enough"
)]

mod bounds;
mod failing;
mod model;
mod properties;
mod real;
mod receiver;
mod reconciling;
mod sender;
mod sending;
mod state;

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path, Property};

use bounds::{Bounds, Fault};
use model::{Action, Protocol};
use state::World;

/// Two pushes to one receiver, one death of each side, and one broken connection.
const ONE_RECEIVER: Bounds = Bounds {
    snapshots: [2, 0],
    requests: [2, 0],
    sender_crashes: 1,
    receiver_crashes: [1, 0],
    breaks: 1,
    ..Bounds::CALM
};

/// Explores all states within bounds; fails with the path to a violated property, or with the name of
/// a property that never occurred. `least` is the least number of states: with fewer, a part of the
/// model is no longer explored.
fn explore(bounds: Bounds, more: fn() -> Vec<Property<Protocol>>, least: usize) {
    let started = Instant::now();
    let model = Protocol::new(bounds, Fault::None, more);
    let checker = model.checker().spawn_dfs().join();
    let states = checker.unique_state_count();
    println!(
        "{states} states, {} steps, the longest run {}, {:.1} s",
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    let mut found = checker.discoveries();
    for property in checker.model().properties() {
        let path = found.remove(property.name);
        match (property.expectation.discovery_is_failure(), path) {
            (true, Some(path)) => panic!("{}\n{}", property.name, story(path)),
            (false, None) => panic!("this never comes about: {}", property.name),
            (true, None) | (false, Some(_)) => {}
        }
    }
    assert!(states >= least, "only {states} states");
}

/// Describes the events of a path and its last state.
fn story(path: Path<World, Action>) -> String {
    let last = format!("{:#?}", path.last_state());
    let actions = path.into_actions();
    let lines = actions.iter().map(|action| format!("{action:?}\n"));
    lines.chain([last]).collect()
}

/// Whether a model with a fault violates `property`; prints the length of the path.
fn finds(bounds: Bounds, fault: Fault, property: &'static str) -> bool {
    let model = Protocol::new(bounds, fault, Vec::new);
    let until = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().finish_when(until).spawn_bfs().join();
    let found = checker.discovery(property);
    let steps = found.map(|path| path.into_actions().len());
    println!(
        "{fault:?}: {property}: {steps:?} steps, {} states",
        checker.unique_state_count()
    );
    steps.is_some()
}

#[test]
fn breaks_and_deaths_leave_copies_exact() {
    let bounds = Bounds {
        requests: [3, 0],
        ..ONE_RECEIVER
    };
    explore(bounds, properties::sometimes, 900_000);
}

#[test]
fn a_full_send_replaces_an_interrupted_push() {
    let bounds = Bounds {
        full_sends: 1,
        ..ONE_RECEIVER
    };
    explore(bounds, Vec::new, 1_200_000);
}

#[test]
fn dying_again_and_again_changes_nothing() {
    let bounds = Bounds {
        segments: 3,
        snapshots: [1, 0],
        requests: [3, 0],
        sender_crashes: 2,
        receiver_crashes: [2, 0],
        receiver_starts: [2, 1],
        breaks: 0,
        attempts: 2,
        ..ONE_RECEIVER
    };
    explore(bounds, Vec::new, 900_000);
}

#[test]
fn connections_that_break_again_and_again_change_nothing() {
    let bounds = Bounds {
        snapshots: [1, 0],
        receiver_crashes: [0, 0],
        breaks: 2,
        attempts: 2,
        ..ONE_RECEIVER
    };
    explore(bounds, Vec::new, 400_000);
}

#[test]
fn messages_that_come_twice_change_nothing() {
    let bounds = Bounds {
        receiver_crashes: [0, 0],
        duplicates: 2,
        ..ONE_RECEIVER
    };
    explore(bounds, Vec::new, 1_400_000);
}

#[test]
fn copies_that_a_user_deletes_are_no_parents() {
    let bounds = Bounds {
        receiver_crashes: [0, 0],
        deletions: 1,
        ..ONE_RECEIVER
    };
    explore(bounds, Vec::new, 150_000);
}

#[test]
fn pushes_too_old_to_resume_are_deleted() {
    let bounds = Bounds {
        ages: 2,
        ..ONE_RECEIVER
    };
    explore(bounds, Vec::new, 1_200_000);
}

#[test]
fn a_receiver_set_up_again_is_another_one() {
    let bounds = Bounds {
        replacements: [1, 0],
        requests: [3, 0],
        receiver_crashes: [0, 0],
        ..ONE_RECEIVER
    };
    explore(bounds, properties::replaced, 1_000_000);
}

#[test]
fn two_receivers_do_not_disturb_each_other() {
    let bounds = Bounds {
        segments: 1,
        snapshots: [1, 1],
        requests: [1, 1],
        ..ONE_RECEIVER
    };
    explore(bounds, properties::both, 3_000_000);
}

#[test]
fn an_absent_receiver_delays_no_other() {
    let bounds = Bounds {
        snapshots: [1, 1],
        requests: [1, 1],
        receiver_crashes: [1, 0],
        receiver_starts: [0, 0],
        ..Bounds::CALM
    };
    explore(bounds, properties::second_completes, 80_000);
}

#[test]
fn every_wrong_order_is_found() {
    let replaced = Bounds {
        replacements: [1, 0],
        ..ONE_RECEIVER
    };
    for (fault, bounds, property) in [
        (
            Fault::RecordBeforeAcknowledge,
            ONE_RECEIVER,
            "3: what is acknowledged was committed",
        ),
        (
            Fault::EndBeforeUnconfirmed,
            ONE_RECEIVER,
            "an honest receiver is not accused",
        ),
        (
            Fault::DropUnconfirmed,
            ONE_RECEIVER,
            "3: what was deleted is not committed after",
        ),
        (
            Fault::IgnoreWork,
            ONE_RECEIVER,
            "3: what was deleted is not committed after",
        ),
        (
            Fault::MarkAfterSegment,
            ONE_RECEIVER,
            "a checkpoint is one from which the sender can resume",
        ),
        (
            Fault::ReplayOverStaging,
            ONE_RECEIVER,
            "10: staging is what its offset says",
        ),
        (
            Fault::ReplayOverStaging,
            ONE_RECEIVER,
            "1: a copy is what was snapshotted",
        ),
        (
            Fault::PlanWithoutAsking,
            replaced,
            "2: a parent was reported in this push",
        ),
        (
            Fault::PruneAcrossInstances,
            replaced,
            "4: the last common sendshot stays",
        ),
        (
            Fault::ReconnectToAnother,
            replaced,
            "3: what is acknowledged was committed",
        ),
    ] {
        assert!(finds(bounds, fault, property), "{fault:?} is not found");
    }
}

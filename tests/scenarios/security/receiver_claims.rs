//! A hostile receiver that exploits being believed a little at a time: states that wait for its report,
//! progress by the byte, long inventories, and several names for one receiver.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::time::{Duration, Instant};

use sendshot_adversary::lying_peer::answers::{accepts, applied, copy, failure, takes_all};
use sendshot_adversary::lying_peer::scripted::{Call, Script, Step, Until, changed, framed};
use sendshot_adversary::lying_peer::victim::Victim;
use sendshot_harness::compare::subvolumes;
use sendshot_proto::v1::{HeldCopy, InventoryResponse};
use uuid::Uuid;

fn unconfirmed(victim: &Victim) -> usize {
    let records = victim.records().into_iter();
    records.filter(|r| r.state == "unconfirmed").count()
}

#[test]
fn an_endless_commit_keeps_one_unconfirmed_state() {
    let mut victim = Victim::new();
    let at_work = |steps: Vec<Step>| {
        let at_work = changed(|answer: &mut InventoryResponse, _| answer.commit_pending = true);
        accepts(steps).and(Call::Inventory, vec![at_work])
    };
    for options in [["--engine", "kernel"], ["--parent", "none"]] {
        let before = victim.acknowledged();
        for round in 0..3 {
            victim.change();
            let script = at_work(vec![Step::Hear(Until::End), Step::Cut]);
            victim.hostile.says(script);
            victim.link.aim(victim.hostile.address());
            let push = [&["push"][..], &options, &["nas2:photos"]].concat();
            let output = victim.sender.ctl(&push);
            let says = if round == 0 {
                "broke"
            } else {
                "has not finished the commit"
            };
            output.fails(3, &[says]);
            victim.sender.wait_until_released();
            assert_eq!(unconfirmed(&victim), 1, "{options:?}, push {round}");
            let hidden = subvolumes::list(victim.sender.fs()).into_iter();
            let hidden = hidden.filter(|s| s.path.starts_with(".sendshot/snapshots/"));
            assert!(hidden.count() <= 1, "{options:?}, push {round}");
            victim.look("at work for ever", &before, false);
        }
        victim.push_honestly();
    }
    victim.end();
}

/// It refuses the increment, its whole capture, and the full send: so no parent is at fault.
#[test]
fn a_receiver_refusing_every_stream_costs_no_parent() {
    /// FAILURE_CODE_INVALID_STREAM
    const INVALID_STREAM: i32 = 6;
    let mut victim = Victim::new();
    victim.change();
    let refuses = vec![
        Step::Hear(Until::Begin),
        Step::Say(failure(INVALID_STREAM, 7)),
    ];
    victim.hostile.says(Script::to(Call::Transfer, refuses));
    victim.link.aim(victim.hostile.address());
    let output = victim.sender.ctl(&["push", "nas2:photos"]);
    output.fails(1, &["the receiver reports"]);
    victim.sender.wait_until_released();
    let log = victim.sender.daemon.log();
    let refused = log.matches("a stream could not be applied").count();
    assert_eq!(refused, 2, "{log}");
    let parent = victim.last["uuid"].clone();
    victim.push_honestly();
    assert_eq!(victim.last["parent"], parent, "{}", victim.last);
    victim.end();
}

#[test]
fn a_byte_at_a_time_is_no_progress() {
    let mut victim = Victim::new();
    let before = victim.acknowledged();
    let says = |n| {
        [
            Step::Wait(Duration::from_millis(500)),
            Step::Say(applied(n)),
        ]
    };
    let steps = [Step::Hear(Until::End)].into_iter();
    let steps = steps.chain((1..=80).flat_map(says)).chain([Step::Hold]);
    victim.change();
    victim.hostile.says(accepts(steps.collect()));
    victim.link.aim(victim.hostile.address());
    let started = Instant::now();
    let output = victim.sender.ctl(&["push", "nas2:photos"]);
    let took = started.elapsed();
    output.fails(3, &["made no progress"]);
    assert!(took < Duration::from_secs(20), "it went on for {took:?}");
    victim.look("a byte at a time", &before, false);

    // Nor does a byte of progress allow one attempt after the other.
    let script = |n| {
        let pause = Step::Wait(Duration::from_millis(50));
        let steps = [
            Step::Hear(Until::Segment),
            Step::Say(applied(n)),
            pause,
            Step::Cut,
        ];
        accepts(steps.into())
    };
    victim.push_honestly();
    let before = victim.acknowledged();
    victim.change();
    victim.hostile.says(script(1));
    victim.link.aim(victim.hostile.address());
    let started = Instant::now();
    let mut push = victim
        .sender
        .ctl_start(&["push", "--retry-for", "2s", "nas2:photos"]);
    for n in 2.. {
        if !push.runs() {
            break;
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "tried for {took:?}");
        std::thread::sleep(Duration::from_millis(250));
        victim.hostile.says(script(n));
    }
    push.finish().fails(3, &["broke"]);
    victim.look("an attempt for a byte", &before, false);
    victim.push_honestly();
    victim.end();
}

/// Sends copies with the longest texts that fit into a message.
fn wordy(part: u128) -> Step {
    let wordy = |n: u128| HeldCopy {
        uuid: Uuid::from_u128(1 + part * 1000 + n).as_bytes().to_vec(),
        name: "n".repeat(2000),
        unusable: "u".repeat(2000),
        ..copy(&[3; 16])
    };
    Step::Say(framed(&InventoryResponse {
        copies: (0..1000).map(wordy).collect(),
        ..InventoryResponse::default()
    }))
}

#[test]
fn an_inventory_is_bounded_in_memory() {
    let mut victim = Victim::new();
    let before = victim.acknowledged();
    for (parts, ends) in [(60, 0), (250, 1)] {
        let script = Script::to(Call::Inventory, (0..parts).map(wordy).collect());
        victim.change();
        victim.hostile.says(script.and(Call::Transfer, takes_all()));
        victim.link.aim(victim.hostile.address());
        let output = victim.sender.ctl(&["push", "nas2:photos"]);
        println!("{parts} parts: {} {:.300}", output.code, output.stderr);
        assert_eq!(output.code, ends, "{parts} parts");
    }
    victim.look("a long inventory", &before, true);
    victim.push_honestly();
    // This checks the daemon's peak memory.
    victim.end();
}

#[test]
fn two_names_of_one_receiver_are_one_receiver() {
    let mut victim = Victim::new();
    let entry = fs::read_to_string(victim.sender.receiver_file("nas2")).unwrap();
    fs::write(victim.sender.receiver_file("lan"), entry).unwrap();
    let before = victim.acknowledged();
    victim.change();
    let begun = vec![
        Step::Hear(Until::Segment),
        Step::Wait(Duration::from_secs(2)),
        Step::Cut,
    ];
    victim.hostile.says(accepts(begun));
    victim.link.aim(victim.hostile.address());
    let push = victim.sender.ctl_start(&["push", "nas2:photos"]);
    sendshot_harness::hosts::until::holds("it is under way", || victim.hostile.heard().bytes > 0);
    let second = victim.sender.ctl(&["push", "lan:photos"]);
    second.fails(4, &["a push of `photos` to `nas2` is running"]);
    push.finish().fails(3, &["broke"]);
    victim.look("two names", &before, false);
    // A push interrupted under one name is resumed under the other.
    victim.link.aim(victim.receiver.address());
    victim.last = victim.sender.push("lan:photos");
    victim.push_honestly();
    victim.end();
}

#[test]
fn a_receiver_that_says_to_be_another_one_is_not_pushed_to() {
    let victim = Victim::new();
    let id = |file: &str| {
        let mut lines = file.lines();
        lines
            .find(|l| l.starts_with("receiver_id"))
            .unwrap()
            .to_owned()
    };
    let nas2 = fs::read_to_string(victim.sender.receiver_file("nas2")).unwrap();
    let file = victim.sender.receiver_file("nas3");
    let nas3 = fs::read_to_string(&file).unwrap();
    fs::write(&file, nas3.replace(&id(&nas3), &id(&nas2))).unwrap();
    for to in ["nas2:photos", "nas3:photos"] {
        let output = victim.sender.ctl(&["push", to]);
        output.fails(2, &["nas2.toml", "nas3.toml", "the same receiver"]);
    }
    fs::write(&file, nas3).unwrap();
    victim.sender.push("nas2:photos");
    victim.end();
}

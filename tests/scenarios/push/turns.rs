//! A receiver applies a few pushes at the same time; the others wait for their turn.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sendshot_adversary::hostile::World;
use sendshot_adversary::hostile::pushes::VOLUME_ID;
use sendshot_adversary::hostile::sender::{self, HostileSender};
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{self, Running};
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_proto::v1::transfer_up::Message as Up;
use serde_json::Value;
use uuid::Uuid;

const MIB: usize = 1 << 20;

/// The program of `make senders`, with fewer senders and bytes. Its rates are not judged here.
#[test]
fn more_senders_than_turns_are_all_served() {
    let mut program = Command::new(binaries::path("senders"));
    let small = [("SENDERS", "24"), ("MIB", "8"), ("LEAST_SHARE", "0")];
    let output = command::run(program.envs(small)).success();
    let said = &output.stdout;
    assert!(said.contains("24 of 24 pushes"), "{said}");
    assert!(!said.contains(" 0 waited"), "{said}");
}

fn sender_of(receiver: &ReceiverHost, name: &str, bytes: usize) -> SenderHost {
    let sender = SenderHost::setup().volume("photos", "photos").start();
    let token = receiver.invite(&[name]);
    let address = receiver.address().to_string();
    let pair = ["pair", &address, "--name", "nas2", "--token", &token];
    sender.ctl(&pair).success();
    fill::file(sender.photos().join("big"), 1, bytes);
    sender
}

fn status(sender: &SenderHost) -> Value {
    let status = sender.ctl(&["--json", "status"]).success().json();
    status["running"][0].clone()
}

fn waits(sender: &SenderHost) -> bool {
    status(sender)["stage"] == "wait"
}

/// Senders with pushes that last some seconds, one more than there are turns.
fn busy(receiver: &ReceiverHost) -> Vec<(SenderHost, Running)> {
    let senders: Vec<SenderHost> = (0..17)
        .map(|number| sender_of(receiver, &format!("busy{number}"), 128 * MIB))
        .collect();
    let start = |sender: SenderHost| {
        let push = sender.ctl_start(&["push", "--json", "nas2:photos"]);
        (sender, push)
    };
    let busy: Vec<_> = senders.into_iter().map(start).collect();
    until::holds("a push waits", || {
        busy.iter().any(|(sender, _)| waits(sender))
    });
    busy
}

#[test]
fn a_sender_that_is_revoked_while_its_push_waits_leaves_nothing() {
    let keys = "checkpoint_bytes = \"1 MiB\"\ncheckpoint_interval = \"0s\"";
    let mut receiver = ReceiverHost::setup().size(6 << 30).keys(keys).start();
    let last = sender_of(&receiver, "last", 128 * MIB);
    let partials = |receiver: &ReceiverHost| {
        let list = receiver
            .ctl(&["copy", "list", "--partials", "--json"])
            .success();
        let all = list.jsons().into_iter();
        all.filter(|partial| partial["sender"] == "last").count()
    };
    let push = last.ctl_start(&["push", "nas2:photos"]);
    until::holds("a part was applied", || {
        status(&last)["applied_bytes"].as_u64() > Some(16 << 20)
    });
    push.signal(Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    until::holds("a part is kept", || partials(&receiver) == 1);
    // So that only the disk has it.
    receiver.daemon.stop();
    receiver.daemon.start();
    let busy = busy(&receiver);
    let push = last.ctl_start(&["push", "nas2:photos"]);
    until::holds("the push waits", || waits(&last));
    receiver.ctl(&["peer", "revoke", "last"]).success();
    push.finish()
        .fails(3, &["the other side closed the connection"]);
    last.ctl(&["push", "nas2:photos"]).fails(4, &[]);
    until::holds("the part is gone", || partials(&receiver) == 0);
    for (sender, push) in busy {
        let pushed = push.finish().success().json();
        assert_exact(&sender, &receiver, &pushed);
    }
}

#[test]
fn a_push_that_waits_says_so_and_can_be_cancelled() {
    let receiver = ReceiverHost::with_size(6 << 30);
    let last = sender_of(&receiver, "last", MIB);
    let busy = busy(&receiver);
    let mut command = last.ctl_command(&["push", "nas2:photos"]);
    let mut push = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(push.stderr.take().unwrap()).lines();
    let waits = lines.find(|line| line.as_ref().unwrap().contains(": wait"));
    let waits = waits.unwrap().unwrap();
    assert!(waits.contains("busy with the pushes of others"), "{waits}");
    let cancelled = Instant::now();
    kill_process(Pid::from_child(&push), Signal::INT).unwrap();
    assert!(!push.wait().unwrap().success());
    assert!(cancelled.elapsed() < Duration::from_secs(3));
    for (sender, push) in busy {
        let pushed = push.finish().success().json();
        assert_exact(&sender, &receiver, &pushed);
    }
    let pushed = last.push("nas2:photos");
    assert_exact(&last, &receiver, &pushed);
}

#[test]
fn pushes_that_send_nothing_keep_nobody_waiting() {
    let hosts = Paired::new();
    fill::file(hosts.sender.photos().join("big"), 1, 8 * MIB);
    let thief = sender_of(&hosts.receiver, "thief", MIB);
    let hostile = HostileSender::connect(&thief, &hosts.receiver, "nas2");
    let world = World::empty(Uuid::from_u128(7), 5);
    let pushes = (1..=8_u8).map(|number| {
        let mut begin = sender::begin(&world, VOLUME_ID, &format!("v{number}"));
        begin.volume_id = vec![number; 16];
        begin.transfer_id = vec![number; 16];
        vec![sender::up(Up::Begin(begin))]
    });
    hostile.hang_up(pushes.collect(), Duration::from_secs(2), || {
        let began = Instant::now();
        let pushed = hosts.sender.push("nas2:photos");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    });
}

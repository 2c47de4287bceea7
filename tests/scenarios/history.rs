//! Both daemons record what happened, and `history` shows it.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{self, Output};
use sendshot_harness::hosts::daemon::Daemon;
use sendshot_harness::hosts::pairing::{Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::unprivileged::as_unprivileged;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

/// Makes a receiver that accepts one volume, and a sender with two.
fn hosts() -> Paired {
    let setup = SenderHost::setup().volume("photos", "photos");
    let sender = setup.volume("music", "music").start();
    let receiver = ReceiverHost::setup().keys("[senders.nas1]\nmax_volumes = 1");
    let receiver = receiver.start();
    pair(&sender, &receiver, "nas2");
    Paired { sender, receiver }
}

#[track_caller]
fn ctl(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = Command::new(binaries::path("sendshotctl"));
    command.arg("--socket").arg(daemon.socket()).arg("history");
    command::run(command.args(arguments))
}

#[track_caller]
fn events(daemon: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let json = [&["--json"], arguments].concat();
    ctl(daemon, &json).success().jsons()
}

/// The events in words: name, host and volume.
#[track_caller]
fn outline(daemon: &Daemon, arguments: &[&str]) -> Vec<String> {
    let events = events(daemon, arguments);
    let times: Vec<_> = events.iter().map(|event| event["at"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let words = |event: &Value| {
        let fields = ["event", "sender", "receiver", "volume"];
        let fields = fields.iter().filter_map(|field| event[field].as_str());
        fields.collect::<Vec<_>>().join(" ")
    };
    events.iter().map(words).collect()
}

/// The files of a daemon's history, the oldest first.
fn files(daemon: &Daemon) -> String {
    let dir = daemon.state_dir();
    let names = ["history.jsonl.1", "history.jsonl"];
    let texts = names.map(|name| fs::read_to_string(dir.join(name)).unwrap_or_default());
    texts.concat()
}

const ON_THE_SENDER: [&str; 4] = [
    "pushed nas2 photos",
    "failed nas2 music",
    "restored nas2 photos",
    "pruned nas2 photos",
];

const ON_THE_RECEIVER: [&str; 8] = [
    "paired nas1",
    "received nas1 photos",
    "failed nas1 music",
    "granted nas1 photos",
    "fetched nas1 photos",
    "withdrawn nas1",
    "granted nas1",
    "grant_ended nas1",
];

#[test]
fn both_sides_show_what_happened_in_order() {
    let mut hosts = hosts();
    let Paired { sender, receiver } = &hosts;
    fill::tree(&sender.photos(), 1);
    let pushed = sender.push("nas2:photos");
    sender
        .ctl(&["push", "nas2:music"])
        .fails(4, &["max_volumes"]);
    let grant = ["peer", "grant", "nas1", "--volume", "photos", "--for", "1h"];
    receiver.ctl(&grant).success();
    sender.restore(&["nas2:photos", "--in-place"]).success();
    receiver
        .ctl(&["peer", "revoke", "nas1", "--restore"])
        .success();
    receiver
        .ctl(&["peer", "grant", "nas1", "--for", "1s"])
        .success();
    let uuid = pushed["uuid"].as_str().unwrap();
    let forget = ["forget", "--yes", "--break-chain", "nas2:photos", "--all"];
    sender.ctl(&forget).success();

    let on_sender = events(&sender.daemon, &[]);
    assert_eq!(on_sender[0]["uuid"], uuid);
    assert_eq!(on_sender[0]["stream_bytes"], pushed["stream_bytes"]);
    let copy = pushed["copy"].as_str().unwrap().rsplit('/').next().unwrap();
    assert_eq!(on_sender[0]["copy"], copy);
    assert!(on_sender[0].get("parent").is_none(), "{on_sender:?}");
    let error = on_sender[1]["error"].as_str().unwrap();
    assert!(error.contains("limit"), "{error}");
    assert_eq!(on_sender[2]["copy"], copy);
    assert_eq!(on_sender[2]["in_place"], true);
    let on_receiver = events(&receiver.daemon, &[]);
    assert_eq!(on_receiver[1]["uuid"], uuid);
    assert_eq!(on_receiver[1]["copy"], copy);
    assert_eq!(on_receiver[4]["by"], "own key");
    let read = on_receiver[4]["bytes"].as_u64().unwrap();
    assert!(read > 0, "{on_receiver:?}");

    // The grant of a second has ended when the daemon starts again.
    thread::sleep(Duration::from_millis(1100));
    for daemon in [&mut hosts.sender.daemon, &mut hosts.receiver.daemon] {
        daemon.stop();
        daemon.start();
    }
    let Paired { sender, receiver } = &hosts;
    let last = receiver.daemon.state_dir().join("history.jsonl");
    until::holds("the end of the grant is recorded", || {
        fs::read_to_string(&last).unwrap().contains("grant_ended")
    });
    let mut shown = outline(&sender.daemon, &[]);
    shown.dedup();
    assert_eq!(shown, ON_THE_SENDER);
    assert_eq!(outline(&receiver.daemon, &[]), ON_THE_RECEIVER);
    let stored = ctl(&sender.daemon, &["--json"]).success().stdout;
    assert_eq!(stored, files(&sender.daemon));
}

#[test]
fn a_host_a_volume_and_a_time_select() {
    let hosts = hosts();
    let Paired { sender, receiver } = &hosts;
    sender.push("nas2:photos");
    sender
        .ctl(&["push", "nas2:music"])
        .fails(4, &["max_volumes"]);
    let photos = outline(&sender.daemon, &["nas2:photos", "--sender"]);
    assert_eq!(photos, ["pushed nas2 photos"]);
    let music = outline(&receiver.daemon, &["nas1:music", "--receiver"]);
    assert_eq!(music, ["paired nas1", "failed nas1 music"]);
    assert_eq!(outline(&receiver.daemon, &["nas1"]).len(), 3);
    assert_eq!(outline(&receiver.daemon, &["nas3"]), [""; 0]);
    assert_eq!(outline(&sender.daemon, &["--since", "1h"]).len(), 2);
    let future = outline(&sender.daemon, &["--since", "2200-01-01"]);
    assert_eq!(future, [""; 0]);
    ctl(&sender.daemon, &["--since", "then"]).fails(2, &["then", "12h"]);
    ctl(&sender.daemon, &["nas2:a/b"]).fails(2, &["a/b"]);
    let wrong = ctl(&sender.daemon, &["--receiver"]);
    wrong.fails(1, &["receiver"]);

    // A user who may ask for the status may ask for the history.
    let text = as_unprivileged(&sender.daemon, &["history"])
        .success()
        .stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].trim_start().starts_with("TIME"), "{text}");
    assert!(lines[1].contains("pushed"), "{text}");
    assert!(lines[1].contains("nas2:photos"), "{text}");
    assert!(
        lines[2].contains("max_volumes") || lines[2].contains("limit"),
        "{text}"
    );
}

#[test]
fn a_history_that_cannot_be_written_fails_no_push() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    for daemon in [&sender.daemon, &receiver.daemon] {
        let file = daemon.state_dir().join("history.jsonl");
        if file.exists() {
            fs::remove_file(&file).unwrap();
        }
        fs::create_dir(&file).unwrap();
        daemon.may_log("cannot write the history");
    }
    assert_exact(sender, receiver, &sender.push("nas2:photos"));
    for daemon in [&sender.daemon, &receiver.daemon] {
        let log = daemon.log();
        assert!(log.contains("cannot write the history"), "{log}");
    }
}

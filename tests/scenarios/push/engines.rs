//! Which engine makes a push, and switching between them: the first push by sendshots after
//! pushes that kept a snapshot is incremental.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use sendshot_harness::compare::exact::{Reference, assert_copy, assert_exact};
use sendshot_harness::compare::subvolumes::{self, assert_no_leftovers};
use sendshot_harness::compare::tree::{self, Layout};
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::raw;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::tool;
use sendshot_harness::hosts::pairing::{Linked, Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::changes;
use sendshot_harness::trees::every_file_kind;
use sendshot_harness::trees::fill;
use sendshot_harness::trees::random::Random;
use serde_json::Value;

const KERNEL: [&str; 2] = ["--engine", "kernel"];

#[track_caller]
fn push(hosts: &Paired, options: &[&str]) -> Value {
    let pushed = hosts.sender.push_with("nas2:photos", options);
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    pushed
}

/// Counts hidden snapshots, sendshots and records.
fn kept(sender: &SenderHost) -> [usize; 3] {
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    ["snapshots", "sendshots", "pushes"].map(|dir| {
        let dir = top.path().join(".sendshot").join(dir);
        fs::read_dir(dir).unwrap().count()
    })
}

#[test]
fn the_kernel_engine_is_chosen_explicitly() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    assert_eq!(push(&hosts, &[])["engine"], "sendshot");
    assert_eq!(push(&hosts, &KERNEL)["engine"], "kernel");
    let list = hosts.sender.ctl(&["list", "--json"]).success().jsons();
    let snapshots = list.iter().filter(|kept| kept["sendshot_bytes"].is_null());
    assert_eq!(snapshots.count(), 1, "{list:?}");
    hosts.sender.set_pin_parent(true);
    assert_eq!(push(&hosts, &[])["engine"], "kernel");
    // The option of a command overrides the configuration.
    let ours = ["--engine", "sendshot"];
    let planned = [&["plan", "--json", "nas2:photos"], &ours[..]].concat();
    let planned = hosts.sender.ctl(&planned).success().json();
    assert_eq!(planned["engine"], "sendshot");
    assert_eq!(push(&hosts, &ours)["engine"], "sendshot");
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_read_only_snapshot_needs_the_kernel_engine() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    fill::tree(&sender.photos(), 1);
    let monday = sender.fs().join("monday");
    streams::snapshot(&sender.photos(), &monday).unwrap();
    let target = format!("nas2:{}", monday.display());
    for command in ["push", "plan"] {
        let arguments = [command, &target, "--engine", "sendshot"];
        let texts = [monday.to_str().unwrap(), "read-only", "--engine"];
        sender.ctl(&arguments).fails(2, &texts);
    }
    assert_eq!(sender.push(&target)["engine"], "kernel");
    assert_no_leftovers(sender, &hosts.receiver);
}

#[test]
fn the_first_sendshot_push_after_the_kernels_is_incremental() {
    let mut hosts = Paired::of(
        SenderHost::setup()
            .volume("photos", "photos")
            .pin_parent()
            .start(),
    );
    let photos = hosts.sender.photos();
    every_file_kind::fill(&photos);
    fill::file(photos.join("big"), 1, 8 << 20);
    let by_kernel = push(&hosts, &[]);
    assert_eq!(by_kernel["engine"], "kernel");
    every_file_kind::change(&photos);
    hosts.sender.set_pin_parent(false);
    let first = push(&hosts, &[]);
    assert_eq!(first["engine"], "sendshot");
    assert_eq!(
        first["parent"], by_kernel["uuid"],
        "all was sent again: {first}"
    );
    assert!(first["stream_bytes"].as_u64() < Some(8 << 20), "{first}");
    // The snapshot is deleted, and reported; its sendshot is kept like any other.
    assert_eq!(first["pruned"], serde_json::json!([by_kernel["uuid"]]));
    assert_eq!(kept(&hosts.sender), [0, 2, 2]);
    let second = push(&hosts, &[]);
    assert_eq!(second["parent"], first["uuid"]);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn pinning_after_sendshots_sends_in_full() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    push(&hosts, &[]);
    hosts.sender.set_pin_parent(true);
    let full = push(&hosts, &[]);
    assert_eq!(full["parent"], Value::Null);
    let reason = full["parent_reason"].as_str().unwrap();
    for text in ["sendshot", "kernel engine needs the snapshot"] {
        assert!(reason.contains(text), "{reason}");
    }
    let next = push(&hosts, &[]);
    assert_eq!(next["parent"], full["uuid"]);
    // Switches back again.
    hosts.sender.set_pin_parent(false);
    assert_eq!(push(&hosts, &[])["parent"], next["uuid"]);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_plan_adopts_nothing() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, &KERNEL);
    let before = kept(&hosts.sender);
    let plan = hosts.sender.ctl(&["plan", "--json", "nas2:photos"]);
    let planned = plan.success().json();
    assert_eq!(planned["parent"], first["uuid"]);
    hosts.sender.wait_until_released();
    assert_eq!(kept(&hosts.sender), before, "a plan left something");
    assert_eq!(push(&hosts, &KERNEL)["parent"], first["uuid"]);
}

#[test]
fn a_hidden_snapshot_that_was_changed_is_not_adopted() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, &KERNEL);
    let hidden = subvolumes::by_uuid(hosts.sender.fs(), &first["uuid"]);
    raw::set_flags(&hidden, raw::WRITABLE);
    fs::write(hidden.join("dir0/below/file3"), "changed").unwrap();
    raw::set_flags(&hidden, raw::READ_ONLY);
    let second = push(&hosts, &[]);
    assert_eq!(second["parent"], Value::Null, "{second}");
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn each_receiver_keeps_its_parent_across_engines() {
    let hosts = Paired::new();
    let other = ReceiverHost::new();
    pair(&hosts.sender, &other, "nas3");
    let photos = hosts.sender.photos();
    fill::tree(&photos, 1);
    let here = push(&hosts, &KERNEL);
    let there = hosts.sender.push_with("nas3:photos", &KERNEL);
    for round in 0..4 {
        fill::file(photos.join("changes"), round, 10_000);
        let next = push(&hosts, &[]);
        assert!(next["parent"].is_string(), "{next}");
        assert!(round > 0 || next["parent"] == here["uuid"], "{next}");
    }
    let after = hosts.sender.push_with("nas3:photos", &KERNEL);
    assert_eq!(after["parent"], there["uuid"], "{after}");
    assert_exact(&hosts.sender, &other, &after);
    assert_no_leftovers(&hosts.sender, &other);
}

/// Hosts after a push by the kernel engine, in the middle of a push by sendshots that captured
/// its snapshot.
fn in_the_middle_of_an_adoption() -> (Linked, Value, sendshot_harness::hosts::command::Running) {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push_with("nas2:photos", &KERNEL);
    fill::file(hosts.sender.photos().join("big"), 1, 24 << 20);
    hosts.link.set(Way::Up, Rule::Slow(2 << 20));
    let before = hosts.link.bytes(Way::Up);
    let running = hosts.sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("a push transfers data", || {
        hosts.link.bytes(Way::Up) > before + (1 << 20)
    });
    // Among the sendshots are unfinished hash files.
    let [snapshots, _, records] = kept(&hosts.sender);
    assert_eq!([snapshots, records], [2, 3], "it was not adopted");
    (hosts, first, running)
}

/// Asserts that both engines can continue from the common state.
#[track_caller]
fn both_engines_build_on(hosts: &Linked, first: &Value) {
    hosts.link.mend();
    let partials = || {
        hosts
            .receiver
            .ctl(&["copy", "list", "--partials", "--json"])
    };
    until::holds("the receiver runs no push any more", || {
        let partials = partials().success().jsons();
        partials.iter().all(|partial| partial["state"] != "running")
    });
    let plan = |engine| {
        let arguments = ["plan", "--json", "nas2:photos", "--engine", engine];
        hosts.sender.ctl(&arguments).success().json()["parent"].clone()
    };
    assert_eq!(plan("kernel"), first["uuid"], "all would be sent again");
    assert_eq!(plan("sendshot"), first["uuid"], "all would be sent again");
    let next = hosts.sender.push("nas2:photos");
    assert_eq!(next["parent"], first["uuid"], "all was sent again: {next}");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    assert_eq!(kept(&hosts.sender), [0, 2, 2]);
}

#[test]
fn a_push_that_adopted_and_is_cancelled_leaves_both_parents() {
    let (hosts, first, running) = in_the_middle_of_an_adoption();
    running.signal(Signal::INT);
    running.finish().fails(1, &["cancelled"]);
    hosts.sender.wait_until_released();
    assert_eq!(kept(&hosts.sender), [2, 2, 3]);
    both_engines_build_on(&hosts, &first);
}

#[test]
fn a_crash_after_an_adoption_leaves_both_parents() {
    let (mut hosts, first, running) = in_the_middle_of_an_adoption();
    hosts.sender.daemon.kill();
    running.finish().fails(1, &["daemon"]);
    hosts.sender.daemon.start();
    // Among the sendshots are hash files that were unfinished.
    let [snapshots, _, records] = kept(&hosts.sender);
    assert_eq!([snapshots, records], [2, 3]);
    both_engines_build_on(&hosts, &first);
}

/// Recreates what a crash after a step of capturing a held snapshot leaves, from the result of a complete
/// capture: the record is put back to its content at that step.
fn put_back(state: &Path, after_step: u32) {
    let mut put_back = 0;
    for entry in fs::read_dir(state.join("pushes")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let record: Value = serde_json::from_str(&text).unwrap();
        if record["engine"] != "sendshot" {
            continue;
        }
        if record["state"] == "sending" {
            continue; // the push itself
        }
        assert_eq!(record["state"], "acknowledged");
        fs::write(&path, text.replace("acknowledged", "sending")).unwrap();
        let sendshot = path.file_stem().unwrap().to_string_lossy() + ".sendshot";
        let sendshots = state.join("sendshots");
        if after_step == 1 {
            // The crash is in the middle of the capture.
            let unfinished = sendshots.join(format!(".{sendshot}.tmp"));
            fs::rename(sendshots.join(&*sendshot), unfinished).unwrap();
        }
        put_back += 1;
    }
    assert_eq!(put_back, 1);
}

#[test]
fn a_crash_while_capturing_a_held_snapshot_leaves_only_it() {
    for after_step in [1, 2] {
        let (mut hosts, first, running) = in_the_middle_of_an_adoption();
        running.signal(Signal::INT);
        running.finish().fails(1, &["cancelled"]);
        hosts.sender.daemon.stop();
        let top = Mount::private(&mount::devices(hosts.sender.fs())[0], "subvolid=5");
        put_back(&top.path().join(".sendshot"), after_step);
        drop(top);
        hosts.sender.daemon.start();
        let [snapshots, _, records] = kept(&hosts.sender);
        assert_eq!([snapshots, records], [2, 2], "after step {after_step}");
        both_engines_build_on(&hosts, &first);
    }
}

/// Seeds of the histories in every run; `SENDSHOT_SEED` repeats one.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=4;
/// Pushes in one history.
const PUSHES: u64 = 12;

/// Pushes a subvolume by its path. The kernel engine sends preallocated space as zeros or as holes, so
/// only readable content is compared.
#[track_caller]
fn push_same(hosts: &Paired, path: &Path, options: &[&str]) -> Value {
    let target = format!("nas2:{}", path.display());
    let pushed = hosts.sender.push_with(&target, options);
    let reference = Reference::of(hosts.sender.fs(), path);
    let copy = assert_copy(&hosts.receiver, &pushed);
    let found = tree::compare_with(reference.path(), &copy, Layout::Ignore).unwrap();
    assert_eq!(found, Vec::<String>::new(), "{pushed}");
    pushed
}

/// Makes random changes, sometimes a balance, and pushes by either engine, of the volume or of a
/// snapshot of it that may be deleted before the next push: every copy is exact, and only a push by the
/// kernel engine after one by sendshots is a full one.
fn take_turns(seed: u64) {
    println!("SENDSHOT_SEED={seed}");
    let hosts = Paired::new();
    let (fs, photos) = (hosts.sender.fs().to_owned(), hosts.sender.photos());
    let mut random = Random::new(seed);
    let mut kernel_has_the_last = false;
    for round in 0..PUSHES {
        for _ in 0..60 {
            changes::change(&mut random, &photos);
        }
        if random.once_in(4) {
            let balance = ["balance", "start", "--full-balance"].map(AsRef::as_ref);
            tool("btrfs", &[&balance[..], &[fs.as_os_str()]].concat());
        }
        let own = fs.join("own snapshot");
        let pushed = match random.below(5) {
            0 => {
                streams::snapshot(&photos, &own).unwrap();
                push_same(&hosts, &own, &[])
            }
            1 | 2 => push_same(&hosts, &photos, &KERNEL),
            _ => push_same(&hosts, &photos, &[]),
        };
        let by_kernel = pushed["engine"] == "kernel";
        if round > 0 && (!by_kernel || kernel_has_the_last) {
            assert!(pushed["parent"].is_string(), "all was sent again: {pushed}");
        }
        kernel_has_the_last = by_kernel;
        if own.exists() && random.once_in(2) {
            // The next push may be by sendshots, which would have captured it.
            push_same(&hosts, &photos, &[]);
            kernel_has_the_last = false;
        }
        if own.exists() {
            tool(
                "btrfs",
                &["subvolume".as_ref(), "delete".as_ref(), own.as_os_str()],
            );
            // It can no longer be a parent, unless a sendshot was captured from it.
            if kernel_has_the_last {
                push_same(&hosts, &photos, &[]);
                kernel_has_the_last = false;
            }
        }
    }
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn engines_that_take_turns_at_random_make_exact_copies() {
    let seed = std::env::var("SENDSHOT_SEED").ok();
    let seeds = match seed.and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..=seed,
        None => SEEDS,
    };
    seeds.for_each(take_turns);
}

//! Rules delete by the calendar, after a push and by themselves, and ask before they delete much.

use std::fs;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::until;

use crate::retention::world::World;

#[test]
fn a_rule_keeps_the_earliest_copy_of_each_day() {
    let world = World::new("keep = '3 days daily'\nprotect = '0s'");
    let mut kept = Vec::new();
    for day in (0..6).rev() {
        let first = world.push_at(&format!("-{day}d"));
        let second = world.push();
        kept.push(first);
        // Of today, the newest stays too.
        let newest = [second].into_iter();
        let days = kept.iter().rev().take(3).rev().cloned();
        world.are_left(&days.chain(newest).collect::<Vec<_>>());
    }
    let pushed = world.hosts.sender.push("nas2:photos");
    assert_exact(&world.hosts.sender, &world.hosts.receiver, &pushed);
    world
        .hosts
        .receiver
        .daemon
        .may_log("copies of nas1/photos by its rule");
}

#[test]
fn another_rule_asks_once_and_a_typo_deletes_nothing() {
    let mut world = World::new("keep = 'all'\nprotect = '0s'");
    let all = world.push_daily(12);
    world.configure("keep = '30 hours hourly'\nprotect = '0s'");
    world
        .hosts
        .receiver
        .daemon
        .may_log("no copy of nas1/photos is deleted");
    until::holds("the run is logged", || {
        let log = world.hosts.receiver.daemon.log();
        log.contains("no copy of nas1/photos is deleted: the first run under this rule would delete 10 copies")
    });
    assert_eq!(world.names().len(), all.len());
    // Neither by hand.
    let asked = world.prune(&["--yes"]);
    assert_eq!(asked[0]["must_be_confirmed"], true, "{asked:?}");
    assert_eq!(world.names().len(), all.len());
    let would = world.prune(&["--dry-run"]);
    assert_eq!(would[0]["copies"].as_array().unwrap().len(), 10);
    let done = world.prune(&["--confirm", "--yes"]);
    assert_eq!(done[0]["deleted"], true, "{done:?}");
    world.are_left(&all[10..]);
    // The rule is known now: what it deletes later needs no answer.
    let newest = world.push_at("+1d");
    world.are_left(&[all[11].clone(), newest]);
}

#[test]
fn a_run_that_deletes_more_than_half_asks() {
    let world = World::new("keep = '2 days daily'\nprotect = '0s'");
    world
        .hosts
        .receiver
        .daemon
        .may_log("no copy of nas1/photos is deleted");
    let first = world.push_at("-40d");
    for _ in 0..3 {
        world.push();
    }
    world.are_left(&world.names());
    let newest = world.push_at("+0d");
    until::holds("it asks", || {
        let list = world.hosts.receiver.ctl(&["copy", "list"]).success();
        list.stderr.contains("more than half")
    });
    assert!(world.names().contains(&first) && world.names().contains(&newest));
}

#[test]
fn weekends_off_never_ask() {
    // Hourly pushes in working hours; the default minimum age.
    let world = World::new(
        "keep = '24 hours hourly, 14 days daily, 12 months monthly'\nprotect = '3 days'",
    );
    let mut total = 0;
    for day in (0..35).rev() {
        // The first day is a Monday.
        if (34 - day) % 7 >= 5 {
            continue;
        }
        for hour in (0..6).rev() {
            world.push_at(&format!("-{}h", day * 24 + hour));
            total += 1;
        }
    }
    world.hosts.sender.wait_until_released();
    until::holds("the last run is over", || {
        world.listed().iter().all(|copy| copy["goes"] == false)
    });
    assert!(
        world.names().len() < total / 2,
        "{} of {total}",
        world.names().len()
    );
    let log = world.hosts.receiver.daemon.log();
    assert!(!log.contains("is deleted: it would delete"), "{log}");
}

#[test]
fn a_sender_that_was_away_loses_nothing_until_it_is_back() {
    let mut world = World::new("keep = '3 days daily'\nprotect = '2 days'");
    let all = world.push_daily(3);
    // Half a year passes; the receiver runs by itself.
    world.set("+180d");
    world.configure("keep = '3 days daily'\nprotect = '2 days'");
    world.prune(&["--yes"]);
    assert_eq!(world.names(), all);
    let about = world.about(&all[0]);
    assert!(
        about["kept"].as_str().unwrap().contains("daily copy"),
        "{about}"
    );
    // Back again: the gap was longer than the minimum age, so they stay that much longer.
    let back = world.push_at("+180d");
    let left = [all.clone(), vec![back.clone()]].concat();
    world.are_left(&left);
    let about = world.about(&all[0]);
    assert!(
        about["kept"].as_str().unwrap().contains("before a gap"),
        "{about}"
    );
    let next = world.push_at("+181d");
    world.are_left(&[left, vec![next.clone()]].concat());
    let last = world.push_at("+182d");
    world.are_left(&[back, next, last]);
}

#[test]
fn a_revoked_senders_copies_stay() {
    let mut world = World::new("keep = '2 days daily'\nprotect = '0s'");
    let all = world.push_daily(2);
    world
        .hosts
        .receiver
        .ctl(&["peer", "revoke", "nas1"])
        .success();
    world.set("+400d");
    world.configure("keep = '2 days daily'\nprotect = '0s'");
    world.prune(&["--yes"]);
    assert_eq!(world.names(), all);
}

#[test]
fn a_rule_that_is_set_while_a_push_runs_still_asks() {
    use sendshot_harness::faults::link::{Link, Rule, Way};
    let world = World::new("keep = 'all'\nprotect = '0s'");
    let all = world.push_daily(8);
    let Paired { sender, receiver } = &world.hosts;
    let link = Link::to(receiver.address());
    let entry = std::fs::read_to_string(sender.receiver_file("nas2")).unwrap();
    let entry = entry.replace(&receiver.address().to_string(), &link.address().to_string());
    std::fs::write(sender.receiver_file("nas2"), entry).unwrap();
    sendshot_harness::trees::fill::file(sender.photos().join("big"), 1, 24 << 20);
    link.set(Way::Up, Rule::Slow(8 << 20));
    let before = link.bytes(Way::Up);
    let running = sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("the push runs", || link.bytes(Way::Up) > before + (4 << 20));
    world.write_table("keep = '1 day daily'\nprotect = '0s'");
    world.hosts.receiver.daemon.reload("configuration reloaded");
    world.prune(&["--yes"]);
    link.set(Way::Up, Rule::Pass);
    running.finish().success();
    world
        .hosts
        .receiver
        .daemon
        .may_log("no copy of nas1/photos is deleted");
    until::holds("it asks", || {
        let list = world.hosts.receiver.ctl(&["copy", "list"]).success();
        list.stderr.contains("the first run under this rule")
    });
    assert_eq!(world.names().len(), all.len() + 1);
}

#[test]
fn a_disk_that_is_too_small_is_told_before_the_first_byte() {
    use sendshot_harness::hosts::receiver_host::ReceiverHost;
    use sendshot_harness::hosts::sender_host::SenderHost;
    let sender = SenderHost::new();
    let hosts = Paired::between(sender, ReceiverHost::with_size(200 << 20));
    let big = hosts.sender.photos().join("big");
    sendshot_harness::trees::fill::file(big, 1, 300 << 20);
    let planned = hosts.sender.ctl(&["plan", "nas2:photos"]).success();
    let said = format!("{}{}", planned.stdout, planned.stderr);
    assert!(said.contains("free, and this needs 300"), "{said}");
    hosts.receiver.daemon.may_log("is full");
    let pushed = hosts.sender.ctl(&["push", "nas2:photos"]);
    pushed.fails(1, &["nas2 has", "free, and this needs 300", "full"]);
}

/// What was overwritten since does not count for ever, and what the copies that are left still hold does.
#[test]
fn the_limit_of_bytes_counts_what_is_left_after_deleting() {
    use sendshot_harness::trees::fill;
    const MIB: usize = 1 << 20;
    let world = World::new("keep = '1 day daily'\nprotect = '0s'\nmax_bytes = '40 MiB'");
    let photos = world.hosts.sender.photos();
    let mut last = Vec::new();
    let mut push = |day: u64, name: &str| {
        fill::file(photos.join(name), day, 8 * MIB);
        let name = world.push_at(&format!("+{day}d"));
        world.are_left(std::slice::from_ref(&name));
        last = vec![name];
        until::holds("the copy that is left is counted", || {
            let usage = fs::read_to_string(world.dir().join(".sendshot-usage")).unwrap();
            !usage.contains("inherited")
        });
    };
    // Ten times 8 MiB in the place of each other are 8 MiB.
    for day in 1..=10 {
        push(day, "same");
    }
    // And 8 MiB more each time reach the limit.
    for day in 11..=13 {
        push(day, &format!("new-{day}"));
    }
    fill::file(photos.join("too-much"), 99, 12 * MIB);
    world.set("+14d");
    let refused = world.hosts.sender.ctl(&["push", "nas2:photos"]);
    refused.fails(4, &["reached a limit", "max_bytes"]);
    assert_eq!(world.names(), last);
}

/// The data of a deleted copy may be in another one than the next: the sum stays then.
#[test]
fn the_limit_of_bytes_is_not_voided_by_a_copy_beside_the_chain() {
    use sendshot_harness::trees::fill;
    const MIB: usize = 1 << 20;
    let world = World::new("keep = 'all'\nmax_bytes = '12 MiB'");
    let photos = world.hosts.sender.photos();
    let push = |options: &[&str]| {
        let push = [&["--json", "push", "nas2:photos"], options].concat();
        world.hosts.sender.ctl(&push).success().jsons().remove(0)
    };
    fill::file(photos.join("big"), 1, 8 * MIB);
    let first = push(&[]);
    let kept = world.hosts.sender.fs().join("kept");
    sendshot_harness::disks::streams::snapshot(&photos, &kept).unwrap();
    fs::remove_file(photos.join("big")).unwrap();
    push(&["--parent", "none"]);
    // A state with the big file again, built on the first copy.
    let copied = std::process::Command::new("cp")
        .arg("--reflink=always")
        .args([kept.join("big"), photos.join("big")])
        .status();
    assert!(copied.unwrap().success());
    let second = push(&["--parent", first["uuid"].as_str().unwrap()]);
    assert_eq!(second["parent"], first["uuid"], "{second}");
    let name = first["copy"].as_str().unwrap();
    world
        .hosts
        .receiver
        .ctl(&["copy", "release", name])
        .success();
    let delete = ["copy", "delete", name, "--yes"];
    world.hosts.receiver.ctl(&delete).success();
    std::thread::sleep(std::time::Duration::from_secs(1));
    fill::file(photos.join("more"), 2, 8 * MIB);
    let refused = world.hosts.sender.ctl(&["push", "nas2:photos"]);
    refused.fails(4, &["reached a limit", "max_bytes"]);
}

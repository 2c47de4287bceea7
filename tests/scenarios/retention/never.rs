//! What a rule must never delete, with the reason that is given.

use std::fs::{self, File};
use std::path::Path;

use sendshot_adversary::hostile::World as Stream;
use sendshot_adversary::hostile::sender::{self, Answer, HostileSender, Then};
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command;
use sendshot_harness::hosts::kernel_clock::KernelClock;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::until;
use sendshot_sys::subvolume::{Access, set_access};
use serde_json::Value;
use uuid::Uuid;

use crate::retention::world::{World, old_copies};

#[track_caller]
fn stays(world: &World, name: &str, reason: &str) {
    let about = world.about(name);
    assert_eq!(about["goes"], false, "{about}");
    assert!(about["kept"].as_str().unwrap().contains(reason), "{about}");
    world.prune(&["--confirm", "--yes"]);
    assert!(world.names().contains(&name.to_owned()), "{name} is gone");
}

#[test]
fn an_admins_own_snapshot_stays() {
    let (world, all) = old_copies(10);
    let mine = world.dir().join("mine");
    streams::snapshot(&world.dir().join(&all[0]), &mine).unwrap();
    stays(&world, "mine", "it is not in the ledger");
    world.are_left(&[all[9].clone(), "mine".to_owned()]);
}

#[test]
fn a_writable_copy_stays() {
    let (world, all) = old_copies(10);
    set_access(
        File::open(world.dir().join(&all[3])).unwrap(),
        Access::ReadWrite,
    )
    .unwrap();
    stays(&world, &all[3], "it is writable");
    // It stays when it is read-only again and was changed.
    fs::write(world.dir().join(&all[3]).join("mine"), "of the admin").unwrap();
    set_access(
        File::open(world.dir().join(&all[3])).unwrap(),
        Access::ReadOnly,
    )
    .unwrap();
    stays(&world, &all[3], "it was changed after it was made");
}

#[test]
fn a_copy_with_a_subvolume_in_it_stays() {
    let (world, all) = old_copies(10);
    let copy = world.dir().join(&all[3]);
    // A read-only copy takes no subvolume; one that was writable for a moment does.
    set_access(File::open(&copy).unwrap(), Access::ReadWrite).unwrap();
    streams::create(&copy.join("nested")).unwrap();
    set_access(File::open(&copy).unwrap(), Access::ReadOnly).unwrap();
    world.prune(&["--confirm", "--yes"]);
    assert!(copy.join("nested").exists());
}

#[test]
fn a_copy_that_is_being_restored_stays() {
    use sendshot_harness::faults::link::{Link, Rule, Way};
    let (world, all) = old_copies(10);
    let Paired { sender, receiver } = &world.hosts;
    sendshot_harness::trees::fill::file(sender.photos().join("big"), 1, 24 << 20);
    let big = world.push();
    let _newer = [world.push_at("+1d"), world.push_at("+2d")];
    let link = Link::to(receiver.address());
    let entry = fs::read_to_string(sender.receiver_file("nas2")).unwrap();
    let entry = entry.replace(&receiver.address().to_string(), &link.address().to_string());
    fs::write(sender.receiver_file("nas2"), entry).unwrap();
    receiver.grant("nas1");
    link.set(Way::Down, Rule::Slow(4 << 20));
    let target = sender.fs().join("restored");
    let target = target.to_str().unwrap();
    let mut command = sender.restore_command(&["nas2:photos", "--at", &big, target]);
    let running = command::Running::start(&mut command);
    until::holds("some of it has come", || link.bytes(Way::Down) > 2 << 20);
    stays(&world, &big, "it is being restored");
    link.set(Way::Down, Rule::Pass);
    running.finish().success();
    world.prune(&["--confirm", "--yes"]);
    world.prune(&["--yes"]);
    assert!(!world.names().contains(&big) && !world.names().contains(&all[0]));
}

#[test]
fn the_parent_of_an_interrupted_push_stays() {
    use sendshot_harness::faults::link::{Link, Rule, Way};
    let mut world = World::new("keep = 'all'\nprotect = '0s'");
    let all = world.push_daily(3);
    let Paired { sender, receiver } = &world.hosts;
    let link = Link::to(receiver.address());
    let entry = fs::read_to_string(sender.receiver_file("nas2")).unwrap();
    let entry = entry.replace(&receiver.address().to_string(), &link.address().to_string());
    fs::write(sender.receiver_file("nas2"), entry).unwrap();
    sendshot_harness::trees::fill::file(sender.photos().join("big"), 1, 64 << 20);
    link.set(Way::Up, Rule::Slow(32 << 20));
    let before = link.bytes(Way::Up);
    let running = sender.ctl_start(&["push", "nas2:photos", "--parent", "auto"]);
    until::holds("half has come", || {
        link.bytes(Way::Up) > before + (40 << 20)
    });
    let reason = world.about(&all[2])["kept"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("an interrupted push builds on it"),
        "{reason}"
    );
    let delete = [
        "copy",
        "delete",
        &format!("nas1/photos/{}", all[2]),
        "--break-chain",
        "--yes",
    ];
    world
        .hosts
        .receiver
        .ctl(&delete)
        .fails(4, &["is not deleted: "]);
    link.cut();
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    world.hosts.sender.daemon.kill();
    // The receiver restarts: only the checkpoint on the disk is left.
    world.configure("keep = '1 hour hourly'\nprotect = '0s'");
    world
        .hosts
        .receiver
        .daemon
        .may_log("no copy of nas1/photos is deleted");
    let partials = world
        .hosts
        .receiver
        .ctl(&["--json", "copy", "list", "--partials"]);
    assert_eq!(partials.success().jsons().len(), 1);
    world
        .hosts
        .receiver
        .ctl(&delete)
        .fails(4, &["an interrupted push builds on it"]);
    assert!(world.names().contains(&all[2]));
}

#[test]
fn without_a_good_clock_nothing_goes_and_times_are_uncertain() {
    let mut receiver = ReceiverHost::setup()
        .keys("timezone = 'UTC'\nmin_free = '1 MiB'\n[senders.nas1]\nkeep = '1 hour hourly'\nprotect = '0s'")
        .make();
    let kernel = KernelClock::new();
    kernel.of(&mut receiver.daemon);
    receiver.daemon.start();
    let world = World::at_present(receiver);
    let first = world.push();
    let about = world.about(&first);
    assert_eq!(about["time_is_certain"], false, "{about}");
    let list = world.hosts.receiver.ctl(&["copy", "list"]).success();
    assert!(
        list.stderr
            .contains("does not say that this host's clock is synchronised"),
        "{list:?}"
    );
    world.push();
    assert_eq!(world.names().len(), 2);
    // In the same boot, the time since it tells the true moment.
    kernel.say(true);
    assert_eq!(world.about(&first)["time_is_certain"], true);
    kernel.say(false);
    let refused = world.prune(&["--dry-run"]);
    assert!(
        refused.is_empty() || refused[0]["not_deleted"].is_string(),
        "{refused:?}"
    );
}

#[test]
fn a_full_push_of_much_less_holds_the_last_copy() {
    let world = World::new("keep = 'all'");
    sendshot_harness::trees::fill::file(world.hosts.sender.photos().join("big"), 1, 8 << 20);
    let last = world.push_at("-2d");
    fs::remove_file(world.hosts.sender.photos().join("big")).unwrap();
    world.set("-1d");
    world
        .hosts
        .sender
        .ctl(&["push", "nas2:photos", "--parent", "none"])
        .success();
    let about = world.about(&last);
    assert_eq!(about["holds"].as_array().unwrap().len(), 1, "{about}");
    // Only one such hold.
    world.set("+0d");
    fs::write(world.hosts.sender.photos().join("x"), "x").unwrap();
    world
        .hosts
        .sender
        .ctl(&["push", "nas2:photos", "--parent", "none"])
        .success();
    let held = world
        .listed()
        .into_iter()
        .filter(|copy| copy["holds"] != serde_json::json!([]));
    assert_eq!(held.count(), 1);
    assert!(Path::new(&world.dir()).exists());
}

#[test]
fn old_snapshots_that_come_at_once_are_not_thinned_by_their_commits() {
    let mut world = World::new("keep = '1 hour hourly, 30 days daily'\nprotect = '0s'");
    let sender = &world.hosts.sender;
    // Snapshots of three days; their times are those of the file system.
    let snapshot = sender.fs().join("snapshot");
    fs::write(sender.photos().join("a"), "1").unwrap();
    streams::snapshot(&sender.photos(), &snapshot).unwrap();
    world.set("+3d");
    let target = format!("nas2:{}", snapshot.display());
    let pushed = sender.push(&target);
    let name = pushed["copy"]
        .as_str()
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    let about = world.about(&name);
    assert_eq!(about["time_is_certain"], false, "{about}");
    assert!(
        about["kept"]
            .as_str()
            .unwrap()
            .contains("read-only snapshot that was more than a day old"),
        "{about}"
    );
    world.configure("keep = '1 hour hourly, 30 days daily'\nprotect = '0s'\ntimes = 'snapshot'");
    let about = world.about(&name);
    assert!(
        about["kept"]
            .as_str()
            .unwrap()
            .contains("the daily copy of"),
        "{about}"
    );
}

#[test]
fn a_copy_of_an_older_sender_that_may_be_of_an_old_snapshot_is_uncertain() {
    const DAY: i64 = 24 * 60 * 60;
    let world = World::new("keep = '1 hour hourly'\nprotect = '0s'");
    let first = world.push();
    let now = world.about(&first)["committed_at"]
        .as_str()
        .unwrap()
        .parse::<jiff::Timestamp>();
    let now = now.unwrap().as_second();
    let hostile = HostileSender::connect(&world.hosts.sender, &world.hosts.receiver, "nas2");
    let cases = [
        (None, 3, false),
        (None, 0, true),
        (Some(false), 3, true),
        (Some(true), 3, false),
    ];
    for (number, (of_snapshot, days, is_certain)) in (1_u8..).zip(cases) {
        let stream = Stream::empty(Uuid::from_u128(number.into()), 1);
        let volume = format!("volume-{number}");
        let mut begin = sender::begin(&stream, [number; 16], &volume);
        begin.taken_at = now - days * DAY;
        begin.of_snapshot = of_snapshot;
        let answer = hostile.push(sender::whole(begin, &stream.whole(&[])), Then::Wait);
        assert!(matches!(answer, Answer::Committed(_)), "{answer:?}");
        let listed = world.listed();
        let copy = listed.iter().find(|copy| copy["volume"] == volume.as_str());
        let copy = copy.unwrap_or_else(|| panic!("no copy of {volume}: {listed:?}"));
        assert_eq!(
            copy["time_is_certain"], is_certain,
            "{of_snapshot:?}, {days} days: {copy}"
        );
        let says = copy
            .to_string()
            .contains("does not say whether it is of a read-only snapshot");
        assert_eq!(says, of_snapshot.is_none() && !is_certain, "{copy}");
    }
}

#[test]
fn a_clock_that_is_not_good_any_more_stops_the_rules() {
    let keys = |keep: &str| {
        format!(
            "timezone = 'UTC'\nmin_free = '1 MiB'\n[senders.nas1]\nkeep = '{keep}'\nprotect = '0s'"
        )
    };
    let mut receiver = ReceiverHost::setup().keys(&keys("all")).make();
    let kernel = KernelClock::new();
    kernel.say(true);
    kernel.of(&mut receiver.daemon);
    receiver.daemon.start();
    let world = World::at_present(receiver);
    let all: Vec<String> = (0..4).map(|_| world.push()).collect();
    assert!(
        all.iter()
            .all(|name| world.about(name)["time_is_certain"] == true)
    );
    kernel.say(false);
    let receiver = &world.hosts.receiver;
    let (address, root) = (receiver.address(), receiver.root());
    let text = format!(
        "listen = \"{address}\"\nroot = {root:?}\n{}\n",
        keys("1 year yearly")
    );
    fs::write(receiver.config(), text).unwrap();
    let mut world = world;
    let daemon = &mut world.hosts.receiver.daemon;
    daemon.may_log("no copy of nas1/photos is deleted");
    daemon.stop();
    daemon.start();
    // It runs at once when it starts.
    until::holds("the run is logged", || {
        let log = world.hosts.receiver.daemon.log();
        log.contains("no copy of nas1/photos is deleted: the kernel does not say")
    });
    // The two in the middle would go.
    let said = world.prune(&["--dry-run"]);
    assert_eq!(said[0]["copies"].as_array().unwrap().len(), 2, "{said:?}");
    assert!(said[0]["not_deleted"].is_string(), "{said:?}");
    world.prune(&["--yes"]);
    world.prune(&["--confirm", "--yes"]);
    assert_eq!(world.names(), all);
    kernel.say(true);
    world.prune(&["--yes"]);
    world.are_left(&[all[0].clone(), all[3].clone()]);
}

/// A clock that has moved by over an hour is not good until the administrator accepts it.
#[test]
fn a_moved_clock_is_good_again_when_it_is_accepted() {
    let kernel = KernelClock::new();
    kernel.say(true);
    let mut receiver = ReceiverHost::setup()
        .keys("[senders.nas1]\nkeep = '2 days daily'")
        .start();
    kernel.of(&mut receiver.daemon);
    receiver.daemon.stop();
    receiver.daemon.start();
    let mut hosts = Paired::between(
        sendshot_harness::hosts::sender_host::SenderHost::new(),
        receiver,
    );
    hosts.sender.push("nas2:photos");
    let receiver = &mut hosts.receiver;
    receiver.daemon.stop();
    let file = receiver.daemon.state_dir().join("clock.json");
    let mut anchor: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    // Two readings of whole seconds may differ by one.
    let before = anchor["offset"].as_i64().unwrap() - 7230;
    anchor["offset"] = before.into();
    fs::write(&file, anchor.to_string()).unwrap();
    receiver.daemon.start();
    let status = |receiver: &ReceiverHost| {
        receiver
            .ctl(&["--json", "status"])
            .success()
            .jsons()
            .remove(0)
    };
    let trouble = status(receiver)["clock_trouble"].to_string();
    assert!(
        trouble.contains("moved by 2 h") && trouble.contains("copy retime --clock"),
        "{trouble}"
    );
    receiver
        .ctl(&["copy", "retime", "--clock"])
        .fails(2, &["not a terminal", "--yes"]);
    kernel.say(false);
    receiver
        .ctl(&["copy", "retime", "--clock", "--yes"])
        .fails(1, &["synchronised", "time daemon"]);
    kernel.say(true);
    receiver
        .ctl(&["copy", "retime", "--clock", "--yes"])
        .success();
    assert_eq!(status(receiver)["clock_trouble"], Value::Null);
    // And after a restart of the daemon.
    receiver.daemon.stop();
    receiver.daemon.start();
    assert_eq!(status(receiver)["clock_trouble"], Value::Null);
}

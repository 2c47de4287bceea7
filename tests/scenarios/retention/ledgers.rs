//! The ledger: without a good one, nothing goes.

use std::fs;

use sendshot_harness::hosts::command;

use crate::retention::world::{SHORT, World, old_copies};

#[test]
fn a_lost_damaged_or_rolled_back_ledger_deletes_nothing() {
    let (mut world, all) = old_copies(6);
    let ledger = world.dir().join(".sendshot-copies");
    let good = fs::read(&ledger).unwrap();
    // A hold, and the ledger from before it.
    let oldest = format!("nas1/photos/{}", all[0]);
    world
        .hosts
        .receiver
        .ctl(&["copy", "hold", &oldest])
        .success();
    let mut damaged = fs::read(&ledger).unwrap();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    let cases: [(&str, Option<&[u8]>); 3] = [
        ("its ledger is damaged", Some(&damaged)),
        ("its ledger is missing", None),
        ("its ledger is older than it was", Some(&good)),
    ];
    for (why, content) in cases {
        match content {
            Some(content) => fs::write(&ledger, content).unwrap(),
            None => fs::remove_file(&ledger).unwrap(),
        }
        for _ in 0..2 {
            let said = world.prune(&["--confirm", "--yes"]);
            assert!(
                said.iter().all(|volume| volume["deleted"] == false),
                "{why}: {said:?}"
            );
            assert_eq!(world.names(), all, "{why}");
            let list = world.hosts.receiver.ctl(&["copy", "list"]).success();
            assert!(list.stderr.contains(why), "{why}: {list:?}");
            world.hosts.receiver.daemon.stop();
            world.hosts.receiver.daemon.start();
        }
        let delete = ["copy", "delete", oldest.as_str(), "--yes"];
        world
            .hosts
            .receiver
            .ctl(&delete)
            .fails(4, &[why, "--rebuild"]);
    }
    // A push is not disturbed, and its copy is not deleted either.
    world
        .hosts
        .receiver
        .daemon
        .may_log("is deleted by its rule: its ledger");
    let newest = world.push();
    assert!(world.names().contains(&newest));
    world
        .hosts
        .receiver
        .ctl(&["copy", "retime", "--rebuild", "nas1/photos", "--yes"])
        .success();
    let list = world.hosts.receiver.ctl(&["copy", "list"]).success();
    assert!(!list.stderr.contains("its ledger"), "{list:?}");
    assert_eq!(
        world
            .listed()
            .iter()
            .filter(|copy| copy["time_is_certain"] == true)
            .count(),
        7
    );
}

#[test]
fn a_root_from_before_there_were_ledgers_gets_them_once() {
    let mut world = World::new("keep = 'all'");
    let all = world.push_daily(4);
    world.hosts.receiver.daemon.stop();
    let mark = world.hosts.receiver.root().join(".sendshot-root");
    let text = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, text.replace("true", "false")).unwrap();
    fs::remove_file(world.dir().join(".sendshot-copies")).unwrap();
    let _ = fs::remove_file(world.hosts.receiver.daemon.state_dir().join("ledgers.json"));
    world.hosts.receiver.daemon.start();
    let listed = world.listed();
    assert_eq!(listed.len(), all.len());
    // btrfs's times are those of the real pushes, all of today, like the names: nothing contradicts.
    assert!(
        listed.iter().all(|copy| copy["time_is_certain"] == true),
        "{listed:?}"
    );
    world.hosts.receiver.daemon.stop();
    // From now on a missing one is damage.
    fs::remove_file(world.dir().join(".sendshot-copies")).unwrap();
    world.hosts.receiver.daemon.start();
    let list = world.hosts.receiver.ctl(&["copy", "list"]).success();
    assert!(list.stdout.contains("its volume has no ledger"), "{list:?}");
}

#[test]
fn a_disk_that_was_copied_by_hand_has_uncertain_times() {
    let mut world = World::new("keep = 'all'");
    let all = world.push_daily(2);
    world.hosts.receiver.daemon.stop();
    // The names say that they are of different days; btrfs says that all are of today.
    let (dir, old) = (world.dir(), "20200101T000000Z");
    fs::rename(dir.join(&all[0]), dir.join(old)).unwrap();
    let mark = world.hosts.receiver.root().join(".sendshot-root");
    let text = fs::read_to_string(&mark).unwrap();
    fs::write(&mark, text.replace("true", "false")).unwrap();
    fs::remove_file(dir.join(".sendshot-copies")).unwrap();
    let _ = fs::remove_file(world.hosts.receiver.daemon.state_dir().join("ledgers.json"));
    world.configure(SHORT);
    let about = world.about(old);
    assert_eq!(about["time_is_certain"], false, "{about}");
    assert!(
        about["kept"]
            .as_str()
            .unwrap()
            .contains("contradict their names"),
        "{about}"
    );
    world.prune(&["--confirm", "--yes"]);
    assert_eq!(world.names().len(), 2);
    command::tool("sync", &[world.hosts.receiver.fs()]);
}

#[test]
fn a_volume_directory_that_was_deleted_begins_again() {
    let mut world = World::new("keep = 'all'");
    world.push_daily(3);
    world.hosts.receiver.daemon.stop();
    for name in world.names() {
        sendshot_harness::disks::streams::delete(&world.dir().join(name)).unwrap();
    }
    fs::remove_dir_all(world.dir()).unwrap();
    world.hosts.receiver.daemon.start();
    let newest = world.push();
    assert_eq!(world.about(&newest)["time_is_certain"], true);
    let list = world.hosts.receiver.ctl(&["copy", "list"]).success();
    assert!(!list.stderr.contains("its ledger"), "{list:?}");
}

//! A crash at each step of deleting and of committing leaves a ledger and a disk that agree.

use sendshot_harness::faults::fail_points;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use std::time::Duration;

use crate::retention::world::World;

#[test]
fn killed_at_each_step_of_deleting_it_is_completed() {
    for power in [false, true] {
        for point in fail_points::RETENTION {
            let keys = "clock = 'trusted'\ntimezone = 'UTC'\nmin_free = '1 MiB'\n[senders.nas1]\nkeep = 'all'";
            let setup = ReceiverHost::setup().keys(keys);
            let setup = if power {
                setup.size(256 << 20).power()
            } else {
                setup
            };
            let mut world = World::of(setup.start());
            let all = world.push_daily(6);
            world.configure("keep = '2 days daily'\nprotect = '0s'");
            let daemon = &mut world.hosts.receiver.daemon;
            daemon.may_log("no copy of nas1/photos is deleted");
            daemon.stop();
            daemon.env("FAILPOINTS", &format!("{point}=return"));
            daemon.start();
            let prune = ["copy", "prune", "--confirm", "--yes"];
            let killed = world.hosts.receiver.ctl(&prune);
            assert_ne!(killed.code, 0, "{point} was not reached: {killed:?}");
            let daemon = &mut world.hosts.receiver.daemon;
            assert!(daemon.wait_dead(Duration::from_secs(5)), "{point}");
            if power {
                world.hosts.receiver.power_cut();
            }
            let daemon = &mut world.hosts.receiver.daemon;
            daemon.env("FAILPOINTS", "");
            daemon.start();
            let on_disk = world.names();
            let listed: Vec<String> = world
                .listed()
                .iter()
                .map(|copy| copy["name"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(listed, on_disk, "{point}");
            assert!(
                world
                    .listed()
                    .iter()
                    .all(|copy| copy["time_is_certain"] == true),
                "{point}: a copy is not in the ledger: {:?}",
                world.listed()
            );
            let said = [
                world.prune(&["--confirm", "--yes"]),
                world.prune(&["--yes"]),
            ];
            assert_eq!(
                world.names(),
                all[4..],
                "{point}, power cut {power}: {said:?}"
            );
            let newest = world.push_at("+0d");
            assert_eq!(world.about(&newest)["time_is_certain"], true, "{point}");
        }
    }
}

#[test]
fn killed_at_each_step_of_committing_the_copy_is_in_the_ledger() {
    for point in fail_points::LEDGER {
        let mut world = World::new("keep = 'all'");
        world.push_at("-2d");
        std::fs::write(world.hosts.sender.photos().join("more"), "more").unwrap();
        push_killed_at(&mut world, point, &[]);
        world.push();
        world.push();
        let listed = world.listed();
        assert!(listed.len() >= 3, "{point}: {listed:?}");
        assert!(
            listed.iter().all(|copy| copy["time_is_certain"] == true),
            "{point}: {listed:?}"
        );
    }
}

#[test]
fn killed_after_the_commit_a_full_push_of_much_less_still_holds_the_last_copy() {
    for point in fail_points::LEDGER {
        let mut world = World::new("keep = 'all'");
        let big = world.hosts.sender.photos().join("big");
        sendshot_harness::trees::fill::file(big.clone(), 1, 8 << 20);
        let last = world.push_at("-2d");
        std::fs::remove_file(big).unwrap();
        push_killed_at(&mut world, point, &["--parent", "none"]);
        world.push();
        let about = world.about(&last);
        let held = about["holds"].as_array().unwrap().len();
        // The push that follows builds on the copy if there is one; else it builds on the last copy, and is no full one.
        let is_committed = world.names().len() > 2;
        assert_eq!(held, usize::from(is_committed), "{point}: {about}");
    }
}

/// Pushes while the receiver is killed at a point, and starts it again.
fn push_killed_at(world: &mut World, point: &str, options: &[&str]) {
    let daemon = &mut world.hosts.receiver.daemon;
    daemon.stop();
    daemon.env("FAILPOINTS", &format!("{point}=return"));
    daemon.start();
    let push = ["push", "nas2:photos", "--retry-for", "1s"];
    let push = [&push, options].concat();
    assert_ne!(world.hosts.sender.ctl(&push).code, 0, "{point}");
    let daemon = &mut world.hosts.receiver.daemon;
    assert!(daemon.wait_dead(Duration::from_secs(5)), "{point}");
    daemon.env("FAILPOINTS", "");
    daemon.start();
}

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
            let mut world = World::of(host(keys, power));
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
    for power in [false, true] {
        for point in fail_points::LEDGER {
            let keys = "clock = 'trusted'\ntimezone = 'UTC'\nmin_free = '1 MiB'\n[senders.nas1]\nkeep = 'all'";
            let mut world = World::of(host(keys, power));
            world.push_at("-2d");
            std::fs::write(world.hosts.sender.photos().join("more"), "more").unwrap();
            die_in_push(&mut world, point, &[]);
            if power {
                world.hosts.receiver.power_cut();
            }
            start_again(&mut world);
            is_known(&world, point);
            world.push();
            world.push();
            assert!(world.names().len() >= 3, "{point}");
            is_known(&world, point);
        }
    }
}

/// Checks that each copy is in the ledger, and that its size is noted.
fn is_known(world: &World, point: &str) {
    let listed = world.listed();
    let names: Vec<_> = listed.iter().map(|copy| &copy["name"]).collect();
    assert_eq!(names, world.names().iter().collect::<Vec<_>>(), "{point}");
    assert!(
        listed.iter().all(|copy| copy["time_is_certain"] == true),
        "{point}: {listed:?}"
    );
    let usage = std::fs::read(world.dir().join(".sendshot-usage")).unwrap();
    let usage: serde_json::Value = serde_json::from_slice(&usage).unwrap();
    for copy in std::fs::read_dir(world.dir()).unwrap() {
        let path = copy.unwrap().path();
        if path.is_dir() {
            let of = sendshot_sys::subvolume::info(std::fs::File::open(&path).unwrap()).unwrap();
            let size = &usage["states"][of.received_uuid.to_string()][of.stransid.to_string()];
            assert!(size.is_u64(), "{point}: {}: {usage}", path.display());
        }
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
    die_in_push(world, point, options);
    start_again(world);
}

fn start_again(world: &mut World) {
    let daemon = &mut world.hosts.receiver.daemon;
    daemon.env("FAILPOINTS", "");
    daemon.start();
}

/// Starts a receiver with the configuration, on a disk whose power can be cut or not.
fn host(keys: &str, power: bool) -> ReceiverHost {
    let setup = ReceiverHost::setup().keys(keys);
    let setup = match power {
        true => setup.size(256 << 20).power(),
        false => setup,
    };
    setup.start()
}

fn die_in_push(world: &mut World, point: &str, options: &[&str]) {
    let daemon = &mut world.hosts.receiver.daemon;
    daemon.stop();
    daemon.env("FAILPOINTS", &format!("{point}=return"));
    daemon.start();
    let push = ["push", "nas2:photos", "--retry-for", "1s"];
    let push = [&push, options].concat();
    assert_ne!(world.hosts.sender.ctl(&push).code, 0, "{point}");
    let daemon = &mut world.hosts.receiver.daemon;
    assert!(daemon.wait_dead(Duration::from_secs(5)), "{point}");
}

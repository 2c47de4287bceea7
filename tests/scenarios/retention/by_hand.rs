//! The administrator deletes, holds, releases and corrects single copies.

use crate::retention::world::World;

fn of(name: &str) -> String {
    format!("nas1/photos/{name}")
}

#[test]
fn a_copy_is_deleted_unless_it_is_held_or_the_newest() {
    let world = World::new("keep = 'all'");
    let all = world.push_daily(3);
    let ctl = |arguments: &[&str]| world.hosts.receiver.ctl(arguments);
    let delete = |name: &str, more: &[&str]| {
        let name = of(name);
        ctl(&[&["copy", "delete", name.as_str(), "--yes"], more].concat())
    };
    ctl(&[
        "copy",
        "hold",
        &of(&all[0]),
        "--reason",
        "the lawyer asked for it",
    ])
    .success();
    delete(&all[0], &[]).fails(4, &["is held: the lawyer asked for it", "copy release"]);
    delete(&all[2], &[]).fails(4, &["is the newest copy", "--break-chain"]);
    delete("20200101T000000Z", &[]).fails(2, &["has no copy 20200101T000000Z", "copy list"]);
    assert_eq!(world.names(), all);
    let text = ctl(&["copy", "list"]).success().stdout;
    assert!(text.contains("the lawyer asked for it"), "{text}");
    ctl(&["copy", "release", &of(&all[0])]).success();
    ctl(&["copy", "release", &of(&all[0])]).fails(2, &["has no hold"]);
    delete(&all[0], &[]).success();
    assert_eq!(world.names(), all[1..]);
    delete(&all[2], &["--break-chain"]).success();
    assert_eq!(world.names(), all[1..2]);
    // Without a terminal and without --yes nothing is deleted.
    ctl(&["copy", "delete", &of(&all[1])]).fails(2, &["not a terminal", "--yes"]);
}

#[test]
fn a_hold_outlives_every_rule_until_it_ends() {
    let mut world = World::new("keep = '2 days daily'\nprotect = '0s'");
    let held = world.push_at("-10d");
    let (name, ctl) = (of(&held), |world: &World, arguments: &[&str]| {
        world.hosts.receiver.ctl(arguments)
    });
    ctl(&world, &["copy", "hold", &name, "--until", "61 days"]).success();
    let newer: Vec<_> = ["-5d", "-4d", "-3d"]
        .into_iter()
        .map(|at| world.push_at(at))
        .collect();
    world.are_left(&[vec![held.clone()], newer[1..].to_vec()].concat());
    let about = world.about(&held);
    assert!(
        about["kept"].as_str().unwrap().starts_with("held until"),
        "{about}"
    );
    world.set("+2d");
    world.configure("keep = '2 days daily'\nprotect = '0s'");
    world.prune(&["--yes"]);
    world.are_left(&newer[1..]);
}

#[test]
fn a_time_is_corrected_within_its_neighbours() {
    let world = World::new("keep = 'all'");
    let all = world.push_daily(3);
    let ctl = |arguments: &[&str]| world.hosts.receiver.ctl(arguments);
    let committed = |name: &str| {
        world.about(name)["committed_at"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let between = committed(&all[0]);
    ctl(&["copy", "retime", &of(&all[1]), &between]).success();
    assert_eq!(committed(&all[1]), between);
    ctl(&["copy", "retime", &of(&all[1]), "2020-01-01"])
        .fails(2, &["is not between the copies before and after it"]);
    ctl(&["copy", "retime", &of(&all[1]), "soon"]).fails(2, &["is not a time"]);
}

#[test]
fn the_socket_group_may_look_and_not_touch() {
    let world = World::new("keep = 'all'");
    let all = world.push_daily(2);
    world
        .hosts
        .receiver
        .ctl(&["copy", "prune", "--yes"])
        .success();
    world
        .hosts
        .receiver
        .ctl(&["copy", "list", "nas1/photos"])
        .success();
    assert_eq!(world.names(), all);
}

#[test]
fn holds_and_pushes_at_the_same_time_lose_nothing() {
    let world = World::new("keep = 'all'");
    let all = world.push_daily(4);
    let held = |name: &str| world.about(name)["holds"].as_array().unwrap().len();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..12).for_each(|_| drop(world.push())));
        for name in &all {
            let (name, world) = (of(name), &world);
            scope.spawn(move || {
                for _ in 0..6 {
                    world.hosts.receiver.ctl(&["copy", "hold", &name]).success();
                }
            });
        }
    });
    for name in &all {
        assert_eq!(held(name), 6, "{name}");
    }
    let listed = world.listed();
    assert_eq!(listed.len(), 16);
    let certain = listed.iter().filter(|copy| copy["time_is_certain"] == true);
    assert_eq!(certain.count(), 16, "{listed:?}");
}

#[test]
fn the_sender_lists_what_the_receiver_held_at_the_last_push() {
    let world = World::new("keep = 'all'");
    let all = world.push_daily(3);
    let list = |options: &[&str]| {
        let sender = &world.hosts.sender;
        sender
            .ctl(&[&["--json", "list", "--copies"], options].concat())
            .success()
            .jsons()
    };
    let of = |held: &serde_json::Value| {
        assert_eq!(held["receiver"], "nas2");
        assert_eq!(held["volume"], "photos");
        assert!(
            held["root"].is_string() && held["as_of"].is_string(),
            "{held}"
        );
        assert_eq!(held["count"], held["copies"].as_array().unwrap().len());
        let names = held["copies"].as_array().unwrap().iter();
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        list(&[]).iter().map(of).collect::<Vec<_>>(),
        std::slice::from_ref(&all)
    );
    let text = world.hosts.sender.ctl(&["list"]).success().stdout;
    let line = text
        .lines()
        .find(|line| line.contains(&all[0]) && line.contains(&all[2]));
    assert!(line.is_some_and(|line| line.contains(" 3 ")), "{text}");
    // What is deleted there since is seen by the next push, and not before.
    let first = format!("nas1/photos/{}", all[0]);
    world
        .hosts
        .receiver
        .ctl(&["copy", "delete", &first, "--yes"])
        .success();
    assert_eq!(of(&list(&["nas2:photos"])[0]), all);
    let newest = world.push_at("+1d");
    assert_eq!(
        of(&list(&["nas2:photos"])[0]),
        [&all[1..], &[newest]].concat()
    );
    assert!(list(&["nas2:music"]).is_empty());
}

//! A sender that pushes in bulk runs into its own limits, takes nothing from others, and makes the
//! receiver remove nothing.

#![allow(clippy::unwrap_used, reason = "what fails in a test ends it")]

use std::collections::BTreeSet;
use std::fs;

use sendshot_tests::clock::Clock;
use sendshot_tests::exact::assert_exact;
use sendshot_tests::fill;
use sendshot_tests::hostile::scene::{Scene, VOLUME, VOLUME_ID};
use sendshot_tests::hostile::sender::{self, Answer, HostileSender, Then};
use sendshot_tests::pairing::pair;
use sendshot_tests::receiver_box::ReceiverBox;
use sendshot_tests::sender_box::SenderBox;
use sendshot_tests::subvolumes;

const MIB: usize = 1 << 20;

/// A receiver whose sender `nas1` has limits, and that sender with two volumes.
fn limited(limits: &str) -> (SenderBox, ReceiverBox) {
    let setup = SenderBox::setup().volume("photos", "photos");
    let sender = setup.volume("music", "music").start();
    let receiver = ReceiverBox::setup().make();
    let config = fs::read_to_string(receiver.config()).unwrap();
    fs::write(
        receiver.config(),
        format!("{config}\n[senders.nas1]\n{limits}\n"),
    )
    .unwrap();
    let mut receiver = receiver;
    receiver.daemon.start();
    pair(&sender, &receiver, "nas2");
    (sender, receiver)
}

/// Another sender of the same receiver, which has no limits.
fn another(receiver: &ReceiverBox) -> SenderBox {
    let other = SenderBox::new();
    let token = receiver.invite(&["other"]);
    let address = receiver.address().to_string();
    let arguments = ["pair", &address, "--name", "nas2", "--token", &token];
    other.ctl(&arguments).success();
    fill::file(other.photos().join("big"), 7, 20 * MIB);
    other
}

#[test]
fn a_sender_with_all_the_volumes_it_may_have_gets_no_further_one() {
    let (sender, receiver) = limited("max_volumes = 1");
    fill::tree(&sender.photos(), 1);
    sender.push("nas2:photos");
    let refused = sender.ctl(&["push", "nas2:music"]);
    refused.fails(4, &["all that it may have", "max_volumes"]);
    assert!(!receiver.root().join("nas1/music").exists());
    // What it has goes on.
    fs::write(sender.photos().join("new"), "new").unwrap();
    let pushed = sender.push("nas2:photos");
    assert_exact(&sender, &receiver, &pushed);
    let other = another(&receiver);
    assert_exact(&other, &receiver, &other.push("nas2:photos"));
}

#[test]
fn a_sender_with_all_the_bytes_it_may_have_gets_no_further_ones_and_keeps_its_copies() {
    let (sender, mut receiver) = limited("max_bytes = \"12 MiB\"");
    fill::file(sender.photos().join("big"), 1, 5 * MIB);
    let first = sender.push("nas2:photos");
    fill::file(sender.photos().join("big"), 2, 9 * MIB);
    let refused = sender.ctl(&["push", "nas2:photos"]);
    refused.fails(4, &["all that it may have", "max_bytes"]);
    // Another of its volumes does not get around it.
    fill::file(sender.fs().join("music/big"), 3, 9 * MIB);
    sender.ctl(&["push", "nas2:music"]).fails(4, &["max_bytes"]);
    let copies = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
    assert_eq!(copies.len(), 1, "a copy came or went: {copies:?}");
    assert_eq!(copies[0]["uuid"], first["uuid"]);
    let partials = receiver.ctl(&["copy", "list", "--partials", "--json"]);
    assert!(
        partials.success().jsons().is_empty(),
        "space was kept for it"
    );
    let other = another(&receiver);
    assert_exact(&other, &receiver, &other.push("nas2:photos"));
    // The administrator gives it more.
    let config = fs::read_to_string(receiver.config()).unwrap();
    fs::write(receiver.config(), config.replace("12 MiB", "120 MiB")).unwrap();
    receiver.daemon.stop();
    receiver.daemon.start();
    let pushed = sender.push("nas2:photos");
    assert_eq!(pushed["parent"], first["uuid"]);
    assert_exact(&sender, &receiver, &pushed);
}

#[test]
fn no_amount_of_pushing_makes_the_receiver_remove_anything() {
    let (sender, receiver) = limited("max_volumes = 2");
    let mut held = 0;
    for i in 0..8 {
        fs::write(sender.photos().join("file"), i.to_string()).unwrap();
        fs::write(sender.fs().join("music/file"), i.to_string()).unwrap();
        for volume in ["nas2:photos", "nas2:music"] {
            sender.push_with(
                volume,
                if i % 3 == 0 {
                    &["--parent", "none"]
                } else {
                    &[]
                },
            );
            held += 1;
            let copies = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
            assert_eq!(copies.len(), held, "a copy was removed: {copies:?}");
        }
    }
}

/// What whoever has a sender's key might try so that older copies are thrown away: junk in volumes of its own
/// and in the honest one, with dates of all times, and the receiver's own clock goes wrong besides.
#[test]
fn junk_volumes_and_dates_of_all_times_make_the_receiver_remove_nothing() {
    const YEAR_ZERO: i64 = -62_167_219_200;
    const YEAR_10000: i64 = 253_402_300_800;
    const DATES: [i64; 8] = [
        i64::MIN,
        YEAR_ZERO - 1,
        -1,
        0,
        1_795_000_000,
        YEAR_10000 - 1,
        YEAR_10000,
        i64::MAX,
    ];
    let mut scene = Scene::new();
    let clock = Clock::new();
    let copies = |scene: &Scene| -> BTreeSet<(String, String)> {
        let all = subvolumes::list(scene.boxes.receiver.fs()).into_iter();
        let copies = all.filter(|s| s.path.starts_with("backup/nas"));
        copies.map(|s| (s.path, s.uuid)).collect()
    };
    let mut held = copies(&scene);
    let mut pushed = 0;
    for (round, offset) in ["+0", "+3y", "-12h"].into_iter().enumerate() {
        clock.set(offset);
        clock.of(&mut scene.boxes.receiver.daemon);
        scene.hostile = HostileSender::connect(&scene.boxes.sender, &scene.boxes.receiver, "nas2");
        for (number, taken_at) in DATES.into_iter().enumerate() {
            let junk = format!("junk-{round}-{number}");
            let id = [u8::try_from(8 * round + number).unwrap(); 16];
            for (id, volume) in [(id, junk.as_str()), (VOLUME_ID, VOLUME)] {
                let world = scene.world();
                let mut begin = sender::begin(&world, id, volume);
                begin.taken_at = taken_at;
                let messages = sender::whole(begin, &world.whole(&[]));
                match scene.hostile.push(messages, Then::Wait) {
                    Answer::Committed(_) => pushed += 1,
                    Answer::Failure(failure) => assert!(!failure.message.is_empty()),
                    other => panic!("{volume}, taken at {taken_at}: {other:?}"),
                }
                let now = copies(&scene);
                assert!(now.is_superset(&held), "{:?} went", held.difference(&now));
                held = now;
            }
        }
    }
    assert!(
        pushed >= 3 * 2 * 4,
        "only {pushed} were taken: the test is too weak"
    );
    clock.set("+0");
    clock.of(&mut scene.boxes.receiver.daemon);
    fs::write(scene.boxes.sender.photos().join("new"), "new").unwrap();
    let honest = scene.boxes.sender.push("nas2:photos");
    assert_exact(&scene.boxes.sender, &scene.boxes.receiver, &honest);
    assert!(copies(&scene).is_superset(&held));
}

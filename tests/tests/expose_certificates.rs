//! Certificates renew themselves long before they end, without a restart and without breaking what runs.

#![allow(clippy::unwrap_used, reason = "what fails in a test ends it")]

use std::fs;

use sendshot_tests::clock::Clock;
use sendshot_tests::exact::assert_exact;
use sendshot_tests::fill;
use sendshot_tests::link::{Rule, Way};
use sendshot_tests::pairing::Linked;
use sendshot_tests::sender_box::SenderBox;
use sendshot_tests::until;

const MIB: usize = 1 << 20;

#[test]
fn a_certificate_renews_itself_while_a_push_runs_and_outlives_the_first_ones_end() {
    let setup = SenderBox::setup().volume("photos", "photos");
    let mut boxes = Linked::of(setup.volume("music", "music").start());
    let (here, there) = (Clock::new(), Clock::new());
    here.of(&mut boxes.sender.daemon);
    there.of(&mut boxes.receiver.daemon);
    let file = boxes.sender.receiver_file("nas2");
    let first = fs::read_to_string(&file).unwrap();
    fill::file(boxes.sender.photos().join("big"), 1, 24 * MIB);
    fill::tree(&boxes.sender.fs().join("music"), 2);

    boxes.link.set(Way::Up, Rule::Slow(4 << 20));
    let before = boxes.link.bytes(Way::Up);
    let running = boxes.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    until::holds("it transfers", || {
        boxes.link.bytes(Way::Up) > before + MIB as u64
    });
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        first,
        "renewed for nothing"
    );
    // In the last third of the five years that a sender's certificate lasts.
    here.set("+4y");
    there.set("+4y");
    boxes.sender.push("nas2:music");
    assert_ne!(
        fs::read_to_string(&file).unwrap(),
        first,
        "it was not renewed"
    );
    boxes.link.mend();
    let pushed = running.finish().success().json();
    boxes.sender.wait_until_released();
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);

    // When the first one would be over, and the receiver's own is in its last third.
    here.set("+7y");
    there.set("+7y");
    fs::write(boxes.sender.photos().join("new"), "new").unwrap();
    let pushed = boxes.sender.push("nas2:photos");
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    let ends = boxes
        .receiver
        .ctl(&["peer", "list", "--json"])
        .success()
        .jsons();
    assert!(!ends.is_empty());
}

#[test]
fn a_clock_that_is_wrong_by_years_is_named_as_the_reason() {
    let mut boxes = Linked::new();
    let clock = Clock::new();
    clock.of(&mut boxes.sender.daemon);
    fs::write(boxes.sender.photos().join("file"), "x").unwrap();
    boxes.sender.push("nas2:photos");
    for wrong in ["-3y", "+30y"] {
        clock.set(wrong);
        let refused = boxes.sender.ctl(&["push", "nas2:photos"]);
        refused.fails(4, &["clock"]);
    }
    clock.set("+0");
    let pushed = boxes.sender.push("nas2:photos");
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
}

//! Harness for scenarios on real btrfs. They need root, and say so without it.
//!
//! A scenario makes boxes, has something happen to them, and looks at what came of it. Each box has a
//! file system of its own on a loop device in memory, and a daemon; everything is gone when they are
//! dropped, also when the test fails. A warning or error in a daemon's log that the test has not
//! declared ([`daemon::Daemon::may_log`]) fails it.
//!
//! | to | use |
//! |---|---|
//! | have two boxes that know each other | [`pairing::Paired`], or [`pairing::Linked`] with a link between |
//! | cut, stall, slow, delay or corrupt what goes over the link, now or behind a byte | [`link::Link::set`], [`link::Link::set_after`] |
//! | count what went over | [`link::Link::bytes`] |
//! | kill a daemon, or have it die at a named place | [`daemon::Daemon::kill`]; [`fail_points`] with [`daemon::Daemon::env`] |
//! | cut a box's power | made with `.power()`: [`sender_box::SenderBox::power_cut`], [`receiver_box::ReceiverBox::power_cut`] |
//! | have a peer that lies | [`liar::Liar`] |
//! | have a receiver that answers anything | [`hostile::receiver::HostileReceiver`] |
//! | have the clock jump | [`clock::Clock`] |
//! | fill a volume, change it at random | [`fill`], [`changes`], [`zoo`] |
//! | have a file that a disk has lost | [`damage::Damage`] |
//! | look at the reasons that are stated | [`reasons`] |
//! | have a sendshot describe what is not there | [`ghosts::add`] |
//! | compare a copy with what was snapshotted | [`exact::assert_exact`] |
//! | compare inode flags of a copy | [`inode_flags::compare`] |
//! | see that nothing is left that nobody owns | [`subvolumes::assert_no_leftovers`] |
//! | all of it at random | [`torture`], `make torture` |
//!
//! ```no_run
//! use crate::compare::exact::assert_exact;
//! use crate::trees::fill;
//! use crate::faults::link::{Rule, Way};
//! use crate::hosts::pairing::Linked;
//!
//! let boxes = Linked::new();
//! fill::tree(&boxes.sender.photos(), 1);
//! boxes.link.set_after(Way::Up, 300_000, Rule::Cut);
//! boxes.sender.ctl(&["push", "nas2:photos"]).fails(3, &["nas2"]);
//! let pushed = boxes.sender.push("nas2:photos");
//! assert_exact(&boxes.sender, &boxes.receiver, &pushed);
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a test ends it, and where says enough"
)]

pub mod compare;
pub mod disks;
pub mod faults;
pub mod hosts;
pub mod trees;

/// BLAKE3 of some bytes, as what lies on disk is checked by it.
pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

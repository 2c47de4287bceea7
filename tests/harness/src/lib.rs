//! Harness for scenarios on real btrfs. They need root, and say so without it.
//!
//! A scenario makes hosts, has something happen to them, and looks at what came of it. Each host has a
//! file system of its own on a loop device in memory, and a daemon; everything is gone when they are
//! dropped, also when the test fails. A warning or error in a daemon's log that the test has not
//! declared ([`hosts::daemon::Daemon::may_log`]) fails it.
//!
//! | to | use |
//! |---|---|
//! | have two hosts that know each other | [`hosts::pairing::Paired`], or [`hosts::pairing::Linked`] with a link between |
//! | cut, stall, slow, delay or corrupt what goes over the link, now or behind a byte | [`faults::link::Link::set`], [`faults::link::Link::set_after`] |
//! | count what went over | [`faults::link::Link::bytes`] |
//! | kill a daemon, or have it die at a named place | [`hosts::daemon::Daemon::kill`]; [`faults::fail_points`] with [`hosts::daemon::Daemon::env`] |
//! | cut a host's power | made with `.power()`: [`hosts::sender_host::SenderHost::power_cut`], [`hosts::receiver_host::ReceiverHost::power_cut`] |
//! | have a peer that lies, or one that answers anything | the crate `sendshot-adversary` |
//! | have the clock jump | [`hosts::clock::Clock`] |
//! | fill a volume, change it at random | [`trees::fill`], [`trees::changes`], [`trees::every_file_kind`] |
//! | have a file that a disk has lost | [`faults::damage::Damage`] |
//! | look at the reasons that are stated | [`compare::reasons`] |
//! | have a sendshot describe what is not there | [`trees::ghosts::add`] |
//! | compare a copy with what was snapshotted | [`compare::exact::assert_exact`] |
//! | compare inode flags of a copy | [`compare::inode_flags::compare`] |
//! | see that nothing is left that nobody owns | [`compare::subvolumes::assert_no_leftovers`] |
//! | all of it at random | the crate `sendshot-torture`, `make torture` |
//!
//! ```no_run
//! use sendshot_harness::compare::exact::assert_exact;
//! use sendshot_harness::trees::fill;
//! use sendshot_harness::faults::link::{Rule, Way};
//! use sendshot_harness::hosts::pairing::Linked;
//!
//! let hosts = Linked::new();
//! fill::tree(&hosts.sender.photos(), 1);
//! hosts.link.set_after(Way::Up, 300_000, Rule::Cut);
//! hosts.sender.ctl(&["push", "nas2:photos"]).fails(3, &["nas2"]);
//! let pushed = hosts.sender.push("nas2:photos");
//! assert_exact(&hosts.sender, &hosts.receiver, &pushed);
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

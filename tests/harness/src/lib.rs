//! Harness for scenarios on real btrfs. They need root, and fail with that reason without it.
//!
//! A scenario makes hosts, applies events and faults to them, and checks the outcome. Each host has its own
//! file system on a loop device in memory, and a daemon; everything is deleted on drop, also when the test
//! fails. A warning or error in a daemon's log that the test has not declared
//! ([`hosts::daemon::Daemon::may_log`]) fails it.
//!
//! | to | use |
//! |---|---|
//! | have two paired hosts | [`hosts::pairing::Paired`], or [`hosts::pairing::Linked`] with a link between |
//! | cut, stall, slow, delay or corrupt the traffic of the link, now or after a byte | [`faults::link::Link::set`], [`faults::link::Link::set_after`] |
//! | count the bytes of the link | [`faults::link::Link::bytes`] |
//! | kill a daemon, or make it die at a fail point | [`hosts::daemon::Daemon::kill`]; [`faults::fail_points`] with [`hosts::daemon::Daemon::env`] |
//! | cut a host's power | made with `.power()`: [`hosts::sender_host::SenderHost::power_cut`], [`hosts::receiver_host::ReceiverHost::power_cut`] |
//! | have a lying peer, or one with arbitrary responses | the crate `sendshot-adversary` |
//! | make the clock jump | [`hosts::clock::Clock`] |
//! | fill a volume, change it at random | [`trees::fill`], [`trees::changes`], [`trees::every_file_kind`] |
//! | have a file system that keeps almost nothing | [`disks::simple_fs::SimpleFs`] |
//! | damage a file on its disk | [`faults::damage::Damage`] |
//! | check the stated reasons | [`compare::reasons`] |
//! | make a sendshot describe a file that does not exist | [`trees::ghosts::add`] |
//! | compare a copy with its snapshot | [`compare::exact::assert_exact`] |
//! | compare inode flags of a copy | [`compare::inode_flags::compare`] |
//! | check that no subvolume is left without an owner | [`compare::subvolumes::assert_no_leftovers`] |
//! | all of it at random | the crate `sendshot-torture`, `make torture`, `make torture-restore` |
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
    reason = "a failure in a test ends it, and its location says enough"
)]

pub mod compare;
pub mod disks;
pub mod faults;
pub mod hosts;
pub mod trees;

/// BLAKE3 hash of some bytes, as stored on disk.
pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

//! Paired hosts.

use std::net::SocketAddr;

use crate::faults::link::Link;
use crate::hosts::receiver_host::ReceiverHost;
use crate::hosts::sender_host::{NAME, SenderHost};

/// Pairs a sender with a receiver over a direct connection.
///
/// # Panics
/// If pairing fails.
#[track_caller]
pub fn pair(sender: &SenderHost, receiver: &ReceiverHost, name: &str) {
    pair_at(sender, receiver, name, receiver.address());
}

/// Pairs a sender with a receiver that it reaches at another address.
///
/// # Panics
/// If pairing fails.
#[track_caller]
pub fn pair_at(sender: &SenderHost, receiver: &ReceiverHost, name: &str, address: SocketAddr) {
    let token = receiver.invite(&[NAME]);
    let address = address.to_string();
    let arguments = ["pair", &address, "--name", name, "--token", &token];
    sender.ctl(&arguments).success();
}

/// A sender with one volume `photos`, and a receiver that it knows as `nas2`, directly connected.
#[derive(Debug)]
pub struct Paired {
    /// The sending host.
    pub sender: SenderHost,
    /// The receiving host.
    pub receiver: ReceiverHost,
}

impl Paired {
    /// Makes both hosts.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    pub fn new() -> Self {
        Self::of(SenderHost::new())
    }

    /// Pairs a given sender with a new receiver.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    pub fn of(sender: SenderHost) -> Self {
        let receiver = ReceiverHost::new();
        pair(&sender, &receiver, "nas2");
        Self { sender, receiver }
    }
}

impl Paired {
    /// Pairs given hosts.
    ///
    /// # Panics
    /// If they cannot be paired.
    #[track_caller]
    pub fn between(sender: SenderHost, receiver: ReceiverHost) -> Self {
        pair(&sender, &receiver, "nas2");
        Self { sender, receiver }
    }
}

impl Default for Paired {
    fn default() -> Self {
        Self::new()
    }
}

/// As [`Paired`], with a link between the hosts.
#[derive(Debug)]
pub struct Linked {
    /// The sending host.
    pub sender: SenderHost,
    /// The link between them.
    pub link: Link,
    /// The receiving host.
    pub receiver: ReceiverHost,
}

impl Linked {
    /// Makes both hosts and the link.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    pub fn new() -> Self {
        Self::of(SenderHost::new())
    }

    /// Links a given sender with a new receiver.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    pub fn of(sender: SenderHost) -> Self {
        Self::between(sender, ReceiverHost::new())
    }

    /// Links given hosts.
    ///
    /// # Panics
    /// If they cannot be paired.
    #[track_caller]
    pub fn between(sender: SenderHost, receiver: ReceiverHost) -> Self {
        let link = Link::to(receiver.address());
        pair_at(&sender, &receiver, "nas2", link.address());
        Self {
            sender,
            link,
            receiver,
        }
    }
}

impl Default for Linked {
    fn default() -> Self {
        Self::new()
    }
}

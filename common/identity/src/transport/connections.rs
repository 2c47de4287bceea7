//! The open connections of a port: bounded for each peer, and closed when a peer is no longer authorised.
//!
//! Any host can connect without a certificate, since pairing uses the same port: these connections are few,
//! and short-lived. A sender may have as many as it can use. Beyond the limit, the oldest one of the same
//! kind is closed, so that a peer that keeps connections open takes no place from others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::transport::peer::PeerId;

/// Maximum number of connections of one sender. It uses one for each push and one for queries.
const MAX_OF_ONE: usize = 32;

/// Maximum number of connections without a certificate.
const MAX_OF_STRANGERS: usize = 64;

/// Life of a connection without a certificate: pairing is one call.
pub(crate) const STRANGER_LIFE: Duration = Duration::from_secs(60);

/// All open connections.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// By age, the oldest first.
    open: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: Option<PeerId>,
    end: CancellationToken,
}

/// The entry of one connection, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    all: Connections,
    number: u64,
    /// Cancelled when the connection must end.
    pub(crate) end: CancellationToken,
}

impl Connections {
    /// Adds a connection; closes the oldest of the same peer if there are too many.
    pub(crate) fn enter(&self, peer: Option<PeerId>) -> Open {
        let mut table = self.lock();
        let most = match peer {
            Some(_) => MAX_OF_ONE,
            None => MAX_OF_STRANGERS,
        };
        let same: Vec<u64> = table.numbers_of(peer).collect();
        let excess = (same.len() + 1).saturating_sub(most);
        for number in same.into_iter().take(excess) {
            table.end(number);
        }
        let end = CancellationToken::new();
        let number = table.next;
        table.next += 1;
        let entry = Entry {
            peer,
            end: end.clone(),
        };
        table.open.insert(number, entry);
        Open {
            all: self.clone(),
            number,
            end,
        }
    }

    /// Closes all connections of a peer; returns their number.
    pub fn end_all_of(&self, peer: PeerId) -> usize {
        let mut table = self.lock();
        let numbers: Vec<u64> = table.numbers_of(Some(peer)).collect();
        for number in &numbers {
            table.end(*number);
        }
        numbers.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn numbers_of(&self, peer: Option<PeerId>) -> impl Iterator<Item = u64> + '_ {
        let same = self
            .open
            .iter()
            .filter(move |(_, entry)| entry.peer == peer);
        same.map(|(number, _)| *number)
    }

    fn end(&mut self, number: u64) {
        if let Some(entry) = self.open.remove(&number) {
            entry.end.cancel();
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.lock().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use sendshot_model::SenderId;

    use super::*;

    #[test]
    fn excess_connections_close_the_senders_oldest() {
        let all = Connections::default();
        let (greedy, other) = (SenderId::generate(), SenderId::generate());
        let others = all.enter(Some(PeerId::Sender(other)));
        let mut open: Vec<Open> = (0..MAX_OF_ONE + 3)
            .map(|_| all.enter(Some(PeerId::Sender(greedy))))
            .collect();
        let ended = open.iter().filter(|open| open.end.is_cancelled()).count();
        assert_eq!(ended, 3);
        assert!(open[..3].iter().all(|open| open.end.is_cancelled()));
        assert!(!others.end.is_cancelled());
        // A closed connection makes room.
        open.pop();
        let next = all.enter(Some(PeerId::Sender(greedy)));
        assert!(!open[3].end.is_cancelled() && !next.end.is_cancelled());
    }

    #[test]
    fn strangers_are_bounded_together() {
        let all = Connections::default();
        let sender = all.enter(Some(PeerId::Sender(SenderId::generate())));
        let open: Vec<Open> = (0..2 * MAX_OF_STRANGERS).map(|_| all.enter(None)).collect();
        let live = open.iter().filter(|open| !open.end.is_cancelled()).count();
        assert_eq!(live, MAX_OF_STRANGERS);
        assert!(!sender.end.is_cancelled());
    }

    #[test]
    fn all_of_one_end_at_once() {
        let all = Connections::default();
        let (bad, good) = (SenderId::generate(), SenderId::generate());
        let bad_ones = [(); 3].map(|()| all.enter(Some(PeerId::Sender(bad))));
        let good_one = all.enter(Some(PeerId::Sender(good)));
        assert_eq!(all.end_all_of(PeerId::Sender(bad)), 3);
        assert!(bad_ones.iter().all(|open| open.end.is_cancelled()));
        assert!(!good_one.end.is_cancelled());
        assert_eq!(all.end_all_of(PeerId::Sender(bad)), 0);
    }
}

//! A network link between two hosts, controlled by the test.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

use crate::hosts::address;

/// Small, so that a rule takes effect at once instead of after megabytes of buffers.
const BUFFER: usize = 64 * 1024;

/// Bytes moved at a time.
const PIECE: usize = 16 * 1024;

/// A direction of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the side that connects to the side that listens.
    Up = 0,
    /// From the side that listens to the side that connects.
    Down = 1,
}

/// What happens to bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// They arrive.
    Pass,
    /// They arrive at this many bytes per second.
    Slow(u64),
    /// They are not read: the sending side finds its buffers full.
    Stall,
    /// They are read and dropped.
    Lose,
    /// They arrive, each piece delayed by this time.
    Delay(Duration),
    /// The bit with this number is flipped in the next byte; then all bytes pass.
    Flip(u8),
    /// Open connections are reset once; later connections pass.
    Cut,
    /// Open connections are reset, and new ones refused until the link is mended.
    Sever,
}

#[derive(Debug)]
struct Direction {
    rule: Rule,
    /// Rule that replaces the current one once this many bytes have passed since the link was made.
    then: Option<(u64, Rule)>,
    bytes: u64,
}

impl Direction {
    /// Returns the rule for the next bytes, and how many it applies to.
    fn next(&mut self) -> (Rule, usize) {
        match self.then {
            Some((at, rule)) if self.bytes >= at => {
                self.rule = rule;
                self.then = None;
                (rule, PIECE)
            }
            Some((at, _)) => (self.rule, PIECE.min((at - self.bytes) as usize)),
            None => (self.rule, PIECE),
        }
    }
}

#[derive(Debug)]
struct State {
    up: bool,
    gone: bool,
    target: SocketAddr,
    directions: [Direction; 2],
    open: Vec<TcpStream>,
    faults: u64,
}

impl State {
    /// Returns the rule for the next bytes, and how many it applies to. Makes a cut even if no byte
    /// follows; then returns `None`, because the connection is gone.
    fn next(&mut self, way: Way) -> Option<(Rule, usize)> {
        if self.gone {
            return None;
        }
        let next = self.directions[way as usize].next();
        if !matches!(next.0, Rule::Cut | Rule::Sever) {
            return Some(next);
        }
        self.up = next.0 == Rule::Cut;
        self.directions[way as usize].rule = Rule::Pass;
        self.faults += 1;
        hang_up(self);
        None
    }

    /// Flips the bit that a [`Rule::Flip`] asks for.
    fn corrupt(&mut self, way: Way, piece: &mut [u8]) {
        if let Rule::Flip(bit) = self.directions[way as usize].rule {
            piece[0] ^= 1 << (bit % 8);
            self.directions[way as usize].rule = Rule::Pass;
            self.faults += 1;
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// A proxy that forwards connections to one address. Ends all of them on drop.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Link {
    /// Makes a link to an address, on which everything passes.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn to(target: SocketAddr) -> Self {
        let listener = address::listen();
        let address = listener.local_addr().unwrap();
        let direction = || Direction {
            rule: Rule::Pass,
            then: None,
            bytes: 0,
        };
        let state = State {
            up: true,
            gone: false,
            target,
            directions: [direction(), direction()],
            open: Vec::new(),
            faults: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { shared, address }
    }

    /// Address that it listens at.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that have passed in one direction.
    pub fn bytes(&self, way: Way) -> u64 {
        self.shared.lock().directions[way as usize].bytes
    }

    /// Number of cuts and flips made so far by rules.
    pub fn faults(&self) -> u64 {
        self.shared.lock().faults
    }

    /// Sends later connections to another address; open ones stay as they are.
    pub fn aim(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// Resets open connections; later ones pass.
    pub fn reset(&self) {
        hang_up(&mut self.shared.lock());
    }

    /// Sets the rule of one direction from now on.
    pub fn set(&self, way: Way, rule: Rule) {
        let mut state = self.shared.lock();
        let direction = &mut state.directions[way as usize];
        (direction.rule, direction.then) = (rule, None);
        self.shared.changed.notify_all();
    }

    /// Sets the rule that applies to one direction after `more` further bytes.
    pub fn set_after(&self, way: Way, more: u64, rule: Rule) {
        let mut state = self.shared.lock();
        let direction = &mut state.directions[way as usize];
        direction.then = Some((direction.bytes + more, rule));
    }

    /// Resets open connections and refuses new ones.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.up = false;
        hang_up(&mut state);
        self.shared.changed.notify_all();
    }

    /// Undoes [`cut`](Self::cut) and all rules.
    pub fn mend(&self) {
        let mut state = self.shared.lock();
        state.up = true;
        for direction in &mut state.directions {
            (direction.rule, direction.then) = (Rule::Pass, None);
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.gone = true;
            hang_up(&mut state);
            self.shared.changed.notify_all();
        }
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

fn hang_up(state: &mut State) {
    for stream in state.open.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        if shared.lock().gone {
            return;
        }
        if shared.lock().up {
            // If the target does not answer, the client finds its connection closed.
            let _ = connect(client, shared);
        }
    }
}

fn connect(client: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    let target = shared.lock().target;
    let server = TcpStream::connect(target)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        set_socket_recv_buffer_size(stream, BUFFER)?;
        set_socket_send_buffer_size(stream, BUFFER)?;
    }
    let mut state = shared.lock();
    for (way, from, to) in [(Way::Up, &client, &server), (Way::Down, &server, &client)] {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let shared = Arc::clone(shared);
        thread::spawn(move || pump(&shared, way, from, to));
    }
    state.open.extend([client, server]);
    Ok(())
}

/// Moves bytes in one direction until either end closes.
fn pump(shared: &Shared, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; PIECE];
    while let Some((rule, most)) = next(shared, way) {
        let Ok(len @ 1..) = from.read(&mut piece[..most]) else {
            break;
        };
        // The rule may have changed while the read waited.
        let rule = match next(shared, way) {
            Some((Rule::Lose, _)) => Rule::Lose,
            Some(_) => rule,
            None => break,
        };
        match rule {
            Rule::Slow(rate) => thread::sleep(Duration::from_secs_f64(len as f64 / rate as f64)),
            Rule::Delay(time) => thread::sleep(time),
            Rule::Pass | Rule::Stall | Rule::Lose | Rule::Flip(_) | Rule::Cut | Rule::Sever => {}
        }
        {
            let mut state = shared.lock();
            state.corrupt(way, &mut piece[..len]);
            state.directions[way as usize].bytes += len as u64;
        }
        if rule != Rule::Lose && to.write_all(&piece[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// Waits while the direction is stalled. Returns `None` once the link or the connection is gone.
fn next(shared: &Shared, way: Way) -> Option<(Rule, usize)> {
    let mut state = shared.lock();
    loop {
        match state.next(way)? {
            (Rule::Stall, _) => state = shared.changed.wait(state).unwrap(),
            other => return Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link to a server that sends back what it receives.
    fn echo() -> Link {
        let listener = address::listen();
        let link = Link::to(listener.local_addr().unwrap());
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut piece = [0; PIECE];
                    while let Ok(len @ 1..) = stream.read(&mut piece) {
                        let _ = stream.write_all(&piece[..len]);
                    }
                });
            }
        });
        link
    }

    /// Sends `len` zero bytes, and returns what comes back until the connection ends or `len` bytes
    /// have arrived.
    fn exchange(link: &Link, len: usize) -> Vec<u8> {
        let mut stream = TcpStream::connect(link.address()).unwrap();
        let _ = stream.write_all(&vec![0; len]);
        let mut back = Vec::new();
        let _ = stream.take(len as u64).read_to_end(&mut back);
        back
    }

    #[test]
    fn one_bit_of_one_byte_is_flipped() {
        let link = echo();
        link.set_after(Way::Up, 70_000, Rule::Flip(3));
        let mut expected = vec![0; 100_000];
        expected[70_000] = 8;
        assert_eq!(exchange(&link, 100_000), expected);
        assert_eq!(exchange(&link, 100_000), vec![0; 100_000], "only once");
        assert_eq!(link.faults(), 1);
    }

    #[test]
    fn a_cut_is_made_where_it_was_set_and_comes_back_by_itself() {
        let link = echo();
        link.set_after(Way::Down, 12_345, Rule::Cut);
        assert!(exchange(&link, 50_000).len() <= 12_345);
        assert_eq!(link.bytes(Way::Down), 12_345);
        assert_eq!(exchange(&link, 50_000).len(), 50_000);
        assert_eq!(link.faults(), 1);
    }

    #[test]
    fn a_severed_link_stays_down_until_mended() {
        let link = echo();
        link.set_after(Way::Up, 10, Rule::Sever);
        for _ in 0..2 {
            assert!(exchange(&link, 20).len() <= 10);
        }
        link.mend();
        assert_eq!(exchange(&link, 20).len(), 20);
    }
}

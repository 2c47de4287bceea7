//! A link with a delay and a rate: a proxy through which the bytes of a connection arrive later.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// A link to an address.
#[derive(Debug, Clone, Copy)]
pub struct DelayedLink {
    /// Where to connect.
    pub address: SocketAddr,
}

impl DelayedLink {
    /// Makes a link at `listener` to `target`. Each piece of data arrives half a round trip after it was sent, and not before
    /// the data in front of it has passed at `rate` bytes a second. It carries connections as long as the process lives.
    ///
    /// # Panics
    /// If the listener has no address.
    #[must_use]
    pub fn new(listener: TcpListener, target: SocketAddr, round_trip: Duration, rate: f64) -> Self {
        let address = listener.local_addr().expect("the link has an address");
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let Ok(onward) = TcpStream::connect(target) else {
                    continue;
                };
                for connection in [&connection, &onward] {
                    let _ = connection.set_nodelay(true);
                }
                let (Ok(back), Ok(forth)) = (connection.try_clone(), onward.try_clone()) else {
                    continue;
                };
                let delay = round_trip / 2;
                thread::spawn(move || carry(connection, onward, delay, rate));
                thread::spawn(move || carry(forth, back, delay, rate));
            }
        });
        Self { address }
    }
}

/// Carries one direction. What is on the way is not limited: it is what the sender's window allows.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration, rate: f64) {
    let (send, arrive) = mpsc::channel::<(Instant, Vec<u8>)>();
    let arriving = thread::spawn(move || {
        while let Ok((at, piece)) = arrive.recv() {
            let now = Instant::now();
            if at > now {
                thread::sleep(at - now);
            }
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let mut free = Instant::now();
    let mut buffer = vec![0; PIECE];
    while let Ok(len) = from.read(&mut buffer) {
        if len == 0 {
            break;
        }
        free = free.max(Instant::now()) + Duration::from_secs_f64(len as f64 / rate);
        // A full link takes no more.
        let ahead = free.saturating_duration_since(Instant::now());
        if ahead > Duration::from_millis(5) {
            thread::sleep(ahead - Duration::from_millis(2));
        }
        if send.send((free + delay, buffer[..len].to_vec())).is_err() {
            break;
        }
    }
    drop(send);
    let _ = arriving.join();
}

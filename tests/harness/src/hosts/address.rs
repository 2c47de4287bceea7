//! Loopback addresses that no other test uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};

/// Default port of a receiver's address.
pub const PORT: u16 = 7117;

static NEXT: AtomicU8 = AtomicU8::new(1);

/// Returns an address from [`listen`] for use by a later listener.
///
/// # Panics
/// If none of this process's addresses is free.
pub fn own() -> SocketAddr {
    listen().local_addr().unwrap()
}

/// Listens at an address in 127.0.0.0/8 made from the process id and a counter: concurrent tests, in
/// one process or several, never wait for or reach each other's daemons.
///
/// # Panics
/// If none of this process's addresses is free.
pub fn listen() -> TcpListener {
    let id = process::id();
    let (high, low) = (1 + (id >> 8) % 250, id & 0xff);
    for _ in 0..250 {
        let last = NEXT.fetch_add(1, Ordering::Relaxed);
        let ip = Ipv4Addr::new(127, high as u8, low as u8, last);
        let address = SocketAddr::from((ip, PORT));
        if last == 0 || last == 255 {
            continue;
        }
        if let Ok(listener) = TcpListener::bind(address) {
            return listener;
        }
    }
    panic!("no loopback address is free");
}

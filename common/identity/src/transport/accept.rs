//! Accepts connections, with the handshakes outside the accept loop.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::transport::connections::Connections;
use crate::transport::peer::PeerIdentityError;
use crate::transport::stream::{self, PeerStream};

/// A handshake takes two round trips; a peer that needs longer than this only occupies a slot.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of simultaneous handshakes. Each costs a signature and memory before the peer is
/// authenticated. When all slots are taken, the oldest handshake is aborted: an honest one is done after two
/// round trips, so only a flood of this size within that time could displace it, and not peers that hold a
/// connection open and send nothing.
const PENDING_HANDSHAKES: usize = 256;

/// How long data of a peer is still read after its handshake has failed.
const LINGER: Duration = Duration::from_secs(1);

/// Number of connections that wait for the server; a few suffice, since it takes them at once.
const READY: usize = 16;

/// Pause after a failed accept: without free descriptors, it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Yields the connections of a listener after their TLS handshake.
///
/// It ends, and drops the listener and the connections not yet yielded, when the receiver of the channel is
/// closed or dropped. The items have the type that tonic expects; none is an error.
pub fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    connections: Connections,
) -> mpsc::Receiver<io::Result<PeerStream>> {
    let (ready, yielded) = mpsc::channel(READY);
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(accept_loop(listener, acceptor, connections, ready));
    yielded
}

async fn accept_loop(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: Connections,
    ready: mpsc::Sender<io::Result<PeerStream>>,
) {
    // It owns the handshakes, which end with this function.
    let mut handshakes = JoinSet::new();
    let mut by_age = VecDeque::new();
    loop {
        tokio::select! {
            () = ready.closed() => return,
            Some(_) = handshakes.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, addr)) => {
                    make_room(&mut by_age);
                    let (acceptor, connections) = (acceptor.clone(), connections.clone());
                    let work = yield_one(acceptor, tcp, addr, connections, ready.clone());
                    by_age.push_back(handshakes.spawn(work));
                }
                Err(error) => pause(&error).await,
            },
        }
    }
}

/// Aborts the oldest running handshakes that exceed the number of slots.
fn make_room(by_age: &mut VecDeque<AbortHandle>) {
    by_age.retain(|handshake| !handshake.is_finished());
    while by_age.len() >= PENDING_HANDSHAKES {
        if let Some(oldest) = by_age.pop_front() {
            oldest.abort();
        }
    }
}

async fn yield_one(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    addr: SocketAddr,
    connections: Connections,
    ready: mpsc::Sender<io::Result<PeerStream>>,
) {
    match handshake(acceptor, tcp, addr).await {
        // An error means that the server no longer takes connections.
        Ok(stream) => drop(ready.send(Ok(stream.among(&connections))).await),
        // Port scanners and health checks cause this often.
        Err(error) => tracing::info!(peer = %addr, %error, "no TLS connection made"),
    }
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Identity(#[from] PeerIdentityError),
}

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    addr: SocketAddr,
) -> Result<PeerStream, HandshakeError> {
    stream::prepare(&tcp)?;
    let began = Instant::now();
    let handshake = acceptor.accept(tcp).into_fallible();
    let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| HandshakeError::Timeout)?;
    match tls {
        Ok(tls) => Ok(PeerStream::new(tls, addr, began.elapsed())?),
        Err((error, tcp)) => {
            let _ = tokio::time::timeout(LINGER, part(tcp)).await;
            Err(error.into())
        }
    }
}

/// Closes a connection such that the peer receives the alert with the reason. The peer has sent more
/// meanwhile: closing with unread data would send a reset, which overtakes the alert.
async fn part(mut tcp: TcpStream) -> io::Result<()> {
    tcp.shutdown().await?;
    let mut unread = [0; 4096];
    while tcp.read(&mut unread).await? > 0 {}
    Ok(())
}

async fn pause(error: &io::Error) {
    match error.kind() {
        // The peer gave up before it was accepted.
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        _ => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

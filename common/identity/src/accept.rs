//! Taking connections, with the handshakes off the accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::peer::PeerIdentityError;
use crate::stream::{self, PeerStream};

/// A handshake is two round trips; who needs longer than this only holds a slot.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at a time. Each costs a signature and memory before anybody is authenticated; when
/// all slots are taken, the kernel's backlog holds the rest.
const PENDING_HANDSHAKES: usize = 64;

/// Connections that wait for the server to take them; a few, since it takes them at once.
const READY: usize = 16;

/// Pause after a failed accept: out of descriptors, it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Yields the connections of a listener once their TLS handshake is done.
///
/// It ends, and drops the listener and what is not yet yielded, when the receiver of the channel
/// is closed or dropped. The items have tonic's shape; none is an error.
pub fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> mpsc::Receiver<io::Result<PeerStream>> {
    let (ready, yielded) = mpsc::channel(READY);
    tokio::spawn(accept_loop(listener, TlsAcceptor::from(config), ready));
    yielded
}

async fn accept_loop(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<io::Result<PeerStream>>,
) {
    // Owns the handshakes: they end with this function.
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            () = ready.closed() => return,
            Some(_) = handshakes.join_next() => {}
            accepted = listener.accept(), if handshakes.len() < PENDING_HANDSHAKES => match accepted {
                Ok((tcp, addr)) => {
                    handshakes.spawn(yield_one(acceptor.clone(), tcp, addr, ready.clone()));
                }
                Err(error) => pause(&error).await,
            },
        }
    }
}

async fn yield_one(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    addr: SocketAddr,
    ready: mpsc::Sender<io::Result<PeerStream>>,
) {
    match handshake(acceptor, tcp, addr).await {
        // An error means that nobody takes connections any more.
        Ok(stream) => drop(ready.send(Ok(stream)).await),
        // Port scanners and health checks do this all day.
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
    let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp))
        .await
        .map_err(|_| HandshakeError::Timeout)??;
    Ok(PeerStream::new(tls, addr)?)
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

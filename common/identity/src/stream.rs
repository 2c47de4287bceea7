//! A TLS connection that knows who is at the other end.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

use crate::peer::{PeerIdentity, PeerIdentityError};

/// A peer that was unplugged is noticed after a minute (30 s + 3 × 10 s): soon enough to resume,
/// late enough for a router to restart.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// Who is at the other end; found among a request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its address.
    pub addr: SocketAddr,
    /// Whom its certificate names; none if it showed none. This is who it is, not what it may do.
    pub identity: Option<PeerIdentity>,
}

/// A TLS connection, made by either end.
#[derive(Debug)]
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    info: PeerInfo,
}

impl PeerStream {
    /// Takes over a connection whose handshake is done.
    pub(crate) fn new(
        tls: impl Into<TlsStream<TcpStream>>,
        addr: SocketAddr,
    ) -> Result<Self, PeerIdentityError> {
        let tls = tls.into();
        let identity = match chain(&tls) {
            [] => None,
            chain => Some(PeerIdentity::from_certificates(chain)?),
        };
        Ok(Self {
            tls,
            info: PeerInfo { addr, identity },
        })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// The certificates the peer presented, its own first.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        chain(&self.tls)
    }
}

fn chain(tls: &TlsStream<TcpStream>) -> &[CertificateDer<'static>] {
    tls.get_ref().1.peer_certificates().unwrap_or_default()
}

/// What every connection of ours is set to before TLS begins. gRPC writes small control frames
/// that must not wait for more, hence no delay.
pub(crate) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_COUNT)?)
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    // Without these two, h2 would copy every payload into one buffer.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

//! A connection to a receiver: mutual TLS and HTTP/2, after the first call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use sendshot_config::ReceiverEntry;
use sendshot_identity::{ConnectError, SenderKey};
use sendshot_model::{ReceiverId, SenderId};
use sendshot_proto::hello::{Support, Welcome};
use sendshot_proto::transfer::{FRAME, MAX_MESSAGE, Windows};
use sendshot_proto::v1;
use sendshot_proto::v1::replication_client::ReplicationClient;
use sendshot_sys::filesystem;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::connection::call::{MAX_ANSWER, failed};
use crate::connection::error::Error;
use crate::connection::hello::hello;
use crate::connection::wire::{Counted, WireBytes};
use sendshot_proto::problem::with_causes;

/// Longest wait for TCP and TLS together.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// How often an idle connection is probed, and how long the answer may take: a vanished peer is noticed in under a
/// minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(20);

/// An open connection to a receiver.
#[derive(Debug)]
pub struct Link {
    address: String,
    client: ReplicationClient<Channel>,
    welcome: Welcome,
    wire: WireBytes,
}

/// Connects to a receiver and makes the first call.
///
/// # Errors
/// See [`Error`].
pub async fn connect(entry: &ReceiverEntry, key: &SenderKey) -> Result<Link, Error> {
    let config =
        sendshot_identity::client_config(&entry.ca_certificate, &entry.client_certificate, key)
            .map_err(|source| Error::Credentials {
                address: entry.address.to_string(),
                source,
            })?;
    let (host, port) = (entry.address.host(), entry.address.port());
    let address = entry.address.to_string();
    let stream = sendshot_identity::connect(host, port, config, CONNECT_DEADLINE)
        .await
        .map_err(Error::Connect)?;
    let wire = WireBytes::default();
    wire.read_at_most(MAX_ANSWER);
    let greeted = async {
        let windows = Windows::of(stream.round_trip());
        let stream = Counted::new(stream, wire.clone());
        let channel = channel(&address, stream, windows).await?;
        let mut client = ReplicationClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let welcome = hello(&mut client, &address, entry.receiver_id).await?;
        Ok((client, welcome))
    };
    // In TLS 1.3 a receiver refuses the sender's certificate only now.
    let (client, welcome) = greeted.await.map_err(|error: Error| {
        let said = wire.failure().map(std::io::Error::other);
        match said.map(|said| ConnectError::from_io(&address, &said)) {
            Some(refused @ (ConnectError::Refused { .. } | ConnectError::Clock { .. })) => {
                Error::Connect(refused)
            }
            Some(_) | None => error,
        }
    })?;
    tracing::debug!(receiver = %welcome.receiver, software = %welcome.software, "connected");
    Ok(Link {
        address,
        client,
        welcome,
        wire,
    })
}

/// Sets up HTTP/2 over an open stream to the receiver at `address`.
///
/// # Errors
/// See [`Error`].
pub async fn channel<S>(address: &str, stream: S, windows: Windows) -> Result<Channel, Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    // The connection is made once: a broken one must fail the push, not be replaced by a new one beneath it.
    let once = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
        async move { stream.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    // The name is only for HTTP/2's headers; TLS has checked the receiver's identity.
    Endpoint::from_static("http://receiver.sendshot")
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_DEADLINE)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|e| match ConnectError::find_in(address, &e) {
            Some(error) => Error::Connect(error),
            None => Error::broken(address, &with_causes(&e)),
        })
}

impl Link {
    /// The former ids of this sender that the receiver reports.
    pub fn former(&self) -> &[SenderId] {
        &self.welcome.former
    }

    /// The client for calls that are answered by one message.
    pub fn client(&mut self) -> &mut ReplicationClient<Channel> {
        self.wire.read_at_most(MAX_ANSWER);
        &mut self.client
    }

    /// The client for a call whose answer has at most `most` bytes.
    pub(super) fn client_reading(&mut self, most: u64) -> &mut ReplicationClient<Channel> {
        self.wire.read_at_most(most);
        &mut self.client
    }

    /// The client for a call whose answer is a stream.
    pub(super) fn client_unlimited(&mut self) -> &mut ReplicationClient<Channel> {
        self.wire.read_all();
        &mut self.client
    }

    /// The receiver's address, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Id of the receiver's instance.
    pub fn receiver(&self) -> ReceiverId {
        self.welcome.receiver
    }

    /// The newest stream version that both sides and this kernel support.
    pub fn stream_version(&self) -> u32 {
        filesystem::send_stream_version().clamp(1, self.welcome.stream_version)
    }

    /// Whether the receiver keeps partials that can be resumed.
    pub fn resume(&self) -> Support {
        self.welcome.resume
    }

    /// Whether the receiver renews certificates.
    pub fn renew(&self) -> Support {
        self.welcome.renew
    }

    /// Whether the receiver sends copies back.
    pub fn restore(&self) -> Support {
        self.welcome.restore
    }

    /// The receiver's program and version, for messages.
    pub fn software(&self) -> &str {
        &self.welcome.software
    }

    /// Bytes on the connection so far.
    pub fn wire_bytes(&self) -> u64 {
        self.wire.get()
    }

    /// The counter of these bytes.
    pub fn wire(&self) -> WireBytes {
        self.wire.clone()
    }

    /// Opens the call of a transfer.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn transfer(
        &mut self,
        messages: ReceiverStream<v1::TransferUp>,
    ) -> Result<Streaming<v1::TransferDown>, Error> {
        match self.client_unlimited().transfer(messages).await {
            Ok(answers) => Ok(answers.into_inner()),
            Err(status) => Err(failed(&self.address, &status)),
        }
    }
}

/// Checks a certificate that a receiver reports to have made for this sender, and returns it without anything that
/// may stand beside it.
///
/// # Errors
/// [`Error::Invalid`]: no receiver would accept the certificate.
pub fn own_certificate(
    host: (SenderId, &SenderKey),
    ca_pem: &str,
    pem: &str,
    now: Timestamp,
) -> Result<String, Error> {
    sendshot_identity::own_certificate(ca_pem, pem, host, now)
        .map_err(|e| Error::invalid(with_causes(&e)))
}

//! What a man in the middle needs from both hosts: their keys, and a connection to the receiver.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sendshot_config::ReceiverEntry;
use sendshot_identity::{Authority, PeerStream, SenderKey};
use sendshot_model::PeerName;
use sendshot_proto::transfer::{FRAME, MAX_MESSAGE, Windows};
use sendshot_proto::v1::replication_client::ReplicationClient;
use sendshot_proto::v1::{InventoryRequest, InventoryResponse};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;

/// Longest wait for the receiver.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The keys of both hosts. A real man in the middle has neither; without them it cannot lie.
#[derive(Debug)]
pub(crate) struct Stolen {
    pub(crate) authority: Arc<Authority>,
    key: SenderKey,
    entry: ReceiverEntry,
    receiver: SocketAddr,
}

impl Stolen {
    /// Reads the keys from the hosts' state.
    #[track_caller]
    pub(crate) fn from(sender: &SenderHost, receiver: &ReceiverHost, name: &str) -> Self {
        let file = sender.receiver_file(name);
        let entries: BTreeMap<PeerName, ReceiverEntry> =
            sendshot_config::load_dir(file.parent().unwrap()).unwrap();
        let entry = entries[&name.parse::<PeerName>().unwrap()].clone();
        let (state, now) = (receiver.daemon.state_dir(), jiff::Timestamp::now());
        Self {
            authority: Arc::new(Authority::load_or_create(&state, entry.receiver_id, now).unwrap()),
            key: SenderKey::load_or_create(&sender.daemon.state_dir()).unwrap(),
            entry,
            receiver: receiver.address(),
        }
    }

    /// Connects to the receiver as the sender does.
    pub(crate) async fn dial(&self) -> Result<ReplicationClient<Channel>, Status> {
        let client = ReplicationClient::new(self.channel().await?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE))
    }

    /// Opens a connection to the receiver, for calls of any service.
    pub(crate) async fn channel(&self) -> Result<Channel, Status> {
        let gone = |e: &dyn std::fmt::Display| Status::unavailable(e.to_string());
        let entry = &self.entry;
        let config = sendshot_identity::client_config(
            &entry.ca_certificate,
            &entry.client_certificate,
            &self.key,
        )
        .map_err(|e| gone(&e))?;
        let host = self.receiver.ip().to_string();
        let stream = sendshot_identity::connect(&host, self.receiver.port(), config, DEADLINE)
            .await
            .map_err(|e| gone(&e))?;
        over(stream).await
    }
}

/// Makes a channel over an open connection.
pub(crate) async fn over(stream: PeerStream) -> Result<Channel, Status> {
    let once = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().unwrap().take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    Endpoint::from_static("http://receiver.sendshot")
        .initial_stream_window_size(Windows::NEAR.stream)
        .initial_connection_window_size(Windows::NEAR.connection)
        .max_frame_size(FRAME)
        .connect_with_connector(connector)
        .await
        .map_err(|e| Status::unavailable(e.to_string()))
}

/// Reads the receiver's whole inventory into one part.
pub(crate) async fn inventory(
    mut client: ReplicationClient<Channel>,
    request: InventoryRequest,
) -> Result<InventoryResponse, Status> {
    let mut parts = client.inventory(request).await?.into_inner();
    let mut whole = parts.message().await?.unwrap_or_default();
    while let Some(part) = parts.message().await? {
        whole.copies.extend(part.copies);
        whole.failure = whole.failure.or(part.failure);
    }
    Ok(whole)
}

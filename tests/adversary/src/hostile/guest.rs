//! A host without a pairing that redeems tokens, and uses the key that it gets for any call.

use std::net::SocketAddr;

use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_identity::{SenderKey, Token, client_config, connect, pairing_client_config};
use sendshot_model::SenderId;
use sendshot_proto::v1::pairing_client::PairingClient;
use sendshot_proto::v1::{PairRequest, PairResponse};
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::transport::Channel;

use crate::lying_peer::dial::{DEADLINE, over};

/// The host, with an id and a key of its own.
#[derive(Debug)]
pub struct Guest {
    runtime: Runtime,
    receiver: SocketAddr,
    id: SenderId,
    key: SenderKey,
}

impl Guest {
    /// Makes a host that knows the receiver's address.
    ///
    /// # Panics
    /// If its key cannot be made.
    #[must_use]
    pub fn of(receiver: &ReceiverHost) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            runtime: Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            receiver: receiver.address(),
            id: SenderId::generate(),
            key: SenderKey::load_or_create(dir.path()).unwrap(),
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &SenderKey {
        &self.key
    }

    /// Redeems a token to restore.
    ///
    /// # Errors
    /// The status of the receiver.
    pub fn redeem(&self, token: &str) -> Result<PairResponse, Status> {
        self.ask(token, true)
    }

    /// Redeems a token to pair.
    ///
    /// # Errors
    /// The status of the receiver.
    pub fn pair(&self, token: &str) -> Result<PairResponse, Status> {
        self.ask(token, false)
    }

    fn ask(&self, token: &str, restore: bool) -> Result<PairResponse, Status> {
        let token = Token::parse(token).unwrap();
        let config = pairing_client_config(token.fingerprint()).unwrap();
        let request = PairRequest {
            secret: token.secret().to_bytes().to_vec(),
            sender_id: self.id.to_bytes().to_vec(),
            signing_request: self.key.csr().unwrap(),
            restore,
        };
        self.runtime.block_on(async {
            let (host, port) = (self.receiver.ip().to_string(), self.receiver.port());
            let stream = connect(&host, port, config, DEADLINE).await.unwrap();
            let mut client = PairingClient::new(over(stream).await?);
            Ok(client.pair(request).await?.into_inner())
        })
    }

    /// Opens a connection with the certificate of an answer.
    ///
    /// # Panics
    /// If TLS refuses it: a certificate is valid longer than a permission.
    #[must_use]
    pub fn connect(&self, paired: &PairResponse) -> Channel {
        let config = client_config(&paired.authority, &paired.certificate, &self.key).unwrap();
        self.runtime.block_on(async {
            let (host, port) = (self.receiver.ip().to_string(), self.receiver.port());
            let stream = connect(&host, port, config, DEADLINE).await.unwrap();
            over(stream).await.unwrap()
        })
    }

    /// Makes calls.
    pub fn call<F: Future>(&self, calls: F) -> F::Output {
        self.runtime.block_on(calls)
    }
}

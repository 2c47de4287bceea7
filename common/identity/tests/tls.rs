//! Tests real TLS over loopback: pairing, and the refusal of every peer that is not the expected one.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sendshot_identity::{
    Access, Authority, ClockFault, ConnectError, Connections, Moment, Pairing, PeerId, PeerInfo,
    PeerStream, Refusal, SenderKey, Senders, accept, ca_pem, client_config, connect,
    pairing_client_config, server_config,
};
use sendshot_model::{PeerName, ReceiverId, SenderId};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(5);

/// A receiver whose port greets every peer with one byte.
struct Receiver {
    dir: TempDir,
    authority: Arc<Authority>,
    senders: Senders,
    port: u16,
    peers: mpsc::Receiver<PeerInfo>,
}

impl Receiver {
    async fn start() -> Self {
        Self::start_at(Timestamp::now()).await
    }

    async fn start_at(now: Timestamp) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path(), ReceiverId::generate(), now).unwrap();
        let authority = Arc::new(authority);
        let senders = Senders::open(dir.path(), Arc::clone(&authority)).unwrap();
        let (port, peers) = serve(server_config(&authority).unwrap()).await;
        Self {
            dir,
            authority,
            senders,
            port,
            peers,
        }
    }

    fn id(&self) -> PeerId {
        PeerId::Receiver(self.authority.receiver_id())
    }
}

async fn serve(config: Arc<ServerConfig>) -> (u16, mpsc::Receiver<PeerInfo>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, peers) = mpsc::channel(16);
    let mut streams = accept(listener, config, Connections::default());
    tokio::spawn(async move {
        while let Some(stream) = streams.recv().await {
            let mut stream = stream.unwrap();
            seen.send(stream.info().clone()).await.unwrap();
            stream.write_all(b"!").await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    (port, peers)
}

struct Sender {
    dir: TempDir,
    id: SenderId,
    key: SenderKey,
}

impl Sender {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SenderKey::load_or_create(dir.path()).unwrap();
        Self {
            dir,
            id: SenderId::generate(),
            key,
        }
    }

    fn certificate(&self, authority: &Authority) -> String {
        let csr = self.key.csr().unwrap();
        authority
            .sign_sender(&csr, self.id, Timestamp::now())
            .unwrap()
            .pem
    }

    /// Connects as a sender paired with the receiver of this authority, and reads the greeting.
    async fn visit(&self, port: u16, authority: &Authority) -> Result<PeerStream, ConnectError> {
        self.visit_with(port, authority, &self.certificate(authority))
            .await
    }

    async fn visit_with(
        &self,
        port: u16,
        authority: &Authority,
        certificate: &str,
    ) -> Result<PeerStream, ConnectError> {
        let config = client_config(authority.ca_pem(), certificate, &self.key).unwrap();
        let mut stream = connect("127.0.0.1", port, config, LIMIT).await?;
        greeting(&mut stream)
            .await
            .map_err(|e| ConnectError::from_io("nas2", &e))?;
        Ok(stream)
    }
}

async fn greeting(stream: &mut PeerStream) -> io::Result<()> {
    stream.read_u8().await.map(|byte| assert_eq!(byte, b'!'))
}

#[tokio::test]
async fn pairing_over_an_untrusted_network() {
    let mut receiver = Receiver::start().await;
    let name: PeerName = "nas1".parse().unwrap();
    let token = receiver
        .senders
        .invite(&name, Pairing::New, Timestamp::now())
        .unwrap();
    let sender = Sender::new();

    let config = pairing_client_config(token.fingerprint()).unwrap();
    let mut stream = connect("localhost", receiver.port, config, LIMIT)
        .await
        .unwrap();
    greeting(&mut stream).await.unwrap();
    assert_eq!(stream.info().identity.as_ref().unwrap().id, receiver.id());
    let ca = ca_pem(stream.peer_certificates(), token.fingerprint()).unwrap();
    let stranger = receiver.peers.recv().await.unwrap();
    assert_eq!(
        receiver.senders.authorize(stranger.identity.as_ref()),
        Err(Refusal::NoCertificate)
    );

    let csr = sender.key.csr().unwrap();
    let redeemed = receiver
        .senders
        .redeem(
            token.secret(),
            &csr,
            sender.id,
            Access::Full,
            &Moment::now(),
        )
        .unwrap();

    let config = client_config(&ca, &redeemed.certificate.pem, &sender.key).unwrap();
    let mut stream = connect("127.0.0.1", receiver.port, config, LIMIT)
        .await
        .unwrap();
    greeting(&mut stream).await.unwrap();
    let peer = receiver.peers.recv().await.unwrap().identity.unwrap();
    assert_eq!(peer.id, PeerId::Sender(sender.id));
    assert_eq!(peer.pin, sender.key.pin());
    assert_eq!(receiver.senders.authorize(Some(&peer)), Ok(name.clone()));
    receiver.senders.revoke(&name, Timestamp::now()).unwrap();
    assert_eq!(
        receiver.senders.authorize(Some(&peer)),
        Err(Refusal::Revoked { name })
    );
}

#[tokio::test]
async fn a_man_in_the_middle_cannot_pair() {
    let (receiver, between) = (Receiver::start().await, Receiver::start().await);
    let config = pairing_client_config(receiver.authority.fingerprint()).unwrap();
    let error = connect("127.0.0.1", between.port, config, LIMIT)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::WrongReceiver { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_borrowed_authority_does_not_help() {
    let (receiver, between) = (Receiver::start().await, Receiver::start().await);
    let mut chain = vec![
        certificate(&between, "server.pem"),
        certificate(&receiver, "ca.pem"),
    ];
    for _ in 0..2 {
        let (port, _peers) = serve(presenting(chain.clone(), key(&between, "server.key"))).await;
        let config = pairing_client_config(receiver.authority.fingerprint()).unwrap();
        let error = connect("127.0.0.1", port, config, LIMIT).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::WrongReceiver { .. }),
            "{error}"
        );
        chain.insert(1, certificate(&between, "ca.pem"));
    }
}

#[tokio::test]
async fn a_paired_sender_cannot_pass_for_the_receiver() {
    let receiver = Receiver::start().await;
    let (rogue, victim) = (Sender::new(), Sender::new());
    let own = rogue.certificate(&receiver.authority);
    let own = CertificateDer::from_pem_slice(own.as_bytes()).unwrap();
    let key = std::fs::read(rogue.dir.path().join("sender.key")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
    let (port, _peers) = serve(presenting(vec![own, certificate(&receiver, "ca.pem")], key)).await;
    let error = victim.visit(port, &receiver.authority).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::WrongReceiver { .. }),
        "{error}"
    );
    let config = pairing_client_config(receiver.authority.fingerprint()).unwrap();
    let error = connect("127.0.0.1", port, config, LIMIT).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::WrongReceiver { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_reinstalled_receiver_is_another_one() {
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    let error = Sender::new()
        .visit(new.port, &old.authority)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::WrongReceiver { .. }),
        "{error}"
    );
    let remedy = error.remedy();
    assert!(remedy.contains("was it re-installed"), "{remedy}");
    assert!(
        remedy.contains(&format!("`sendshotctl pair 127.0.0.1:{}`", new.port)),
        "{remedy}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let sender = Sender::new();
    let foreign = sender.certificate(&other.authority);
    let error = sender
        .visit_with(receiver.port, &receiver.authority, &foreign)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn an_expired_sender_points_at_clocks() {
    let receiver = Receiver::start().await;
    let sender = Sender::new();
    let expired = expired_certificate(&receiver, &sender);
    let error = sender
        .visit_with(receiver.port, &receiver.authority, &expired)
        .await
        .unwrap_err();
    let ConnectError::Clock { fault, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(fault, ClockFault::OwnCertificate);
}

#[tokio::test]
async fn a_receiver_from_the_future_points_at_clocks() {
    let future = Timestamp::now() + SignedDuration::from_hours(24 * 400);
    let receiver = Receiver::start_at(future).await;
    let error = Sender::new()
        .visit(receiver.port, &receiver.authority)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Clock {
                fault: ClockFault::NotYetValid,
                ..
            }
        ),
        "{error}"
    );
    let config = pairing_client_config(receiver.authority.fingerprint()).unwrap();
    let error = connect("127.0.0.1", receiver.port, config, LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Clock { .. }), "{error}");
}

#[tokio::test]
async fn an_absent_host_cannot_be_reached() {
    let receiver = Receiver::start().await;
    let config = || pairing_client_config(receiver.authority.fingerprint()).unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let refused = connect("127.0.0.1", free, config(), LIMIT)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, ConnectError::Unreachable { .. }),
        "{refused}"
    );
    assert!(
        refused.to_string().contains(&format!("127.0.0.1:{free}")),
        "{refused}"
    );
    let unknown = connect("nas2.invalid", 7117, config(), LIMIT)
        .await
        .unwrap_err();
    assert!(
        matches!(unknown, ConnectError::Unreachable { .. }),
        "{unknown}"
    );
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let limit = Duration::from_millis(200);
    let late = connect("127.0.0.1", port, config(), limit)
        .await
        .unwrap_err();
    assert!(matches!(late, ConnectError::Unreachable { .. }), "{late}");
}

#[tokio::test]
async fn another_service_on_the_port_is_recognised() {
    let receiver = Receiver::start().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = other.accept().await.unwrap();
        stream
            .write_all(b"220 mail.example.org ESMTP\r\n")
            .await
            .unwrap();
        stream.read_u8().await.unwrap();
        tokio::time::sleep(LIMIT).await;
    });
    let config = pairing_client_config(receiver.authority.fingerprint()).unwrap();
    let error = connect("127.0.0.1", port, config, LIMIT).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotAReceiver { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_transports_error_still_tells_the_cause() {
    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Transport(#[source] io::Error);

    let cause = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
    let tls = io::Error::new(io::ErrorKind::InvalidData, cause);
    let nested = Transport(io::Error::other(Transport(tls)));
    let found = ConnectError::find_in("nas2:7117", &nested).unwrap();
    assert!(matches!(found, ConnectError::Refused { .. }), "{found}");
    let damage = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
    let found_damage = ConnectError::find_in("nas2:7117", &damage).unwrap();
    assert!(
        matches!(found_damage, ConnectError::Unreachable { .. }),
        "{found_damage}"
    );
    let typed = io::Error::other(found.clone());
    assert_eq!(
        ConnectError::find_in("nas2:7117", &Transport(typed)),
        Some(found)
    );
    assert_eq!(ConnectError::find_in("nas2:7117", &std::fmt::Error), None);
}

#[tokio::test]
async fn silent_connections_block_no_other() {
    let receiver = Receiver::start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(
            tokio::net::TcpStream::connect(("127.0.0.1", receiver.port))
                .await
                .unwrap(),
        );
    }
    Sender::new()
        .visit(receiver.port, &receiver.authority)
        .await
        .unwrap();
}

#[tokio::test]
async fn dropping_the_connections_closes_the_port() {
    let receiver = Receiver::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(accept(
        listener,
        server_config(&receiver.authority).unwrap(),
        Connections::default(),
    ));
    let closed = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_ended_like_any_other() {
    let receiver = Receiver::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Connections::default();
    let tls = server_config(&receiver.authority).unwrap();
    let mut streams = accept(listener, tls, connections.clone());
    let sender = Sender::new();
    let certificate = sender.certificate(&receiver.authority);
    let config = client_config(receiver.authority.ca_pem(), &certificate, &sender.key).unwrap();
    let _deaf = connect("127.0.0.1", port, config, LIMIT).await.unwrap();
    let stream = streams.recv().await.unwrap().unwrap();

    // There are two tasks: one that waits to write must not take the other's wakeup.
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reads = tokio::spawn(async move { reader.read_u8().await.map(drop) });
    let (full, is_full) = tokio::sync::oneshot::channel();
    let writes = tokio::spawn(async move {
        let moment = Duration::from_millis(200);
        while let Ok(written) = tokio::time::timeout(moment, writer.write_all(&[0; 65536])).await {
            written?;
        }
        full.send(()).unwrap();
        let ended = writer.write_all(&[0; 65536]).await;
        for late in [writer.flush().await, writer.shutdown().await] {
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        }
        ended
    });
    is_full.await.unwrap();
    assert_eq!(connections.end_all_of(PeerId::Sender(sender.id)), 1);
    for task in [reads, writes] {
        let ended = tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}

#[tokio::test]
async fn nothing_is_resumed() {
    let receiver = Receiver::start().await;
    let sender = Sender::new();
    let certificate = sender.certificate(&receiver.authority);
    let config = client_config(receiver.authority.ca_pem(), &certificate, &sender.key).unwrap();
    for _ in 0..2 {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", receiver.port))
            .await
            .unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let name = "receiver.sendshot".try_into().unwrap();
        let mut tls = connector.connect(name, tcp).await.unwrap();
        tls.read_u8().await.unwrap();
        let (_, session) = tls.get_ref();
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
        assert_eq!(
            session.protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[test]
fn a_key_that_is_not_the_certificates_is_typed() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let authority = Authority::load_or_create(dir.path(), ReceiverId::generate(), now).unwrap();
    let certificate = Sender::new().certificate(&authority);
    let other = Sender::new();
    let error = client_config(authority.ca_pem(), &certificate, &other.key).unwrap_err();
    assert!(error.to_string().contains("was a key replaced"), "{error}");
    let error = client_config("", &certificate, &other.key).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("receiver's certificate is damaged"),
        "{error}"
    );
}

fn certificate(receiver: &Receiver, file: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(receiver.dir.path().join(file)).unwrap()
}

fn key(receiver: &Receiver, file: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(receiver.dir.path().join(file)).unwrap()
}

/// Makes a server that presents any given chain.
fn presenting(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

fn expired_certificate(receiver: &Receiver, sender: &Sender) -> String {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let ca_key = KeyPair::from_pem(&read(receiver.dir.path().join("ca.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(receiver.authority.ca_pem(), ca_key).unwrap();
    let own_key = KeyPair::from_pem(&read(sender.dir.path().join("sender.key"))).unwrap();
    let mut params = CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(2026, 1, 2);
    let uri = PeerId::Sender(sender.id).to_string();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.signed_by(&own_key, &issuer).unwrap().pem()
}

/// A name in a certificate appears in messages, and is the choice of the authority key's owner.
#[tokio::test]
async fn names_in_certificates_cannot_steer_a_terminal() {
    let receiver = Receiver::start().await;
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let ca_key = KeyPair::from_pem(&read(receiver.dir.path().join("ca.key"))).unwrap();
    let issuer = Issuer::from_ca_cert_pem(receiver.authority.ca_pem(), ca_key).unwrap();
    let own = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let name = format!("\x1b]0;owned\x07\x1b[2J\r\n{}", "x".repeat(40_000));
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    let leaf = params.signed_by(&own, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
    let chain = vec![leaf.der().clone(), certificate(&receiver, "ca.pem")];
    let (port, _peers) = serve(presenting(chain, key)).await;
    let visit = Sender::new().visit(port, &receiver.authority).await;
    let text = visit.unwrap_err().to_string();
    assert!(text.contains("owned"), "{text:?}");
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.len() < 1000, "{} bytes", text.len());
}

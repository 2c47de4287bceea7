//! The receiving daemon as a library: bind, join, shut down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use sendshot_identity::{PeerId, PeerStream};
use sendshot_proto::transfer::{FRAME, MAX_CALL, Windows};
use sendshot_proto::v1::pairing_server::PairingServer;
use sendshot_proto::v1::receiver_control_server::ReceiverControlServer;
use sendshot_proto::v1::replication_server::ReplicationServer;
use sendshot_service::{ControlSocket, InstanceLock, Life, notify};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

use crate::control::{self, Control};
use crate::replication::pairing::PairingService;
use crate::replication::{self, ReplicationService};
use crate::retention;
use crate::shared::receiver::Receiver;
use crate::upkeep;

/// How often an idle connection is probed, and how long the answer may take: a vanished sender is noticed in
/// under a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(20);

/// Concurrent calls on one connection: a sender uses one for inventories and one for a push.
const MAX_STREAMS: u32 = 8;

/// Largest message for pairing, in bytes. Any client can make the receiver hold so much for each call; an honest
/// message has a secret, an id and a signing request, in all less than one KiB.
const MAX_PAIRING: usize = 64 * 1024;

/// Longest wait for pushes and clients to end: one that hangs must not keep the daemon.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// How often to check for expired partials, and for certificates that end.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// How often the rules of the copies are applied to all volumes, besides after each push.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The paths that a daemon needs to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub config: PathBuf,
    /// The daemon's state directory.
    pub state_dir: PathBuf,
    pub socket: PathBuf,
}

/// A daemon with its sockets bound.
#[derive(Debug)]
pub struct Daemon {
    receiver: Arc<Receiver>,
    listener: TcpListener,
    control: ControlSocket,
    _lock: InstanceLock,
}

impl Daemon {
    /// Reads configuration and state, reconciles what a crash left, and binds the sockets.
    ///
    /// # Errors
    /// The file or socket that is at fault, by name.
    pub async fn bind(options: Options) -> anyhow::Result<Self> {
        let lock = InstanceLock::take(&options.state_dir)?;
        let (config, state_dir) = (options.config, options.state_dir);
        let receiver =
            sendshot_service::blocking::run("start", move || Receiver::load(config, &state_dir))
                .await??;
        let address = receiver.config().listen;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let control = ControlSocket::bind(&options.socket)?;
        Ok(Self {
            receiver: Arc::new(receiver),
            listener,
            control,
            _lock: lock,
        })
    }

    /// The address of the data path.
    ///
    /// # Errors
    /// I/O errors.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`; then ends the running pushes and waits for them.
    ///
    /// # Errors
    /// If a socket cannot be served.
    pub async fn join(self, life: Life) -> anyhow::Result<()> {
        let stop = life.stop;
        tracing::info!(receiver = %self.receiver.id(), address = %self.address()?, "ready");
        notify::ready();
        let receiver = Arc::clone(&self.receiver);
        let again = Arc::clone(&self.receiver);
        let reloading = sendshot_service::reload_when_told(life.reload, move || again.reload());
        let reloading = tokio::spawn(reloading);
        let tls = sendshot_identity::server_config(receiver.authority())?;
        let connections =
            sendshot_identity::accept(self.listener, tls, receiver.connections().clone());
        let replication = ReplicationServer::new(ReplicationService(Arc::clone(&receiver)))
            .max_decoding_message_size(MAX_CALL);
        let pairing = PairingServer::new(PairingService(Arc::clone(&receiver)))
            .max_decoding_message_size(MAX_PAIRING);
        let serve_data = |windows: Windows, connections| {
            Server::builder()
                .initial_stream_window_size(windows.stream)
                .initial_connection_window_size(windows.connection)
                .max_frame_size(FRAME)
                .max_concurrent_streams(MAX_STREAMS)
                .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                .http2_keepalive_timeout(Some(KEEPALIVE_DEADLINE))
                .add_service(InterceptedService::new(
                    replication.clone(),
                    replication::with_certificate,
                ))
                .add_service(pairing.clone())
                .serve_with_incoming_shutdown(
                    ReceiverStream::new(connections),
                    stop.clone().cancelled_owned(),
                )
        };
        let (near, far) = by_windows(connections);
        let near = serve_data(Windows::NEAR, near);
        let far = serve_data(Windows::FAR, far);
        let control = Server::builder()
            .add_service(ReceiverControlServer::new(Control(Arc::clone(&receiver))))
            .serve_with_incoming_shutdown(self.control, stop.clone().cancelled_owned());
        let mut serve = std::pin::pin!(async { tokio::try_join!(near, far, control) });
        // Servers without clients end with `stop`, too: what follows must not depend on which of the two is seen
        // first.
        let served = tokio::select! {
            served = &mut serve => Some(served),
            never = look_after(&receiver) => match never {},
            never = count_again(&receiver) => match never {},
            never = control::metrics::watch(&receiver) => match never {},
            () = stop.cancelled() => None,
        };
        receiver.stop();
        reloading.abort();
        let farewell = async {
            let served = match served {
                Some(served) => served,
                None => serve.await,
            };
            receiver.tasks().wait().await;
            while !receiver.transfers().is_idle() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            served
        };
        let served = tokio::time::timeout(SHUTDOWN_GRACE, farewell).await;
        if served.is_err() {
            tracing::info!("some connections are still open; exiting");
        }
        drop_waiting(&receiver).await;
        if let Ok(served) = served {
            served?;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// An accepted connection, as servers take it.
type Accepted = std::io::Result<PeerStream>;

/// Most open connections with [`Windows::FAR`], of one peer and of all: each may hold so much.
const MOST_FAR_OF_ONE: usize = 2;
const MOST_FAR: usize = 8;

/// The open connections with [`Windows::FAR`].
#[derive(Debug, Default)]
struct FarConnections(Vec<(PeerId, Weak<()>)>);

impl FarConnections {
    /// The windows of a new connection. A peer without a certificate can only pair, which needs none.
    fn windows(&mut self, stream: &PeerStream) -> Windows {
        self.0.retain(|(_, open)| open.strong_count() > 0);
        let Some(peer) = stream.info().identity.as_ref().map(|identity| identity.id) else {
            return Windows::NEAR;
        };
        let of_peer = self.0.iter().filter(|(of, _)| *of == peer).count();
        let windows = Windows::of(stream.round_trip());
        if windows == Windows::NEAR || of_peer >= MOST_FAR_OF_ONE || self.0.len() >= MOST_FAR {
            return Windows::NEAR;
        }
        self.0.push((peer, stream.open()));
        windows
    }
}

/// Divides connections into those for [`Windows::NEAR`] and those for [`Windows::FAR`].
fn by_windows(
    mut connections: mpsc::Receiver<Accepted>,
) -> (mpsc::Receiver<Accepted>, mpsc::Receiver<Accepted>) {
    let (to_near, near) = mpsc::channel(1);
    let (to_far, far) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut fars = FarConnections::default();
        loop {
            let connection = tokio::select! {
                connection = connections.recv() => connection,
                // The server has ended, and with it the daemon.
                () = to_near.closed() => return,
            };
            let Some(connection) = connection else { return };
            let windows = match &connection {
                Ok(stream) => fars.windows(stream),
                Err(_) => Windows::NEAR,
            };
            let server = match windows == Windows::FAR {
                true => &to_far,
                false => &to_near,
            };
            if server.send(connection).await.is_err() {
                return;
            }
        }
    });
    (near, far)
}

/// Runs the periodic checks; ends only by being dropped.
async fn look_after(receiver: &Arc<Receiver>) -> std::convert::Infallible {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    let mut hours = tokio::time::interval(RETENTION_INTERVAL);
    loop {
        let receiver = Arc::clone(receiver);
        let done = tokio::select! {
            _ = ticks.tick() => {
                sendshot_service::blocking::run("look-after", move || upkeep::look_after(&receiver)).await
            }
            _ = hours.tick() => {
                let work = move || {
                    retention::run::over(&receiver, |_, _| true);
                    // Also what an earlier run could not count.
                    receiver.deleted().notify_one();
                };
                sendshot_service::blocking::run("retention", work).await
            }
            () = receiver.due().came() => {
                let due = receiver.due().take();
                let work = move || {
                    retention::run::over(&receiver, |sender, volume| {
                        due.contains(&format!("{sender}/{volume}"))
                    });
                };
                sendshot_service::blocking::run("retention", work).await
            }
        };
        if let Err(e) = done {
            tracing::warn!("cannot do the periodic checks: {e}");
        }
    }
}

/// Counts again what copies hold after others were deleted, beside everything else; ends only by being dropped.
async fn count_again(receiver: &Arc<Receiver>) -> std::convert::Infallible {
    loop {
        receiver.deleted().notified().await;
        let receiver = Arc::clone(receiver);
        let work = move || retention::recount::over(&receiver);
        if let Err(e) = sendshot_service::blocking::run("recount", work).await {
            tracing::warn!("cannot count what the copies hold: {e}");
        }
    }
}

/// Drops the waiting transfers: what was applied since their last checkpoints is lost with the daemon.
async fn drop_waiting(receiver: &Arc<Receiver>) {
    let waiting = receiver.transfers().take_parked(Duration::ZERO);
    if let Err(e) = sendshot_service::blocking::run("drop-waiting", move || drop(waiting)).await {
        tracing::warn!("cannot delete staging: {e}");
    }
}

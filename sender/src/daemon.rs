//! The sending daemon as a library: bind, join, shut down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sendshot_proto::v1::sender_control_server::SenderControlServer;
use sendshot_service::{ControlSocket, InstanceLock, Life, notify};

use crate::connection::renewal;
use crate::control::{self, Control};
use crate::retained::expire;
use crate::schedule;
use crate::shared::sender::{Paths, Sender};

/// Longest wait for clients to disconnect at the end: one that hangs must not keep the daemon.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// The paths that a daemon needs to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub paths: Paths,
    pub socket: PathBuf,
}

/// A daemon with its socket bound.
#[derive(Debug)]
pub struct Daemon {
    sender: Arc<Sender>,
    listener: ControlSocket,
    _lock: InstanceLock,
}

impl Daemon {
    /// Reads configuration and state, reconciles what a crash left, and binds the socket.
    ///
    /// # Errors
    /// The file or socket that is at fault, by name.
    pub async fn bind(options: Options) -> anyhow::Result<Self> {
        let state_dir = options.paths.state_dir.clone();
        let lock = InstanceLock::take(&state_dir)?;
        let paths = options.paths;
        let sender = sendshot_service::blocking::run("start", move || -> anyhow::Result<Sender> {
            let sender = Sender::load(paths)?;
            sender.reconcile();
            Ok(sender)
        })
        .await??;
        let listener = ControlSocket::bind(&options.socket)?;
        Ok(Self {
            sender: Arc::new(sender),
            listener,
            _lock: lock,
        })
    }

    /// Serves until `stop`; then cancels the running pushes and waits for them.
    ///
    /// # Errors
    /// If the socket cannot be served.
    pub async fn join(self, life: Life) -> anyhow::Result<()> {
        let stop = life.stop;
        tracing::info!(sender = %self.sender.id(), "ready");
        notify::ready();
        let again = Arc::clone(&self.sender);
        let reloading = sendshot_service::reload_when_told(life.reload, move || again.reload());
        let reloading = tokio::spawn(reloading);
        let control = SenderControlServer::new(Control(Arc::clone(&self.sender)));
        let serve = tonic::transport::Server::builder()
            .add_service(control)
            .serve_with_incoming_shutdown(self.listener, stop.clone().cancelled_owned());
        let mut serve = std::pin::pin!(serve);
        // A server without clients ends with `stop`, too: what follows must not depend on which of the two is seen
        // first.
        let served = tokio::select! {
            served = &mut serve => Some(served),
            never = expire::watch(Arc::clone(&self.sender)) => match never {},
            never = schedule::watch(Arc::clone(&self.sender)) => match never {},
            never = renewal::watch(Arc::clone(&self.sender)) => match never {},
            never = control::metrics::watch(Arc::clone(&self.sender)) => match never {},
            () = stop.cancelled() => None,
        };
        self.sender.note_stopped();
        self.sender.shut_down().await;
        schedule::store(&self.sender).await;
        // The pushes have ended; a client that does not disconnect is dropped.
        let served = match served {
            Some(served) => Ok(served),
            None => tokio::time::timeout(SHUTDOWN_GRACE, serve).await,
        };
        reloading.abort();
        if let Ok(served) = served {
            served?;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

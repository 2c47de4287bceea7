//! The Unix socket between `sendshotctl` and a daemon.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::unistd::Group;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, wrappers::UnixListenerStream};

/// Members of this group may call the daemons. Calls that need more check the caller's uid.
pub const GROUP: &str = "sendshot";

/// Connecting takes write permission, which owner and group have.
const MODE: u32 = 0o660;
const PARENT_MODE: u32 = 0o755;

/// A control socket cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum ControlSocketError {
    /// A daemon is listening on the socket.
    #[error("a daemon is already listening on {}; stop it, or choose another with --socket", path.display())]
    InUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// A file of another type has the name.
    #[error("{} exists and is not a socket; move it away, or choose another with --socket", path.display())]
    NotASocket {
        /// Path of the file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("control socket {}: {source}", path.display())]
    Io {
        /// Path of the socket or its directory.
        path: PathBuf,
        /// Error from the kernel.
        source: io::Error,
    },
}

/// A listening socket: a stream of connections. Dropping it removes the file.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    incoming: UnixListenerStream,
}

impl ControlSocket {
    /// Listens on `path`, mode 0660, group `sendshot` if there is one; makes a missing directory. Must be
    /// called within the runtime.
    ///
    /// Steps: 1. check that no daemon answers there; 2. listen on a hidden name beside it; 3. set owner and
    /// mode; 4. rename it over the old one, so that the socket never has other permissions. A crash before 4
    /// leaves the hidden name, which the next start replaces.
    ///
    /// # Errors
    /// [`ControlSocketError`] if a running daemon has the socket, another file the name, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, ControlSocketError> {
        let failed = |source| ControlSocketError::Io {
            path: path.to_owned(),
            source,
        };
        make_parent(path).map_err(failed)?;
        check_free(path)?;
        let beside = beside(path).map_err(failed)?;
        let listener = listen(&beside).map_err(failed)?;
        fs::rename(&beside, path).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            incoming: UnixListenerStream::new(listener),
        })
    }
}

impl Stream for ControlSocket {
    type Item = io::Result<UnixStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.incoming).poll_next(cx)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // This is only tidiness: the next start replaces a stale socket.
        let _ = fs::remove_file(&self.path);
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => DirBuilder::new()
            .recursive(true)
            .mode(PARENT_MODE)
            .create(parent),
        _ => Ok(()),
    }
}

fn check_free(path: &Path) -> Result<(), ControlSocketError> {
    let at = || path.to_owned();
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ControlSocketError::Io { path: at(), source }),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlSocketError::NotASocket { path: at() });
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(ControlSocketError::InUse { path: at() }),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ControlSocketError::Io { path: at(), source }),
    }
}

fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    Ok(path.with_file_name(hidden))
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    if let Some(group) = Group::from_name(GROUP)? {
        hand_to(path, group.gid.as_raw())?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    Ok(listener)
}

/// Sets the group. A daemon that is not root, as in a test, keeps its own.
fn hand_to(path: &Path, gid: u32) -> io::Result<()> {
    if fs::symlink_metadata(path)?.gid() == gid {
        return Ok(());
    }
    match chown(path, None, Some(gid)) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            tracing::info!(group = GROUP, "the control socket keeps this user's group");
            Ok(())
        }
        result => result,
    }
}

/// Whether the caller is root, by the peer credentials of the socket.
pub fn is_root<T>(request: &tonic::Request<T>) -> bool {
    request
        .extensions()
        .get::<tonic::transport::server::UdsConnectInfo>()
        .and_then(|info| info.peer_cred)
        .is_some_and(|cred| cred.uid() == 0)
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn it_is_reachable_and_its_owners_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let mut socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let _client = UnixStream::connect(&path).await.unwrap();
        let server = socket.next().await.unwrap().unwrap();
        assert_eq!(
            server.peer_cred().unwrap().uid(),
            nix::unistd::geteuid().as_raw()
        );
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_live_one_is_left_alone_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let live = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(error, ControlSocketError::InUse { .. }), "{error}");
        drop(live);
        assert!(path.exists());
        let _socket = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn another_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        assert!(
            matches!(error, ControlSocketError::NotASocket { .. }),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_path_too_long_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(120));
        let error = ControlSocket::bind(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

//! What a daemon needs around its work: logs, systemd, signals, a control socket, threads.
//!
//! Nothing here knows what the daemon is for. Each module stands alone; a daemon's `main` calls
//! [`run()`], which sets up [`logging`], [`Signals`] and the watchdog; then its library takes the
//! [`InstanceLock`], binds its listeners and the [`ControlSocket`], and says [`notify::ready`].

pub mod blocking;
mod control_socket;
mod instance_lock;
pub mod logging;
pub mod notify;
mod run;
mod signals;

pub use control_socket::{ControlSocket, ControlSocketError, GROUP, is_root};
pub use instance_lock::{InstanceLock, InstanceLockError};
pub use run::{Life, exit_code, run};
pub use signals::Signals;

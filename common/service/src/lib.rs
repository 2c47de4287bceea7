//! The environment of a daemon's work: logs, systemd, signals, a control socket, threads.
//!
//! Nothing here depends on the daemon's purpose. The modules are independent; a daemon's `main` calls
//! [`run()`], which sets up [`logging`], [`Signals`] and the watchdog; then its library takes the
//! [`InstanceLock`], binds its listeners and the [`ControlSocket`], and calls [`notify::ready`].

pub mod blocking;
mod control_socket;
mod history;
mod instance_lock;
mod kept_map;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod privileges;
mod reload;
mod run;
mod signals;

pub use control_socket::{ControlSocket, ControlSocketError, GROUP, is_root};
pub use history::History;
pub use instance_lock::{InstanceLock, InstanceLockError};
pub use kept_map::{Keeping, KeptMap};
pub use reload::reload_when_told;
pub use run::{Life, exit_code, run};
pub use signals::Signals;

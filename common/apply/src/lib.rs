//! Makes copies of subvolumes from btrfs send streams.
//!
//! A stream is untrusted. An [`Applier`] executes its commands beneath the root directory of one staging
//! subvolume and cannot be made to touch anything else: every path is checked and resolved by the kernel with
//! symbolic links forbidden, every opened file is a regular file, and clones come only from subvolumes that
//! the caller allows. A [`Session`] takes a stream in slices and requests staging from a [`Host`];
//! [`staging`] and [`commit()`] make that crash-safe; [`receive()`] combines all of it for a stream from a
//! pipe.
//!
//! Everything here blocks. The process's umask must not mask the owner's permissions, and its file size limit
//! (RLIMIT_FSIZE) must be off: exceeding it kills the process by a signal.
//!
//! A daemon decides itself where its staging area is and which sender may use which parent:
//!
//! ```no_run
//! use std::error::Error;
//! use std::os::fd::OwnedFd;
//! use std::sync::Arc;
//!
//! use sendshot_apply::commit::{CommitError, Committed, Taken, commit};
//! use sendshot_apply::staging::{Area, Staged, StagingError};
//! use sendshot_apply::{Announced, CloneSources, Host, Identity, Policies, Session, Subvolumes};
//!
//! struct Transfer {
//!     area: Area,
//!     staged: Option<Staged>,
//! }
//!
//! impl CloneSources for Transfer {
//!     fn open(&mut self, uuid: uuid::Uuid, _ctransid: u64)
//!         -> Result<OwnedFd, Box<dyn Error + Send + Sync>> {
//!         Err(format!("this sender has no copy {uuid}").into())
//!     }
//! }
//!
//! impl Host for Transfer {
//!     type Error = StagingError;
//!
//!     fn begin(&mut self, subvolume: &Announced) -> Result<OwnedFd, StagingError> {
//!         // Check here that `subvolume.identity` was negotiated and `subvolume.parent` is allowed.
//!         let staged = self.area.stage("transfer-1".as_ref(), None)?;
//!         let root = staged.root_for_applier().map_err(StagingError::Area)?;
//!         self.staged = Some(staged);
//!         Ok(root)
//!     }
//!
//!     fn complete(&mut self, _: &Announced, _: Arc<OwnedFd>) -> Result<(), StagingError> {
//!         Ok(()) // committed below, once the whole stream has been checked
//!     }
//! }
//!
//! fn transfer(dir: &OwnedFd, identity: Identity, segments: &[Vec<u8>])
//!     -> Result<Committed, Box<dyn Error>> {
//!     let host = Transfer { area: Area::new(dir)?, staged: None };
//!     let mut session = Session::new(host, Subvolumes::One, Policies::default());
//!     for segment in segments {
//!         session.feed(segment)?;
//!     }
//!     let staged = session.finish()?.staged.ok_or("no subvolume in the stream")?;
//!     Ok(commit(staged, dir, "20261122T030000Z".as_ref(), identity, Taken::Number, Vec::new())?)
//! }
//! ```

mod beneath;
mod commands;
pub mod commit;
mod compression;
pub mod elsewhere;
mod error;
mod obstacle;
pub mod parent;
mod paths;
pub mod private_dir;
pub mod receive;
mod session;
pub mod staging;

pub use commands::applier::{Applier, Content, Identity, Policies};
pub use commands::clone::{ClonePolicy, CloneSources};
pub use commands::encoded::EncodedPolicy;
pub use commands::exceptions::{Privileges, Unsupported};
pub use commands::run_policy::{Attributes, Order, RunPolicy};
pub use commit::commit;
pub use compression::decompress::DataError;
pub use compression::lzo::Broken as BrokenLzo;
pub use elsewhere::{Location, Scope};
pub use error::{ApplyError, Cause};
pub use obstacle::{NoDirectory, WriteObstacle};
pub use paths::PathError;
pub use private_dir::{PrivateDir, PublishError};
pub use receive::receive;
pub use session::{Announced, Host, Position, SequenceError, Session, SessionError, Subvolumes};

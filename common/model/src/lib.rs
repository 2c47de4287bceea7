//! The terms of the domain: ids, names, copies and the meaning of users' arguments.
//!
//! Everything here is a value. A text is converted to one of these types where it enters the program (a
//! configuration file, an argument, a message of a peer), and code further inside need not check again
//! whether a name can be a directory or an id has sixteen bytes.
//!
//! ```
//! use sendshot_model::{Target, VolumeRef};
//!
//! let target = Target::parse("nas2:photos").unwrap();
//! assert_eq!(target.receiver.as_str(), "nas2");
//! assert!(matches!(target.volume, VolumeRef::Name(name) if name.as_str() == "photos"));
//! ```

mod any_path;
mod copy_name;
mod engine;
pub mod history;
pub mod human;
mod id;
mod left_out;
mod not_kept;
mod peer_name;
mod printable;
mod reason;
pub mod restore;
pub mod shell;
mod tally;
mod target;
mod text;
mod volume_label;
mod volume_name;

pub use any_path::AnyPath;
pub use copy_name::{CopyName, CopyNameError};
pub use engine::{Engine, UnknownEngine};
pub use id::{IdError, PushId, ReceiverId, RootId, SenderId, TransferId, VolumeId};
pub use left_out::{LeftOut, LeftOutEntry, LeftOutKind};
pub use not_kept::{MAX_NOT_KEPT, NotKept, NotKeptEntry, NotKeptKind};
pub use peer_name::{PeerName, PeerNameError};
pub use printable::{printable, printable_within};
pub use reason::{Reason, ReasonCode};
pub use tally::{Tally, TallyEntry};
pub use target::{Target, TargetError, VolumeRef};
pub use volume_label::VolumeLabel;
pub use volume_name::{VolumeName, VolumeNameError};

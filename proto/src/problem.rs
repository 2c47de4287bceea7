//! Reasons why a request failed, as shown to users: a sentence, a remedy, and the kind that determines the
//! exit code of sendshotctl.

use std::error::Error;
use std::fmt;

use rustix::io::Errno;
use sendshot_sys::durable;

use crate::failure::{Code, Failure};
use crate::v1;

/// Message for a journal of pushes that cannot be read or written.
pub const JOURNAL: &str = "read or write the journal of pushes on this host";

/// Determines the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request failed.
    Failed,
    /// The user cancelled the request.
    Cancelled,
    /// The request or the configuration is wrong.
    Usage,
    /// The receiver could not be reached.
    Unreachable,
    /// The receiver or a rule refused.
    Refused,
}

/// A failure as shown to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Determines the exit code.
    pub kind: Kind,
    /// One sentence that describes the failure.
    pub message: String,
    /// What the user can do; may be empty.
    pub remedy: String,
}

impl Problem {
    /// Makes a problem without a remedy.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            remedy: String::new(),
        }
    }

    /// Makes a problem from an error with its causes.
    pub fn from_error(kind: Kind, error: &dyn Error) -> Self {
        Self::new(kind, with_causes(error))
    }

    /// Makes a problem from an I/O error of the volume's disk during `what`.
    pub fn local_io(what: &str, error: &std::io::Error) -> Self {
        Self::new(Kind::Failed, format!("cannot {what}: {error}")).remedy(io_remedy(error))
    }

    /// Makes a problem from an I/O error during `what` in the sender's state directory, which is on another
    /// disk than the volumes; the error names the file.
    pub fn state_io(what: &str, error: &std::io::Error) -> Self {
        Self::new(Kind::Failed, format!("cannot {what}: {error}")).remedy(state_remedy(error))
    }

    /// Makes a problem from an error of opening a path that the user named.
    pub fn open(error: &(dyn Error + 'static)) -> Self {
        let (kind, remedy) = match durable::errno(error) {
            Some(Errno::IO) => (Kind::Failed, DISK_FAILS),
            Some(Errno::ACCESS) => (
                Kind::Usage,
                "the daemon has no access to a directory of the path: check its permissions and the daemon's systemd unit",
            ),
            Some(Errno::LOOP) => (Kind::Usage, "a symbolic link of the path leads to itself"),
            Some(Errno::NOTDIR) => (Kind::Usage, "a part of the path is not a directory"),
            _ => (Kind::Usage, "is it mounted, and spelt right?"),
        };
        Self::from_error(kind, error).remedy(remedy)
    }

    /// Makes a problem with the remedy for the kernel error among its causes.
    pub fn failed(error: &(dyn Error + 'static)) -> Self {
        Self::from_error(Kind::Failed, error).remedy(io_remedy(error))
    }

    /// Sets what the user can do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl Problem {
    /// Replaces the remedy by a more specific one, unless that is empty.
    #[must_use]
    pub fn prefer_remedy(self, remedy: &str) -> Self {
        match remedy {
            "" => self,
            remedy => self.remedy(remedy),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

const DISK_FAILS: &str = "read this host's kernel log: the disk fails, or was unplugged";

/// Returns what the user can do about an error of a volume's disk; empty if nothing is known.
pub fn io_remedy(error: &(dyn Error + 'static)) -> &'static str {
    match durable::errno(error) {
        Some(Errno::NOSPC) => "free space on the volume's file system on this host, and try again",
        Some(Errno::DQUOT) => {
            "raise or remove the quota on this host (`btrfs qgroup show -r` lists the limits), or free space \
             within it, and try again"
        }
        Some(Errno::ROFS) => {
            "read this host's kernel log, mount the file system read-write, and try again"
        }
        Some(Errno::IO) => DISK_FAILS,
        Some(Errno::UCLEAN) => {
            "the file system on this host is damaged: read the kernel log, unmount the file system, and run `btrfs check` on it"
        }
        _ => "",
    }
}

/// Returns what the user can do about an error of a state directory's disk; empty if nothing is known.
pub fn state_remedy(error: &std::io::Error) -> &'static str {
    match durable::errno(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            "free space on the file system of that file, the sender's state directory, and try again"
        }
        Some(Errno::ROFS) => {
            "mount the file system of that file, the sender's state directory, read-write, and try again"
        }
        Some(Errno::IO) => "read this host's kernel log: the system's disk fails",
        _ => "",
    }
}

/// Returns what the user can do if a hidden snapshot, or its record, could not be deleted.
pub fn delete_remedy(error: &std::io::Error) -> &'static str {
    match durable::errno(error) {
        Some(Errno::PERM) => {
            "a `btrfs send` may be reading it: try again when that has ended; in a container the daemon may lack \
             CAP_SYS_ADMIN"
        }
        _ => io_remedy(error),
    }
}

/// Returns what the user can do if btrfs does not describe a subvolume.
pub fn ask_remedy(error: &(dyn Error + 'static)) -> &'static str {
    match durable::errno(error) {
        Some(Errno::PERM) => {
            "btrfs requires CAP_SYS_ADMIN on the host for this, which an unprivileged container lacks: run the daemon in a privileged container, or on the host"
        }
        _ => io_remedy(error),
    }
}

/// Joins an error and its causes in one line, without a cause with which the line already ends.
pub fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Problem::from_error(Kind::Failed, &error)
    }
}

impl From<sendshot_sys::top_level::Error> for Problem {
    fn from(error: sendshot_sys::top_level::Error) -> Self {
        let remedy = error.remedy();
        Problem::from_error(Kind::Failed, &error).remedy(remedy)
    }
}

impl Code {
    /// Returns the kind that a failure of this code has for the sending host's user.
    pub fn kind(self) -> Kind {
        match self {
            Self::Busy | Self::OverLimit | Self::NotPermitted => Kind::Refused,
            Self::ShuttingDown => Kind::Unreachable,
            Self::Internal
            | Self::ParentGone
            | Self::RootChanged
            | Self::ParentUnusable
            | Self::AlreadyHeld
            | Self::InvalidStream
            | Self::HashMismatch
            | Self::NoSpace
            | Self::ReadOnly
            | Self::RootMissing
            | Self::Io
            | Self::ResumeImpossible
            | Self::Unsupported => Kind::Failed,
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self {
            kind: failure.code.kind(),
            message: format!("the receiver reports: {}", failure.message),
            remedy: failure.remedy,
        }
    }
}

impl From<Problem> for v1::Problem {
    fn from(problem: Problem) -> Self {
        let kind = match problem.kind {
            Kind::Failed => v1::ProblemKind::Failed,
            Kind::Cancelled => v1::ProblemKind::Cancelled,
            Kind::Usage => v1::ProblemKind::Usage,
            Kind::Unreachable => v1::ProblemKind::Unreachable,
            Kind::Refused => v1::ProblemKind::Refused,
        };
        Self {
            kind: kind.into(),
            message: problem.message,
            remedy: problem.remedy,
        }
    }
}

impl From<v1::Problem> for Problem {
    fn from(message: v1::Problem) -> Self {
        let kind = match message.kind() {
            v1::ProblemKind::Unspecified | v1::ProblemKind::Failed => Kind::Failed,
            v1::ProblemKind::Cancelled => Kind::Cancelled,
            v1::ProblemKind::Usage => Kind::Usage,
            v1::ProblemKind::Unreachable => Kind::Unreachable,
            v1::ProblemKind::Refused => Kind::Refused,
        };
        Self {
            kind,
            message: message.message,
            remedy: message.remedy,
        }
    }
}

//! Why something was not done, in the form that users get: a sentence, a remedy, and the kind
//! that decides sendshotctl's exit code.

use std::error::Error;
use std::fmt;

use rustix::io::Errno;
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::v1;

use crate::filesystems::NotLookedAt;

/// What is said when the journal of pushes cannot be read or written.
pub const JOURNAL: &str = "keep the journal of pushes on this box";

/// Decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It failed.
    Failed,
    /// The user cancelled it.
    Cancelled,
    /// It was asked for wrongly, or the configuration is wrong.
    Usage,
    /// The receiver could not be reached.
    Unreachable,
    /// The receiver or a rule said no.
    Refused,
}

/// A failure as told to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub kind: Kind,
    /// One sentence.
    pub message: String,
    /// What to do; may be empty.
    pub remedy: String,
}

impl Problem {
    /// A problem without a remedy.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            remedy: String::new(),
        }
    }

    /// A problem from an error with its causes.
    pub fn from_error(kind: Kind, error: &dyn Error) -> Self {
        Self::new(kind, with_causes(error))
    }

    /// A failure of this box's own disks while `what` was done.
    pub fn local_io(what: &str, error: &std::io::Error) -> Self {
        Self::new(Kind::Failed, format!("{what}: {error}")).remedy(io_remedy(error))
    }

    /// Says what was not looked at when something was not found.
    #[must_use]
    pub(crate) fn with_not_looked_at(mut self, missed: &[NotLookedAt]) -> Self {
        if missed.is_empty() {
            return self;
        }
        for missed in missed {
            self.message.push_str(&format!(
                "; file system {}, last at {}, was not looked at: {}",
                missed.fsid,
                missed.path.display(),
                missed.reason
            ));
        }
        self.remedy = match self.remedy.as_str() {
            "" => "mount it, and try again".to_owned(),
            remedy => format!("mount it, and try again; or {remedy}"),
        };
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What the user can do about an error of this box's own disks; empty if nothing is known.
pub fn io_remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::StorageFull => {
            "free space on the volume's file system on this box, then push again"
        }
        ErrorKind::QuotaExceeded => {
            "raise or remove the quota on this box (`btrfs qgroup show -r` lists the limits), or free space \
             within it, then push again"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "look into this box's kernel log, mount the file system read-write, and push again"
        }
        // The standard library has no name for a disk that fails.
        _ if Errno::from_io_error(error) == Some(Errno::IO) => {
            "look into this box's kernel log: the disk fails"
        }
        _ => "",
    }
}

/// An error and its causes in one line. A cause that the line already ends with is left out.
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

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let kind = match failure.code {
            Code::Busy | Code::OverLimit => Kind::Refused,
            Code::ShuttingDown => Kind::Unreachable,
            Code::Internal
            | Code::ParentGone
            | Code::RootChanged
            | Code::ParentUnusable
            | Code::AlreadyHeld
            | Code::InvalidStream
            | Code::HashMismatch
            | Code::NoSpace
            | Code::ReadOnly
            | Code::RootMissing
            | Code::Io
            | Code::ResumeImpossible
            | Code::Unsupported => Kind::Failed,
        };
        Self {
            kind,
            message: format!("the receiver says: {}", failure.message),
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

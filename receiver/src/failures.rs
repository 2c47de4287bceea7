//! What goes wrong with a push, as it is told to the sender: a code, a sentence, a remedy.

use std::error::Error as StdError;
use std::os::fd::AsFd;

use rustix::io::Errno;
use sendshot_apply::commit::CommitError;
use sendshot_apply::parent::FindError;
use sendshot_apply::staging::StagingError;
use sendshot_apply::{Cause, SessionError};
use sendshot_proto::failure::{Code, Failure};
use sendshot_sys::{filesystem, subvolume};

/// What is said of a write that the kernel refused with `EROFS`.
const READ_ONLY: &str = "the receiver's file system is read-only";

/// Tells a subvolume that was made read-only from a file system that was: the kernel has one error for both.
pub(crate) fn name_what_is_read_only(failure: Failure, staging: Option<impl AsFd>) -> Failure {
    let Some(staging) = staging.filter(|_| failure.code == Code::ReadOnly) else {
        return failure;
    };
    let is_writable = matches!(filesystem::is_read_only(&staging), Ok(false));
    let is_frozen = subvolume::info(&staging).is_ok_and(|info| info.read_only);
    if !is_writable || !is_frozen {
        return failure;
    }
    let subvolume = "the receiver's staging subvolume was made read-only in the middle of the push";
    Failure::new(
        Code::ReadOnly,
        failure.message.replacen(READ_ONLY, subvolume, 1),
        "find out what changes subvolumes below the receiver's root, and push again",
    )
}

pub(crate) fn rule_broken(what: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidStream, what, "")
}

pub(crate) fn hash_mismatch(offset: u64) -> Failure {
    Failure::new(
        Code::HashMismatch,
        format!("what arrived behind byte {offset} of the stream is not what was sent"),
        "nothing of it was kept; push again, and look for faulty memory or network hardware",
    )
}

pub(crate) fn session_failure(error: SessionError<Failure>) -> Failure {
    match error {
        SessionError::Host(failure) => failure,
        SessionError::Apply(apply) => match (&apply.cause, apply.errno()) {
            // Its text says what would hold it.
            (Cause::AttributeTooLarge { .. }, _) => {
                Failure::new(Code::Unsupported, with_causes(&apply), "")
            }
            (_, Some(errno)) => errno_failure(errno, with_causes(&apply)),
            (_, None) => rule_broken(with_causes(&apply)),
        },
        SessionError::Decode(decode) => rule_broken(with_causes(&decode)),
        SessionError::Staging(cause) => failure_with_errno(&cause),
        other @ (SessionError::Sequence { .. } | SessionError::Failed) => {
            rule_broken(with_causes(&other))
        }
    }
}

pub(crate) fn parent_failure(error: &FindError) -> Failure {
    let remedy = "push again: another parent will be agreed on";
    match error {
        FindError::Missing(_) => {
            Failure::new(Code::ParentGone, "the agreed parent is gone", remedy)
        }
        FindError::Elsewhere { location, .. } => Failure::new(
            Code::ParentGone,
            format!("the agreed parent was moved out of the volume's directory, to {location}"),
            remedy,
        ),
        FindError::Unusable { name, why, .. } => Failure::new(
            Code::ParentUnusable,
            format!("the agreed parent {} cannot be used: {why}", name.display()),
            remedy,
        ),
        FindError::Search { source, .. } => io_failure("look for the agreed parent", source),
    }
}

pub(crate) fn staging_failure(error: &StagingError) -> Failure {
    failure_with_errno(error)
}

pub(crate) fn commit_failure(error: &CommitError) -> Failure {
    failure_with_errno(error)
}

/// Looks for the kernel's word among the causes.
fn failure_with_errno(error: &(dyn StdError + 'static)) -> Failure {
    let mut next = Some(error);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<std::io::Error>();
        if let Some(errno) = io.and_then(Errno::from_io_error) {
            return own_failure(errno, with_causes(error));
        }
        next = cause.source();
    }
    Failure::new(Code::Internal, with_causes(error), "")
}

/// A failure of the receiver's own disks.
pub fn io_failure(what: &str, error: &std::io::Error) -> Failure {
    let message = format!("{what}: {error}");
    match Errno::from_io_error(error) {
        Some(errno) => own_failure(errno, message),
        None => Failure::new(Code::Io, message, ""),
    }
}

/// A failure of our own files: nothing of it is the stream's fault.
fn own_failure(errno: Errno, message: String) -> Failure {
    match errno {
        // The staging of this very push is just being deleted.
        Errno::EXIST => Failure::new(Code::Busy, message, "try again in a moment"),
        errno => match errno_failure(errno, message.clone()) {
            failure if [Code::InvalidStream, Code::Unsupported].contains(&failure.code) => {
                Failure::new(Code::Internal, message, "")
            }
            failure => failure,
        },
    }
}

fn errno_failure(errno: Errno, message: String) -> Failure {
    match errno {
        Errno::NOSPC => Failure::new(
            Code::NoSpace,
            format!("the receiver's file system is full: {message}"),
            "free space on the receiver (delete copies, or grow the file system) and push again",
        ),
        Errno::DQUOT => Failure::new(
            Code::NoSpace,
            format!("a quota of the receiver's file system is exhausted: {message}"),
            "raise or remove the quota on the receiver (`btrfs qgroup show -r` lists the limits), or delete \
             copies that count, and push again",
        ),
        Errno::ROFS => Failure::new(
            Code::ReadOnly,
            format!("{READ_ONLY}: {message}"),
            "look into the receiver's kernel log, mount it read-write again, and push again",
        ),
        Errno::IO => Failure::new(
            Code::Io,
            format!("the receiver's disk fails: {message}"),
            "look into the receiver's kernel log",
        ),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Failure::new(
            Code::Internal,
            format!("the receiver is short of memory or descriptors: {message}"),
            "push again when it has less to do",
        ),
        Errno::OPNOTSUPP => Failure::new(
            Code::Unsupported,
            format!(
                "the receiver's file system does not support something of the volume: {message}"
            ),
            "if it is an access control list, mount the receiver's file system without `noacl`; then push again",
        ),
        Errno::NAMETOOLONG | Errno::FBIG | Errno::MLINK | Errno::TOOBIG | Errno::OVERFLOW => {
            Failure::new(
                Code::Unsupported,
                format!(
                    "something of the volume is too large for the receiver's file system: {message}"
                ),
                "move it out of the volume, or make it smaller, and push again",
            )
        }
        // About who may do what here, or about this moment: not about the stream.
        Errno::ACCESS | Errno::BUSY | Errno::AGAIN | Errno::INTR => {
            Failure::new(Code::Internal, message, "")
        }
        _ => Failure::new(Code::InvalidStream, message, ""),
    }
}

pub(crate) fn with_causes(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

//! The failures of a push as the sender gets them: a code, a sentence, a remedy.

use std::error::Error as StdError;
use std::os::fd::AsFd;

use rustix::io::Errno;
use sendshot_apply::commit::CommitError;
use sendshot_apply::parent::FindError;
use sendshot_apply::staging::StagingError;
use sendshot_apply::{ApplyError, Cause, NoDirectory, SessionError, WriteObstacle};
use sendshot_proto::failure::{Code, Failure};
use sendshot_stream::dump::escaped;
use sendshot_transfer::position;

/// Message for a write that the kernel refused with `EROFS`.
const READ_ONLY: &str = "the receiver's file system is read-only";

/// Distinguishes a read-only staging subvolume from a read-only file system: the kernel has one error for both.
pub(crate) fn in_staging(failure: Failure, staging: Option<impl AsFd>) -> Failure {
    let Some(staging) = staging.filter(|_| failure.code == Code::ReadOnly) else {
        return failure;
    };
    match WriteObstacle::of(staging) {
        Ok(Some(WriteObstacle::Subvolume)) => staging_frozen(&failure),
        Ok(Some(obstacle)) => at_mount(failure, obstacle),
        Ok(None) | Err(_) => failure,
    }
}

/// Does the same for the directory `dir`, which is called `name` below the receiver's root.
pub(crate) fn in_dir(failure: Failure, name: &str, dir: impl AsFd) -> Failure {
    if failure.code != Code::ReadOnly {
        return failure;
    }
    match WriteObstacle::of(dir) {
        Ok(Some(obstacle)) => at_obstacle(failure, name, obstacle),
        Ok(None) | Err(_) => failure,
    }
}

/// Does the same for a commit, which writes only into staging and the directory.
pub(crate) fn in_commit(failure: Failure, name: &str, dir: impl AsFd) -> Failure {
    match (failure.code, WriteObstacle::of(&dir)) {
        (Code::ReadOnly, Ok(None)) => staging_frozen(&failure),
        _ => in_dir(failure, name, dir),
    }
}

fn staging_frozen(failure: &Failure) -> Failure {
    named(
        failure,
        "the receiver's staging subvolume was made read-only in the middle of the push",
        "find the program that changes subvolumes below the receiver's root, and push again",
    )
}

fn at_obstacle(failure: Failure, name: &str, obstacle: WriteObstacle) -> Failure {
    match obstacle {
        WriteObstacle::Subvolume => named(
            &failure,
            &format!("{name} below the receiver's root lies in a read-only subvolume"),
            "make that subvolume of the receiver writable, `btrfs property set SUBVOLUME ro false`, and push again",
        ),
        other => at_mount(failure, other),
    }
}

fn at_mount(failure: Failure, obstacle: WriteObstacle) -> Failure {
    match obstacle {
        WriteObstacle::Mount => named(
            &failure,
            "the receiver's root is mounted read-only where the receiver runs, though its file system is not \
             read-only",
            "remount it read-write (a service of systemd writes only below its ReadWritePaths), and push again",
        ),
        WriteObstacle::FileSystem | WriteObstacle::Subvolume => failure,
    }
}

fn named(failure: &Failure, what: &str, remedy: &str) -> Failure {
    let message = failure.message.replacen(READ_ONLY, what, 1);
    Failure::new(Code::ReadOnly, message, remedy)
}

/// Refuses a push into a read-only directory, before anything of it is sent.
pub(crate) fn check_writable(name: &str, dir: impl AsFd) -> Result<(), Failure> {
    let obstacle = WriteObstacle::of(dir).map_err(|e| io_failure(&format!("check {name}"), &e))?;
    let Some(obstacle) = obstacle else {
        return Ok(());
    };
    let failure = errno_failure(Errno::ROFS, format!("copies cannot be made in {name}"));
    Err(at_obstacle(failure, name, obstacle))
}

pub(crate) fn rule_broken(what: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidStream, what, "")
}

/// Makes the failure for a segment that does not continue the stream.
pub(crate) fn not_continued(error: position::Error) -> Failure {
    match error {
        position::Error::Misplaced { .. } => rule_broken(error.to_string()),
        position::Error::Mismatch { .. } => Failure::new(
            Code::HashMismatch,
            error.to_string(),
            "none of them were kept; push again, and check for faulty memory or network hardware",
        ),
    }
}

pub(crate) fn session_failure(error: SessionError<Failure>) -> Failure {
    match error {
        SessionError::Host(failure) => failure,
        SessionError::Apply(apply) => match (&apply.cause, apply.errno()) {
            // The error's text names the limit.
            (Cause::AttributeTooLarge { .. }, _) => {
                Failure::new(Code::Unsupported, with_causes(&apply), "")
            }
            (_, Some(Errno::PERM)) => not_permitted(&apply),
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

/// Classifies `EPERM`: it is the stream's fault only for what the kernel forbids every process.
fn not_permitted(apply: &ApplyError) -> Failure {
    let message = with_causes(apply);
    let path = escaped(&apply.path);
    let (what, remedy) = match apply.command {
        // A second name for a directory, and a user attribute of what is neither file nor directory.
        "link" | "set_xattr" | "remove_xattr" => return rule_broken(message),
        "mknod" => (
            format!("the receiver may not make the special file {path} here: {message}"),
            "making device nodes needs CAP_MKNOD; in a container the device must be allowed, too, \
             `DeviceAllow=DEVICE m`; or move it out of the volume",
        ),
        _ => (
            format!("the receiver lacks a permission for this operation on {path}: {message}"),
            "run the receiver as root with all of its capabilities, as its systemd unit does, and push again",
        ),
    };
    Failure::new(Code::Internal, what, remedy)
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
        FindError::SearchElsewhere { source, .. } => {
            search_failure("look for the agreed parent", source)
        }
        FindError::TopLevel { source, .. } => {
            Failure::new(Code::Internal, with_causes(error), source.remedy())
        }
    }
}

pub(crate) fn staging_failure(error: &StagingError) -> Failure {
    failure_with_errno(error)
}

pub(crate) fn commit_failure(error: &CommitError) -> Failure {
    failure_with_errno(error)
}

/// Makes the failure by the first error number among the causes.
fn failure_with_errno(error: &(dyn StdError + 'static)) -> Failure {
    let mut next = Some(error);
    while let Some(cause) = next {
        let io = cause.downcast_ref::<std::io::Error>();
        if let Some(other) = io.and_then(NoDirectory::within) {
            return Failure::new(Code::Internal, with_causes(error), other.remedy());
        }
        if let Some(errno) = io.and_then(Errno::from_io_error) {
            return own_failure(errno, with_causes(error));
        }
        next = cause.source();
    }
    Failure::new(Code::Internal, with_causes(error), "")
}

/// Makes the failure for an I/O error on the receiver's own disks.
pub fn io_failure(what: &str, error: &std::io::Error) -> Failure {
    let message = format!("cannot {what}: {error}");
    if let Some(other) = NoDirectory::within(error) {
        return Failure::new(Code::Internal, message, other.remedy());
    }
    match Errno::from_io_error(error) {
        Some(errno) => own_failure(errno, message),
        None => Failure::new(Code::Io, message, ""),
    }
}

/// Makes the failure for a search of the whole file system, which only root on the host may do.
pub(crate) fn search_failure(what: &str, error: &std::io::Error) -> Failure {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) => Failure::new(
            Code::Internal,
            format!("the receiver may not search its file system: cannot {what}: {error}"),
            "searching btrfs needs CAP_SYS_ADMIN on the host: run the receiver on the host, or in a privileged \
             container",
        ),
        _ => io_failure(what, error),
    }
}

/// Makes the failure for an error on the receiver's own files, which is never the stream's fault.
fn own_failure(errno: Errno, message: String) -> Failure {
    match errno {
        // The staging of this very push is being deleted.
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
            "read the receiver's kernel log, mount the file system read-write again, and push again",
        ),
        Errno::IO => Failure::new(
            Code::Io,
            format!("the receiver's disk fails: {message}"),
            "read the receiver's kernel log",
        ),
        Errno::UCLEAN => Failure::new(
            Code::Io,
            format!("the receiver's file system is damaged: {message}"),
            "read the receiver's kernel log, and run `btrfs check` on the unmounted file system",
        ),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Failure::new(
            Code::Internal,
            format!("the receiver is short of memory or descriptors: {message}"),
            "push again when it has less to do",
        ),
        Errno::OPNOTSUPP => Failure::new(
            Code::Unsupported,
            format!(
                "the receiver's file system does not support a feature of the volume: {message}"
            ),
            "if it is an access control list, mount the receiver's file system without `noacl`; then push again",
        ),
        Errno::NAMETOOLONG | Errno::FBIG | Errno::MLINK | Errno::TOOBIG | Errno::OVERFLOW => {
            Failure::new(
                Code::Unsupported,
                format!(
                    "a part of the volume is too large for the receiver's file system: {message}"
                ),
                "move it out of the volume, or make it smaller, and push again",
            )
        }
        // Errors of permissions or of the moment, not of the stream.
        Errno::PERM | Errno::ACCESS | Errno::BUSY | Errno::AGAIN | Errno::INTR => {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(command: &'static str, errno: Errno) -> Failure {
        session_failure(SessionError::Apply(ApplyError {
            command,
            path: b"dev/sda".to_vec(),
            offset: 100,
            cause: Cause::System(errno),
        }))
    }

    #[test]
    fn a_permission_error_is_not_a_stream_fault() {
        let node = refused("mknod", Errno::PERM);
        assert_eq!(node.code, Code::Internal);
        assert!(node.message.contains("dev/sda"), "{node:?}");
        assert!(node.remedy.contains("CAP_MKNOD") && node.remedy.contains("DeviceAllow"));
        let owner = refused("chown", Errno::PERM);
        assert_eq!(owner.code, Code::Internal);
        assert!(owner.remedy.contains("capabilities"), "{owner:?}");
        for forbidden_to_all in ["link", "set_xattr"] {
            let failure = refused(forbidden_to_all, Errno::PERM);
            assert_eq!(failure.code, Code::InvalidStream);
        }
    }

    #[test]
    fn a_damaged_file_system_is_no_fault_of_the_stream() {
        let damaged = refused("write", Errno::UCLEAN);
        assert_eq!(damaged.code, Code::Io);
        assert!(damaged.message.contains("file system is damaged"));
        assert!(damaged.remedy.contains("btrfs check"), "{damaged:?}");
    }

    #[test]
    fn a_search_that_is_forbidden_names_the_right_that_it_needs() {
        let failure = search_failure("look for copies", &Errno::PERM.into());
        assert_eq!(failure.code, Code::Internal);
        assert!(failure.remedy.contains("CAP_SYS_ADMIN"), "{failure:?}");
    }
}

//! Errors of pushes and dry runs.

use sendshot_proto::problem::{Kind, Problem, io_remedy, state_remedy};

use crate::decide::parent;
use crate::push::error::{Error, in_series};
use crate::push::generate;
use crate::push::stages::snapshot;
use crate::push::stages::transfer;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (kind, remedy) = match error {
            Error::Volume { source, .. } => (Kind::Failed, io_remedy(&source).to_owned()),
            Error::StateDir { source, .. } => (Kind::Failed, state_remedy(&source).to_owned()),
            Error::Register(source) => (Kind::Failed, register_remedy(&source).to_owned()),
            Error::Thread(died) => return died.into(),
            Error::Receiver(error) => return error.into(),
            Error::Resolve(error) => return error.into(),
            Error::Engine(error) => return error.into(),
            Error::TopLevel(error) => return error.into(),
            Error::Store(error) => return error.into(),
            Error::Snapshot(error) => return error.into(),
            Error::Capture(error) => return Problem::failed(&error).prefer_remedy(error.remedy()),
            Error::Sendshot(error) => return Problem::from_error(Kind::Failed, &error),
            Error::Parent(error) => return error.into(),
            Error::Generate(error) => return error.into(),
            Error::Held { .. } => (
                Kind::Refused,
                "wait until that has ended, and push again".to_owned(),
            ),
            Error::Connection(error) => return error.into(),
            Error::Transfer(error) => return error.into(),
            Error::Running { .. } => (
                Kind::Refused,
                "wait for it, or cancel it with `sendshotctl cancel`".to_owned(),
            ),
            Error::CommitPending(_) => (Kind::Unreachable, "try again later".to_owned()),
            Error::TooManyRoots {
                receiver, volume, ..
            } => (
                Kind::Refused,
                format!(
                    "`sendshotctl forget {receiver}:{volume} --root ID` deletes the states retained for a disk that is gone for good; `sendshotctl list` shows the disks"
                ),
            ),
            Error::SentToOtherDisk => (
                Kind::Failed,
                "push again: the volume goes to the present disk, and the first disk is checked when it is mounted again"
                    .to_owned(),
            ),
            Error::OtherReceiver(_)
            | Error::DiskExchanged
            | Error::RecordGone
            | Error::ParentGone
            | Error::Replaced(_) => (Kind::Failed, "push again".to_owned()),
            Error::NoAnswer(_) => (
                Kind::Failed,
                "look at the disk, `dmesg` may name it; other volumes are pushed meanwhile".to_owned(),
            ),
            Error::CameToNothing | Error::NothingCaptured | Error::Stopped => {
                (Kind::Failed, String::new())
            }
            Error::InSeries { pushed, of, source } => {
                let problem = Problem::from(*source);
                let message = in_series(&problem.message, pushed, of);
                return Problem { message, ..problem };
            }
            Error::Kept(source) => {
                let problem = Problem::from(*source);
                let hint = "the next push resumes where this one stopped";
                let remedy = match problem.remedy.as_str() {
                    "" => hint.to_owned(),
                    remedy => format!("{remedy}; {hint}"),
                };
                return problem.remedy(remedy);
            }
            Error::ParentRefused(source) => {
                return Problem::from(*source)
                    .remedy("push without `--parent`: everything is sent then");
            }
        };
        Problem::new(kind, message).remedy(remedy)
    }
}

fn register_remedy(error: &std::io::Error) -> &'static str {
    match io_remedy(error) {
        "" => {
            "check that file in the top-level subvolume (`mount -o subvolid=5 DEVICE DIR`); without it, the list of the disk's volumes is written again"
        }
        remedy => remedy,
    }
}

impl From<snapshot::Error> for Problem {
    fn from(error: snapshot::Error) -> Self {
        let remedy = match &error {
            snapshot::Error::SwapFile { .. } => {
                "the kernel cannot snapshot it: `swapoff` the file, or move it into a subvolume of its own"
            }
            snapshot::Error::Journal(source) | snapshot::Error::Io(source) => io_remedy(source),
        };
        let kind = match &error {
            snapshot::Error::SwapFile { .. } => Kind::Usage,
            snapshot::Error::Journal(_) | snapshot::Error::Io(_) => Kind::Failed,
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}

impl From<transfer::Error> for Problem {
    fn from(error: transfer::Error) -> Self {
        match error {
            transfer::Error::Refused(failure) => failure.into(),
            transfer::Error::Cancelled => Problem::from_error(Kind::Cancelled, &error),
            transfer::Error::Stalled { .. } => Problem::from_error(Kind::Unreachable, &error)
                .remedy("read the receiver's kernel log, and try again later"),
            transfer::Error::Moved(_) => Problem::from_error(Kind::Failed, &error)
                .remedy("push again when the file system stays as it is"),
            transfer::Error::Connection(error) => error.into(),
            transfer::Error::ProtocolViolation(_) => Problem::from_error(Kind::Failed, &error),
            transfer::Error::Generate(_) | transfer::Error::Record(_) => Problem::failed(&error),
        }
    }
}

impl From<generate::Error> for Problem {
    fn from(error: generate::Error) -> Self {
        Problem::failed(&error)
    }
}

impl From<parent::Error> for Problem {
    fn from(error: parent::Error) -> Self {
        Problem::from_error(Kind::Usage, &error)
            .remedy("`sendshotctl plan` shows which copies can be the parent")
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use sendshot_proto::failure::{Code, Failure};
    use sendshot_service::blocking::BlockingError;

    use super::*;
    use crate::connection;
    use crate::push::error::Class;
    use crate::shared::blocking::Died;
    use crate::shared::sender;

    fn io_error() -> io::Error {
        io::ErrorKind::StorageFull.into()
    }

    fn died() -> Died {
        let message = "x".to_owned();
        BlockingError::Panicked { name: "x", message }.into()
    }

    /// The errors that can end an attempt that has begun.
    fn errors() -> Vec<Error> {
        let codes = [
            Code::Busy,
            Code::ShuttingDown,
            Code::OverLimit,
            Code::NoSpace,
            Code::Unsupported,
        ];
        let refused = |code| transfer::Error::Refused(Failure::new(code, "x", ""));
        let said = |code| connection::error::Error::Failure(Failure::new(code, "x", ""));
        let mut errors: Vec<Error> = codes.map(|code| refused(code).into()).into();
        errors.extend(codes.map(|code| Error::Connection(said(code))));
        errors.extend([
            Error::volume("x")(io_error()),
            Error::state_dir("x")(io_error()),
            Error::Register(io_error()),
            Error::Receiver(sender::Error::NotPaired("nas2".parse().unwrap())),
            Error::Receiver(sender::Error::Thread(died())),
            Error::Thread(died()),
            Error::Connection(connection::error::Error::broken("nas2:7117", "reset")),
            Error::Connection(connection::error::Error::invalid("x")),
            Error::Connection(connection::error::Error::SetUpAnew),
            transfer::Error::Stalled {
                address: "nas2:7117".to_owned(),
                after: Duration::from_secs(1),
            }
            .into(),
            transfer::Error::from(connection::error::Error::broken("nas2:7117", "reset")).into(),
            transfer::Error::ProtocolViolation("x".to_owned()).into(),
            transfer::Error::Moved(io_error()).into(),
            transfer::Error::Record(io_error()).into(),
            transfer::Error::Generate(generate::Error::Died).into(),
            Error::cancelled(),
            Error::SentToOtherDisk,
            Error::RecordGone,
            Error::ParentGone,
        ]);
        errors
    }

    #[test]
    fn a_plan_decides_as_the_push_does() {
        for error in errors() {
            let (class, message) = (error.class(), error.to_string());
            let problem = Problem::from(error);
            assert_eq!(class, Class::from(problem.kind), "{message}");
            assert_eq!(message, problem.message);
        }
    }

    #[test]
    fn a_kept_push_adds_to_the_remedy() {
        for error in errors() {
            let class = error.class();
            let kept = Error::Kept(Box::new(error));
            assert_eq!(kept.class(), class);
            let problem = Problem::from(kept);
            assert!(
                problem
                    .remedy
                    .ends_with("the next push resumes where this one stopped")
            );
        }
    }
}

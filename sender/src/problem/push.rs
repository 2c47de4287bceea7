//! A push, or a plan of one, that did not come to its end.

use sendshot_proto::problem::{self, Kind, Problem};

use crate::decide::parent;
use crate::push::error::Error;
use crate::push::generate;
use crate::push::stages::capture;
use crate::push::stages::snapshot;
use crate::push::stages::transfer;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (kind, remedy) = match error {
            Error::Volume { what, source } => return Problem::local_io(what, &source),
            Error::StateDir { what, source } => return Problem::state_io(what, &source),
            Error::Register(source) => return register(&source),
            Error::Thread(died) => return died.into(),
            Error::Receiver(error) => return error.into(),
            Error::Resolve(error) => return error.into(),
            Error::Engine(error) => return error.into(),
            Error::TopLevel(error) => return error.into(),
            Error::Store(error) => return error.into(),
            Error::Snapshot(error) => return error.into(),
            Error::Adopt(error) => return Problem::from_error(Kind::Failed, &error),
            Error::Capture(error) => return captured(&error),
            Error::Sendshot(error) => return Problem::from_error(Kind::Failed, &error),
            Error::Parent(error) => return error.into(),
            Error::Generate(error) => return error.into(),
            Error::Connection(error) => return error.into(),
            Error::Transfer(error) => return error.into(),
            Error::Running { .. } => (
                Kind::Refused,
                "wait for it, or `sendshotctl cancel` it".to_owned(),
            ),
            Error::AtWork(_) => (Kind::Unreachable, "try again later".to_owned()),
            Error::TooManyRoots {
                receiver, volume, ..
            } => (
                Kind::Refused,
                format!(
                    "`sendshotctl forget {receiver}:{volume} --root ID` lets go of one that is gone for good; \
                     `sendshotctl list` shows them"
                ),
            ),
            Error::SentToOtherDisk => (
                Kind::Failed,
                "push again: the other one gets it, and the first is asked when it is back"
                    .to_owned(),
            ),
            Error::OtherReceiver(_)
            | Error::DiskExchanged
            | Error::RecordGone
            | Error::ParentGone
            | Error::Replaced(_) => (Kind::Failed, "push again".to_owned()),
            Error::CameToNothing | Error::NothingCaptured | Error::Stopped => {
                (Kind::Failed, String::new())
            }
            Error::InSeries { source, .. } => {
                let problem = Problem::from(*source);
                return Problem { message, ..problem };
            }
            Error::Kept(source) => {
                let problem = Problem::from(*source);
                let hint = "the next push goes on where this one stopped";
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

fn register(error: &std::io::Error) -> Problem {
    let what = "write down which volumes are on the disk, in .sendshot/register.json";
    let problem = Problem::local_io(what, error);
    match problem.remedy.is_empty() {
        false => problem,
        true => problem.remedy(
            "look at that file in the top-level subvolume (`mount -o subvolid=5 DEVICE DIR`); without it, \
             what the disk says of its volumes is written anew",
        ),
    }
}

fn captured(error: &capture::Error) -> Problem {
    let problem = Problem::failed(error);
    match error.remedy() {
        "" => problem,
        remedy => problem.remedy(remedy),
    }
}

impl From<snapshot::Error> for Problem {
    fn from(error: snapshot::Error) -> Self {
        let remedy = match &error {
            snapshot::Error::SwapFile { .. } => {
                "the kernel cannot snapshot it: `swapoff` the file, or move it into a subvolume of its own"
            }
            snapshot::Error::Journal(source) | snapshot::Error::Io(source) => {
                problem::io_remedy(source)
            }
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
            transfer::Error::Cancelled => Problem::new(Kind::Cancelled, "the push was cancelled"),
            transfer::Error::Stalled { .. } => Problem::from_error(Kind::Unreachable, &error)
                .remedy("look into the receiver's kernel log, and try again later"),
            transfer::Error::Moved(_) => Problem::from_error(Kind::Failed, &error)
                .remedy("push again when the file system stays as it is"),
            transfer::Error::Connection(error) => error.into(),
            transfer::Error::Nonsense(_) => Problem::from_error(Kind::Failed, &error),
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

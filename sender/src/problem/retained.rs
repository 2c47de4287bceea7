//! Errors about kept states: not found, or not deleted.

use sendshot_model::ReasonCode;
use sendshot_proto::problem::{Kind, Problem, delete_remedy, io_remedy, state_remedy};

use crate::decide::forget;
use crate::problem::state;
use crate::retained::foreign;
use crate::retained::forget::Failed;
use crate::retained::selection;
use crate::state::filesystems::NotLookedAt;

impl From<forget::Error> for Problem {
    fn from(error: forget::Error) -> Self {
        const LIST: &str = "`sendshotctl list` shows the retained states";
        let (kind, remedy) = match &error {
            forget::Error::Text(_) => (
                Kind::Usage,
                "give a UUID, the beginning of one, a UTC time like 20261122T030000Z, or --all",
            ),
            forget::Error::Suffix(_) => (
                Kind::Usage,
                "give its UUID, as `sendshotctl copy list` on the receiver shows it",
            ),
            forget::Error::Nothing { .. } => (Kind::Usage, LIST),
            forget::Error::NotFound { .. } => (Kind::Usage, "name one of these"),
            forget::Error::Ambiguous { .. } => (Kind::Usage, "give more of the UUID"),
            forget::Error::SeveralVolumes { .. } => (
                Kind::Usage,
                "name the volume by its path, or each sendshot by its UUID",
            ),
            forget::Error::InUse { .. } => (
                Kind::Refused,
                "wait for it, or cancel it with `sendshotctl cancel`",
            ),
            forget::Error::LastCommon { .. } => (
                Kind::Refused,
                "to delete it all the same, add --break-chain; the copies on the receiver stay",
            ),
            forget::Error::Changed { .. } => (
                Kind::Refused,
                "check `sendshotctl list`, and run the command again",
            ),
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        let message = failed.to_string();
        match failed {
            Failed::Selection(error) => error.into(),
            Failed::NotFound { error, missed } => name_in(error.into(), missed),
            Failed::Kept(error) => error.into(),
            Failed::NotDeleted { source, .. } => {
                Problem::new(Kind::Failed, message).remedy(delete_remedy(&source))
            }
        }
    }
}

/// Adds to a problem the file systems that were not read when something was not found.
fn name_in(mut problem: Problem, missed: Vec<NotLookedAt>) -> Problem {
    if missed.is_empty() {
        return problem;
    }
    let mut looks = Vec::new();
    for missed in missed {
        let (reason, remedy) = state::reason(missed.why);
        problem.message.push_str(&format!(
            "; file system {}, last at {}, was not checked: {reason}",
            missed.fsid,
            missed.path.display(),
        ));
        looks.push(match reason.code {
            ReasonCode::LookFailed => remedy,
            _ => "mount it".to_owned(),
        });
    }
    let first = looks.into_iter().find(|look| !look.is_empty());
    let look = first.unwrap_or_else(|| "read this host's kernel log".to_owned());
    problem.remedy = match problem.remedy.as_str() {
        "" => format!("{look}, and try again"),
        remedy => format!("{look}, and try again; or {remedy}"),
    };
    problem
}

impl From<foreign::Error> for Problem {
    fn from(error: foreign::Error) -> Self {
        let message = error.to_string();
        let (kind, remedy) = match error {
            foreign::Error::Open { .. } => return Problem::open(&error),
            foreign::Error::TopLevel(error) => return error.into(),
            foreign::Error::Store(error) => return error.into(),
            foreign::Error::NotBtrfs { .. } => (
                Kind::Usage,
                "name a path on the disk that came from another host",
            ),
            foreign::Error::Nothing { .. } => {
                (Kind::Usage, "`sendshotctl list` shows the retained states")
            }
            foreign::Error::Changed { .. } => (
                Kind::Refused,
                "check `sendshotctl list`, and run the command again",
            ),
            foreign::Error::Journal(source) | foreign::Error::Register(source) => {
                (Kind::Failed, io_remedy(&source))
            }
            foreign::Error::StateDir(source) => (Kind::Failed, state_remedy(&source)),
            foreign::Error::NotDeleted { source, .. } => (Kind::Failed, delete_remedy(&source)),
        };
        Problem::new(kind, message).remedy(remedy)
    }
}

impl From<selection::Error> for Problem {
    fn from(error: selection::Error) -> Self {
        let message = error.to_string();
        match error {
            selection::Error::Path(error) => Problem::from(error)
                .remedy("name the volume as `sendshotctl list` shows it, without a path"),
            selection::Error::NeverPushed(_) => Problem::new(Kind::Usage, message)
                .remedy("`sendshotctl list` shows the retained states and their volumes"),
        }
    }
}

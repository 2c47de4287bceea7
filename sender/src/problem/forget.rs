//! States that are not forgotten.

use sendshot_model::ReasonCode;
use sendshot_proto::problem::{Kind, Problem, delete_remedy};

use crate::decide::forget::Error;
use crate::problem::filesystem;
use crate::retained::forget::Failed;
use crate::state::filesystems::NotLookedAt;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        const LIST: &str = "`sendshotctl list` shows what is kept";
        let (kind, remedy) = match &error {
            Error::Text(_) => (
                Kind::Usage,
                "give a UUID, the beginning of one, a UTC time like 20261122T030000Z, or --all",
            ),
            Error::Suffix(_) => (
                Kind::Usage,
                "`sendshotctl copy list` there shows its UUID: give that",
            ),
            Error::Nothing { .. } => (Kind::Usage, LIST),
            Error::NotFound { .. } => (Kind::Usage, "name one of these"),
            Error::Ambiguous { .. } => (Kind::Usage, "give more of the UUID"),
            Error::SeveralVolumes { .. } => (
                Kind::Usage,
                "name the volume by its path, or each sendshot by its UUID",
            ),
            Error::InUse { .. } => (Kind::Refused, "wait for it, or `sendshotctl cancel` it"),
            Error::LastCommon { .. } => (
                Kind::Refused,
                "if that is what you want, say --break-chain; the copies on the receiver stay",
            ),
            Error::Changed { .. } => (Kind::Refused, "look again, and run it again"),
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

/// Adds to a problem what was not looked at when something was not found.
fn name_in(mut problem: Problem, missed: Vec<NotLookedAt>) -> Problem {
    if missed.is_empty() {
        return problem;
    }
    let mut looks = Vec::new();
    for missed in missed {
        let (reason, remedy) = filesystem::reason(missed.why);
        problem.message.push_str(&format!(
            "; file system {}, last at {}, was not looked at: {reason}",
            missed.fsid,
            missed.path.display(),
        ));
        looks.push(match reason.code {
            ReasonCode::LookFailed => remedy,
            _ => "mount it".to_owned(),
        });
    }
    let first = looks.into_iter().find(|look| !look.is_empty());
    let look = first.unwrap_or_else(|| "look into this box's kernel log".to_owned());
    problem.remedy = match problem.remedy.as_str() {
        "" => format!("{look}, and try again"),
        remedy => format!("{look}, and try again; or {remedy}"),
    };
    problem
}

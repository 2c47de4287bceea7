//! States that are not forgotten.

use sendshot_proto::problem::{Kind, Problem};

use crate::decide::forget::Error;

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

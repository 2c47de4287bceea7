//! Why a receiver was not reached, or a call to it failed.

use sendshot_identity::{ConnectError, TlsError};
use sendshot_proto::failure::Failure;
use sendshot_proto::problem::{Kind, with_causes};

/// The first version of the receiver that sends copies back.
const FIRST_WITH_RESTORE: &str = "sendshot-receiver 0.1.0";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credentials written by pairing cannot be used.
    #[error("{}", with_causes(.source))]
    Credentials { address: String, source: TlsError },
    /// No connection was made.
    #[error("{}", with_causes(.0))]
    Connect(#[source] ConnectError),
    /// The connection ended, or the whole answer did not arrive in time.
    #[error("the connection to the receiver at {address} broke: {why}")]
    Broken { address: String, why: String },
    /// The receiver did not accept an announced push in time.
    #[error("the receiver at {address} was not ready for the push within {seconds} s")]
    NotReady {
        address: String,
        /// The time-out.
        seconds: u64,
    },
    /// The receiver refuses this sender, or this call.
    #[error("{message}")]
    Refused {
        /// The receiver's message.
        message: String,
        /// The receiver's advice; may be empty.
        remedy: String,
    },
    /// The receiver could not serve the call.
    #[error("the call to the receiver at {address} failed: {message}")]
    Failed {
        address: String,
        /// The receiver's message.
        message: String,
        /// The receiver's advice; may be empty.
        remedy: String,
    },
    /// The answer itself reports a failure.
    #[error("the receiver reports: {0}")]
    Failure(#[from] Failure),
    /// The answer breaks the contract.
    #[error("the receiver's response is invalid: {0}")]
    Invalid(String),
    /// The receiver cannot send copies back.
    #[error(
        "the receiver at {address} ({software}) cannot send copies back: it lacks the feature `restore`, which {} \
         and later have",
        FIRST_WITH_RESTORE
    )]
    TooOld {
        address: String,
        /// Its program and version.
        software: String,
    },
    /// Another instance of the receiver answers.
    #[error("the receiver was set up again since it was paired")]
    SetUpAnew,
}

impl Error {
    /// Makes the error for a broken connection to the receiver at `address`.
    pub(crate) fn broken(address: &str, why: &(impl ToString + ?Sized)) -> Self {
        Self::Broken {
            address: address.to_owned(),
            why: why.to_string(),
        }
    }

    /// Makes the error for an answer that breaks the contract.
    pub(crate) fn invalid(error: impl ToString) -> Self {
        Self::Invalid(error.to_string())
    }

    /// What the user can do; may be empty.
    pub fn remedy(&self) -> String {
        match self {
            Self::Credentials { address, .. } => format!(
                "pair again: `sendshotctl peer invite NAME --replace` on the receiver, then `sendshotctl pair \
                 {address}` here"
            ),
            Self::Connect(error) => error.remedy(),
            Self::Broken { .. } => {
                "try again later; the next push detects what the receiver has committed".to_owned()
            }
            Self::NotReady { .. } => {
                "read the receiver's journal and kernel log, and try again later".to_owned()
            }
            Self::Refused { remedy, .. } | Self::Failed { remedy, .. } => remedy.clone(),
            Self::Failure(failure) => failure.remedy.clone(),
            Self::Invalid(_) => String::new(),
            Self::TooOld { .. } => {
                "upgrade sendshot-receiver on that host; until then, copy from its root with `btrfs send` or `cp`"
                    .to_owned()
            }
            Self::SetUpAnew => {
                "pair again: `sendshotctl peer invite` on the receiver, `sendshotctl pair` here"
                    .to_owned()
            }
        }
    }

    /// The kind of the error, for the user.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect(ConnectError::Unreachable { .. } | ConnectError::NotAReceiver { .. })
            | Self::Broken { .. }
            | Self::NotReady { .. } => Kind::Unreachable,
            Self::Connect(
                ConnectError::WrongReceiver { .. }
                | ConnectError::Refused { .. }
                | ConnectError::Clock { .. },
            )
            | Self::Refused { .. }
            | Self::SetUpAnew
            | Self::TooOld { .. } => Kind::Refused,
            Self::Credentials { .. } => Kind::Usage,
            Self::Failed { .. } | Self::Invalid(_) => Kind::Failed,
            Self::Failure(failure) => failure.code.kind(),
        }
    }

    /// Whether the error is transient.
    pub fn is_transient(&self) -> bool {
        self.kind() == Kind::Unreachable
    }
}

//! Why a receiver was not reached, or a call to it failed.

use sendshot_identity::{ConnectError, TlsError};
use sendshot_proto::failure::Failure;
use sendshot_proto::problem::{Kind, with_causes};

/// Why a receiver was not reached, or a call to it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What pairing wrote down cannot be used.
    #[error("{}", with_causes(.source))]
    Credentials {
        /// Where the receiver is.
        address: String,
        /// What is wrong.
        source: TlsError,
    },
    /// There is no connection.
    #[error("{}", with_causes(.0))]
    Connect(#[source] ConnectError),
    /// The connection ended, or no whole answer came in time.
    #[error("the connection to the receiver at {address} broke: {why}")]
    Broken {
        /// Where the receiver is.
        address: String,
        /// What happened.
        why: String,
    },
    /// A push was announced, and nothing came.
    #[error("the receiver at {address} was not ready for the push within {seconds} s")]
    NotReady {
        /// Where the receiver is.
        address: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The receiver does not let this sender in, or not to this call.
    #[error("{message}")]
    Refused {
        /// What it says.
        message: String,
        /// What it says can be done; may be empty.
        remedy: String,
    },
    /// The receiver could not serve the call.
    #[error("the call to the receiver at {address} failed: {message}")]
    Failed {
        /// Where the receiver is.
        address: String,
        /// What it says.
        message: String,
        /// What it says can be done; may be empty.
        remedy: String,
    },
    /// The receiver says why in the answer itself.
    #[error("the receiver says: {0}")]
    Failure(#[from] Failure),
    /// The answer is none of those that there are.
    #[error("the receiver's answer makes no sense: {0}")]
    Invalid(String),
    /// Another instance answers.
    #[error("the receiver was set up anew since it was paired")]
    SetUpAnew,
}

impl Error {
    /// The connection to the receiver at `address` broke.
    pub(crate) fn broken(address: &str, why: &(impl ToString + ?Sized)) -> Self {
        Self::Broken {
            address: address.to_owned(),
            why: why.to_string(),
        }
    }

    /// The receiver's answer is none that there can be.
    pub(crate) fn invalid(error: impl ToString) -> Self {
        Self::Invalid(error.to_string())
    }

    /// What can be done; may be empty.
    pub fn remedy(&self) -> String {
        match self {
            Self::Credentials { address, .. } => format!(
                "pair again: `sendshotctl peer invite NAME --replace` on the receiver, then `sendshotctl pair \
                 {address}` here"
            ),
            Self::Connect(error) => error.remedy(),
            Self::Broken { .. } => {
                "try again later; what the receiver has committed, the next push finds out"
                    .to_owned()
            }
            Self::NotReady { .. } => {
                "look into its journal and its kernel log, and try again later".to_owned()
            }
            Self::Refused { remedy, .. } | Self::Failed { remedy, .. } => remedy.clone(),
            Self::Failure(failure) => failure.remedy.clone(),
            Self::Invalid(_) => String::new(),
            Self::SetUpAnew => {
                "pair with it again: `sendshotctl peer invite` there, `sendshotctl pair` here"
                    .to_owned()
            }
        }
    }

    /// What it is to the user.
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
            | Self::SetUpAnew => Kind::Refused,
            Self::Credentials { .. } => Kind::Usage,
            Self::Failed { .. } | Self::Invalid(_) => Kind::Failed,
            Self::Failure(failure) => failure.code.kind(),
        }
    }

    /// Whether it can pass by itself.
    pub fn is_transient(&self) -> bool {
        self.kind() == Kind::Unreachable
    }
}

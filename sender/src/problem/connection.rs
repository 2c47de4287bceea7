//! Errors of connections, pairing and calls.

use sendshot_proto::problem::{Kind, Problem, state_remedy};

use crate::connection::error;
use crate::connection::pair;

impl From<error::Error> for Problem {
    fn from(error: error::Error) -> Self {
        Problem::new(error.kind(), error.to_string()).remedy(error.remedy())
    }
}

impl From<pair::Error> for Problem {
    fn from(error: pair::Error) -> Self {
        let message = error.to_string();
        match error {
            pair::Error::Token(_) => Problem::new(Kind::Refused, message),
            pair::Error::OtherToken { address, .. } => Problem::new(Kind::Refused, message).remedy(format!(
                "run `sendshotctl peer invite NAME` on the receiver at {address}, or give the address of the receiver that made the token"
            )),
            pair::Error::Call(error) => error.into(),
            pair::Error::StateDir(error) => {
                Problem::new(Kind::Failed, message).remedy(state_remedy(&error))
            }
            pair::Error::Tls(_) | pair::Error::Csr(_) | pair::Error::Config(_) => Problem::new(Kind::Failed, message),
            pair::Error::Thread(died) => died.into(),
        }
    }
}

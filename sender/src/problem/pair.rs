//! A pairing that was not made.

use sendshot_proto::problem::{Kind, Problem};

use crate::connection::pair::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Token(_) => Problem::new(Kind::Refused, message),
            Error::OtherToken { address, .. } => Problem::new(Kind::Refused, message).remedy(format!(
                "run `sendshotctl peer invite NAME` on the receiver at {address}, or give the address of the one that made the token"
            )),
            Error::Call(error) => error.into(),
            Error::StateDir(error) => {
                Problem::state_io("write down what this sender was before", &error)
            }
            Error::Tls(_) | Error::Csr(_) | Error::Config(_) => Problem::new(Kind::Failed, message),
            Error::Thread(died) => died.into(),
        }
    }
}

//! Who may read copies.

use std::time::Duration;

use sendshot_proto::failure::Failure;

use crate::shared::receiver::Receiver;
use crate::store::volumes::Caller;

/// The permission to read a volume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permit {
    pub(crate) left: Option<Duration>,
}

pub(crate) fn permit(_: &Receiver, _: &Caller, _: &str) -> Result<Permit, Failure> {
    Ok(Permit { left: None })
}

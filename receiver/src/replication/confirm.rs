//! A sender reports that a volume is unchanged since a copy.

use sendshot_apply::Identity;
use sendshot_apply::parent::{self, Trust};
use sendshot_proto::confirm::Confirmation;
use sendshot_proto::failure::Failure;

use crate::receive::failures::io_failure;
use crate::shared::receiver::Receiver;
use crate::store::confirmed::Confirmed;
use crate::store::volumes::{self, Caller};

/// Notes the report if the copy is held; returns whether it is.
///
/// # Errors
/// The failure for the sender.
pub(super) fn confirm(
    receiver: &Receiver,
    caller: &Caller,
    confirmation: &Confirmation,
) -> Result<bool, Failure> {
    let root = receiver.root().open_to_read()?;
    let failed = |e| io_failure("read the copies of the volume", &e);
    let Some(dir) = volumes::find(&root, caller, &confirmation.volume).map_err(failed)? else {
        return Ok(false);
    };
    let wanted = Identity {
        uuid: confirmation.uuid,
        ctransid: confirmation.ctransid,
    };
    let Ok(copy) = parent::find(&dir.fd, wanted, Trust::Strict) else {
        return Ok(false);
    };
    receiver.confirmations().note(
        &dir.name,
        Confirmed {
            at: receiver.clock().now,
            copy: copy.name.to_string_lossy().into_owned(),
            paused: confirmation.paused.map(Into::into),
        },
    );
    Ok(true)
}

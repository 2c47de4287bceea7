//! Captures a copy: reads its metadata into a sendshot, from which the stream is generated.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use sendshot_engine::capture::{recapture, save};
use sendshot_engine::format::subtree;
use sendshot_engine::{Sendshot, WireNumber};
use sendshot_proto::failure::{Code, Failure};
use uuid::Uuid;

use crate::receive::failures::{io_failure, with_causes};
use crate::restore::copy::OpenCopy;
use crate::store::captures::{self, Captures, Lease, Place, touch};
use crate::store::root::OpenRoot;

/// The stream carries the identity of the state at its origin: the sender recognizes it.
const NUMBER: WireNumber = WireNumber::Origin;

/// Returns the sendshot of a copy: the one that an interrupted fetch has left, or a new one. Blocks.
///
/// # Errors
/// The failure for the sender.
pub fn capture(
    root: &OpenRoot,
    copy: &OpenCopy,
    captures: &Captures,
    lease: &Lease,
) -> Result<Arc<Sendshot>, Failure> {
    lease.alone(|| {
        let mut obstacle = None;
        for place in captures.places(root) {
            let captured = place
                .map_err(save::Error::from)
                .and_then(|place| in_place(&place, copy, lease));
            match captured {
                Ok(sendshot) => return Ok(Arc::new(sendshot)),
                Err(error) if is_of_place(&error) => {
                    tracing::debug!("a capture cannot be stored: {}", with_causes(&error));
                    obstacle = Some(error);
                }
                Err(error) => return Err(failure(&error)),
            }
        }
        Err(obstacle.map_or_else(
            || Failure::new(Code::Internal, "there is no place for a capture", ""),
            |error| failure(&error),
        ))
    })
}

/// Reduces the sendshot of a copy to some paths. Its file is deleted at once: only the descriptor is used. Blocks.
///
/// # Errors
/// The failure for the sender.
pub fn reduce(
    root: &OpenRoot,
    whole: &Sendshot,
    paths: &[Vec<u8>],
    captures: &Captures,
) -> Result<Sendshot, Failure> {
    let mut last = None;
    for place in captures.places(root) {
        let place = match place {
            Ok(place) => place,
            Err(e) => {
                last = Some(io_failure("store the sendshot of the paths", &e));
                continue;
            }
        };
        // A crash leaves a capture of no copy, which expires.
        let name = captures::name(Uuid::new_v4());
        let reduced = sendshot_engine::subtree(whole, paths, &place.dir, &name);
        place.forget(&name);
        match reduced {
            Ok(reduced) => return Ok(reduced),
            Err(subtree::Error::Write(e)) => {
                last = Some(io_failure("store the sendshot of the paths", &e));
            }
            Err(error @ (subtree::Error::Missing(_) | subtree::Error::NotADirectory { .. })) => {
                let remedy =
                    "paths are relative to the volume; restore a whole copy beside to look at it";
                return Err(Failure::new(Code::NotFound, error.to_string(), remedy));
            }
            Err(error @ (subtree::Error::NoPaths | subtree::Error::Path { .. })) => {
                return Err(Failure::new(Code::Unsupported, error.to_string(), ""));
            }
            Err(error @ subtree::Error::File(_)) => {
                return Err(Failure::new(Code::Internal, with_causes(&error), ""));
            }
        }
    }
    Err(last.unwrap_or_else(|| Failure::new(Code::Internal, "there is no place for a capture", "")))
}

fn in_place(place: &Place, copy: &OpenCopy, lease: &Lease) -> Result<Sendshot, save::Error> {
    let name = lease.name();
    match sendshot_engine::open_at(&place.dir, &name) {
        // A changed copy, perhaps by dedupe, is captured again: its extents may have moved.
        Ok(found)
            if (found.head().uuid, found.head().ctransid)
                == (copy.info.uuid, copy.info.ctransid) =>
        {
            touch(place, &name);
            return Ok(found);
        }
        Ok(_) | Err(_) => {}
    }
    let frozen = copy.frozen()?;
    let (sendshot, _) = sendshot_engine::save(frozen, NUMBER, None, &place.dir, &name)?;
    tracing::debug!(path = %place.path.display(), "captured a copy");
    Ok(sendshot)
}

/// Whether another place may take the capture.
fn is_of_place(error: &save::Error) -> bool {
    let save::Error::Capture(recapture::Error::Capture(sendshot_engine::capture::Error::Io(io))) =
        error
    else {
        return false;
    };
    let errno = sendshot_sys::durable::errno(io);
    matches!(
        errno,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::IO)
    )
}

fn failure(error: &save::Error) -> Failure {
    if let Some(errno) = sendshot_sys::durable::errno(error) {
        return io_failure("read the metadata of the copy", &io::Error::from(errno));
    }
    Failure::new(
        Code::Internal,
        format!(
            "cannot read the metadata of the copy: {}",
            with_causes(error)
        ),
        "read the journal of sendshot-receiver, and choose another copy",
    )
}

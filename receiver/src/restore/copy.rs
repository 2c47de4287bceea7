//! The requested copy, opened.

use std::io;
use std::os::fd::OwnedFd;

use sendshot_engine::Frozen;
use sendshot_model::PeerName;
use sendshot_proto::failure::{Code, Failure};
use sendshot_proto::restore::FetchRequest;
use sendshot_sys::filesystem;
use sendshot_sys::subvolume::Info;

use crate::receive::failures::io_failure;
use crate::store::root::OpenRoot;
use crate::store::volumes;

/// An open copy, which is read-only.
#[derive(Debug)]
pub struct OpenCopy {
    /// Its root directory.
    pub fd: OwnedFd,
    pub info: Info,
    /// What is known about a change since its commit.
    pub doubt: Option<String>,
}

impl OpenCopy {
    /// Returns the copy for capture.
    ///
    /// # Errors
    /// I/O errors of writing back its data.
    pub fn frozen(&self) -> io::Result<Frozen<'_>> {
        // A copy of this receiver is a snapshot. Another tool's was written to after it was created.
        let is_snapshot = self.info.otransid > self.info.rtransid && self.info.is_pristine();
        if is_snapshot || filesystem::is_read_only(&self.fd)? {
            return Ok(Frozen::snapshot(&self.fd));
        }
        Frozen::write_back(&self.fd)
    }
}

/// Opens the requested copy of a sender.
///
/// # Errors
/// The failure for the sender: there is no such copy, it is writable, or the disk is another one.
pub fn open(
    root: &OpenRoot,
    sender: &PeerName,
    request: &FetchRequest,
) -> Result<OpenCopy, Failure> {
    if request.root.is_some_and(|listed| listed != root.id()) {
        return Err(Failure::new(
            Code::RootChanged,
            "the receiver's disk was exchanged for another one after its copies were listed",
            "restore again",
        ));
    }
    let failed = |e| io_failure("open the copy", &e);
    let dir = volumes::open_named(root, sender, &request.volume).map_err(failed)?;
    let (dir, _) = dir.ok_or_else(|| not_found(sender, request))?;
    let copy = volumes::open_copy(&dir, &request.name).map_err(failed)?;
    let (fd, info) = copy.ok_or_else(|| not_found(sender, request))?;
    if (info.received_uuid, info.stransid) != (request.uuid, request.ctransid) {
        return Err(not_found(sender, request));
    }
    if !info.read_only {
        return Err(Failure::new(
            Code::Unsupported,
            format!(
                "the copy {}/{}/{} is writable, so it can change while it is read",
                sender, request.volume, request.name
            ),
            "make it read-only on the receiver, `btrfs property set PATH ro true`, or choose another copy",
        ));
    }
    let doubt = volumes::unusable(&info).map(|unusable| unusable.why.to_string());
    Ok(OpenCopy { fd, info, doubt })
}

fn not_found(sender: &PeerName, request: &FetchRequest) -> Failure {
    Failure::new(
        Code::NotFound,
        format!(
            "the receiver has no copy {}/{}/{} of this state (any more)",
            sender, request.volume, request.name
        ),
        "`sendshotctl restore --list HOST:VOL` shows the copies",
    )
}

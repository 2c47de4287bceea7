//! Counts again what the copies hold that took over the sizes of deleted ones, for `max_bytes`.
//!
//! When a copy is deleted, its size goes to its younger neighbour, which holds its data from then on, as far as it was not
//! overwritten. The sum would grow with everything that was ever pushed. So it is limited to what the neighbour really
//! holds: its metadata as in a full stream, and its extents, each one counted once.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;

use sendshot_engine::diff::{self, Version};
use sendshot_engine::stream::{self, measure::measure};
use sendshot_engine::{Entry, ExtentKind, Sendshot, WireNumber};
use sendshot_sys::subvolume::Info;
use uuid::Uuid;

use crate::restore::copy::OpenCopy;
use crate::shared::receiver::Receiver;
use crate::store::captures;
use crate::store::root::OpenRoot;
use crate::store::usage::{self, State};
use crate::store::volumes;

/// Most extents that are distinguished; those beyond count each time that they are mapped. 16 MiB of memory.
const MAX_EXTENTS: usize = 1 << 20;

/// Counts again the copies of a sender with a limit that took over sizes. It takes as long as reading their metadata,
/// and locks nothing meanwhile. Blocks.
///
/// # Errors
/// I/O errors; the sums then stay until the next run.
pub fn over(
    receiver: &Receiver,
    root: &OpenRoot,
    wanted: impl Fn(&str, &str) -> bool,
) -> io::Result<()> {
    let config = receiver.config();
    for (sender, volume, dir) in volumes::all(root)? {
        let policy = sender.parse().map(|name| config.policy(&name));
        let is_limited = policy.is_ok_and(|policy| policy.max_bytes.is_some());
        if !is_limited || !wanted(&sender, &volume) {
            continue;
        }
        let path = format!("{sender}/{volume}");
        for state in usage::with_inherited(&dir)? {
            let bytes = match find(&dir, state)? {
                Some(copy) => held(receiver, root, &copy)?,
                None => continue,
            };
            let _lock = receiver.locks().lock(&path);
            usage::limit(&dir, state, bytes)?;
        }
    }
    Ok(())
}

fn find(dir: impl AsFd, state: State) -> io::Result<Option<OpenCopy>> {
    let is_of_state = |info: &Info| (info.received_uuid, info.stransid) == state && info.read_only;
    for (name, _) in volumes::with_info(&dir)?
        .into_iter()
        .filter(|(_, info)| is_of_state(info))
    {
        if let Some((fd, info)) = volumes::open_copy(&dir, &name)? {
            return Ok(Some(OpenCopy {
                fd,
                info,
                doubt: None,
            }));
        }
    }
    Ok(None)
}

/// Bytes that a copy holds.
fn held(receiver: &Receiver, root: &OpenRoot, copy: &OpenCopy) -> io::Result<u64> {
    let mut obstacle = None;
    for place in receiver.captures().places(root) {
        let place = place?;
        // A crash leaves a capture of no copy, which expires.
        let name = captures::name(Uuid::new_v4());
        let frozen = copy.frozen()?;
        let saved = sendshot_engine::save(frozen, WireNumber::Origin, None, &place.dir, &name);
        place.forget(&name);
        match saved {
            Ok((sendshot, _)) => return count(&sendshot).map_err(io::Error::other),
            Err(e) => obstacle = Some(io::Error::other(e)),
        }
    }
    Err(obstacle.unwrap_or_else(|| io::Error::other("there is no place for a capture")))
}

fn count(sendshot: &Sendshot) -> Result<u64, stream::Error> {
    let size = measure(None, sendshot, b"copy", Version::V2)?;
    let mut seen = HashSet::new();
    let mut bytes = size.bytes.saturating_sub(size.data);
    let mut reader = sendshot.reader().map_err(diff::Error::from)?;
    while let Some(entry) = reader.next_entry().map_err(diff::Error::from)? {
        let Entry::Extent(extent) = entry else {
            continue;
        };
        let more = match extent.kind {
            ExtentKind::Inline => extent.len,
            ExtentKind::Regular | ExtentKind::Prealloc => {
                let is_new = match seen.len() < MAX_EXTENTS {
                    true => seen.insert(extent.disk_bytenr),
                    false => !seen.contains(&extent.disk_bytenr),
                };
                if is_new { extent.disk_len } else { 0 }
            }
        };
        bytes = bytes.saturating_add(more);
    }
    Ok(bytes)
}

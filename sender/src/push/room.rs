//! Whether the receiver's disk has room for a stream. It is only said: the receiver may compress, and it refuses a push for
//! which there is none.

use sendshot_model::{PeerName, human};
use sendshot_sys::filesystem;

use crate::push::context::{PushContext, another};
use crate::push::error::Error;
use crate::push::generate;
use crate::push::stages::prepare::Prepared;
use crate::push::stages::source::SourceSnapshot;
use crate::shared::blocking::blocking;

/// What to say of a stream of this length; `None` if there is room, or the receiver has not said.
pub(crate) fn note(receiver: &PeerName, needed: u64, free: Option<u64>) -> Option<String> {
    let free = free.filter(|free| needed > *free)?;
    Some(format!(
        "{receiver} has {} free, and this needs {}, unless {receiver} compresses it",
        human::bytes_human(free),
        human::bytes_human(needed)
    ))
}

/// Says before the first byte that the receiver's disk is too small. The stream is measured only if it can be so long: if the
/// source holds more data than the receiver has room for.
///
/// # Errors
/// See [`Error`].
pub(crate) async fn tell(
    context: &PushContext,
    source: &SourceSnapshot,
    prepared: &Prepared,
    free: Option<u64>,
) -> Result<(), Error> {
    let (Some(by_sendshots), Some(room)) = (&prepared.by_sendshots, free) else {
        return Ok(());
    };
    let used = |fd| filesystem::space(fd).map(|space| space.total.saturating_sub(space.free));
    if used(another(&source.fd)?).is_ok_and(|used| used <= room) {
        return Ok(());
    }
    let (new, parent) = (by_sendshots.new.clone(), by_sendshots.parent.clone());
    let version = context.stream_version();
    let measure = move || generate::size(parent.as_deref(), &new, version);
    let size = blocking("measure", measure).await??;
    if let Some(text) = note(&context.running.receiver, size.bytes, free) {
        context.enter("room", text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sizes_are_named() {
        let nas2: PeerName = "nas2".parse().unwrap();
        assert_eq!(note(&nas2, 10, None), None);
        assert_eq!(note(&nas2, 10, Some(10)), None);
        assert_eq!(
            note(&nas2, 3 << 30, Some(1 << 30)).unwrap(),
            "nas2 has 1.0 GiB free, and this needs 3.0 GiB, unless nas2 compresses it"
        );
    }
}

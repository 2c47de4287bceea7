//! Lists the copies at the receiver.

use jiff::Timestamp;
use sendshot_model::restore::{ListedCopy, ListedVolume, RestoreEvent};
use sendshot_proto::restore::{HeldVolume, RestorableCopy, Volumes};

use crate::connection::link::{self, Link};
use crate::decide::copy;
use crate::restore::access::Access;
use crate::restore::error::Error;
use crate::restore::events::Events;

/// Lists the copies of all volumes, or of one.
///
/// # Errors
/// See [`Error`].
pub(super) async fn run(
    access: &Access,
    volume: Option<&str>,
    events: &Events,
) -> Result<(), Error> {
    events.stage("connect", "");
    let mut link = connect(access).await?;
    let mut volumes = match volume {
        Some(name) => vec![find(&mut link, access, name).await?.1],
        None => link.volumes(None).await?.volumes,
    };
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    events.tell(RestoreEvent::Listed {
        volumes: volumes.into_iter().map(listed).collect(),
    });
    Ok(())
}

/// Connects to the receiver, and checks that it can send copies back.
pub(super) async fn connect(access: &Access) -> Result<Link, Error> {
    let link = link::connect(&access.entry, &access.key).await?;
    link.require_restore()?;
    Ok(link)
}

/// Finds a volume by its name at the receiver; returns also the rest of the answer.
pub(super) async fn find(
    link: &mut Link,
    access: &Access,
    name: &str,
) -> Result<(Volumes, HeldVolume), Error> {
    let mut found = link.volumes(Some(name)).await?;
    let at = found.volumes.iter().position(|volume| volume.name == name);
    match at {
        Some(at) => {
            let volume = found.volumes.swap_remove(at);
            Ok((found, volume))
        }
        None => {
            let others = link.volumes(None).await?.volumes.into_iter();
            let mut others: Vec<String> = others.map(|volume| volume.name).collect();
            others.sort();
            Err(Error::NoVolume {
                receiver: access.name.clone(),
                volume: name.to_owned(),
                others,
            })
        }
    }
}

fn listed(mut volume: HeldVolume) -> ListedVolume {
    copy::sort(&mut volume.copies);
    ListedVolume {
        volume: volume.name,
        copies: volume.copies.into_iter().map(listed_copy).collect(),
    }
}

fn listed_copy(copy: RestorableCopy) -> ListedCopy {
    let committed_at = Timestamp::from_second(copy.committed_at);
    ListedCopy {
        name: sendshot_model::printable(&copy.name),
        uuid: copy.uuid.to_string(),
        committed_at: committed_at.ok().map(|time| time.to_string()),
        received_bytes: copy.received_bytes,
        doubt: copy.doubt,
        writable: copy.is_writable,
    }
}

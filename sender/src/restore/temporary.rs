//! Temporary keys for restores: made by pairing with a token of `peer invite NAME --restore`. They lie in a directory
//! below `/run`, which the next start of the system empties, and leave the host's own key as it is.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use sendshot_config::{Address, ReceiverEntry};
use sendshot_identity::SenderKey;
use sendshot_model::restore::RestorePairing;
use sendshot_model::{PeerName, SenderId};
use sendshot_sys::durable::{self, PRIVATE_DIR};
use serde::{Deserialize, Serialize};

use crate::connection::pair::{self, Host, Purpose};
use crate::restore::error::Error;

/// File with the end of the key.
const END: &str = "end.json";

/// When a temporary key ends.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    /// Seconds since 1970 UTC, by the receiver's clock.
    until: i64,
}

/// A temporary key and the receiver's entry for it.
#[derive(Debug)]
pub(super) struct Temporary {
    pub(super) entry: ReceiverEntry,
    pub(super) key: SenderKey,
}

fn dir_of(runtime_dir: &Path, name: &PeerName) -> PathBuf {
    runtime_dir.join(name.as_str())
}

/// Returns the temporary key for a receiver; `None` if there is none, or it has ended.
///
/// # Errors
/// See [`Error`].
pub(super) fn open(runtime_dir: &Path, name: &PeerName) -> Result<Option<Temporary>, Error> {
    let dir = dir_of(runtime_dir, name);
    let failed = Error::io("read the temporary key");
    let Some(end) = durable::read_json::<End>(&dir.join(END)).map_err(&failed)? else {
        return Ok(None);
    };
    if end.until <= Timestamp::now().as_second() {
        return Ok(None);
    }
    let Some(entry) = sendshot_config::load_one(&dir, name)? else {
        return Ok(None);
    };
    let key = SenderKey::load_or_create(&dir).map_err(Error::Key)?;
    Ok(Some(Temporary { entry, key }))
}

/// Pairs with a receiver for restoring; returns its name on this host and the end of the key.
///
/// Steps: 1. make the directory and the key; 2. redeem the token; 3. write the receiver's entry; 4. write the end, which
/// makes the key valid. After a crash between 2 and 4 the same host can redeem the token again, until it expires.
///
/// # Errors
/// See [`Error`].
pub(super) async fn make(
    runtime_dir: &Path,
    pairing: &RestorePairing,
) -> Result<(PeerName, Timestamp), Error> {
    let address = Address::from_str(&pairing.address).map_err(Error::Address)?;
    let name = match &pairing.name {
        Some(name) => PeerName::parse(name).map_err(Error::Name)?,
        None => address.default_name().ok_or_else(|| Error::Unnamed {
            address: pairing.address.clone(),
        })?,
    };
    let dir = dir_of(runtime_dir, &name);
    let failed = Error::io("store the temporary key");
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(&dir)
        .map_err(&failed)?;
    durable::remove(&dir.join(END)).map_err(&failed)?;
    let key = SenderKey::load_or_create(&dir).map_err(Error::Key)?; // 1
    let id = instance(&dir).map_err(&failed)?;
    let host = Host { id, key: &key };
    let redeemed = pair::redeem(host, address, &pairing.token, Purpose::Restore).await?; // 2
    let until = redeemed.restore_until;
    if until == 0 {
        // An older receiver has taken the token for one to push.
        return Err(Error::NoTemporaryKeys { name });
    }
    sendshot_config::store(&dir, &name, &redeemed.entry)?; // 3
    durable::write_json(&dir.join(END), &End { until }).map_err(&failed)?; // 4
    Ok((
        name,
        Timestamp::from_second(until).unwrap_or(Timestamp::MAX),
    ))
}

fn instance(dir: &Path) -> std::io::Result<SenderId> {
    let path = dir.join("instance.json");
    if let Some(id) = durable::read_json::<SenderId>(&path)? {
        return Ok(id);
    }
    let id = SenderId::generate();
    durable::write_json(&path, &id)?;
    Ok(id)
}

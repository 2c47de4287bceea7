//! The receiver's registry of invited, paired and revoked senders.
//!
//! There is one JSON file for each sender (`senders/NAME.json`) and invitation (`invitations/NAME.json`) in
//! the receiver's state directory. Only the daemon writes them; answers come from memory, and a change is
//! visible only once it is on disk.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use sendshot_model::{PeerName, SenderId};
use sendshot_sys::durable;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::keys::authority::{Authority, SenderCertificate};
use crate::keys::crypto::RandomError;
use crate::pairing::invitation::{Claim, Invitation, Pairing, Stored, Use};
use crate::pairing::refusal::{
    InviteError, RedeemError, Refusal, RegistryError, RenewError, RevokeError,
};
use crate::pairing::token::{Secret, Token};
use crate::transport::peer::{PeerId, PeerIdentity, SpkiPin};

const SENDERS: &str = "senders";
const INVITATIONS: &str = "invitations";

/// How long an expired invitation is kept, to report the expiry to a sender that tries it.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// The record of a sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderRecord {
    /// The instance that has the name now.
    pub sender_id: SenderId,
    /// Hash of its public key.
    pub pin: SpkiPin,
    /// End of its certificate's validity.
    pub certificate_expires_at: Timestamp,
    /// Time of its pairing.
    pub paired_at: Timestamp,
    /// Time at which an administrator revoked it.
    pub revoked_at: Option<Timestamp>,
    /// Instances that had the name before, oldest first.
    pub former_ids: Vec<SenderId>,
}

/// Result of redeeming a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeemed {
    /// Name of the sender at this receiver.
    pub name: PeerName,
    /// Certificate of the sender.
    pub certificate: SenderCertificate,
    /// The instance whose volumes it takes over.
    pub replaced: Option<SenderId>,
}

/// The registry. Changes block on the disk; [`Senders::authorize`] and the lists do not.
#[derive(Debug)]
pub struct Senders {
    dir: PathBuf,
    authority: Arc<Authority>,
    records: RwLock<BTreeMap<PeerName, SenderRecord>>,
    /// Also locked during every change of `records`, so that there is one writer at a time.
    invitations: Mutex<BTreeMap<PeerName, Stored>>,
}

impl Senders {
    /// Loads the registry from the receiver's state directory.
    ///
    /// # Errors
    /// [`RegistryError`] if a file cannot be read or is damaged: an incomplete registry could admit a revoked
    /// sender or refuse a valid one.
    pub fn open(state_dir: &Path, authority: Arc<Authority>) -> Result<Self, RegistryError> {
        let records = load(&state_dir.join(SENDERS))?;
        let invitations = load(&state_dir.join(INVITATIONS))?;
        Ok(Self {
            dir: state_dir.to_owned(),
            authority,
            records: RwLock::new(records),
            invitations: Mutex::new(invitations),
        })
    }

    /// Invites a sender to pair under a name; invalidates an earlier invitation of that name.
    ///
    /// # Errors
    /// [`InviteError`] if the name is paired and `pairing` is not a replacement, or the disk fails.
    pub fn invite(
        &self,
        name: &PeerName,
        pairing: Pairing,
        now: Timestamp,
    ) -> Result<Token, InviteError> {
        let mut invitations = self.lock();
        if pairing == Pairing::New && self.record(name).is_some() {
            return Err(InviteError::AlreadyPaired { name: name.clone() });
        }
        self.forget_old(&mut invitations, now)?;
        let token = self.new_token(&invitations)?;
        let stored = Stored::new(token.secret(), pairing, now);
        self.keep_invitation(&mut invitations, name, stored)?;
        Ok(token)
    }

    /// Redeems a token: issues a certificate for the key of the request and gives the sender its name.
    ///
    /// A token works once, but repeatedly for the same key until it expires, because its sender may have lost
    /// the answer. Steps: 1. the invitation is marked as used; 2. the sender is recorded. A crash after 1
    /// leaves a token that works for this key only, which then does step 2.
    ///
    /// # Errors
    /// [`RedeemError`] if the token is unknown, expired, used or void, the sender has another name, the
    /// request is invalid, or the disk fails.
    pub fn redeem(
        &self,
        secret: &Secret,
        csr: &[u8],
        sender: SenderId,
        now: Timestamp,
    ) -> Result<Redeemed, RedeemError> {
        let mut invitations = self.lock();
        let (name, mut invitation) = self.claim(&mut invitations, secret, now)?;
        self.check_other_names(&name, sender)?;
        let certificate = self.authority.sign_sender(csr, sender, now)?;
        let used = self.use_of(&name, &invitation, sender, certificate.pin)?;
        let replaced = used.replaced;
        invitation.used = Some(used);
        self.keep_invitation(&mut invitations, &name, invitation)?;
        self.keep_record(
            &name,
            successor(self.record(&name), sender, &certificate, now),
        )?;
        Ok(Redeemed {
            name,
            certificate,
            replaced,
        })
    }

    /// Revokes a sender, from its next call on, and invalidates an open invitation of the name. Its directory
    /// and copies stay.
    ///
    /// # Errors
    /// [`RevokeError`] if no sender has the name, or the disk fails.
    pub fn revoke(&self, name: &PeerName, now: Timestamp) -> Result<(), RevokeError> {
        let mut invitations = self.lock();
        let record = self.record(name);
        if record.is_none() && !invitations.contains_key(name) {
            return Err(RevokeError::Unknown { name: name.clone() });
        }
        if let Some(record) = record {
            let revoked_at = record.revoked_at.or(Some(now));
            self.keep_record(
                name,
                SenderRecord {
                    revoked_at,
                    ..record
                },
            )?;
        }
        Ok(self.drop_invitation(&mut invitations, name)?)
    }

    /// Returns the name of the sender that a peer is, if it is authorised now. Must be called for every call:
    /// connections outlive a revocation.
    ///
    /// # Errors
    /// The reason for the refusal, with its remedy.
    pub fn authorize(&self, peer: Option<&PeerIdentity>) -> Result<PeerName, Refusal> {
        let Some(PeerIdentity {
            id: PeerId::Sender(sender),
            pin,
            ..
        }) = peer
        else {
            return Err(Refusal::NoCertificate);
        };
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let named = records.iter().find(|(_, record)| record.has_been(*sender));
        let Some((name, record)) = named else {
            return Err(Refusal::Unknown { sender: *sender });
        };
        let name = name.clone();
        if record.revoked_at.is_some() {
            Err(Refusal::Revoked { name })
        } else if record.sender_id != *sender || record.pin != *pin {
            Err(Refusal::KeyChanged { name })
        } else {
            Ok(name)
        }
    }

    /// Issues a certificate with a later end for a sender's key.
    ///
    /// # Errors
    /// [`RenewError`] if the sender is not authorised now, the request is for another key or invalid, or the
    /// disk fails; the former certificate stays valid until its end.
    pub fn renew(
        &self,
        peer: Option<&PeerIdentity>,
        csr: &[u8],
        now: Timestamp,
    ) -> Result<SenderCertificate, RenewError> {
        let _one_writer = self.lock();
        let name = self.authorize(peer)?;
        let record = self.record(&name);
        let record = record.ok_or_else(|| Refusal::Revoked { name: name.clone() })?;
        let certificate = self.authority.sign_sender(csr, record.sender_id, now)?;
        if certificate.pin != record.pin {
            return Err(RenewError::OtherKey);
        }
        let certificate_expires_at = certificate.not_after;
        self.keep_record(
            &name,
            SenderRecord {
                certificate_expires_at,
                ..record
            },
        )?;
        Ok(certificate)
    }

    /// Returns all senders, including revoked ones, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(PeerName, SenderRecord)> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records
            .iter()
            .map(|(name, record)| (name.clone(), record.clone()))
            .collect()
    }

    /// Returns the invitations that can still be redeemed, by name.
    #[must_use]
    pub fn invitations(&self, now: Timestamp) -> Vec<Invitation> {
        let open = |(name, stored): (&PeerName, &Stored)| {
            stored.is_open(now).then(|| Invitation {
                name: name.clone(),
                pairing: stored.pairing,
                expires_at: stored.expires_at,
            })
        };
        self.lock().iter().filter_map(open).collect()
    }

    /// Returns the instances that had a name before the present one, oldest first.
    #[must_use]
    pub fn former_ids(&self, name: &PeerName) -> Vec<SenderId> {
        let record = self.record(name);
        record.map(|record| record.former_ids).unwrap_or_default()
    }

    /// Returns the record of the sender with this name.
    #[must_use]
    pub fn record(&self, name: &PeerName) -> Option<SenderRecord> {
        self.records
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// Locks the registry. Memory changes only after the disk, so even a panicking thread leaves it consistent.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerName, Stored>> {
        self.invitations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn new_token(&self, invitations: &BTreeMap<PeerName, Stored>) -> Result<Token, RandomError> {
        loop {
            let token = Token::generate(self.authority.fingerprint())?;
            let selector = token.secret().selector();
            if invitations
                .values()
                .all(|invitation| invitation.selector != selector)
            {
                return Ok(token);
            }
        }
    }

    /// Finds the invitation of a secret, if the secret is valid for it.
    fn claim(
        &self,
        invitations: &mut BTreeMap<PeerName, Stored>,
        secret: &Secret,
        now: Timestamp,
    ) -> Result<(PeerName, Stored), RedeemError> {
        let selector = secret.selector();
        let found = invitations
            .iter()
            .find(|(_, invitation)| invitation.selector == selector);
        let (name, mut invitation) = found
            .map(|(name, i)| (name.clone(), i.clone()))
            .ok_or(RedeemError::Unknown)?;
        match invitation.claim(secret, now) {
            Claim::Valid => Ok((name, invitation)),
            Claim::Expired => Err(RedeemError::Expired {
                name,
                expires_at: invitation.expires_at,
            }),
            Claim::Void => Err(RedeemError::Void { name }),
            Claim::Wrong => {
                self.keep_invitation(invitations, &name, invitation)?;
                Err(RedeemError::Unknown)
            }
        }
    }

    /// Checks that an id has one name only; otherwise a sender could impersonate another.
    fn check_other_names(&self, name: &PeerName, sender: SenderId) -> Result<(), RedeemError> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let other = records
            .iter()
            .find(|(other, record)| *other != name && record.has_been(sender));
        match other {
            Some((other, _)) => Err(RedeemError::OtherName {
                name: other.clone(),
            }),
            None => Ok(()),
        }
    }

    fn use_of(
        &self,
        name: &PeerName,
        invitation: &Stored,
        sender_id: SenderId,
        pin: SpkiPin,
    ) -> Result<Use, RedeemError> {
        let used = || RedeemError::Used { name: name.clone() };
        match (&invitation.used, self.record(name)) {
            (Some(before), _) if before.sender_id == sender_id && before.pin == pin => {
                Ok(before.clone())
            }
            (Some(_), _) => Err(used()),
            (None, Some(_)) if invitation.pairing == Pairing::New => Err(used()),
            (None, record) => {
                let replaced = record.map(|r| r.sender_id).filter(|old| *old != sender_id);
                Ok(Use {
                    sender_id,
                    pin,
                    replaced,
                })
            }
        }
    }

    fn keep_record(&self, name: &PeerName, record: SenderRecord) -> Result<(), RegistryError> {
        durable::write_json(&self.file(SENDERS, name), &record)?;
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.insert(name.clone(), record);
        Ok(())
    }

    fn keep_invitation(
        &self,
        invitations: &mut BTreeMap<PeerName, Stored>,
        name: &PeerName,
        invitation: Stored,
    ) -> Result<(), RegistryError> {
        durable::write_json(&self.file(INVITATIONS, name), &invitation)?;
        invitations.insert(name.clone(), invitation);
        Ok(())
    }

    fn drop_invitation(
        &self,
        invitations: &mut BTreeMap<PeerName, Stored>,
        name: &PeerName,
    ) -> Result<(), RegistryError> {
        durable::remove(&self.file(INVITATIONS, name))?;
        invitations.remove(name);
        Ok(())
    }

    fn forget_old(
        &self,
        invitations: &mut BTreeMap<PeerName, Stored>,
        now: Timestamp,
    ) -> Result<(), RegistryError> {
        let old = |stored: &Stored| now.duration_since(stored.expires_at) > REMEMBERED;
        let names: Vec<_> = invitations
            .iter()
            .filter(|(_, s)| old(s))
            .map(|(name, _)| name.clone())
            .collect();
        names
            .iter()
            .try_for_each(|name| self.drop_invitation(invitations, name))
    }

    fn file(&self, kind: &str, name: &PeerName) -> PathBuf {
        self.dir.join(kind).join(format!("{name}.json"))
    }
}

impl SenderRecord {
    fn has_been(&self, sender: SenderId) -> bool {
        self.sender_id == sender || self.former_ids.contains(&sender)
    }
}

/// Makes the record of a name after `sender` redeemed a token for it.
fn successor(
    old: Option<SenderRecord>,
    sender: SenderId,
    certificate: &SenderCertificate,
    now: Timestamp,
) -> SenderRecord {
    let mut former_ids = Vec::new();
    if let Some(old) = old {
        former_ids = old.former_ids;
        former_ids.push(old.sender_id);
        former_ids.retain(|former| *former != sender);
    }
    SenderRecord {
        sender_id: sender,
        pin: certificate.pin,
        certificate_expires_at: certificate.not_after,
        paired_at: now,
        revoked_at: None,
        former_ids,
    }
}

/// Loads every `NAME.json` of a directory, making the directory if it is missing.
fn load<T: DeserializeOwned>(dir: &Path) -> Result<BTreeMap<PeerName, T>, RegistryError> {
    DirBuilder::new()
        .recursive(true)
        .mode(durable::PRIVATE_DIR)
        .create(dir)?;
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        // A file `.NAME.json.tmp` is from an interrupted write.
        let Some(stem) = file.strip_suffix(".json") else {
            continue;
        };
        let name = PeerName::parse(stem).map_err(io::Error::other)?;
        if let Some(value) = durable::read_json(&path)? {
            all.insert(name, value);
        }
    }
    Ok(all)
}

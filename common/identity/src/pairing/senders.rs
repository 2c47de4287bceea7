//! The receiver's registry of invited, paired and revoked senders, and of the permissions to read copies.
//!
//! There is one JSON file for each sender (`senders/NAME.json`), invitation (`invitations/NAME.json`), invitation to
//! restore (`restore-invitations/NAME.json`), temporary key (`restore-keys/NAME.json`) and list of grants
//! (`grants/NAME.json`) in the receiver's state directory. Only the daemon writes them; answers come from memory,
//! and a change is visible only once it is on disk.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sendshot_model::{PeerName, SenderId};
use serde::{Deserialize, Serialize};

use crate::keys::authority::{Authority, SenderCertificate};
use crate::keys::crypto::RandomError;
use crate::pairing::files::Files;
use crate::pairing::grant::{Grant, RestoreKey, Withdrawn};
use crate::pairing::invitation::{Claim, Invitation, Pairing, Stored, Use};
use crate::pairing::moment::{Moment, Period};
use crate::pairing::refusal::{
    Access, InviteError, RedeemError, Refusal, RegistryError, RenewError, RevokeError,
};
use crate::pairing::token::{Secret, Token};
use crate::transport::peer::{PeerId, PeerIdentity, SpkiPin};

/// How long an expired invitation or an ended temporary key is kept, to report that to a host that tries it.
pub(super) const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// How long a host that was paired in the place of another can read the copies: it is a new one, to which they are
/// to be restored.
const REPLACEMENT_READS: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// Certificate of the caller.
    pub certificate: SenderCertificate,
    /// The instance whose volumes it takes over; for a temporary key, the instance of the earlier one.
    pub replaced: Option<SenderId>,
    /// The permission to read copies that came with the token.
    pub grant: Option<Grant>,
}

/// The registry. Changes block on the disk; [`Senders::authorize`] and the lists do not.
#[derive(Debug)]
pub struct Senders {
    authority: Arc<Authority>,
    pub(super) records: Files<SenderRecord>,
    pub(super) invitations: Files<Stored>,
    /// Apart from the others: an invitation of one kind does not replace one of the other kind.
    pub(super) restore_invitations: Files<Stored>,
    pub(super) restore_keys: Files<RestoreKey>,
    pub(super) grants: Files<Vec<Grant>>,
    /// Locked during every change, so that there is one writer at a time.
    changing: Mutex<()>,
}

impl Senders {
    /// Loads the registry from the receiver's state directory.
    ///
    /// # Errors
    /// [`RegistryError`] if a file cannot be read or is damaged: an incomplete registry could admit a revoked
    /// sender or refuse a valid one.
    pub fn open(state_dir: &Path, authority: Arc<Authority>) -> Result<Self, RegistryError> {
        Ok(Self {
            authority,
            records: Files::open(state_dir.join("senders"))?,
            invitations: Files::open(state_dir.join("invitations"))?,
            restore_invitations: Files::open(state_dir.join("restore-invitations"))?,
            restore_keys: Files::open(state_dir.join("restore-keys"))?,
            grants: Files::open(state_dir.join("grants"))?,
            changing: Mutex::default(),
        })
    }

    /// Invites a sender to pair under a name, or any host to restore the copies of that name; invalidates an earlier
    /// invitation of that name and kind.
    ///
    /// # Errors
    /// [`InviteError`] if the name is paired and `pairing` is new, if it was never paired and `pairing` is to
    /// restore, or if the disk fails.
    pub fn invite(
        &self,
        name: &PeerName,
        pairing: Pairing,
        now: Timestamp,
    ) -> Result<Token, InviteError> {
        let _one_writer = self.lock();
        let name_of = || name.clone();
        match (&pairing, self.record(name)) {
            (Pairing::New, Some(_)) => return Err(InviteError::AlreadyPaired { name: name_of() }),
            (Pairing::Restore { .. }, None) => {
                return Err(InviteError::NeverPaired { name: name_of() });
            }
            (Pairing::New | Pairing::Replace, None)
            | (Pairing::Replace | Pairing::Restore { .. }, Some(_)) => {}
        }
        self.forget_old(now)?;
        let token = self.new_token()?;
        let kind = self.invitations_to(pairing.access());
        kind.put(name, Stored::new(token.secret(), pairing, now))?;
        Ok(token)
    }

    /// Redeems a token: issues a certificate for the key of the request. An ordinary token gives the sender its name;
    /// a token to restore gives the key a permission to read the copies of that name for a time, and changes nothing
    /// about the sender that has the name.
    ///
    /// A token works once, but repeatedly for the same key until it expires, because its sender may have lost
    /// the answer. Steps: 1. the invitation is marked as used; 2. the sender, or the temporary key, is recorded;
    /// 3. a host that replaces another is granted to read. A crash after 1 or 2 leaves a token that works for
    /// this key only, which then does the other steps. Times count from step 1.
    ///
    /// # Errors
    /// [`RedeemError`] if the token is unknown, expired, used, void or for other access, the sender has another name,
    /// the request is invalid, or the disk fails.
    pub fn redeem(
        &self,
        secret: &Secret,
        csr: &[u8],
        sender: SenderId,
        access: Access,
        now: &Moment,
    ) -> Result<Redeemed, RedeemError> {
        let _one_writer = self.lock();
        let (name, mut invitation) = self.claim(secret, now.wall())?;
        match (invitation.pairing.access(), access) {
            (Access::Full, Access::Full) | (Access::ReadOnly, Access::ReadOnly) => {}
            (Access::ReadOnly, Access::Full) => return Err(RedeemError::OnlyRestores { name }),
            (Access::Full, Access::ReadOnly) => return Err(RedeemError::OnlyPairs { name }),
        }
        self.check_other_names(&name, sender, access)?;
        let certificate = self.authority.sign_sender(csr, sender, now.wall())?;
        let used = self.use_of(&name, &invitation, sender, certificate.pin, now)?;
        let (replaced, at) = (used.replaced, used.at.clone());
        let (pairing, gives_reading) = (invitation.pairing.clone(), invitation.gives_reading);
        invitation.used = Some(used);
        self.invitations_to(access).put(&name, invitation)?; // 1
        let at = at.unwrap_or_else(|| now.clone());
        let grant = match pairing {
            Pairing::Restore { volume, lasts } => {
                let period = Period::new(at, lasts);
                let grant = Grant { volume, period };
                self.keep_key(&name, sender, certificate.pin, &grant)?; // 2
                Some(grant)
            }
            Pairing::New | Pairing::Replace => {
                self.records.put(
                    &name,
                    successor(self.record(&name), sender, &certificate, now.wall()),
                )?; // 2
                self.end_key_of(&name, sender)?;
                match pairing {
                    Pairing::Replace if gives_reading => {
                        let period = Period::new(at, REPLACEMENT_READS);
                        Some(self.grant_at_least(&name, period, now)?) // 3
                    }
                    Pairing::New | Pairing::Replace | Pairing::Restore { .. } => None,
                }
            }
        };
        Ok(Redeemed {
            name,
            certificate,
            replaced,
            grant,
        })
    }

    /// Revokes a sender, from its next call on, invalidates open invitations of the name, and withdraws all
    /// permissions to read its copies, which it returns. Its directory and copies stay.
    ///
    /// # Errors
    /// [`RevokeError`] if no sender has the name, or the disk fails.
    pub fn revoke(&self, name: &PeerName, now: Timestamp) -> Result<Withdrawn, RevokeError> {
        let _one_writer = self.lock();
        let record = self.record(name);
        if record.is_none() && self.invitations.get(name).is_none() {
            return Err(RevokeError::Unknown { name: name.clone() });
        }
        if let Some(record) = record {
            let revoked_at = record.revoked_at.or(Some(now));
            let record = SenderRecord {
                revoked_at,
                ..record
            };
            self.records.put(name, record)?;
        }
        let withdrawn = self.withdraw(name, now)?;
        self.invitations.remove(name)?;
        Ok(withdrawn)
    }

    /// Returns the name of the sender that a peer is, if it is authorised now. Must be called for every call:
    /// connections outlive a revocation. A temporary key is refused: it can only read.
    ///
    /// # Errors
    /// The reason for the refusal, with its remedy.
    pub fn authorize(&self, peer: Option<&PeerIdentity>) -> Result<PeerName, Refusal> {
        let (sender, pin) = sender_of(peer)?;
        let records = self.records.read();
        let named = records.iter().find(|(_, record)| record.has_been(sender));
        let Some((name, record)) = named else {
            return Err(match self.temporary_key(sender, pin) {
                Some((name, _)) => Refusal::ReadOnly { name },
                None => Refusal::Unknown { sender },
            });
        };
        let name = name.clone();
        if record.revoked_at.is_some() {
            Err(Refusal::Revoked { name })
        } else if record.sender_id != sender || record.pin != pin {
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
        let record = SenderRecord {
            certificate_expires_at,
            ..record
        };
        self.records.put(&name, record)?;
        Ok(certificate)
    }

    /// Returns all senders, including revoked ones, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(PeerName, SenderRecord)> {
        self.records.all()
    }

    /// Returns the invitations that can still be redeemed, by name; those to restore are last.
    #[must_use]
    pub fn invitations(&self, now: Timestamp) -> Vec<Invitation> {
        let both = [&self.invitations, &self.restore_invitations];
        let all = both.into_iter().flat_map(Files::all);
        let open = all.filter(|(_, stored)| stored.is_open(now));
        open.map(|(name, stored)| Invitation {
            name,
            pairing: stored.pairing,
            expires_at: stored.expires_at,
        })
        .collect()
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
        self.records.get(name)
    }

    /// Locks the registry for a change.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn invitations_to(&self, access: Access) -> &Files<Stored> {
        match access {
            Access::Full => &self.invitations,
            Access::ReadOnly => &self.restore_invitations,
        }
    }

    /// Generates a token by whose selector no other invitation is found.
    fn new_token(&self) -> Result<Token, RandomError> {
        loop {
            let token = Token::generate(self.authority.fingerprint())?;
            let selector = token.secret().selector();
            let is_free = |files: &Files<Stored>| {
                let all = files.read();
                all.values().all(|stored| stored.selector != selector)
            };
            if is_free(&self.invitations) && is_free(&self.restore_invitations) {
                return Ok(token);
            }
        }
    }

    /// Finds the invitation of a secret, if the secret is valid for it.
    fn claim(&self, secret: &Secret, now: Timestamp) -> Result<(PeerName, Stored), RedeemError> {
        let selector = secret.selector();
        let find = |files: &Files<Stored>| {
            let mut all = files.all().into_iter();
            all.find(|(_, stored)| stored.selector == selector)
        };
        let found = find(&self.invitations).or_else(|| find(&self.restore_invitations));
        let (name, mut invitation) = found.ok_or(RedeemError::Unknown)?;
        let access = invitation.pairing.access();
        match invitation.claim(secret, now) {
            Claim::Valid => Ok((name, invitation)),
            Claim::Expired => Err(RedeemError::Expired {
                name,
                expires_at: invitation.expires_at,
                access,
            }),
            Claim::Void => Err(RedeemError::Void { name, access }),
            Claim::Wrong => {
                self.invitations_to(access).put(&name, invitation)?;
                Err(RedeemError::Unknown)
            }
        }
    }

    /// Checks that an id has one name and one kind of access only; otherwise a host could impersonate another, or a
    /// temporary key could count as a sender's own.
    fn check_other_names(
        &self,
        name: &PeerName,
        sender: SenderId,
        access: Access,
    ) -> Result<(), RedeemError> {
        let records = self.records.read();
        let known = records.iter().find(|(_, record)| record.has_been(sender));
        match (known, access) {
            (Some((known, _)), Access::ReadOnly) => {
                return Err(RedeemError::HasOwnKey {
                    name: known.clone(),
                });
            }
            (Some((known, _)), Access::Full) if known != name => {
                return Err(RedeemError::OtherName {
                    name: known.clone(),
                });
            }
            (Some(_), Access::Full) | (None, _) => {}
        }
        let keys = self.restore_keys.read();
        let mut others = keys.iter().filter(|(other, _)| *other != name);
        match others.find(|(_, key)| key.sender_id == sender) {
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
        now: &Moment,
    ) -> Result<Use, RedeemError> {
        let access = invitation.pairing.access();
        let used = || RedeemError::Used {
            name: name.clone(),
            access,
        };
        let before = match access {
            Access::Full => self.record(name).map(|record| record.sender_id),
            Access::ReadOnly => self.restore_keys.get(name).map(|key| key.sender_id),
        };
        match (&invitation.used, before) {
            (Some(before), _) if before.sender_id == sender_id && before.pin == pin => {
                Ok(before.clone())
            }
            (Some(_), _) => Err(used()),
            (None, Some(_)) if invitation.pairing == Pairing::New => Err(used()),
            (None, before) => Ok(Use {
                sender_id,
                pin,
                replaced: before.filter(|old| *old != sender_id),
                at: Some(now.clone()),
            }),
        }
    }

    fn forget_old(&self, now: Timestamp) -> Result<(), RegistryError> {
        for files in [&self.invitations, &self.restore_invitations] {
            let all = files.all().into_iter();
            let old = all.filter(|(_, s)| now.duration_since(s.expires_at) > REMEMBERED);
            for (name, _) in old {
                files.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl SenderRecord {
    fn has_been(&self, sender: SenderId) -> bool {
        self.sender_id == sender || self.former_ids.contains(&sender)
    }
}

/// Returns the id and key of a peer that presented a sender's certificate.
pub(super) fn sender_of(peer: Option<&PeerIdentity>) -> Result<(SenderId, SpkiPin), Refusal> {
    match peer.map(|peer| (peer.id, peer.pin)) {
        Some((PeerId::Sender(sender), pin)) => Ok((sender, pin)),
        Some((PeerId::Receiver(_), _)) | None => Err(Refusal::NoCertificate),
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

//! Permissions to read copies, in the registry: who has one, for how long, and how it ends.

use std::time::Duration;

use jiff::Timestamp;
use sendshot_model::{PeerName, SenderId, VolumeName};

use crate::pairing::grant::{Grant, Granted, Reader, ReaderKey, RestoreKey, Withdrawn};
use crate::pairing::moment::{Moment, Period, Remaining};
use crate::pairing::refusal::{GrantError, Refusal, RegistryError, RevokeError};
use crate::pairing::senders::{REMEMBERED, Senders, sender_of};
use crate::transport::peer::{PeerIdentity, SpkiPin};

impl Senders {
    /// Grants the own key of a sender to read copies for a time from now; replaces an earlier grant of the same scope.
    ///
    /// # Errors
    /// [`GrantError`] if no sender that is served has the name, or the disk fails.
    pub fn grant(
        &self,
        name: &PeerName,
        volume: Option<&VolumeName>,
        lasts: Duration,
        now: &Moment,
    ) -> Result<Grant, GrantError> {
        let _one_writer = self.lock();
        let name_of = || name.clone();
        match self.record(name) {
            None => return Err(GrantError::Unknown { name: name_of() }),
            Some(record) if record.revoked_at.is_some() => {
                return Err(GrantError::Revoked { name: name_of() });
            }
            Some(_) => {}
        }
        let grant = Grant {
            volume: volume.cloned(),
            period: Period::new(now.clone(), lasts),
        };
        self.add_grant(name, grant.clone(), now)?;
        Ok(grant)
    }

    /// Returns the grants and temporary keys that have not ended, by name.
    #[must_use]
    pub fn grants(&self, now: &Moment) -> Vec<Granted> {
        let grants = self.grants.all().into_iter().flat_map(|(name, grants)| {
            let of_name = move |grant| Granted {
                name: name.clone(),
                grant,
                temporary_key: None,
            };
            grants.into_iter().map(of_name)
        });
        let keys = self.restore_keys.all().into_iter();
        let keys = keys.filter(|(_, key)| key.ended_at.is_none());
        let keys = keys.map(|(name, key)| Granted {
            name,
            temporary_key: Some(key.sender_id),
            grant: key.grant,
        });
        let all = grants.chain(keys);
        let mut all: Vec<_> = all
            .filter(|granted| !granted.grant.period.has_ended(now))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Returns the name whose copies a peer may ask to read: that of a sender, or of a temporary key. Must be called
    /// for every call. [`Senders::remaining`] decides which copies.
    ///
    /// # Errors
    /// The reason for the refusal, with its remedy.
    pub fn authorize_reader(
        &self,
        peer: Option<&PeerIdentity>,
        now: &Moment,
    ) -> Result<Reader, Refusal> {
        let (id, pin) = sender_of(peer)?;
        match self.authorize(peer) {
            Ok(name) => Ok(Reader {
                name,
                id,
                key: ReaderKey::Own,
            }),
            Err(refusal @ Refusal::ReadOnly { .. }) => match self.temporary_key(id, pin) {
                Some((name, key)) if !key.has_ended(now) => Ok(Reader {
                    name,
                    id,
                    key: ReaderKey::Temporary,
                }),
                Some((name, _)) => Err(Refusal::RestoreEnded { name }),
                // It was replaced meanwhile.
                None => Err(refusal),
            },
            Err(refusal) => Err(refusal),
        }
    }

    /// Returns how long a reader can read the copies in this directory of its sender: by the grant that lasts longest,
    /// or by the time of its temporary key. `None` if it cannot.
    #[must_use]
    pub fn remaining(&self, reader: &Reader, volume_dir: &str, now: &Moment) -> Option<Remaining> {
        let grants = match reader.key {
            ReaderKey::Own => {
                let record = self.record(&reader.name)?;
                let holds = record.sender_id == reader.id && record.revoked_at.is_none();
                let grants = self.grants.get(&reader.name).filter(|_| holds);
                grants.unwrap_or_default()
            }
            ReaderKey::Temporary => {
                let key = self.restore_keys.get(&reader.name)?;
                let holds = key.sender_id == reader.id && key.ended_at.is_none();
                holds.then_some(key.grant).into_iter().collect()
            }
        };
        let covering = grants.iter().filter(|grant| grant.covers(volume_dir));
        covering
            .filter_map(|grant| grant.period.remaining(now))
            .max_by_key(|rest| rest.left)
    }

    /// Withdraws all permissions to read the copies of a name: its grants, its temporary key, and an open invitation
    /// to restore. The sender's own record stays as it is.
    ///
    /// # Errors
    /// [`RevokeError`] if no sender has the name, or the disk fails.
    pub fn revoke_restore(
        &self,
        name: &PeerName,
        now: Timestamp,
    ) -> Result<Withdrawn, RevokeError> {
        let _one_writer = self.lock();
        if self.record(name).is_none() {
            return Err(RevokeError::Unknown { name: name.clone() });
        }
        Ok(self.withdraw(name, now)?)
    }

    /// Removes the grants that have ended, and ends the temporary keys whose time is over; returns both. The record
    /// of an ended key is removed a day later.
    ///
    /// # Errors
    /// [`RegistryError`] if the disk fails.
    pub fn end_expired(&self, now: &Moment) -> Result<Vec<Granted>, RegistryError> {
        let _one_writer = self.lock();
        let mut ended = Vec::new();
        for (name, grants) in self.grants.all() {
            let (over, open): (Vec<_>, Vec<_>) = grants
                .into_iter()
                .partition(|grant| grant.period.has_ended(now));
            if !over.is_empty() {
                self.put_grants(&name, open)?;
            }
            ended.extend(over.into_iter().map(|grant| Granted {
                name: name.clone(),
                grant,
                temporary_key: None,
            }));
        }
        for (name, key) in self.restore_keys.all() {
            match key.ended_at {
                Some(at) if is_forgotten(at, now.wall()) => self.restore_keys.remove(&name)?,
                Some(_) => {}
                None if key.has_ended(now) => ended.push(self.end_key(&name, key, now.wall())?),
                None => {}
            }
        }
        Ok(ended)
    }

    /// Finds the temporary key of an id, ended or not.
    pub(super) fn temporary_key(
        &self,
        id: SenderId,
        pin: SpkiPin,
    ) -> Option<(PeerName, RestoreKey)> {
        let keys = self.restore_keys.read();
        let mut keys = keys.iter();
        let found = keys.find(|(_, key)| key.sender_id == id && key.pin == pin);
        found.map(|(name, key)| (name.clone(), key.clone()))
    }

    /// Grants the whole of a name to be read for a period, unless an earlier grant lasts longer; returns the grant
    /// that holds.
    pub(super) fn grant_at_least(
        &self,
        name: &PeerName,
        period: Period,
        now: &Moment,
    ) -> Result<Grant, RegistryError> {
        let whole = |grant: &Grant| grant.volume.is_none() && !grant.period.has_ended(now);
        let earlier = self.grants.get(name).unwrap_or_default();
        let mut longer = earlier.into_iter().filter(whole);
        if let Some(longer) = longer.find(|grant| grant.period.ends_at() >= period.ends_at()) {
            return Ok(longer);
        }
        let grant = Grant {
            volume: None,
            period,
        };
        self.add_grant(name, grant.clone(), now)?;
        Ok(grant)
    }

    /// Records a temporary key. One that was recorded with this permission stays as it is: it may have ended.
    pub(super) fn keep_key(
        &self,
        name: &PeerName,
        sender_id: SenderId,
        pin: SpkiPin,
        grant: &Grant,
    ) -> Result<(), RegistryError> {
        let same =
            |key: &RestoreKey| key.sender_id == sender_id && key.pin == pin && key.grant == *grant;
        if self.restore_keys.get(name).is_some_and(|key| same(&key)) {
            return Ok(());
        }
        let key = RestoreKey {
            sender_id,
            pin,
            grant: grant.clone(),
            ended_at: None,
        };
        self.restore_keys.put(name, key)
    }

    /// Removes the temporary key of a host that is paired now.
    pub(super) fn end_key_of(&self, name: &PeerName, id: SenderId) -> Result<(), RegistryError> {
        match self.restore_keys.get(name) {
            Some(key) if key.sender_id == id => self.restore_keys.remove(name),
            Some(_) | None => Ok(()),
        }
    }

    /// Withdraws all permissions of a name; the invitations first, which could give them again.
    pub(super) fn withdraw(
        &self,
        name: &PeerName,
        now: Timestamp,
    ) -> Result<Withdrawn, RegistryError> {
        self.restore_invitations.remove(name)?;
        if let Some(mut invitation) = self.invitations.get(name) {
            invitation.gives_reading = false;
            self.invitations.put(name, invitation)?;
        }
        let key = self.restore_keys.get(name);
        let key = key.filter(|key| key.ended_at.is_none());
        let temporary_key = key.as_ref().map(|key| key.sender_id);
        if let Some(key) = key {
            self.end_key(name, key, now)?;
        }
        let grants = self.grants.get(name).map_or(0, |grants| grants.len());
        self.put_grants(name, Vec::new())?;
        Ok(Withdrawn {
            grants,
            temporary_key,
        })
    }

    fn add_grant(&self, name: &PeerName, grant: Grant, now: &Moment) -> Result<(), RegistryError> {
        let mut grants = self.grants.get(name).unwrap_or_default();
        grants.retain(|other| other.volume != grant.volume && !other.period.has_ended(now));
        grants.push(grant);
        self.put_grants(name, grants)
    }

    fn put_grants(&self, name: &PeerName, grants: Vec<Grant>) -> Result<(), RegistryError> {
        match grants.is_empty() {
            true => self.grants.remove(name),
            false => self.grants.put(name, grants),
        }
    }

    fn end_key(
        &self,
        name: &PeerName,
        key: RestoreKey,
        now: Timestamp,
    ) -> Result<Granted, RegistryError> {
        let ended = RestoreKey {
            ended_at: Some(now),
            ..key.clone()
        };
        self.restore_keys.put(name, ended)?;
        Ok(Granted {
            name: name.clone(),
            temporary_key: Some(key.sender_id),
            grant: key.grant,
        })
    }
}

impl RestoreKey {
    fn has_ended(&self, now: &Moment) -> bool {
        self.ended_at.is_some() || self.grant.period.has_ended(now)
    }
}

/// Whether the record of a key that ended then is of no use any more; also if the clock was set back since.
fn is_forgotten(ended_at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(ended_at).abs() > REMEMBERED
}

//! Tests the permissions to read copies: closed unless opened, for a time, and for nothing else.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sendshot_identity::{
    Access, Authority, GrantError, InviteError, Moment, Pairing, PeerIdentity, Reader, ReaderKey,
    RedeemError, Redeemed, Refusal, RenewError, RevokeError, SenderKey, Senders, Token,
};
use sendshot_model::{PeerName, ReceiverId, SenderId, VolumeName};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);

fn time(minutes: i64) -> Timestamp {
    let begin: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
    begin + SignedDuration::from_mins(minutes)
}

/// The moment so many minutes after the beginning of a test.
fn at(minutes: i64) -> Moment {
    let since_boot = HOUR + Duration::from_secs(60) * u32::try_from(minutes).unwrap();
    Moment::new(time(minutes), "boot", since_boot)
}

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

fn volume(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn to_restore(only: Option<&str>) -> Pairing {
    Pairing::Restore {
        volume: only.map(volume),
        lasts: 24 * HOUR,
    }
}

struct Host {
    id: SenderId,
    key: SenderKey,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SenderKey::load_or_create(dir.path()).unwrap();
        let id = SenderId::generate();
        Self { id, key }
    }
}

struct Receiver {
    dir: TempDir,
    senders: Senders,
}

impl Receiver {
    /// Makes a receiver on which this host is paired as nas1.
    fn with(host: &Host) -> (Self, PeerIdentity) {
        let dir = tempfile::tempdir().unwrap();
        let senders = open(&dir);
        let receiver = Self { dir, senders };
        let token = receiver.invite(Pairing::New, 0);
        let redeemed = receiver.redeem(&token, host, Access::Full, 0).unwrap();
        (receiver, identity(&redeemed))
    }

    fn restarted(self) -> Self {
        let senders = open(&self.dir);
        Self { senders, ..self }
    }

    fn invite(&self, pairing: Pairing, minutes: i64) -> Token {
        let invited = self.senders.invite(&name("nas1"), pairing, time(minutes));
        invited.unwrap()
    }

    fn redeem(
        &self,
        token: &Token,
        host: &Host,
        access: Access,
        minutes: i64,
    ) -> Result<Redeemed, RedeemError> {
        let csr = host.key.csr().unwrap();
        self.senders
            .redeem(token.secret(), &csr, host.id, access, &at(minutes))
    }

    /// Gives a host a temporary key at the beginning.
    fn temporary(&self, host: &Host, pairing: Pairing) -> PeerIdentity {
        let token = self.invite(pairing, 0);
        identity(&self.redeem(&token, host, Access::ReadOnly, 0).unwrap())
    }

    fn reader(&self, peer: &PeerIdentity, minutes: i64) -> Result<Reader, Refusal> {
        self.senders.authorize_reader(Some(peer), &at(minutes))
    }

    /// Whether this peer can read the copies of a volume, without a rule that permits it always.
    fn reads(&self, peer: &PeerIdentity, volume: &str, minutes: i64) -> bool {
        let reader = self.reader(peer, minutes);
        reader.is_ok_and(|reader| {
            let remaining = self.senders.remaining(&reader, volume, &at(minutes));
            remaining.is_some()
        })
    }

    fn files(&self, dir: &str) -> usize {
        let dir = std::fs::read_dir(self.dir.path().join(dir)).unwrap();
        dir.count()
    }
}

fn open(dir: &TempDir) -> Senders {
    let receiver = ReceiverId::from_bytes([1; 16]);
    let authority = Authority::load_or_create(dir.path(), receiver, time(0)).unwrap();
    Senders::open(dir.path(), Arc::new(authority)).unwrap()
}

fn identity(redeemed: &Redeemed) -> PeerIdentity {
    let pem = redeemed.certificate.pem.as_bytes();
    PeerIdentity::from_certificates(&[CertificateDer::from_pem_slice(pem).unwrap()]).unwrap()
}

#[test]
fn without_a_grant_nothing_is_read() {
    let host = Host::new();
    let (receiver, own) = Receiver::with(&host);
    assert_eq!(receiver.reader(&own, 0).unwrap().key, ReaderKey::Own);
    assert!(!receiver.reads(&own, "photos", 0));
    assert!(receiver.senders.grants(&at(0)).is_empty());
}

#[test]
fn a_grant_covers_its_scope_for_its_time_also_after_a_restart() {
    let (receiver, own) = Receiver::with(&Host::new());
    let (nas1, photos) = (name("nas1"), volume("photos"));
    let senders = &receiver.senders;
    senders.grant(&nas1, Some(&photos), HOUR, &at(0)).unwrap();
    let receiver = receiver.restarted();
    assert!(receiver.reads(&own, "photos", 59));
    assert!(!receiver.reads(&own, "photos", 60));
    assert!(!receiver.reads(&own, "photos-2", 0));
    let senders = &receiver.senders;
    senders.grant(&nas1, None, 2 * HOUR, &at(0)).unwrap();
    assert!(receiver.reads(&own, "music", 119) && receiver.reads(&own, "photos", 119));
    assert!(!receiver.reads(&own, "music", 120));
    // Of two grants that cover a volume, the longer one counts.
    let reader = receiver.reader(&own, 30).unwrap();
    let rest = receiver.senders.remaining(&reader, "photos", &at(30));
    let rest = rest.unwrap();
    assert_eq!((rest.left, rest.ends_at), (HOUR / 2 * 3, time(120)));
    assert_eq!(receiver.senders.grants(&at(59)).len(), 2);
    assert_eq!(receiver.senders.grants(&at(60)).len(), 1);
}

#[test]
fn a_new_grant_of_the_same_scope_replaces_the_earlier() {
    let (receiver, own) = Receiver::with(&Host::new());
    let nas1 = name("nas1");
    let grant = |lasts| receiver.senders.grant(&nas1, None, lasts, &at(0)).unwrap();
    grant(24 * HOUR);
    grant(HOUR);
    assert_eq!(receiver.senders.grants(&at(0)).len(), 1);
    assert!(!receiver.reads(&own, "photos", 60));
}

#[test]
fn only_a_sender_that_is_served_gets_a_grant() {
    let (receiver, _) = Receiver::with(&Host::new());
    let grant = |who| receiver.senders.grant(&name(who), None, HOUR, &at(0));
    let unknown = grant("nas7").unwrap_err();
    assert!(matches!(&unknown, GrantError::Unknown { .. }));
    assert!(
        unknown.remedy().contains("`sendshotctl peer list`"),
        "{unknown}"
    );
    receiver.senders.revoke(&name("nas1"), time(1)).unwrap();
    let revoked = grant("nas1").unwrap_err();
    assert!(matches!(&revoked, GrantError::Revoked { .. }));
    assert!(
        revoked.remedy().contains("peer invite nas1 --restore"),
        "{revoked}"
    );
}

#[test]
fn revoking_deletes_grants_keys_and_tokens() {
    let (receiver, own) = Receiver::with(&Host::new());
    let nas1 = name("nas1");
    receiver
        .senders
        .grant(&nas1, None, 24 * HOUR, &at(0))
        .unwrap();
    let temporary = receiver.temporary(&Host::new(), to_restore(None));
    let pending = receiver.invite(to_restore(None), 0);
    receiver.senders.revoke(&nas1, time(1)).unwrap();
    let receiver = receiver.restarted();
    for peer in [&own, &temporary] {
        assert!(!receiver.reads(peer, "photos", 2));
    }
    let late = receiver.redeem(&pending, &Host::new(), Access::ReadOnly, 2);
    assert!(matches!(late, Err(RedeemError::Unknown)));
    assert!(receiver.senders.grants(&at(2)).is_empty());
    // Paired again, it does not have its old grant.
    let back = receiver.invite(Pairing::Replace, 2);
    let before = receiver.files("grants");
    assert_eq!(before, 0);
    receiver
        .redeem(&back, &Host::new(), Access::Full, 3)
        .unwrap();
    let grants = receiver.senders.grants(&at(3));
    assert_eq!(grants.len(), 1);
    assert_eq!(grants[0].grant.period.begins_at(), time(3));
}

#[test]
fn a_host_that_replaces_another_reads_for_a_day_from_the_use_of_the_token() {
    let (receiver, _) = Receiver::with(&Host::new());
    let new = Host::new();
    let token = receiver.invite(Pairing::Replace, 0);
    let redeemed = receiver.redeem(&token, &new, Access::Full, 10).unwrap();
    let ends = redeemed.grant.clone().unwrap().period.ends_at();
    assert_eq!(ends, time(10 + 24 * 60));
    // The answer was lost: the time counts from the first use.
    let again = receiver.redeem(&token, &new, Access::Full, 14).unwrap();
    assert_eq!(again.grant, redeemed.grant);
    let peer = identity(&redeemed);
    assert!(receiver.reads(&peer, "photos", 10 + 24 * 60 - 1));
    assert!(!receiver.reads(&peer, "photos", 10 + 24 * 60));
}

#[test]
fn a_longer_grant_outlasts_the_one_of_a_replacement() {
    let (receiver, _) = Receiver::with(&Host::new());
    let week = 7 * 24 * HOUR;
    let senders = &receiver.senders;
    senders.grant(&name("nas1"), None, week, &at(0)).unwrap();
    let token = receiver.invite(Pairing::Replace, 0);
    let redeemed = receiver.redeem(&token, &Host::new(), Access::Full, 10);
    let peer = identity(&redeemed.unwrap());
    assert!(receiver.reads(&peer, "photos", 6 * 24 * 60));
}

#[test]
fn a_first_pairing_grants_nothing() {
    let host = Host::new();
    let (receiver, own) = Receiver::with(&host);
    assert!(receiver.senders.grants(&at(0)).is_empty());
    assert!(!receiver.reads(&own, "photos", 0));
}

#[test]
fn a_temporary_key_reads_and_does_nothing_else() {
    let (receiver, own) = Receiver::with(&Host::new());
    let before = receiver.senders.record(&name("nas1")).unwrap();
    let host = Host::new();
    let peer = receiver.temporary(&host, to_restore(None));
    let receiver = receiver.restarted();
    let reader = receiver.reader(&peer, 0).unwrap();
    assert_eq!(
        (reader.name, reader.id, reader.key),
        (name("nas1"), host.id, ReaderKey::Temporary)
    );
    assert!(receiver.reads(&peer, "photos", 24 * 60 - 1));
    let refused = receiver.senders.authorize(Some(&peer));
    assert_eq!(refused, Err(Refusal::ReadOnly { name: name("nas1") }));
    let csr = host.key.csr().unwrap();
    let renewed = receiver.senders.renew(Some(&peer), &csr, time(0));
    assert!(matches!(
        renewed,
        Err(RenewError::Refused(Refusal::ReadOnly { .. }))
    ));
    // The sender that has the name is as before.
    assert_eq!(receiver.senders.record(&name("nas1")), Some(before));
    assert_eq!(receiver.senders.authorize(Some(&own)), Ok(name("nas1")));
    assert!(!receiver.reads(&own, "photos", 0));
}

#[test]
fn a_temporary_key_is_bound_to_its_volume() {
    let (receiver, _) = Receiver::with(&Host::new());
    let peer = receiver.temporary(&Host::new(), to_restore(Some("photos")));
    assert!(receiver.reads(&peer, "photos", 0));
    assert!(!receiver.reads(&peer, "music", 0));
    // A grant is for the sender's own key.
    let senders = &receiver.senders;
    senders.grant(&name("nas1"), None, HOUR, &at(0)).unwrap();
    assert!(!receiver.reads(&peer, "music", 0));
}

#[test]
fn a_temporary_key_ends_for_good() {
    let (receiver, _) = Receiver::with(&Host::new());
    let peer = receiver.temporary(&Host::new(), to_restore(None));
    let ended = Err(Refusal::RestoreEnded { name: name("nas1") });
    assert_eq!(receiver.reader(&peer, 24 * 60), ended);
    let over = receiver.senders.end_expired(&at(24 * 60)).unwrap();
    assert_eq!(over.len(), 1);
    assert!(
        receiver
            .senders
            .end_expired(&at(24 * 60))
            .unwrap()
            .is_empty()
    );
    // The clock is set back: it stays ended.
    let receiver = receiver.restarted();
    assert_eq!(receiver.reader(&peer, 1), ended);
    let refusal = receiver.reader(&peer, 1).unwrap_err();
    assert!(
        refusal
            .remedy()
            .contains("`sendshotctl peer invite nas1 --restore`"),
        "{}",
        refusal.remedy()
    );
    // Its record is removed a day later; then it is a stranger's.
    assert_eq!(receiver.files("restore-keys"), 1);
    receiver.senders.end_expired(&at(48 * 60 + 1)).unwrap();
    assert_eq!(receiver.files("restore-keys"), 0);
    assert!(matches!(
        receiver.reader(&peer, 1),
        Err(Refusal::Unknown { .. })
    ));
}

#[test]
fn an_ended_key_is_not_revived_by_its_token() {
    let (receiver, _) = Receiver::with(&Host::new());
    let host = Host::new();
    let lasts = Duration::from_secs(5 * 60);
    let short = Pairing::Restore {
        volume: None,
        lasts,
    };
    let token = receiver.invite(short, 0);
    receiver.redeem(&token, &host, Access::ReadOnly, 0).unwrap();
    assert_eq!(receiver.senders.end_expired(&at(5)).unwrap().len(), 1);
    // The clock is set back.
    let again = receiver.redeem(&token, &host, Access::ReadOnly, 1).unwrap();
    assert!(!receiver.reads(&identity(&again), "photos", 1));
}

#[test]
fn a_reader_that_was_replaced_meanwhile_reads_nothing() {
    let (receiver, own) = Receiver::with(&Host::new());
    let temporary = receiver.temporary(&Host::new(), to_restore(None));
    let readers = [&own, &temporary].map(|peer| receiver.reader(peer, 0).unwrap());
    receiver.temporary(&Host::new(), to_restore(None));
    let token = receiver.invite(Pairing::Replace, 0);
    receiver
        .redeem(&token, &Host::new(), Access::Full, 0)
        .unwrap();
    for reader in readers {
        let remaining = receiver.senders.remaining(&reader, "photos", &at(1));
        assert_eq!(remaining, None, "{reader:?}");
    }
}

#[test]
fn ended_grants_are_removed_from_the_disk() {
    let (receiver, own) = Receiver::with(&Host::new());
    let nas1 = name("nas1");
    let grant = |volume: Option<&VolumeName>, lasts| {
        let granted = receiver.senders.grant(&nas1, volume, lasts, &at(0));
        granted.unwrap();
    };
    grant(None, HOUR);
    grant(Some(&volume("photos")), 2 * HOUR);
    assert_eq!(receiver.senders.end_expired(&at(60)).unwrap().len(), 1);
    assert_eq!(receiver.files("grants"), 1);
    // The clock is set back: the removed grant is gone.
    assert!(receiver.reads(&own, "photos", 1) && !receiver.reads(&own, "music", 1));
    assert_eq!(receiver.senders.end_expired(&at(120)).unwrap().len(), 1);
    assert_eq!(receiver.files("grants"), 0);
}

#[test]
fn a_temporary_key_can_be_withdrawn_alone() {
    let (receiver, own) = Receiver::with(&Host::new());
    let nas1 = name("nas1");
    let host = Host::new();
    let token = receiver.invite(to_restore(None), 0);
    let redeemed = receiver.redeem(&token, &host, Access::ReadOnly, 0).unwrap();
    let peer = identity(&redeemed);
    let withdrawn = receiver.senders.revoke_restore(&nas1, time(1)).unwrap();
    assert_eq!(
        (withdrawn.grants, withdrawn.temporary_key),
        (0, Some(host.id))
    );
    let receiver = receiver.restarted();
    assert_eq!(
        receiver.reader(&peer, 2),
        Err(Refusal::RestoreEnded { name: nas1.clone() })
    );
    assert_eq!(receiver.senders.authorize(Some(&own)), Ok(nas1.clone()));
    // Its token does not give it back.
    let again = receiver.redeem(&token, &host, Access::ReadOnly, 2);
    assert!(matches!(again, Err(RedeemError::Unknown)));
    let none = receiver.senders.revoke_restore(&nas1, time(2)).unwrap();
    assert_eq!(none.temporary_key, None);
    assert!(matches!(
        receiver.senders.revoke_restore(&name("nas7"), time(2)),
        Err(RevokeError::Unknown { .. })
    ));
}

#[test]
fn a_withdrawn_permission_of_a_replacement_does_not_come_back_by_its_token() {
    let (receiver, _) = Receiver::with(&Host::new());
    let nas1 = name("nas1");
    let host = Host::new();
    let token = receiver.invite(Pairing::Replace, 0);
    let redeemed = receiver.redeem(&token, &host, Access::Full, 0).unwrap();
    let peer = identity(&redeemed);
    assert!(receiver.reads(&peer, "photos", 0));
    let withdrawn = receiver.senders.revoke_restore(&nas1, time(1)).unwrap();
    assert_eq!(withdrawn.grants, 1);
    let receiver = receiver.restarted();
    // The host lost the answer, or says so: it is paired again, and reads nothing.
    let again = receiver.redeem(&token, &host, Access::Full, 2).unwrap();
    assert_eq!(again.grant, None);
    assert!(!receiver.reads(&identity(&again), "photos", 2));
    // The same if the token was not used before.
    let token = receiver.invite(Pairing::Replace, 2);
    receiver.senders.revoke_restore(&nas1, time(3)).unwrap();
    let other = Host::new();
    let redeemed = receiver.redeem(&token, &other, Access::Full, 4).unwrap();
    assert!(!receiver.reads(&identity(&redeemed), "photos", 4));
    // A new invitation is a new permission.
    let token = receiver.invite(Pairing::Replace, 5);
    let redeemed = receiver.redeem(&token, &other, Access::Full, 5).unwrap();
    assert!(receiver.reads(&identity(&redeemed), "photos", 5));
}

#[test]
fn a_new_temporary_key_replaces_the_earlier() {
    let (receiver, _) = Receiver::with(&Host::new());
    let first = Host::new();
    let one = receiver.temporary(&first, to_restore(None));
    let token = receiver.invite(to_restore(None), 1);
    let redeemed = receiver.redeem(&token, &Host::new(), Access::ReadOnly, 1);
    let redeemed = redeemed.unwrap();
    assert_eq!(redeemed.replaced, Some(first.id));
    assert!(!receiver.reads(&one, "photos", 2));
    assert!(receiver.reads(&identity(&redeemed), "photos", 2));
    assert_eq!(receiver.files("restore-keys"), 1);
}

#[test]
fn a_token_for_the_other_access_is_refused_and_not_used_up() {
    let (receiver, _) = Receiver::with(&Host::new());
    let host = Host::new();
    let restore = receiver.invite(to_restore(None), 0);
    let pair = receiver.invite(Pairing::Replace, 0);
    let refused = receiver
        .redeem(&restore, &host, Access::Full, 0)
        .unwrap_err();
    assert!(matches!(&refused, RedeemError::OnlyRestores { .. }));
    assert!(
        refused
            .remedy()
            .contains("`sendshotctl restore --pair HOST`")
    );
    let refused = receiver
        .redeem(&pair, &host, Access::ReadOnly, 0)
        .unwrap_err();
    assert!(matches!(&refused, RedeemError::OnlyPairs { .. }));
    assert!(refused.remedy().contains("`sendshotctl pair HOST`"));
    // Both still work, for any host.
    receiver
        .redeem(&restore, &Host::new(), Access::ReadOnly, 0)
        .unwrap();
    receiver
        .redeem(&pair, &Host::new(), Access::Full, 0)
        .unwrap();
}

#[test]
fn invitations_of_both_kinds_are_open_at_once() {
    let (receiver, _) = Receiver::with(&Host::new());
    let pair = receiver.invite(Pairing::Replace, 0);
    let restore = receiver.invite(to_restore(None), 0);
    let receiver = receiver.restarted();
    assert_eq!(receiver.senders.invitations(time(1)).len(), 2);
    receiver
        .redeem(&restore, &Host::new(), Access::ReadOnly, 1)
        .unwrap();
    receiver
        .redeem(&pair, &Host::new(), Access::Full, 1)
        .unwrap();
}

#[test]
fn a_restore_token_works_for_one_host_from_its_first_use() {
    let (receiver, _) = Receiver::with(&Host::new());
    let host = Host::new();
    let token = receiver.invite(to_restore(None), 0);
    let first = receiver.redeem(&token, &host, Access::ReadOnly, 5).unwrap();
    let ends = first.grant.clone().unwrap().period.ends_at();
    assert_eq!(ends, time(5 + 24 * 60));
    let again = receiver.redeem(&token, &host, Access::ReadOnly, 14);
    assert_eq!(again.unwrap().grant, first.grant);
    let thief = receiver.redeem(&token, &Host::new(), Access::ReadOnly, 6);
    let thief = thief.unwrap_err();
    assert!(matches!(&thief, RedeemError::Used { .. }));
    assert!(
        thief.remedy().contains("peer revoke nas1 --restore"),
        "{thief}"
    );
    let late = receiver.redeem(&token, &host, Access::ReadOnly, 15);
    let late = late.unwrap_err();
    assert!(
        late.remedy().contains("peer invite nas1 --restore"),
        "{late}"
    );
}

#[test]
fn copies_of_a_revoked_sender_can_be_restored_and_those_of_no_sender_cannot() {
    let (receiver, own) = Receiver::with(&Host::new());
    receiver.senders.revoke(&name("nas1"), time(0)).unwrap();
    let peer = receiver.temporary(&Host::new(), to_restore(None));
    assert!(receiver.reads(&peer, "photos", 1));
    assert_eq!(
        receiver.reader(&own, 1),
        Err(Refusal::Revoked { name: name("nas1") })
    );
    let senders = &receiver.senders;
    let never = senders.invite(&name("nas7"), to_restore(None), time(0));
    let never = never.unwrap_err();
    assert!(matches!(&never, InviteError::NeverPaired { .. }));
    assert!(!never.remedy().is_empty());
}

/// An id has one kind of access: neither does a temporary key become a sender's own by its id, nor the reverse.
#[test]
fn a_temporary_key_takes_no_id_of_another_host() {
    let host = Host::new();
    let (receiver, own) = Receiver::with(&host);
    let token = receiver.invite(to_restore(None), 0);
    let other_key = Host {
        id: host.id,
        key: Host::new().key,
    };
    for claimant in [&host, &other_key] {
        let refused = receiver.redeem(&token, claimant, Access::ReadOnly, 0);
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, RedeemError::HasOwnKey { .. }));
        assert!(refused.remedy().contains("peer grant nas1"), "{refused}");
    }
    assert_eq!(receiver.senders.authorize(Some(&own)), Ok(name("nas1")));
    // The token was not used up.
    let reading = Host::new();
    receiver
        .redeem(&token, &reading, Access::ReadOnly, 0)
        .unwrap();
    let other = receiver
        .senders
        .invite(&name("nas2"), Pairing::New, time(0));
    let refused = receiver.redeem(&other.unwrap(), &reading, Access::Full, 0);
    assert!(matches!(refused, Err(RedeemError::OtherName { .. })));
}

#[test]
fn a_host_that_restored_and_then_replaces_the_old_one_has_one_key() {
    let (receiver, _) = Receiver::with(&Host::new());
    let host = Host::new();
    receiver.temporary(&host, to_restore(None));
    let token = receiver.invite(Pairing::Replace, 1);
    let redeemed = receiver.redeem(&token, &host, Access::Full, 1).unwrap();
    let reader = receiver.reader(&identity(&redeemed), 1).unwrap();
    assert_eq!(reader.key, ReaderKey::Own);
    assert_eq!(receiver.files("restore-keys"), 0);
}

#[test]
fn an_invitation_of_an_older_version_is_read() {
    let (receiver, _) = Receiver::with(&Host::new());
    let new = Host::new();
    let token = receiver.invite(Pairing::Replace, 0);
    receiver.redeem(&token, &new, Access::Full, 0).unwrap();
    let file = receiver.dir.path().join("invitations/nas1.json");
    let mut stored: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let used = stored["used"].as_object_mut().unwrap();
    assert!(used.remove("at").is_some());
    std::fs::write(&file, stored.to_string()).unwrap();
    let receiver = receiver.restarted();
    receiver.redeem(&token, &new, Access::Full, 1).unwrap();
}

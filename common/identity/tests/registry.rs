//! Tests invitations and senders: admission, refusal, and what a restart preserves.
#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sendshot_identity::{
    Access, Authority, InviteError, Moment, Pairing, PeerIdentity, RedeemError, Redeemed, Refusal,
    RevokeError, Secret, SenderKey, Senders, Token,
};
use sendshot_model::{PeerName, ReceiverId, SenderId};
use tempfile::TempDir;

fn now() -> Timestamp {
    "2026-11-22T03:00:00Z".parse().unwrap()
}

fn after(minutes: i64) -> Timestamp {
    now() + SignedDuration::from_mins(minutes)
}

/// The moment of a time, in a boot that began before all times of these tests.
fn moment(at: Timestamp) -> Moment {
    let since_boot = at.duration_since(now()) + SignedDuration::from_hours(1);
    Moment::new(at, "boot", Duration::try_from(since_boot).unwrap())
}

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

struct Receiver {
    dir: TempDir,
    senders: Senders,
}

impl Receiver {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let senders = open(&dir);
        Self { dir, senders }
    }

    fn restarted(self) -> Self {
        let senders = open(&self.dir);
        Self { senders, ..self }
    }

    fn invite(&self, who: &str, pairing: Pairing) -> Token {
        self.senders.invite(&name(who), pairing, now()).unwrap()
    }

    fn redeem(&self, token: &Token, sender: &Sender) -> Result<Redeemed, RedeemError> {
        self.redeem_at(token, sender, now())
    }

    fn redeem_at(
        &self,
        token: &Token,
        sender: &Sender,
        at: Timestamp,
    ) -> Result<Redeemed, RedeemError> {
        let csr = sender.key.csr().unwrap();
        self.senders
            .redeem(token.secret(), &csr, sender.id, Access::Full, &moment(at))
    }

    fn pair(&self, who: &str, sender: &Sender) -> PeerIdentity {
        let token = self.invite(who, Pairing::New);
        identity(&self.redeem(&token, sender).unwrap())
    }

    fn authorize(&self, peer: &PeerIdentity) -> Result<PeerName, Refusal> {
        self.senders.authorize(Some(peer))
    }
}

fn open(dir: &TempDir) -> Senders {
    let receiver = ReceiverId::from_bytes([1; 16]);
    let authority = Authority::load_or_create(dir.path(), receiver, now()).unwrap();
    Senders::open(dir.path(), Arc::new(authority)).unwrap()
}

struct Sender {
    id: SenderId,
    key: SenderKey,
}

impl Sender {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SenderKey::load_or_create(dir.path()).unwrap();
        Self {
            id: SenderId::generate(),
            key,
        }
    }
}

fn identity(redeemed: &Redeemed) -> PeerIdentity {
    let pem = redeemed.certificate.pem.as_bytes();
    PeerIdentity::from_certificates(&[CertificateDer::from_pem_slice(pem).unwrap()]).unwrap()
}

#[test]
fn a_paired_sender_comes_in_also_after_a_restart() {
    let (receiver, sender) = (Receiver::new(), Sender::new());
    let token = receiver.invite("nas1", Pairing::New);
    let redeemed = receiver.redeem(&token, &sender).unwrap();
    assert_eq!((redeemed.name.as_str(), redeemed.replaced), ("nas1", None));
    let peer = identity(&redeemed);
    assert_eq!(receiver.authorize(&peer), Ok(name("nas1")));
    let receiver = receiver.restarted();
    assert_eq!(receiver.authorize(&peer), Ok(name("nas1")));
    let record = receiver.senders.record(&name("nas1")).unwrap();
    assert_eq!(
        (record.sender_id, record.pin),
        (sender.id, sender.key.pin())
    );
    assert_eq!(record.paired_at, now());
}

#[test]
fn a_token_works_for_one_sender_only() {
    let (receiver, sender) = (Receiver::new(), Sender::new());
    let token = receiver.invite("nas1", Pairing::New);
    let first = receiver.redeem(&token, &sender).unwrap();
    let other = receiver.redeem(&token, &Sender::new()).unwrap_err();
    assert!(matches!(other, RedeemError::Used { .. }), "{other}");
    // The same id with another key is another sender.
    let thief = Sender {
        id: sender.id,
        key: Sender::new().key,
    };
    let error = receiver.redeem(&token, &thief).unwrap_err();
    assert!(matches!(error, RedeemError::Used { .. }), "{error}");
    assert_eq!(receiver.authorize(&identity(&first)), Ok(name("nas1")));
    assert!(receiver.senders.invitations(now()).is_empty());
}

#[test]
fn a_sender_that_did_not_get_the_answer_asks_again() {
    let (receiver, old, sender) = (Receiver::new(), Sender::new(), Sender::new());
    receiver.pair("nas1", &old);
    let token = receiver.invite("nas1", Pairing::Replace);
    let first = receiver.redeem(&token, &sender).unwrap();
    let receiver = receiver.restarted();
    let second = receiver.redeem_at(&token, &sender, after(14)).unwrap();
    assert_eq!(
        (first.replaced, second.replaced),
        (Some(old.id), Some(old.id))
    );
    assert_eq!(receiver.authorize(&identity(&second)), Ok(name("nas1")));
    assert_eq!(
        receiver.senders.record(&name("nas1")).unwrap().former_ids,
        [old.id]
    );
    let late = receiver.redeem_at(&token, &sender, after(15)).unwrap_err();
    assert!(matches!(late, RedeemError::Expired { .. }), "{late}");
}

#[test]
fn expired_unknown_and_replaced_tokens_open_nothing() {
    let (receiver, sender) = (Receiver::new(), Sender::new());
    let token = receiver.invite("nas1", Pairing::New);
    let error = receiver.redeem_at(&token, &sender, after(15)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the token expired at 2026-11-22T03:15:00Z"
    );
    assert_eq!(
        error.remedy(),
        "run `sendshotctl peer invite nas1` on the receiver for a new one"
    );
    let newer = receiver.invite("nas1", Pairing::New);
    assert!(matches!(
        receiver.redeem(&token, &sender),
        Err(RedeemError::Unknown)
    ));
    let foreign = Receiver::new().invite("nas1", Pairing::New);
    assert!(matches!(
        receiver.redeem(&foreign, &sender),
        Err(RedeemError::Unknown)
    ));
    receiver.redeem(&newer, &sender).unwrap();
}

#[test]
fn five_wrong_secrets_void_an_invitation_and_no_other() {
    let (receiver, sender) = (Receiver::new(), Sender::new());
    let token = receiver.invite("nas1", Pairing::New);
    let bystander = receiver.invite("nas2", Pairing::New);
    let mut wrong = token.secret().to_bytes();
    wrong[15] ^= 1;
    let csr = sender.key.csr().unwrap();
    for _ in 0..5 {
        let secret = Secret::from_bytes(wrong);
        let result =
            receiver
                .senders
                .redeem(&secret, &csr, sender.id, Access::Full, &moment(now()));
        assert!(matches!(result, Err(RedeemError::Unknown)));
    }
    let receiver = receiver.restarted();
    assert!(matches!(
        receiver.redeem(&token, &sender),
        Err(RedeemError::Void { .. })
    ));
    receiver.redeem(&bystander, &sender).unwrap();
}

#[test]
fn a_damaged_request_does_not_use_the_token_up() {
    let (receiver, sender) = (Receiver::new(), Sender::new());
    let token = receiver.invite("nas1", Pairing::New);
    let result = receiver.senders.redeem(
        token.secret(),
        b"rubbish",
        sender.id,
        Access::Full,
        &moment(now()),
    );
    assert!(matches!(result, Err(RedeemError::Sign(_))));
    receiver.redeem(&token, &sender).unwrap();
}

#[test]
fn a_taken_name_needs_replace() {
    let receiver = Receiver::new();
    receiver.pair("nas1", &Sender::new());
    let error = receiver
        .senders
        .invite(&name("nas1"), Pairing::New, now())
        .unwrap_err();
    assert!(matches!(error, InviteError::AlreadyPaired { .. }));
    assert!(
        error
            .remedy()
            .contains("`sendshotctl peer invite nas1 --replace`"),
        "{}",
        error.remedy()
    );
}

#[test]
fn a_new_host_replaces_the_old_one_of_its_name() {
    let (receiver, old, new) = (Receiver::new(), Sender::new(), Sender::new());
    let before = receiver.pair("nas1", &old);
    let token = receiver.invite("nas1", Pairing::Replace);
    assert_eq!(
        receiver.authorize(&before),
        Ok(name("nas1")),
        "until the token is used"
    );
    let redeemed = receiver.redeem(&token, &new).unwrap();
    assert_eq!(redeemed.replaced, Some(old.id));
    assert_eq!(receiver.authorize(&identity(&redeemed)), Ok(name("nas1")));
    let refused = receiver.authorize(&before);
    assert_eq!(refused, Err(Refusal::KeyChanged { name: name("nas1") }));
    let record = receiver.restarted().senders.record(&name("nas1")).unwrap();
    assert_eq!(
        (record.sender_id, record.former_ids),
        (new.id, vec![old.id])
    );
}

#[test]
fn a_new_key_replaces_no_other_sender() {
    let (receiver, sender) = (Receiver::new(), Sender::new());
    let before = receiver.pair("nas1", &sender);
    let renewed = Sender {
        id: sender.id,
        key: Sender::new().key,
    };
    let token = receiver.invite("nas1", Pairing::Replace);
    let redeemed = receiver.redeem(&token, &renewed).unwrap();
    assert_eq!(redeemed.replaced, None);
    assert_eq!(
        receiver.authorize(&before),
        Err(Refusal::KeyChanged { name: name("nas1") })
    );
    assert!(
        receiver
            .senders
            .record(&name("nas1"))
            .unwrap()
            .former_ids
            .is_empty()
    );
}

#[test]
fn a_sender_cannot_pass_for_another() {
    let (receiver, victim, old) = (Receiver::new(), Sender::new(), Sender::new());
    receiver.pair("nas1", &old);
    let token = receiver.invite("nas1", Pairing::Replace);
    receiver.redeem(&token, &victim).unwrap();
    for id in [victim.id, old.id] {
        let token = receiver.invite("nas2", Pairing::New);
        let thief = Sender {
            id,
            key: Sender::new().key,
        };
        let error = receiver.redeem(&token, &thief).unwrap_err();
        assert!(matches!(&error, RedeemError::OtherName { name } if name.as_str() == "nas1"));
    }
}

#[test]
fn a_revoked_sender_is_out_until_it_is_paired_again() {
    let (receiver, sender) = (Receiver::new(), Sender::new());
    let peer = receiver.pair("nas1", &sender);
    let pending = receiver.invite("nas1", Pairing::Replace);
    receiver.senders.revoke(&name("nas1"), after(1)).unwrap();
    receiver.senders.revoke(&name("nas1"), after(2)).unwrap();
    assert_eq!(
        receiver.authorize(&peer),
        Err(Refusal::Revoked { name: name("nas1") })
    );
    assert!(matches!(
        receiver.redeem(&pending, &sender),
        Err(RedeemError::Unknown)
    ));
    let receiver = receiver.restarted();
    assert_eq!(
        receiver.authorize(&peer),
        Err(Refusal::Revoked { name: name("nas1") })
    );
    let record = receiver.senders.record(&name("nas1")).unwrap();
    assert_eq!(record.revoked_at, Some(after(1)));
    let token = receiver.invite("nas1", Pairing::Replace);
    receiver.redeem(&token, &sender).unwrap();
    assert_eq!(receiver.authorize(&peer), Ok(name("nas1")));
}

#[test]
fn revoking_voids_an_invitation() {
    let receiver = Receiver::new();
    let token = receiver.invite("nas1", Pairing::New);
    receiver.senders.revoke(&name("nas1"), now()).unwrap();
    assert!(matches!(
        receiver.redeem(&token, &Sender::new()),
        Err(RedeemError::Unknown)
    ));
    let error = receiver.senders.revoke(&name("nas1"), now()).unwrap_err();
    assert!(matches!(error, RevokeError::Unknown { .. }));
}

#[test]
fn strangers_get_a_remedy() {
    let receiver = Receiver::new();
    let error = receiver.senders.authorize(None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this receiver serves paired senders only"
    );
    assert_eq!(
        error.remedy(),
        "on the receiver run `sendshotctl peer invite NAME`, then on the sender \
         `sendshotctl pair HOST`"
    );
    let sender = Sender::new();
    let stranger = Receiver::new().pair("nas1", &sender);
    let error = receiver.authorize(&stranger).unwrap_err();
    assert_eq!(error, Refusal::Unknown { sender: sender.id });
}

#[test]
fn only_one_racer_gets_a_token() {
    let receiver = Receiver::new();
    let token = receiver.invite("nas1", Pairing::New);
    let won = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| receiver.redeem(&token, &Sender::new())))
            .collect();
        racers
            .into_iter()
            .filter_map(|racer| racer.join().unwrap().ok())
            .count()
    });
    assert_eq!(won, 1);
    assert_eq!(receiver.senders.list().len(), 1);
}

#[test]
fn open_invitations_are_listed_and_old_ones_forgotten() {
    let receiver = Receiver::new();
    receiver.invite("nas1", Pairing::New);
    receiver.invite("nas2", Pairing::Replace);
    let names = |at| {
        receiver
            .senders
            .invitations(at)
            .into_iter()
            .map(|i| i.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(after(1)), [name("nas1"), name("nas2")]);
    assert!(names(after(15)).is_empty());
    let later = after(2 * 24 * 60);
    receiver
        .senders
        .invite(&name("nas3"), Pairing::New, later)
        .unwrap();
    let files = std::fs::read_dir(receiver.dir.path().join("invitations"))
        .unwrap()
        .count();
    assert_eq!(files, 1);
}

#[test]
fn a_damaged_registry_is_not_taken_in_part() {
    let receiver = Receiver::new();
    receiver.pair("nas1", &Sender::new());
    let file = receiver.dir.path().join("senders/nas1.json");
    std::fs::write(&file, "{").unwrap();
    let authority =
        Authority::load_or_create(receiver.dir.path(), ReceiverId::from_bytes([1; 16]), now());
    let error = Senders::open(receiver.dir.path(), Arc::new(authority.unwrap())).unwrap_err();
    assert!(error.to_string().contains("nas1.json"), "{error}");
}

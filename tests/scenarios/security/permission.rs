//! Permissions to read copies: only root of the receiver gives them, a temporary key can do nothing else, and they end.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::time::{Duration, Instant};

use sendshot_adversary::hostile::guest::Guest;
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::hosts::clock::Clock;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::unprivileged::as_unprivileged;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_proto::refusal::remedy;
use sendshot_proto::v1::replication_client::ReplicationClient;
use sendshot_proto::v1::{
    HelloRequest, HelloResponse, InventoryRequest, PairResponse, RenewRequest, TransferUp,
};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Status};

const DAY: i64 = 24 * 60 * 60;

fn grants(receiver: &ReceiverHost) -> Vec<Value> {
    let grants = receiver.ctl(&["peer", "grants", "--json"]);
    grants.success().jsons()
}

fn seconds(time: &Value) -> i64 {
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    time.as_second()
}

/// Says hello with a key.
fn hello(guest: &Guest, channel: &Channel) -> Result<HelloResponse, Status> {
    let hello = HelloRequest {
        version_min: 1,
        version_max: 1,
        ..HelloRequest::default()
    };
    guest.call(async {
        let mut client = ReplicationClient::new(channel.clone());
        Ok(client.hello(hello).await?.into_inner())
    })
}

/// Makes every other call; returns the statuses.
fn other_calls(guest: &Guest, channel: &Channel) -> Vec<(&'static str, Status)> {
    let inventory = InventoryRequest {
        volume_id: vec![7; 16],
        volume_name: "photos".to_owned(),
        ..InventoryRequest::default()
    };
    let renew = RenewRequest {
        signing_request: guest.key().csr().unwrap(),
    };
    let nothing = tokio_stream::iter([TransferUp::default()]);
    guest.call(async {
        let mut client = ReplicationClient::new(channel.clone());
        vec![
            (
                "Inventory",
                client.inventory(inventory).await.map(drop).unwrap_err(),
            ),
            ("Renew", client.renew(renew).await.map(drop).unwrap_err()),
            (
                "Transfer",
                client.transfer(nothing).await.map(drop).unwrap_err(),
            ),
        ]
    })
}

fn temporary(receiver: &ReceiverHost, options: &[&str]) -> (Guest, PairResponse) {
    let guest = Guest::of(receiver);
    let token = receiver.invite(&[&["nas1", "--restore"], options].concat());
    let paired = guest.redeem(&token).unwrap();
    (guest, paired)
}

#[test]
fn grants_are_made_listed_and_withdrawn() {
    let mut hosts = Paired::new();
    hosts.sender.push("nas2:photos");
    let receiver = &hosts.receiver;
    assert!(grants(receiver).is_empty(), "something is open by itself");

    let granted = receiver.ctl(&["peer", "grant", "nas1", "--volume", "photos", "--for", "2h"]);
    let granted = granted.success();
    assert!(granted.stdout.contains("photos"), "{granted:?}");
    assert_eq!(granted.stderr, "", "it is warned of a volume that is there");
    let other = ["peer", "grant", "nas1", "--volume", "music", "--for", "1d"];
    let other = receiver.ctl(&other).success();
    assert!(other.stderr.contains("no directory `music`"), "{other:?}");
    assert!(other.stderr.contains("photos"), "{other:?}");
    let whole = receiver.ctl(&["peer", "grant", "nas1", "--for", "90m", "--json"]);
    let whole = whole.success().json();
    assert_eq!(
        (&whole["name"], &whole["volume"]),
        (&Value::from("nas1"), &Value::Null)
    );
    // The same scope again: it replaces the earlier.
    receiver
        .ctl(&["peer", "grant", "nas1", "--for", "24h"])
        .success();

    let listed = grants(receiver);
    let scopes: Vec<_> = listed.iter().map(|g| g["volume"].as_str()).collect();
    assert_eq!(scopes, [Some("photos"), Some("music"), None]);
    for (grant, lasts) in listed.iter().zip([DAY / 12, DAY, DAY]) {
        assert_eq!(
            (&grant["name"], &grant["kind"]),
            (&Value::from("nas1"), &Value::from("grant"))
        );
        assert_eq!(seconds(&grant["until"]) - seconds(&grant["from"]), lasts);
    }
    let table = receiver.ctl(&["peer", "grants"]).success().stdout;
    for text in ["nas1", "volume photos", "all volumes", "grant"] {
        assert!(table.contains(text), "{table}");
    }

    hosts.receiver.daemon.kill();
    hosts.receiver.daemon.start();
    let receiver = &hosts.receiver;
    assert_eq!(grants(receiver), listed, "a crash lost a grant");
    let revoked = receiver.ctl(&["peer", "revoke", "nas1", "--restore", "--json"]);
    assert_eq!(revoked.success().json()["withdrawn"], 3);
    assert!(grants(receiver).is_empty());
    let nothing = receiver.ctl(&["peer", "revoke", "nas1", "--restore"]);
    assert!(nothing.success().stdout.contains("nothing"));
    // The sender pushes as before.
    fill::tree(&hosts.sender.photos(), 1);
    let pushed = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);

    receiver
        .ctl(&["peer", "grant", "nas1", "--for", "24h"])
        .success();
    receiver.ctl(&["peer", "revoke", "nas1"]).success();
    assert!(grants(receiver).is_empty(), "revoking left a grant");
}

#[test]
fn only_root_opens_and_what_cannot_be_opened_is_named() {
    let hosts = Paired::new();
    let receiver = &hosts.receiver;
    for arguments in [
        &["peer", "grant", "nas1", "--for", "24h"][..],
        &["peer", "invite", "nas1", "--restore"],
        &["peer", "revoke", "nas1", "--restore"],
    ] {
        as_unprivileged(&receiver.daemon, arguments).fails(4, &["root"]);
    }
    receiver
        .ctl(&["peer", "grant", "nas1", "--for", "24h"])
        .success();
    let listed = as_unprivileged(&receiver.daemon, &["peer", "grants"]).success();
    assert!(listed.stdout.contains("nas1"), "{listed:?}");

    let ctl = |arguments: &[&str]| receiver.ctl(&[&["peer"], arguments].concat());
    ctl(&["grant", "nas7", "--for", "24h"]).fails(2, &["nas7", "peer list"]);
    ctl(&["invite", "nas7", "--restore"]).fails(2, &["nas7", "peer list"]);
    ctl(&["revoke", "nas7", "--restore"]).fails(2, &["nas7"]);
    ctl(&["grant", "nas1", "--for", "0s"]).fails(2, &["second"]);
    ctl(&["grant", "nas1", "--for", "tomorrow"]).fails(2, &["span of time"]);
    ctl(&["grant", "nas1"]).fails(2, &["--for"]);
    ctl(&["grant", "nas1", "--volume", "a/b", "--for", "1h"]).fails(2, &["`a/b`"]);
    ctl(&["invite", "nas1", "--restore", "--replace"]).fails(2, &["--replace"]);
    ctl(&["invite", "nas1", "--for", "1h"]).fails(2, &["--restore"]);
    receiver.ctl(&["peer", "revoke", "nas1"]).success();
    ctl(&["grant", "nas1", "--for", "1h"]).fails(2, &["revoked", "peer invite nas1 --restore"]);
}

#[test]
fn a_rule_that_forbids_restoring_is_pointed_out() {
    let rule = "[senders.nas1]\nrestore = \"never\"";
    let receiver = ReceiverHost::setup().keys(rule).start();
    let sender = SenderHost::new();
    sendshot_harness::hosts::pairing::pair(&sender, &receiver, "nas2");
    let granted = receiver.ctl(&["peer", "grant", "nas1", "--for", "24h"]);
    let granted = granted.success();
    assert!(
        granted.stderr.contains("restore = \"never\""),
        "{granted:?}"
    );
    let invited = receiver.ctl(&["peer", "invite", "nas1", "--restore"]);
    let invited = invited.success();
    assert!(
        invited.stderr.contains("restore = \"never\""),
        "{invited:?}"
    );
}

#[test]
fn a_temporary_key_only_says_hello_and_ends_within_a_second() {
    let mut hosts = Paired::new();
    let receiver = &hosts.receiver;
    // Another host takes over, so that the sender has a former id.
    hosts.sender = SenderHost::new();
    let token = receiver.invite(&["nas1", "--replace"]);
    let address = receiver.address().to_string();
    let arguments = ["pair", &address, "--name", "nas2", "--token", &token];
    hosts.sender.ctl(&arguments).success();
    receiver
        .ctl(&["peer", "revoke", "nas1", "--restore"])
        .success();
    fill::tree(&hosts.sender.photos(), 1);
    hosts.sender.push("nas2:photos");
    let record = receiver.daemon.state_dir().join("senders/nas1.json");
    let before = fs::read(&record).unwrap();
    let (guest, paired) = temporary(receiver, &["--volume", "photos"]);
    assert_eq!(paired.sender_name, "nas1");
    assert!(paired.former_sender_ids.is_empty());
    let [listed] = &grants(receiver)[..] else {
        panic!("not one permission: {:?}", grants(receiver));
    };
    assert_eq!(
        (&listed["kind"], &listed["volume"]),
        (&Value::from("temporary-key"), &Value::from("photos"))
    );
    assert_eq!(seconds(&listed["until"]), paired.restore_until);
    assert_eq!(
        seconds(&listed["until"]) - seconds(&listed["from"]),
        DAY,
        "the default"
    );

    let channel = guest.connect(&paired);
    let greeted = hello(&guest, &channel).unwrap();
    assert!(
        greeted.former_sender_ids.is_empty(),
        "it would own the sender's records"
    );
    for (call, status) in other_calls(&guest, &channel) {
        assert_eq!(status.code(), Code::PermissionDenied, "{call}: {status}");
        assert!(
            status.message().contains("can only restore"),
            "{call}: {status}"
        );
    }
    // The host that has the name is as before, and pushes.
    assert_eq!(fs::read(&record).unwrap(), before);
    fill::file(hosts.sender.photos().join("new"), 2, 1000);
    let pushed = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, receiver, &pushed);

    let began = Instant::now();
    receiver
        .ctl(&["peer", "revoke", "nas1", "--restore"])
        .success();
    until::holds("its connection is closed", || {
        let status = hello(&guest, &channel).unwrap_err();
        status.code() != Code::PermissionDenied
    });
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let refused = hello(&guest, &guest.connect(&paired)).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(
        remedy(&refused).contains("`sendshotctl peer invite nas1 --restore`"),
        "{}",
        remedy(&refused)
    );
    hosts.sender.push("nas2:photos");
    let log = receiver.daemon.log();
    for (text, times) in [
        ("was invited to restore", 1),
        ("an invitation to restore was used", 1),
        ("were withdrawn", 2),
    ] {
        assert_eq!(log.matches(text).count(), times, "{text}: {log}");
    }
}

#[test]
fn a_new_temporary_key_and_a_revocation_end_the_one_before() {
    let hosts = Paired::new();
    let receiver = &hosts.receiver;
    let (first, one) = temporary(receiver, &[]);
    let open = first.connect(&one);
    hello(&first, &open).unwrap();
    let (second, two) = temporary(receiver, &["--for", "1h"]);
    until::holds("the connection of the earlier key is closed", || {
        let status = hello(&first, &open).unwrap_err();
        status.code() != Code::PermissionDenied
    });
    let refused = hello(&first, &first.connect(&one)).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    hello(&second, &second.connect(&two)).unwrap();
    receiver.ctl(&["peer", "revoke", "nas1"]).success();
    assert!(hello(&second, &second.connect(&two)).is_err());
    // The copies of a revoked sender can still be restored.
    let (third, three) = temporary(receiver, &[]);
    hello(&third, &third.connect(&three)).unwrap();
    receiver.daemon.may_log("revoked");
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(4, &["revoked"]);
}

#[test]
fn a_token_for_the_other_purpose_names_the_right_command_and_stays() {
    let hosts = Paired::new();
    let receiver = &hosts.receiver;
    let address = receiver.address().to_string();
    let new = SenderHost::new();
    let pair = |token: &str| new.ctl(&["pair", &address, "--name", "nas2", "--token", token]);
    // Both are open at once.
    let to_pair = receiver.invite(&["nas1", "--replace"]);
    let to_restore = receiver.invite(&["nas1", "--restore"]);
    let peers = receiver.ctl(&["peer", "list", "--json"]).success().jsons();
    let states: Vec<_> = peers.iter().map(|p| p["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["paired", "invited", "invited-to-restore"]);

    pair(&to_restore).fails(4, &["for restoring", "sendshotctl restore --pair"]);
    let guest = Guest::of(receiver);
    let refused = guest.redeem(&to_pair).unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(
        remedy(&refused).contains("`sendshotctl pair HOST`"),
        "{}",
        remedy(&refused)
    );
    assert!(!new.receiver_file("nas2").exists());

    guest.redeem(&to_restore).unwrap();
    pair(&to_pair).success();
    let used = Guest::of(receiver).redeem(&to_restore).unwrap_err();
    assert!(used.message().contains("used"), "{used}");
}

#[test]
fn a_host_in_the_place_of_another_can_restore_for_a_day() {
    let hosts = Paired::new();
    let receiver = &hosts.receiver;
    let token = receiver.invite(&["nas1", "--replace"]);
    assert!(grants(receiver).is_empty(), "it counts from the use");
    let guest = Guest::of(receiver);
    let paired = guest.pair(&token).unwrap();
    let [granted] = &grants(receiver)[..] else {
        panic!("not one permission: {:?}", grants(receiver));
    };
    assert_eq!(
        (&granted["kind"], &granted["volume"]),
        (&Value::from("grant"), &Value::Null)
    );
    assert_eq!(seconds(&granted["until"]) - seconds(&granted["from"]), DAY);
    assert_eq!(seconds(&granted["until"]), paired.restore_until);
}

/// Grants for 24 hours, gives a temporary key for as long, and sets the receiver's clock; everything must have ended,
/// for good.
#[track_caller]
fn ends_when_the_clock_is_set(offset: &str) {
    let mut hosts = Paired::new();
    let clock = Clock::new();
    clock.of(&mut hosts.receiver.daemon);
    let receiver = &mut hosts.receiver;
    receiver
        .ctl(&["peer", "grant", "nas1", "--for", "24h"])
        .success();
    let (guest, paired) = temporary(receiver, &[]);
    hello(&guest, &guest.connect(&paired)).unwrap();
    clock.set(offset);
    assert!(grants(receiver).is_empty(), "{offset}");
    let refused = hello(&guest, &guest.connect(&paired)).unwrap_err();
    assert!(refused.message().contains("has ended"), "{refused}");
    // The periodic check removes them; the first one is at the start.
    receiver.daemon.stop();
    receiver.daemon.start();
    let file = receiver.daemon.state_dir().join("grants/nas1.json");
    until::holds("the grant is removed", || !file.exists());
    until::holds("the log has both ends", || {
        let log = receiver.daemon.log();
        log.contains("a grant to read its copies has ended")
            && log.contains("the time of its temporary key has ended")
    });
    clock.set("+0");
    assert!(grants(receiver).is_empty(), "{offset}: it is open again");
    assert!(hello(&guest, &guest.connect(&paired)).is_err());
    hosts.sender.push("nas2:photos");
}

#[test]
fn permissions_end_at_their_time() {
    ends_when_the_clock_is_set("+24h");
}

#[test]
fn permissions_end_when_the_clock_is_set_back() {
    ends_when_the_clock_is_set("-2h");
}

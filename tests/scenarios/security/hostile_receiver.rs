//! A hostile receiver can make a push fail or be sent in full. It cannot make the sender take unsent data
//! for held, delete what is really held, hang, or use unbounded memory. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use sendshot_adversary::lying_peer::answers::{
    accepts, applied, checkpoint, committed, copy, deaf, failure, frames, holds, nibbles, partial,
    takes_all, uuid, waiting,
};
use sendshot_adversary::lying_peer::lies::{HELLO, INVENTORY, TRANSFER};
use sendshot_adversary::lying_peer::scripted::{
    Call, Script, ScriptedReceiver, Step, Until, changed, down, framed, framed_as, header, status,
};
use sendshot_adversary::lying_peer::victim::Expect::Fails;
use sendshot_adversary::lying_peer::victim::{Row, Victim};
use sendshot_harness::compare::subvolumes;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::clock::Clock;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_identity::{Authority, SenderKey};
use sendshot_model::{ReceiverId, SenderId};
use sendshot_proto::v1::transfer_down::Message as Down;
use sendshot_proto::v1::{
    Accepted, HeldCopy, HelloResponse, InventoryResponse, PairResponse, Partial, RenewResponse,
    ResumePoint,
};
use serde_json::Value;
use tonic::{Code, Status};
use uuid::Uuid;

fn run(victim: &mut Victim, rows: &[Row]) {
    for row in rows {
        victim.play(row);
    }
}

#[test]
fn false_inventories_cost_at_most_a_full_send() {
    let mut victim = Victim::new();
    run(&mut victim, INVENTORY);
    victim.end();
}

#[test]
fn false_claims_cost_at_most_the_push() {
    let mut victim = Victim::new();
    run(&mut victim, HELLO);
    run(&mut victim, TRANSFER);
    for code in 0..=15 {
        let lie = vec![Step::Say(failure(code, 1 << 20))];
        let name = format!("it fails with code {code}, in 1 MiB of words");
        let expect = Fails(&[1, 3, 4], "the receiver reports");
        victim.play_script(&name, Script::to(Call::Transfer, lie), expect);
    }
    for code in [0, 5, 13] {
        let steps = vec![Step::Hear(Until::End), Step::Say(failure(code, 10))];
        let name = format!("it fails with code {code} when all is sent");
        let expect = Fails(&[1, 3, 4], "the receiver reports");
        victim.play_script(&name, accepts(steps), expect);
    }
    victim.end();
}

/// A push may wait for its turn for long; but its user can always cancel it.
#[test]
fn a_push_that_is_told_to_wait_without_end_can_be_cancelled() {
    let mut victim = Victim::new();
    let endless = || Step::Flood(waiting(), u64::MAX);
    for (name, script) in [
        (
            "before it is accepted",
            Script::to(Call::Transfer, vec![Step::Hear(Until::Begin), endless()]),
        ),
        ("when it is accepted", accepts(vec![endless()])),
        (
            "when all is sent",
            accepts(vec![Step::Hear(Until::End), endless()]),
        ),
    ] {
        fill::file(victim.sender.photos().join("more"), 3, 20_000);
        victim.hostile.says(script);
        victim.link.aim(victim.hostile.address());
        let push = victim.sender.ctl_start(&["push", "nas2:photos"]);
        until::holds("the liar has the announcement", || {
            victim.hostile.heard().begin.is_some()
        });
        std::thread::sleep(Duration::from_millis(500));
        let cancelled = Instant::now();
        push.signal(Signal::INT);
        push.finish().fails(1, &["cancelled"]);
        assert!(cancelled.elapsed() < Duration::from_secs(5), "{name}");
        victim.push_honestly();
    }
    victim.end();
}

#[test]
fn a_stream_never_received_is_not_held() {
    let says_committed = |after| {
        vec![
            Step::Wait(Duration::from_millis(after)),
            Step::Say(committed()),
            Step::Hold,
        ]
    };
    let mut victim = Victim::new();
    for (seed, name, script) in [
        (7, "it takes nothing", deaf(says_committed(1000))),
        // With HTTP/2 framing these are more bytes than the whole stream has. Each takes a round trip, and all of them less
        // than the stall time-out also on a busy machine.
        (
            8,
            "it takes a part, byte by byte",
            nibbles(3000, says_committed(200)),
        ),
    ] {
        let last = victim.last["uuid"].clone();
        // Longer than the receive window, shorter than the sender's send buffers.
        fill::file(victim.sender.photos().join("few"), seed, 20_000);
        let before = victim.acknowledged();
        victim.hostile.says(script);
        victim.link.aim(victim.hostile.address());
        let output = victim.sender.ctl(&["push", "nas2:photos"]);
        assert_eq!(victim.hostile.heard().ends, 0, "{name}");
        victim.look(name, &before, false);
        output.fails(1, &["before the end"]);
        let states: Vec<_> = victim.records().into_iter().map(|r| r.state).collect();
        assert!(
            !states.contains(&"unconfirmed".to_owned()),
            "{name}: {states:?}"
        );
        victim.push_honestly();
        assert_eq!(victim.last["parent"], last, "{name}");
    }
    victim.end();
}

/// Interrupts a push in its middle with every segment marked; returns its transfer id and last point.
fn break_off(victim: &mut Victim) -> (Vec<u8>, ResumePoint) {
    let accepted = down(Down::Accepted(Accepted {
        resume_at: 0,
        checkpoint_bytes: 1,
        checkpoint_milliseconds: 0,
    }));
    let segment = Step::Hear(Until::Segment);
    let steps = vec![
        Step::Hear(Until::Begin),
        Step::Say(accepted),
        segment.clone(),
        segment,
        Step::Say(checkpoint(1)),
        Step::Wait(Duration::from_millis(50)),
        Step::Cut,
    ];
    let (output, heard) = victim.push_to_liar(Script::to(Call::Transfer, steps));
    output.fails(3, &["broke"]);
    assert!(heard.marked > 0, "{heard:?}");
    (heard.begin.unwrap().transfer_id, heard.point.unwrap())
}

#[test]
fn an_interrupted_push_resumes_only_from_what_was_sent() {
    type Lie = fn(&[u8], &ResumePoint) -> Vec<Partial>;
    let lies: &[(&str, Lie)] = &[
        ("beyond the stream", |id, point| {
            let offset = point.offset + (1 << 30);
            partial(id, [(offset, &point.chain[..])])
        }),
        ("at 2^64-1", |id, point| {
            partial(id, [(u64::MAX, &point.chain[..])])
        }),
        ("with another chain value", |id, point| {
            partial(id, [(point.offset, &[7; 32][..])])
        }),
        ("with the chain value of another place", |id, point| {
            partial(
                id,
                [
                    (point.offset - 1, &point.chain[..]),
                    (point.offset + 1, &point.chain[..]),
                ],
            )
        }),
        ("with ours, of another transfer", |_, point| {
            partial(&[7; 16], [(point.offset, &point.chain[..])])
        }),
        ("of 10,000 transfers", |id, point| {
            let others = (0..10_000u128).map(|id| id.to_be_bytes());
            let others = others.flat_map(|id| partial(&id, [(point.offset, &point.chain[..])]));
            others
                .chain(partial(id, [(point.offset, &point.chain[..])]))
                .collect()
        }),
        ("behind 10,000 others", |id, point| {
            let others = (1..=10_000).map(|offset| (1 << 30 | offset, &point.chain[..]));
            partial(id, others.chain([(point.offset, &point.chain[..])]))
        }),
        ("of nothing", |id, _| partial(id, [])),
    ];
    let mut victim = Victim::new();
    for (name, lie) in lies {
        let before = victim.acknowledged();
        let (id, point) = break_off(&mut victim);
        let partials = lie(&id, &point);
        let script = holds(move |answer| answer.partials.clone_from(&partials));
        let (output, heard) = victim.push_to_liar(script);
        println!("{name}: {} {}", output.code, output.stderr.trim());
        output.success();
        let begin = heard.begin.unwrap();
        assert_eq!(begin.resume_at, None, "{name}");
        victim.look(name, &before, true);
        victim.push_honestly();
    }
    // A true resume point is used, even of a hostile receiver.
    let (id, point) = break_off(&mut victim);
    let partials = partial(&id, [(point.offset, &point.chain[..])]);
    let accepted = down(Down::Accepted(Accepted {
        resume_at: point.offset,
        ..Accepted::default()
    }));
    let inventory = changed(move |answer: &mut InventoryResponse, _| {
        answer.partials.clone_from(&partials);
    });
    let early = vec![
        Step::Hear(Until::Begin),
        Step::Say(accepted),
        Step::Say(committed()),
    ];
    let script = Script::to(Call::Inventory, vec![inventory]).and(Call::Transfer, early);
    let before = victim.acknowledged();
    let (output, heard) = victim.push_to_liar(script);
    output.fails(1, &["before the end"]);
    assert_eq!(heard.begin.unwrap().resume_at, Some(point));
    victim.look("a push that goes on", &before, false);
    victim.push_honestly();
    victim.end();
}

#[test]
fn an_unconfirmed_end_deletes_nothing_that_is_held() {
    type Lie = fn(&mut InventoryResponse, HeldCopy);
    /// Name, lie, and resulting state of the record: acknowledged, deleted (empty), or unconfirmed.
    const LIES: &[(&str, Lie, &str)] = &[
        (
            "it holds it",
            |answer, sent| answer.copies.push(sent),
            "acknowledged",
        ),
        (
            "it holds it and nothing else",
            |answer, sent| answer.copies = vec![sent],
            "acknowledged",
        ),
        ("it does not hold it", |_, _| (), ""),
        ("it holds nothing", |answer, _| answer.copies.clear(), ""),
        (
            "it is still at work",
            |answer, _| answer.commit_pending = true,
            "unconfirmed",
        ),
    ];
    let mut victim = Victim::new();
    for (name, lie, state) in LIES {
        let before = victim.acknowledged();
        let last = victim.last["uuid"].as_str().unwrap().to_owned();
        let (output, heard) = victim.push_to_liar(accepts(vec![Step::Hear(Until::End), Step::Cut]));
        output.fails(3, &["broke"]);
        let begin = heard.begin.unwrap();
        let sent = HeldCopy {
            ctransid: begin.ctransid,
            ..copy(&begin.uuid)
        };
        victim.look(name, &before, false);
        let uuid = Uuid::from_slice(&begin.uuid).unwrap().to_string();
        let state_of = |victim: &Victim| {
            let mut records = victim.records().into_iter();
            let found = records.find(|record| record.uuid == uuid);
            found.map_or_else(String::new, |record| record.state)
        };
        assert_eq!(state_of(&victim), "unconfirmed", "{name}");

        let lie = *lie;
        let lie = changed(move |answer: &mut InventoryResponse, _| lie(answer, sent.clone()));
        let fails = vec![Step::Say(failure(1, 10))];
        let script = Script::to(Call::Inventory, vec![lie]).and(Call::Transfer, fails);
        let (output, _) = victim.push_to_liar(script);
        println!("{name}: {} {}", output.code, output.stderr.trim());
        assert_eq!(state_of(&victim), *state, "{name}");
        assert!(victim.acknowledged().contains(&last), "{name}");
        victim.look(name, &before, true);
        victim.push_honestly();
    }
    victim.end();
}

#[test]
fn false_commits_supersede_nothing_that_is_held() {
    let mut victim = Victim::new();
    for round in 0..6 {
        // The inventory is honest: falsely committed states are not in it.
        let before = victim.acknowledged();
        let (output, heard) = victim.push_to_liar(Script::to(Call::Transfer, takes_all()));
        output.success();
        let parent = heard.begin.unwrap().parent.unwrap();
        assert_eq!(parent.uuid, uuid(&victim.last), "round {round}");
        victim.look("a lie more", &before, true);
    }
    let held = victim.last["uuid"].clone();
    victim.push_honestly();
    assert_eq!(victim.last["parent"], held, "what both have was deleted");
    // Only a receiver that also lies in its inventory is sent everything again.
    for _ in 0..6 {
        let hears = |answer: &mut InventoryResponse, _: &_| answer.copies.push(copy(&[3; 16]));
        let script = Script::to(Call::Inventory, vec![changed(hears)]);
        victim
            .push_to_liar(script.and(Call::Transfer, takes_all()))
            .0
            .success();
    }
    victim.push_honestly();
    victim.end();
}

#[test]
fn a_claimed_users_snapshot_supersedes_nothing() {
    let mut victim = Victim::new();
    let monday = victim.sender.fs().join("monday");
    victim.change();
    streams::snapshot(&victim.sender.photos(), &monday).unwrap();
    let all = subvolumes::list(victim.sender.fs());
    let monday = all.into_iter().find(|s| s.path == "monday").unwrap();
    let uuid: Uuid = monday.uuid.parse().unwrap();
    for failing in [true, false] {
        let ctransids = (0..1000).map(|ctransid| HeldCopy {
            ctransid,
            ..copy(uuid.as_bytes())
        });
        let ctransids: Vec<_> = ctransids.collect();
        let script = holds(move |answer| answer.copies.extend_from_slice(&ctransids));
        let script = match failing {
            true => script.and(Call::Transfer, vec![Step::Say(failure(1, 10))]),
            false => script,
        };
        let (output, _) = victim.push_to_liar(script);
        assert_eq!(output.code, i32::from(failing), "{output:?}");
        let last = victim.last["uuid"].as_str().unwrap().to_owned();
        assert!(victim.acknowledged().contains(&last));
        if failing {
            // Only the hostile receiver's report supports the later state.
            assert!(
                victim.acknowledged().contains(&monday.uuid),
                "it was not adopted"
            );
            victim.sender.ctl(&["prune"]).success();
            assert!(
                victim.acknowledged().contains(&last),
                "what it has was deleted"
            );
        }
        victim.push_honestly();
        assert_ne!(victim.last["parent"], Value::Null, "{}", victim.last);
    }
    victim.end();
}

/// Slow or endless answers, each from a receiver with its own name, all at the same time.
#[test]
fn slow_or_endless_answers_time_out() {
    let mut victim = Victim::new();
    let clock = Clock::new();
    clock.of(&mut victim.sender.daemon);
    let whole = framed(&HelloResponse {
        version: 1,
        software: "slow".repeat(100),
        ..HelloResponse::default()
    });
    let calls = [
        ("no answer", vec![Step::Wait(Duration::from_secs(60))]),
        ("headers, and no answer", vec![Step::Hold]),
        (
            "a message a byte a second",
            vec![Step::Drip(whole.clone(), Duration::from_secs(1))],
        ),
        (
            "a message, and no end of the call",
            vec![Step::Say(whole.clone()), Step::Hold],
        ),
        ("messages without end", vec![Step::Flood(whole, u64::MAX)]),
    ];
    let calls = calls.map(|(name, steps)| (name, Script::to(Call::Hello, steps)));
    let frames = frames()
        .into_iter()
        .map(|(name, wire)| (name, Script::on(wire)));
    let mut liars = Vec::new();
    for (number, (name, script)) in calls.into_iter().chain(frames).enumerate() {
        let lying_peer = another_liar(&victim, number);
        call_it_another(&victim, number);
        lying_peer.says(script);
        liars.push((name, format!("lying{number}"), lying_peer));
    }
    let started = Instant::now();
    let pushes: Vec<_> = liars
        .iter()
        .map(|(name, at, lying_peer)| {
            let push = victim.sender.ctl_start(&["push", &format!("{at}:photos")]);
            (name, lying_peer, push)
        })
        .collect();
    // At the same time one receiver is paired with, and one is asked to renew the certificate.
    let token = victim.receiver.invite(&["nas9"]);
    let pairing = another_liar(&victim, 100);
    pairing.says(Script::to(Call::Pair, vec![Step::Hold]));
    let address = pairing.address().to_string();
    let pair = ["pair", &address, "--name", "nas9", "--token", &token];
    let pair = victim.sender.ctl_start(&pair);
    clock.set("+4y");
    let renewing = another_liar(&victim, 101);
    let never = Script::to(Call::Renew, vec![Step::Hold]);
    renewing.says(never.and(Call::Transfer, takes_all()));
    let renew = victim.sender.ctl_start(&["push", "lying101:music"]);

    let mut problems = Vec::new();
    for (name, lying_peer, push) in pushes {
        let output = push.finish();
        println!(
            "{name:40} {} after {:.1?}: {}",
            output.code,
            started.elapsed(),
            output.stderr.trim()
        );
        if ![1, 3].contains(&output.code) || started.elapsed() > Duration::from_secs(30) {
            problems.push(format!("{name}: {:?}, {output:?}", started.elapsed()));
        }
        assert!(lying_peer.heard().connections > 0, "{name}");
    }
    pair.finish().fails(3, &["no complete response"]);
    assert!(!victim.sender.receiver_file("nas9").exists());
    renew.finish().success();
    assert!(
        started.elapsed() < Duration::from_secs(40),
        "{:?}",
        started.elapsed()
    );
    assert!(problems.is_empty(), "{problems:#?}");
    clock.set("+0");
    drop(liars);
    victim.push_honestly();
    victim.end();
}

/// Another receiver with the keys of `nas2`, which the sender calls `lying_peerNUMBER`.
fn another_liar(victim: &Victim, number: usize) -> ScriptedReceiver {
    let lying_peer = ScriptedReceiver::of(&victim.sender, &victim.receiver, "nas2");
    let entry = fs::read_to_string(victim.sender.receiver_file("nas2")).unwrap();
    let own = victim.link.address().to_string();
    assert!(entry.contains(&own), "{entry}");
    let entry = entry.replace(&own, &lying_peer.address().to_string());
    fs::write(
        victim.sender.receiver_file(&format!("lying{number}")),
        entry,
    )
    .unwrap();
    lying_peer
}

/// Makes the sender take it for a separate receiver, to which the same volume may be pushed.
fn call_it_another(victim: &Victim, number: usize) {
    let file = victim.sender.receiver_file(&format!("lying{number}"));
    let entry = fs::read_to_string(&file).unwrap();
    let own = entry.lines().find(|line| line.starts_with("receiver_id"));
    let other = format!("receiver_id = \"{}\"", Uuid::from_u128(number as u128 + 1));
    fs::write(&file, entry.replace(own.unwrap(), &other)).unwrap();
}

#[test]
fn a_push_that_waits_for_it_can_be_cancelled_at_any_time() {
    let mut victim = Victim::new();
    let never = Step::Wait(Duration::from_secs(60));
    let drip = Step::Drip(
        framed(&InventoryResponse::default()),
        Duration::from_secs(1),
    );
    let rows = [
        ("no greeting", Script::to(Call::Hello, vec![never.clone()])),
        (
            "no inventory",
            Script::to(Call::Inventory, vec![never.clone()]),
        ),
        (
            "an inventory that does not begin",
            Script::to(Call::Inventory, vec![Step::Hold]),
        ),
        (
            "an inventory a byte a second",
            Script::to(Call::Inventory, vec![drip]),
        ),
        ("never accepted", Script::to(Call::Transfer, vec![never])),
        ("nothing is taken", deaf(vec![Step::Hold])),
        ("no end", accepts(vec![Step::Hear(Until::End), Step::Hold])),
        (
            "applied without end",
            accepts(vec![Step::Flood(applied(1), u64::MAX)]),
        ),
    ];
    for (name, script) in rows {
        let before = victim.acknowledged();
        victim.change();
        victim.hostile.says(script);
        victim.link.aim(victim.hostile.address());
        let push = victim.sender.ctl_start(&["push", "nas2:photos"]);
        std::thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        victim.sender.ctl(&["cancel", "nas2:photos"]).success();
        let output = push.finish();
        println!("{name}: {:?} {}", started.elapsed(), output.stderr.trim());
        output.fails(1, &["cancelled"]);
        assert!(started.elapsed() < Duration::from_secs(2), "{name}");
        victim.look(name, &before, false);
        victim.push_honestly();
    }
    victim.end();
}

/// Returns the sender's own id.
fn sender_id(victim: &Victim) -> SenderId {
    let file = victim.sender.daemon.state_dir().join("instance.json");
    let instance: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    instance["sender_id"].as_str().unwrap().parse().unwrap()
}

/// Returns certificates that a sender must refuse, each with its defect.
fn certificates(victim: &Victim) -> Vec<(&'static str, String)> {
    let now = Timestamp::now();
    let years = |years: i64| now + SignedDuration::from_hours(years * 365 * 24);
    let id = sender_id(victim);
    let key = SenderKey::load_or_create(&victim.sender.daemon.state_dir()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let other_key = SenderKey::load_or_create(dir.path()).unwrap();
    let other_ca = Authority::load_or_create(dir.path(), ReceiverId::generate(), now).unwrap();
    let (own, theirs) = (key.csr().unwrap(), other_key.csr().unwrap());
    let lying_peer = &victim.hostile;
    let receivers = fs::read_to_string(victim.receiver.daemon.state_dir().join("server.pem"));
    let good = lying_peer.certify(&own, id, years(3));
    vec![
        ("nothing", String::new()),
        ("no certificate", "\u{1b}[2J".repeat(1000)),
        ("a damaged one", good.replacen("MII", "MIJ", 1)),
        (
            "another's",
            lying_peer.certify(&theirs, SenderId::generate(), years(3)),
        ),
        (
            "of another's key",
            lying_peer.certify(&theirs, id, years(3)),
        ),
        (
            "in another's name",
            lying_peer.certify(&own, SenderId::generate(), years(3)),
        ),
        ("the receiver's own", receivers.unwrap()),
        (
            "of another authority",
            other_ca.sign_sender(&own, id, years(3)).unwrap().pem,
        ),
        ("one that is over", lying_peer.certify(&own, id, years(-20))),
        (
            "one that begins later",
            lying_peer.certify(&own, id, years(30)),
        ),
        (
            "1 MiB",
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                "AAAA".repeat(1 << 18)
            ),
        ),
        ("more than a message may hold", "x".repeat(5 << 20)),
    ]
}

/// Moves the clock into the last third of the sender's certificate, past the earliest possible expiry. It is
/// not renewed yet, because the receiver could not be reached when the daemon checked.
fn late(victim: &mut Victim) -> Clock {
    let clock = Clock::new();
    clock.set("+1600d");
    victim.link.set(Way::Up, Rule::Cut);
    clock.of(&mut victim.sender.daemon);
    let daemon = &victim.sender.daemon;
    until::holds("it has looked", || {
        let log = daemon.log();
        log.lines()
            .any(|line| line.contains("not renewed yet") && line.ends_with("receiver=nas2"))
    });
    victim.link.mend();
    clock
}

#[test]
fn a_certificate_that_works_is_replaced_by_none_that_does_not() {
    let mut victim = Victim::new();
    let _clock = late(&mut victim);
    let file = victim.sender.receiver_file("nas2");
    let former = fs::read_to_string(&file).unwrap();
    for (name, certificate) in certificates(&victim) {
        let answer = framed(&RenewResponse { certificate });
        let renew = Script::to(Call::Renew, vec![Step::Say(answer)]);
        let (output, _) = victim.push_to_liar(renew.and(Call::Transfer, takes_all()));
        println!("{name}: {}", output.code);
        output.success();
        let log = victim.sender.daemon.log();
        let line = log.lines().rfind(|line| line.contains("not renewed yet"));
        println!("  {}", line.unwrap_or_default());
        assert_eq!(fs::read_to_string(&file).unwrap(), former, "{name}");
        victim.push_honestly();
        // The honest receiver may have renewed it.
        fs::write(&file, &former).unwrap();
    }
    // A valid certificate is accepted, without the text around it.
    let key = SenderKey::load_or_create(&victim.sender.daemon.state_dir()).unwrap();
    let later = Timestamp::now() + SignedDuration::from_hours(3 * 365 * 24);
    let good = victim
        .hostile
        .certify(&key.csr().unwrap(), sender_id(&victim), later);
    let certificate = format!("{}{good}{good}", "beside\n".repeat(100_000));
    let renew = Script::to(
        Call::Renew,
        vec![Step::Say(framed(&RenewResponse { certificate }))],
    );
    victim
        .push_to_liar(renew.and(Call::Transfer, takes_all()))
        .0
        .success();
    let renewed = fs::read_to_string(&file).unwrap();
    assert_ne!(renewed, former);
    assert!(!renewed.contains("beside") && renewed.len() < 2 * former.len());
    victim.end();
}

#[test]
fn a_false_answer_to_an_invitation_pairs_nothing() {
    let mut victim = Victim::new();
    let _clock = late(&mut victim);
    let token = victim.receiver.invite(&["nas1", "--replace"]);
    let address = victim.hostile.address().to_string();
    let nas2 = victim.sender.receiver_file("nas2");
    let known = fs::read_to_string(&nas2).unwrap();
    let good = PairResponse {
        sender_name: "nas9".to_owned(),
        receiver_id: vec![7; 16],
        certificate: String::new(),
        authority: "lie".repeat(1000),
        former_sender_ids: Vec::new(),
        restore_until: i64::MAX,
    };
    let mut lies: Vec<(String, Step)> = Vec::new();
    for (name, certificate) in certificates(&victim) {
        let answer = framed(&PairResponse {
            certificate,
            ..good.clone()
        });
        lies.push((name.to_owned(), Step::Say(answer)));
    }
    let short = PairResponse {
        receiver_id: vec![7; 5],
        ..good.clone()
    };
    let refused = Status::new(Code::PermissionDenied, "\u{1b}[2J".repeat(1000));
    for (name, step) in [
        ("an id of five bytes", Step::Say(framed(&short))),
        (
            "bytes that are no message",
            Step::Say(framed_as(64, &[0xff; 64])),
        ),
        ("nothing at all", Step::Say(Bytes::new())),
        ("4 GiB", Step::Say(framed_as(u32::MAX, &[]))),
        (
            "a refusal that a terminal obeys",
            Step::End(status(&refused)),
        ),
        (
            "headers of 1 MiB",
            Step::Headers(header("x-lie", &[b'x'; 1 << 20])),
        ),
    ] {
        lies.push((name.to_owned(), step));
    }
    for (name, step) in lies {
        victim.hostile.says(Script::to(Call::Pair, vec![step]));
        // Neither a new pairing is made, nor a working one replaced.
        for at in ["nas9", "nas2"] {
            let output = victim
                .sender
                .ctl(&["pair", &address, "--name", at, "--token", &token]);
            println!(
                "{name}, {at}: {} {:.200}",
                output.code,
                output.stderr.trim()
            );
            assert!([1, 3, 4].contains(&output.code), "{name}: {output:?}");
            let obeyed = |c: char| c.is_control() && c != '\n';
            assert!(!output.stderr.contains(obeyed), "{name}: {output:?}");
            assert!(output.stderr.len() < 8192, "{name}");
        }
        assert!(!victim.sender.receiver_file("nas9").exists(), "{name}");
        assert_eq!(fs::read_to_string(&nas2).unwrap(), known, "{name}");
    }
    // A receiver that claims the id of another known one.
    let nas3 = fs::read_to_string(victim.sender.receiver_file("nas3")).unwrap();
    let id = nas3.lines().find(|line| line.starts_with("receiver_id"));
    let id: Uuid = id.unwrap().split('"').nth(1).unwrap().parse().unwrap();
    let key = SenderKey::load_or_create(&victim.sender.daemon.state_dir()).unwrap();
    let later = Timestamp::now() + SignedDuration::from_hours(3 * 365 * 24);
    let request = key.csr().unwrap();
    let certificate = victim.hostile.certify(&request, sender_id(&victim), later);
    let answer = framed(&PairResponse {
        receiver_id: id.as_bytes().to_vec(),
        certificate,
        ..good
    });
    let says = Script::to(Call::Pair, vec![Step::Say(answer)]);
    victim.hostile.says(says);
    let pair = ["pair", &address, "--name", "nas9", "--token", &token];
    let output = victim.sender.ctl(&pair);
    output.fails(1, &["nas9.toml and ", "nas3.toml", "the same receiver"]);
    assert!(!victim.sender.receiver_file("nas9").exists());
    // A receiver with the keys of another one.
    let other = ScriptedReceiver::of(&victim.sender, &victim.other, "nas3");
    let address = other.address().to_string();
    let pair = ["pair", &address, "--name", "nas9", "--token", &token];
    victim.sender.ctl(&pair).fails(4, &["another receiver"]);
    assert_eq!(other.heard().calls, 0, "it was told the secret");
    // The invitation is still valid.
    let address = victim.receiver.address().to_string();
    let pair = ["pair", &address, "--name", "nas2", "--token", &token];
    victim.sender.ctl(&pair).success();
    victim.push_honestly();
    victim.end();
}

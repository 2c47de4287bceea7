//! A sender that pushes in bulk reaches its own limits, takes nothing from others, and makes the
//! receiver delete nothing.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::BTreeSet;
use std::fs;

use sendshot_adversary::hostile::World;
use sendshot_adversary::hostile::pushes::{VOLUME, VOLUME_ID};
use sendshot_adversary::hostile::scene::Scene;
use sendshot_adversary::hostile::sender::{self, Answer, HostileSender, Then};
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes;
use sendshot_harness::hosts::clock::Clock;
use sendshot_harness::hosts::pairing::pair;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_proto::v1;
use sendshot_proto::v1::replication_client::ReplicationClient;
use sendshot_proto::v1::transfer_down::Message as Down;
use sendshot_stream::Command;
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

const MIB: usize = 1 << 20;

/// Makes a receiver whose sender `nas1` has limits, and that sender with two volumes.
fn limited(limits: &str) -> (SenderHost, ReceiverHost) {
    let setup = SenderHost::setup().volume("photos", "photos");
    let sender = setup.volume("music", "music").start();
    let receiver = ReceiverHost::setup().make();
    let config = fs::read_to_string(receiver.config()).unwrap();
    fs::write(
        receiver.config(),
        format!("{config}\n[senders.nas1]\n{limits}\n"),
    )
    .unwrap();
    let mut receiver = receiver;
    receiver.daemon.start();
    pair(&sender, &receiver, "nas2");
    (sender, receiver)
}

/// Makes another sender of the same receiver, without limits.
fn another(receiver: &ReceiverHost) -> SenderHost {
    let other = SenderHost::new();
    let token = receiver.invite(&["other"]);
    let address = receiver.address().to_string();
    let arguments = ["pair", &address, "--name", "nas2", "--token", &token];
    other.ctl(&arguments).success();
    fill::file(other.photos().join("big"), 7, 20 * MIB);
    other
}

#[test]
fn a_sender_at_its_volume_limit_gets_no_further_one() {
    let (sender, receiver) = limited("max_volumes = 1");
    fill::tree(&sender.photos(), 1);
    sender.push("nas2:photos");
    let refused = sender.ctl(&["push", "nas2:music"]);
    refused.fails(4, &["reached a limit", "max_volumes"]);
    assert!(!receiver.root().join("nas1/music").exists());
    // Its existing volume can still be pushed.
    fs::write(sender.photos().join("new"), "new").unwrap();
    let pushed = sender.push("nas2:photos");
    assert_exact(&sender, &receiver, &pushed);
    let other = another(&receiver);
    assert_exact(&other, &receiver, &other.push("nas2:photos"));
}

#[test]
fn a_sender_at_its_byte_limit_keeps_its_copies() {
    let (sender, mut receiver) = limited("max_bytes = \"12 MiB\"");
    fill::file(sender.photos().join("big"), 1, 5 * MIB);
    let first = sender.push("nas2:photos");
    fill::file(sender.photos().join("big"), 2, 9 * MIB);
    let refused = sender.ctl(&["push", "nas2:photos"]);
    refused.fails(4, &["reached a limit", "max_bytes"]);
    // Another of its volumes does not bypass the limit.
    fill::file(sender.fs().join("music/big"), 3, 9 * MIB);
    sender.ctl(&["push", "nas2:music"]).fails(4, &["max_bytes"]);
    let copies = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
    assert_eq!(copies.len(), 1, "a copy came or went: {copies:?}");
    assert_eq!(copies[0]["uuid"], first["uuid"]);
    let partials = receiver.ctl(&["copy", "list", "--partials", "--json"]);
    assert!(
        partials.success().jsons().is_empty(),
        "space was kept for it"
    );
    let other = another(&receiver);
    assert_exact(&other, &receiver, &other.push("nas2:photos"));
    // The administrator raises the limit.
    let config = fs::read_to_string(receiver.config()).unwrap();
    fs::write(receiver.config(), config.replace("12 MiB", "120 MiB")).unwrap();
    receiver.daemon.stop();
    receiver.daemon.start();
    let pushed = sender.push("nas2:photos");
    assert_eq!(pushed["parent"], first["uuid"]);
    assert_exact(&sender, &receiver, &pushed);
}

#[test]
fn no_amount_of_pushing_makes_the_receiver_remove_anything() {
    let (sender, receiver) = limited("max_volumes = 2");
    let mut held = 0;
    for i in 0..8 {
        fs::write(sender.photos().join("file"), i.to_string()).unwrap();
        fs::write(sender.fs().join("music/file"), i.to_string()).unwrap();
        for volume in ["nas2:photos", "nas2:music"] {
            sender.push_with(
                volume,
                if i % 3 == 0 {
                    &["--parent", "none"]
                } else {
                    &[]
                },
            );
            held += 1;
            let copies = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
            assert_eq!(copies.len(), held, "a copy was removed: {copies:?}");
        }
    }
}

/// Attempts, with a stolen sender's key, to have older copies deleted: junk in new volumes and in the honest
/// one, with extreme dates, while the receiver's own clock jumps as well.
#[test]
fn odd_volumes_and_dates_delete_nothing() {
    const YEAR_ZERO: i64 = -62_167_219_200;
    const YEAR_10000: i64 = 253_402_300_800;
    const DATES: [i64; 8] = [
        i64::MIN,
        YEAR_ZERO - 1,
        -1,
        0,
        1_795_000_000,
        YEAR_10000 - 1,
        YEAR_10000,
        i64::MAX,
    ];
    let mut scene = Scene::new();
    let clock = Clock::new();
    let copies = |scene: &Scene| -> BTreeSet<(String, String)> {
        let all = subvolumes::list(scene.hosts.receiver.fs()).into_iter();
        let copies = all.filter(|s| s.path.starts_with("backup/nas"));
        copies.map(|s| (s.path, s.uuid)).collect()
    };
    let mut held = copies(&scene);
    let mut pushed = 0;
    for (round, offset) in ["+0", "+3y", "-12h"].into_iter().enumerate() {
        clock.set(offset);
        clock.of(&mut scene.hosts.receiver.daemon);
        scene.hostile = HostileSender::connect(&scene.hosts.sender, &scene.hosts.receiver, "nas2");
        for (number, taken_at) in DATES.into_iter().enumerate() {
            let junk = format!("junk-{round}-{number}");
            let id = [u8::try_from(8 * round + number).unwrap(); 16];
            for (id, volume) in [(id, junk.as_str()), (VOLUME_ID, VOLUME)] {
                let world = scene.world();
                let mut begin = sender::begin(&world, id, volume);
                begin.taken_at = taken_at;
                let messages = sender::whole(begin, &world.whole(&[]));
                match scene.hostile.push(messages, Then::Wait) {
                    Answer::Committed(_) => pushed += 1,
                    Answer::Failure(failure) => assert!(!failure.message.is_empty()),
                    other => panic!("{volume}, taken at {taken_at}: {other:?}"),
                }
                let now = copies(&scene);
                assert!(now.is_superset(&held), "{:?} went", held.difference(&now));
                held = now;
            }
        }
    }
    assert!(
        pushed >= 3 * 2 * 4,
        "only {pushed} were taken: the test is too weak"
    );
    clock.set("+0");
    clock.of(&mut scene.hosts.receiver.daemon);
    fs::write(scene.hosts.sender.photos().join("new"), "new").unwrap();
    let honest = scene.hosts.sender.push("nas2:photos");
    assert_exact(&scene.hosts.sender, &scene.hosts.receiver, &honest);
    assert!(copies(&scene).is_superset(&held));
}

/// Makes a stream of these commands, with its own UUID and ctransid.
fn stream(uuid: u128, ctransid: u64, commands: &[Command<'_>]) -> (World, Vec<u8>) {
    let world = World::empty(Uuid::from_u128(uuid), ctransid);
    let bytes = world.whole(commands);
    (world, bytes)
}

fn push(hostile: &HostileSender, (world, bytes): (World, Vec<u8>)) -> Answer {
    let mut begin = sender::begin(&world, VOLUME_ID, VOLUME);
    begin.transfer_id = Uuid::new_v4().as_bytes().to_vec();
    hostile.push(sender::whole(begin, &bytes), Then::Wait)
}

#[track_caller]
fn is_over(what: &str, answer: &Answer) {
    let over = v1::FailureCode::OverLimit as i32;
    assert!(
        matches!(answer, Answer::Failure(failure) if failure.code == over),
        "{what}: {answer:?}"
    );
}

fn write<'a>(path: &'a [u8], offset: u64, data: &'a [u8]) -> Command<'a> {
    Command::Write { path, offset, data }
}

/// Makes a file `f` with this content, in writes that a stream can hold.
fn file_of(data: &[u8]) -> Vec<Command<'_>> {
    let pieces = data.chunks(MIB / 2).enumerate();
    let writes = pieces.map(|(n, piece)| write(b"f", (n * MIB / 2) as u64, piece));
    [Command::Mkfile { path: b"f" }]
        .into_iter()
        .chain(writes)
        .collect()
}

/// Doubles `many` by clones of its beginning up to this length: no data is copied.
fn doubled(uuid: u128, from: u64, to: u64) -> Vec<Command<'static>> {
    let lengths = std::iter::successors(Some(from), |len| Some(len * 2));
    let clone = |len| clone(uuid, (b"many", 0), (b"many", len), len);
    lengths.take_while(|len| *len < to).map(clone).collect()
}

fn clone<'a>(uuid: u128, from: (&'a [u8], u64), to: (&'a [u8], u64), len: u64) -> Command<'a> {
    Command::Clone {
        path: to.0,
        offset: to.1,
        len,
        clone_uuid: Uuid::from_u128(uuid),
        clone_ctransid: 1,
        clone_path: from.0,
        clone_offset: from.1,
    }
}

/// A few commands can make much data, which counts like the content of the stream.
#[test]
fn data_made_by_a_stream_counts_like_its_content() {
    const NOCOW: u64 = 1 << 1;
    let (honest, receiver) = limited("max_bytes = \"6 MiB\"");
    let hostile = HostileSender::connect(&honest, &receiver, "nas2");
    let (block, half) = (vec![7; 4096], vec![8; MIB / 2]);
    let file = |path| Command::Mkfile { path };
    let fallocate = Command::Fallocate {
        path: b"many",
        mode: 0,
        offset: 0,
        len: 100 << 20,
    };
    let bytes = (0..2000).map(|n| write(b"many", n * 8192, b"x"));
    let shared = doubled(3, 4096, 1 << 30);
    let flags = Command::Fileattr {
        path: b"nocow",
        flags: NOCOW,
    };
    let copied = clone(4, (b"many", 0), (b"nocow", 0), 32 << 20);
    let nocow = [
        file(b"nocow"),
        flags,
        file(b"many"),
        write(b"many", 0, &half),
    ];
    let few = [file(b"many"), write(b"many", 0, &block)];
    let tricks = [
        ("allocated", vec![file(b"many"), fallocate]),
        (
            "a byte a block",
            [file(b"many")].into_iter().chain(bytes).collect(),
        ),
        ("shared", [&few[..], &shared].concat()),
        (
            "copied",
            [&nocow[..], &doubled(4, MIB as u64 / 2, 32 << 20), &[copied]].concat(),
        ),
    ];
    for (number, (name, commands)) in tricks.iter().enumerate() {
        let stream = stream(number as u128 + 1, 1, commands);
        println!("{name}: {} bytes", stream.1.len());
        assert!(stream.1.len() < 2 * MIB, "{name}: it holds too much itself");
        is_over(name, &push(&hostile, stream));
    }
    let copies = receiver.ctl(&["copy", "list", "--json"]).success();
    assert!(copies.jsons().is_empty());
    // Refused data does not count.
    fill::file(honest.photos().join("big"), 1, 5 * MIB);
    honest.push("nas2:photos");
}

#[test]
fn states_under_one_uuid_count_each_and_are_not_too_many() {
    let (honest, receiver) = limited("max_bytes = \"4 MiB\"");
    let hostile = HostileSender::connect(&honest, &receiver, "nas2");
    let data = fill::noise(1, 3 * MIB / 2);
    let big = file_of(&data);
    for ctransid in [1, 2] {
        let answer = push(&hostile, stream(9, ctransid, &big));
        assert!(matches!(answer, Answer::Committed(_)), "{answer:?}");
        // A small state does not replace the size of the big one.
        let answer = push(&hostile, stream(9, ctransid + 10, &[]));
        assert!(matches!(answer, Answer::Committed(_)), "{answer:?}");
    }
    is_over("the third", &push(&hostile, stream(9, 3, &big)));

    let (honest, receiver) = limited("max_volumes = 5");
    let hostile = HostileSender::connect(&honest, &receiver, "nas2");
    for ctransid in 1..=64 {
        let answer = push(&hostile, stream(9, ctransid, &[]));
        assert!(matches!(answer, Answer::Committed(_)), "{answer:?}");
    }
    is_over("one too many", &push(&hostile, stream(9, 65, &[])));
    let answer = push(&hostile, stream(10, 1, &[]));
    assert!(matches!(answer, Answer::Committed(_)), "{answer:?}");
}

#[test]
fn pushes_that_began_together_do_not_each_get_what_is_left() {
    let (honest, receiver) = limited("max_bytes = \"4 MiB\"\nmax_partials = 8");
    let hostile = HostileSender::connect(&honest, &receiver, "nas2");
    let data = fill::noise(1, 3 * MIB / 2);
    let commands = file_of(&data);
    let pushes = (0..5u8).map(|n| {
        let (world, bytes) = stream(100 + u128::from(n), 1, &commands);
        let begin = sender::begin(&world, [n; 16], &format!("volume-{n}"));
        sender::whole(begin, &bytes)
    });
    let committed = hostile.call(|channel| async move {
        let mut client = ReplicationClient::new(channel);
        let mut begun = Vec::new();
        for messages in pushes {
            let (queue, queued) = tokio::sync::mpsc::channel(messages.len());
            let mut messages = messages.into_iter();
            queue.send(messages.next().unwrap()).await.unwrap();
            let answers = client.transfer(ReceiverStream::new(queued)).await.unwrap();
            let mut answers = answers.into_inner();
            // One sender has only some of the turns; the pushes before give up theirs, since they send nothing.
            let accepted = loop {
                match answers.message().await.unwrap().unwrap().message {
                    Some(Down::Waiting(_)) => {}
                    other => break other,
                }
            };
            assert!(matches!(accepted, Some(Down::Accepted(_))), "{accepted:?}");
            begun.push((messages, queue, answers));
        }
        let mut committed = 0;
        for (messages, queue, mut answers) in begun {
            for message in messages {
                // The push may have been refused before its end.
                let _ = queue.send(message).await;
            }
            while let Ok(Some(answer)) = answers.message().await {
                committed += u32::from(matches!(answer.message, Some(Down::Committed(_))));
            }
        }
        committed
    });
    assert_eq!(committed, 2, "1.5 MiB each, of 4");
}

#[test]
fn a_revoked_sender_commits_nothing_more() {
    let (honest, receiver) = limited("max_volumes = 5");
    let hostile = HostileSender::connect(&honest, &receiver, "nas2");
    let block = vec![7; 4096];
    let few = [Command::Mkfile { path: b"many" }, write(b"many", 0, &block)];
    // Applying this takes seconds.
    let commands = [&few[..], &doubled(3, 4096, 1 << 30)].concat();
    let (world, bytes) = stream(3, 1, &commands);
    let messages = sender::whole(sender::begin(&world, VOLUME_ID, VOLUME), &bytes);
    let in_staging = || {
        let all = subvolumes::list(receiver.fs()).into_iter();
        all.filter(|s| s.path.contains("/push-")).count()
    };
    std::thread::scope(|scope| {
        let push = scope.spawn(|| hostile.push(messages, Then::Wait));
        until::holds("it is being applied", || in_staging() == 1);
        std::thread::sleep(std::time::Duration::from_millis(300));
        receiver.ctl(&["peer", "revoke", "nas1"]).success();
        assert_eq!(
            in_staging(),
            1,
            "it was over too soon: the test is too weak"
        );
        let answer = push.join().unwrap();
        assert!(!matches!(answer, Answer::Committed(_)), "{answer:?}");
    });
    until::holds("staging is gone", || in_staging() == 0);
    let copies = receiver.ctl(&["copy", "list", "--json"]).success();
    assert!(copies.jsons().is_empty(), "it was committed all the same");
}

/// Leftovers of an earlier push are discarded for a new one of the volume, and do not count against it.
#[test]
fn a_restarted_push_has_the_space_of_the_one_before() {
    let (honest, mut receiver) = limited("max_bytes = \"12 MiB\"");
    let config = fs::read_to_string(receiver.config()).unwrap();
    let often = "checkpoint_bytes = \"1 MiB\"\ncheckpoint_interval = \"0s\"\n";
    fs::write(receiver.config(), format!("{often}{config}")).unwrap();
    receiver.daemon.stop();
    receiver.daemon.start();
    let hostile = HostileSender::connect(&honest, &receiver, "nas2");
    let data = fill::noise(1, 8 * MIB);
    let (world, _) = stream(5, 1, &[]);
    let pieces = world.pieces(&file_of(&data));
    let (segments, _) = sender::pieces(&pieces[..pieces.len() - 1]);
    let mut begin = sender::begin(&world, VOLUME_ID, VOLUME);
    begin.resumable = true;
    let messages = sender::said(begin, segments, []);
    hostile.push(messages, Then::HangUp(std::time::Duration::from_secs(2)));
    // After the restart only the data on disk is left of it.
    receiver.daemon.stop();
    receiver.daemon.start();
    let partials = receiver.ctl(&["copy", "list", "--partials", "--json"]);
    let partials = partials.success().jsons();
    assert_eq!(partials.len(), 1, "{partials:?}");
    let hostile = HostileSender::connect(&honest, &receiver, "nas2");
    // Another volume has no room left, and leftovers of its push are kept as well.
    fill::file(honest.photos().join("big"), 1, 5 * MIB);
    let refused = honest.ctl(&["push", "nas2:photos"]);
    refused.fails(4, &["max_bytes"]);
    let data = fill::noise(2, 7 * MIB);
    let answer = push(&hostile, stream(6, 1, &file_of(&data)));
    assert!(matches!(answer, Answer::Committed(_)), "{answer:?}");
}

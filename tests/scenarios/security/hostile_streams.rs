//! Streams of a hostile sender: each is refused or harmless, and changes nothing outside staging.
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use sendshot_adversary::hostile::pushes::{PUSHES, VOLUME, VOLUME_ID};
use sendshot_adversary::hostile::scene::Scene;
use sendshot_adversary::hostile::sender::{self, Answer, HostileSender, Then};
use sendshot_adversary::hostile::{Expect, World, corpus, filling};
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_proto::v1::{FailureCode, InventoryRequest, ResumePoint};
use sendshot_stream::Command;
use tonic::Code;

/// Number of tricks between two honest pushes.
const BETWEEN: usize = 20;

#[test]
fn every_trick_is_refused_or_harmless_and_touches_nothing() {
    let tricks = corpus();
    let names: BTreeSet<_> = tricks.iter().map(|trick| trick.name).collect();
    assert_eq!(names.len(), tricks.len(), "two tricks have one name");
    for expect in [Expect::Refused, Expect::Harmless, Expect::RefusedByDaemon] {
        let count = tricks.iter().filter(|t| t.expect == expect).count();
        println!("{expect:?}: {count} tricks");
    }
    let mut scene = Scene::new();
    for some in tricks.chunks(BETWEEN) {
        for trick in some {
            scene.play(trick);
        }
        scene.push_honestly();
    }
    scene.end();
}

#[test]
fn every_trick_around_a_stream_is_refused_or_harmless() {
    let names: BTreeSet<_> = PUSHES.iter().map(|trick| trick.name).collect();
    assert_eq!(names.len(), PUSHES.len(), "two tricks have one name");
    println!("{} tricks", PUSHES.len());
    let mut scene = Scene::new();
    for some in PUSHES.chunks(BETWEEN) {
        for trick in some {
            scene.play_push(trick);
        }
        scene.push_honestly();
    }
    scene.end();
}

/// A sender that knows the id of another sender's transfer can neither end nor take it over.
#[test]
fn another_sender_s_transfer_is_out_of_reach() {
    const PAUSE: Duration = Duration::from_secs(2);
    let mut scene = Scene::new();
    let victim = HostileSender::connect(&scene.other, &scene.hosts.receiver, "nas2");
    let (theirs, ours) = (scene.world(), scene.world());
    let messages = |world: &World, id| {
        let mut begin = sender::begin(world, VOLUME_ID, VOLUME);
        begin.transfer_id = id;
        sender::whole(begin, &world.whole(&[]))
    };
    let id = theirs.uuid.as_bytes().to_vec();
    let their_push = messages(&theirs, id.clone());
    let running = thread::spawn(move || victim.push_pausing(their_push, Then::Wait, PAUSE));
    thread::sleep(PAUSE / 4);

    assert!(seen(&scene.hostile, &id).is_empty());
    let answer = scene.hostile.push(messages(&ours, id), Then::Wait);
    println!("{answer:?}");
    assert!(!running.is_finished(), "the other sender's push was ended");
    let answer = running.join().unwrap();
    assert!(
        matches!(answer, Answer::Committed(_)),
        "the other sender's push was spoilt: {answer:?}"
    );
    scene.look_but("another sender's transfer", of_the_other_sender);
    scene.end();
}

/// It cannot discard, see or resume an interrupted transfer of another sender, either.
#[test]
fn another_sender_s_partial_is_out_of_reach() {
    let mut scene = Scene::new();
    let victim = HostileSender::connect(&scene.other, &scene.hosts.receiver, "nas2");
    let (theirs, ours) = (scene.world(), scene.world());
    let id = theirs.uuid.as_bytes().to_vec();
    let stream = theirs.whole(&[]);
    // The end is a command of ten bytes: both segments end between commands.
    let (mut segments, end) = sender::segments(&stream, stream.len() - 10);
    segments[0].marked = true;
    let last = segments.pop().unwrap();
    let mut begin = sender::begin(&theirs, VOLUME_ID, VOLUME);
    begin.resumable = true;
    let half = sender::said(begin.clone(), segments, []);
    victim.push(half, Then::HangUp(Duration::from_millis(500)));
    let points = until::some("its partial is offered", || {
        let points = seen(&victim, &id);
        (!points.is_empty()).then_some(points)
    });

    assert!(
        seen(&scene.hostile, &id).is_empty(),
        "it is offered to others"
    );
    for resume_at in [None, Some(points[0].clone())] {
        let mut begin = sender::begin(&ours, VOLUME_ID, VOLUME);
        begin.transfer_id.clone_from(&id);
        begin.resumable = true;
        let stolen = resume_at.is_some();
        begin.resume_at = resume_at;
        let push = if stolen {
            sender::said(begin, [last.clone()], [end.clone()])
        } else {
            sender::whole(begin, &ours.whole(&[]))
        };
        let answer = scene.hostile.push(push, Then::Wait);
        println!("{answer:?}");
        let committed = matches!(answer, Answer::Committed(_));
        assert!(!stolen || !committed, "it resumed another's push");
        let now = seen(&victim, &id);
        assert_eq!(now, points, "another sender's partial was spoilt");
    }
    begin.resume_at = Some(points[0].clone());
    let rest = sender::said(begin, [last], [end]);
    let answer = victim.push(rest, Then::Wait);
    assert!(
        matches!(answer, Answer::Committed(_)),
        "the other sender cannot go on: {answer:?}"
    );
    scene.look_but("another sender's partial", of_the_other_sender);
    scene.end();
}

/// It cannot reach the checkpoints that survive a restart of the receiver, either.
#[test]
fn another_sender_s_checkpoint_is_out_of_reach() {
    const WRITES: u64 = 560; // of 128 KiB: some more than lies between two checkpoints
    let mut scene = Scene::new();
    let connect = |scene: &Scene| {
        [&scene.hosts.sender, &scene.other]
            .map(|sender| HostileSender::connect(sender, &scene.hosts.receiver, "nas2"))
    };
    let (theirs, ours) = (scene.world(), scene.world());
    let id = theirs.uuid.as_bytes().to_vec();
    let noise = fill::noise(6, 128 << 10);
    let write = |number: u64| Command::Write {
        path: b"big",
        offset: number << 17,
        data: &noise,
    };
    let mut commands = vec![Command::Mkfile { path: b"big" }];
    commands.extend((0..WRITES).map(write));
    let (segments, end) = sender::pieces(&theirs.pieces(&commands));
    let mut begin = sender::begin(&theirs, VOLUME_ID, VOLUME);
    begin.resumable = true;

    let [_, victim] = connect(&scene);
    let most = segments.len() - 2;
    let half = sender::said(begin.clone(), segments[..most].to_vec(), []);
    let long_enough = Duration::from_secs(3);
    let answer = victim.hang_up_pausing(half, long_enough);
    println!("{answer:?}");
    scene.hosts.receiver.daemon.stop();
    scene.hosts.receiver.daemon.start();

    let [hostile, victim] = connect(&scene);
    let points = seen(&victim, &id);
    assert!(!points.is_empty(), "there is no checkpoint");
    assert!(seen(&hostile, &id).is_empty(), "it is offered to others");
    let mut stolen = sender::begin(&ours, VOLUME_ID, VOLUME);
    stolen.transfer_id.clone_from(&id);
    stolen.resumable = true;
    stolen.resume_at = Some(points[0].clone());
    let answer = hostile.push(sender::said(stolen.clone(), [], []), Then::Close);
    println!("{answer:?}");
    assert!(!matches!(answer, Answer::Committed(_)));
    assert_eq!(seen(&victim, &id), points, "the checkpoint was spoilt");
    stolen.resume_at = None;
    for resumable in [true, false] {
        stolen.resumable = resumable;
        let half = sender::whole(stolen.clone(), &ours.whole(&[])[..40]);
        println!("{:?}", hostile.push(half, Then::Wait));
        assert_eq!(seen(&victim, &id), points, "the checkpoint was spoilt");
    }
    let answer = hostile.push(sender::whole(stolen, &ours.whole(&[])), Then::Wait);
    println!("{answer:?}");
    assert_eq!(seen(&victim, &id), points, "the checkpoint was spoilt");

    let rest = segments.into_iter();
    let rest = rest.filter(|segment| segment.offset >= points[0].offset);
    begin.resume_at = Some(points[0].clone());
    let answer = victim.push(sender::said(begin, rest, [end]), Then::Wait);
    let Answer::Committed(committed) = answer else {
        panic!("the other sender cannot go on: {answer:?}");
    };
    let copy = scene.root().join(committed.directory).join(committed.name);
    let big = fs::read(copy.join("big")).unwrap();
    assert!(big.chunks(128 << 10).all(|chunk| chunk == noise));
    assert_eq!(big.len() as u64, WRITES << 17);
    scene.look_but("another sender's checkpoint", of_the_other_sender);
    scene.end();
}

/// Inventory requests for volumes with invalid names or ids, or of other senders.
#[test]
fn questions_find_nothing_of_others() {
    let mut scene = Scene::new();
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "../nas3/photos",
        ".sendshot-staging",
        "a\0b",
    ] {
        let answer = scene.hostile.inventory(InventoryRequest {
            volume_id: VOLUME_ID.to_vec(),
            volume_name: name.into(),
            transfer_id: Vec::new(),
        });
        let status = answer.expect_err(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
    }
    for (id, transfer) in [
        (0, 0),
        (15, 0),
        (17, 0),
        (16, 15),
        (4_000_000, 0),
        (16, 4_000_000),
    ] {
        let answer = scene.hostile.inventory(InventoryRequest {
            volume_id: vec![7; id],
            volume_name: VOLUME.into(),
            transfer_id: vec![7; transfer],
        });
        let status = answer.expect_err("an id of a wrong length is taken");
        let typed = [
            Code::InvalidArgument,
            Code::OutOfRange,
            Code::ResourceExhausted,
        ];
        assert!(
            typed.contains(&status.code()),
            "{id}, {transfer}: {status:?}"
        );
    }
    let victim = HostileSender::connect(&scene.other, &scene.hosts.receiver, "nas2");
    for name in [VOLUME, "photos"] {
        let held = victim.inventory(InventoryRequest {
            volume_id: VOLUME_ID.to_vec(),
            volume_name: name.into(),
            transfer_id: Vec::new(),
        });
        let held = held.unwrap();
        assert!(held.copies.is_empty(), "it sees another sender's: {held:?}");
    }
    scene.look("questions");
    scene.end();
}

/// Clones of holes do not fill the disk that other senders need, even where the kernel cannot clone.
#[test]
fn a_clone_of_a_hole_fills_no_disk() {
    let mut scene = Scene::new();
    for trick in filling() {
        let world = scene.world();
        let bytes = (trick.stream)(&world);
        let begin = sender::begin(&world, VOLUME_ID, VOLUME);
        let answer = scene.hostile.push(sender::whole(begin, &bytes), Then::Wait);
        let what = format!("{}, {} bytes", trick.name, bytes.len());
        scene.judge(&what, true, &answer);
        if matches!(&answer, Answer::Failure(f) if f.code() == FailureCode::NoSpace) {
            scene.problems.push(format!("{what}: the disk is full"));
        }
    }
    scene.look("clones of holes");
    assert!(scene.problems.is_empty(), "{:#?}", scene.problems);
    scene.end();
}

/// Hundreds of pushes that are begun and never continued take no resources from others.
#[test]
fn begun_pushes_block_no_other() {
    const PUSHES: u8 = 200;
    let mut scene = Scene::new();
    let begun = (0..PUSHES).map(|number| {
        let world = scene.world();
        let begin = sender::begin(&world, [number; 16], &format!("idle-{number}"));
        sender::said(begin, [], [])
    });
    let begun: Vec<_> = begun.collect();
    let Scene {
        ref hostile,
        ref hosts,
        ref other,
        ..
    } = scene;
    hostile.hang_up(begun, Duration::from_secs(1), || {
        for honest in [&hosts.sender, other] {
            fill::file(honest.photos().join("meanwhile"), 5, 100_000);
            let pushed = honest.push("nas2:photos");
            assert_exact(honest, &hosts.receiver, &pushed);
        }
    });
    scene.look_but("pushes that are only begun", |change| {
        let begun = change.contains("backup/nas1/idle-") || change.contains("backup/nas1\" was");
        begun || change.contains("/photos")
    });
    scene.end();
}

/// Returns the points at which a sender is offered to resume a transfer.
fn seen(by: &HostileSender, transfer: &[u8]) -> Vec<ResumePoint> {
    let inventory = by.inventory(InventoryRequest {
        volume_id: VOLUME_ID.to_vec(),
        volume_name: VOLUME.into(),
        transfer_id: transfer.to_vec(),
    });
    let partials = inventory.unwrap().partials.into_iter();
    partials
        .filter(|partial| partial.transfer_id == transfer)
        .flat_map(|partial| partial.points)
        .collect()
}

/// Whether a change is a new directory for the other sender's volume.
fn of_the_other_sender(change: &str) -> bool {
    change.contains("backup/nas3/hostile") && change.contains(" is new")
        || change.contains("backup/nas3\" was")
}

/// The other tests rely on this.
#[test]
fn the_watch_sees_what_is_touched() {
    let mut scene = Scene::new();
    let canary = scene.hosts.receiver.fs().join("canary");
    let copy = scene.root().join("nas1/photos");
    let touches: [(&str, &dyn Fn()); 4] = [
        ("content", &|| {
            fs::write(canary.join("victim"), "x").unwrap()
        }),
        ("a new file", &|| {
            fs::write(canary.join("dir/new"), "").unwrap()
        }),
        ("a removed file", &|| {
            fs::remove_file(canary.join("dir/new")).unwrap()
        }),
        ("a subvolume", &|| {
            streams::create(&copy.join("new")).unwrap()
        }),
    ];
    for (count, (what, touch)) in touches.iter().enumerate() {
        touch();
        scene.look(what);
        assert_eq!(scene.problems.len(), count + 1, "{what} goes unseen");
    }
}

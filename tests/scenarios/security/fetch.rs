//! A lying receiver in a fetch: what it sends is refused by name, or listed; nothing but the target is touched, and no
//! staging stays.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sendshot_adversary::hostile::trick::Held;
use sendshot_adversary::hostile::{Expect, World, corpus, filling};
use sendshot_adversary::lying_peer::LyingPeer;
use sendshot_adversary::lying_peer::watch::Watch;
use sendshot_harness::compare::exact::{Reference, assert_same};
use sendshot_harness::disks::streams;
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::command::{Output, tool};
use sendshot_harness::hosts::pairing::{Linked, pair_at};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;
use sendshot_proto::chain::Chain;
use sendshot_proto::v1::fetch_response::Message;
use sendshot_proto::v1::{End, FetchResponse, FetchedSegment, Segment, Started};
use sendshot_stream::{Command, Encoder, Version};
use tempfile::TempDir;
use uuid::Uuid;

/// Usual length of a segment.
const SEGMENT: usize = 256 * 1024;
/// Length of the last command of a stream.
const END: usize = 10;
/// Longest time without progress.
const STALL_AFTER: Duration = Duration::from_secs(2);

/// The hosts, files that must not change, and the honest stream.
struct Scene {
    hosts: Linked,
    outside: TempDir,
    world: World,
    honest: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let keys = format!(
            "retry_for = \"0s\"\nstall_after = \"{}s\"",
            STALL_AFTER.as_secs()
        );
        // Deleted subvolumes are freed after a commit, which comes every second.
        let sender = SenderHost::setup().mount("commit=1").keys(&keys);
        let sender = sender.volume("photos", "photos");
        let (sender, receiver) = (sender.start(), ReceiverHost::new());
        let link = Link::to(receiver.address());
        pair_at(&sender, &receiver, "nas2", link.address());
        fill::tree(&sender.photos(), 1);
        fill::file(sender.photos().join("big"), 2, 24 << 20);
        let pushed = sender.push("nas2:photos");
        let grant = ["peer", "grant", "nas1", "--for", "24h"];
        receiver.ctl(&grant).success();
        let outside = tempfile::tempdir().unwrap();
        let inside = sender.fs().join("inside");
        for dir in [&inside, outside.path()] {
            fs::create_dir_all(dir.join("dir")).unwrap();
            fs::write(dir.join("victim"), "untouched").unwrap();
        }
        let held = |number| Held {
            uuid: Uuid::from_u128(number),
            ctransid: 7,
        };
        let copy = fs::File::open(receiver.copy(&pushed)).unwrap();
        let world = World {
            uuid: pushed["uuid"].as_str().unwrap().parse().unwrap(),
            ctransid: sendshot_sys::subvolume::info(&copy).unwrap().stransid,
            inside,
            outside: outside.path().to_owned(),
            own: held(1),
            other_volume: held(2),
            other_sender: held(3),
        };
        let hosts = Linked {
            sender,
            link,
            receiver,
        };
        let mut scene = Self {
            hosts,
            outside,
            world,
            honest: Vec::new(),
        };
        scene.honest = scene.recorded();
        scene
    }

    /// Records the stream of an honest restore, and deletes the restored subvolume.
    fn recorded(&self) -> Vec<u8> {
        let stream = Arc::new(Mutex::new(Vec::new()));
        let recorder = Arc::clone(&stream);
        let restored = self.restore(&[], move |message| {
            if let Some(Message::Segment(fetched)) = &message.message {
                let data = &fetched.segment.as_ref().unwrap().data;
                recorder.lock().unwrap().extend_from_slice(data);
            }
            vec![message]
        });
        restored.success();
        let snapshot = Reference::of(self.hosts.sender.fs(), &self.target());
        assert_same(&self.hosts.sender.photos(), snapshot.path());
        streams::delete(&self.target()).unwrap();
        stream.lock().unwrap().clone()
    }

    fn target(&self) -> PathBuf {
        self.hosts.sender.fs().join("new")
    }

    fn restore(
        &self,
        options: &[&str],
        twist: impl FnMut(FetchResponse) -> Vec<FetchResponse> + Send + 'static,
    ) -> Output {
        let Linked {
            sender,
            link,
            receiver,
        } = &self.hosts;
        let peer = LyingPeer::twisting(sender, receiver, "nas2", twist);
        link.aim(peer.address());
        let target = self.target();
        let mut arguments = vec!["--json", "--retry-for", "0s", "nas2:photos"];
        arguments.extend(options);
        arguments.push(target.to_str().unwrap());
        sender.restore(&arguments)
    }

    /// Restores from a receiver that sends these messages.
    fn said(&self, options: &[&str], messages: Vec<FetchResponse>) -> Output {
        let mut messages = Some(messages);
        self.restore(options, move |_| messages.take().unwrap_or_default())
    }

    fn watch(&self) -> Watch {
        let fs = self.hosts.sender.fs();
        let (own, top) = (fs.join(".sendshot"), fs.to_owned());
        Watch::of(fs, &[self.outside.path()], &[&top, &own])
    }

    /// A restore that must be refused with this exit code and text, and leave nothing.
    #[track_caller]
    fn refused(&self, what: &str, code: i32, text: &str, messages: Vec<FetchResponse>) {
        let before = self.watch();
        let output = self.said(&[], messages);
        println!("{what}: {}", output.stderr.trim());
        output.fails(code, &[text]);
        self.assert_untouched(what, &before);
    }

    #[track_caller]
    fn assert_untouched(&self, what: &str, before: &Watch) {
        assert!(!self.target().exists(), "{what}: there is a target");
        let changes = before.changes(&self.watch());
        assert!(changes.is_empty(), "{what}: TOUCHED {changes:#?}");
    }

    /// Its honest stream with further commands before the end.
    fn and(&self, commands: &[Command<'_>]) -> Vec<u8> {
        let (stream, end) = self.honest.split_at(self.honest.len() - END);
        let mut all = stream.to_vec();
        for command in commands {
            Encoder::new(Version::V2)
                .command(command, &mut all)
                .unwrap();
        }
        all.extend(end);
        all
    }
}

fn started(length: u64) -> FetchResponse {
    message(Message::Started(Started {
        length,
        ..Started::default()
    }))
}

fn message(message: Message) -> FetchResponse {
    FetchResponse {
        message: Some(message),
    }
}

fn segment(offset: u64, data: &[u8], chain: Chain) -> FetchResponse {
    message(Message::Segment(FetchedSegment {
        segment: Some(Segment {
            offset,
            data: data.to_vec().into(),
            chain: chain.0.to_vec(),
            marked: false,
        }),
        skeleton: vec![7; 32],
    }))
}

fn end(length: u64, chain: Chain) -> FetchResponse {
    message(Message::End(End {
        length,
        chain: chain.0.to_vec(),
    }))
}

/// The messages for a stream, with right chain values.
fn told(stream: &[u8]) -> Vec<FetchResponse> {
    let (mut chain, mut offset) = (Chain::default(), 0);
    let mut all = vec![started(stream.len() as u64)];
    for data in stream.chunks(SEGMENT) {
        chain = chain.extend(data);
        all.push(segment(offset, data, chain));
        offset += data.len() as u64;
    }
    all.push(end(offset, chain));
    all
}

fn whole_chain(stream: &[u8]) -> Chain {
    let pieces = stream.chunks(SEGMENT);
    pieces.fold(Chain::default(), |chain, data| chain.extend(data))
}

#[test]
fn another_length_than_announced_is_refused() {
    let scene = Scene::new();
    let (honest, length) = (told(&scene.honest), scene.honest.len() as u64);
    let with = |at: usize, other: FetchResponse| {
        let mut all = honest.clone();
        all[at] = other;
        all
    };
    let last = honest.len() - 1;
    let chain = whole_chain(&scene.honest);
    scene.refused(
        "more bytes",
        1,
        "it sends more than the",
        with(0, started(length - 1)),
    );
    scene.refused(
        "an end beyond the length",
        1,
        "are not the data that were sent",
        with(last, end(length + 1, chain)),
    );
    scene.refused(
        "fewer bytes",
        1,
        &format!("it sends {length} bytes and announced"),
        with(0, started(length + 1)),
    );
    scene.refused("nothing announced", 1, "the 0 bytes", with(0, started(0)));
    let nothing = vec![started(0), end(0, Chain::default())];
    scene.refused("nothing at all", 1, "stream", nothing);
    scene.refused(
        "more than the disk has",
        1,
        "are free at",
        with(0, started(1 << 50)),
    );
    let output = scene.said(&[], with(0, started(1 << 50)));
    output.fails(1, &["the copy needs 1.0 PiB, and only ", "MiB are free"]);
    scene.refused(
        "the length twice",
        1,
        "it began twice",
        [&honest[..2], &honest[..]].concat(),
    );
    scene.refused(
        "no length",
        1,
        "does not begin with the length",
        honest[1..].to_vec(),
    );
}

#[test]
fn segments_that_do_not_fit_are_refused() {
    let scene = Scene::new();
    let honest = told(&scene.honest);
    let mut swapped = honest.clone();
    swapped.swap(2, 3);
    scene.refused("out of order", 1, "a segment begins at", swapped);
    let mut flipped = scene.honest.clone();
    flipped[SEGMENT + 77] ^= 4;
    let mut other_data = honest.clone();
    let chain = scene.honest[..SEGMENT].to_vec();
    let chain = Chain::default().extend(&chain);
    let chain = chain.extend(&scene.honest[SEGMENT..2 * SEGMENT]);
    other_data[2] = segment(SEGMENT as u64, &flipped[SEGMENT..2 * SEGMENT], chain);
    scene.refused(
        "a flipped bit",
        1,
        "are not the data that were sent",
        other_data,
    );
    scene.refused("a flipped bit, hashed", 1, "checksum", told(&flipped));
}

#[test]
fn another_tree_is_refused_or_listed() {
    let scene = Scene::new();
    let other = World {
        uuid: Uuid::from_u128(9),
        ..scene.world.clone()
    };
    let text = "another subvolume than the requested copy";
    scene.refused("another volume", 1, text, told(&other.whole(&[])));
    let text = "is missing";
    let tree = told(&scene.world.whole(&[]));
    scene.refused("another tree under the right id", 1, text, tree);
    let missing = scene.and(&[Command::Unlink { path: b"big" }]);
    scene.refused("a missing file", 1, "big is missing", told(&missing));
    let planted = [
        Command::Mkfile { path: b"planted" },
        Command::Chmod {
            path: b"planted",
            mode: 0o4755,
        },
    ];
    let planted = told(&scene.and(&planted));
    let text = "differs from this host's own sendshot";
    scene.refused("a planted file", 1, text, planted.clone());

    let forgotten =
        scene
            .hosts
            .sender
            .ctl(&["forget", "nas2:photos", "--all", "--yes", "--break-chain"]);
    forgotten.success();
    let restored = scene.said(&[], planted).success().json();
    assert_eq!(restored["checked"]["own_sendshot"], false);
    assert_eq!(restored["checked"]["set_id"][0], "planted", "{restored}");
}

#[test]
fn an_endless_answer_ends_at_the_stall_time_out() {
    let scene = Scene::new();
    let before = scene.watch();
    let honest = scene.honest.clone();
    let (mut chain, mut offset) = (Chain::default(), 0);
    // One byte now and then is an answer, and no progress.
    let slow = scene.restore(&[], move |message| {
        if let Some(Message::Started(_)) = &message.message {
            return vec![message];
        }
        thread::sleep(STALL_AFTER / 10);
        let byte = &honest[offset..=offset];
        chain = chain.extend(byte);
        offset += 1;
        vec![segment(offset as u64 - 1, byte, chain)]
    });
    println!("slow: {}", slow.stderr);
    slow.fails(3, &["made no progress for 2.0 s"]);
    scene.assert_untouched("slow", &before);

    let link = &scene.hosts.link;
    link.aim(scene.hosts.receiver.address());
    link.set_after(Way::Down, 2 << 20, Rule::Stall);
    let target = scene.target();
    let arguments = ["--retry-for", "0s", "nas2:photos", target.to_str().unwrap()];
    let silent = scene.hosts.sender.restore(&arguments);
    link.mend();
    println!("silent: {}", silent.stderr);
    silent.fails(3, &["made no progress for 2.0 s"]);
    scene.assert_untouched("silent", &before);

    let length = scene.honest.len() as u64;
    for (what, other) in [
        ("an empty message", FetchResponse { message: None }),
        ("an empty segment", segment(0, b"", Chain::default())),
    ] {
        let mut all = vec![started(length)];
        all.extend(vec![other; 100_000]);
        scene.refused(what, 1, "the receiver", all);
    }
}

#[test]
fn a_stream_that_allocates_more_than_is_free_fills_no_disk() {
    let scene = Scene::new();
    let allocate = |len| Command::Fallocate {
        path: b"f",
        mode: 0,
        offset: 0,
        len,
    };
    // Deleted subvolumes are freed in the background.
    let free = || {
        let fs = scene.hosts.sender.fs();
        let wait = ["subvolume".as_ref(), "sync".as_ref(), fs.as_os_str()];
        tool("btrfs", &wait);
        let fs = rustix::fs::statvfs(fs).unwrap();
        fs.f_bavail * fs.f_frsize
    };
    let before = free();
    let small = 100 << 20;
    let bombs = [
        ("one allocation", vec![allocate(1 << 40)]),
        (
            "many allocations",
            (0..64)
                .map(|number| Command::Fallocate {
                    path: b"f",
                    mode: 0,
                    offset: number * small,
                    len: small,
                })
                .collect(),
        ),
    ];
    for (what, commands) in bombs {
        let commands = [vec![Command::Mkfile { path: b"f" }], commands].concat();
        let text = "more than";
        scene.refused(what, 1, text, told(&scene.world.whole(&commands)));
        free();
    }
    for trick in filling() {
        let output = scene.said(
            &["--accept-differences"],
            told(&(trick.stream)(&scene.world)),
        );
        println!("{}: {} {}", trick.name, output.code, output.stderr.trim());
        if output.code == 0 {
            streams::delete(&scene.target()).unwrap();
        }
    }
    let after = free();
    assert!(
        after + (16 << 20) > before,
        "{before} were free, now {after}"
    );
}

#[test]
fn every_hostile_stream_is_refused_or_stays_in_the_target() {
    let scene = Scene::new();
    let before = scene.watch();
    let mut wrong = Vec::new();
    for trick in corpus() {
        let stream = (trick.stream)(&scene.world);
        let output = scene.said(&["--accept-differences"], told(&stream));
        let is_refused = output.code != 0;
        println!("{}: {} {}", trick.name, output.code, output.stderr.trim());
        if !is_refused {
            streams::delete(&scene.target()).unwrap();
        }
        // The user names the restored subvolume: the name in the stream is not used.
        let is_of_name = trick.name.starts_with("subvolume ");
        let may_succeed = trick.expect == Expect::Harmless || is_of_name;
        if !is_refused && !may_succeed {
            wrong.push(format!("{}: it was restored", trick.name));
        }
        if is_refused && (output.code != 1 || output.stderr.trim().is_empty()) {
            wrong.push(format!("{}: {output:?}", trick.name));
        }
        let changes = before.changes(&scene.watch());
        if !changes.is_empty() {
            wrong.push(format!("{}: TOUCHED {changes:#?}", trick.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

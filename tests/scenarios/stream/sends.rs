//! `stream send` does what users of `btrfs send` expect. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sendshot_harness::compare::tree;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{Output, run, tool};
use sendshot_harness::trees::fill;
use sendshot_stream::{Command as StreamCommand, Item, Parser};
use sendshot_sys::subvolume::{self, Info};
use tempfile::TempDir;
use uuid::Uuid;

const SIZE: u64 = 1 << 30;
/// Bytes of a file that a stream contains or not.
const DATA: usize = 4_000_000;

fn ctl(arguments: &[&str]) -> Output {
    run(Command::new(binaries::path("sendshotctl")).args(arguments))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn assert_same(of: &Path, copy: &Path) {
    assert_eq!(tree::compare(of, copy).unwrap(), Vec::<String>::new());
}

/// A file system with a volume, and one to receive into.
struct Pair {
    from: LoopFs,
    to: LoopFs,
    /// Directory of streams and sendshots.
    files: TempDir,
}

impl Pair {
    fn new() -> Self {
        let [from, to] = [(); 2].map(|()| LoopFs::new(SIZE, &[], "").unwrap());
        streams::create(&from.path().join("live")).unwrap();
        fill::file(from.path().join("live/data"), 1, DATA);
        let files = tempfile::tempdir_in("/dev/shm").unwrap();
        Self { from, to, files }
    }

    /// Adds snapshots `s1` to `s3`, each with one more file.
    fn with_snapshots() -> Self {
        let pair = Self::new();
        for name in ["s1", "s2", "s3"] {
            fs::write(pair.source("live").join(name), name).unwrap();
            pair.snapshot("live", name);
        }
        pair
    }

    fn source(&self, name: &str) -> PathBuf {
        self.from.path().join(name)
    }

    fn snapshot(&self, of: &str, name: &str) {
        streams::snapshot(&self.source(of), &self.source(name)).unwrap();
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.to.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn file(&self, name: &str) -> String {
        text(&self.files.path().join(name)).to_owned()
    }

    /// Sends into a file; arguments that begin with `=` are names of snapshots.
    fn try_send(&self, arguments: &[&str]) -> Output {
        let paths: Vec<String> = arguments
            .iter()
            .map(|argument| match argument.strip_prefix('=') {
                Some(name) => text(&self.source(name)).to_owned(),
                None => (*argument).to_owned(),
            })
            .collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        ctl(&[&["stream", "send", "-f", &self.file("stream")], &paths[..]].concat())
    }

    #[track_caller]
    fn send(&self, arguments: &[&str]) -> Vec<u8> {
        self.try_send(arguments).success();
        fs::read(self.file("stream")).unwrap()
    }

    #[track_caller]
    fn receive(&self, dir: &str) {
        let dir = self.dir(dir);
        ctl(&["stream", "receive", "-f", &self.file("stream"), text(&dir)]).success();
    }

    #[track_caller]
    fn assert_received(&self, dir: &str, names: &[&str]) {
        for name in names {
            assert_same(&self.source(name), &self.dir(dir).join(name));
        }
    }
}

fn info(subvolume: &Path) -> Info {
    subvolume::info(File::open(subvolume).unwrap()).unwrap()
}

/// Returns the parents that a stream names, and the subvolumes that it clones from.
fn built_on(stream: &[u8]) -> (Vec<Uuid>, Vec<Uuid>) {
    let (mut parents, mut cloned) = (Vec::new(), Vec::new());
    let (mut parser, mut input) = (Parser::new(), stream);
    while let Some(located) = parser.next(&mut input).unwrap() {
        match located.item {
            Item::Command(StreamCommand::Snapshot { clone_uuid, .. }) => parents.push(clone_uuid),
            Item::Command(StreamCommand::Clone { clone_uuid, .. }) => cloned.push(clone_uuid),
            _ => {}
        }
    }
    parser.finish().unwrap();
    (parents, cloned)
}

/// Returns the bytes that a file system uses for data.
fn used(fs: &Path) -> u64 {
    tool("btrfs", &["filesystem", "sync", text(fs)]);
    let shown = tool("btrfs", &["filesystem", "df", "--raw", text(fs)]);
    let data = shown.lines().find(|line| line.starts_with("Data")).unwrap();
    data.rsplit_once("used=").unwrap().1.trim().parse().unwrap()
}

/// Makes a volume that shares data of another one since snapshot `s2`.
fn with_shared_data() -> Pair {
    let pair = Pair::new();
    streams::create(&pair.source("other")).unwrap();
    fill::file(pair.source("other").join("film"), 2, DATA);
    pair.snapshot("other", "o1");
    pair.snapshot("live", "s1");
    let (film, copy) = (pair.source("other/film"), pair.source("live/film"));
    tool("cp", &["--reflink=always", text(&film), text(&copy)]);
    pair.snapshot("live", "s2");
    for name in ["=s1", "=o1"] {
        pair.send(&[name]);
        pair.receive("in");
    }
    pair
}

#[test]
fn data_shared_with_a_clone_source_is_not_sent() {
    let pair = with_shared_data();
    let before = used(pair.to.path());
    let stream = pair.send(&["-c", "=s1", "-c", "=o1", "=s2"]);
    assert!(stream.len() < DATA / 4, "{} bytes", stream.len());
    let [near, other] = ["s1", "o1"].map(|name| info(&pair.source(name)).uuid);
    let (parents, cloned) = built_on(&stream);
    assert_eq!(parents, [near]);
    assert!(cloned.contains(&other), "{cloned:?}");
    pair.receive("in");
    pair.assert_received("in", &["s2"]);
    let grown = used(pair.to.path()) - before;
    assert!(grown < DATA as u64 / 4, "{grown} bytes for shared data");
    // Without the clone source the data is sent.
    let stream = pair.send(&["-p", "=s1", "=s2"]);
    assert!(stream.len() > DATA, "{} bytes", stream.len());
}

#[test]
fn a_clone_source_elsewhere_needs_parents_dir() {
    let pair = with_shared_data();
    // Only the parent stays in the target directory.
    let (o1, elsewhere) = (pair.dir("in").join("o1"), pair.dir("elsewhere"));
    streams::delete(&o1).unwrap();
    pair.send(&["=o1"]);
    pair.receive("elsewhere");
    pair.send(&["-p", "=s1", "-c", "=o1", "=s2"]);
    let (stream, dir) = (pair.file("stream"), pair.dir("in"));
    let take = ["stream", "receive", "-f", &stream, text(&dir)];
    let named = format!("--parents {}", text(&elsewhere));
    ctl(&take).fails(
        1,
        &[text(&elsewhere.join("o1")), &named, "--parents-anywhere"],
    );
    for more in [
        &["--parents", text(&elsewhere)][..],
        &["--parents-anywhere"],
    ] {
        ctl(&[&take[..], more].concat()).success();
        pair.assert_received("in", &["s2"]);
        streams::delete(&dir.join("s2")).unwrap();
    }
}

#[test]
fn the_nearest_clone_source_is_the_parent() {
    let pair = Pair::with_snapshots();
    let of = |name: &str| info(&pair.source(name)).uuid;
    let (parents, _) = built_on(&pair.send(&["-c", "=s1", "-c", "=s2", "=s3"]));
    assert_eq!(parents, [of("s2")]);
    let (parents, _) = built_on(&pair.send(&["-p", "=s1", "-c", "=s2", "=s3"]));
    assert_eq!(parents, [of("s1")], "the user has named another one");
    // A snapshot that was just sent is a clone source for the next.
    let (parents, _) = built_on(&pair.send(&["-c", "=s1", "=s2", "=s3"]));
    assert_eq!(parents, [of("s1"), of("s2")]);
}

#[test]
fn clone_sources_are_refused_where_they_mean_nothing() {
    let pair = Pair::with_snapshots();
    let file = pair.file("s1.sendshot");
    pair.send(&["--save-sendshot", &file, "=s1"]);
    let why = "the sendshot engine clones within the snapshot and from its parent only";
    for more in [
        ["--engine", "sendshot"],
        ["--sendshot", &file],
        ["--save-sendshot", &file],
    ] {
        pair.try_send(&[&["-c", "=s1"], &more[..], &["=s2"]].concat())
            .fails(2, &[why, "leave out -c"]);
    }
    streams::create(&pair.source("other")).unwrap();
    pair.snapshot("other", "o1");
    pair.try_send(&["-c", "=o1", "=s2"]).fails(
        2,
        &[
            "no clone source is a snapshot of the same subvolume",
            "--parent",
        ],
    );
    pair.try_send(&["-c", "=live", "=s2"])
        .fails(2, &["live is writable"]);
    let foreign = LoopFs::new(SIZE, &[], "").unwrap();
    streams::create(&foreign.path().join("v")).unwrap();
    let there = foreign.path().join("s");
    streams::snapshot(&foreign.path().join("v"), &there).unwrap();
    pair.try_send(&["-c", text(&there), "=s2"])
        .fails(2, &[text(&there), "another file system"]);
}

#[test]
fn several_snapshots_arrive_through_stock_receive_and_ours() {
    let pair = Pair::with_snapshots();
    let dir = pair.file("sendshots");
    fs::create_dir(&dir).unwrap();
    let all = ["s1", "s2", "s3"];
    let ways: [(&str, &[&str], usize); 4] = [
        ("sendshot", &["--save-sendshot", &dir], 2),
        ("v1", &["--proto", "1"], 2),
        ("kernel", &["--engine", "kernel"], 0),
        ("one-parent", &["-p", "=s1"], 2),
    ];
    for (way, arguments, increments) in ways {
        let names = if way == "one-parent" {
            &all[1..]
        } else {
            &all[..]
        };
        let given: Vec<String> = names.iter().map(|name| format!("={name}")).collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let stream = pair.send(&[arguments, &given].concat());
        assert_eq!(built_on(&stream).0.len(), increments, "{way}");
        let commands = streams::commands(&stream).unwrap();
        assert_eq!(commands["end"], names.len() as u64, "{way}: {commands:?}");
        let dump = ctl(&["stream", "dump", "-f", &pair.file("stream")]).success();
        let headers = dump
            .stdout
            .lines()
            .filter(|line| line.starts_with("stream "));
        assert_eq!(headers.count(), names.len(), "{way}");

        let (stock, ours) = (format!("stock-{way}"), format!("ours-{way}"));
        for to in [&stock, &ours] {
            if way == "one-parent" {
                // The parent must exist, and stock receive takes the first match.
                for copy in
                    tool("btrfs", &["subvolume", "list", "-o", text(pair.to.path())]).lines()
                {
                    let path = copy.split_once(" path ").unwrap().1;
                    streams::delete(&pair.to.path().join(path)).unwrap();
                }
                let first = pair.file("first");
                let from = text(&pair.source("s1")).to_owned();
                ctl(&["stream", "send", "--engine", "kernel", "-f", &first, &from]).success();
                ctl(&["stream", "receive", "-f", &first, text(&pair.dir(to))]).success();
            }
            match to == &stock {
                true => streams::stock_receive(&stream, &pair.dir(to)).unwrap(),
                false => pair.receive(to),
            }
            pair.assert_received(to, names);
        }
    }
    // The saved sendshots can be parents.
    for name in all {
        assert!(Path::new(&dir).join(format!("{name}.sendshot")).is_file());
    }
    let third = format!("{dir}/s3.sendshot");
    fs::write(pair.source("live/s4"), "s4").unwrap();
    pair.snapshot("live", "s4");
    let stream = pair.send(&["--sendshot", &third, "=s4"]);
    assert!(stream.len() < DATA / 4, "{} bytes", stream.len());
    assert_eq!(built_on(&stream).0, [info(&pair.source("s3")).uuid]);
}

#[test]
fn the_first_of_several_builds_on_the_sendshot_that_is_named() {
    let pair = Pair::with_snapshots();
    let file = pair.file("s1.sendshot");
    pair.send(&["--save-sendshot", &file, "=s1"]);
    pair.receive("in");
    let stream = pair.send(&["--sendshot", &file, "=s2", "=s3"]);
    let of = |name: &str| info(&pair.source(name)).uuid;
    assert_eq!(built_on(&stream).0, [of("s1"), of("s2")]);
    pair.receive("in");
    pair.assert_received("in", &["s1", "s2", "s3"]);
}

#[test]
fn sendshots_of_several_snapshots_need_a_directory() {
    let pair = Pair::with_snapshots();
    let file = pair.file("one.sendshot");
    pair.try_send(&["--save-sendshot", &file, "=s1", "=s2"])
        .fails(2, &[&file, "is not a directory", "NAME.sendshot"]);
    fs::create_dir(pair.source("again")).unwrap();
    pair.snapshot("live", "again/s1");
    let dir = pair.file("");
    pair.try_send(&["--save-sendshot", &dir, "=s1", "=again/s1"])
        .fails(2, &["s1.sendshot"]);
    assert!(
        !Path::new(&pair.file("stream")).exists(),
        "nothing was sent"
    );
    // A single snapshot can be given a directory, too, or any other file name.
    pair.send(&["--save-sendshot", &dir, "=s1"]);
    assert!(Path::new(&pair.file("s1.sendshot")).is_file());
    pair.send(&["--save-sendshot", &file, "=s1"]);
    assert!(Path::new(&file).is_file());
}

/// Sends into a pipe, and deletes snapshot `victim` after the first bytes.
fn deleted_on_the_way(pair: &Pair, arguments: &[&str], victim: &str) -> (i32, String) {
    let mut command = Command::new(binaries::path("sendshotctl"));
    command.args(["stream", "send"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stream = child.stdout.take().unwrap();
    stream.read_exact(&mut vec![0; 100_000]).unwrap();
    streams::delete(&pair.source(victim)).unwrap();
    std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    let mut said = String::new();
    let mut errors = child.stderr.take().unwrap();
    errors.read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code().unwrap(), said)
}

#[test]
fn a_snapshot_deleted_during_the_send_is_reported() {
    let pair = Pair::new();
    for dir in 0..8 {
        let dir = pair.source(&format!("live/dir{dir}"));
        fs::create_dir(&dir).unwrap();
        fill::file(dir.join("data"), 3, DATA);
    }
    for engine in ["sendshot", "kernel"] {
        for name in ["s1", "s2"] {
            pair.snapshot("live", name);
        }
        let [first, second] = ["s1", "s2"].map(|name| text(&pair.source(name)).to_owned());
        // The kernel refuses to delete a snapshot that its own send reads.
        let victim = match engine {
            "sendshot" => "s1",
            _ => "s2",
        };
        let arguments = ["--engine", engine, &first, &second];
        let (code, said) = deleted_on_the_way(&pair, &arguments, victim);
        assert_eq!(code, 1, "{engine}: {said}");
        let words = format!(
            "send {}: the snapshot was deleted while it was being sent",
            text(&pair.source(victim))
        );
        assert!(said.contains(&words), "{engine}: {said}");
        for name in ["s1", "s2"].into_iter().filter(|name| *name != victim) {
            streams::delete(&pair.source(name)).unwrap();
        }
    }
}

#[test]
fn messages_go_where_the_stock_tools_print_theirs() {
    let pair = Pair::with_snapshots();
    let btrfs = |arguments: &[&str]| run(Command::new("btrfs").args(arguments)).success();
    let ours = |arguments: &[&str]| ctl(&[&["stream"], arguments].concat()).success();
    let (one, two) = (pair.file("one"), pair.file("two"));
    let [s1, s2] = ["s1", "s2"].map(|name| text(&pair.source(name)).to_owned());
    let (stock_dir, our_dir) = (pair.dir("stock"), pair.dir("ours"));
    let (stock_dir, our_dir) = (text(&stock_dir), text(&our_dir));
    let has = |output: &Output, words: &str| {
        [&output.stdout, &output.stderr].map(|said| said.contains(words))
    };

    let stock = btrfs(&["send", "-f", &one, &s1]);
    let our = ours(&["send", "-f", &one, &s1]);
    assert_eq!(has(&our, "sending"), has(&stock, "At subvol"), "{our:?}");
    let stock = btrfs(&["receive", "-f", &one, stock_dir]);
    let our = ours(&["receive", "-f", &one, our_dir]);
    assert_eq!(
        has(&our, "receiving s1"),
        has(&stock, "At subvol"),
        "{our:?}"
    );
    btrfs(&["send", "-f", &two, "-p", &s1, &s2]);
    let stock = btrfs(&["receive", "-f", &two, stock_dir]);
    let our = ours(&["receive", "-f", &two, our_dir]);
    assert_eq!(
        has(&our, "receiving s2"),
        has(&stock, "At snapshot"),
        "{our:?}"
    );

    for name in ["s1", "s2"] {
        streams::delete(&Path::new(our_dir).join(name)).unwrap();
    }
    let quiet = [
        ours(&["send", "-q", "-f", &one, &s1]),
        ours(&["receive", "-q", "-f", &one, our_dir]),
        ours(&["receive", "-q", "-f", &two, our_dir]),
    ];
    for output in quiet {
        assert_eq!((&*output.stdout, &*output.stderr), ("", ""), "{output:?}");
    }
    streams::delete(&Path::new(our_dir).join("s2")).unwrap();
    let json = ours(&["receive", "--json", "-f", &two, our_dir]);
    assert_eq!(json.json()["name"], "s2");
}

//! Backup disks that take turns at one mount point, and disks that change hands.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_harness::compare::exact::{assert_exact, assert_same};
use sendshot_harness::compare::subvolumes::{self, assert_no_leftovers};
use sendshot_harness::disks::loopfs::{LoopFs, unmount_free};
use sendshot_harness::disks::streams;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::{self, tool};
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::sender_host::{NAME, SenderHost, SenderSetup};
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Limit for the traffic of an increment in these tests, both directions together.
const LITTLE: u64 = MIB;
/// Bytes of a big file in the volume: much more than that.
const BIG: usize = 16 << 20;

/// Disks that are mounted in turn at the receiver's root.
struct Rotation {
    hosts: Linked,
    disks: Vec<LoopFs>,
    root: PathBuf,
    /// The mounted disk; the receiver's own first one is not counted.
    mounted: Option<usize>,
}

impl Rotation {
    fn new(disks: usize) -> Self {
        Self::of(SenderHost::new(), disks)
    }

    fn of(sender: SenderHost, disks: usize) -> Self {
        let hosts = Linked::of(sender);
        fill::tree(&hosts.sender.photos(), 1);
        fill::file(hosts.sender.photos().join("big"), 1, BIG);
        let disks = (0..disks).map(|_| LoopFs::new(256 << 20, &[], "").unwrap());
        let root = hosts.receiver.root();
        let mut rotation = Self {
            disks: disks.collect(),
            hosts,
            root,
            mounted: None,
        };
        for disk in 0..rotation.disks.len() {
            rotation.exchange(Some(disk));
            let add = rotation
                .hosts
                .receiver
                .ctl(&["copy", "root", "add", "--json"]);
            assert_eq!(add.success().json()["present"], true);
        }
        rotation
    }

    /// Unmounts the current disk and mounts another; the daemon gets no notice.
    fn exchange(&mut self, disk: Option<usize>) {
        if self.mounted.take().is_some() {
            unmount_free(&self.root).unwrap();
        }
        if let Some(disk) = disk {
            let path = self.disks[disk].path();
            command::run(
                Command::new("mount")
                    .args(["--bind"])
                    .arg(path)
                    .arg(&self.root),
            )
            .success();
        }
        self.mounted = disk;
    }

    /// As [`exchange`](Self::exchange), while the daemon may still read what it has applied there.
    fn pull_out(&mut self, next: usize) {
        tool("umount", &[Path::new("-l"), &self.root]);
        self.mounted = None;
        self.exchange(Some(next));
    }

    fn copies(&self) -> usize {
        let copies = self.hosts.receiver.ctl(&["copy", "list", "--json"]);
        copies.success().jsons().len()
    }

    fn change(&self, seed: u64) {
        fill::file(
            self.hosts.sender.photos().join(format!("new{seed}")),
            seed,
            5000,
        );
    }

    /// Pushes; returns the report and the bytes that crossed the link.
    #[track_caller]
    fn push(&self) -> (Value, u64) {
        let link = &self.hosts.link;
        let before = link.bytes(Way::Up) + link.bytes(Way::Down);
        let pushed = self.hosts.sender.push("nas2:photos");
        assert_same(
            &self.hosts.sender.photos(),
            &self.hosts.receiver.copy(&pushed),
        );
        let crossed = link.bytes(Way::Up) + link.bytes(Way::Down) - before;
        (pushed, crossed)
    }

    #[track_caller]
    fn pushes_little(&self, why: &str) -> Value {
        let (pushed, crossed) = self.push();
        assert!(crossed <= LITTLE, "{why}: {crossed} bytes: {pushed:#}");
        assert!(!pushed["parent"].is_null(), "{why}: {pushed:#}");
        pushed
    }

    fn listed(&self) -> Vec<Value> {
        self.hosts.sender.ctl(&["list", "--json"]).success().jsons()
    }

    /// Asserts that no snapshot holds space, and no interrupted push is left.
    #[track_caller]
    fn sender_is_tidy(&self) {
        let sender = &self.hosts.sender;
        sender.wait_until_released();
        let partials = sender.ctl(&["list", "--partials", "--json"]).success();
        assert_eq!(partials.stdout, "");
        let hidden = subvolumes::list(sender.fs()).into_iter();
        let hidden: Vec<_> = hidden
            .filter(|s| s.path.starts_with(".sendshot/"))
            .collect();
        assert!(hidden.is_empty(), "{hidden:#?}");
    }

    fn ids(&self) -> Vec<String> {
        let roots = self.hosts.receiver.ctl(&["copy", "root", "list", "--json"]);
        let roots = roots.success().jsons();
        roots
            .iter()
            .map(|root| root["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        self.hosts.receiver.daemon.kill_if_alive();
        if self.mounted.take().is_some() {
            let _ = command::run(Command::new("umount").arg("-l").arg(&self.root));
        }
    }
}

#[test]
fn three_disks_take_turns_over_twenty_pushes() {
    let mut rotation = Rotation::new(3);
    for disk in 0..3 {
        rotation.exchange(Some(disk));
        rotation.push();
    }
    // Disk 2 is away for a while.
    for night in 0..15 {
        rotation.exchange(Some(night % 2));
        rotation.change(night as u64);
        rotation.pushes_little(&format!("night {night}"));
    }
    for (night, disk) in [(15, 2), (16, 0), (17, 2), (18, 1), (19, 2)] {
        rotation.exchange(Some(disk));
        rotation.change(night);
        rotation.pushes_little(&format!("night {night}, disk {disk}"));
    }
    // Each disk keeps its own common states, at most `keep` of them.
    let listed = rotation.listed();
    let mut counts = rotation.ids().into_iter().map(|id| {
        let of_disk = listed.iter().filter(|state| state["root"] == *id);
        of_disk.count()
    });
    assert!(counts.all(|count| count <= 4), "{listed:#?}");
    let disks = listed.iter().map(|state| state["root"].as_str().unwrap());
    assert_eq!(disks.collect::<BTreeSet<_>>().len(), 3, "{listed:#?}");
    assert!(
        listed
            .iter()
            .all(|state| state["acknowledged_at"].is_string()),
        "{listed:#?}"
    );
    let text = rotation.hosts.sender.ctl(&["list"]).success().stdout;
    assert!(text.contains("DISK"), "{text}");
    // And `status` shows the last push to each.
    let sender = &rotation.hosts.sender;
    let status = sender.ctl(&["status", "--json"]).success().json();
    let disks = status["last"][0]["disks"].as_array().unwrap();
    assert_eq!(disks.len(), 3, "{status:#}");
    let text = sender.ctl(&["status"]).success().stdout;
    for disk in disks {
        let id = &disk["root"].as_str().unwrap()[..8];
        assert!(text.contains(&format!("nas2 ({id})")), "{text}");
    }
    rotation.sender_is_tidy();
}

#[test]
fn a_push_is_refused_without_a_known_disk() {
    let mut rotation = Rotation::new(1);
    rotation.push();
    rotation.exchange(None);
    // The directory under the mount point is the receiver's first disk, so that is removed.
    let first = rotation.ids().into_iter().find(|id| {
        let roots = rotation
            .hosts
            .receiver
            .ctl(&["copy", "root", "list", "--json"]);
        let roots = roots.success().jsons();
        roots
            .iter()
            .any(|root| root["id"] == **id && root["present"] == true)
    });
    let first = first.unwrap();
    let root = |arguments: &[&str]| {
        let arguments = [&["copy", "root"], arguments].concat();
        rotation.hosts.receiver.ctl(&arguments)
    };
    root(&["remove", "nonsense"]).fails(1, &["no disk", "`nonsense`"]);
    root(&["take-over", "--yes"]).fails(2, &["this receiver's already"]);
    rotation
        .hosts
        .receiver
        .ctl(&["copy", "root", "remove", &first])
        .success();
    rotation.hosts.receiver.daemon.may_log("removed");
    let refused = rotation.hosts.sender.ctl(&["push", "nas2:photos"]);
    refused.fails(1, &["removed", "copy root add"]);
    let strange = LoopFs::new(256 << 20, &[], "").unwrap();
    rotation.disks.push(strange);
    rotation.exchange(Some(1));
    rotation
        .hosts
        .receiver
        .daemon
        .may_log("is its disk mounted");
    let refused = rotation.hosts.sender.ctl(&["push", "nas2:photos"]);
    refused.fails(1, &["is its disk mounted", "copy root add"]);
    let take_over = ["copy", "root", "take-over", "--yes"];
    let refused = rotation.hosts.receiver.ctl(&take_over);
    refused.fails(2, &["belongs to no receiver", "copy root add"]);
    assert_eq!(fs::read_dir(rotation.disks[1].path()).unwrap().count(), 0);
    rotation.exchange(Some(0));
    rotation.change(1);
    rotation.pushes_little("it is back");
}

#[test]
fn disks_are_exchanged_while_a_push_waits_for_its_sender() {
    let mut rotation = Rotation::new(2);
    for disk in [1, 0] {
        rotation.exchange(Some(disk));
        rotation.push();
    }
    fill::file(rotation.hosts.sender.photos().join("large"), 5, 3 * BIG);
    let before = rotation.hosts.link.bytes(Way::Up);
    let push = rotation.hosts.sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("a part was sent", || {
        rotation.hosts.link.bytes(Way::Up) >= before + BIG as u64
    });
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    rotation.hosts.sender.wait_until_released();
    rotation.pull_out(1);
    let (other, _) = rotation.push();
    assert!(
        other["resumed_at"].is_null() && !other["parent"].is_null(),
        "{other:#}"
    );
    rotation.exchange(Some(0));
    let (back, _) = rotation.push();
    assert!(
        !back["parent"].is_null() || !back["completed_first"].is_null(),
        "{back:#}"
    );
    rotation.sender_is_tidy();
}

fn uuid_of(fs: &Path, snapshot: &Path) -> String {
    let path = snapshot.strip_prefix(fs).unwrap().to_str().unwrap();
    let all = subvolumes::list(fs);
    let found = all.into_iter().find(|s| s.path == path);
    found.unwrap().uuid
}

/// Describes a sender that retries for a while.
fn patient() -> SenderSetup {
    let setup = SenderHost::setup().volume("photos", "photos");
    setup.keys("retry_for = \"2m\"")
}

#[test]
fn disks_are_exchanged_before_the_acknowledgement() {
    let mut rotation = Rotation::of(patient().start(), 2);
    for disk in [1, 0] {
        rotation.exchange(Some(disk));
        rotation.push();
    }
    fill::file(rotation.hosts.sender.photos().join("small"), 3, 40_000);
    let link = &rotation.hosts.link;
    let before = link.bytes(Way::Up);
    link.set(Way::Up, Rule::Slow(20_000));
    let push = rotation.hosts.sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("the data is on its way", || {
        link.bytes(Way::Up) > before + 25_000
    });
    link.set(Way::Down, Rule::Lose);
    link.set(Way::Up, Rule::Pass);
    until::holds("the receiver has committed", || rotation.copies() == 2);
    link.cut();
    rotation.pull_out(1);
    rotation.hosts.link.mend();
    push.finish()
        .fails(1, &["another disk mounted", "push again"]);
    // The first disk may have the state, so it is kept; the other disk gets what it lacks.
    let unconfirmed = rotation.listed();
    let unconfirmed = unconfirmed
        .iter()
        .find(|state| state["state"] == "unconfirmed");
    let unconfirmed = unconfirmed.unwrap()["uuid"].clone();
    let other = rotation.pushes_little("the other disk");
    assert_ne!(other["uuid"], unconfirmed);
    rotation.exchange(Some(0));
    rotation.change(1);
    let back = rotation.pushes_little("the first disk is back");
    assert_eq!(back["parent"], unconfirmed, "{back:#}");
    rotation.sender_is_tidy();
}

#[test]
fn disks_are_exchanged_in_the_middle_of_a_series() {
    let sender = patient().make();
    fs::create_dir(sender.fs().join(".snapshots")).unwrap();
    let pattern = sender.fs().join(".snapshots/*");
    let mut config = fs::read_to_string(sender.config()).unwrap();
    config.push_str(&format!(
        "\n[volumes.x]\nsnapshots = \"{}\"\n",
        pattern.display()
    ));
    fs::write(sender.config(), config).unwrap();
    let mut sender = sender;
    sender.daemon.start();
    let mut rotation = Rotation::of(sender, 2);
    rotation.exchange(Some(0));
    let mut made = Vec::new();
    let mut snapshot = |n: u64| {
        let sender = &rotation.hosts.sender;
        fill::file(sender.photos().join(format!("new{n}")), n, 2 << 20);
        // The order of the names differs from that of the ages.
        let path = sender.fs().join(format!(".snapshots/{}", 9 - n));
        streams::snapshot(&sender.photos(), &path).unwrap();
        made.push(path);
    };
    snapshot(0);
    rotation.hosts.sender.push("nas2:x");
    (1..4).for_each(&mut snapshot);
    let link = &rotation.hosts.link;
    link.set(Way::Up, Rule::Slow(2 << 20));
    let push = rotation.hosts.sender.ctl_start(&["push", "nas2:x"]);
    until::holds("the first of them is there", || rotation.copies() == 2);
    rotation.hosts.link.cut();
    rotation.pull_out(1);
    rotation.hosts.link.mend();
    push.finish().fails(1, &["another", "disk", "push again"]);
    // Each disk gets all snapshots, whatever the other has.
    for disk in [0, 1] {
        rotation.exchange(Some(disk));
        let pushed = rotation.hosts.sender.push("nas2:x");
        let copies = rotation
            .hosts
            .receiver
            .ctl(&["copy", "list", "--json"])
            .success()
            .jsons();
        assert_eq!(
            copies.len(),
            made.len(),
            "disk {disk}: {pushed:#} {copies:#?}"
        );
        for snapshot in &made {
            let uuid = uuid_of(rotation.hosts.sender.fs(), snapshot);
            let copy = copies.iter().find(|copy| copy["uuid"] == uuid);
            let copy = copy.unwrap_or_else(|| panic!("{snapshot:?}: {copies:#?}"));
            assert_same(snapshot, Path::new(copy["path"].as_str().unwrap()));
        }
        let again = rotation.hosts.sender.push("nas2:x");
        assert_eq!(again["stream_bytes"], 0, "{again:#}");
    }
    rotation.sender_is_tidy();
}

#[test]
fn a_disk_that_died_is_forgotten_and_the_other_goes_on() {
    let mut rotation = Rotation::new(2);
    for disk in [0, 1, 0] {
        rotation.exchange(Some(disk));
        rotation.change(disk as u64);
        rotation.push();
    }
    let last = rotation.listed();
    let last = last
        .iter()
        .max_by_key(|state| state["taken_at"].as_str().unwrap().to_owned());
    let here = last.unwrap()["root"].as_str().unwrap().to_owned();
    let states = rotation.listed();
    let dead = states.iter().find(|state| state["root"] != *here).unwrap();
    let dead = dead["root"].as_str().unwrap();
    let forget = ["forget", "nas2:photos", "--root", &dead[..8], "--yes"];
    rotation.hosts.sender.ctl(&forget).success();
    assert!(rotation.listed().iter().all(|state| state["root"] == *here));
    rotation.change(9);
    rotation.pushes_little("the other disk");
}

#[test]
fn a_receiver_that_brings_ever_new_disks_fills_nothing() {
    let mut rotation = Rotation::new(1);
    rotation.exchange(Some(0));
    // A mark with another id is another disk for both sides.
    let mark = rotation.root.join(".sendshot-root");
    let text = fs::read_to_string(&mark).unwrap();
    let mut value: Value = serde_json::from_str(&text).unwrap();
    for n in 0..32 {
        value["root"] = format!("00000000-0000-4000-8000-0000000000{n:02x}").into();
        fs::write(&mark, value.to_string()).unwrap();
        rotation.change(n);
        rotation.push();
    }
    value["root"] = "00000000-0000-4000-8000-0000000000ff".into();
    fs::write(&mark, value.to_string()).unwrap();
    let refused = rotation.hosts.sender.ctl(&["push", "nas2:photos"]);
    refused.fails(4, &["32 disks", "forget nas2:photos --root"]);
    let forget = ["forget", "nas2:photos", "--yes", "--root"];
    let one = ["00000000-0000-4000-8000-000000000003"];
    rotation
        .hosts
        .sender
        .ctl(&[&forget[..], &one[..]].concat())
        .success();
    rotation.pushes_little("there is room for one again");
}

#[test]
fn the_receivers_system_disk_died() {
    let mut hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    let first = hosts.sender.push("nas2:photos");
    hosts.receiver.daemon.stop();
    fs::remove_dir_all(hosts.receiver.daemon.state_dir()).unwrap();
    hosts.receiver.daemon.may_log("belongs to the receiver");
    hosts.receiver.daemon.may_log("certificate");
    hosts.receiver.daemon.start();
    let unasked = hosts.receiver.ctl(&["copy", "root", "take-over"]);
    unasked.fails(2, &["--yes"]);
    let taken = hosts
        .receiver
        .ctl(&["copy", "root", "take-over", "--yes"])
        .success();
    assert!(taken.stderr.contains(NAME), "{taken:?}");
    let token = hosts.receiver.invite(&[NAME]);
    fs::remove_file(hosts.sender.receiver_file("nas2")).unwrap();
    let address = hosts.link.address().to_string();
    let pair = ["pair", &address, "--name", "nas2", "--token", &token];
    hosts.sender.ctl(&pair).success();
    fill::file(hosts.sender.photos().join("new"), 2, 5000);
    let before = hosts.link.bytes(Way::Up) + hosts.link.bytes(Way::Down);
    let second = hosts.sender.push("nas2:photos");
    let crossed = hosts.link.bytes(Way::Up) + hosts.link.bytes(Way::Down) - before;
    assert!(crossed <= LITTLE, "{crossed}");
    assert_eq!(second["parent"], first["uuid"]);
    assert!(
        second["copy"].as_str().unwrap().starts_with("nas1/photos/"),
        "{second:#}"
    );
    assert_exact(&hosts.sender, &hosts.receiver, &second);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    // All retained states are common with the receiver that is paired now.
    let listed = hosts.sender.ctl(&["list", "--json"]).success().jsons();
    assert!(
        listed
            .iter()
            .all(|state| state["holders"][0]["paired"] == true),
        "{listed:#?}"
    );
}

#[test]
fn a_root_mark_of_an_older_version_gets_an_id() {
    let mut hosts = Linked::new();
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    hosts.receiver.daemon.stop();
    let mark = hosts.receiver.root().join(".sendshot-root");
    let mut value: Value = serde_json::from_str(&fs::read_to_string(&mark).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("root");
    fs::write(&mark, value.to_string()).unwrap();
    hosts.receiver.daemon.start();
    let first = hosts.sender.push("nas2:photos");
    let marked: Value = serde_json::from_str(&fs::read_to_string(&mark).unwrap()).unwrap();
    assert!(marked["root"].is_string(), "{marked}");
    fill::file(hosts.sender.photos().join("new"), 2, 5000);
    let second = hosts.sender.push("nas2:photos");
    assert_eq!(second["parent"], first["uuid"]);
}

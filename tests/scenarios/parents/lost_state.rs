//! A host's own state is lost, or older than its disks: the state stored with the data decides.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_harness::compare::exact::{assert_copy, assert_exact, assert_same};
use sendshot_harness::compare::subvolumes::assert_no_leftovers;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::streams;
use sendshot_harness::faults::fail_points;
use sendshot_harness::faults::link::Way;
use sendshot_harness::hosts::command;
use sendshot_harness::hosts::pairing::{Linked, Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::{NAME, SenderHost};
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Limit for the traffic of an increment in these tests, both directions together.
const LITTLE: u64 = MIB;
/// Bytes of a big file in the volume: much more than that.
const BIG: usize = 24 << 20;

fn run(program: &str, arguments: &[&Path]) {
    command::run(Command::new(program).args(arguments)).success();
}

fn copy_dir(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run("cp", &[Path::new("-a"), from, to]);
}

fn receivers(sender: &SenderHost) -> PathBuf {
    sender.receiver_file("x").parent().unwrap().to_owned()
}

/// Reinstalls the system: only its configuration is left.
fn lose_system(sender: &mut SenderHost) {
    sender.daemon.kill_if_alive();
    fs::remove_dir_all(sender.daemon.state_dir()).unwrap();
    let _ = fs::remove_dir_all(receivers(sender));
    sender.daemon.clear_env();
    sender.daemon.start();
}

fn pair_again(hosts: &Linked) {
    let token = hosts.receiver.invite(&[NAME, "--replace"]);
    let address = hosts.link.address().to_string();
    let arguments = ["pair", &address, "--name", "nas2", "--token", &token];
    hosts.sender.ctl(&arguments).success();
}

/// Hosts with much data in the volume.
fn hosts() -> Linked {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    hosts
}

fn change(hosts: &Linked, seed: u64) {
    fill::file(hosts.sender.photos().join(format!("new{seed}")), seed, 5000);
}

/// Makes a push that must be incremental and small; returns its report.
#[track_caller]
fn pushes_little(hosts: &Linked, target: &str, options: &[&str]) -> Value {
    let before = hosts.link.bytes(Way::Up) + hosts.link.bytes(Way::Down);
    let pushed = hosts.sender.push_with(target, options);
    let crossed = hosts.link.bytes(Way::Up) + hosts.link.bytes(Way::Down) - before;
    assert!(!pushed["parent"].is_null(), "{pushed:#}");
    assert!(
        crossed <= LITTLE,
        "{crossed} bytes crossed the link: {pushed:#}"
    );
    pushed
}

/// Lists the directories of volumes at the receiver.
fn directories(receiver: &ReceiverHost) -> Vec<String> {
    let dir = receiver.root().join(NAME);
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn listed(sender: &SenderHost) -> Vec<Value> {
    let listed = sender.ctl(&["list", "--json"]).success().jsons();
    let is_state = |line: &Value| line.get("uuid").is_some();
    listed.into_iter().filter(is_state).collect()
}

#[test]
fn the_system_disk_died_and_the_data_disk_is_sound() {
    let mut hosts = hosts();
    let first = hosts.sender.push("nas2:photos");
    lose_system(&mut hosts.sender);
    pair_again(&hosts);
    let kept = listed(&hosts.sender);
    assert_eq!(kept.len(), 1, "{kept:#?}");
    assert_eq!(kept[0]["uuid"], first["uuid"]);
    change(&hosts, 2);
    let second = pushes_little(&hosts, "nas2:photos", &[]);
    assert_eq!(second["parent"], first["uuid"]);
    assert_eq!(directories(&hosts.receiver), ["photos"]);
    assert_exact(&hosts.sender, &hosts.receiver, &second);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    let forget = ["forget", "nas2:photos", "--all", "--break-chain", "--yes"];
    hosts.sender.ctl(&forget).success();
    assert!(listed(&hosts.sender).is_empty());
}

#[test]
fn the_system_disk_died_of_a_host_with_pinned_parents() {
    let sender = SenderHost::setup().volume("photos", "photos").pin_parent();
    let mut hosts = Linked::of(sender.start());
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    let first = hosts.sender.push("nas2:photos");
    lose_system(&mut hosts.sender);
    pair_again(&hosts);
    change(&hosts, 2);
    let second = pushes_little(&hosts, "nas2:photos", &[]);
    assert_eq!(second["parent"], first["uuid"]);
    assert_exact(&hosts.sender, &hosts.receiver, &second);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn the_new_system_begins_with_another_receiver() {
    for by_path in [false, true] {
        let mut hosts = hosts();
        let photos = hosts.sender.photos();
        let first = hosts.sender.push("nas2:photos");
        lose_system(&mut hosts.sender);
        let name = match by_path {
            false => "photos".to_owned(),
            true => photos.display().to_string(),
        };
        // No receiver has reported yet which host this was before.
        let another = ReceiverHost::new();
        pair(&hosts.sender, &another, "nas3");
        let there = hosts.sender.push(&format!("nas3:{name}"));
        pair_again(&hosts);
        for round in 0..2 {
            change(&hosts, 2 + round);
            let second = pushes_little(&hosts, &format!("nas2:{name}"), &[]);
            if round == 0 {
                assert_eq!(second["parent"], first["uuid"], "by path: {by_path}");
            }
            assert_exact(&hosts.sender, &hosts.receiver, &second);
            let onward = hosts.sender.push(&format!("nas3:{name}"));
            if round == 0 {
                assert_eq!(onward["parent"], there["uuid"], "by path: {by_path}");
            }
            assert_same(&photos, &assert_copy(&another, &onward));
        }
        assert_eq!(directories(&hosts.receiver), ["photos"]);
        assert_eq!(directories(&another), ["photos"]);
        // No leftover would be kept for ever.
        let listed = listed(&hosts.sender);
        assert!(
            listed.iter().all(|state| state["foreign_host"].is_null()),
            "{listed:#?}"
        );
    }
}

/// Makes a host whose volume at `photos` was pushed to nas2 under a name; its reinstalled system has another
/// name for it, or a volume at another path, and pushes that to nas3 before it is paired with nas2 again.
/// Returns the first report from each receiver.
fn begun_with_another(
    before: &str,
    (name, path): (&str, &str),
) -> (Linked, ReceiverHost, [Value; 2]) {
    let sender = SenderHost::setup().volume(before, "photos").start();
    let mut hosts = Linked::of(sender);
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    let first = hosts.sender.push(&format!("nas2:{before}"));
    let volume = hosts.sender.fs().join(path);
    if !volume.exists() {
        streams::create(&volume).unwrap();
        fill::file(volume.join("film"), 7, 5000);
    }
    hosts.sender.daemon.stop();
    hosts.sender.configure([(name, &*volume)]);
    lose_system(&mut hosts.sender);
    let another = ReceiverHost::new();
    pair(&hosts.sender, &another, "nas3");
    let there = hosts.sender.push(&format!("nas3:{name}"));
    pair_again(&hosts);
    (hosts, another, [first, there])
}

#[test]
fn the_new_system_reused_the_name_of_a_volume() {
    let (mut hosts, _another, [first, there]) = begun_with_another("photos", ("photos", "films"));
    let films = hosts.sender.fs().join("films");
    let archive = hosts.sender.photos();
    hosts.sender.daemon.stop();
    hosts
        .sender
        .configure([("photos", &*films), ("archive", &*archive)]);
    hosts.sender.daemon.start();
    // Pushes in both orders: the volume found first must not hide the other.
    let onward = hosts.sender.push("nas3:photos");
    assert_eq!(onward["parent"], there["uuid"]);
    for round in 0..2 {
        fill::file(archive.join(format!("new{round}")), round, 5000);
        let pushed = pushes_little(&hosts, "nas2:archive", &[]);
        if round == 0 {
            assert_eq!(pushed["parent"], first["uuid"]);
        }
        assert_same(&archive, &assert_copy(&hosts.receiver, &pushed));
        let pushed = hosts.sender.push("nas2:photos");
        assert_same(&films, &assert_copy(&hosts.receiver, &pushed));
    }
    assert_eq!(directories(&hosts.receiver), ["photos", "photos-2"]);
    hosts.sender.ctl(&["prune"]).success();
    fill::file(films.join("new"), 9, 5000);
    assert!(!hosts.sender.push("nas3:photos")["parent"].is_null());
}

#[test]
fn the_new_system_calls_a_volume_by_another_name() {
    let (hosts, another, [first, _]) = begun_with_another("old", ("pictures", "photos"));
    for round in 0..2 {
        change(&hosts, 5 + round);
        let pushed = pushes_little(&hosts, "nas2:pictures", &[]);
        if round == 0 {
            assert_eq!(pushed["parent"], first["uuid"]);
        }
        let photos = hosts.sender.photos();
        assert_same(&photos, &assert_copy(&hosts.receiver, &pushed));
        assert!(!hosts.sender.push("nas3:pictures")["parent"].is_null());
    }
    assert_eq!(directories(&hosts.receiver), ["old"]);
    assert_eq!(directories(&another), ["pictures"]);
}

#[test]
fn the_state_directory_is_lost_after_each_stage() {
    for point in fail_points::SENDER {
        let mut hosts = hosts();
        let first = hosts.sender.push("nas2:photos");
        change(&hosts, 2);
        hosts.sender.daemon.stop();
        hosts
            .sender
            .daemon
            .env(fail_points::VARIABLE, &fail_points::armed(point, 0));
        hosts.sender.daemon.start();
        let push = hosts.sender.ctl(&["push", "nas2:photos"]);
        println!("{point}: {}", push.code);
        lose_system(&mut hosts.sender);
        pair_again(&hosts);
        change(&hosts, 3);
        let second = pushes_little(&hosts, "nas2:photos", &[]);
        assert_eq!(directories(&hosts.receiver), ["photos"], "{point}");
        assert_exact(&hosts.sender, &hosts.receiver, &second);
        assert_no_leftovers(&hosts.sender, &hosts.receiver);
        assert_ne!(second["uuid"], first["uuid"]);
    }
}

#[test]
fn the_system_is_rolled_back_to_each_earlier_day_of_a_week() {
    let mut hosts = hosts();
    let backups = tempfile::tempdir().unwrap();
    let state_dir = hosts.sender.daemon.state_dir();
    let receivers = receivers(&hosts.sender);
    // Day 0 is before the first push, with the host paired.
    for day in 0..7 {
        hosts.sender.daemon.stop();
        copy_dir(&state_dir, &backups.path().join(format!("state-{day}")));
        copy_dir(&receivers, &backups.path().join(format!("receivers-{day}")));
        hosts.sender.daemon.start();
        change(&hosts, 10 + day);
        hosts.sender.push("nas2:photos");
    }
    for day in 0..7 {
        hosts.sender.daemon.stop();
        copy_dir(&backups.path().join(format!("state-{day}")), &state_dir);
        copy_dir(&backups.path().join(format!("receivers-{day}")), &receivers);
        hosts.sender.daemon.start();
        assert_eq!(listed(&hosts.sender).len(), 3, "day {day}");
        change(&hosts, 20 + day);
        let pushed = pushes_little(&hosts, "nas2:photos", &[]);
        assert_eq!(directories(&hosts.receiver), ["photos"], "day {day}");
        assert_exact(&hosts.sender, &hosts.receiver, &pushed);
        assert_no_leftovers(&hosts.sender, &hosts.receiver);
    }
}

#[test]
fn all_is_lost_but_the_copies_and_they_stay_in_one_directory() {
    let mut hosts = hosts();
    hosts.sender.daemon.stop();
    let before = tempfile::tempdir().unwrap();
    let state_dir = hosts.sender.daemon.state_dir();
    copy_dir(&state_dir, &before.path().join("state"));
    hosts.sender.daemon.start();
    hosts.sender.push("nas2:photos");
    hosts.sender.daemon.stop();
    copy_dir(&before.path().join("state"), &state_dir);
    let top = Mount::private(&mount::devices(hosts.sender.fs())[0], "subvolid=5");
    run(
        "btrfs",
        &[
            Path::new("subvolume"),
            Path::new("delete"),
            &top.path().join(".sendshot"),
        ],
    );
    drop(top);
    hosts.sender.daemon.start();
    // No state is left for an increment; the directory still belongs to the volume.
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["parent"].is_null(), "{pushed:#}");
    assert_eq!(directories(&hosts.receiver), ["photos"]);
    change(&hosts, 2);
    let next = pushes_little(&hosts, "nas2:photos", &[]);
    assert_eq!(next["parent"], pushed["uuid"]);
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_copy_of_the_disk_made_with_dd_is_another_volume() {
    copied_with_dd(hosts());
}

#[test]
fn a_copy_of_the_disk_made_with_dd_has_hidden_snapshots_too() {
    let sender = SenderHost::setup().volume("photos", "photos").pin_parent();
    let hosts = Linked::of(sender.start());
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    copied_with_dd(hosts);
}

fn copied_with_dd(mut hosts: Linked) {
    let first = hosts.sender.push("nas2:photos");
    let clones = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = clones.path().join("clone.img");
    run("sync", &[Path::new("-f"), hosts.sender.fs()]);
    let source = mount::image(hosts.sender.fs());
    run("cp", &[Path::new("--sparse=always"), &source, &image]);
    let there = clones.path().join("clone");
    fs::create_dir(&there).unwrap();
    let clone = Mount::at(&image, &there, "loop");
    let photos = hosts.sender.photos();
    let configure = |sender: &mut SenderHost| {
        sender.daemon.stop();
        sender.configure([("photos", &*photos), ("clone", &*there.join("photos"))]);
        sender.daemon.start();
    };
    configure(&mut hosts.sender);
    let refused = hosts.sender.ctl(&["push", "nas2:clone"]);
    refused.fails(2, &["`photos`", "btrfstune -u"]);
    // The refused push has changed no binding: the original continues.
    change(&hosts, 2);
    let second = pushes_little(&hosts, "nas2:photos", &[]);
    assert_eq!(second["parent"], first["uuid"]);

    drop(clone);
    command::run(Command::new("btrfstune").args(["-f", "-u"]).arg(&image)).success();
    let _clone = Mount::at(&image, &there, "loop");
    fill::file(there.join("photos/other"), 77, 6000);
    let copied = hosts.sender.push("nas2:clone");
    assert_eq!(directories(&hosts.receiver), ["clone", "photos"]);
    assert_same(
        &there.join("photos"),
        &assert_copy(&hosts.receiver, &copied),
    );
    fill::file(there.join("photos/another"), 78, 6000);
    let again = pushes_little(&hosts, "nas2:clone", &[]);
    assert_eq!(again["parent"], copied["uuid"]);
    change(&hosts, 3);
    let third = pushes_little(&hosts, "nas2:photos", &[]);
    assert_eq!(third["parent"], second["uuid"]);
    assert_exact(&hosts.sender, &hosts.receiver, &third);
}

#[test]
fn snapshots_of_an_unconfigured_volume_are_one_volume() {
    let hosts = Linked::of(SenderHost::setup().start());
    let fs = hosts.sender.fs().to_owned();
    streams::create(&fs.join("home")).unwrap();
    fill::file(fs.join("home/big"), 1, BIG);
    fs::create_dir(fs.join(".snapshots")).unwrap();
    let snapshot = |n: u64| {
        fill::file(fs.join(format!("home/new{n}")), n, 5000);
        let dir = fs.join(format!(".snapshots/{n}"));
        fs::create_dir(&dir).unwrap();
        streams::snapshot(&fs.join("home"), &dir.join("snapshot")).unwrap();
        dir.join("snapshot")
    };
    let target = |path: &Path| format!("nas2:{}", path.display());
    let first = snapshot(1);
    hosts.sender.push(&target(&first));
    for n in 2..5 {
        let next = snapshot(n);
        let pushed = pushes_little(&hosts, &target(&next), &[]);
        assert_same(&next, &assert_copy(&hosts.receiver, &pushed));
    }
    // The same holds when the source of the snapshots is deleted.
    let last = snapshot(5);
    run(
        "btrfs",
        &[
            Path::new("subvolume"),
            Path::new("delete"),
            &fs.join("home"),
        ],
    );
    let pushed = pushes_little(&hosts, &target(&last), &[]);
    assert_same(&last, &assert_copy(&hosts.receiver, &pushed));
    assert_eq!(directories(&hosts.receiver), ["home"]);
}

#[test]
fn received_snapshots_pushed_on_stay_one_volume() {
    // nas1 pushes to nas2, whose backup disk is pushed on to nas3 by a sender on the same host.
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    fill::file(photos.join("big"), 1, BIG);
    let relay = SenderHost::setup().start();
    let far = ReceiverHost::new();
    let onward = Linked::between(relay, far);
    let mut before: Option<Value> = None;
    for night in 0..4 {
        fill::file(photos.join(format!("new{night}")), night, 5000);
        let pushed = hosts.sender.push("nas2:photos");
        let copy = hosts.receiver.copy(&pushed);
        let target = format!("nas2:{}", copy.display());
        let relayed = match &before {
            None => onward.sender.push(&target),
            Some(before) => {
                let relayed = pushes_little(&onward, &target, &[]);
                assert_eq!(relayed["parent"], before["uuid"], "night {night}");
                relayed
            }
        };
        assert_eq!(relayed["uuid"], pushed["uuid"]);
        assert_same(&copy, &assert_copy(&onward.receiver, &relayed));
        before = Some(relayed);
    }
    assert_eq!(directories(&onward.receiver).len(), 1);
}

#[test]
fn states_of_another_host_stay_its_own() {
    let hosts = hosts();
    hosts.sender.push("nas2:photos");
    let other = Paired::of(SenderHost::setup().start());
    let volume = hosts.sender.photos();
    let target = format!("nas2:{}", volume.display());
    let pushed = other.sender.push(&target);
    assert!(pushed["parent"].is_null(), "{pushed:#}");
    for sender in [&hosts.sender, &other.sender] {
        let listed = listed(sender);
        let foreign = listed
            .iter()
            .filter(|state| state["foreign_host"].is_string());
        assert_eq!((listed.len(), foreign.count()), (2, 1), "{listed:#?}");
    }
}

#[test]
fn a_receiver_claims_another_hosts_id_for_its_sender() {
    let hosts = hosts();
    let first = hosts.sender.push("nas2:photos");
    let mut other = Paired::of(SenderHost::setup().start());
    let record = |receiver: &ReceiverHost| {
        let senders = receiver.daemon.state_dir().join("senders");
        let file = senders.join(format!("{NAME}.json"));
        let record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        (file, record)
    };
    let (_, victim) = record(&hosts.receiver);
    let (file, mut lying_peer) = record(&other.receiver);
    lying_peer["former_ids"] = serde_json::json!([victim["sender_id"]]);
    fs::write(&file, lying_peer.to_string()).unwrap();
    other.receiver.daemon.stop();
    other.receiver.daemon.start();
    let volume = hosts.sender.photos();
    let target = format!("nas2:{}", volume.display());
    other.sender.push(&target);
    other.sender.push(&target);
    // The states are still shown as the other host's, and none of them is deleted.
    let of_victim = |state: &&Value| state["uuid"] == first["uuid"];
    let states = listed(&other.sender);
    let found = states.iter().find(of_victim).unwrap();
    assert!(found["foreign_host"].is_string(), "{found:#}");
    other.sender.ctl(&["prune"]).success();
    assert!(listed(&hosts.sender).iter().any(|s| of_victim(&s)));
    change(&hosts, 2);
    let second = pushes_little(&hosts, "nas2:photos", &[]);
    assert_eq!(second["parent"], first["uuid"]);
}

/// Runs `work` on the mounted state subvolume of a file system.
fn in_state<T>(fs: &Path, work: impl FnOnce(&Path) -> T) -> T {
    let top = Mount::private(&mount::devices(fs)[0], "subvolid=5");
    work(&top.path().join(".sendshot"))
}

#[test]
fn a_disk_from_elsewhere_claims_a_volume_of_another_disk() {
    let mut hosts = hosts();
    let first = hosts.sender.push("nas2:photos");
    let disk = LoopFs::new(256 << 20, &[], "").unwrap();
    let films = disk.path().join("films");
    streams::create(&films).unwrap();
    fill::file(films.join("film"), 5, 100_000);
    let photos = hosts.sender.photos();
    hosts
        .sender
        .configure([("photos", &*photos), ("films", &*films)]);
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    hosts.sender.push("nas2:films");
    // The sender loses its knowledge of this disk, and the disk claims the id of another volume.
    hosts.sender.daemon.stop();
    let known = hosts.sender.daemon.state_dir().join("volumes.json");
    let mut volumes: Value = serde_json::from_slice(&fs::read(&known).unwrap()).unwrap();
    let id = |volumes: &Value, name: &str| {
        let all = volumes.as_array().unwrap();
        let found = all.iter().find(|v| v.to_string().contains(name));
        found.unwrap_or_else(|| panic!("{volumes:#}"))["id"].clone()
    };
    let (of_photos, of_films) = (id(&volumes, "photos"), id(&volumes, "films"));
    let all = volumes.as_array_mut().unwrap();
    all.retain(|volume| volume["id"] == of_photos);
    fs::write(&known, volumes.to_string()).unwrap();
    in_state(disk.path(), |state| {
        let register = state.join("register.json");
        let text = fs::read_to_string(&register).unwrap();
        let [of_photos, of_films] = [&of_photos, &of_films].map(|id| id.as_str().unwrap());
        assert!(text.contains(of_films), "{text}");
        fs::write(&register, text.replace(of_films, of_photos)).unwrap();
    });
    hosts.sender.daemon.start();
    fill::file(films.join("another"), 6, 5000);
    let pushed = hosts.sender.push("nas2:films");
    assert_same(&films, &assert_copy(&hosts.receiver, &pushed));
    let copy = pushed["copy"].as_str().unwrap();
    assert!(copy.starts_with("nas1/films/"), "{pushed:#}");
    assert_eq!(directories(&hosts.receiver), ["films", "photos"]);
    change(&hosts, 2);
    let second = pushes_little(&hosts, "nas2:photos", &[]);
    assert_eq!(second["parent"], first["uuid"]);
    assert_exact(&hosts.sender, &hosts.receiver, &second);
}

#[test]
fn a_foreign_disk_has_odd_files_in_dot_sendshot() {
    let mut hosts = hosts();
    hosts.sender.push("nas2:photos");
    let fs_path = hosts.sender.fs().to_owned();
    let files = in_state(&fs_path, |state| {
        let pushes = fs::read_dir(state.join("pushes")).unwrap();
        let record = pushes.map(|entry| entry.unwrap().path()).next().unwrap();
        [state.join("register.json"), record].map(|p| p.strip_prefix(state).unwrap().to_owned())
    });
    for expected in ["not a regular file", "is damaged"] {
        hosts.sender.daemon.may_log(expected);
    }
    for file in &files {
        for other in ["mkfifo", "mkdir", "ln"] {
            hosts.sender.daemon.stop();
            in_state(&fs_path, |state| {
                let path = state.join(file);
                fs::rename(&path, state.join("aside")).unwrap();
                match other {
                    "ln" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
                    program => run(program, &[&path]),
                }
            });
            hosts.sender.daemon.start();
            // The file is skipped or refused by its name; no command blocks on it or reads without end.
            hosts.sender.ctl(&["list"]).success();
            hosts.sender.ctl(&["prune"]).success();
            let pushed = hosts.sender.ctl(&["push", "nas2:photos"]);
            match (file.ends_with("register.json"), other) {
                (true, "mkdir") => pushed.fails(1, &[".sendshot/register.json", "subvolid=5"]),
                _ => pushed.success(),
            };
            hosts.sender.daemon.stop();
            in_state(&fs_path, |state| {
                let path = state.join(file);
                if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
                    fs::remove_dir(&path).unwrap();
                }
                fs::rename(state.join("aside"), &path).unwrap();
            });
            hosts.sender.daemon.start();
        }
    }
    change(&hosts, 9);
    let pushed = pushes_little(&hosts, "nas2:photos", &[]);
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    directory_and_sendshot_are_odd(&mut hosts);
}

/// Puts a file in place of a directory, and a pipe in place of a sendshot.
fn directory_and_sendshot_are_odd(hosts: &mut Linked) {
    let fs_path = hosts.sender.fs().to_owned();
    in_state(&fs_path, |state| {
        fs::rename(state.join("pushes"), state.join("aside")).unwrap();
        fs::write(state.join("pushes"), "").unwrap();
    });
    let told = [".sendshot/pushes", "is not a directory", "subvolid=5"];
    hosts.sender.daemon.may_log("look for this host's states");
    hosts.sender.ctl(&["push", "nas2:photos"]).fails(1, &told);
    in_state(&fs_path, |state| {
        fs::remove_file(state.join("pushes")).unwrap();
        fs::rename(state.join("aside"), state.join("pushes")).unwrap();
        for entry in fs::read_dir(state.join("sendshots")).unwrap() {
            let path = entry.unwrap().path();
            fs::remove_file(&path).unwrap();
            run("mkfifo", &[&path]);
        }
    });
    hosts.sender.daemon.may_log("is not a sendshot");
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(pushed["parent_reason_code"], "sendshot-foreign");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}

/// Loses the system disks of both hosts: no receiver knows the sender's former ids.
fn lose_both(hosts: &mut Linked) {
    lose_system(&mut hosts.sender);
    hosts.receiver.daemon.stop();
    fs::remove_dir_all(hosts.receiver.daemon.state_dir()).unwrap();
    for expected in ["belongs to the receiver", "certificate"] {
        hosts.receiver.daemon.may_log(expected);
    }
    hosts.receiver.daemon.start();
    hosts
        .receiver
        .ctl(&["copy", "root", "take-over", "--yes"])
        .success();
    let token = hosts.receiver.invite(&[NAME]);
    let address = hosts.link.address().to_string();
    let arguments = ["pair", &address, "--name", "nas2", "--token", &token];
    hosts.sender.ctl(&arguments).success();
}

#[test]
fn the_system_disks_of_both_hosts_died() {
    let mut hosts = hosts();
    let first = hosts.sender.push("nas2:photos");
    lose_both(&mut hosts);
    // Only root can tell that the states are this host's own.
    let kept = listed(&hosts.sender);
    assert_eq!(kept.len(), 1, "{kept:#?}");
    assert!(kept[0]["foreign_host"].is_string(), "{kept:#?}");
    hosts.sender.ctl(&["prune"]).success();
    assert_eq!(listed(&hosts.sender).len(), 1);
    let photos = hosts.sender.photos();
    let take_over = ["take-over".as_ref(), photos.as_os_str(), "--yes".as_ref()];
    hosts.sender.ctl(&take_over).success();
    assert!(listed(&hosts.sender)[0]["foreign_host"].is_null());
    change(&hosts, 2);
    let second = pushes_little(&hosts, "nas2:photos", &[]);
    assert_eq!(second["parent"], first["uuid"]);
    assert_eq!(directories(&hosts.receiver), ["photos"]);
    assert_exact(&hosts.sender, &hosts.receiver, &second);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    hosts
        .sender
        .ctl(&take_over)
        .fails(2, &["no states of other hosts"]);
}

#[test]
fn root_deletes_what_another_host_left() {
    let sender = SenderHost::setup().volume("photos", "photos").pin_parent();
    let mut hosts = Linked::of(sender.start());
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    hosts.sender.push("nas2:photos");
    lose_both(&mut hosts);
    let photos = hosts.sender.photos();
    let forget = ["forget".as_ref(), "--foreign".as_ref(), photos.as_os_str()];
    hosts.sender.ctl(&forget).fails(2, &["--yes"]);
    assert_eq!(listed(&hosts.sender).len(), 1);
    let forget = [&forget[..], &["--yes".as_ref()]].concat();
    hosts.sender.ctl(&forget).success();
    assert!(listed(&hosts.sender).is_empty());
    let top = Mount::private(&mount::devices(hosts.sender.fs())[0], "subvolid=5");
    for dir in ["snapshots", "pushes", "sendshots"] {
        let dir = top.path().join(".sendshot").join(dir);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "{dir:?}");
    }
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(directories(&hosts.receiver), ["photos"]);
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}

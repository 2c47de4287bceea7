//! Pushes from sendshots: no old data is pinned on the sender, and every copy is exact.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sendshot_harness::compare::exact::{Reference, assert_copy, assert_same};
use sendshot_harness::compare::subvolumes;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::hosts::command::tool;
use sendshot_harness::hosts::pairing::{Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::every_file_kind;
use sendshot_harness::trees::fill;
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;

/// Pushes and compares the copy with a snapshot taken just before, since reading the volume
/// itself would change its access times.
#[track_caller]
fn push(hosts: &Paired) -> Value {
    let reference = Reference::of(hosts.sender.fs(), &hosts.sender.photos());
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(pushed["engine"], "sendshot");
    assert_same(reference.path(), &assert_copy(&hosts.receiver, &pushed));
    pushed
}

fn delete(subvolume: &Path) {
    tool(
        "btrfs",
        &[
            "subvolume".as_ref(),
            "delete".as_ref(),
            subvolume.as_os_str(),
        ],
    );
}

/// Returns the bytes that the file system uses for data, once deleted data is really freed.
fn used(fs: &Path) -> u64 {
    for what in ["filesystem", "subvolume", "filesystem"] {
        tool("btrfs", &[what.as_ref(), "sync".as_ref(), fs.as_os_str()]);
    }
    let usage = tool(
        "btrfs",
        &[
            "filesystem".as_ref(),
            "df".as_ref(),
            "-b".as_ref(),
            fs.as_os_str(),
        ],
    );
    let data = usage.lines().find(|line| line.starts_with("Data")).unwrap();
    data.rsplit("used=").next().unwrap().trim().parse().unwrap()
}

/// Runs `look` on the mounted state subvolume of the sender.
fn state_subvolume<T>(hosts: &Paired, look: impl FnOnce(&Path) -> T) -> T {
    let top = Mount::private(&mount::devices(hosts.sender.fs())[0], "subvolid=5");
    look(&top.path().join(".sendshot"))
}

/// Uses a whole gibibyte, so that nothing else on the file system matters.
#[test]
fn the_next_push_is_incremental_and_nothing_is_pinned() {
    const FILES: u64 = 64;
    let sender = SenderHost::setup()
        .size(4 << 30)
        .volume("photos", "photos")
        .start();
    let receiver = ReceiverHost::with_size(4 << 30);
    pair(&sender, &receiver, "nas2");
    let hosts = Paired { sender, receiver };
    let photos = hosts.sender.photos();
    let write = |seed| {
        for file in 0..FILES {
            fill::file(photos.join(format!("file-{file}")), seed + file, 16 * MIB);
        }
    };
    write(0);
    let first = push(&hosts);
    let before = used(hosts.sender.fs());
    write(1000);
    let after = used(hosts.sender.fs());
    println!("{before} bytes used for 1 GiB after the push, {after} when all was overwritten");
    assert!(
        after < before + 64 * MIB as u64,
        "{after} bytes are used for 1 GiB: the past is pinned"
    );
    let subvolumes = subvolumes::list(hosts.sender.fs());
    let ours: Vec<_> = subvolumes
        .into_iter()
        .filter(|s| s.path.contains(".sendshot"))
        .collect();
    assert!(
        matches!(ours.as_slice(), [state] if state.path == ".sendshot"),
        "more than the state subvolume is left: {ours:?}"
    );
    fs::write(photos.join("small"), "news").unwrap();
    let second = push(&hosts);
    assert_eq!(second["parent"], first["uuid"]);
    fs::write(photos.join("small"), "other news").unwrap();
    let third = push(&hosts);
    assert_eq!(third["parent"], second["uuid"]);
    assert!(third["stream_bytes"].as_u64().unwrap() < 10_000, "{third}");
}

#[test]
fn everything_that_a_file_system_can_hold_is_brought_over() {
    let hosts = Paired::new();
    every_file_kind::fill(&hosts.sender.photos());
    let first = push(&hosts);
    every_file_kind::change(&hosts.sender.photos());
    let second = push(&hosts);
    assert_eq!(second["parent"], first["uuid"]);
    let nothing = push(&hosts);
    assert_eq!(nothing["parent"], second["uuid"]);
}

fn snapshot(from: &Path, to: &Path) {
    tool(
        "btrfs",
        &[
            "subvolume".as_ref(),
            "snapshot".as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ],
    );
}

#[track_caller]
fn plan(hosts: &Paired, options: &[&str]) -> Value {
    let arguments = [&["plan", "--json", "nas2:photos"], options].concat();
    hosts.sender.ctl(&arguments).success().json()
}

#[test]
fn a_rolled_back_volume_is_compared_with_its_nearest_state() {
    let hosts = Paired::new();
    let (fs, photos) = (hosts.sender.fs().to_owned(), hosts.sender.photos());
    fill::tree(&photos, 1);
    let near = push(&hosts);
    let past = fs.join("past");
    snapshot(&photos, &past);
    for seed in [2, 3] {
        fill::tree(&photos, seed);
        push(&hosts);
    }
    delete(&photos);
    snapshot(&past, &photos);
    let planned = plan(&hosts, &[]);
    let notes = planned["notes"].to_string();
    for text in ["replaced", "inodes were read again", "compared safely"] {
        assert!(notes.contains(text), "{notes}");
    }
    let after = push(&hosts);
    assert_eq!(after["parent"], near["uuid"], "not the nearest: {after}");
    let reason = after["parent_reason"].as_str().unwrap();
    for text in ["every file is compared", "shortest stream of the 3", "KiB"] {
        assert!(reason.contains(text), "{reason}");
    }
    for field in ["parent", "parent_reason", "stream_bytes"] {
        assert_eq!(planned[field], after[field]);
    }
}

#[test]
fn after_a_balance_a_plan_says_why_much_is_read_again() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    for dir in 0..20 {
        fill::tree(&photos.join(dir.to_string()), dir);
    }
    push(&hosts);
    let balance = ["balance", "start", "--full-balance"].map(AsRef::as_ref);
    tool(
        "btrfs",
        &[&balance[..], &[hosts.sender.fs().as_os_str()]].concat(),
    );
    fs::write(photos.join("3/dir2/below/file3"), "changed").unwrap();
    let planned = plan(&hosts, &[]);
    let notes = planned["notes"].to_string();
    assert!(
        notes.contains("balance") && notes.contains("read again"),
        "{notes}"
    );
    assert!(planned["stream_bytes"].as_u64() < Some(10_000), "{planned}");
    assert_eq!(push(&hosts)["stream_bytes"], planned["stream_bytes"]);
}

#[test]
fn a_plan_uses_hashes_and_they_are_deleted_with_their_sendshot() {
    let hosts = Paired::new();
    let image = hosts.sender.photos().join("image");
    fs::write(&image, "").unwrap();
    tool("chattr", &["+C".as_ref(), image.as_os_str()]);
    fill::file(&image, 1, 8 * MIB);
    push(&hosts);
    for round in 0..4 {
        let file = fs::File::options().write(true).open(&image).unwrap();
        let offset = (round + 1) * MIB as u64;
        file.write_all_at(&fill::noise(round, 5000), offset)
            .unwrap();
        let planned = plan(&hosts, &[]);
        let pushed = push(&hosts);
        assert_eq!(planned["stream_bytes"], pushed["stream_bytes"]);
        assert!(
            pushed["stream_bytes"].as_u64() < Some(MIB as u64),
            "{pushed}"
        );
    }
    let count = |suffix: &str| {
        state_subvolume(&hosts, |state| {
            let all = fs::read_dir(state.join("sendshots")).unwrap();
            let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name.ends_with(suffix)).count()
        })
    };
    assert_eq!([count(""), count(".sendshot"), count(".hashes")], [6, 3, 3]);
}

#[test]
fn a_plan_names_the_paths_that_cost_most() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    fill::tree(&photos, 1);
    push(&hosts);
    assert_eq!(plan(&hosts, &[])["top"], json!([]));
    fill::file(photos.join("large"), 1, 5 * MIB);
    fill::file(photos.join("dir3/larger"), 2, 6 * MIB);
    fs::write(photos.join("small"), "small").unwrap();
    let top = |options: &[&str]| {
        let planned = plan(&hosts, options);
        let top = planned["top"].as_array().unwrap().clone();
        let paths: Vec<_> = top.iter().map(|cost| cost["path"].clone()).collect();
        let sum: u64 = top.iter().filter_map(|c| c["stream_bytes"].as_u64()).sum();
        (paths, sum, planned["stream_bytes"].as_u64().unwrap())
    };
    let (paths, sum, _) = top(&["--top=2"]);
    assert_eq!(paths, ["dir3/larger", "large"]);
    assert!(sum > 11 * MIB as u64);
    let (paths, sum, all) = top(&["--top"]);
    assert!(paths.contains(&json!("small")), "{paths:?}");
    // Everything except the header of the stream.
    assert_eq!(sum + 17, all);
    let told = hosts.sender.ctl(&["plan", "--top=1", "nas2:photos"]);
    let told = told.success().stdout;
    assert!(told.contains("6.0 MiB  dir3/larger"), "{told}");
}

#[test]
fn a_damaged_sendshot_is_never_used() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    push(&hosts);
    state_subvolume(&hosts, |state| {
        for entry in fs::read_dir(state.join("sendshots")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    });
    hosts.sender.daemon.may_log("a sendshot is not used");
    let pushed = push(&hosts);
    assert_eq!(pushed["parent"], json!(null));
    let reason = pushed["parent_reason"].as_str().unwrap();
    assert!(reason.contains("is damaged"), "{reason}");
}

#[test]
fn as_many_sendshots_are_kept_as_the_configuration_says() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    for round in 0..5 {
        fs::write(photos.join("file"), format!("round {round}")).unwrap();
        push(&hosts);
    }
    let kept = hosts.sender.ctl(&["list", "--json"]).success().jsons();
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert!(
        kept.iter()
            .all(|kept| kept["sendshot_bytes"].as_u64() > Some(0))
    );
    let files = state_subvolume(&hosts, |state| {
        fs::read_dir(state.join("sendshots")).unwrap().count()
    });
    assert_eq!(files, 3);
}

//! `sendshotctl stream send` and `diff` with sendshots, without any daemon. Needs root.
#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::Path;
use std::process::Command;

use sendshot_harness::compare::tree;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{Output, run};

fn ctl(arguments: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(binaries::path("sendshotctl"));
    run(command.args(arguments).current_dir(dir))
}

fn volume() -> (LoopFs, LoopFs) {
    let (source, target) = (
        LoopFs::new(1 << 30, &[], "").unwrap(),
        LoopFs::new(1 << 30, &[], "").unwrap(),
    );
    streams::create(&source.path().join("v")).unwrap();
    (source, target)
}

fn delete(subvolume: &Path) {
    run(Command::new("btrfs")
        .args(["subvolume", "delete", "--commit-after"])
        .arg(subvolume))
    .success();
}

#[test]
fn a_sendshot_replaces_its_snapshot_in_a_pipe() {
    let (source, target) = volume();
    let (fs, volume) = (source.path(), source.path().join("v"));
    for dir in ["a", "b"] {
        fs::create_dir(volume.join(dir)).unwrap();
        fs::write(volume.join(dir).join("file"), dir.repeat(50_000)).unwrap();
    }
    for (round, parent) in [("1", None), ("2", Some("1"))] {
        let snapshot = fs.join(format!("s{round}"));
        streams::snapshot(&volume, &snapshot).unwrap();
        let (save, base) = (
            format!("{round}.sendshot"),
            parent.map(|p| format!("{p}.sendshot")),
        );
        let (out, name) = (format!("{round}.stream"), format!("s{round}"));
        let mut arguments = vec!["stream", "send", "--save-sendshot", &save, "-f", &out];
        if let Some(base) = &base {
            arguments.extend(["--sendshot", base]);
        }
        arguments.push(&name);
        ctl(&arguments, fs).success();
        let stream = fs::read(fs.join(&out)).unwrap();
        streams::stock_receive(&stream, target.path()).unwrap();
        let differences = tree::compare(&snapshot, &target.path().join(&name)).unwrap();
        assert!(differences.is_empty(), "{differences:?}");
        if parent.is_some() {
            assert!(
                stream.len() < 5000,
                "an increment of {} bytes",
                stream.len()
            );
        }
        delete(&snapshot);
        fs::rename(volume.join("a"), volume.join("t")).unwrap();
        fs::rename(volume.join("b"), volume.join("a")).unwrap();
        fs::rename(volume.join("t"), volume.join("b")).unwrap();
        fs::write(volume.join("new"), "news").unwrap();
    }
    let changes = ctl(&["diff", "1.sendshot", "2.sendshot"], fs)
        .success()
        .stdout;
    let lines: Vec<&str> = changes.lines().map(str::trim_end).collect();
    for expected in [
        "moved      b  (from a)",
        "moved      a  (from b)",
        "new        new  4 B",
    ] {
        assert!(lines.contains(&expected), "{expected} is not in\n{changes}");
    }
    assert!(
        !changes.contains("tmp"),
        "a name that never existed: {changes}"
    );
}

#[test]
fn a_file_that_is_no_sendshot_is_named() {
    let (source, _) = volume();
    let fs = source.path();
    streams::snapshot(&fs.join("v"), &fs.join("s1")).unwrap();
    fs::write(fs.join("junk"), "no sendshot at all").unwrap();
    let send = ["stream", "send", "--sendshot", "junk", "-f", "out", "s1"];
    ctl(&send, fs).fails(2, &["junk: is not a sendshot", "everything is sent"]);
    assert!(!fs.join("out").exists(), "half a stream was left");
    ctl(&["diff", "junk", "junk"], fs).fails(2, &["junk: is not a sendshot"]);
    ctl(&["diff", "missing", "junk"], fs).fails(2, &["missing"]);
}

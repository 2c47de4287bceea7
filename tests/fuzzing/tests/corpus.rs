//! Replays the seeds and the findings of the fuzzers: see `tests/fuzz`. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use sendshot_fuzzing::{TARGETS, Target};

/// Returns the kept inputs of a target, one per file.
fn kept(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target.name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut kept: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    kept.sort();
    kept
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let kept = kept(target);
    assert!(!kept.is_empty(), "nothing is kept of {name}");
    let mut broken = Vec::new();
    for (path, input) in &kept {
        if panic::catch_unwind(|| (target.run)(input)).is_err() {
            broken.push(path.display().to_string());
        }
    }
    for (number, input) in (target.seeds)().iter().enumerate() {
        if panic::catch_unwind(|| (target.run)(input)).is_err() {
            broken.push(format!("seed {number} of {name}"));
        }
    }
    println!("{name}: {} inputs kept", kept.len());
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn streams() {
    replay("stream");
}

#[test]
fn commands() {
    replay("commands");
}

#[test]
fn sendshots() {
    replay("sendshot");
}

#[test]
fn resume_states() {
    replay("resume_state");
}

#[test]
fn registers() {
    replay("register");
}

#[test]
fn messages() {
    replay("messages");
}

/// Every target has a program, and every program a target.
#[test]
fn programs_are_those_of_the_targets() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let programs = fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    });
    let mut programs: Vec<_> = programs.collect();
    programs.sort();
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(programs, names);
}

//! Checks after every iteration.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fault::REFUSED;
use crate::world::{Copy, Parent, World};
use sendshot_harness::compare::subvolumes;
use sendshot_harness::compare::tree::{self, Layout};
use sendshot_harness::hosts::command::Output;
use sendshot_harness::hosts::sender_host::SenderHost;

/// Time limit for both sides to clean up after an ended push.
pub(super) const CLEANING: Duration = Duration::from_secs(10);

/// Position of holes is ignored: faults do not affect it, and random changes find places where a copy
/// has a block of zeros instead.
const LAYOUT: Layout = Layout::Ignore;

/// Most differences shown in a failure.
const SHOWN: usize = 5;

impl World {
    /// Checks everything after an undisturbed push. The states of the volume since `since` are those that
    /// may have been pushed since the last check, the newest by this push. `before` are the copies that
    /// existed when it began.
    pub(super) fn check(
        &mut self,
        pushed: &Value,
        since: usize,
        parent: Parent,
        before: &BTreeSet<String>,
    ) {
        let held = self.held();
        // A requested full push may have resumed in the middle.
        let goes_on = parent == Parent::NotAskedFor && !pushed["resumed_at"].is_null();
        // The push before may have committed the state already, so that nothing was left to send.
        let was_there = pushed["stream_bytes"] == 0;
        if parent != Parent::None && !goes_on && !was_there {
            self.parent_is_the_newest(pushed, before, &uuids(&held));
        }
        self.no_copy_is_gone(&held);
        for copy in &held {
            self.know(copy, since);
        }
        let newest = self.states.len() - 1;
        self.check_told(pushed, newest);
        pushed["uuid"].as_str().unwrap().clone_into(&mut self.last);
        self.acknowledged_states_are_held(&held);
        self.nothing_is_left(&held);
        let Self { hosts, .. } = self;
        for daemon in [&hosts.sender.daemon, &hosts.receiver.daemon] {
            let lines = daemon.undeclared();
            assert!(lines.is_empty(), "undeclared in a log: {lines:#?}");
        }
    }

    /// Asserts that the copy named in a report exists, and is of state `since` or a later one.
    pub(super) fn check_told(&self, pushed: &Value, since: usize) {
        let uuid = pushed["uuid"].as_str().unwrap();
        let copy = self.copies.get(uuid);
        let copy = copy.unwrap_or_else(|| panic!("told of a copy that is not there: {pushed}"));
        let path = self.hosts.receiver.copy(pushed);
        assert_eq!(path, copy.path, "told of another place: {pushed}");
        assert!(
            copy.state >= since,
            "told that this is the newest state: {pushed}"
        );
    }

    /// Asserts that committed states are not sent again, even if their acknowledgement was lost.
    fn parent_is_the_newest(
        &self,
        pushed: &Value,
        before: &BTreeSet<String>,
        held: &BTreeSet<String>,
    ) {
        let uuid = pushed["uuid"].as_str().unwrap();
        let unknown = |uuid: &&String| !self.copies.contains_key(*uuid);
        // Copies made by the disturbed push, and by this one before the copy it reports.
        let untold: BTreeSet<_> = before.iter().filter(unknown).collect();
        let on_the_way: BTreeSet<_> = held.difference(before).filter(|u| *u != uuid).collect();
        let newest = match untold.is_empty() {
            true => BTreeSet::from([&self.last]),
            false => untold,
        };
        if newest.iter().any(|u| **u == uuid) {
            return; // its lost acknowledgement was detected, and nothing was left to send
        }
        // A lying peer has had a parent refused, which is never used again.
        if self.lie.is_some() && self.hosts.sender.daemon.log().contains(REFUSED) {
            return;
        }
        let parent = pushed["parent"].as_str().unwrap_or_else(|| {
            panic!("all was sent again although there was a common state: {pushed}")
        });
        assert!(
            newest.iter().chain(&on_the_way).any(|u| **u == parent),
            "more was sent again than had to be: the newest copies were {newest:?}: {pushed}"
        );
    }

    pub(super) fn held_uuids(&self) -> BTreeSet<String> {
        uuids(&self.held())
    }

    /// The copies that the receiver lists.
    fn held(&self) -> Vec<Value> {
        let held = self.hosts.receiver.ctl(&["copy", "list", "--json"]);
        held.success().jsons()
    }

    fn no_copy_is_gone(&self, held: &[Value]) {
        let held = uuids(held);
        let known: BTreeSet<_> = self.copies.keys().cloned().collect();
        let gone: Vec<_> = known.difference(&held).collect();
        assert!(gone.is_empty(), "copies are gone: {gone:?}");
    }

    /// Finds the state of a new copy: the newest that it equals.
    fn know(&mut self, copy: &Value, since: usize) {
        let uuid = copy["uuid"].as_str().unwrap();
        if self.copies.contains_key(uuid) {
            return;
        }
        assert_eq!(copy["unusable"], Value::Null, "a new copy is no parent");
        let path = PathBuf::from(copy["path"].as_str().unwrap());
        let states = (since..self.states.len()).rev();
        let mut all = Vec::new();
        for state in states {
            let differences = self.differences(state, &path);
            if differences.is_empty() {
                self.copies.insert(uuid.to_owned(), Copy { path, state });
                return;
            }
            all.push(differences);
        }
        for differences in &mut all {
            differences.truncate(SHOWN);
        }
        panic!(
            "the copy {} is of no state that the volume was in, differences to each: {all:#?}",
            path.display()
        );
    }

    fn differences(&self, state: usize, copy: &Path) -> Vec<String> {
        tree::compare_with(self.states[state].path(), copy, LAYOUT).unwrap()
    }

    /// Compares every copy again with its state.
    pub(super) fn all_copies_are_what_they_were(&self) {
        for (uuid, copy) in &self.copies {
            let mut differences = self.differences(copy.state, &copy.path);
            differences.truncate(SHOWN);
            assert!(
                differences.is_empty(),
                "the copy {uuid} has changed: {differences:#?}"
            );
        }
    }

    fn acknowledged_states_are_held(&self, held: &[Value]) {
        let acknowledged = acknowledged(&kept(&self.hosts.sender));
        let held = uuids(held);
        let missing: Vec<_> = acknowledged.difference(&held).collect();
        let missing: Vec<_> = missing
            .into_iter()
            .filter(|uuid| !self.lied.contains(*uuid))
            .collect();
        assert!(
            missing.is_empty(),
            "acknowledged, and the receiver does not hold it: {missing:?}"
        );
    }

    /// Notes the states that a lying peer has made the sender take for acknowledged.
    pub(super) fn note_false_acknowledgements(&mut self) {
        let held = uuids(&self.held());
        let acknowledged = acknowledged(&kept(&self.hosts.sender));
        self.lied.extend(acknowledged.difference(&held).cloned());
    }

    /// Asserts that, once both sides have cleaned up, every file and subvolume of Sendshot on both disks
    /// has an owner.
    fn nothing_is_left(&self, held: &[Value]) {
        self.hosts.sender.wait_until_released();
        let end = Instant::now() + CLEANING;
        loop {
            let left = [
                left_at_sender(&self.hosts.sender),
                self.left_at_receiver(held),
            ]
            .concat();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left over: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left_at_receiver(&self, held: &[Value]) -> Vec<String> {
        let receiver = &self.hosts.receiver;
        let held: BTreeSet<_> = held.iter().map(|c| c["path"].as_str().unwrap()).collect();
        let all = subvolumes::list(receiver.fs()).into_iter();
        let all = all.map(|s| receiver.fs().join(s.path).display().to_string());
        let mut left: Vec<_> = all.filter(|path| !held.contains(&**path)).collect();
        left.extend(names(&receiver.root().join(".sendshot-staging")));
        let partials = receiver.ctl(&["copy", "list", "--partials", "--json"]);
        left.extend(lines("a partial", &partials));
        left
    }
}

/// Lists the files and subvolumes of Sendshot on the sender's disk that have no owner.
pub(super) fn left_at_sender(sender: &SenderHost) -> Vec<String> {
    let kept = kept(sender);
    let partials = sender.ctl(&["list", "--partials", "--json"]);
    let mut left = lines("interrupted", &partials);
    let snapshots: BTreeSet<_> = kept
        .iter()
        .filter(|k| k["kind"] == "snapshot")
        .collect_uuids();
    let fs = sender.fs();
    let ours = subvolumes::list(fs).into_iter();
    let ours = ours.filter(|s| s.path.starts_with(".sendshot/"));
    left.extend(
        ours.filter(|s| !snapshots.contains(&s.uuid))
            .map(|s| format!("a snapshot of the sender: {s:?}")),
    );
    let number = |which: &dyn Fn(&Value) -> bool| kept.iter().filter(|k| which(k)).count();
    let sendshots = number(&|k| !k["sendshot_bytes"].is_null());
    let hashes = number(&|k| k["hashes_bytes"].as_u64() > Some(0));
    for (dir, expected) in [("sendshots", sendshots + hashes), ("pushes", kept.len())] {
        let mut names = names(&fs.join(".sendshot").join(dir));
        // Marks belong to the record beside them, and are deleted with it at the latest.
        let records: Vec<_> = names
            .iter()
            .filter(|n| n.ends_with(".json"))
            .cloned()
            .collect();
        names.retain(|name| {
            let record = name
                .strip_suffix(".marks")
                .map(|push| format!("{push}.json"));
            record.is_none_or(|record| !records.contains(&record))
        });
        if names.len() != expected {
            left.push(format!(
                "{dir} of the sender: {names:?}, and {expected} are known of"
            ));
        }
    }
    left
}

fn kept(sender: &SenderHost) -> Vec<Value> {
    let kept = sender.ctl(&["list", "--json"]);
    kept.success().jsons()
}

fn lines(what: &str, output: &Output) -> Vec<String> {
    assert_eq!(output.code, 0, "{output:#?}");
    let lines = output.stdout.lines();
    lines.map(|line| format!("{what}: {line}")).collect()
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn uuids(all: &[Value]) -> BTreeSet<String> {
    all.iter().collect_uuids()
}

fn acknowledged(kept: &[Value]) -> BTreeSet<String> {
    let acknowledged = kept.iter().filter(|k| k["state"] == "acknowledged");
    acknowledged.collect_uuids()
}

trait Uuids {
    fn collect_uuids(self) -> BTreeSet<String>;
}

impl<'v, I: Iterator<Item = &'v Value>> Uuids for I {
    fn collect_uuids(self) -> BTreeSet<String> {
        self.map(|v| v["uuid"].as_str().unwrap().to_owned())
            .collect()
    }
}

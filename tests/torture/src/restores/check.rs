//! Checks after every run of a restore.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::check::{CLEANING, left_at_sender, names};
use crate::restores::task::{Destination, Task};
use crate::restores::world::{World, uuid};
use sendshot_harness::compare::exact::{Reference, assert_exact};
use sendshot_harness::compare::tree::{self, Layout};

/// Most differences shown in a failure.
const SHOWN: usize = 5;

/// Name of the staging area.
const STAGING: &str = ".sendshot-staging";

impl World {
    /// Checks the target of a restore that may have been disturbed. Returns whether it is complete.
    pub(super) fn check_between(&self, task: &Task) -> bool {
        let sender = &self.hosts.sender;
        let found = uuid(sender.fs(), &task.target);
        match &task.destination {
            Destination::InPlace { old, content } => {
                let found = found.expect("the name of the volume is free");
                let is_complete = found != *old;
                let aside = self.put_aside();
                let olds = aside
                    .iter()
                    .filter(|path| uuid(sender.fs(), path).as_ref() == Some(old));
                let at = match is_complete {
                    true => olds.last().expect("the old volume is gone"),
                    false => &task.target,
                };
                self.assert_equal(content.path(), at, "the old volume has changed");
                if is_complete {
                    self.assert_equal(&task.copy.path, &task.target, "it is not the copy");
                }
                is_complete
            }
            Destination::Free | Destination::EmptyDirectory if found.is_some() => {
                self.assert_equal(&task.copy.path, &task.target, "it is not the copy");
                true
            }
            Destination::Free => {
                let exists = task.target.symlink_metadata().is_ok();
                assert!(!exists, "there is something at the target");
                false
            }
            Destination::EmptyDirectory => {
                let entries = fs::read_dir(&task.target).expect("the empty directory is gone");
                assert_eq!(entries.count(), 0, "there is something in the target");
                false
            }
        }
    }

    /// Checks that a successful restore has left nothing behind. `restored` is the report of an undisturbed one.
    pub(super) fn check_restored(&self, task: &Task, restored: Option<&Value>) {
        // A fetch that an earlier run ended has left a capture, which expires.
        let fetched = restored.is_some_and(|report| report["wire_bytes"].as_u64() > Some(0));
        let end = Instant::now() + CLEANING;
        loop {
            let mut left = self.left_at_target(task);
            left.extend(left_at_sender(&self.hosts.sender));
            if fetched {
                left.extend(self.captures(task));
            }
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left over: {left:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether a restore is complete and has deleted its files: it died just before its report.
    pub(super) fn is_finished(&self, task: &Task) -> bool {
        self.check_between(task) && self.left_at_target(task).is_empty()
    }

    fn left_at_target(&self, task: &Task) -> Vec<String> {
        let fs = self.hosts.sender.fs();
        let mut left = Vec::new();
        // A power cut may bring back an empty directory.
        if !names(&fs.join(STAGING)).is_empty() {
            left.push(format!("staging: {:?}", names(&fs.join(STAGING))));
        }
        let hidden = fs.join(".sendshot").join(STAGING);
        if !names(&hidden).is_empty() {
            left.push(format!("hidden staging: {:?}", names(&hidden)));
        }
        let expected = usize::from(matches!(task.destination, Destination::InPlace { .. }));
        let aside = self.put_aside();
        if aside.len() != expected {
            left.push(format!("volumes put aside: {aside:?}"));
        }
        left
    }

    /// The captures of the task's copy.
    fn captures(&self, task: &Task) -> Vec<String> {
        let receiver = &self.hosts.receiver;
        let copy = uuid(receiver.fs(), &task.copy.path).unwrap();
        let mut captures = names(&receiver.root().join(STAGING));
        captures.extend(names(&receiver.daemon.state_dir().join("captures")));
        captures.retain(|name| name.contains(&copy));
        captures
    }

    /// The volumes that restores in place have put aside, or are about to.
    pub(super) fn put_aside(&self) -> Vec<PathBuf> {
        let fs = self.hosts.sender.fs();
        let names = names(fs).into_iter();
        let names = names.filter(|name| name.starts_with("photos.before-restore-"));
        names.map(|name| fs.join(name)).collect()
    }

    /// Compares a push with its volume.
    pub(super) fn check_pushed(&self, pushed: &Value) {
        assert_exact(&self.hosts.sender, &self.hosts.receiver, pushed);
    }

    /// Compares a subvolume of the restoring host. Reading it would change its access times.
    fn assert_equal(&self, expected: &Path, found: &Path, what: &str) {
        let snapshot = Reference::of(self.hosts.sender.fs(), found);
        let compared = tree::compare_with(expected, snapshot.path(), Layout::Ignore);
        let mut differences = compared.unwrap();
        differences.truncate(SHOWN);
        assert!(differences.is_empty(), "{what}: {differences:#?}");
    }
}

//! Reads the reasons that Sendshot states out of its JSON, and prepares the conditions on a host that make it
//! state one.

use std::fs;
use std::path::{Path, PathBuf};

use sendshot_model::ReasonCode;
use serde_json::Value;

use crate::disks::loopfs;
use crate::disks::mount::{self, Mount};
use crate::disks::raw;
use crate::disks::streams;
use crate::hosts::command::tool;
use crate::hosts::pairing::Paired;
use crate::hosts::sender_host::SenderHost;
use crate::hosts::until;
use crate::trees::fill;

/// Options that select the kernel engine.
pub const KERNEL: [&str; 2] = ["--engine", "kernel"];

/// Printed JSON of a plan.
#[derive(Debug)]
pub struct Planned(Value);

/// Plans a push.
///
/// # Panics
/// If `plan` fails.
#[track_caller]
pub fn plan(sender: &SenderHost, target: &str, options: &[&str]) -> Planned {
    let arguments = [&["plan", "--json", target], options].concat();
    Planned(sender.ctl(&arguments).success().json())
}

impl Planned {
    /// Wraps the JSON of a plan that was printed elsewhere.
    pub fn of(printed: Value) -> Self {
        Self(printed)
    }

    /// Asserts a reason with this code whose text contains each of `texts`.
    ///
    /// # Panics
    /// If the reason is another one.
    #[track_caller]
    pub fn because(self, code: ReasonCode, texts: &[&str]) -> Self {
        assert_reason(&self.0, code, texts);
        self
    }

    /// Asserts this verdict code for the copy that a push reported.
    ///
    /// # Panics
    /// If the verdict is another one.
    #[track_caller]
    pub fn verdict(self, pushed: &Value, code: ReasonCode, texts: &[&str]) -> Self {
        let copies = self.0["candidates"].as_array().unwrap();
        let copy = copies.iter().find(|copy| copy["uuid"] == pushed["uuid"]);
        let copy = copy.unwrap_or_else(|| panic!("no such copy: {}", self.0));
        assert_eq!(copy["verdict_code"], code.as_str(), "{copy}");
        assert_texts(&copy["verdict"], texts);
        self
    }

    /// Asserts that there is no parent.
    ///
    /// # Panics
    /// If there is one.
    #[track_caller]
    pub fn sends_all(self) -> Self {
        assert_eq!(self.0["parent"], Value::Null, "{}", self.0);
        self
    }

    /// Asserts that the parent is the copy that a push reported.
    ///
    /// # Panics
    /// If it is another one.
    #[track_caller]
    pub fn builds_on(self, pushed: &Value) -> Self {
        assert_eq!(self.0["parent"], pushed["uuid"], "{}", self.0);
        self
    }
}

/// Asserts that a push or plan has a reason with this code whose text contains each of `texts`.
///
/// # Panics
/// If the reason is another one.
#[track_caller]
pub fn assert_reason(value: &Value, code: ReasonCode, texts: &[&str]) {
    assert_eq!(value["parent_reason_code"], code.as_str(), "{value}");
    assert_texts(&value["parent_reason"], texts);
}

/// Asserts that a JSON string contains each text.
///
/// # Panics
/// If one is missing.
#[track_caller]
pub fn assert_texts(words: &Value, texts: &[&str]) {
    for text in texts {
        assert!(words.as_str().unwrap().contains(text), "`{text}`: {words}");
    }
}

/// Returns code and text of the reason of each object that `list` or `prune` shows.
///
/// # Panics
/// If the command fails.
#[track_caller]
pub fn stated(sender: &SenderHost, arguments: &[&str]) -> Vec<(String, String)> {
    let shown = sender.ctl(&[arguments, &["--json"]].concat());
    let objects = shown.success().jsons();
    let text = |object: &Value, key: &str| object[key].as_str().unwrap().to_owned();
    let reason = |object| (text(object, "reason_code"), text(object, "reason"));
    objects.iter().map(reason).collect()
}

/// As [`stated`], the codes alone.
///
/// # Panics
/// If the command fails.
#[track_caller]
pub fn codes(sender: &SenderHost, arguments: &[&str]) -> Vec<String> {
    let stated = stated(sender, arguments);
    stated.into_iter().map(|(code, _)| code).collect()
}

/// Writes into a read-only subvolume and makes it read-only again.
///
/// # Panics
/// If the write fails.
#[track_caller]
pub fn change(subvolume: &Path) {
    raw::set_flags(subvolume, raw::WRITABLE);
    fs::write(subvolume.join("changed"), "changed").unwrap();
    raw::set_flags(subvolume, raw::READ_ONLY);
    sync(subvolume);
}

/// Ends the running transaction of a file system.
///
/// # Panics
/// If `btrfs` fails.
#[track_caller]
pub fn sync(path: &Path) {
    let path = path.to_str().unwrap();
    tool("btrfs", &["filesystem", "sync", path]);
}

/// Hosts with a filled volume that keeps its last snapshot as parent.
///
/// # Panics
/// If they cannot be made.
#[track_caller]
pub fn pinned() -> Paired {
    let setup = SenderHost::setup().volume("photos", "photos");
    let hosts = Paired::of(setup.pin_parent().start());
    fill::tree(&hosts.sender.photos(), 1);
    hosts
}

/// Hosts with a filled volume.
///
/// # Panics
/// If they cannot be made.
#[track_caller]
pub fn filled() -> Paired {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    hosts
}

/// Takes a user's snapshot of the volume; returns its path and the target of a push of
/// it.
///
/// # Panics
/// If the snapshot fails.
#[track_caller]
pub fn snapshot(sender: &SenderHost, name: &str) -> (PathBuf, String) {
    let path = sender.fs().join(name);
    streams::snapshot(&sender.photos(), &path).unwrap();
    let target = format!("nas2:{}", path.display());
    (path, target)
}

/// Runs `work` on the sender's mounted state subvolume and the path of the sendshot that a push left in it.
///
/// # Panics
/// If the push left no record.
#[track_caller]
pub fn in_state<T>(sender: &SenderHost, pushed: &Value, work: impl FnOnce(&Path, &Path) -> T) -> T {
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    let state = top.path().join(".sendshot");
    let records = fs::read_dir(state.join("pushes")).unwrap();
    let mut records = records.map(|entry| entry.unwrap().path());
    let record = records.find(|path| {
        path.extension().is_some_and(|end| end == "json") && {
            let record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            record["snapshot"]["uuid"] == pushed["uuid"]
        }
    });
    let name = record.unwrap().file_stem().unwrap().to_owned();
    let sendshot = state.join("sendshots").join(name);
    work(&state, &sendshot.with_extension("sendshot"))
}

/// Runs `work` on the image of a host's file system while it is unmounted.
///
/// # Panics
/// If the file system stays busy.
#[track_caller]
pub fn with_image(fs: &Path, work: impl FnOnce(&str)) {
    let image = mount::image(fs);
    loopfs::unmount_free(fs).unwrap();
    until::holds("the image is not in use", || mount::devices(fs).is_empty());
    work(image.to_str().unwrap());
    mount::mount(&image, fs, "loop");
}

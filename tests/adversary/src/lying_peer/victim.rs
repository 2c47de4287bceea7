//! A sender that talks to a hostile receiver, and what must hold for it whatever the receiver reports.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use crate::lying_peer::scripted::{Heard, Script, ScriptedReceiver};
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes::assert_no_leftovers;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::faults::link::Link;
use sendshot_harness::hosts::command::Output;
use sendshot_harness::hosts::pairing::{pair, pair_at};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;

/// Time limit of a push to a lying receiver: the sender's longest wait, which is seconds here, and some
/// reserve.
const LIMIT: Duration = Duration::from_secs(12);

/// Memory limit of the daemon, in bytes: an honest push needs about a third of it.
pub const MEMORY: u64 = 128 << 20;

/// Limit for the length of a message to the user, in bytes.
const TEXT: usize = 8 << 10;

/// The expected outcome of a lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The push fails with one of these exit codes, and this text in its message.
    Fails(&'static [i32], &'static str),
    /// The push succeeds: the lie is harmless, or cannot be distinguished from the truth.
    Believed,
}

/// A lie.
#[derive(Debug)]
pub struct Row {
    /// What the lie says.
    pub name: &'static str,
    /// Makes the receiver's responses.
    pub script: fn(&Victim) -> Script,
    /// The expected outcome.
    pub expect: Expect,
}

/// A record of the sender's journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Id of the push, which names its files.
    pub push: String,
    /// UUID of the snapshot.
    pub uuid: String,
    /// `sending`, `unconfirmed` or `acknowledged`.
    pub state: String,
    /// Name of the volume.
    pub volume: String,
    /// Name of the receiver.
    pub receiver: String,
}

/// The sender, its honest receivers and the hostile one; all deleted on drop.
pub struct Victim {
    /// The sender, with the volumes `photos` and `music`.
    pub sender: SenderHost,
    /// The receiver that the sender calls `nas2`, reached over the link.
    pub receiver: ReceiverHost,
    /// The receiver that the sender calls `nas3`.
    pub other: ReceiverHost,
    /// The link to the honest receiver or to the hostile one.
    pub link: Link,
    /// The hostile receiver, with the keys of `nas2`.
    pub hostile: ScriptedReceiver,
    /// Report of the last push to the honest `nas2`.
    pub last: Value,
    /// Report of the last push of `music` to it.
    pub music: Value,
    /// Report of the last push of `photos` to `nas3`.
    pub elsewhere: Value,
    /// The problems found, one line each.
    pub problems: Vec<String>,
    changes: u64,
}

impl std::fmt::Debug for Victim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Victim")
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl Victim {
    /// Makes all hosts, and pushes to each receiver.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "making one starts daemons")]
    pub fn new() -> Self {
        let setup = SenderHost::setup().keys("retry_for = \"0s\"\nstall_after = \"2s\"");
        let setup = setup.volume("photos", "photos").volume("music", "music");
        let (sender, receiver, other) = (setup.start(), ReceiverHost::new(), ReceiverHost::new());
        // The sender logs a receiver's report on a stream for the administrator.
        sender.daemon.may_log("a stream could not be applied");
        let link = Link::to(receiver.address());
        pair_at(&sender, &receiver, "nas2", link.address());
        pair(&sender, &other, "nas3");
        for (volume, seed) in [("photos", 1), ("music", 2)] {
            let path = sender.fs().join(volume).join("first");
            fill::file(path, seed, 100_000);
        }
        let (last, music) = (sender.push("nas2:photos"), sender.push("nas2:music"));
        let hostile = ScriptedReceiver::of(&sender, &receiver, "nas2");
        let mut victim = Self {
            sender,
            receiver,
            other,
            link,
            hostile,
            last,
            music,
            elsewhere: Value::Null,
            problems: Vec::new(),
            changes: 0,
        };
        victim.change();
        victim.elsewhere = victim.sender.push("nas3:photos");
        victim.push_honestly();
        victim
    }

    /// Changes `photos`, so that a push of it has several segments.
    ///
    /// # Panics
    /// If it cannot be written.
    #[track_caller]
    pub fn change(&mut self) {
        self.changes += 1;
        let photos = self.sender.photos();
        fill::file(photos.join("big"), 100 + self.changes, 1 << 20);
        fs::write(photos.join("small"), self.changes.to_string()).unwrap();
    }

    /// Reads the records of the sender's journal.
    ///
    /// # Panics
    /// If they cannot be read.
    #[track_caller]
    pub fn records(&self) -> BTreeSet<Record> {
        let top = Mount::private(&mount::devices(self.sender.fs())[0], "subvolid=5");
        let dir = top.path().join(".sendshot");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut records = BTreeSet::new();
        for entry in fs::read_dir(dir.join("pushes")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            let record = Record {
                push: text(&json["push"]),
                uuid: text(&json["snapshot"]["uuid"]),
                state: text(&json["state"]),
                volume: text(&json["volume_name"]),
                receiver: text(&json["receiver_name"]),
            };
            // An acknowledged record without its sendshot cannot be a parent.
            let file = dir.join("sendshots").join(&record.push);
            let file = file.with_extension("sendshot");
            if record.state != "acknowledged" || fs::metadata(file).is_ok_and(|f| f.len() > 0) {
                records.insert(record);
            }
        }
        records
    }

    /// The states of `photos` that the sender considers held by `nas2`.
    #[track_caller]
    pub fn acknowledged(&self) -> BTreeSet<String> {
        let mut records = self.records();
        records.retain(|r| {
            (&*r.state, &*r.volume, &*r.receiver) == ("acknowledged", "photos", "nas2")
        });
        records.into_iter().map(|record| record.uuid).collect()
    }

    /// Pushes a change of `photos` to the hostile receiver; returns the output and what that has heard.
    #[track_caller]
    pub fn push_to_liar(&mut self, script: Script) -> (Output, Heard) {
        self.change();
        self.hostile.says(script);
        self.link.aim(self.hostile.address());
        let output = self.sender.ctl(&["push", "--json", "nas2:photos"]);
        (output, self.hostile.heard())
    }

    /// Tells the sender a lie, checks the outcome, and pushes to the honest receiver.
    #[track_caller]
    pub fn play(&mut self, row: &Row) {
        self.play_script(row.name, (row.script)(self), row.expect);
    }

    /// As [`play`](Self::play), with a given script.
    #[track_caller]
    pub fn play_script(&mut self, name: &str, script: Script, expect: Expect) {
        let before = self.acknowledged();
        let known = self.records().into_iter().map(|record| record.uuid);
        let known: BTreeSet<String> = known.collect();
        let started = Instant::now();
        let (output, heard) = self.push_to_liar(script);
        let took = started.elapsed();
        let mut wrong = |what: String| {
            self.problems.push(format!("{name}: {what}"));
        };
        match expect {
            Expect::Believed if output.code != 0 => wrong(format!("it failed: {output:?}")),
            Expect::Fails(codes, text)
                if !codes.contains(&output.code) || !output.stderr.contains(text) =>
            {
                wrong(format!("not {codes:?} with `{text}`: {output:?}"));
            }
            Expect::Believed | Expect::Fails(..) => {}
        }
        if took > LIMIT {
            wrong(format!("it took {took:?}"));
        }
        let said = [&output.stdout, &output.stderr].map(|text| text.trim_end().to_owned());
        for text in &said {
            let obeyed = text.chars().any(|c| c.is_control() && c != '\n');
            if obeyed || text.len() > TEXT {
                wrong(format!("{} bytes are said: {text:.200?}", text.len()));
            }
        }
        let parent = heard.begin.and_then(|begin| begin.parent);
        if let Some(parent) = parent {
            let uuid = Uuid::from_slice(&parent.uuid).unwrap().to_string();
            if !known.contains(&uuid) {
                wrong(format!("it builds on {uuid}, which was never pushed"));
            }
        }
        if heard.ends == 0 && output.code == 0 {
            wrong("it ended well without a reported end".to_owned());
        }
        self.look(name, &before, heard.ends > 0);
        let peak = self.sender.daemon.peak_memory() >> 20;
        let honest = Instant::now();
        self.push_honestly();
        let line = said[1].lines().next().unwrap_or_default();
        println!(
            "{:64} {} in {took:.1?}, {:.1?}, {peak} MiB: {line:.160}",
            name,
            output.code,
            honest.elapsed()
        );
    }

    /// Checks that the daemon is running, still knows the states that are really held, and considers no other
    /// state held unless a stream was sent whole.
    #[track_caller]
    pub fn look(&mut self, what: &str, before: &BTreeSet<String>, sent: bool) {
        if !self.sender.daemon.runs() {
            self.problems.push(format!("{what}: the daemon is dead"));
            self.sender.daemon.start();
        }
        self.sender.wait_until_released();
        let after = self.acknowledged();
        let last = self.last["uuid"].as_str().unwrap();
        if !after.contains(last) {
            self.problems
                .push(format!("{what}: the last state is gone: {after:?}"));
        }
        let new: Vec<_> = after.difference(before).collect();
        if new.len() > usize::from(sent) {
            self.problems
                .push(format!("{what}: {new:?} counts as held, and was not sent"));
        }
        let gone: Vec<_> = before.difference(&after).collect();
        if !gone.is_empty() && new.is_empty() {
            self.problems
                .push(format!("{what}: {gone:?} was deleted for nothing"));
        }
    }

    /// Pushes a change of `photos` to the honest receiver, whose copy must be exact.
    ///
    /// # Panics
    /// If it is not, or something is left over.
    #[track_caller]
    pub fn push_honestly(&mut self) {
        self.change();
        self.link.aim(self.receiver.address());
        self.last = self.sender.push("nas2:photos");
        assert_exact(&self.sender, &self.receiver, &self.last);
        assert_no_leftovers(&self.sender, &self.receiver);
    }

    /// Asserts that no problem was found, and that the daemon's peak memory stayed below the limit.
    ///
    /// # Panics
    /// If one was, or it did not.
    #[track_caller]
    pub fn end(self) {
        let peak = self.sender.daemon.peak_memory();
        println!("the daemon held {} MiB at most", peak >> 20);
        assert!(peak < MEMORY, "the daemon held {peak} bytes");
        let problems = &self.problems;
        assert!(
            problems.is_empty(),
            "{} problems: {problems:#?}",
            problems.len()
        );
    }
}

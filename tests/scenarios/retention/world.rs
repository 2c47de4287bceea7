//! A sender and a receiver whose clock can be moved.

use std::fs;
use std::path::PathBuf;

use sendshot_harness::hosts::clock::Clock;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use serde_json::Value;

/// The time 0 of a test, from now.
const ZERO_HOURS: i64 = 60 * 24;

/// A rule that keeps the newest copy alone.
pub const SHORT: &str = "keep = '1 day daily'\nprotect = '0s'";

/// The copies of a volume at times that the test chooses.
pub struct World {
    pub hosts: Paired,
    pub clock: Clock,
}

/// Makes copies of so many days under a rule that keeps them, and then sets [`SHORT`].
pub fn old_copies(days: u32) -> (World, Vec<String>) {
    let mut world = World::new("keep = 'all'");
    let all = world.push_daily(days);
    world.configure(SHORT);
    world
        .hosts
        .receiver
        .daemon
        .may_log("no copy of nas1/photos is deleted");
    (world, all)
}

impl World {
    /// Makes hosts with this table of the receiver's configuration, and without a copy.
    pub fn new(table: &str) -> Self {
        Self::of(ReceiverHost::setup().keys(&keys(table)).start())
    }

    pub fn of(receiver: ReceiverHost) -> Self {
        let mut world = Self::at_present(receiver);
        world.clock.of(&mut world.hosts.receiver.daemon);
        world.set("+0d");
        world
    }

    /// Makes hosts that have the machine's own clock.
    pub fn at_present(receiver: ReceiverHost) -> Self {
        Self {
            hosts: Paired::between(SenderHost::new(), receiver),
            clock: Clock::new(),
        }
    }

    /// Writes another table, and restarts the receiver.
    pub fn configure(&mut self, table: &str) {
        self.write_table(table);
        let receiver = &mut self.hosts.receiver;
        if receiver.daemon.runs() {
            receiver.daemon.stop();
        }
        receiver.daemon.start();
    }

    /// Writes another table.
    pub fn write_table(&self, table: &str) {
        let receiver = &self.hosts.receiver;
        let (address, root) = (receiver.address(), receiver.root());
        let text = format!("listen = \"{address}\"\nroot = {root:?}\n{}\n", keys(table));
        fs::write(receiver.config(), text).unwrap();
        // It may lie on a disk whose power is cut.
        rustix::fs::syncfs(fs::File::open(receiver.config()).unwrap()).unwrap();
    }

    /// Sets the receiver's clock to a time like `-3d` or `+5h`. The time 0 of a test is in the future, since the certificates
    /// of its hosts are not valid before they were made.
    pub fn set(&self, offset: &str) {
        let (number, unit) = offset.split_at(offset.len() - 1);
        let (number, hours): (i64, i64) = match unit {
            "d" => (number.parse().unwrap(), 24),
            "h" => (number.parse().unwrap(), 1),
            _ => (offset.parse().unwrap(), 24),
        };
        self.clock
            .set(&format!("+{}h", ZERO_HOURS + number * hours));
    }

    /// Pushes a change at a time like `-3d`, and returns the copy's name.
    pub fn push_at(&self, offset: &str) -> String {
        self.set(offset);
        self.push()
    }

    pub fn push(&self) -> String {
        let sender = &self.hosts.sender;
        let file = sender.photos().join("changes");
        let mut text = fs::read_to_string(&file).unwrap_or_default();
        text += "changed\n";
        fs::write(&file, text).unwrap();
        let pushed = sender.push("nas2:photos");
        let copy = pushed["copy"].as_str().unwrap();
        copy.rsplit('/').next().unwrap().to_owned()
    }

    /// Pushes once a day, from so many days ago to today.
    pub fn push_daily(&self, days: u32) -> Vec<String> {
        let pushes = (0..days)
            .rev()
            .map(|days| self.push_at(&format!("-{days}d")));
        pushes.collect()
    }

    /// Directory of the copies.
    pub fn dir(&self) -> PathBuf {
        self.hosts.receiver.root().join("nas1/photos")
    }

    /// The copies on the disk, by their names.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    }

    /// `copy list`, by the names of the copies.
    pub fn listed(&self) -> Vec<Value> {
        let listed = self.hosts.receiver.ctl(&["--json", "copy", "list"]);
        listed.success().jsons()
    }

    /// What `copy list` says of a copy.
    pub fn about(&self, name: &str) -> Value {
        let all = self.listed();
        let found = all.iter().find(|copy| copy["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {name}: {all:?}"))
            .clone()
    }

    /// Waits until these copies are left.
    #[track_caller]
    pub fn are_left(&self, expected: &[String]) {
        let mut expected = expected.to_vec();
        expected.sort();
        until::holds(&format!("{expected:?} are left"), || {
            self.names() == expected
        });
    }

    /// Runs `copy prune`, with these options; returns what it says of the volume.
    pub fn prune(&self, options: &[&str]) -> Vec<Value> {
        let mut all = vec!["--json", "copy", "prune"];
        all.extend(options);
        self.hosts.receiver.ctl(&all).success().jsons()
    }
}

/// The first lines of a configuration with a trusted clock.
fn keys(table: &str) -> String {
    format!(
        "clock = \"trusted\"\ntimezone = \"UTC\"\nmin_free = \"1 MiB\"\ncheckpoint_bytes = \"1 MiB\"\ncheckpoint_interval = \"0s\"\npartial_keep = \"1000 days\"\n[senders.nas1]\n{table}"
    )
}

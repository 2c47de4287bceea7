//! The hosts of a life of restores.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::life::Hosts;
use crate::restores::kind::RestoreFault;
use crate::restores::task::{Copy, Destination, Task};
use crate::table::Went;
use crate::volume;
use crate::world::{Measure, heal, show_logs, slow_down};
use sendshot_harness::compare::exact::Reference;
use sendshot_harness::compare::subvolumes;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::link::Way;
use sendshot_harness::hosts::command::Output;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::random::Random;

/// Size of the hosts' disks in bytes: sparse, with room for all copies of a life.
const DISK: u64 = 1 << 30;

/// Permission by the receiver's configuration, instead of by a grant.
const ALWAYS: &str = "[senders.nas1]\nrestore = \"always\"";

/// Choices for the number of disturbed runs of a restore before an undisturbed one.
const STRIKES: &[u64] = &[1, 1, 2, 2, 3, 5];

#[derive(Debug)]
pub(crate) struct World {
    pub(super) hosts: Linked,
    seed: u64,
    /// The copies, oldest first.
    copies: Vec<Copy>,
    /// Cost of an undisturbed restore.
    pub(super) whole: Measure,
    /// Whether the link is so slow that the durations of restores are useless.
    pub(super) slow: bool,
}

impl Hosts for World {
    type Fault = RestoreFault;

    /// Makes new hosts, pushes a short history of a volume, and restores it undisturbed.
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let granted = random.once_in(2);
        let keys = if granted { "" } else { ALWAYS };
        let sender = SenderHost::setup().size(DISK).power();
        let sender = sender.volume("photos", "photos");
        let receiver = ReceiverHost::setup().keys(keys).size(DISK).power();
        let mut world = Self {
            hosts: Linked::between(sender.start(), receiver.start()),
            seed,
            copies: Vec::new(),
            whole: Measure::default(),
            slow: false,
        };
        if granted {
            let grant = ["peer", "grant", "nas1", "--for", "24h"];
            world.hosts.receiver.ctl(&grant).success();
        }
        volume::fill(&mut random, &world.hosts.sender.photos());
        world.push();
        for _ in 0..random.below(3) {
            volume::change(&mut random, &world.hosts.sender.photos());
            world.push();
        }
        let task = world.task(Destination::Free, &mut random);
        world.undisturbed(&task);
        world.put_away(&task);
        world
    }

    fn iteration(&mut self, number: u64, kind: RestoreFault) -> Went {
        let mut random = Random::new(self.seed ^ (number + 1).wrapping_mul(0x9e37_79b9));
        let destination = match random.below(6) {
            0..2 => self.in_place(&mut random),
            2 => Destination::EmptyDirectory,
            _ => Destination::Free,
        };
        let task = self.task(destination, &mut random);
        let mut went = Went::default();
        for _ in 0..random.pick(STRIKES) {
            self.slow = slow_down(&self.hosts.link, Way::Down, &mut random);
            let (now, output) = self.struck_restore(kind, &task, &mut random);
            went = went.and(now);
            heal(&mut self.hosts);
            let is_complete = self.check_between(&task);
            if output.code == 0 {
                assert!(is_complete, "it reported success: {output:#?}");
                self.no_trouble();
            }
            // Without success, only the report was lost: the same command would begin another restore.
            if output.code == 0 || self.is_finished(&task) {
                self.check_restored(&task, None);
                self.put_away(&task);
                return went;
            }
        }
        let restored = self.undisturbed(&task);
        went.resumed = restored["resumed_at"].as_u64() > Some(0);
        self.put_away(&task);
        went
    }

    fn end(&self) {
        self.no_trouble();
    }

    fn show(&self, lines: usize) {
        for host in [self.hosts.sender.fs(), self.hosts.receiver.fs()] {
            println!("--- the subvolumes of {}", host.display());
            subvolumes::list(host)
                .iter()
                .for_each(|found| println!("{found:?}"));
        }
        show_logs(&self.hosts, lines);
    }

    fn forgive(&mut self) {
        self.hosts.sender.daemon.forgive();
        self.hosts.receiver.daemon.forgive();
    }
}

impl World {
    /// Pushes the volume, and returns the report.
    fn push(&mut self) -> Value {
        let Linked {
            sender, receiver, ..
        } = &self.hosts;
        let pushed = sender.push("nas2:photos");
        let path = receiver.copy(&pushed);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        self.copies.push(Copy { name, path });
        pushed
    }

    fn task(&self, destination: Destination, random: &mut Random) -> Task {
        let sender = &self.hosts.sender;
        let number = match random.once_in(2) {
            true => self.copies.len() - 1,
            false => random.below(self.copies.len() as u64) as usize,
        };
        let is_newest = number == self.copies.len() - 1 && random.once_in(2);
        let target = match &destination {
            Destination::InPlace { .. } => sender.photos(),
            Destination::Free | Destination::EmptyDirectory => sender.fs().join("restored"),
        };
        if matches!(destination, Destination::EmptyDirectory) {
            fs::create_dir(&target).unwrap();
        }
        let task = Task::new(
            self.copies[number].clone(),
            is_newest,
            target,
            destination,
            random,
        );
        // What the user made before is on disk.
        rustix::fs::syncfs(File::open(sender.fs()).unwrap()).unwrap();
        task
    }

    /// Changes the volume, as damage would, and notes its content.
    fn in_place(&self, random: &mut Random) -> Destination {
        let sender = &self.hosts.sender;
        let photos = sender.photos();
        volume::change(random, &photos);
        Destination::InPlace {
            old: uuid(sender.fs(), &photos).unwrap(),
            content: Reference::of(sender.fs(), &photos),
        }
    }

    /// Makes an undisturbed restore, which must succeed, and checks everything.
    fn undisturbed(&mut self, task: &Task) -> Value {
        let link = &self.hosts.link;
        let bytes = || [Way::Up, Way::Down].map(|way| link.bytes(way));
        let (before, began) = (bytes(), Instant::now());
        let output: Output = self.hosts.sender.restore(&task.arguments());
        let restored = output.success().json();
        let (after, time) = (bytes(), began.elapsed());
        if restored["resumed_at"].is_null() {
            let bytes = [after[0] - before[0], after[1] - before[1]];
            self.whole = Measure { bytes, time };
        }
        assert!(self.check_between(task), "it reported success: {restored}");
        self.no_trouble();
        self.check_restored(task, Some(&restored));
        restored
    }

    /// Deletes what was restored beside; pushes the volume that was restored in its place.
    fn put_away(&mut self, task: &Task) {
        if !matches!(task.destination, Destination::InPlace { .. }) {
            streams::delete(&task.target).unwrap();
            return;
        }
        for old in self.put_aside() {
            streams::delete(&old).unwrap();
        }
        fs::write(self.hosts.sender.photos().join("note"), &task.copy.name).unwrap();
        let pushed = self.push();
        assert!(
            pushed["parent"].is_string(),
            "all was sent again after a restore in place: {pushed}"
        );
        self.check_pushed(&pushed);
    }

    fn no_trouble(&self) {
        let Linked {
            sender, receiver, ..
        } = &self.hosts;
        for daemon in [&sender.daemon, &receiver.daemon] {
            let lines = daemon.undeclared();
            assert!(lines.is_empty(), "undeclared in a log: {lines:#?}");
        }
    }
}

/// UUID of the subvolume at a path.
pub(super) fn uuid(fs: &Path, path: &Path) -> Option<String> {
    let all = subvolumes::list(fs);
    let found = all.into_iter().find(|found| fs.join(&found.path) == path);
    found.map(|found| found.uuid)
}

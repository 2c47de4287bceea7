//! The hosts of a life, and the record of what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::kind::Kind;
use crate::life::Hosts;
use crate::table::Went;
use crate::volume;
use sendshot_adversary::lying_peer::Lie;
use sendshot_harness::compare::exact::Reference;
use sendshot_harness::faults::fail_points;
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::command::Output;
use sendshot_harness::hosts::daemon::Daemon;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::random::Random;

/// Short, so that a push to an absent receiver ends soon.
const SENDER_KEYS: &str = "retry_for = \"1s\"";
/// Frequent, so that small pushes have checkpoints.
const RECEIVER_KEYS: &str = "checkpoint_bytes = \"1 MiB\"\ncheckpoint_interval = \"0s\"";

/// Size of the hosts' disks in bytes: sparse, with room for all copies of a life.
const DISK: u64 = 1 << 30;

/// Approximate bytes sent to the receiver by a push without data.
const GREETING: u64 = 6000;

/// Choices for the number of disturbed pushes before an undisturbed one.
const STRIKES: &[u64] = &[1, 1, 1, 1, 1, 2, 2, 4];

/// The expected parent of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// No parent.
    None,
    /// The newest common state.
    Common,
    /// The newest common state, although the previous push was requested without a parent.
    NotAskedFor,
}

/// A copy, and the state of the volume it is of.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) path: PathBuf,
    pub(super) state: usize,
}

/// Approximate cost of a push.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measure {
    /// Bytes in each direction.
    pub(super) bytes: [u64; 2],
    pub(super) time: Duration,
}

#[derive(Debug)]
pub(super) struct World {
    /// The pushed states of the volume, oldest first. Declared before the hosts, to be dropped before
    /// them.
    pub(super) states: Vec<Reference>,
    pub(super) hosts: Linked,
    seed: u64,
    /// The copies by UUID.
    pub(super) copies: BTreeMap<String, Copy>,
    /// UUID of the copy of the last undisturbed push.
    pub(super) last: String,
    /// States that the sender counts as held because of a lie.
    pub(super) lied: BTreeSet<String>,
    pub(super) full: Measure,
    pub(super) incremental: Measure,
    /// Whether the link is so slow that the durations of pushes are useless.
    pub(super) slow: bool,
    /// The last lie that was told, printed with a failure.
    pub(super) lie: Option<Lie>,
}

impl Hosts for World {
    type Fault = Kind;

    /// Makes new hosts and pushes a volume between them.
    fn new(seed: u64) -> Self {
        let sender = SenderHost::setup().keys(SENDER_KEYS).size(DISK).power();
        let sender = sender.volume("photos", "photos");
        let receiver = ReceiverHost::setup().keys(RECEIVER_KEYS).size(DISK).power();
        let mut world = Self {
            states: Vec::new(),
            hosts: Linked::between(sender.start(), receiver.start()),
            seed,
            copies: BTreeMap::new(),
            last: String::new(),
            lied: BTreeSet::new(),
            full: Measure::default(),
            incremental: Measure::default(),
            slow: false,
            lie: None,
        };
        volume::fill(&mut Random::new(seed), &world.hosts.sender.photos());
        world.keep_state();
        let (pushed, measure) = world.honest_push();
        (world.full, world.incremental) = (measure, measure);
        world.check(&pushed, 0, Parent::None, &BTreeSet::new());
        world
    }

    fn iteration(&mut self, number: u64, kind: Kind) -> Went {
        let mut random = Random::new(self.seed ^ (number + 1).wrapping_mul(0x9e37_79b9));
        let (since, mut went, mut told) = (self.states.len(), Went::default(), Vec::new());
        let mut parent = Parent::Common;
        for strike in 0..random.pick(STRIKES) {
            if strike == 0 || random.once_in(3) {
                let written = self.change(&mut random);
                self.incremental.bytes[Way::Up as usize] = written + GREETING;
            }
            let full = random.once_in(4);
            if full {
                parent = Parent::NotAskedFor;
            }
            if kind == Kind::Lie && random.once_in(2) {
                // An interrupted push first, to have something to lie about.
                let (_, report) = self.struck_push(Kind::Cancel, full, &mut random);
                told.extend(report.map(|report| (report, self.states.len() - 1)));
                self.heal();
            }
            self.slow = slow_down(&self.hosts.link, Way::Up, &mut random);
            let (now, report) = self.struck_push(kind, full, &mut random);
            went = went.and(now);
            told.extend(report.map(|report| (report, self.states.len() - 1)));
            self.heal();
        }
        if kind == Kind::Lie {
            self.note_false_acknowledgements();
            told.clear();
        }
        if random.once_in(2) {
            self.change(&mut random);
        }
        let before = self.held_uuids();
        let (pushed, measure) = self.honest_push();
        if pushed["parent"] != Value::Null {
            self.incremental = measure;
        }
        let reports = told.iter().map(|(report, _)| report).chain([&pushed]);
        went.resumed = reports.into_iter().any(|r| !r["resumed_at"].is_null());
        self.check(&pushed, since, parent, &before);
        for (report, state) in told {
            self.check_told(&report, state);
        }
        went
    }

    fn end(&self) {
        self.all_copies_are_what_they_were();
    }

    /// Prints the last lie and the ends of the logs.
    fn show(&self, lines: usize) {
        if let Some(lie) = self.lie {
            println!("  the last lie: {lie:?}");
        }
        show_logs(&self.hosts, lines);
    }

    fn forgive(&mut self) {
        self.hosts.sender.daemon.forgive();
        self.hosts.receiver.daemon.forgive();
    }
}

impl World {
    /// Keeps the volume's state to compare copies with, and so flushes it to disk.
    pub(super) fn keep_state(&mut self) {
        let sender = &self.hosts.sender;
        let state = Reference::of(sender.fs(), &sender.photos());
        self.states.push(state);
    }

    /// Changes the volume and keeps its state. Returns about how many bytes were written.
    fn change(&mut self, random: &mut Random) -> u64 {
        let written = volume::change(random, &self.hosts.sender.photos());
        self.keep_state();
        written
    }

    /// Makes an undisturbed push.
    fn honest_push(&self) -> (Value, Measure) {
        let link = &self.hosts.link;
        let bytes = || [Way::Up, Way::Down].map(|way| link.bytes(way));
        let (before, began) = (bytes(), Instant::now());
        let sender = &self.hosts.sender;
        let pushed = sender.ctl(&["push", "--json", "nas2:photos"]);
        let pushed = report(&pushed.success());
        sender.wait_until_released();
        let (after, time) = (bytes(), began.elapsed());
        let bytes = [after[0] - before[0], after[1] - before[1]];
        (pushed, Measure { bytes, time })
    }

    /// Repairs everything: the link is honest, and both daemons run without fail points.
    fn heal(&mut self) {
        heal(&mut self.hosts);
    }

    /// Restarts a daemon with a random fail point armed. Returns the fail point.
    pub(super) fn arm(
        daemon: &mut Daemon,
        places: &[&'static str],
        random: &mut Random,
    ) -> &'static str {
        daemon.stop();
        let passed = match random.once_in(3) {
            true => random.below(4),
            false => 0,
        };
        let place = random.pick(places);
        daemon.env(fail_points::VARIABLE, &fail_points::armed(place, passed));
        daemon.start();
        place
    }
}

/// Repairs everything: the link is honest, and both daemons run without fail points.
pub(super) fn heal(hosts: &mut Linked) {
    let Linked {
        sender,
        link,
        receiver,
    } = hosts;
    link.aim(receiver.address());
    link.mend();
    for daemon in [&mut receiver.daemon, &mut sender.daemon] {
        if daemon.is_armed() && daemon.runs() {
            daemon.stop_armed();
        }
        daemon.clear_env();
        if !daemon.runs() {
            daemon.start();
        }
    }
}

/// Slows down some links, so that faults find more to interrupt. Returns whether it did.
pub(super) fn slow_down(link: &Link, slowed: Way, random: &mut Random) -> bool {
    match random.below(8) {
        0 => link.set(slowed, Rule::Slow((4 + random.below(16)) << 20)),
        1 => {
            let late = Rule::Delay(Duration::from_micros(200 + random.below(3000)));
            link.set(Way::Up, late);
            link.set(Way::Down, late);
        }
        _ => return false,
    }
    true
}

/// Prints the ends of the logs of both hosts.
pub(super) fn show_logs(hosts: &Linked, lines: usize) {
    let Linked {
        sender, receiver, ..
    } = hosts;
    for (name, daemon) in [("sender", &sender.daemon), ("receiver", &receiver.daemon)] {
        let log = daemon.log();
        let all: Vec<_> = log.lines().collect();
        println!("--- the end of the log of the {name}");
        for line in &all[all.len().saturating_sub(lines)..] {
            println!("{line}");
        }
    }
    println!("---");
}

/// Returns the report on the newest state. A push that finished another before has two reports.
pub(super) fn report(output: &Output) -> Value {
    output.jsons().pop().expect("a push that succeeds reports")
}

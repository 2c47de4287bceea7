//! Competitors take turns with one load.

use std::cell::Cell;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use sendshot_bench::delay::DelayedLink;
use sendshot_bench::measure::{Took, measured, median};
use sendshot_harness::disks::loopfs::{LoopFs, run as run_command};
use sendshot_harness::disks::streams as subvolumes;
use sendshot_harness::hosts::pairing::{pair, pair_at};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::{address, binaries, command};
use serde::Serialize;

use crate::floor;
use crate::loads::{self, Change, Content};
use crate::peers::{self, Disks, Ssh, Sync, pipe};

/// Size of each file system in bytes; its image is sparse.
const SIZE: u64 = 12 << 30;

/// Rate of the delayed links, in bytes a second: 1 Gbit/s.
const RATE: f64 = 125e6;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    content: Content,
    /// `None` for a first push.
    change: Option<Change>,
    /// Mount options of both sides.
    mount: &'static str,
    /// Round trip of the link in milliseconds; 0 for none.
    link_ms: u64,
}

impl Setting {
    /// A push of everything.
    pub const fn full(content: Content, mount: &'static str) -> Self {
        Self {
            content,
            change: None,
            mount,
            link_ms: 0,
        }
    }

    /// A push of what has changed since the last.
    pub const fn changed(content: Content, change: Change) -> Self {
        Self {
            content,
            change: Some(change),
            mount: "",
            link_ms: 0,
        }
    }

    /// A push of a random file over a link.
    pub const fn link(link_ms: u64) -> Self {
        Self {
            content: Content::Random(1 << 30),
            change: None,
            mount: "",
            link_ms,
        }
    }
}

/// The medians of a competitor.
#[derive(Debug, Serialize)]
struct Line {
    competitor: &'static str,
    median: Took,
    all: Vec<Took>,
}

/// What was measured of a load.
#[derive(Debug, Serialize)]
struct OfLoad {
    load: String,
    lines: Vec<Line>,
    /// Peak memory of the daemons in bytes, if there were any: the sender's and the receiver's.
    peak_memory: Option<[u64; 2]>,
}

/// All results.
#[derive(Debug, Default, Serialize)]
pub struct Results(Vec<OfLoad>);

/// How often the competitors take turns.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    /// Turns of each that are measured.
    pub rounds: u64,
    /// So many of the competitors take part, of which the first is this project.
    pub first: usize,
}

/// A program that does the same work.
trait Competitor {
    fn name(&self) -> &'static str;
    /// What is done before the time begins.
    fn prepare(&mut self, round: u64) -> Result<()>;
    fn work(&mut self) -> Result<()>;
    /// What is done after the time has ended, so that each round finds the same.
    fn clean(&mut self) -> Result<()>;
    /// Peak memory in bytes.
    fn memory(&self) -> Option<[u64; 2]> {
        None
    }
}

/// A push by this project's daemons.
struct Push {
    sender: SenderHost,
    receiver: ReceiverHost,
    change: Option<Change>,
    /// The copy of this round, and that of the round before.
    copies: Vec<PathBuf>,
}

impl Push {
    fn new(setting: Setting) -> Result<Self> {
        let sender = SenderHost::setup().size(SIZE).mount(setting.mount);
        let sender = sender.volume("volume", "volume").start();
        let receiver = ReceiverHost::setup().size(SIZE).mount(setting.mount);
        let receiver = receiver.start();
        match setting.link_ms {
            0 => pair(&sender, &receiver, "nas2"),
            round_trip => {
                let round_trip = Duration::from_millis(round_trip);
                let listener = address::listen();
                let link = DelayedLink::new(listener, receiver.address(), round_trip, RATE);
                pair_at(&sender, &receiver, "nas2", link.address);
            }
        }
        loads::fill(&sender.fs().join("volume"), setting.content)?;
        let mut push = Self {
            sender,
            receiver,
            change: setting.change,
            copies: Vec::new(),
        };
        if push.change.is_some() {
            push.work()?;
        }
        Ok(push)
    }
}

impl Competitor for Push {
    fn name(&self) -> &'static str {
        "push over mutual TLS"
    }

    fn prepare(&mut self, round: u64) -> Result<()> {
        if let Some(change) = self.change {
            loads::change(&self.sender.fs().join("volume"), change, round)?;
        }
        Ok(())
    }

    fn work(&mut self) -> Result<()> {
        let options: &[&str] = match self.change {
            Some(_) => &[],
            None => &["--parent", "none"],
        };
        // Not by `ctl`, which starts one program more.
        let mut push = Command::new(binaries::path("sendshotctl"));
        push.arg("--socket").arg(self.sender.daemon.socket());
        push.args(["push", "--json", "nas2:volume"]).args(options);
        let pushed = command::run(&mut push).success().json();
        self.copies.push(self.receiver.copy(&pushed));
        Ok(())
    }

    fn clean(&mut self) -> Result<()> {
        self.sender.wait_until_released();
        let stays = usize::from(self.change.is_some());
        while self.copies.len() > stays {
            subvolumes::delete(&self.copies.remove(0))?;
        }
        peers::free(self.sender.fs())?;
        peers::free(self.receiver.fs())
    }

    fn memory(&self) -> Option<[u64; 2]> {
        Some([
            self.sender.daemon.peak_memory(),
            self.receiver.daemon.peak_memory(),
        ])
    }
}

/// How a pipe differs from another.
#[derive(Clone)]
struct Kind {
    name: &'static str,
    options: &'static str,
    over: String,
    sync: Sync,
}

/// `btrfs send | btrfs receive`.
struct Pipe {
    disks: Rc<Disks>,
    kind: Kind,
    change: Option<Change>,
    /// Its snapshots, on both sides; names of its own, since pipes of other kinds use the same disks.
    names: Vec<String>,
    count: usize,
}

impl Pipe {
    fn new(disks: &Rc<Disks>, kind: Kind, change: Option<Change>) -> Result<Self> {
        let mut pipe = Self {
            disks: Rc::clone(disks),
            kind,
            change,
            names: Vec::new(),
            count: 0,
        };
        if change.is_some() {
            pipe.work()?;
        }
        Ok(pipe)
    }
}

impl Competitor for Pipe {
    fn name(&self) -> &'static str {
        self.kind.name
    }

    fn prepare(&mut self, round: u64) -> Result<()> {
        match self.change {
            // Once for all that have the same disks: each then sends what has changed in one round.
            Some(change) if self.disks.changed.replace(Some(round)) != Some(round) => {
                loads::change(&self.disks.volume(), change, round)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn work(&mut self) -> Result<()> {
        self.count += 1;
        let name = format!(
            "{}-{}",
            self.kind.name.replace(' ', "-").replace('|', "to"),
            self.count
        );
        let parent = self.names.last().map(String::as_str);
        let Kind {
            options,
            over,
            sync,
            ..
        } = &self.kind;
        peers::btrfs(&self.disks, (&name, parent), options, over, *sync)?;
        self.names.push(name);
        Ok(())
    }

    fn clean(&mut self) -> Result<()> {
        let stays = usize::from(self.change.is_some());
        while self.names.len() > stays {
            let name = self.names.remove(0);
            self.disks.clean(&[&name])?;
        }
        Ok(())
    }
}

/// A program that copies everything.
struct Whole {
    name: &'static str,
    disks: Rc<Disks>,
    work: fn(&Disks) -> Result<()>,
    clean: fn(&Disks) -> Result<()>,
}

impl Competitor for Whole {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn work(&mut self) -> Result<()> {
        (self.work)(&self.disks)
    }

    fn clean(&mut self) -> Result<()> {
        (self.clean)(&self.disks)
    }
}

/// Measures a load with all that can do it.
pub fn run(name: &str, setting: Setting, turns: Turns, results: &mut Results) -> Result<()> {
    let mut all: Vec<Box<dyn Competitor>> = vec![Box::new(Push::new(setting)?)];
    let _ssh;
    if setting.link_ms == 0 {
        let disks = Rc::new(Disks {
            from: LoopFs::new(SIZE, &[], setting.mount)?,
            to: LoopFs::new(SIZE, &[], setting.mount)?,
            changed: Cell::default(),
        });
        subvolumes::create(&disks.volume())?;
        loads::fill(&disks.volume(), setting.content)?;
        let options = match setting.mount {
            "" => "",
            _ => "--compressed-data",
        };
        let kind = |name, over: &str, sync| Kind {
            name,
            options,
            over: over.to_owned(),
            sync,
        };
        let mut kinds = vec![
            kind("btrfs send | receive, sync", "", Sync::Yes),
            kind("btrfs send | receive", "", Sync::No),
        ];
        // No more are made than take part: each makes its first copy of everything.
        let others = turns.first.saturating_sub(all.len());
        let is_small = !matches!(setting.content, Content::Small(_) | Content::Image);
        if is_small && others > kinds.len() {
            let ssh = Ssh::start()?;
            kinds.push(kind(
                "the same through ssh, sync",
                &ssh.command(),
                Sync::Yes,
            ));
            _ssh = ssh;
        }
        kinds.truncate(others);
        for kind in kinds {
            all.push(Box::new(Pipe::new(&disks, kind, setting.change)?));
            if setting.change.is_none() && all.len() == 2 {
                all.push(Box::new(Whole {
                    name: "floor: two threads, sync",
                    disks: Rc::clone(&disks),
                    work: |disks| floor::copy(disks, "floor"),
                    clean: |disks| disks.clean(&["floor"]),
                }));
            }
        }
        if setting.change.is_none() {
            all.push(Box::new(Whole {
                name: "btrbk",
                disks: Rc::clone(&disks),
                work: peers::btrbk,
                clean: peers::clean_btrbk,
            }));
            all.push(Box::new(Whole {
                name: "tar | tar, sync",
                disks: Rc::clone(&disks),
                work: |disks| peers::tar(disks, "tar"),
                clean: |disks| disks.clean(&["tar"]),
            }));
        }
    }
    take_turns(name, &mut all, turns, results)?;
    if setting.link_ms > 0
        && let Some(OfLoad { lines, .. }) = results.0.last()
    {
        let seconds = lines[0].median.seconds;
        let share = (1_u64 << 30) as f64 / RATE / seconds;
        println!("   {:.0} % of the link's 1 Gbit/s", share * 100.0);
    }
    Ok(())
}

/// Both halves without daemons: a stream into a pipe with a reader, and a stream from a file in memory.
pub fn streams(name: &str, turns: Turns, results: &mut Results) -> Result<()> {
    let disks = Rc::new(Disks {
        from: LoopFs::new(SIZE, &[], "")?,
        to: LoopFs::new(SIZE, &[], "")?,
        changed: Cell::default(),
    });
    subvolumes::create(&disks.volume())?;
    loads::fill(&disks.volume(), Content::Tree)?;
    let snapshot = disks.from.path().join("snapshot");
    subvolumes::snapshot(&disks.volume(), &snapshot)?;
    let ctl = binaries::path("sendshotctl").display().to_string();
    let dir = tempfile::tempdir_in("/dev/shm")?;
    let stream = dir.path().join("stream").display().to_string();
    let (to, from) = (
        disks.to.path().display().to_string(),
        snapshot.display().to_string(),
    );
    let [ours, kernels] = match name {
        "send-alone" => [
            format!("{ctl} stream send --quiet --proto 2 {from} | cat"),
            format!("btrfs send -q --proto 2 {from} | cat"),
        ],
        _ => {
            pipe(&format!("btrfs send -q --proto 2 -f {stream} {from}"))?;
            [
                format!("{ctl} stream receive {to} < {stream} && btrfs filesystem sync {to}"),
                format!("btrfs receive -q -f {stream} {to} && btrfs filesystem sync {to}"),
            ]
        }
    };
    let mut all: Vec<Box<dyn Competitor>> = Vec::new();
    for (name, command) in [("ours", ours), ("the stock tool", kernels)] {
        all.push(Box::new(Shell {
            name,
            command,
            disks: Rc::clone(&disks),
        }));
    }
    take_turns(name, &mut all, turns, results)
}

/// A shell command that may receive `snapshot`.
struct Shell {
    name: &'static str,
    command: String,
    disks: Rc<Disks>,
}

impl Competitor for Shell {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn work(&mut self) -> Result<()> {
        pipe(&self.command)
    }

    fn clean(&mut self) -> Result<()> {
        let received = self.disks.to.path().join("snapshot");
        if received.exists() {
            subvolumes::delete(&received)?;
            peers::free(self.disks.to.path())?;
        }
        Ok(())
    }
}

fn take_turns(
    name: &str,
    all: &mut Vec<Box<dyn Competitor>>,
    Turns { rounds, first }: Turns,
    results: &mut Results,
) -> Result<()> {
    all.truncate(first);
    let mut took: Vec<Vec<Took>> = all.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for turn in 0..all.len() {
            let who = (turn + usize::try_from(round)?) % all.len();
            let competitor = &mut all[who];
            competitor.prepare(round)?;
            run_command(
                Command::new("sync")
                    .arg::<&OsStr>("-f".as_ref())
                    .arg("/dev/shm"),
            )?;
            run_command(&mut Command::new("sync"))?;
            let (done, measured) = measured(|| competitor.work());
            done?;
            competitor.clean()?;
            // The first round fills the caches.
            if round > 0 {
                took[who].push(measured);
            }
        }
    }
    let lines: Vec<Line> = all
        .iter()
        .zip(took)
        .map(|(competitor, all)| Line {
            competitor: competitor.name(),
            median: median(&all),
            all,
        })
        .collect();
    let peak_memory = all.iter().find_map(|competitor| competitor.memory());
    println!("== {name}: medians of {rounds} ==");
    let base = lines.get(1).map_or(lines[0].median, |line| line.median);
    for line in &lines {
        println!(
            "   {:<28} {:>8.3} s ({:.2})  busy {:>7.2} s ({:.2})",
            line.competitor,
            line.median.seconds,
            line.median.seconds / base.seconds,
            line.median.busy,
            line.median.busy / base.busy,
        );
    }
    if let Some([sender, receiver]) = peak_memory {
        println!(
            "   peak memory: sender {} MiB, receiver {} MiB",
            sender >> 20,
            receiver >> 20
        );
    }
    results.0.push(OfLoad {
        load: name.to_owned(),
        lines,
        peak_memory,
    });
    Ok(())
}

//! A push that is disturbed by a fault.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::kind::Kind;
use crate::strike::{Moment, finish, offset, pause};
use crate::table::Went;
use crate::world::{Measure, World, report};
use sendshot_adversary::lying_peer::{LIES, Lie, LyingPeer};
use sendshot_harness::faults::fail_points::{self, BUILT};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::{Output, Running};
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::trees::random::Random;

/// Longest duration of a fault that heals during its push.
const LASTING: Duration = Duration::from_millis(60);

/// Log line of the sender when a stream is reported not to fit the receiver's copy.
pub(super) const REFUSED: &str = "a stream could not be applied";

/// How long a lying peer stays connected after its lie, and a push may hang after a flipped bit.
const LISTENING: Duration = Duration::from_millis(300);

/// More bytes than a closing connection still sends.
const FAREWELL: u64 = 1000;

/// Exit codes of a push that failed through no fault of a user: it failed, the receiver was not
/// reached, the receiver refused.
const EXCUSABLE: [i32; 3] = [1, 3, 4];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Sender,
    Receiver,
    Both,
}

impl World {
    /// Makes the push that the fault disturbs. Returns how it went, and its report if it succeeded.
    /// Does not repair what the fault broke.
    pub(super) fn struck_push(
        &mut self,
        kind: Kind,
        full: bool,
        random: &mut Random,
    ) -> (Went, Option<Value>) {
        let measure = match full {
            true => self.full,
            false => self.incremental,
        };
        let mut died_at = None;
        let (struck, output) = match kind {
            Kind::Cut | Kind::Flip | Kind::Stall => self.broken_link(kind, full, measure, random),
            Kind::KillSender if BUILT && random.once_in(2) => {
                self.fail_point(Side::Sender, full, random, &mut died_at)
            }
            Kind::KillReceiver if BUILT && random.once_in(2) => {
                self.fail_point(Side::Receiver, full, random, &mut died_at)
            }
            Kind::KillSender => self.kill(Side::Sender, full, measure, random),
            Kind::KillReceiver => self.kill(Side::Receiver, full, measure, random),
            Kind::KillBoth => self.kill(Side::Both, full, measure, random),
            Kind::PowerSender => self.power(Side::Sender, full, measure, random),
            Kind::PowerReceiver => self.power(Side::Receiver, full, measure, random),
            Kind::LostAck => self.lie(Lie::SwallowCommit, full, random),
            Kind::Lie => self.lie(random.pick(&LIES), full, random),
            Kind::Cancel => self.cancel(full, measure, random),
        };
        let survived = output.code == 0;
        assert!(
            survived || EXCUSABLE.contains(&output.code),
            "a fault is told as something else: {output:#?}"
        );
        let went = Went {
            struck,
            survived,
            resumed: false,
            died_at: died_at.filter(|_| struck),
        };
        (went, survived.then(|| report(&output)))
    }

    fn start_push(&self, full: bool) -> Running {
        let options: &[&str] = match full {
            true => &["--parent", "none"],
            false => &[],
        };
        let arguments = [&["push", "--json", "nas2:photos"], options].concat();
        self.hosts.sender.ctl_start(&arguments)
    }

    fn cancel(&self, full: bool, measure: Measure, random: &mut Random) -> (bool, Output) {
        let before = self.hosts.link.bytes(Way::Up);
        let mut push = self.start_push(full);
        // Before that the command dies of the signal, and whether the daemon has begun the push is open.
        let begun = self.comes_when(&mut push, |world| {
            world.hosts.link.bytes(Way::Up) > before + FAREWELL
        });
        let moment = self.moment(random, measure);
        let struck = begun && self.comes(moment, &mut push);
        if struck {
            push.signal(Signal::INT);
        }
        (struck, finish(push))
    }

    fn broken_link(
        &self,
        kind: Kind,
        full: bool,
        measure: Measure,
        random: &mut Random,
    ) -> (bool, Output) {
        let link = &self.hosts.link;
        let way = random.pick(&[Way::Up, Way::Up, Way::Down]);
        let rule = match kind {
            Kind::Flip => Rule::Flip(random.below(8) as u8),
            Kind::Stall => Rule::Stall,
            _ => random.pick(&[Rule::Cut, Rule::Cut, Rule::Sever]),
        };
        let (faults, more) = (link.faults(), offset(random, measure, way));
        let there = Moment::Bytes(way, link.bytes(way) + more);
        link.set_after(way, more, rule);
        let mut push = self.start_push(full);
        let struck = match rule {
            Rule::Stall => {
                let struck = self.comes(there, &mut push);
                pause(random, LASTING);
                if random.once_in(2) {
                    link.cut();
                }
                struck
            }
            _ => self.comes_when(&mut push, |_| link.faults() > faults) || link.faults() > faults,
        };
        if struck && matches!(rule, Rule::Flip(_)) {
            // A changed length makes the other side wait for bytes that never come.
            let patience = Moment::At(Instant::now() + LISTENING);
            if self.comes(patience, &mut push) {
                link.reset();
            }
        }
        let stays = rule == Rule::Sever && random.once_in(3);
        if struck && !stays {
            pause(random, LASTING);
            link.mend();
        }
        (struck, finish(push))
    }

    /// Kills daemons at some time, and starts them again during the push or after it.
    fn kill(
        &mut self,
        side: Side,
        full: bool,
        measure: Measure,
        random: &mut Random,
    ) -> (bool, Output) {
        let moment = self.moment(random, measure);
        let mut push = self.start_push(full);
        let struck = self.comes(moment, &mut push);
        let Linked {
            sender, receiver, ..
        } = &mut self.hosts;
        if side != Side::Sender {
            receiver.daemon.kill_if_alive();
        }
        if side != Side::Receiver {
            sender.daemon.kill_if_alive();
        }
        if random.once_in(2) {
            pause(random, LASTING);
            self.start_again();
        }
        (struck, finish(push))
    }

    fn start_again(&mut self) {
        let Linked {
            sender, receiver, ..
        } = &mut self.hosts;
        for daemon in [&mut receiver.daemon, &mut sender.daemon] {
            if !daemon.runs() {
                daemon.start();
            }
        }
    }

    /// Makes a daemon die at a fail point.
    fn fail_point(
        &mut self,
        side: Side,
        full: bool,
        random: &mut Random,
        place: &mut Option<&'static str>,
    ) -> (bool, Output) {
        let Linked {
            sender, receiver, ..
        } = &mut self.hosts;
        *place = Some(match side {
            Side::Sender | Side::Both => {
                Self::arm(&mut sender.daemon, &fail_points::SENDER, random)
            }
            Side::Receiver => Self::arm(&mut receiver.daemon, &fail_points::RECEIVER, random),
        });
        let mut push = self.start_push(full);
        let again = random.once_in(2);
        while push.runs() {
            let Linked {
                sender, receiver, ..
            } = &mut self.hosts;
            let alive = sender.daemon.runs() && receiver.daemon.runs();
            if !alive && again {
                sender.daemon.clear_env();
                receiver.daemon.clear_env();
                self.start_again();
                return (true, finish(push));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let output = finish(push);
        let Linked {
            sender, receiver, ..
        } = &mut self.hosts;
        // The steps after the report are part of the push.
        let daemon = match side {
            Side::Sender | Side::Both => &mut sender.daemon,
            Side::Receiver => &mut receiver.daemon,
        };
        (daemon.wait_dead(Duration::from_millis(50)), output)
    }

    /// Cuts the power of a host at some time. The link is cut first, so that its later steps stay unknown.
    fn power(
        &mut self,
        side: Side,
        full: bool,
        measure: Measure,
        random: &mut Random,
    ) -> (bool, Output) {
        let moment = self.moment(random, measure);
        let mut push = self.start_push(full);
        let struck = self.comes(moment, &mut push);
        self.hosts.link.cut();
        match side {
            Side::Sender => self.hosts.sender.power_cut(),
            Side::Receiver => self.hosts.receiver.power_cut(),
            Side::Both => {
                self.hosts.sender.power_cut();
                self.hosts.receiver.power_cut();
            }
        }
        if random.once_in(2) {
            pause(random, LASTING);
            self.start_again();
            self.hosts.link.mend();
        }
        (struck, finish(push))
    }

    /// Puts a lying peer between the hosts, until a while after its lie.
    fn lie(&mut self, lie: Lie, full: bool, random: &mut Random) -> (bool, Output) {
        self.lie = Some(lie);
        let Linked {
            sender,
            link,
            receiver,
        } = &self.hosts;
        let lying_peer = LyingPeer::between(sender, receiver, "nas2", lie, random.number());
        link.aim(lying_peer.address());
        let mut push = self.start_push(full);
        let told = self.comes_when(&mut push, |_| lying_peer.told() > 0);
        if told {
            let patience = Moment::At(Instant::now() + LISTENING);
            if !matches!(lie, Lie::SwallowCommit) || random.once_in(3) {
                self.comes(patience, &mut push);
            }
        }
        link.aim(receiver.address());
        link.reset();
        sender.daemon.may_log(REFUSED);
        let struck = lying_peer.told() > 0;
        (struck, finish(push))
    }
}

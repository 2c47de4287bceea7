//! A restore that is disturbed by a fault.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::restores::kind::RestoreFault;
use crate::restores::task::{Destination, Task};
use crate::restores::world::World;
use crate::strike::{comes_when, finish, offset, pause};
use crate::table::Went;
use sendshot_harness::faults::fail_points::{self, BUILT};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::{Output, Running};
use sendshot_harness::trees::random::Random;

/// Longest duration of a fault that heals during its restore.
const LASTING: Duration = Duration::from_millis(60);

/// How long a restore may hang after a flipped bit.
const LISTENING: Duration = Duration::from_millis(300);

/// Exit codes of a restore that failed through no fault of a user: it failed, the receiver was not reached, the
/// receiver refused. A power cut kills the command itself.
const EXCUSABLE: [i32; 4] = [1, 3, 4, -9];

/// A point in the course of a restore.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// This many bytes have come since the link was made.
    Bytes(u64),
    At(Instant),
}

impl World {
    /// Makes the restore that the fault disturbs. Does not repair what the fault broke.
    pub(super) fn struck_restore(
        &mut self,
        kind: RestoreFault,
        task: &Task,
        random: &mut Random,
    ) -> (Went, Output) {
        let mut died_at = None;
        let by_fail_point = BUILT && random.once_in(2);
        let (struck, output) = match kind {
            RestoreFault::Cut | RestoreFault::Flip => self.broken_link(kind, task, random),
            RestoreFault::KillRestore if by_fail_point => {
                self.fail_point(task, random, &mut died_at)
            }
            RestoreFault::KillSender
                if by_fail_point && matches!(task.destination, Destination::InPlace { .. }) =>
            {
                self.fail_point_of_daemon(task, random, &mut died_at)
            }
            RestoreFault::KillRestore => self.kill_restore(task, random),
            RestoreFault::KillSender | RestoreFault::KillReceiver => {
                self.kill_daemon(kind, task, random)
            }
            RestoreFault::PowerSender => self.power_sender(task, random),
            RestoreFault::PowerReceiver => self.power_receiver(task, random),
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
        (went, output)
    }

    fn command(&self, task: &Task) -> Command {
        self.hosts.sender.restore_command(&task.arguments())
    }

    fn start(&self, task: &Task) -> Running {
        Running::start(&mut self.command(task))
    }

    /// Chooses a point in the course of a restore that begins now.
    fn moment(&self, random: &mut Random) -> Moment {
        if self.slow || random.once_in(3) {
            let more = offset(random, self.whole, Way::Down);
            return Moment::Bytes(self.hosts.link.bytes(Way::Down) + more);
        }
        let most = self.whole.time.as_micros() as u64 * 11 / 10;
        Moment::At(Instant::now() + Duration::from_micros(random.below(most)))
    }

    /// Waits for the moment. Returns whether it came before the restore ended.
    fn comes(&self, moment: Moment, restore: &mut Running) -> bool {
        comes_when(restore, || match moment {
            Moment::Bytes(bytes) => self.hosts.link.bytes(Way::Down) >= bytes,
            Moment::At(time) => Instant::now() >= time,
        })
    }

    fn broken_link(&self, kind: RestoreFault, task: &Task, random: &mut Random) -> (bool, Output) {
        let link = &self.hosts.link;
        let way = random.pick(&[Way::Down, Way::Down, Way::Down, Way::Up]);
        let rule = match kind {
            RestoreFault::Flip => Rule::Flip(random.below(8) as u8),
            _ => random.pick(&[Rule::Cut, Rule::Cut, Rule::Sever]),
        };
        let (faults, more) = (link.faults(), offset(random, self.whole, way));
        link.set_after(way, more, rule);
        let mut restore = self.start(task);
        let struck = comes_when(&mut restore, || link.faults() > faults) || link.faults() > faults;
        if struck && matches!(rule, Rule::Flip(_)) {
            // A changed length makes the other side wait for bytes that never come.
            let patience = Moment::At(Instant::now() + LISTENING);
            if self.comes(patience, &mut restore) {
                link.reset();
            }
        }
        let stays = rule == Rule::Sever && random.once_in(3);
        if struck && !stays {
            pause(random, LASTING);
            link.mend();
        }
        (struck, finish(restore))
    }

    fn kill_restore(&self, task: &Task, random: &mut Random) -> (bool, Output) {
        let moment = self.moment(random);
        let mut restore = self.start(task);
        let struck = self.comes(moment, &mut restore) && restore.signal_children(Signal::KILL);
        (struck, finish(restore))
    }

    /// Makes the program that restores die at a fail point.
    fn fail_point(
        &self,
        task: &Task,
        random: &mut Random,
        place: &mut Option<&'static str>,
    ) -> (bool, Output) {
        let mut command = self.command(task);
        let (point, armed) = armed(&fail_points::RESTORE, random);
        *place = Some(point);
        command.env(fail_points::VARIABLE, armed);
        let output = finish(Running::start(&mut command));
        (output.code != 0, output)
    }

    /// Makes the daemon of the restoring host die at a fail point.
    fn fail_point_of_daemon(
        &mut self,
        task: &Task,
        random: &mut Random,
        place: &mut Option<&'static str>,
    ) -> (bool, Output) {
        let (point, armed) = armed(&fail_points::RECORD, random);
        *place = Some(point);
        let daemon = &mut self.hosts.sender.daemon;
        daemon.stop();
        daemon.env(fail_points::VARIABLE, &armed);
        daemon.start();
        let output = finish(self.start(task));
        (!self.hosts.sender.daemon.runs(), output)
    }

    /// Kills a daemon at some time, and starts it again during the restore or after it.
    fn kill_daemon(
        &mut self,
        kind: RestoreFault,
        task: &Task,
        random: &mut Random,
    ) -> (bool, Output) {
        let moment = self.moment(random);
        let mut restore = self.start(task);
        let struck = self.comes(moment, &mut restore);
        let daemon = match kind {
            RestoreFault::KillReceiver => &mut self.hosts.receiver.daemon,
            _ => &mut self.hosts.sender.daemon,
        };
        daemon.kill_if_alive();
        if random.once_in(2) {
            pause(random, LASTING);
            daemon.start();
        }
        (struck, finish(restore))
    }

    /// Cuts the power of the restoring host at some time, while everything runs.
    fn power_sender(&mut self, task: &Task, random: &mut Random) -> (bool, Output) {
        let moment = self.moment(random);
        let mut restore = self.start(task);
        let struck = self.comes(moment, &mut restore);
        self.hosts.link.cut();
        self.hosts.sender.power_cut_with(|| {
            if restore.runs() {
                restore.signal_children(Signal::KILL);
                restore.signal(Signal::KILL);
            }
        });
        let mut output = finish(restore);
        if struck {
            // It ran when the power failed: what it reported until it was killed has not happened.
            output.code = -9;
        }
        (struck, output)
    }

    /// Cuts the receiver's power at some time, and switches it on again during the restore or after it.
    fn power_receiver(&mut self, task: &Task, random: &mut Random) -> (bool, Output) {
        let moment = self.moment(random);
        let mut restore = self.start(task);
        let struck = self.comes(moment, &mut restore);
        self.hosts.link.cut();
        self.hosts.receiver.power_cut();
        if random.once_in(2) {
            pause(random, LASTING);
            self.hosts.receiver.daemon.start();
            self.hosts.link.mend();
        }
        (struck, finish(restore))
    }
}

/// A random fail point, and the value that arms it.
fn armed(points: &[&'static str], random: &mut Random) -> (&'static str, String) {
    let passed = match random.once_in(3) {
        true => random.below(4),
        false => 0,
    };
    let point = random.pick(points);
    (point, fail_points::armed(point, passed))
}

//! The moment of a fault.

use std::thread;
use std::time::{Duration, Instant};

use crate::world::{Measure, World};
use sendshot_harness::faults::link::Way;
use sendshot_harness::hosts::command::{Output, Running};
use sendshot_harness::trees::random::Random;

/// Interval between two checks of a condition.
const EVERY: Duration = Duration::from_micros(500);

/// Time limit of a push that nothing blocks.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a push that contain the greeting, the inventory and the announcement.
const BEGINNING: u64 = 12_000;
/// Bytes of a push that contain its end.
const ENDING: u64 = 40_000;

/// A point in the course of a push.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// This many bytes have passed in one direction since the link was made.
    Bytes(Way, u64),
    /// A point in time.
    At(Instant),
}

/// Chooses the number of further bytes in one direction before the fault.
pub(super) fn offset(random: &mut Random, measure: Measure, way: Way) -> u64 {
    let all = measure.bytes[way as usize];
    match random.below(6) {
        0 => random.below(BEGINNING.min(all)),
        1 => all.saturating_sub(ENDING) + random.below(ENDING),
        _ => random.below(all + all / 20),
    }
}

impl World {
    /// Chooses a point in the course of a push that begins now.
    pub(super) fn moment(&self, random: &mut Random, measure: Measure) -> Moment {
        if self.slow || random.once_in(3) {
            let more = offset(random, measure, Way::Up);
            return Moment::Bytes(Way::Up, self.hosts.link.bytes(Way::Up) + more);
        }
        let most = measure.time.as_micros() as u64 * 11 / 10;
        Moment::At(Instant::now() + Duration::from_micros(random.below(most)))
    }

    /// Waits for the moment. Returns whether it came before the push ended.
    pub(super) fn comes(&self, moment: Moment, push: &mut Running) -> bool {
        self.comes_when(push, |world| match moment {
            Moment::Bytes(way, bytes) => world.hosts.link.bytes(way) >= bytes,
            Moment::At(time) => Instant::now() >= time,
        })
    }

    /// As [`comes`](Self::comes), for any condition.
    pub(super) fn comes_when(
        &self,
        push: &mut Running,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> bool {
        comes_when(push, || condition(self))
    }
}

/// Waits for a condition. Returns whether it held before the program ended.
pub(super) fn comes_when(running: &mut Running, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while running.runs() {
        if condition() {
            return true;
        }
        assert!(Instant::now() < end, "it hangs");
        thread::sleep(EVERY);
    }
    false
}

/// Waits for the end of a program that nothing blocks any more.
#[track_caller]
pub(super) fn finish(mut running: Running) -> Output {
    let end = Instant::now() + PATIENCE;
    while running.runs() {
        assert!(Instant::now() < end, "it hangs");
        thread::sleep(EVERY);
    }
    running.finish()
}

/// Sleeps for a short random time, often none.
pub(super) fn pause(random: &mut Random, most: Duration) {
    if random.once_in(2) {
        let most = most.as_micros() as u64;
        thread::sleep(Duration::from_micros(random.below(most)));
    }
}

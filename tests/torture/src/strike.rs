//! When a fault comes.

use std::thread;
use std::time::{Duration, Instant};

use crate::world::{Measure, World};
use sendshot_harness::faults::link::Way;
use sendshot_harness::hosts::command::{Output, Running};
use sendshot_harness::trees::random::Random;

/// How often is looked.
const EVERY: Duration = Duration::from_micros(500);

/// What a push takes at most that is not held up for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// What greets, asks and begins is in the first bytes.
const BEGINNING: u64 = 12_000;
/// What ends is in the last.
const ENDING: u64 = 40_000;

/// A place in the course of a push.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// So many bytes have gone one way since the link was made.
    Bytes(Way, u64),
    /// A time.
    At(Instant),
}

/// How many further bytes one way until the fault.
pub(super) fn offset(random: &mut Random, measure: Measure, way: Way) -> u64 {
    let all = measure.bytes[way as usize];
    match random.below(6) {
        0 => random.below(BEGINNING.min(all)),
        1 => all.saturating_sub(ENDING) + random.below(ENDING),
        _ => random.below(all + all / 20),
    }
}

impl World {
    /// A place in the course of a push that begins now.
    pub(super) fn moment(&self, random: &mut Random, measure: Measure) -> Moment {
        if self.slow || random.once_in(3) {
            let more = offset(random, measure, Way::Up);
            return Moment::Bytes(Way::Up, self.hosts.link.bytes(Way::Up) + more);
        }
        let most = measure.time.as_micros() as u64 * 11 / 10;
        Moment::At(Instant::now() + Duration::from_micros(random.below(most)))
    }

    /// Waits for it. Returns whether it came before the push was over.
    pub(super) fn comes(&self, moment: Moment, push: &mut Running) -> bool {
        self.comes_when(push, |world| match moment {
            Moment::Bytes(way, bytes) => world.hosts.link.bytes(way) >= bytes,
            Moment::At(time) => Instant::now() >= time,
        })
    }

    /// The same for any condition.
    pub(super) fn comes_when(
        &self,
        push: &mut Running,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = Instant::now() + PATIENCE;
        while push.runs() {
            if condition(self) {
                return true;
            }
            assert!(Instant::now() < end, "the push hangs");
            thread::sleep(EVERY);
        }
        false
    }
}

/// Waits for the end of a push that nothing holds up any more.
#[track_caller]
pub(super) fn finish(mut push: Running) -> Output {
    let end = Instant::now() + PATIENCE;
    while push.runs() {
        assert!(Instant::now() < end, "the push hangs");
        thread::sleep(EVERY);
    }
    push.finish()
}

/// A short while; often none.
pub(super) fn pause(random: &mut Random, most: Duration) {
    if random.once_in(2) {
        let most = most.as_micros() as u64;
        thread::sleep(Duration::from_micros(random.below(most)));
    }
}

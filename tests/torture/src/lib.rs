//! Pushes and restores under faults of every kind, at random points, for any length of time: whatever happens to
//! one of them, the next undisturbed one must succeed, and all checks must pass then.
//!
//! Hosts live for some twenty iterations, a *life*. All random choices in a life follow from its
//! seed and its list of faults, which are printed when it fails; the timing of two concurrent
//! processes does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failure in a test ends it, and its location says enough"
)]

mod check;
mod end;
mod fault;
mod kind;
mod life;
mod options;
mod pool;
mod restores;
mod strike;
mod table;
mod volume;
mod world;

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

pub use end::end_by_ctrl_c;
pub use kind::{Fault, Kind};
pub use options::{Options, any_seed};
pub use restores::kind::RestoreFault;
pub use table::Table;

use end::is_over;
use life::{Hosts, Life};
use pool::Pool;

/// Runs the torture test of pushes; returns the results.
///
/// # Panics
/// If a worker cannot be started. Failed iterations are only counted and printed.
pub fn pushes(options: &Options) -> Table {
    run::<world::World>(options)
}

/// Runs the torture test of restores; returns the results.
///
/// # Panics
/// If a worker cannot be started. Failed iterations are only counted and printed.
pub fn restores(options: &Options<RestoreFault>) -> Table<RestoreFault> {
    run::<restores::world::World>(options)
}

fn run<H: Hosts>(options: &Options<H::Fault>) -> Table<H::Fault> {
    println!("SEED={}", options.seed);
    let table = Mutex::new(Table::default());
    if let Some(life) = &options.replay {
        life.live::<H>(&table, options.end());
        return table.into_inner().unwrap();
    }
    let pool = Mutex::new(Pool::new(options));
    let end = options.end();
    thread::scope(|scope| {
        for worker in 0..options.workers {
            let (table, pool) = (&table, &pool);
            let name = format!("torture-{worker}");
            let work = move || work::<H>(pool, table, end);
            thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, work)
                .unwrap();
        }
    });
    table.into_inner().unwrap()
}

/// Runs one life after the other.
fn work<H: Hosts>(
    pool: &Mutex<Pool<H::Fault>>,
    table: &Mutex<Table<H::Fault>>,
    end: Option<Instant>,
) {
    while !is_over(end) {
        let life: Option<Life<H::Fault>> = pool.lock().unwrap().take();
        let Some(life) = life else { return };
        let again = life.live::<H>(table, end);
        pool.lock().unwrap().give_back(&again);
    }
}

//! Pushes under faults of every kind, at random points, for any length of time: whatever happens to
//! one push, the next undisturbed one must succeed, and all checks must pass then.
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
mod strike;
mod table;
mod volume;
mod world;

use std::sync::Mutex;
use std::thread;
use std::time::Instant;

pub use end::stop;
pub use kind::Kind;
pub use options::Options;
pub use table::Table;

use end::is_over;
use life::Life;
use pool::Pool;

/// Runs the torture test; returns the results.
///
/// # Panics
/// If a worker cannot be started. Failed iterations are only counted and printed.
pub fn run(options: &Options) -> Table {
    println!("SEED={}", options.seed);
    let table = Mutex::new(Table::default());
    if let Some(life) = &options.replay {
        life.live(&table, options.end());
        return table.into_inner().unwrap();
    }
    let pool = Mutex::new(Pool::new(options));
    let end = options.end();
    thread::scope(|scope| {
        for worker in 0..options.workers {
            let (table, pool) = (&table, &pool);
            let name = format!("torture-{worker}");
            let work = move || work(pool, table, end);
            thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, work)
                .unwrap();
        }
    });
    table.into_inner().unwrap()
}

/// Runs one life after the other.
fn work(pool: &Mutex<Pool>, table: &Mutex<Table>, end: Option<Instant>) {
    while !is_over(end) {
        let life: Option<Life> = pool.lock().unwrap().take();
        let Some(life) = life else { return };
        let again = life.live(table, end);
        pool.lock().unwrap().give_back(&again);
    }
}

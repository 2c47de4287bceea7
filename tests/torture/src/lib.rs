//! Pushes under faults of every kind, at random places, for as long as one likes: whatever
//! happens to one push, the next honest one must succeed, and everything must hold then.
//!
//! Boxes live for some twenty iterations, a *life*. All that is chosen at random in a life
//! follows from its seed and its list of faults, which are printed when it fails; what two
//! processes do at the same time does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a test ends it, and where says enough"
)]

mod check;
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

pub use kind::Kind;
pub use options::Options;
pub use table::Table;

use life::Life;
use pool::Pool;

/// Set when whoever started it wants no more.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Has a run end as soon as its hosts are put away.
pub fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Whether nothing further is to be begun.
fn is_over(end: Option<Instant>) -> bool {
    STOPPED.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end)
}

/// Runs it; returns what happened.
///
/// # Panics
/// If a worker cannot be started. Iterations that fail are counted and told, not more.
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

/// Lives one life after the other.
fn work(pool: &Mutex<Pool>, table: &Mutex<Table>, end: Option<Instant>) {
    while !is_over(end) {
        let life: Option<Life> = pool.lock().unwrap().take();
        let Some(life) = life else { return };
        let again = life.live(table, end);
        pool.lock().unwrap().give_back(&again);
    }
}

//! The protocol as a model that is explored exhaustively within bounds.

mod bounds;
mod model;
mod properties;
mod real;
mod receiver;
mod sender;
mod state;

use std::num::NonZeroU32;

use stateright::{Checker, Model};

use bounds::{Bounds, Fault};
use model::Protocol;

fn explore(name: &str, model: Protocol) -> usize {
    let started = std::time::Instant::now();
    let checker = model.checker().spawn_dfs().join();
    println!(
        "{name}: {} unique states, {} steps, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    for (property, path) in checker.discoveries() {
        println!("--- {property}");
        if checker.model().property(property).expectation != stateright::Expectation::Sometimes {
            for (state, action) in path.into_vec() {
                let _ = &state;
                if let Some(a) = &action {
                    println!("    {a:?}");
                } else {
                    println!("{state:#?}");
                }
            }
        }
    }
    checker.unique_state_count()
}

#[test]
fn try_it() {
    let bounds = |b: Bounds| {
        for (k, f) in [
            ("always", properties::always as fn() -> _),
            ("sometimes", properties::sometimes),
        ] {
            explore(
                k,
                Protocol {
                    properties: f,
                    ..Protocol::new(b, Fault::None)
                },
            );
        }
    };
    bounds(Bounds::CALM);
    bounds(Bounds {
        breaks: 1,
        ..Bounds::CALM
    });
    bounds(Bounds {
        breaks: 1,
        sender_crashes: 1,
        requests: [2, 0],
        ..Bounds::CALM
    });
    bounds(Bounds {
        breaks: 1,
        sender_crashes: 1,
        receiver_crashes: [1, 0],
        requests: [2, 0],
        ..Bounds::CALM
    });
    bounds(Bounds {
        breaks: 1,
        sender_crashes: 1,
        snapshots: [2, 0],
        requests: [2, 0],
        ..Bounds::CALM
    });
    let _ = NonZeroU32::MIN;
}

//! The hostile corpus as seeds.

use sendshot_adversary::hostile;
use sendshot_adversary::hostile::trick::{Held, World};
use uuid::Uuid;

/// The streams of the hostile corpus, with placeholder paths.
pub(crate) fn hostile_streams() -> impl Iterator<Item = Vec<u8>> {
    let held = |n: u128| Held {
        uuid: Uuid::from_u128(n),
        ctransid: 7,
    };
    let world = World {
        uuid: Uuid::from_u128(1),
        ctransid: 7,
        inside: "/inside".into(),
        outside: "/outside".into(),
        own: held(2),
        other_volume: held(3),
        other_sender: held(4),
    };
    let tricks = hostile::corpus().into_iter();
    tricks.map(move |trick| (trick.stream)(&world))
}

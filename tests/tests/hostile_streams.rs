//! Streams of a sender that means harm: each is refused or harmless, and nothing but staging is touched.
//! Needs root.

use std::collections::BTreeSet;

use sendshot_tests::hostile::scene::Scene;
use sendshot_tests::hostile::{Expect, corpus};

/// Tricks between two honest pushes.
const BETWEEN: usize = 20;

#[test]
fn every_trick_is_refused_or_harmless_and_touches_nothing() {
    let tricks = corpus();
    let names: BTreeSet<_> = tricks.iter().map(|trick| trick.name).collect();
    assert_eq!(names.len(), tricks.len(), "two tricks have one name");
    for expect in [Expect::Refused, Expect::Harmless, Expect::RefusedByDaemon] {
        let count = tricks.iter().filter(|t| t.expect == expect).count();
        println!("{expect:?}: {count} tricks");
    }
    let mut scene = Scene::new();
    for some in tricks.chunks(BETWEEN) {
        for trick in some {
            scene.play(trick);
        }
        scene.push_honestly();
    }
    scene.end();
}

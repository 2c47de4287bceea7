//! Where an interrupted push is taken up: what the receiver has of it, compared with what this host knows of the
//! stream.

use sendshot_model::{TransferId, human};
use sendshot_proto::resume::{Partial, Point};

use crate::state::record::Waypoint;

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind what the receiver has.
    At(Waypoint),
    /// At the beginning.
    Beginning(Why),
}

/// Why at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The receiver has nothing of it.
    NothingThere,
    /// What it has was sent, but we do not know any more what we sent up to there.
    Unknown,
    /// What it has is not what we sent.
    Differs {
        /// Where.
        offset: u64,
    },
}

impl Why {
    /// In words.
    pub fn reason(self) -> String {
        match self {
            Self::NothingThere => "the receiver has nothing of it any more".to_owned(),
            Self::Unknown => {
                "the receiver has more of it than this box knows to have sent, or less".to_owned()
            }
            Self::Differs { offset } => format!(
                "what the receiver has of it up to {} is not what was sent",
                human::bytes_human(offset)
            ),
        }
    }
}

/// Compares what the receiver offers with what we know. The furthest place at which both agree is
/// where to go on; one that differs voids all behind it.
pub fn choose(known: &[Waypoint], offered: &[Point]) -> Start {
    let at = |offset: u64| known.iter().find(|w| w.place.offset == offset);
    let differs = offered
        .iter()
        .filter(|point| at(point.offset).is_some_and(|w| w.chain != point.chain))
        .map(|point| point.offset)
        .min();
    let agreed = offered
        .iter()
        .filter(|point| differs.is_none_or(|differs| point.offset < differs))
        .filter_map(|point| at(point.offset))
        .max_by_key(|waypoint| waypoint.place.offset);
    match (agreed, differs) {
        (Some(waypoint), _) => Start::At(*waypoint),
        (None, Some(offset)) => Start::Beginning(Why::Differs { offset }),
        (None, None) if offered.is_empty() => Start::Beginning(Why::NothingThere),
        (None, None) => Start::Beginning(Why::Unknown),
    }
}

/// What the receiver offers of one transfer.
pub fn offered(partials: &[Partial], transfer: TransferId) -> Vec<Point> {
    let own = partials.iter().filter(|p| p.transfer == transfer);
    own.flat_map(|partial| partial.points.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use sendshot_engine::{Place, SkeletonHash};
    use sendshot_proto::chain::Chain;

    use super::*;

    fn known(offset: u64, chain: u8) -> Waypoint {
        Waypoint {
            place: Place {
                offset,
                skeleton: SkeletonHash([0; 32]),
            },
            chain: Chain([chain; 32]),
        }
    }

    fn offer(offset: u64, chain: u8) -> Point {
        known(offset, chain).point()
    }

    #[test]
    fn the_furthest_place_on_which_both_agree_is_where_to_go_on() {
        let ours = [known(10, 1), known(20, 2), known(30, 3)];
        let theirs = [offer(20, 2), offer(10, 1), offer(25, 9)];
        assert_eq!(choose(&ours, &theirs), Start::At(known(20, 2)));
    }

    #[test]
    fn what_differs_voids_all_behind_it() {
        let ours = [known(10, 1), known(20, 2), known(30, 3)];
        let before = [offer(10, 1), offer(20, 7), offer(30, 3)];
        assert_eq!(choose(&ours, &before), Start::At(known(10, 1)));
        let none = Start::Beginning(Why::Differs { offset: 10 });
        assert_eq!(choose(&ours, &[offer(10, 7), offer(20, 2)]), none);
    }

    #[test]
    fn what_nobody_knows_is_not_gone_on_from() {
        let ours = [known(10, 1)];
        assert_eq!(choose(&ours, &[]), Start::Beginning(Why::NothingThere));
        assert_eq!(
            choose(&ours, &[offer(11, 1)]),
            Start::Beginning(Why::Unknown)
        );
        assert_eq!(choose(&[], &[offer(10, 1)]), Start::Beginning(Why::Unknown));
    }
}

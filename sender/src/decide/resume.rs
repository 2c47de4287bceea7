//! Decides where an interrupted push resumes: compares what the receiver has of it with what this host knows of
//! the stream.

use sendshot_model::{TransferId, human};
use sendshot_proto::resume::{Partial, Point};

use crate::state::record::ResumePoint;

/// Where to continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After what the receiver has.
    At(ResumePoint),
    Beginning(RestartReason),
}

/// RestartReason a push cannot be resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartReason {
    NothingThere,
    /// The receiver has a part, but this host no longer knows what it sent up to there.
    Unknown,
    /// The receiver's part is not what was sent.
    Differs {
        offset: u64,
    },
}

impl RestartReason {
    /// The reason, for the user.
    pub fn reason(self) -> String {
        match self {
            Self::NothingThere => "the receiver holds no partial of it any more".to_owned(),
            Self::Unknown => {
                "the receiver holds more of it than this host recorded as sent, or less".to_owned()
            }
            Self::Differs { offset } => format!(
                "the receiver's partial differs up to {} from the stream that was sent",
                human::bytes_human(offset)
            ),
        }
    }
}

/// Compares what the receiver offers with what this host knows, and chooses the furthest point at which both
/// agree. A point that differs invalidates everything after it.
pub fn choose(known: &[ResumePoint], offered: &[Point]) -> Start {
    let at = |offset: u64| known.iter().find(|w| w.position.offset == offset);
    let differs = offered
        .iter()
        .filter(|point| at(point.offset).is_some_and(|w| w.chain != point.chain))
        .map(|point| point.offset)
        .min();
    let agreed = offered
        .iter()
        .filter(|point| differs.is_none_or(|differs| point.offset < differs))
        .filter_map(|point| at(point.offset))
        .max_by_key(|waypoint| waypoint.position.offset);
    match (agreed, differs) {
        (Some(waypoint), _) => Start::At(*waypoint),
        (None, Some(offset)) => Start::Beginning(RestartReason::Differs { offset }),
        (None, None) if offered.is_empty() => Start::Beginning(RestartReason::NothingThere),
        (None, None) => Start::Beginning(RestartReason::Unknown),
    }
}

/// The points that the receiver offers of one transfer.
pub fn offered(partials: &[Partial], transfer: TransferId) -> Vec<Point> {
    let own = partials.iter().filter(|p| p.transfer == transfer);
    own.flat_map(|partial| partial.points.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use sendshot_engine::{SkeletonHash, StreamPosition};
    use sendshot_proto::chain::Chain;

    use super::*;

    fn known(offset: u64, chain: u8) -> ResumePoint {
        ResumePoint {
            position: StreamPosition {
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
    fn a_differing_segment_invalidates_later_ones() {
        let ours = [known(10, 1), known(20, 2), known(30, 3)];
        let before = [offer(10, 1), offer(20, 7), offer(30, 3)];
        assert_eq!(choose(&ours, &before), Start::At(known(10, 1)));
        let none = Start::Beginning(RestartReason::Differs { offset: 10 });
        assert_eq!(choose(&ours, &[offer(10, 7), offer(20, 2)]), none);
    }

    #[test]
    fn unknown_points_are_not_resumed() {
        let ours = [known(10, 1)];
        assert_eq!(
            choose(&ours, &[]),
            Start::Beginning(RestartReason::NothingThere)
        );
        assert_eq!(
            choose(&ours, &[offer(11, 1)]),
            Start::Beginning(RestartReason::Unknown)
        );
        assert_eq!(
            choose(&[], &[offer(10, 1)]),
            Start::Beginning(RestartReason::Unknown)
        );
    }
}

//! Positions at which an interrupted transfer can be resumed.

use sendshot_model::TransferId;

use crate::chain::Chain;
use crate::malformed::{self, Malformed};
use crate::v1;

/// Maximum number of positions of one partial that are read. A receiver keeps its newest checkpoint and the
/// applied state; many more only cost time.
const MAX_POINTS: usize = 64;

/// Maximum number of partials of one volume that are read: there should be one.
const MAX_PARTIALS: usize = 64;

/// A position in a stream, between two commands, up to which the receiver has everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Bytes of the stream before it; not 0.
    pub offset: u64,
    /// Chain value at the position, of the segments as they were applied.
    pub chain: Chain,
}

/// An interrupted transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Id of the transfer.
    pub transfer: TransferId,
    /// Positions at which it can be resumed, in no particular order.
    pub points: Vec<Point>,
}

/// The receiver's rule for checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckpointPolicy {
    /// Bytes of the stream that must pass after the last one.
    pub bytes: u64,
    /// Milliseconds that must pass after the last one.
    pub milliseconds: u64,
}

impl TryFrom<v1::ResumePoint> for Point {
    type Error = Malformed;

    fn try_from(message: v1::ResumePoint) -> Result<Self, Malformed> {
        if message.offset == 0 {
            return Err(Malformed::Value("offset"));
        }
        Ok(Self {
            offset: message.offset,
            chain: Chain::parse(&message.chain)?,
        })
    }
}

impl From<Point> for v1::ResumePoint {
    fn from(point: Point) -> Self {
        Self {
            offset: point.offset,
            chain: point.chain.0.to_vec(),
        }
    }
}

impl TryFrom<v1::Partial> for Partial {
    type Error = Malformed;

    fn try_from(message: v1::Partial) -> Result<Self, Malformed> {
        let id = malformed::id_bytes(&message.transfer_id, "transfer_id")?;
        let points = message.points.into_iter().take(MAX_POINTS);
        Ok(Self {
            transfer: TransferId::from_bytes(id),
            points: points.map(Point::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Partial> for v1::Partial {
    fn from(partial: Partial) -> Self {
        Self {
            transfer_id: partial.transfer.to_bytes().to_vec(),
            points: partial.points.into_iter().map(Into::into).collect(),
        }
    }
}

/// Parses the partials of an answer.
pub(crate) fn partials(messages: Vec<v1::Partial>) -> Result<Vec<Partial>, Malformed> {
    let messages = messages.into_iter().take(MAX_PARTIALS);
    messages.map(Partial::try_from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reported_values_are_parsed_back() {
        let partial = Partial {
            transfer: TransferId::generate(),
            points: vec![Point {
                offset: 7,
                chain: Chain([3; 32]),
            }],
        };
        let message = v1::Partial::from(partial.clone());
        assert_eq!(Partial::try_from(message).unwrap(), partial);
    }

    #[test]
    fn the_start_of_a_stream_is_no_place_to_resume() {
        let message = v1::ResumePoint {
            offset: 0,
            chain: vec![0; 32],
        };
        assert!(Point::try_from(message).is_err());
    }

    #[test]
    fn endless_points_are_refused() {
        let point = v1::ResumePoint {
            offset: 1,
            chain: vec![0; 32],
        };
        let message = v1::Partial {
            transfer_id: vec![0; 16],
            points: vec![point; 10 * MAX_POINTS],
        };
        assert_eq!(Partial::try_from(message).unwrap().points.len(), MAX_POINTS);
    }
}

//! The position in a stream that arrives, and the check of every segment.

use sendshot_proto::chain::Chain;
use sendshot_proto::resume::Point;
use sendshot_proto::transfer::Segment;

/// Offset in the stream, and its hash up to there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    offset: u64,
    chain: Chain,
}

/// A segment, or the end of the stream, does not continue the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The segment belongs elsewhere.
    #[error("a segment begins at {found} instead of {expected}")]
    Misplaced {
        /// Its offset.
        found: u64,
        /// The offset of the next byte.
        expected: u64,
    },
    /// The data do not match their chain value, or the length does not match.
    #[error("the data received after byte {offset} of the stream are not the data that were sent")]
    Mismatch {
        /// Bytes of the stream that were verified.
        offset: u64,
    },
}

impl Position {
    /// The position after a point from which a transfer resumes.
    pub fn at(point: Point) -> Self {
        Self {
            offset: point.offset,
            chain: point.chain,
        }
    }

    /// Bytes of the stream before it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The same as a point, which must not be used at the start of the stream.
    pub fn point(&self) -> Point {
        Point {
            offset: self.offset,
            chain: self.chain,
        }
    }

    /// Checks the next segment, before any of it is applied.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn check(&self, segment: &Segment) -> Result<(), Error> {
        if segment.offset != self.offset {
            return Err(Error::Misplaced {
                found: segment.offset,
                expected: self.offset,
            });
        }
        match self.chain.extend(&segment.data) == segment.chain {
            true => Ok(()),
            false => Err(self.mismatch()),
        }
    }

    /// Advances over a segment that was checked and applied.
    pub fn passed(&mut self, segment: &Segment) {
        self.chain = segment.chain;
        self.offset += segment.data.len() as u64;
    }

    /// Checks the announced end of the stream.
    ///
    /// # Errors
    /// [`Error::Mismatch`].
    pub fn check_end(&self, length: u64, chain: Chain) -> Result<(), Error> {
        match (length, chain) == (self.offset, self.chain) {
            true => Ok(()),
            false => Err(self.mismatch()),
        }
    }

    fn mismatch(&self) -> Error {
        Error::Mismatch {
            offset: self.offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use sendshot_proto::transfer::Mark;

    use super::*;

    fn segment(offset: u64, data: &'static [u8], before: Chain) -> Segment {
        Segment {
            offset,
            data: data.into(),
            chain: before.extend(data),
            mark: Mark::None,
        }
    }

    #[test]
    fn only_the_next_segment_passes() {
        let mut position = Position::default();
        let first = segment(0, b"abc", Chain::default());
        position.check(&first).unwrap();
        position.passed(&first);
        assert_eq!(
            position.check(&first),
            Err(Error::Misplaced {
                found: 0,
                expected: 3
            })
        );
        let other = segment(3, b"d", Chain::default());
        assert_eq!(position.check(&other), Err(Error::Mismatch { offset: 3 }));
        assert_eq!(position.check(&segment(3, b"d", first.chain)), Ok(()));
        assert_eq!(
            position.check_end(4, first.chain),
            Err(Error::Mismatch { offset: 3 })
        );
        assert_eq!(position.check_end(3, first.chain), Ok(()));
    }
}

//! The brake: a run that deletes much asks first.

/// Most copies that the first run under another rule deletes without asking.
pub const MAX_UNASKED: usize = 3;

/// Why a run must ask before it deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brake {
    /// It is the first under this rule.
    OtherRule {
        /// How many copies it would delete.
        going: usize,
    },
    /// It would delete more than half of the copies.
    MoreThanHalf {
        /// How many copies it would delete.
        going: usize,
        /// How many there are.
        all: usize,
    },
}

/// Decides whether a run must ask. `is_first` tells whether no run was completed under this rule yet.
#[must_use]
pub fn brake(all: usize, going: usize, is_first: bool) -> Option<Brake> {
    if is_first && going > MAX_UNASKED {
        return Some(Brake::OtherRule { going });
    }
    (going * 2 > all).then_some(Brake::MoreThanHalf { going, all })
}

impl Brake {
    /// Words for users.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::OtherRule { going } => {
                format!("the first run under this rule would delete {going} copies")
            }
            Self::MoreThanHalf { going, all } => {
                format!("it would delete {going} of {all} copies, more than half")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_run_deletes_three_and_a_later_one_half() {
        assert_eq!(brake(100, 3, true), None);
        assert_eq!(brake(100, 4, true), Some(Brake::OtherRule { going: 4 }));
        assert_eq!(brake(100, 50, false), None);
        assert_eq!(
            brake(100, 51, false),
            Some(Brake::MoreThanHalf {
                going: 51,
                all: 100
            })
        );
        assert_eq!(
            brake(4, 3, true),
            Some(Brake::MoreThanHalf { going: 3, all: 4 })
        );
        assert_eq!(brake(0, 0, true), None);
    }
}

//! Which copies of a volume are kept, as a function of their times, the policy and the clock. There is no I/O here, and no
//! clock: `now` is a parameter.
//!
//! Ages are counted to *T*, the time of the newest copy, if that is not in the future. So a sender that was away for a year
//! loses no history, and a receiver whose clock runs ahead deletes nothing by that.
//!
//! *The theorem.* A copy's ordinary time is when the rule, `protect` and its holds would let it go if T were the receiver's
//! clock and no copy were the newest. Nothing that is pushed later makes an earlier copy go before its ordinary time. It
//! holds because a span of time keeps its **earliest** copy, spans are those of the calendar, and nothing depends on the
//! number of copies or on their size. A property test of [`judge`] keeps it.

mod brake;
mod explain;
mod judge;
mod policy;
mod rule;
mod span;

pub use brake::{Brake, MAX_UNASKED, brake};
pub use explain::explain;
pub use judge::{Copy, Hold, Judgement, Kept, Verdict, judge};
pub use policy::{DEFAULT_PROTECT, Policy};
pub use rule::{Part, Rule, RuleError, Unit};

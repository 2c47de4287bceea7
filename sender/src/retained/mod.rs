//! What is kept between pushes: listed, deleted by rule and by the user, and reconciled after a crash.
//! No push is run from here.

pub mod expire;
pub mod foreign;
pub mod forget;
pub mod list;
pub mod prune;
pub mod reconcile;
pub mod selection;

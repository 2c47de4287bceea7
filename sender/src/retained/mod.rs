//! What is kept between pushes: how it is listed, deleted by rule and by hand, and reconciled after a crash.
//! No push is run from here.

pub mod foreign;
pub mod forget;
pub mod interrupted;
pub mod kept;
pub mod prune;
pub mod selection;
pub mod settle;

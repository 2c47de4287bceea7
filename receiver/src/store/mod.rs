//! What lies on the receiving disks: roots, copies, partials, and their sizes. This room receives nothing.

pub mod captures;
pub mod clock;
pub mod confirmed;
pub mod generations;
pub mod ledger;
pub mod locks;
pub mod partials;
pub mod root;
mod root_errors;
pub mod shrinking;
pub mod usage;
pub mod volumes;

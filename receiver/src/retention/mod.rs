//! Retention: deletes the copies that no rule of the administrator keeps.
//!
//! [`view::look`] reads a volume, its ledger and what uses its copies (`uses.rs`), and has `sendshot-retention` judge them by
//! their times (`times.rs`). [`run::over`]
//! deletes what goes, unless the brake, the clock or the ledger forbids it. The copies to delete by hand, the holds and the
//! times are in `by_hand.rs`.

pub mod barred;
pub mod by_hand;
mod delete;
pub mod recount;
pub mod run;
mod times;
pub mod undeletable;
mod uses;
pub mod view;

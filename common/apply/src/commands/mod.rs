//! Executes each command of a stream, beneath the staging subvolume and nowhere else.

pub(crate) mod absent;
pub(crate) mod applier;
pub(crate) mod batch;
pub(crate) mod budget;
pub(crate) mod clone;
pub(crate) mod data;
pub(crate) mod dirs;
pub(crate) mod encoded;
pub(crate) mod exceptions;
pub(crate) mod files;
pub(crate) mod flags;
pub(crate) mod fold;
pub(crate) mod inherited;
pub(crate) mod lenient;
pub(crate) mod metadata;
pub(crate) mod nodes;
pub(crate) mod run;
pub(crate) mod run_policy;
pub(crate) mod workers;

//! From a stream to a subvolume.

mod at_the_same_time;
mod confines_streams;
mod follows_every_command;
mod matches_stock_receive;
mod not_kept;
mod not_kept_by_push;
mod random_commands;
mod random_histories;
mod restores;
mod whole_or_not_at_all;
mod writes_early;

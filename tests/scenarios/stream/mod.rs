//! `sendshotctl stream`.

mod parents;
mod receive_errors;
mod sends;
mod unflushed;

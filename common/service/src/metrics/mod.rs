//! What a daemon tells Prometheus.

mod counts;
mod page;
mod serve;

pub use counts::{Count, Counts};
pub use page::{Labels, Page, flag};
pub use serve::{Render, Trouble, serve};

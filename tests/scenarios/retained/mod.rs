//! What is kept between pushes, and the reasons that are stated.

mod reasons;
mod reasons_kept;
mod sendshots;

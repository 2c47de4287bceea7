//! The project itself: its layers, its documents, its harness.

mod documented;
mod faults;
mod layers;

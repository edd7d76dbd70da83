//! The supervisor: one loop that waits, asks `step` what follows from what it saw, and does it.

mod buttons;
mod event;
mod machine;
mod main_loop;
mod output;
mod reap;
mod service;
mod signal;
mod source;

pub use main_loop::{Supervisor, Times};

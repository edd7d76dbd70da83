//! The supervisor: one loop that waits, asks `step` what follows from what it saw, and does it.

mod ask;
mod buttons;
mod conditions;
mod main_loop;
mod notify;
mod output;
mod reap;
mod signal;
mod source;

pub use main_loop::{Supervisor, Times};

//! The supervisor: one loop that waits, asks `step` what follows from what it saw, and does it.

mod act;
mod ask;
mod buttons;
mod conditions;
mod control;
mod history;
mod main_loop;
mod notify;
mod output;
mod reap;
mod signal;
mod sinks;
mod source;
mod supervised;

pub use main_loop::{Supervisor, Times};

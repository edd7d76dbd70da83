//! What follows from what happens to a machine's services.
//!
//! [`step`] is a pure function: it knows no process, reads no clock, and says what is to be done. init's loop does it;
//! `coracle simulate` and the tests let time pass by themselves.

mod conditions;
mod event;
mod graph;
mod machine;
mod random;
mod rules;
mod service;
mod state;
pub mod tell;

pub use event::{Action, Event, Fact, Index, Order, Outcome, Pid, Power, Question};
pub use machine::step;
pub use rules::Rules;
pub use service::{Life, Next, Run, Service, Stage};
pub use state::State;

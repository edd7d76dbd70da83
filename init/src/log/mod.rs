//! What the machine and its services say: where it is kept, and how it is shown.

mod console;
mod json;
mod line;
pub mod ring;
mod timestamp;

pub use console::{Console, Speaker};
pub use line::Line;
pub use timestamp::Timestamp;

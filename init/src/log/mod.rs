//! What the machine and its services say: where it is kept, and how it is shown.

mod console;
mod line;
pub mod ring;

pub use console::{Console, Speaker};
pub use line::Line;

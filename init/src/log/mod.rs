//! What the machine and its services say: where it is kept, and how it is shown.

mod console;
mod feed;
mod json;
mod line;
mod message;
mod outbox;
pub mod ring;
mod syslog;
mod timestamp;

pub use console::{Console, Speaker};
pub use feed::Voice;
pub use line::Line;
pub use syslog::Syslog;
pub use timestamp::Timestamp;

//! What the machine and its services say: where it is kept, and how it is shown.

mod console;
mod feed;
pub mod files;
mod frame;
mod json;
mod line;
mod message;
mod outbox;
pub mod ring;
mod syslog;
mod timestamp;
pub mod writer;

pub use console::{Console, Speaker};
pub use feed::Voice;
pub use files::Files;
pub use line::Line;
pub use syslog::Syslog;
pub use timestamp::Timestamp;

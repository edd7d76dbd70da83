//! Coracle's PID 1, as a library: everything but the order of the boot, which is `main.rs`.
//!
//! The machine is one single-threaded process that sleeps in one place, the supervisor's loop.

pub mod boot;
pub mod clock;
pub mod container;
pub mod error;
pub mod fatal;
pub mod layers;
pub mod log;
pub mod modules;
pub mod mounts;
pub mod net;
pub mod pool;
pub mod ports;
pub mod post_mortem;
pub mod report;
pub mod shutdown;
pub mod supervisor;
pub mod sys;
pub mod sysctl;
pub mod watchdog;

pub use error::Error;

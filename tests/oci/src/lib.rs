//! OCI's runtime command line over `init::container`, the code with which PID 1 starts every container.
//!
//! A bundle's `config.json` becomes the description that this code takes. Whatever the description has no words for is
//! an error that names the field: a container is never weaker than its config, and stricter only as docs/oci.md says.

mod capability;
mod command;
mod config;
mod folder;
mod lifecycle;
mod mount;
mod relay;
mod state;
mod translate;

pub use command::perform;

/// What everything here returns: a sentence that says what failed and why.
pub type Result<T> = std::result::Result<T, String>;

/// Turns a cause into a sentence.
fn because<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |cause| format!("{what}: {cause}")
}

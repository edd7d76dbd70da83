//! Layers: from a tar archive to an EROFS image and back, and several images as one tree.

mod convert;
#[cfg(any(test, fuzzing))]
pub mod damage;
mod listing;
mod names;
mod special;
mod tarball;
mod tree;
mod walk;

pub use convert::{Input, convert};
pub use listing::{Listing, list};
pub use special::Special;
pub use tarball::write as write_tarball;
pub use tree::Tree;

#[cfg(test)]
mod tests;

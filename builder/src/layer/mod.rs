//! Layers: from a tar archive to an EROFS image, and several images as one tree.

mod archive;
mod convert;
mod names;
mod pax;
mod special;
mod tree;

pub use convert::{Input, convert};
pub use special::Special;
pub use tree::Tree;

#[cfg(test)]
mod tests;

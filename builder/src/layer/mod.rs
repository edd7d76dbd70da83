//! Layers: from a tar archive to an EROFS image, and several images as one tree.

mod archive;
mod convert;
mod names;
mod pax;
mod tree;

pub use convert::convert;
pub use tree::Tree;

#[cfg(test)]
mod tests;

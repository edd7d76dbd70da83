//! What the builder writes: one writer per format.

pub mod cpio;
pub mod erofs;

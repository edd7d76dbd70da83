//! Container images, as the OCI image specification and `docker save` describe them.
//!
//! What is read here comes from outside. Three rules keep it harmless: a document is bounded and its digest and
//! size are verified before it is parsed; a path is only ever made of a parsed digest; an archive is never
//! unpacked, its files are read where they lie.

mod ahead;
pub mod archive;
pub mod compression;
#[cfg(any(test, fuzzing))]
pub mod damage;
pub mod descriptor;
mod docker;
pub mod document;
mod fingerprint;
pub mod folder;
pub mod image;
mod layout;
pub mod limits;
pub mod reference;
pub mod source;
pub mod stream;

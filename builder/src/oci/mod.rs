//! Container images, as the OCI image specification and `docker save` describe them.

pub mod descriptor;
pub mod image;
pub mod reference;

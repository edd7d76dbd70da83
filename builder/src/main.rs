//! `coracle`: one TOML file in, a bootable machine out.

mod artifact;
mod error;
mod layer;
mod oci;

fn main() {}

//! `coracle`: one TOML file in, a bootable machine out.

mod artifact;
mod error;
mod oci;

fn main() {}

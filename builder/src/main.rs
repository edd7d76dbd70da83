//! `coracle`: one TOML file in, a bootable machine out.

mod artifact;
mod config;
mod error;
mod fetch;
mod kernel;
mod layer;
mod lock;
mod oci;
mod store;
mod tool;

fn main() {}

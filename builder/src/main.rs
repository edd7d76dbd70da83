//! `coracle`: one TOML file in, a bootable machine out.

mod artifact;
mod config;
mod error;
mod fetch;
mod lock;
mod oci;
mod store;

fn main() {}

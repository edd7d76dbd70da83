//! Tasks for people who work on Coracle.

fn main() {}

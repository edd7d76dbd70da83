//! How a kernel's files are read when damaged inputs are fed to the readers.

use std::io::{self, Read as _};
use std::path::Path;

use super::{deb, module};
use crate::fuzz::Reader;

/// The readers.
pub const READERS: &[Reader] = &[
    Reader { name: "deb", mend: |_| {}, read: read_package },
    Reader { name: "modinfo", mend: |_| {}, read: read_module },
];

/// More than any input needs that was not made to inflate for minutes.
const ENOUGH: u64 = 16 << 20;

fn read_package(input: &[u8]) {
    if let Ok(data) = deb::data(input) {
        // An error is as good as the end.
        drop(io::copy(&mut data.take(ENOUGH), &mut io::sink()));
    }
}

fn read_module(input: &[u8]) {
    let mut module = input.to_vec();
    module::strip_signature(&mut module);
    drop(module::ModInfo::parse(Path::new("a.ko"), &module));
}

//! The readers of bytes from outside, each by the name under which it is fed with damaged inputs.
//!
//! `cargo test` feeds them with changed seeds (`mutation`) and with the inputs of `fixtures/fuzz`. Built with
//! `--cfg fuzzing`, as `cargo xtask fuzz` does it, this program is no builder: libFuzzer searches for inputs by what
//! they make a reader do. See `docs/fuzzing.md`.

use crate::{ctl, kernel, layer, oci, seccomp};

/// A reader of bytes from outside.
pub struct Reader {
    /// What it is called by tests, by `CORACLE_FUZZ` and in `fixtures/fuzz`.
    pub name: &'static str,
    /// Puts right what would end the reading early, such as a checksum.
    pub mend: fn(&mut Vec<u8>),
    /// Reads an input, which it may refuse in any way but by a panic or without an end.
    pub read: fn(&[u8]),
}

/// All readers, by the part of the builder that has them.
const READERS: &[&[Reader]] = &[
    ctl::damage::READERS,
    kernel::damage::READERS,
    layer::damage::READERS,
    oci::damage::READERS,
    seccomp::damage::READERS,
];

/// The reader of this name.
pub fn reader(name: &str) -> Option<&'static Reader> {
    READERS.iter().copied().flatten().find(|reader| reader.name == name)
}

/// Gives the first block of a tar archive, and each that names its format, the checksum of a header.
pub fn mend_sums(archive: &mut [u8]) {
    for (number, block) in archive.chunks_exact_mut(512).enumerate() {
        if number == 0 || block[257..262] == *b"ustar" {
            let mut header = tar::Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

#[cfg(fuzzing)]
mod guided {
    //! What libFuzzer calls.

    use std::sync::LazyLock;

    use super::{READERS, Reader, reader};

    /// The reader that `CORACLE_FUZZ` names.
    static CHOSEN: LazyLock<&Reader> = LazyLock::new(|| {
        let name = std::env::var("CORACLE_FUZZ").unwrap_or_default();
        reader(&name).unwrap_or_else(|| {
            let names: Vec<_> = READERS.iter().copied().flatten().map(|reader| reader.name).collect();
            eprintln!("error: `CORACLE_FUZZ` has to be one of {}", names.join(", "));
            std::process::exit(2);
        })
    });

    libfuzzer_sys::fuzz_target!(init: LazyLock::force(&CHOSEN), |input: &[u8]| {
        let mut input = input.to_vec();
        (CHOSEN.mend)(&mut input);
        (CHOSEN.read)(&input);
    });
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_input_that_was_kept_is_read_to_its_end() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz");
        for reader in READERS.iter().copied().flatten() {
            let inputs = fs::read_dir(folder.join(reader.name)).unwrap();
            let inputs: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
            assert!(!inputs.is_empty(), "{}", reader.name);
            for path in inputs {
                println!("{}", path.display());
                let mut input = fs::read(path).unwrap();
                (reader.read)(&input);
                (reader.mend)(&mut input);
                (reader.read)(&input);
            }
        }
    }
}

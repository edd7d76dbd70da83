//! Kernel module files: `.ko`, compressed or not, and the `.modinfo` section inside.

use std::io::Read;
use std::path::Path;

use object::{Object, ObjectSection};

use crate::error::{Context, Error, Result};

/// No module is larger: a bomb in a module's place ends here.
const MAX_SIZE: u64 = 256 << 20;

/// The endings of a module's file name.
const ENDINGS: &[&str] = &[".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// The module's name, if `file` is the name of a module's file.
pub fn name(file: &str) -> Option<&str> {
    ENDINGS.iter().find_map(|ending| file.strip_suffix(ending)).filter(|name| !name.is_empty())
}

/// Whether `file` is the name of a module's file, or of one that says what is built in.
pub fn is_useful(file: &str) -> bool {
    name(file).is_some() || file == "modules.builtin" || file == "modules.builtin.modinfo"
}

/// Reads and decompresses a module.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let doing = || format!("read kernel module `{}`", path.display());
    let file = std::fs::File::open(path).doing(doing)?;
    let ending = path.extension().and_then(|ending| ending.to_str());
    let mut reader: Box<dyn Read> = match ending {
        Some("xz") => Box::new(super::xz::decoder(file)?),
        Some("zst") => Box::new(zstd::Decoder::new(file).doing(doing)?),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut bytes = Vec::new();
    reader.by_ref().take(MAX_SIZE + 1).read_to_end(&mut bytes).doing(doing)?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size > MAX_SIZE) {
        return Err(Error::new(format!("kernel module `{}` is larger than 256 MiB", path.display())));
    }
    Ok(bytes)
}

/// What a signature ends with (Linux, `include/linux/module_signature.h`).
const SIGNATURE_MARKER: &[u8] = b"~Module signature appended~\n";

/// Cuts off an appended signature. Checking it costs a boot more than loading the module does, and everything in
/// the initramfs is trusted alike.
pub fn strip_signature(module: &mut Vec<u8>) {
    // struct module_signature: 12 bytes of which the last four are the signature's length, big endian.
    let Some(header_end) = module.len().checked_sub(SIGNATURE_MARKER.len()) else { return };
    if &module[header_end..] != SIGNATURE_MARKER || header_end < 12 {
        return;
    }
    let length = &module[header_end - 4..header_end];
    let length = length.iter().fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    if let Some(end) = (header_end - 12).checked_sub(length) {
        module.truncate(end);
    }
}

/// What a module says of itself, as far as loading it goes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Modules whose symbols it uses.
    pub depends: Vec<String>,
    /// Modules or aliases that it would like to have loaded before it.
    pub soft_before: Vec<String>,
    /// Names under which others may ask for it.
    pub aliases: Vec<String>,
}

impl ModInfo {
    /// Reads the `.modinfo` section of the decompressed module `bytes`; `path` is for messages.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let doing = || format!("read kernel module `{}`", path.display());
        let elf = object::File::parse(bytes).doing(doing)?;
        let section =
            elf.section_by_name(".modinfo").map(|section| section.data()).transpose().doing(doing)?;
        let section =
            section.ok_or_else(|| Error::new(format!("`{}` has no .modinfo section", path.display())))?;
        Ok(Self::from_section(section))
    }

    /// `key=value` strings, each ended by NUL.
    fn from_section(section: &[u8]) -> Self {
        let mut info = Self::default();
        for line in section.split(|byte| *byte == 0).filter_map(|line| std::str::from_utf8(line).ok()) {
            match line.split_once('=') {
                Some(("depends", names)) => {
                    info.depends.extend(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
                }
                Some(("softdep", text)) => {
                    // `pre: a b post: c`: only what comes before matters to a load order.
                    let before = text.split("post:").find_map(|part| part.trim().strip_prefix("pre:"));
                    info.soft_before.extend(before.unwrap_or_default().split_whitespace().map(str::to_owned));
                }
                Some(("alias", alias)) => info.aliases.push(alias.to_owned()),
                _ => {}
            }
        }
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo_is_read_as_modprobe_reads_it() {
        let section =
            b"license=GPL\0depends=a,b_c\0softdep=pre: crc32c x post: y\0alias=fs-erofs\0depends=\0\xff\0";
        let info = ModInfo::from_section(section);
        assert_eq!(info.depends, ["a", "b_c"]);
        assert_eq!(info.soft_before, ["crc32c", "x"]);
        assert_eq!(info.aliases, ["fs-erofs"]);
    }

    #[test]
    fn a_module_is_read_however_it_is_compressed() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let bytes = b"\x7fELF and so on".repeat(1000);
        let xz = liblzma::encode_all(&bytes[..], 6).unwrap();
        let zstd = zstd::encode_all(&bytes[..], 3).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&bytes).unwrap();
        let gzip = gzip.finish().unwrap();
        for (ending, stored) in [("ko", &bytes), ("ko.xz", &xz), ("ko.zst", &zstd), ("ko.gz", &gzip)] {
            let path = folder.path().join(format!("a.{ending}"));
            std::fs::write(&path, stored).unwrap();
            assert_eq!(read(&path).unwrap(), bytes, "{ending}");
            if ending == "ko" {
                continue;
            }
            for damaged in [&stored[..stored.len() / 2], &stored[1..], b""] {
                std::fs::write(&path, damaged).unwrap();
                let error = read(&path).unwrap_err().to_string();
                assert!(error.starts_with("cannot read kernel module `"), "{ending}: {error}");
            }
        }
    }

    #[test]
    fn only_a_whole_signature_is_cut_off() {
        let signed = |length: u32| {
            let mut module = b"ELF...".to_vec();
            module.extend([7; 20]);
            module.extend([0; 8]);
            module.extend(length.to_be_bytes());
            module.extend(SIGNATURE_MARKER);
            module
        };
        let mut module = signed(20);
        strip_signature(&mut module);
        assert_eq!(module, b"ELF...");
        for untouched in [signed(1 << 30), b"ELF".to_vec(), SIGNATURE_MARKER.to_vec(), Vec::new()] {
            let mut module = untouched.clone();
            strip_signature(&mut module);
            assert_eq!(module, untouched);
        }
    }

    #[test]
    fn a_module_is_known_by_its_ending() {
        assert_eq!(name("virtio-rng.ko.xz"), Some("virtio-rng"));
        assert_eq!(name("erofs.ko"), Some("erofs"));
        assert_eq!((name("modules.order"), name(".ko")), (None, None));
    }
}

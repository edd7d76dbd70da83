//! Debian packages (deb(5)): an ar archive whose `data.tar` member holds the files.

use std::io::Read;

use crate::error::{Context, Error, Result};

const MAGIC: &[u8] = b"!<arch>\n";

/// The size of a member's header: name 16, time 12, owner 6, group 6, mode 8, size 10, and two bytes of end mark.
const HEADER: usize = 60;

/// The decompressed `data.tar` of the package that `deb` reads.
pub fn data<'a>(mut deb: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let doing = || "read Debian package";
    let mut magic = [0; MAGIC.len()];
    deb.read_exact(&mut magic).doing(doing)?;
    if magic != MAGIC {
        return Err(Error::new("this is no Debian package: it does not begin with `!<arch>`"));
    }
    loop {
        let mut header = [0; HEADER];
        deb.read_exact(&mut header).doing(|| "find `data.tar` in Debian package")?;
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let name = text(0..16);
        let size: u64 =
            text(48..58).parse().doing(|| format!("read the size of member `{}`", name.escape_debug()))?;
        match name.trim_end_matches('/') {
            "data.tar" => return Ok(Box::new(deb.take(size))),
            "data.tar.xz" => return Ok(Box::new(super::xz::decoder(deb.take(size))?)),
            "data.tar.zst" => return Ok(Box::new(zstd::Decoder::new(deb.take(size)).doing(doing)?)),
            "data.tar.gz" => return Ok(Box::new(flate2::read::GzDecoder::new(deb.take(size)))),
            // Members begin at even offsets.
            _ => {
                let skipped = std::io::copy(&mut deb.by_ref().take(size + size % 2), &mut std::io::sink())
                    .doing(doing)?;
                if skipped < size {
                    return Err(Error::new(format!(
                        "the Debian package ends inside member `{}`",
                        name.escape_debug()
                    )));
                }
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::Write as _;

    use super::*;

    pub fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut member =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).into_bytes();
        member.extend(bytes);
        member.resize(member.len().next_multiple_of(2), b'\n');
        member
    }

    fn read(deb: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        data(deb)?.read_to_end(&mut bytes).doing(|| "inflate")?;
        Ok(bytes)
    }

    #[test]
    fn the_data_member_is_found_behind_members_of_odd_size() {
        let mut deb = MAGIC.to_vec();
        deb.extend(member("debian-binary", b"2.0\n\n"));
        deb.extend(member("control.tar.xz/", b"odd"));
        deb.extend(member("data.tar.zst", &zstd::encode_all(&b"files"[..], 1).unwrap()));
        assert_eq!(read(&deb).unwrap(), b"files");
    }

    #[test]
    fn no_package_makes_its_reader_panic() {
        let files = b"files".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&files).unwrap();
        let xz = liblzma::encode_all(&files[..], 6).unwrap();
        let zstd = zstd::encode_all(&files[..], 3).unwrap();
        let seeds = [
            ("data.tar", &files),
            ("data.tar.gz", &gzip.finish().unwrap()),
            ("data.tar.xz", &xz),
            ("data.tar.zst", &zstd),
        ]
        .map(|(name, bytes)| {
            [
                MAGIC,
                &member("debian-binary", b"2.0\n"),
                &member("control.tar.xz", b"odd"),
                &member(name, bytes),
            ]
            .concat()
        });
        crate::mutation::feed("deb", &seeds);
    }

    #[test]
    fn what_is_no_package_is_an_error() {
        for wrong in [&b""[..], b"!<arch>\n", b"PK\x03\x04 and so on", b"!<arch>\ndebian-binary"] {
            assert!(read(wrong).is_err());
        }
        let mut endless = MAGIC.to_vec();
        endless.extend(member("debian-binary", b"2.0\n"));
        endless.truncate(endless.len() - 2);
        assert!(read(&endless).is_err());
    }
}

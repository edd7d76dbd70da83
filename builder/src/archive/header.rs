//! What stands before an entry's contents in a tar archive that is written here: a ustar header, and before it a PAX
//! header that says what ustar cannot.

use super::{Entry, EntryKind};
use crate::artifact::erofs::{Kind, Metadata};
use crate::error::{Context as _, Error, Result};

const BLOCK: usize = 512;

/// The name of PAX headers, which readers of PAX do not look at.
const PAX_NAME: &[u8] = b"PaxHeaders";

/// The header of an entry, of whole blocks.
pub fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    let mut records = Records::default();
    let Metadata { mode, uid, gid, mtime, mtime_nsec, xattrs } = &entry.metadata;
    let (flag, size, link) = describe(&entry.kind)?;
    if let EntryKind::Node(Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }) =
        entry.kind
    {
        let number = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        number.doing(|| format!("write the device number {major}:{minor}"))?;
    }
    let mut name = entry.name.clone();
    if flag == b'5' {
        name.push(b'/');
    }
    let old = header.as_old_mut();
    old.linkflag = [flag];
    records.text(&mut old.name, "path", &name);
    records.text(&mut old.linkname, "linkpath", link);
    records.number(&mut old.mode, "mode", u64::from(*mode));
    records.number(&mut old.uid, "uid", u64::from(*uid));
    records.number(&mut old.gid, "gid", u64::from(*gid));
    records.number(&mut old.size, "size", size);
    match u64::try_from(*mtime) {
        Ok(seconds) if *mtime_nsec == 0 && put_octal(&mut old.mtime, seconds) => {}
        _ => {
            records.number(&mut old.mtime, "mtime", 0);
            records.add(b"mtime", time(*mtime, *mtime_nsec).as_bytes());
        }
    }
    for (name, value) in xattrs {
        if name.contains(&b'=') || name.contains(&0) {
            let name = name.escape_ascii();
            return Err(Error::new(format!("tar has no way to write the extended attribute `{name}`")));
        }
        records.add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    header.set_cksum();
    let mut encoded = records.into_header()?;
    encoded.extend_from_slice(header.as_bytes());
    Ok(encoded)
}

/// The zeros between contents of this size and the next header.
pub fn padding(size: u64) -> &'static [u8] {
    let used = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    &[0; BLOCK][..(BLOCK - used) % BLOCK]
}

/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// An entry's type, size and target.
fn describe(kind: &EntryKind) -> Result<(u8, u64, &[u8])> {
    Ok(match kind {
        EntryKind::HardLink(target) => (b'1', 0, target),
        EntryKind::Node(Kind::File { size }) => (b'0', *size, b""),
        EntryKind::Node(Kind::Symlink(target)) => (b'2', 0, target),
        EntryKind::Node(Kind::CharDevice { .. }) => (b'3', 0, b""),
        EntryKind::Node(Kind::BlockDevice { .. }) => (b'4', 0, b""),
        EntryKind::Node(Kind::Directory) => (b'5', 0, b""),
        EntryKind::Node(Kind::Fifo) => (b'6', 0, b""),
        EntryKind::Node(Kind::Socket) => return Err(Error::new("it is a socket, which tar has no type for")),
    })
}

/// The records of a PAX header (POSIX `pax`, "pax Extended Header").
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    /// Puts a name into a field, and where it is too long also into a record.
    fn text(&mut self, field: &mut [u8], key: &str, text: &[u8]) {
        // The end of a path is the part that a reader without PAX can do most with.
        let end = text.len().saturating_sub(field.len());
        let short = &text[end..];
        field[..short.len()].copy_from_slice(short);
        if end > 0 {
            self.add(key.as_bytes(), text);
        }
    }

    /// Puts a number into a field, or, where it is too large, zero and a record.
    fn number(&mut self, field: &mut [u8], key: &str, value: u64) {
        if !put_octal(field, value) {
            put_octal(field, 0);
            self.add(key.as_bytes(), value.to_string().as_bytes());
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits, and may get one more by them.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        for part in [key, b"=", value, b"\n"] {
            self.0.extend_from_slice(part);
        }
    }

    /// The header with its records, or nothing if there are none.
    fn into_header(mut self) -> Result<Vec<u8>> {
        if self.0.is_empty() {
            return Ok(self.0);
        }
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.linkflag = *b"x";
        old.name[..PAX_NAME.len()].copy_from_slice(PAX_NAME);
        for (field, value) in [
            (old.mode.as_mut_slice(), 0o644),
            (&mut old.uid, 0),
            (&mut old.gid, 0),
            (&mut old.size, self.0.len() as u64),
            (&mut old.mtime, 0),
        ] {
            if !put_octal(field, value) {
                return Err(Error::new("its extended attributes are too long for tar"));
            }
        }
        header.set_cksum();
        self.0.extend_from_slice(padding(self.0.len() as u64));
        Ok([header.as_bytes(), self.0.as_slice()].concat())
    }
}

/// Fills a field with octal digits and a NUL; false if the number has too many digits.
fn put_octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}\0");
    let fits = text.len() == field.len();
    if fits {
        field.copy_from_slice(text.as_bytes());
    }
    fits
}

/// Seconds and nanoseconds as one decimal number. Nanoseconds count forwards, also before 1970.
fn time(seconds: i64, nanoseconds: u32) -> String {
    match nanoseconds {
        0 => seconds.to_string(),
        _ if seconds < 0 => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Archive;
    use super::*;

    fn kinds() -> impl Strategy<Value = EntryKind> {
        let link = || prop_oneof![prop::collection::vec(1u8.., 1..300), prop::collection::vec(1u8.., 100)];
        let numbers = || (0u32..4096, 0u32..1 << 20);
        prop_oneof![
            link().prop_map(EntryKind::HardLink),
            link().prop_map(|target| EntryKind::Node(Kind::Symlink(target))),
            prop_oneof![Just(0), 0u64..1 << 62].prop_map(|size| EntryKind::Node(Kind::File { size })),
            Just(EntryKind::Node(Kind::Directory)),
            Just(EntryKind::Node(Kind::Fifo)),
            numbers().prop_map(|(major, minor)| EntryKind::Node(Kind::CharDevice { major, minor })),
            numbers().prop_map(|(major, minor)| EntryKind::Node(Kind::BlockDevice { major, minor })),
        ]
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let id = || prop_oneof![0u32..3, 2_097_151u32..2_097_153, 0..u32::MAX];
        let mtime = prop_oneof![-2i64..3, (8i64 << 30) - 1..(8 << 30) + 1, any::<i64>(), Just(i64::MIN)];
        let nanoseconds = prop_oneof![Just(0), Just(1), Just(999_999_999), 0u32..1_000_000_000];
        let xattrs = prop::collection::btree_map(
            "(user|trusted|security)\\.[a-z%]{1,90}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..1100),
            0..3,
        );
        (0u16..0o10000, id(), id(), mtime, nanoseconds, xattrs).prop_map(
            |(mode, uid, gid, mtime, mtime_nsec, xattrs)| Metadata {
                mode,
                uid,
                gid,
                mtime,
                mtime_nsec,
                xattrs,
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_as_the_same(
            name in prop_oneof![
                "[a-z]{1,9}(/[^/\0]{1,40}){0,9}/x".prop_map(String::into_bytes),
                prop::collection::vec(b'a'.., 97..103),
            ],
            kind in kinds(),
            metadata in metadata(),
        ) {
            let entry = Entry { name, metadata, kind };
            let bytes = encode(&entry).unwrap();
            prop_assert_eq!(bytes.len() % 512, 0);
            let mut found = Archive::new("the archive", bytes.as_slice()).next().unwrap().unwrap();
            if entry.kind == EntryKind::Node(Kind::Directory) {
                prop_assert_eq!(found.name.pop(), Some(b'/'));
            }
            prop_assert_eq!(found, entry);
        }
    }

    #[test]
    fn what_ustar_can_say_takes_one_block() {
        let entry = |name: &[u8], mtime_nsec| Entry {
            name: name.to_vec(),
            metadata: Metadata { mtime: 1_700_000_000, mtime_nsec, ..Metadata::new(0o755) },
            kind: EntryKind::Node(Kind::Directory),
        };
        assert_eq!(encode(&entry(&[b'n'; 99], 0)).unwrap().len(), 512);
        assert_eq!(encode(&entry(&[b'n'; 100], 0)).unwrap().len(), 3 * 512);
        assert_eq!(encode(&entry(b"n", 1)).unwrap().len(), 3 * 512);
    }

    #[test]
    fn what_tar_cannot_say_is_refused() {
        let entry = |kind, attribute: &str| {
            let xattrs = [(attribute.as_bytes().to_vec(), Vec::new())].into();
            let metadata = Metadata { xattrs, ..Metadata::new(0) };
            encode(&Entry { name: b"n".to_vec(), metadata, kind: EntryKind::Node(kind) })
        };
        let refusal = |result: Result<Vec<u8>>| result.unwrap_err().to_string();
        assert_eq!(
            refusal(entry(Kind::Fifo, "user.a=b")),
            "tar has no way to write the extended attribute `user.a=b`"
        );
        assert_eq!(refusal(entry(Kind::Socket, "user.a")), "it is a socket, which tar has no type for");
    }
}

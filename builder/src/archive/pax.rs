//! Extended headers of a tar archive (POSIX `pax`, "pax Extended Header"): records `LENGTH KEY=VALUE\n`.

use std::collections::BTreeMap;

use crate::error::{Error, Result, shown};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What an extended header says about the entry that follows. What it does not say is in the entry's own
/// header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// The name.
    pub path: Option<Vec<u8>>,
    /// The target of a link.
    pub link: Option<Vec<u8>>,
    /// The length of the contents.
    pub size: Option<u64>,
    /// The owner.
    pub uid: Option<u64>,
    /// The owning group.
    pub gid: Option<u64>,
    /// Seconds and nanoseconds since 1970.
    pub mtime: Option<(i64, u32)>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Extensions {
    /// Takes the records of an extended header. Later records win; unknown keys mean nothing here.
    pub fn parse(&mut self, mut payload: &[u8]) -> Result<()> {
        if payload.is_empty() {
            return Err(Error::new("an extended header is empty"));
        }
        while !payload.is_empty() {
            let (key, value, rest) =
                split_record(payload).ok_or_else(|| Error::new("its extended header is malformed"))?;
            self.set(key, value)?;
            payload = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.starts_with(b"GNU.sparse.") {
            return Err(Error::new("it is a sparse file, which layers cannot contain"));
        }
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.insert(name.to_vec(), value.to_vec());
            return Ok(());
        }
        let wrong = || {
            let (key, value) = (shown(key), shown(value));
            Error::new(format!("its extended header has a wrong value: `{key}={value}`"))
        };
        // By POSIX an empty value takes back what was said before, which not every reader does. A NUL ends a name
        // for some readers only.
        let text = || str::from_utf8(value).ok().filter(|text| !text.is_empty()).ok_or_else(wrong);
        let number = || match value.iter().all(u8::is_ascii_digit) {
            true => text()?.parse().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        let name = || if value.is_empty() || value.contains(&0) { Err(wrong()) } else { Ok(value.to_vec()) };
        match key {
            b"path" => self.path = Some(name()?),
            b"linkpath" => self.link = Some(name()?),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(parse_time(text()?).ok_or_else(wrong)?),
            _ => {}
        }
        Ok(())
    }
}

/// Looks through an extended header for all entries that follow. Go's reader, which most layers were made for,
/// takes nothing from it, and others take everything: so it has to say nothing that counts.
pub fn check_global(payload: &[u8]) -> Result<()> {
    let mut found = Extensions::default();
    found.parse(payload)?;
    if found == Extensions::default() {
        return Ok(());
    }
    Err(Error::new("an extended header says for all entries what each has to say itself"))
}

/// The first record's key and value, and what follows it.
fn split_record(payload: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = payload.iter().take(20).position(|byte| *byte == b' ')?;
    let digits = payload.get(..space)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: usize = str::from_utf8(digits).ok()?.parse().ok()?;
    let record = payload.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    if equals == 0 || record[..equals].contains(&0) {
        return None;
    }
    Some((&record[..equals], &record[equals + 1..], &payload[length..]))
}

/// A decimal number of seconds, with a fraction of which nine digits count. Nanoseconds count forwards, so
/// that half a second before 1970 is second -1 and 500,000,000 nanoseconds.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole.strip_prefix('-').unwrap_or(whole)) || !digits(fraction) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds: u32 = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse().ok()?;
    match nanoseconds {
        1.. if whole.starts_with('-') => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(payload: &[u8]) -> Result<Extensions> {
        let mut found = Extensions::default();
        found.parse(payload).map(|()| found)
    }

    #[test]
    fn records_are_read_by_their_length_whatever_their_value_contains() {
        let found = parse(b"12 path=a\nb\n25 SCHILY.xattr.user.a=\0\n13 uid=70000\n10 foo=ba\n").unwrap();
        assert_eq!(found.path.unwrap(), b"a\nb");
        assert_eq!(found.uid, Some(70_000));
        assert_eq!(found.xattrs[b"user.a".as_slice()], b"\0");
    }

    #[test]
    fn times_have_nanoseconds_that_count_forwards() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1700000000.123456789", Some((1_700_000_000, 123_456_789))),
            ("1.5", Some((1, 500_000_000))),
            ("1.", Some((1, 0))),
            ("1.0000000009", Some((1, 0))),
            ("-0.5", Some((-1, 500_000_000))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-3", Some((-3, 0))),
            ("", None),
            ("-", None),
            ("+1", None),
            ("1e5", None),
            ("1.-5", None),
            ("9223372036854775808", None),
            ("-9223372036854775808.5", None),
        ] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }

    #[test]
    fn malformed_headers_are_refused() {
        for payload in
            ["x", "5", "6 a=b", "6 a=b\n\n", "99 a=b\n", "5 a=b\n", "3 =\n", "0 a=b\n", "-6 a=b\n", "2 \n"]
        {
            assert!(parse(payload.as_bytes()).is_err(), "{payload:?}");
        }
        for payload in [
            "11 size=-1\n",
            "11 uid=0x1\n",
            "21 GNU.sparse.major=1\n",
            "27 size=99999999999999999999\n",
            "8 size=\n",
            "8 path=\n",
            "11 path=a\0b\n",
        ] {
            assert!(parse(payload.as_bytes()).is_err(), "{payload:?}");
        }
        assert_eq!(parse(b"9 size=4\n9 size=5\n").unwrap().size, Some(5));
    }
}

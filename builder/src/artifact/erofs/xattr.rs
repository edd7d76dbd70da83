//! Extended attributes inside an inode: a header of 12 bytes, then entries that start at multiples of 4.

use std::collections::BTreeMap;

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

const HEADER_LEN: usize = 12;
const ENTRY_LEN: usize = 4;

/// What an inode's attributes may take in all. The kernel lets `setxattr` store 64 KiB in one of them.
const TOTAL_MAX: usize = 128 * 1024;

/// The prefixes that EROFS stores as one number, and the rest of the name after it. The two for ACLs are
/// whole names.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// Whether EROFS can store an attribute of this name, and Linux gives it a meaning.
pub fn has_known_prefix(name: &[u8]) -> bool {
    split(name).is_some()
}

/// The number of the prefix, and the name after it.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix)| {
        let suffix = name.strip_prefix(*prefix)?;
        // `user.` alone is no name, and `system.posix_acl_accessory` is another attribute.
        (prefix.ends_with(b".") != suffix.is_empty()).then_some((*index, suffix))
    })
}

/// The attributes' bytes behind the inode, or the reason why EROFS cannot store them.
pub fn encode(xattrs: &Xattrs) -> Result<Vec<u8>, String> {
    if xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut raw = vec![0; HEADER_LEN];
    for (name, value) in xattrs {
        let shown = || format!("the extended attribute `{}`", name.escape_ascii());
        let (index, suffix) = split(name).ok_or_else(|| format!("EROFS cannot store {}", shown()))?;
        let suffix_len =
            u8::try_from(suffix.len()).map_err(|_| format!("the name of {} is too long", shown()))?;
        let value_len = u16::try_from(value.len()).map_err(|_| format!("{} is 64 KiB or more", shown()))?;
        raw.extend([suffix_len, index]);
        raw.extend(value_len.to_le_bytes());
        raw.extend(suffix);
        raw.extend(value);
        raw.resize(raw.len().next_multiple_of(4), 0);
        if raw.len() > TOTAL_MAX {
            return Err(format!("its extended attributes take more than {} KiB", TOTAL_MAX / 1024));
        }
    }
    Ok(raw)
}

/// The inode's count for attributes of this many bytes: 0 for none, then 1 for the header and 1 for each 4
/// bytes more.
pub fn count(len: usize) -> u16 {
    if len == 0 { 0 } else { u16::try_from((len - HEADER_LEN) / 4 + 1).unwrap_or(u16::MAX) }
}

/// The number of bytes that an inode's count stands for.
pub fn len(count: u16) -> usize {
    if count == 0 { 0 } else { HEADER_LEN + 4 * (usize::from(count) - 1) }
}

/// The attributes that the bytes describe; none if the bytes are corrupt or share attributes, which is never
/// written.
pub fn decode(raw: &[u8]) -> Option<Xattrs> {
    let mut xattrs = Xattrs::new();
    if raw.is_empty() {
        return Some(xattrs);
    }
    if raw.get(..HEADER_LEN)?.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut rest = raw.get(HEADER_LEN..)?;
    while let Some((&[suffix_len, index, low, high], tail)) = rest.split_first_chunk::<ENTRY_LEN>() {
        let (_, prefix) = PREFIXES.iter().find(|(known, _)| *known == index)?;
        let value_at = usize::from(suffix_len);
        let end = value_at + usize::from(u16::from_le_bytes([low, high]));
        let name = [*prefix, tail.get(..value_at)?].concat();
        xattrs.insert(name, tail.get(value_at..end)?.to_vec());
        rest = tail.get(end.next_multiple_of(4)..)?;
    }
    rest.is_empty().then_some(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_back_as_they_were_written() {
        let mut xattrs = Xattrs::new();
        assert_eq!(encode(&xattrs), Ok(Vec::new()));
        for name in [
            "user.a",
            "user.name",
            "security.capability",
            "system.posix_acl_access",
            "trusted.overlay.opaque",
        ] {
            xattrs.insert(name.into(), vec![b'v'; name.len()]);
            let raw = encode(&xattrs).unwrap();
            assert_eq!(len(count(raw.len())), raw.len());
            assert_eq!(decode(&raw), Some(xattrs.clone()));
        }
        xattrs.insert(b"user.large".to_vec(), vec![0; 65_535]);
        let raw = encode(&xattrs).unwrap();
        assert_eq!(len(count(raw.len())), raw.len());
        assert_eq!(decode(&raw), Some(xattrs));
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused_by_name() {
        let refused = |name: &[u8], len| encode(&[(name.to_vec(), vec![0; len])].into()).unwrap_err();
        for name in ["system.nfs4_acl", "com.apple.provenance", "user.", "system.posix_acl_accessory", ""] {
            assert_eq!(
                refused(name.as_bytes(), 1),
                format!("EROFS cannot store the extended attribute `{name}`")
            );
            assert!(!has_known_prefix(name.as_bytes()));
        }
        assert!(refused(b"user.x", 65_536).ends_with("64 KiB or more"));
        assert!(refused(&[b"user.".to_vec(), vec![b'n'; 256]].concat(), 0).ends_with("too long"));
    }

    #[test]
    fn corrupt_bytes_are_no_attributes() {
        let raw = encode(&[(b"user.name".to_vec(), b"value".to_vec())].into()).unwrap();
        for end in 1..raw.len() {
            assert_eq!(decode(&raw[..end]).filter(|found| !found.is_empty()), None, "cut at {end}");
        }
    }
}

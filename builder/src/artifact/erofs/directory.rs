//! A folder's data: blocks of sorted entries, each block with its names behind its entries.

use super::Kind;
use super::format::{BLOCK, DIRENT_LEN, Dirent, NAME_MAX, file_type, type_bits};

/// A name in a folder and the inode that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode's node id.
    pub nid: u64,
    /// The inode's file type, as [`file_type`] numbers it.
    pub file_type: u8,
}

/// A folder's data: all blocks are full but the last, which ends with its last name.
pub fn pack(mut names: Vec<Name<'_>>, itself: u64, parent: u64) -> Vec<u8> {
    let directory = file_type(type_bits(&Kind::Directory));
    names.push(Name { name: b".", nid: itself, file_type: directory });
    names.push(Name { name: b"..", nid: parent, file_type: directory });
    // The kernel searches by bisection, in the order of bytes; the dots have no place of their own in it.
    names.sort_unstable_by_key(|name| name.name);
    let mut data = Vec::new();
    let mut rest = names.as_slice();
    while !rest.is_empty() {
        // An entry takes at most 267 bytes of 4096: a block always takes some.
        let (block, later) = rest.split_at(count_that_fits(rest));
        data.resize(data.len().next_multiple_of(BLOCK), 0);
        pack_block(&mut data, block);
        rest = later;
    }
    data
}

fn count_that_fits(names: &[Name<'_>]) -> usize {
    let mut used = 0;
    let fitting = names.iter().take_while(|name| {
        used += DIRENT_LEN + name.name.len();
        used <= BLOCK
    });
    fitting.count()
}

fn pack_block(data: &mut Vec<u8>, names: &[Name<'_>]) {
    let mut name_offset = names.len() * DIRENT_LEN;
    for Name { name, nid, file_type } in names {
        // Offsets within a block fit 16 bits.
        let dirent = Dirent {
            nid: *nid,
            name_offset: u16::try_from(name_offset).unwrap_or(u16::MAX),
            file_type: *file_type,
        };
        data.extend(dirent.encode());
        name_offset += name.len();
    }
    for Name { name, .. } in names {
        data.extend(*name);
    }
}

/// The entries of one block of a folder, `.` and `..` among them; nothing if the block is corrupt.
pub fn unpack(block: &[u8]) -> Option<Vec<Name<'_>>> {
    let names_at = usize::from(Dirent::decode(block)?.name_offset);
    let count = names_at / DIRENT_LEN;
    if count == 0 || names_at % DIRENT_LEN != 0 {
        return None;
    }
    let (dirents, _) = block.get(..names_at)?.as_chunks::<DIRENT_LEN>();
    let dirents: Vec<_> = dirents.iter().filter_map(|raw| Dirent::decode(raw)).collect();
    let mut names = Vec::with_capacity(count);
    for (index, dirent) in dirents.iter().enumerate() {
        let start = usize::from(dirent.name_offset);
        let name = match dirents.get(index + 1) {
            Some(next) => block.get(start..usize::from(next.name_offset))?,
            // The last name ends with the data or with the zeros that fill the block.
            None => block.get(start..)?.split(|byte| *byte == 0).next()?,
        };
        if name.is_empty() || name.len() > NAME_MAX || name.contains(&b'/') || name.contains(&0) {
            return None;
        }
        names.push(Name { name, nid: dirent.nid, file_type: dirent.file_type });
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_by_their_bytes_and_the_dots_among_them() {
        let name = |name| Name { name, nid: 7, file_type: 1 };
        let data = pack(vec![name(b"b"), name(b"\xff"), name(b"+"), name(b".a"), name(b"-")], 1, 2);
        let found: Vec<_> = unpack(&data).unwrap().iter().map(|found| found.name).collect();
        assert_eq!(found, [b"+".as_slice(), b"-", b".", b"..", b".a", b"b", b"\xff"]);
    }

    #[test]
    fn many_names_fill_blocks_and_none_crosses_from_one_to_the_next() {
        let names: Vec<Vec<u8>> =
            (0..500).map(|number| format!("{number:0width$}", width = number % 200 + 4).into()).collect();
        let names: Vec<_> = names.iter().map(|name| Name { name, nid: 5, file_type: 1 }).collect();
        let data = pack(names.clone(), 1, 2);
        let found: usize = data.chunks(BLOCK).map(|block| unpack(block).unwrap().len()).sum();
        assert_eq!(found, names.len() + 2);
    }
}

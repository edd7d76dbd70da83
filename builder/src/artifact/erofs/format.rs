//! The structures of EROFS on disk, as `fs/erofs/erofs_fs.h` lays them out: little endian, without padding.

use std::fmt;

use super::Kind;

/// The size of a block: what every kernel mounts, whatever its page size.
pub const BLOCK: usize = 4096;
/// The same, as a length in a file.
pub const BLOCK_BYTES: u64 = 4096;
/// Where the superblock stands in the image: room for a boot sector comes first.
pub const SUPER_OFFSET: usize = 1024;
/// The length of the superblock.
pub const SUPER_LEN: usize = 128;
/// Inodes start at multiples of this; a node id (nid) counts them from the start of the image.
pub const SLOT: usize = 32;
/// The length of an extended inode, before extended attributes and inlined data.
pub const INODE_LEN: usize = 64;
/// The length of a directory entry without its name.
pub const DIRENT_LEN: usize = 12;
/// The longest name in a directory (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// The longest path, and one more than the longest target of a symbolic link (`PATH_MAX`).
pub const PATH_MAX: usize = 4096;

/// The root's inode follows the superblock, and what a superblock of compressed files is followed by. The superblock
/// has only 16 bits for its nid, so it has to be near.
const ROOT_NID: u16 = 36;
const _: () = assert!(ROOT_NID as usize * SLOT == SUPER_OFFSET + SUPER_LEN);

const MAGIC: u32 = 0xe0f5_e1e2;
/// The superblock has a checksum.
const COMPAT_CHECKSUM: u32 = 1;
/// The time of an inode is its mtime.
const COMPAT_MTIME: u32 = 2;
const BLOCK_BITS: u8 = 12;

/// What a kernel has to know to read compressed files: that zeros stand in front of a cluster, that clusters have
/// several blocks and codecs options (one bit for both), and that the last cluster may stand behind the inode.
const INCOMPAT_COMPRESSED: u32 = 0x1 | 0x2 | 0x10;
/// Where the options of the codec stand: their length, then the options.
const OPTIONS_OFFSET: usize = SUPER_OFFSET + SUPER_LEN;
/// LZ4's: how far back it refers (all that the format can), how many blocks a cluster has, and 10 bytes of nothing.
const LZ4_OPTIONS_LEN: u16 = 14;
const LZ4_DISTANCE: u16 = u16::MAX;
/// zstd's: a format of which there is one, how large a window is, and 4 bytes of nothing.
const ZSTD_OPTIONS_LEN: u16 = 6;
const ZSTD_WINDOW_OFFSET: usize = OPTIONS_OFFSET + 3;
/// A window is written as what its logarithm is beyond this.
const ZSTD_WINDOW_LOG_LEAST: u32 = 10;

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// LZ4 blocks.
    Lz4,
    /// zstd frames.
    Zstd,
}

impl Codec {
    const ALL: [Self; 2] = [Self::Lz4, Self::Zstd];

    /// What people call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// What EROFS calls it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Lz4 => 0,
            Self::Zstd => 3,
        }
    }
}

/// The most that one cluster of zstd stands for, as a logarithm, by the cluster's size, which is a power of two. Linux
/// keeps as much memory for each processor.
pub fn window_log(cluster: usize) -> u32 {
    window_of(cluster).ilog2()
}

/// Four times the cluster: little gets smaller than that, and Linux allows 1 MiB.
fn window_of(cluster: usize) -> u32 {
    u32::try_from(cluster * 4).unwrap_or(1 << 20)
}

impl fmt::Display for Codec {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(self.as_str())
    }
}

/// How an inode's data is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// All of it in consecutive blocks.
    Plain,
    /// Whole blocks in consecutive blocks, and the rest right behind the inode, in the inode's block.
    Inline,
    /// Clusters, where the index behind the inode says.
    Compressed,
}

/// What the superblock says that differs between images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Super {
    /// The number of inodes that the tree reaches.
    pub inodes: u64,
    /// The number of blocks of the image.
    pub blocks: u32,
    /// How files are compressed, if they are.
    pub packing: Option<Packing>,
}

/// What a kernel has to know before it reads the first cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// The one codec of the image.
    pub codec: Codec,
    /// The most blocks that a cluster has.
    pub cluster_blocks: u16,
}

/// The root's node id in an image that is packed like this.
pub fn root_nid(packing: Option<Packing>) -> u64 {
    u64::from(short_root_nid(packing))
}

fn short_root_nid(packing: Option<Packing>) -> u16 {
    // The options of any codec fit into one slot.
    ROOT_NID + u16::from(packing.is_some())
}

impl Super {
    /// Writes the superblock into the image's first block, and its checksum over the rest of that block: call
    /// this last. Time and UUID are zero, so that equal trees make equal images.
    pub fn put(&self, block: &mut [u8; BLOCK]) {
        let at = SUPER_OFFSET;
        put32(block, at, MAGIC);
        put32(block, at + 8, COMPAT_CHECKSUM | COMPAT_MTIME);
        block[at + 12] = BLOCK_BITS;
        put16(block, at + 14, short_root_nid(self.packing));
        put64(block, at + 16, self.inodes);
        put32(block, at + 36, self.blocks);
        if let Some(packing) = self.packing {
            packing.put(block);
        }
        put32(block, at + 4, 0);
        let checksum = crc32c(&block[SUPER_OFFSET..]);
        put32(block, at + 4, checksum);
    }

    /// Reads the superblock from the first block, if it is one that [`Self::put`] could have written.
    pub fn get(block: &[u8; BLOCK]) -> Result<Self, &'static str> {
        let at = SUPER_OFFSET;
        if get32(block, at) != MAGIC {
            return Err("it has no EROFS superblock");
        }
        let mut unsigned = *block;
        put32(&mut unsigned, at + 4, 0);
        if crc32c(&unsigned[SUPER_OFFSET..]) != get32(block, at + 4) {
            return Err("the superblock's checksum is wrong");
        }
        let packing = Packing::get(block);
        let found = Self { inodes: get64(block, at + 16), blocks: get32(block, at + 36), packing };
        let mut expected = unsigned;
        found.put(&mut expected);
        if expected != *block {
            return Err("it uses features of EROFS that are never written here");
        }
        Ok(found)
    }
}

impl Packing {
    fn put(self, block: &mut [u8; BLOCK]) {
        put32(block, SUPER_OFFSET + 80, INCOMPAT_COMPRESSED);
        put16(block, SUPER_OFFSET + 84, 1 << self.codec.number());
        match self.codec {
            Codec::Lz4 => {
                put16(block, OPTIONS_OFFSET, LZ4_OPTIONS_LEN);
                put16(block, OPTIONS_OFFSET + 2, LZ4_DISTANCE);
                put16(block, OPTIONS_OFFSET + 4, self.cluster_blocks);
            }
            Codec::Zstd => {
                let log = window_log(usize::from(self.cluster_blocks) * BLOCK);
                put16(block, OPTIONS_OFFSET, ZSTD_OPTIONS_LEN);
                block[ZSTD_WINDOW_OFFSET] = u8::try_from(log - ZSTD_WINDOW_LOG_LEAST).unwrap_or(0);
            }
        }
    }

    fn get(block: &[u8; BLOCK]) -> Option<Self> {
        let codecs = get16(block, SUPER_OFFSET + 84);
        let codec = Codec::ALL.into_iter().find(|codec| codecs == 1 << codec.number())?;
        let cluster_blocks = match codec {
            Codec::Lz4 => get16(block, OPTIONS_OFFSET + 4),
            Codec::Zstd => {
                let log = u32::from(block[ZSTD_WINDOW_OFFSET]) + ZSTD_WINDOW_LOG_LEAST;
                let blocks = 1u32.checked_shl(log)? / window_of(BLOCK);
                u16::try_from(blocks).ok()?
            }
        };
        Some(Self { codec, cluster_blocks })
    }
}

/// An extended inode: the 64 bytes that every file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawInode {
    /// Where the data is.
    pub layout: Layout,
    /// The length of the extended attributes in this inode, as [`super::xattr`] counts them.
    pub xattr_count: u16,
    /// File type and permissions.
    pub mode: u16,
    /// The length of the data.
    pub size: u64,
    /// The first block of the data, the number of its blocks if it is compressed, or the number of a device.
    pub block_or_device: u32,
    /// A number for `stat` on machines of 32 bits, of its own: counts files in the order of writing, then folders.
    pub ino: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// Modification time, seconds.
    pub mtime: i64,
    /// Modification time, nanoseconds.
    pub mtime_nsec: u32,
    /// The number of names.
    pub nlink: u32,
}

impl RawInode {
    /// Where the number of names stands in the inode: it is known last.
    pub const NLINK_OFFSET: u64 = 44;

    /// The inode's bytes.
    pub fn encode(&self) -> [u8; INODE_LEN] {
        let mut raw = [0; INODE_LEN];
        let layout = match self.layout {
            Layout::Plain => 0,
            Layout::Compressed => 1,
            Layout::Inline => 2,
        };
        // Bit 0: extended. Bits 1 to 3: the layout.
        put16(&mut raw, 0, layout << 1 | 1);
        put16(&mut raw, 2, self.xattr_count);
        put16(&mut raw, 4, self.mode);
        put64(&mut raw, 8, self.size);
        put32(&mut raw, 16, self.block_or_device);
        put32(&mut raw, 20, self.ino);
        put32(&mut raw, 24, self.uid);
        put32(&mut raw, 28, self.gid);
        raw[32..40].copy_from_slice(&self.mtime.to_le_bytes());
        put32(&mut raw, 40, self.mtime_nsec);
        put32(&mut raw, 44, self.nlink);
        raw
    }

    /// The inode that the bytes describe, if it has one of the layouts above.
    pub fn decode(raw: &[u8; INODE_LEN]) -> Option<Self> {
        let layout = match get16(raw, 0) {
            1 => Layout::Plain,
            3 => Layout::Compressed,
            5 => Layout::Inline,
            _ => return None,
        };
        Some(Self {
            layout,
            xattr_count: get16(raw, 2),
            mode: get16(raw, 4),
            size: get64(raw, 8),
            block_or_device: get32(raw, 16),
            ino: get32(raw, 20),
            uid: get32(raw, 24),
            gid: get32(raw, 28),
            mtime: i64::from_le_bytes(get64(raw, 32).to_le_bytes()),
            mtime_nsec: get32(raw, 40),
            nlink: get32(raw, 44),
        })
    }
}

/// A directory entry without its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirent {
    /// The inode.
    pub nid: u64,
    /// Where the name starts in the directory's block. The first one tells the number of entries, too.
    pub name_offset: u16,
    /// One of [`file_type`]'s numbers.
    pub file_type: u8,
}

impl Dirent {
    /// The entry's bytes.
    pub fn encode(&self) -> [u8; DIRENT_LEN] {
        let mut raw = [0; DIRENT_LEN];
        put64(&mut raw, 0, self.nid);
        put16(&mut raw, 8, self.name_offset);
        raw[10] = self.file_type;
        raw
    }

    /// The entry that the first bytes of `raw` describe.
    pub fn decode(raw: &[u8]) -> Option<Self> {
        let raw: &[u8; DIRENT_LEN] = raw.first_chunk()?;
        Some(Self { nid: get64(raw, 0), name_offset: get16(raw, 8), file_type: raw[10] })
    }
}

/// The kinds, as the file type bits of a mode and as the number in a directory entry.
const TYPES: [(u16, u8); 7] = [
    (0o100_000, 1), // regular file
    (0o040_000, 2), // directory
    (0o020_000, 3), // character device
    (0o060_000, 4), // block device
    (0o010_000, 5), // fifo
    (0o140_000, 6), // socket
    (0o120_000, 7), // symbolic link
];

/// The part of a mode that tells the file type (`S_IFMT`).
pub const TYPE_MASK: u16 = 0o170_000;

/// The file type bits of a kind.
pub const fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::File { .. } => 0o100_000,
        Kind::Directory => 0o040_000,
        Kind::CharDevice { .. } => 0o020_000,
        Kind::BlockDevice { .. } => 0o060_000,
        Kind::Fifo => 0o010_000,
        Kind::Socket => 0o140_000,
        Kind::Symlink(_) => 0o120_000,
    }
}

/// The file type number of a directory entry that names an inode of this mode; 0, unknown, for no type at
/// all.
pub fn file_type(mode: u16) -> u8 {
    TYPES.iter().find(|(bits, _)| *bits == mode & TYPE_MASK).map_or(0, |(_, number)| *number)
}

/// A device's number as the kernel's `new_encode_dev` packs it, if it has no more than 12 and 20 bits.
pub fn encode_device(major: u32, minor: u32) -> Option<u32> {
    (major < 1 << 12 && minor < 1 << 20).then_some((minor & 0xff) | major << 8 | (minor & !0xff) << 12)
}

/// Major and minor number of a packed device number.
pub fn decode_device(packed: u32) -> (u32, u32) {
    ((packed >> 8) & 0xfff, (packed & 0xff) | (packed >> 12) & 0xf_ff00)
}

/// The Castagnoli checksum of the superblock: started from all ones and, unlike elsewhere, not inverted at
/// the end.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index: u32 = 0;
        while index < 256 {
            let mut crc = index;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[index as usize] = crc;
            index += 1;
        }
        table
    };
    bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ crc >> 8)
}

/// Writes two bytes.
pub fn put16(raw: &mut [u8], at: usize, value: u16) {
    raw[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Writes four bytes.
pub fn put32(raw: &mut [u8], at: usize, value: u32) {
    raw[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(raw: &mut [u8], at: usize, value: u64) {
    raw[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Reads two bytes.
pub fn get16<const N: usize>(raw: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([raw[at], raw[at + 1]])
}

/// Reads four bytes.
pub fn get32<const N: usize>(raw: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| raw[at + i]))
}

fn get64<const N: usize>(raw: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| raw[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli_without_the_last_inversion() {
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn device_numbers_survive_packing_and_larger_ones_are_refused() {
        for (major, minor) in [(0, 0), (1, 3), (259, 0xf_ffff), (4095, 256)] {
            let packed = encode_device(major, minor).unwrap();
            assert_eq!(decode_device(packed), (major, minor));
            assert_eq!(u64::from(packed), linux_new_encode_dev(major, minor));
        }
        assert_eq!(encode_device(4096, 0), None);
        assert_eq!(encode_device(0, 1 << 20), None);
    }

    /// `new_encode_dev` is `makedev` of glibc for numbers of these widths.
    fn linux_new_encode_dev(major: u32, minor: u32) -> u64 {
        rustix::fs::makedev(major, minor)
    }

    #[test]
    fn an_inode_is_read_back_as_it_was_written() {
        let inode = RawInode {
            layout: Layout::Inline,
            xattr_count: 7,
            mode: 0o104_755,
            size: 1 << 40,
            block_or_device: 99,
            ino: 3,
            uid: u32::MAX - 1,
            gid: 5,
            mtime: -2,
            mtime_nsec: 999_999_999,
            nlink: 70_000,
        };
        assert_eq!(RawInode::decode(&inode.encode()), Some(inode));
        assert_eq!(RawInode::decode(&[0; INODE_LEN]), None);
    }
}

//! Which compressed layers a kernel reads, and which it gets when nothing is asked for.

use super::Kernel;
use crate::artifact::erofs::{Codec, Compression};
use crate::config::{Compress, Layers};
use crate::error::{Error, Result};

/// The first release that reads a cluster behind its inode, as ours are written.
const INLINED_SINCE: (u32, u32) = (5, 17);

/// The option by which a kernel reads layers of a codec.
const fn option(codec: Codec) -> &'static str {
    match codec {
        Codec::Lz4 => "CONFIG_EROFS_FS_ZIP",
        Codec::Zstd => "CONFIG_EROFS_FS_ZIP_ZSTD",
    }
}

impl Kernel {
    /// How the layers of a machine with this kernel are compressed; nothing if they are not. What is asked for and
    /// cannot be read is an error that names what is missing.
    pub fn compression(&self, layers: &Layers) -> Result<Option<Compression>> {
        let codec = match layers.compression {
            Some(Compress::None) => return Ok(None),
            Some(Compress::Lz4) => self.require(Codec::Lz4)?,
            Some(Compress::Zstd) => self.require(Codec::Zstd)?,
            // The kernel decides.
            None if self.reads(Codec::Lz4) == Some(true) => Codec::Lz4,
            None => return Ok(None),
        };
        let usual = Compression::usual(codec);
        let level = layers.level.unwrap_or(usual.level);
        Ok(Some(Compression { level, cluster: layers.cluster.unwrap_or(usual.cluster), ..usual }))
    }

    fn require(&self, codec: Codec) -> Result<Codec> {
        // Without the kernel's configuration, it is taken on trust.
        if self.reads(codec) != Some(false) {
            return Ok(codec);
        }
        let lack = match self.option(option(codec)) {
            Ok(Some("y")) => "is older than Linux 5.17".to_owned(),
            _ => format!("lacks {}", option(codec)),
        };
        let what = format!("{} {lack}, needed to read layers compressed by {codec}", self.label);
        Err(Error::new(what)
            .hint("leave out `compression` in [layers]: the default is what the kernel reads"))
    }

    /// Whether the kernel reads layers of this codec, if that is known. Data behind inodes came after the codec.
    fn reads(&self, codec: Codec) -> Option<bool> {
        if self.option(option(codec)).ok()? != Some("y") {
            return Some(false);
        }
        self.release().map(|release| release >= INLINED_SINCE)
    }
}

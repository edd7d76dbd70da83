//! `coracle layer`: looks into a layer's image, be it in the store or in any file.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::artifact::erofs::{Image, Kind};
use crate::cache;
use crate::cli::Layer;
use crate::error::{Context as _, Error, Result, shown};
use crate::layer::{self, Listing, Tree};
use crate::output;
use crate::store::Store;

/// How much of a file is read at once.
const CHUNK: usize = 256 * 1024;

/// Carries out one of its commands.
pub fn inspect(command: &Layer) -> Result<()> {
    if matches!(command, Layer::Tar { .. }) && io::stdout().is_terminal() {
        return Err(Error::new("cannot write an archive to a terminal").hint("append ` >FILE`"));
    }
    let opened = Opened::new(command.layer())?;
    let done = match command {
        Layer::Ls { path, recursive, json, .. } => {
            opened.list(path.as_bytes(), Listing { recursive: *recursive, json: *json })
        }
        Layer::Cat { path, .. } => opened.cat(path.as_bytes()),
        Layer::Tar { .. } => output::write(|out| layer::write_tarball(&opened.image, out)),
    };
    done.map_err(|error| error.within(format!("`{}`", command.layer().display())))
}

/// Opens a layer by the path of its image, or else by its name in the store.
fn open(layer: &Path) -> Result<Image> {
    if layer.is_file() {
        return Image::open(layer);
    }
    let name = layer.to_string_lossy();
    Image::open(&cache::layer(&Store::open()?, &name)?)
}

/// A layer, and its files by their paths.
struct Opened {
    image: Arc<Image>,
    tree: Tree,
}

impl Opened {
    fn new(layer: &Path) -> Result<Self> {
        let image = Arc::new(open(layer)?);
        let mut tree = Tree::default();
        tree.push(Arc::clone(&image));
        Ok(Self { image, tree })
    }

    fn list(&self, path: &[u8], listing: Listing) -> Result<()> {
        let mut found = self.tree.find_link(path)?.ok_or_else(|| missing(path))?;
        if matches!(found.inode.kind, Kind::Symlink(_)) {
            // A link to a folder is as good as the folder; one that leads out of the layer is what there is.
            let target = self.tree.find(path)?.filter(|target| target.inode.kind == Kind::Directory);
            found = target.unwrap_or(found);
        }
        output::write(|out| layer::list(&self.image, &found.path, &found.inode, listing, out))
    }

    fn cat(&self, path: &[u8]) -> Result<()> {
        let found = self.tree.find(path)?.ok_or_else(|| missing(path))?;
        let path = || format!("`/{}`", shown(&found.path));
        if !matches!(found.inode.kind, Kind::File { .. }) {
            return Err(Error::new(format!("cannot read {}: it is not a regular file", path())));
        }
        let mut contents = self.image.contents(&found.inode);
        let mut buffer = vec![0; CHUNK];
        output::write(|out| {
            loop {
                let length = contents.read(&mut buffer).doing(|| format!("read {}", path()))?;
                if length == 0 {
                    return Ok(());
                }
                out.write_all(&buffer[..length]).doing(|| "write to stdout")?;
            }
        })
    }
}

fn missing(path: &[u8]) -> Error {
    let error = Error::new(format!("the layer has no `{}`", shown(path)));
    error.hint("a link may lead out of the layer; other layers of the image may have the file")
}

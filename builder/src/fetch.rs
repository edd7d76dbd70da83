//! `fetch`: the images that a lock pins, with their layers ready to be read.

use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::oci::compression::Compression;
use crate::oci::descriptor::{Descriptor, Digest};
use crate::oci::document::{self, LIMIT, Manifest};
use crate::oci::folder::FolderStream;
use crate::oci::image::ImageConfig;
use crate::oci::limits::Limits;
use crate::oci::reference::{Reference, Transport};
use crate::oci::source::{Bounds, Source};
use crate::oci::stream::{Expected, TarStream};
use crate::store::Store;

/// A pinned image.
#[derive(Debug)]
pub struct Image {
    /// The reference, as the config writes it.
    pub reference: String,
    /// What the lock pins it to.
    pub digest: Digest,
    /// How a container of it runs.
    pub config: ImageConfig,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
}

/// A layer of a pinned image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The digest of its uncompressed tar archive: what the layer is, however it is stored.
    pub diff_id: Digest,
    /// How it is named in messages: ``layer 1 of 3 of image `oci:x:web` ``.
    pub name: String,
    place: Place,
    origin: Arc<Origin>,
}

/// Where in its origin a layer lies.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// A blob of a layout.
    Blob { digest: Digest, size: u64, compression: Compression },
    /// One of the layers that a `manifest.json` lists for the image with this id.
    Listed { image: Digest, position: usize, count: usize },
    /// The whole of a folder.
    Folder,
}

/// Bytes given to a reader at once, or kept for one that reads header by header.
const BUFFER: usize = 256 << 10;

/// Where an image comes from. It is opened when it is needed for the first time, which with a warm store is
/// never.
#[derive(Debug)]
struct Origin {
    reference: Reference,
    base: PathBuf,
    store: Store,
    limits: Limits,
    /// What its layers have inflated to so far.
    inflated: Arc<AtomicU64>,
    source: OnceLock<Result<Source>>,
}

/// The images of a lock, in the order of their references. Their documents come from the store, or get there. No layer
/// is read.
pub fn fetch(lock: &Lock, Bounds { base, store, limits }: Bounds<'_>) -> Result<Vec<Image>> {
    let image = |(reference, &digest): (&String, &Digest)| {
        let origin = Arc::new(Origin {
            reference: reference.parse()?,
            base: base.to_owned(),
            store: store.clone(),
            limits,
            inflated: Arc::default(),
            source: OnceLock::new(),
        });
        let image = match origin.reference.transport() {
            Transport::DockerArchive(..) => saved(&origin, digest),
            Transport::Folder(_) => Ok(folder(&origin, digest)),
            Transport::Layout(..) | Transport::LayoutArchive(..) | Transport::Registry(_) => {
                pinned(&origin, digest)
            }
        };
        let (config, layers) = image.map_err(|error| error.within(format_args!("image `{reference}`")))?;
        Ok(Image { reference: reference.clone(), digest, config, layers })
    };
    lock.images.iter().map(image).collect()
}

/// An image whose manifest the lock pins.
fn pinned(origin: &Arc<Origin>, digest: Digest) -> Result<(ImageConfig, Vec<Layer>)> {
    let manifest = origin.document(&digest, None)?;
    let Manifest { config, layers, .. } = Manifest::parse(&manifest, &format!("the manifest `{digest}`"))?;
    let what = format!("the image configuration `{}`", config.digest);
    let config = document::parse_config(&origin.document(&config.digest, Some(config.size))?, &what)?;
    let diff_ids = &config.rootfs.diff_ids;
    let count = layers.len();
    document::check_layers(count)?;
    if count != diff_ids.len() {
        let listed = diff_ids.len();
        return Err(Error::new(format!("its manifest lists {count} layers, its configuration {listed}")));
    }
    let blob = |(position, layer): (usize, &Descriptor)| {
        let compression = document::compression(layer)
            .map_err(|error| error.within(format_args!("layer {} of {count}", position + 1)))?;
        Ok(Place::Blob { digest: layer.digest, size: layer.size, compression })
    };
    let places = layers.iter().enumerate().map(blob).collect::<Result<Vec<_>>>()?;
    let layers = origin.layers(diff_ids, places);
    Ok((config, layers))
}

/// An image of a `docker-archive`, whose configuration the lock pins.
fn saved(origin: &Arc<Origin>, digest: Digest) -> Result<(ImageConfig, Vec<Layer>)> {
    let bytes = match origin.store.read_blob(&digest, LIMIT)? {
        Some(bytes) => bytes,
        None => {
            let Source::Saved(saved) = origin.source()? else { return Err(changed(&digest)) };
            if origin.store.insert_blob(saved.config())? != digest {
                return Err(changed(&digest));
            }
            saved.config().to_vec()
        }
    };
    let config = document::parse_config(&bytes, &format!("the image configuration `{digest}`"))?;
    let count = config.rootfs.diff_ids.len();
    document::check_layers(count)?;
    let places = (0..count).map(|position| Place::Listed { image: digest, position, count }).collect();
    let layers = origin.layers(&config.rootfs.diff_ids, places);
    Ok((config, layers))
}

/// A folder as an image, whose one layer the lock pins.
fn folder(origin: &Arc<Origin>, digest: Digest) -> (ImageConfig, Vec<Layer>) {
    let mut config = ImageConfig::default();
    config.rootfs.diff_ids.push(digest);
    (config, origin.layers(&[digest], vec![Place::Folder]))
}

fn changed(digest: &Digest) -> Error {
    Error::new(format!("it is no longer the image `{digest}` that the lock names"))
}

impl Layer {
    /// The layer's uncompressed tar archive, as a stream of large reads.
    ///
    /// The stream ends without an error only when its every byte, and every byte of the blob behind it, was what
    /// the image's documents say. Read it to the end before trusting any of it.
    pub fn open(&self) -> Result<Box<dyn Read + Send>> {
        let stream = self.stream().map_err(|error| error.within(&self.name))?;
        Ok(Box::new(BufReader::with_capacity(BUFFER, stream)))
    }

    fn stream(&self) -> Result<TarStream> {
        let (reader, blob, compression): (Box<dyn Read + Send>, _, _) =
            match (self.place, self.origin.source()?) {
                (Place::Blob { digest, size, compression }, Source::Layout(layout, _)) => {
                    let extent = layout.blob(&digest)?;
                    let found = extent.size();
                    if found != size {
                        let why = format!("blob `{digest}` has {found} bytes, its descriptor says {size}");
                        return Err(Error::new(why));
                    }
                    (Box::new(extent.reader()), Some(digest), compression)
                }
                (Place::Listed { image, position, count }, Source::Saved(saved)) => {
                    if Digest::of(saved.config()) != image {
                        return Err(changed(&image));
                    }
                    let extent = saved.layer(position, count)?;
                    let compression = extent.compression()?;
                    (Box::new(extent.reader()), None, compression)
                }
                (Place::Folder, Source::Folder(folder)) => {
                    (Box::new(FolderStream::open(folder)?), None, Compression::None)
                }
                _ => return Err(Error::new("it is not where it was when the image was locked")),
            };
        let Self { name, diff_id, origin, .. } = self.clone();
        let (limits, total) = (origin.limits, Arc::clone(&origin.inflated));
        TarStream::new(reader, Expected { name, blob, compression, diff_id, limits, total })
    }
}

impl Origin {
    fn source(&self) -> Result<&Source> {
        let bounds = Bounds { base: &self.base, store: &self.store, limits: self.limits };
        let open = || Source::open(&self.reference, bounds);
        self.source.get_or_init(open).as_ref().map_err(Clone::clone)
    }

    fn document(&self, digest: &Digest, size: Option<u64>) -> Result<Vec<u8>> {
        document::obtain(digest, size, &self.store, || match self.source()? {
            Source::Layout(layout, _) => layout.blob(digest),
            Source::Saved(_) | Source::Folder(_) => Err(changed(digest)),
        })
    }

    fn layers(self: &Arc<Self>, diff_ids: &[Digest], places: Vec<Place>) -> Vec<Layer> {
        let count = places.len();
        let layer = |(position, (&diff_id, place))| {
            let name = format!("layer {} of {count} of image `{}`", position + 1, self.reference);
            Layer { diff_id, name, place, origin: Arc::clone(self) }
        };
        diff_ids.iter().zip(places).enumerate().map(layer).collect()
    }
}

#[cfg(test)]
mod tests;

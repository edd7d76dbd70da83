//! `convert`: every layer of every image as one EROFS blob in the store, made once ever.
//!
//! Layers are converted side by side, the lower ones first. One that depends on those below it waits for them, and
//! holds nothing then that another one could wait for.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread;

use crate::artifact::erofs::{self, Compression, Pool, Writer};
use crate::board::Board;
use crate::config::{Config, Layers};
use crate::error::{Context as _, Error, Result};
use crate::fetch;
use crate::layer::{self, Special, Tree};
use crate::oci::descriptor::Digest;
use crate::oci::image::Process;
use crate::progress::say;
use crate::source_file::SourceFile;
use crate::store::{Hashed, Store};

/// How many layers are converted at a time: each is read by one thread, takes some megabytes, and is no faster than the
/// disk.
const AT_ONCE: usize = 4;

/// Names the conversion in the store. It changes with the bytes that a layer becomes.
fn format(compression: Option<Compression>) -> String {
    match compression {
        None => "erofs-2-plain".to_owned(),
        Some(Compression { codec, level, cluster }) => format!("erofs-2-{codec}-{level}-{}k", cluster >> 10),
    }
}

/// The same for layers whose bytes depend on the layers below them, which are kept by chain id. They stand apart,
/// since a lowest layer's chain id is its diff id.
fn format_chained(compression: Option<Compression>) -> String {
    format(compression) + "-chained"
}

/// An image whose layers are in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// As the config writes it.
    pub reference: String,
    /// Defaults for its containers.
    pub defaults: Process,
    /// The lowest layer first.
    pub layers: Vec<Layer>,
    /// What somebody might want to know of them.
    pub special: Special,
}

/// A converted layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// What it is called in the layer store: 64 hexadecimal digits.
    pub digest: String,
    /// Its EROFS blob.
    pub file: SourceFile,
}

/// An image whose layers are in the store, and what they show together.
#[derive(Debug)]
pub struct Converted {
    /// For the plan.
    pub image: Image,
    /// The merged view of its layers.
    pub tree: Tree,
}

/// Converts what is not in the store yet, for the images that services run.
pub fn convert(
    config: &Config,
    images: &[fetch::Image],
    compression: Option<Compression>,
    store: &Store,
) -> Result<Vec<Converted>> {
    let used: BTreeSet<String> = config.services.iter().map(|service| service.image.to_string()).collect();
    let images: Vec<_> = images.iter().filter(|image| used.contains(&image.reference)).collect();
    let stacks = Stacks::of(&images);
    let converter = Converter { compression, store, settings: config.layers, layers: stacks.layers };
    let stored = converter.all()?;
    let image = |(image, stack): (&&fetch::Image, &Vec<usize>)| {
        let layers = stack.iter().map(|&layer| &stored[layer]).collect::<Vec<_>>();
        let mut special = Special::default();
        layers.iter().for_each(|layer| special.join(&layer.special));
        let blobs = layers
            .iter()
            .map(|stored| Ok(Layer { digest: stored.digest.hex(), file: SourceFile::look(&stored.path)? }));
        let image = Image {
            reference: image.reference.clone(),
            defaults: image.config.config.clone(),
            layers: blobs.collect::<Result<_>>()?,
            special,
        };
        Ok(Converted { image, tree: tree(layers.into_iter())? })
    };
    images.iter().zip(&stacks.images).map(image).collect()
}

/// A layer upon others.
struct Stacked<'a> {
    layer: &'a fetch::Layer,
    /// Names it and all below it.
    chain: Digest,
    /// The layer that it lies upon, by its place in [`Stacks::layers`].
    below: Option<usize>,
}

/// The layers of some images: those of several images, in the same order from the lowest on, are the same.
struct Stacks<'a> {
    /// Each behind the one below it.
    layers: Vec<Stacked<'a>>,
    /// The layers of each image, the lowest first.
    images: Vec<Vec<usize>>,
}

impl<'a> Stacks<'a> {
    fn of(images: &[&'a fetch::Image]) -> Self {
        let mut stacks = Self { layers: Vec::new(), images: Vec::new() };
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for image in images {
            let mut stack: Vec<usize> = Vec::new();
            for layer in &image.layers {
                let below = stack.last().copied();
                let chain = chain_id(below.map(|below| &stacks.layers[below].chain), &layer.diff_id);
                let place = *known.entry(chain.hex()).or_insert(stacks.layers.len());
                if place == stacks.layers.len() {
                    stacks.layers.push(Stacked { layer, chain, below });
                }
                stack.push(place);
            }
            stacks.images.push(stack);
        }
        stacks
    }
}

/// How layers are converted, which ones, and where to.
struct Converter<'a> {
    compression: Option<Compression>,
    store: &'a Store,
    settings: Layers,
    layers: Vec<Stacked<'a>>,
}

/// A converted layer as it is in the store.
#[derive(Debug, Clone)]
struct Stored {
    /// What it is called there.
    digest: Digest,
    path: PathBuf,
    special: Special,
}

/// Some layers, the lowest first, as one tree.
fn tree<'a>(layers: impl Iterator<Item = &'a Stored>) -> Result<Tree> {
    let mut tree = Tree::default();
    for layer in layers {
        tree.push(erofs::Image::open(&layer.path)?);
    }
    Ok(tree)
}

impl Converter<'_> {
    /// All layers, converted where the store does not have them.
    fn all(&self) -> Result<Vec<Stored>> {
        let found = self.layers.iter().map(|layer| self.find(layer)).collect::<Result<Vec<_>>>()?;
        let missing = found.iter().filter(|found| found.is_none()).count();
        let board = Board::new(found);
        if missing > 0 {
            let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let at_once = processors.min(missing).min(AT_ONCE);
            let pool =
                self.compression.map(|compression| Pool::new(compression, None, at_once)).transpose()?;
            thread::scope(|scope| {
                for _ in 0..at_once {
                    scope.spawn(|| {
                        board.work(|place| self.convert(&self.layers[place], pool.as_ref(), &board));
                    });
                }
            });
        }
        let stored = board.finish()?;
        for (stored, stacked) in stored.iter().zip(&self.layers) {
            self.check(&stored.special).map_err(|error| error.within(&stacked.layer.name))?;
        }
        Ok(stored)
    }

    /// Where a layer is in the store, by its diff id, or, where its bytes depend on the layers below it, by the chain id,
    /// which names those too.
    fn places(&self, stacked: &Stacked<'_>) -> [(Digest, PathBuf); 2] {
        let diff_id = stacked.layer.diff_id;
        let by_diff_id = self.store.layer_path(&format(self.compression), &diff_id);
        let by_chain_id = self.store.layer_path(&format_chained(self.compression), &stacked.chain);
        [(diff_id, by_diff_id), (stacked.chain, by_chain_id)]
    }

    /// Looks for a layer in the store. One that is damaged is as good as missing.
    fn find(&self, stacked: &Stacked<'_>) -> Result<Option<Stored>> {
        for (digest, path) in self.places(stacked) {
            if let Some(special) = self.store.find_layer(&path)? {
                return Ok(Some(Stored { digest, path, special }));
            }
        }
        Ok(None)
    }

    /// Converts a layer, unless somebody else does so meanwhile.
    fn convert(&self, stacked: &Stacked<'_>, pool: Option<&Pool>, board: &Board<Stored>) -> Result<Stored> {
        let Self { store, settings, .. } = *self;
        let layer = stacked.layer;
        let [by_diff_id, by_chain_id] = self.places(stacked);
        let waiting = || say(format_args!("waiting for another build to convert {}", layer.name));
        let lock = RefCell::new(Some(store.lock_layer(&by_diff_id.1, waiting)?));
        if let Some(stored) = self.find(stacked)? {
            return Ok(stored);
        }
        say(format_args!("converting {}", layer.name));
        let below = OnceCell::new();
        let lower = || match below.get() {
            Some(tree) => Ok(tree),
            None => {
                // Who waits must hold nothing: another build may have the same layers in another order.
                drop(lock.take());
                let tree = tree(self.below(stacked, board)?.iter())?;
                Ok(below.get_or_init(|| tree))
            }
        };
        let mut draft = store.begin(&by_diff_id.1)?;
        let tar = layer.open()?;
        let mut image = Hashed::new(draft.file());
        let writer = match pool {
            None => Writer::new(&mut image)?,
            Some(pool) => Writer::packed(&mut image, pool)?,
        };
        let input = layer::Input { tar, lower: &lower, limits: settings.limits };
        let converted = layer::convert(input, writer).map_err(|error| error.within(&layer.name))?;
        let special = converted.special;
        let (digest, path) = if converted.depends_on_lower { by_chain_id } else { by_diff_id };
        let digest_of_image = image.finish().doing(|| "hash the image")?;
        store.keep_layer((draft, digest_of_image), &path, &special)?;
        Ok(Stored { digest, path, special })
    }

    /// The layers below one, the lowest first, once they are converted.
    fn below(&self, stacked: &Stacked<'_>, board: &Board<Stored>) -> Result<Vec<Stored>> {
        let mut layers = Vec::new();
        let mut next = stacked.below;
        while let Some(place) = next {
            layers.push(board.wait(place)?);
            next = self.layers[place].below;
        }
        layers.reverse();
        Ok(layers)
    }

    fn check(&self, special: &Special) -> Result<()> {
        let devices = &special.devices;
        if devices.count == 0 || self.settings.allow_devices {
            return Ok(());
        }
        let (count, first) = (devices.count, devices.first.first().map_or("", String::as_str));
        Err(Error::new(format!("it has {count} device nodes, the first of which is `{first}`"))
            .hint("no container can open them; `layers.allow-devices = true` lets them be"))
    }
}

/// The name of a stack of layers (OCI image specification, `config.md`, "Layer ChainID").
fn chain_id(below: Option<&Digest>, diff_id: &Digest) -> Digest {
    match below {
        None => *diff_id,
        Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_refused_unless_the_config_lets_them_be() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path()).unwrap();
        let mut special = Special::default();
        let check = |special: &Special, allow_devices| {
            let settings = Layers { allow_devices, ..Layers::default() };
            Converter { compression: None, store: &store, settings, layers: Vec::new() }.check(special)
        };
        assert_eq!(check(&special, false), Ok(()));
        (special.devices.count, special.devices.first) = (2, vec!["/dev/sda".to_owned()]);
        assert_eq!(check(&special, true), Ok(()));
        let error = check(&special, false).unwrap_err();
        assert_eq!(error.to_string(), "it has 2 device nodes, the first of which is `/dev/sda`");
        assert!(error.advice().unwrap().contains("`layers.allow-devices = true`"));
    }

    #[test]
    fn a_chain_id_is_the_digest_of_the_chain_below_and_the_diff_id() {
        let a = Digest::of(b"a");
        let b = Digest::of(b"b");
        assert_eq!(chain_id(None, &a), a);
        assert_eq!(chain_id(Some(&a), &b), Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(chain_id(Some(&b), &a), chain_id(Some(&a), &b));
    }
}

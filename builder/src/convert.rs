//! `convert`: every layer of every image as one EROFS blob in the store, made once ever.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::artifact::erofs::{self, Compression, Writer};
use crate::config::{Config, Layers};
use crate::error::{Error, Result};
use crate::fetch;
use crate::layer::{self, Special, Tree};
use crate::oci::descriptor::Digest;
use crate::oci::image::Process;
use crate::progress::say;
use crate::source_file::SourceFile;
use crate::store::Store;

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
    let converter = Converter { compression, store, settings: config.layers };
    let used: BTreeSet<String> = config.services.iter().map(|service| service.image.to_string()).collect();
    images
        .iter()
        .filter(|image| used.contains(&image.reference))
        .map(|image| converter.image(image))
        .collect()
}

/// How layers are converted, and where to.
struct Converter<'a> {
    compression: Option<Compression>,
    store: &'a Store,
    settings: Layers,
}

/// A converted layer as it is in the store.
struct Stored {
    /// What it is called there.
    digest: Digest,
    path: PathBuf,
    opened: erofs::Image,
    special: Special,
}

impl Converter<'_> {
    fn image(&self, image: &fetch::Image) -> Result<Converted> {
        let mut tree = Tree::default();
        let mut layers = Vec::new();
        let mut special = Special::default();
        let mut chain: Option<Digest> = None;
        for layer in &image.layers {
            let id = chain_id(chain.as_ref(), &layer.diff_id);
            chain = Some(id);
            let Stored { digest, path, opened, special: found } = self.layer(layer, &id, &tree)?;
            self.check(&found).map_err(|error| error.within(&layer.name))?;
            special.join(&found);
            layers.push(Layer { digest: digest.hex(), file: SourceFile::look(&path)? });
            tree.push(opened);
        }
        let image = Image {
            reference: image.reference.clone(),
            defaults: image.config.config.clone(),
            layers,
            special,
        };
        Ok(Converted { image, tree })
    }

    /// The layer's blob, opened, and what it is called: by its diff id, or, where its bytes depend on the layers below it,
    /// by the chain id, which names those too. A blob that is visibly damaged is made again.
    fn layer(&self, layer: &fetch::Layer, chain: &Digest, lower: &Tree) -> Result<Stored> {
        let Self { compression, store, settings } = *self;
        let by_diff_id = (layer.diff_id, store.layer_path(&format(compression), &layer.diff_id));
        let by_chain_id = (*chain, store.layer_path(&format_chained(compression), chain));
        for (digest, path) in [&by_diff_id, &by_chain_id].into_iter().filter(|(_, path)| path.exists()) {
            match erofs::Image::open(path) {
                Ok(opened) => match store.read_notes(path)? {
                    Some(special) => {
                        return Ok(Stored { digest: *digest, path: path.to_path_buf(), opened, special });
                    }
                    None => continue,
                },
                Err(error) => say(error),
            }
        }
        say(format_args!("converting {}", layer.name));
        let mut draft = store.begin(&by_diff_id.1)?;
        let stream = layer.open()?;
        let writer = match compression {
            None => Writer::new(draft.file())?,
            Some(compression) => Writer::compressed(draft.file(), compression, None)?,
        };
        let input = layer::Input { tar: stream, lower, limits: settings.limits };
        let converted = layer::convert(input, writer).map_err(|error| error.within(&layer.name))?;
        let special = converted.special;
        let (digest, path) = if converted.depends_on_lower { by_chain_id } else { by_diff_id };
        // First what is known of the layer: without it the layer counts as missing.
        store.write_notes(&path, &special)?;
        draft.commit_as(&path)?;
        let opened = erofs::Image::open(&path)?;
        Ok(Stored { digest, path: path.to_path_buf(), opened, special })
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
            Converter { compression: None, store: &store, settings }.check(special)
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

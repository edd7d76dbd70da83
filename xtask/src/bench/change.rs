//! B3: a large machine of which one small layer changes.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Bench;
use super::cold::{demo_layers, unpack_and_pack};
use super::figure::{Figure, Goal, MILLISECONDS, Measure};
use super::layout;
use super::machine::Machine;
use super::sample::{interleave, median};
use super::store::{Store, empty};
use super::usage::measure as usage;
use crate::process::{Result, because, run_quietly};
use crate::workspace::write_file;

/// For the document.
pub const METHOD: &str = "\
An image of four layers, each a copy of B1's tree in a folder of its own, and a small one on top, which is
made anew for every build and holds the tests' probe. Coracle: `coracle build --fast`, which converts the
small layer and writes the whole initramfs, flushed to the disk. Floor: `cp`, `sync` and `mv` of that
initramfs over an older one, and `coracle plan` with another such layer less `coracle plan` with nothing
changed, which is the conversion. Peer: `umoci unpack --rootless` and `mkfs.erofs` of the whole image, not
flushed, once. Store, output and copy are on one file system of the host; where it has reflinks, both Coracle's
output and the copy share the store's blocks, and the list of versions says whether it has. The goal's tenth
is for everything that is neither conversion nor copy.";

const ROUNDS: usize = 3;

/// How often B1's tree is in the image.
const COPIES: u32 = 4;

/// Measures B3.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = Stage::set(bench)?;
    let [ours, conversion, copy] =
        interleave(ROUNDS, [&|| stage.build(), &|| stage.conversion(), &|| stage.copy()])?;
    // Once, since it takes as long as everything else together.
    let peer = stage.peer()?;
    let size = |file: PathBuf| -> Result<u64> {
        Ok(fs::metadata(&file).map_err(because(format!("cannot find `{}`", file.display())))?.len()
            / 1_000_000)
    };
    let (layer, all) = (size(stage.folder.join("small.tar"))?, size(stage.initramfs())?);
    let (conversion, copy) = (median(conversion)?, median(copy)?);
    let figure = Figure::new("B3", format!("{layer} MB of {all} MB changed"), MILLISECONDS, median(ours)?);
    Ok(vec![
        figure.peer(peer).floor(conversion + copy).goal(Goal::AtMost(1.1, Measure::Floors)),
        Figure::new("B3", "of it, the layer's conversion", MILLISECONDS, conversion),
    ])
}

/// The machine, in a folder below `target`, which is on a disk.
struct Stage<'a> {
    bench: &'a Bench<'a>,
    config: PathBuf,
    folder: PathBuf,
    layout: PathBuf,
    store: Store,
    /// How often the small layer was made anew.
    changes: Cell<u32>,
}

impl<'a> Stage<'a> {
    fn set(bench: &'a Bench<'a>) -> Result<Self> {
        let folder = bench.folder("change")?;
        empty(&folder)?;
        let layout = folder.join("layout");
        large_image(bench, &folder, &layout)?;
        let services = format!(
            "[service.changed]\nimage = \"oci:{}:changed\"\ncommand = [\"/small/probe\"]\n",
            layout.display()
        );
        let config = Machine::config(bench, "change", &services)?;
        let store = Store::with_layers_in(bench, &folder)?;
        let stage = Self { bench, config, folder, layout, store, changes: Cell::new(0) };
        // Everything is converted once.
        stage.build().map(|_| stage)
    }

    /// Puts a layer on top that was never there before.
    fn change(&self) -> Result<()> {
        self.changes.set(self.changes.get() + 1);
        let small = self.folder.join("tree/small");
        fs::create_dir_all(&small).map_err(because("cannot make a folder"))?;
        write_file(&small.join("number"), &format!("{}\n", self.changes.get()))?;
        let probe = self.bench.workspace.target("dist-test/probe");
        fs::copy(probe, small.join("probe")).map_err(because("cannot copy the tests' probe"))?;
        let tar = self.folder.join("small.tar");
        run_quietly(
            Command::new("tar").arg("-C").arg(self.folder.join("tree")).arg("-cf").arg(&tar).arg("small"),
        )?;
        let large = layout::name(&self.layout, "large");
        run_quietly(Command::new("umoci").args(["tag", "--image", &large, "changed"]))?;
        layout::add_layer(&self.layout, "changed", &tar)?;
        self.settle()
    }

    fn coracle(&self, arguments: &[&str]) -> Result<f64> {
        let mut command = self.bench.coracle();
        command.env("CORACLE_CACHE", &self.store.root).args(arguments).arg("--fast").arg(&self.config);
        usage(self.bench, &command).map(|usage| usage.milliseconds)
    }

    /// Has everything written before on the disk, which would else be waited for by whoever flushes next.
    fn settle(&self) -> Result<()> {
        run_quietly(Command::new("sync").arg("--file-system").arg(&self.folder)).map(drop)
    }

    fn build(&self) -> Result<f64> {
        self.change()?;
        let output = self.folder.join("out");
        self.coracle(&["build", "-o", &output.to_string_lossy()])
    }

    fn conversion(&self) -> Result<f64> {
        self.change()?;
        Ok(self.coracle(&["plan"])? - self.coracle(&["plan"])?)
    }

    fn initramfs(&self) -> PathBuf {
        self.folder.join("out/change-initramfs.img")
    }

    fn copy(&self) -> Result<f64> {
        let target = self.folder.join("copy");
        self.settle()?;
        // As the build does: the old file goes when the new one is complete.
        const SCRIPT: &str = "cp \"$1\" \"$2.draft\"; sync \"$2.draft\"; mv \"$2.draft\" \"$2\"";
        let mut command = Command::new("sh");
        command.args(["-euc", SCRIPT, "sh"]).arg(self.initramfs()).arg(&target);
        usage(self.bench, &command).map(|usage| usage.milliseconds)
    }

    fn peer(&self) -> Result<f64> {
        let image = layout::name(&self.layout, "changed");
        unpack_and_pack(self.bench, &image, &self.folder.join("peer"), "").map(|usage| usage.milliseconds)
    }
}

impl Drop for Stage<'_> {
    /// Gigabytes are not left behind.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove `{}`: {error}", self.folder.display());
        }
    }
}

/// The image `large`: B1's tree several times over.
fn large_image(bench: &Bench, folder: &Path, layout: &Path) -> Result<()> {
    const SCRIPT: &str = "tree=$1/tree; mkdir -p \"$tree/$2\"; shift; copy=$1; shift; \
                          for blob; do gzip -dc \"$blob\" | tar -x --no-same-owner -C \"$tree/$copy\"; done; \
                          tar -cf \"$tree.tar\" -C \"$tree\" \"$copy\"; rm -r \"$tree\"";
    layout::make(layout, "large")?;
    for copy in 0..COPIES {
        let mut command = Command::new("sh");
        command
            .args(["-euc", SCRIPT, "sh"])
            .arg(folder)
            .arg(format!("copy-{copy}"))
            .args(demo_layers(bench)?);
        run_quietly(&mut command)?;
        layout::add_layer(layout, "large", &folder.join("tree.tar"))?;
    }
    let tar = folder.join("tree.tar");
    fs::remove_file(&tar).map_err(because(format!("cannot remove `{}`", tar.display())))
}

//! B1: a machine that is built for the first time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::Bench;
use super::conversion::LZ4HC;
use super::figure::{Figure, Goal, MILLISECONDS, Measure};
use super::layout;
use super::machine::Machine;
use super::sample::{interleave, median};
use super::store::{Store, empty, in_memory};
use super::usage::{Usage, measure as usage};
use crate::process::{Result, because};

/// For the document.
pub const METHOD: &str = "\
One service from an image of three layers in a local layout: Debian's base, Node.js and PostgreSQL, in bytes
of their uncompressed tar archives. Coracle: `coracle build` with neither the layers nor the output there,
with `--fast` and with the default compression; the kernel is in the store. Peer: `umoci unpack --rootless`,
then `mkfs.erofs`, with `-zlz4hc,9 -C65536` beside the default: it merges the layers into one tree, and what
it makes has neither kernel nor init. linuxkit, which the design names, is no Debian package. Floor: the same
blobs inflated and hashed as they are and inflated (SHA-256), each layer by one thread, on all processors, and
nothing written. All files are in memory.";

/// The layers of these demo images, on top of each other.
pub const LAYERS: &[&str] = &["base", "node", "postgresql"];

const ROUNDS: usize = 5;
/// Of what takes seconds.
const FEW_ROUNDS: usize = 3;

/// Measures B1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = Stage::set(bench)?;
    let [plain, plain_peer, floor] =
        interleave(ROUNDS, [&|| stage.build(&["--fast"]), &|| stage.peer(""), &|| stage.floor()])?;
    let [packed, packed_peer] = interleave(FEW_ROUNDS, [&|| stage.build(&[]), &|| stage.peer(LZ4HC)])?;
    let figure = |what: &str, ours: &[Usage], peer: &[Usage]| -> Result<Figure> {
        let what = format!("cold build of {:.0} MB, {what}", stage.tar_size / 1e6);
        Ok(Figure::new("B1", what, MILLISECONDS, milliseconds(ours)?)
            .peer(milliseconds(peer)?)
            .floor(milliseconds(&floor)?))
    };
    Ok(vec![
        figure("plain", &plain, &plain_peer)?.goal(Goal::AtMost(1.3, Measure::Floors)),
        figure("LZ4", &packed, &packed_peer)?,
    ])
}

fn milliseconds(usages: &[Usage]) -> Result<f64> {
    median(usages.iter().map(|usage| usage.milliseconds))
}

/// The blobs of [`LAYERS`], each once.
pub fn demo_layers(bench: &Bench) -> Result<Vec<PathBuf>> {
    let demo = bench.workspace.target("images/demo");
    LAYERS.iter().map(|tag| layout::top_layer(&demo, tag)).collect()
}

/// Everything that a build needs, in memory.
struct Stage<'a> {
    bench: &'a Bench<'a>,
    config: PathBuf,
    store: Store,
    layout: PathBuf,
    tar_size: f64,
    memory: TempDir,
}

impl<'a> Stage<'a> {
    fn set(bench: &'a Bench<'a>) -> Result<Self> {
        let memory = in_memory()?;
        let layout = memory.path().join("layout");
        let tar_size = layout::stack(&layout, "stack", &demo_layers(bench)?)?;
        let services = format!(
            "[service.stack]\nimage = \"oci:{}:stack\"\ncommand = [\"/bin/true\"]\n",
            layout.display()
        );
        let config = Machine::config(bench, "cold", &services)?;
        let store = Store::with_layers_in(bench, memory.path())?;
        let stage = Self { bench, config, store, layout, tar_size, memory };
        // The first build fetches the kernel.
        stage.build(&["--fast"]).map(|_| stage)
    }

    fn build(&self, options: &[&str]) -> Result<Usage> {
        let output = self.memory.path().join("out");
        empty(&output)?;
        self.store.forget_layers()?;
        let mut command = self.bench.coracle();
        command.env("CORACLE_CACHE", &self.store.root).arg("build");
        usage(self.bench, command.args(options).arg(&self.config).arg("-o").arg(&output))
    }

    fn floor(&self) -> Result<Usage> {
        let blobs = layout::layers(&self.layout, "stack")?;
        usage(self.bench, Command::new(&self.bench.verify).args(blobs))
    }

    fn peer(&self, mkfs: &str) -> Result<Usage> {
        let folder = self.memory.path().join("peer");
        unpack_and_pack(self.bench, &layout::name(&self.layout, "stack"), &folder, mkfs)
    }
}

/// What a user would do with an image instead, in a folder that is there only meanwhile.
pub fn unpack_and_pack(bench: &Bench, image: &str, folder: &Path, mkfs: &str) -> Result<Usage> {
    const SCRIPT: &str = "umoci unpack --rootless --image \"$1\" \"$2/bundle\"; \
                          mkfs.erofs --quiet $3 \"$2/x.erofs\" \"$2/bundle/rootfs\"";
    empty(folder)?;
    let mut command = Command::new("sh");
    command.args(["-euc", SCRIPT, "sh", image]).arg(folder).arg(mkfs);
    let result = usage(bench, &command);
    fs::remove_dir_all(folder).map_err(because(format!("cannot remove `{}`", folder.display())))?;
    result
}

//! B4 and B6: how fast one layer becomes EROFS, in how much memory, and how large it is then.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::Bench;
use super::figure::{Figure, Goal, MEGABYTES, MEGABYTES_PER_SECOND, MILLISECONDS, Measure};
use super::layout::{self, top_layer};
use super::machine::{Kernel, Machine};
use super::sample::{interleave, median};
use super::store::{Store, in_memory};
use super::usage::{Usage, measure as usage};
use crate::process::{Result, because, run_quietly};

/// For the document.
pub const METHOD: &str = "\
PostgreSQL's layer as the one layer of an image, in bytes of its uncompressed tar archive. Coracle: `coracle
plan` with the layer not in the store yet, less the same with it there, so that what remains is reading,
verifying both digests, inflating, converting and writing; plain is with `--fast`. Peer: `gzip -dc | tar -x`,
then `mkfs.erofs`, since mkfs.erofs 1.5 reads no archives; it verifies nothing. Floor: the builder's own
codec inflating the blob on one thread. All files are in memory. Speed is by wall time: Coracle works on all
processors, the peer on two and then one, the floor on one, so a busy host is harder on the first; processor
time is the sum over all threads. Peak memory is the largest process's; the floor's is a reader with two
buffers.";

/// For the document.
pub const METHOD_OF_SIZE: &str = "\
The same layer by its default compression, beside `mkfs.erofs -zlz4hc,9 -C65536`: the same codec and cluster
size, each at the level that it takes unless asked otherwise, which is 3 for Coracle.";

const ROUNDS: usize = 7;

/// 64 MiB, in MB.
const PEAK: f64 = 67.1;

/// mkfs.erofs's own level of this codec, written out, and our size of clusters.
pub const LZ4HC: &str = "-zlz4hc,9 -C65536";

/// A way to convert, and how the peer goes it.
#[derive(Clone, Copy)]
struct Way {
    options: &'static [&'static str],
    mkfs: &'static str,
}

const PLAIN: Way = Way { options: &["--fast"], mkfs: "" };
const PACKED: Way = Way { options: &[], mkfs: LZ4HC };

/// Measures B4.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = plain(&Stage::set(bench, PLAIN)?)?;
    figures.extend(packed(&Stage::set(bench, PACKED)?)?);
    Ok(figures)
}

/// Measures B6.
pub fn measure_size(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = Stage::set(bench, PACKED)?;
    stage.cold()?;
    stage.peer()?;
    let figure = Figure::new("B6", "size of a layer, LZ4", MEGABYTES, stage.size()?);
    Ok(vec![figure.peer(stage.peer_size.get()).goal(Goal::AtMost(1.0, Measure::Peers))])
}

fn plain(stage: &Stage) -> Result<Vec<Figure>> {
    let [cold, warm, peer, floor] =
        interleave(ROUNDS, [&|| stage.cold(), &|| stage.warm(), &|| stage.peer(), &|| stage.floor()])?;
    let speed = stage.speed(milliseconds(&cold)? - milliseconds(&warm)?);
    let speeds = |what: &str| -> Result<Figure> {
        Ok(Figure::new("B4", what, MEGABYTES_PER_SECOND, speed)
            .peer(stage.speed(milliseconds(&peer)?))
            .floor(stage.speed(milliseconds(&floor)?)))
    };
    Ok(vec![
        speeds("layer to EROFS, plain, beside the floor")?.goal(Goal::AtLeast(0.9, Measure::Floors)),
        speeds("layer to EROFS, plain, beside the peer")?.goal(Goal::AtLeast(4.0, Measure::Peers)),
        Figure::new("B4", "processor time, plain", MILLISECONDS, processor(&cold)? - processor(&warm)?)
            .peer(processor(&peer)?)
            .floor(processor(&floor)?),
        Figure::new("B4", "peak memory, plain", MEGABYTES, megabytes(&cold)?)
            .peer(megabytes(&peer)?)
            .floor(megabytes(&floor)?)
            .goal(Goal::AtMost(PEAK, Measure::Units)),
    ])
}

fn packed(stage: &Stage) -> Result<Vec<Figure>> {
    let [cold, warm, peer] = interleave(3, [&|| stage.cold(), &|| stage.warm(), &|| stage.peer()])?;
    let speed = stage.speed(milliseconds(&cold)? - milliseconds(&warm)?);
    Ok(vec![
        Figure::new("B4", "layer to EROFS, LZ4", MEGABYTES_PER_SECOND, speed)
            .peer(stage.speed(milliseconds(&peer)?))
            .goal(Goal::AtLeast(4.0, Measure::Peers)),
        Figure::new("B4", "peak memory, LZ4", MEGABYTES, megabytes(&cold)?)
            .peer(megabytes(&peer)?)
            .goal(Goal::AtMost(PEAK, Measure::Units)),
    ])
}

fn milliseconds(usages: &[Usage]) -> Result<f64> {
    median(usages.iter().map(|usage| usage.milliseconds))
}

fn processor(usages: &[Usage]) -> Result<f64> {
    median(usages.iter().map(|usage| usage.processor))
}

fn megabytes(usages: &[Usage]) -> Result<f64> {
    Ok(median(usages.iter().map(|usage| usage.peak))? / 1e6)
}

/// Everything that a conversion needs, and a place in memory for what it writes.
struct Stage<'a> {
    bench: &'a Bench<'a>,
    config: PathBuf,
    store: Store,
    blob: PathBuf,
    tar_size: f64,
    memory: TempDir,
    way: Way,
    /// What the peer's last image had, in MB.
    peer_size: Cell<f64>,
}

impl<'a> Stage<'a> {
    fn set(bench: &'a Bench<'a>, way: Way) -> Result<Self> {
        let memory = in_memory()?;
        let layout = memory.path().join("layout");
        let source = top_layer(&bench.workspace.target("images/demo"), "postgresql")?;
        let tar_size = layout::stack(&layout, "one", &[source])?;
        let services = format!(
            "[service.one]\nimage = \"oci:{}:one\"\ncommand = [\"/usr/bin/pg_lsclusters\"]\n",
            layout.display()
        );
        // Built with the user's store, to have its lock.
        Machine::build(bench, "layer", Kernel::Own, &services, None)?;
        let store = Store::with_layers_in(bench, memory.path())?;
        let config = bench.folder("layer")?.join("layer.toml");
        let blob = top_layer(&layout, "one")?;
        let peer_size = Cell::new(0.0);
        let stage = Self { bench, config, store, blob, tar_size, memory, way, peer_size };
        // The first run fetches the kernel.
        stage.warm().map(|_| stage)
    }

    fn cold(&self) -> Result<Usage> {
        self.store.forget_layers()?;
        self.warm()
    }

    fn warm(&self) -> Result<Usage> {
        let mut command = self.bench.coracle();
        command.env("CORACLE_CACHE", &self.store.root).arg("plan");
        command.args(self.way.options).arg(&self.config);
        usage(self.bench, &command)
    }

    fn floor(&self) -> Result<Usage> {
        usage(self.bench, Command::new(&self.bench.inflate).arg(&self.blob))
    }

    /// MB of the tar archive in a second.
    fn speed(&self, milliseconds: f64) -> f64 {
        self.tar_size / 1e3 / milliseconds
    }

    /// MB of the one layer in the store.
    fn size(&self) -> Result<f64> {
        let mut sizes = 0.0;
        let cannot = || "cannot list the store's layers";
        for format in fs::read_dir(&self.store.layers).map_err(because(cannot()))? {
            let format = format.map_err(because(cannot()))?.path();
            for layer in fs::read_dir(format).map_err(because(cannot()))? {
                sizes += megabytes_of(&layer.map_err(because(cannot()))?.path())?;
            }
        }
        Ok(sizes)
    }

    fn peer(&self) -> Result<Usage> {
        // An ordinary user's tar can give files to nobody else: so be it for root as well.
        const SCRIPT: &str = "cd \"$2\"; mkdir tree; gzip -dc \"$1\" | tar -x --no-same-owner -C tree; \
                              mkfs.erofs --quiet $3 x.erofs tree";
        let folder = self.memory.path().join("peer");
        fs::create_dir(&folder).map_err(because("cannot make a folder in memory"))?;
        let mut command = Command::new("sh");
        command.args(["-euc", SCRIPT, "sh"]).arg(&self.blob).arg(&folder).arg(self.way.mkfs);
        let result = usage(self.bench, &command);
        self.peer_size.set(megabytes_of(&folder.join("x.erofs"))?);
        fs::remove_dir_all(&folder).map_err(because("cannot remove a folder in memory"))?;
        result
    }
}

/// The size of a file.
fn megabytes_of(file: &Path) -> Result<f64> {
    let size = run_quietly(Command::new("stat").arg("--format=%s").arg(file))?;
    size.trim().parse::<f64>().map(|size| size / 1e6).map_err(because("a file has no size"))
}

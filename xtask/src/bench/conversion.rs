//! B4: how fast one layer becomes EROFS, and in how much memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::Bench;
use super::figure::{Figure, Goal, MEGABYTES, MEGABYTES_PER_SECOND, MILLISECONDS, Measure};
use super::layout::top_layer;
use super::machine::{Kernel, Machine};
use super::sample::{interleave, median};
use super::usage::{Usage, measure as usage};
use crate::process::{Result, because, run_quietly};

/// For the document.
pub const METHOD: &str = "\
PostgreSQL's layer as the one layer of an image, in bytes of its uncompressed tar archive. Coracle: `coracle
plan` with the layer not in the store yet, less the same with it there, so that what remains is reading,
verifying both digests, inflating, converting and writing. Peer: `gzip -dc | tar -x`, then `mkfs.erofs`
without compression, since mkfs.erofs 1.5 reads no archives; it verifies nothing. Floor: the builder's own
codec inflating the blob on one thread. All files are in memory. Speed is by wall time: Coracle and the peer
work on two threads, the floor on one, so a busy host is harder on the first two; processor time is the sum
over all threads. Peak memory is the largest process's; the floor's is a reader with two buffers.";

const ROUNDS: usize = 7;

/// 64 MiB, in MB.
const PEAK: f64 = 67.1;

/// Measures B4.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let stage = Stage::set(bench)?;
    let [cold, warm, peer, floor] = interleave(
        ROUNDS,
        [&|| stage.cold(), &|| stage.warm(), &|| stage.peer(), &|| {
            usage(bench, Command::new(&bench.inflate).arg(&stage.blob))
        }],
    )?;
    let milliseconds = |usages: &[Usage]| median(usages.iter().map(|usage| usage.milliseconds));
    let processor = |usages: &[Usage]| median(usages.iter().map(|usage| usage.processor));
    let megabytes =
        |usages: &[Usage]| -> Result<f64> { Ok(median(usages.iter().map(|usage| usage.peak))? / 1e6) };
    let speed = |milliseconds: f64| stage.tar_size / 1e3 / milliseconds;

    let ours = speed(milliseconds(&cold)? - milliseconds(&warm)?);
    let speeds = |what: &str| -> Result<Figure> {
        Ok(Figure::new("B4", what, MEGABYTES_PER_SECOND, ours)
            .peer(speed(milliseconds(&peer)?))
            .floor(speed(milliseconds(&floor)?)))
    };
    Ok(vec![
        speeds("layer to EROFS, beside the floor")?.goal(Goal::AtLeast(0.9, Measure::Floors)),
        speeds("layer to EROFS, beside the peer")?.goal(Goal::AtLeast(4.0, Measure::Peers)),
        Figure::new("B4", "processor time", MILLISECONDS, processor(&cold)? - processor(&warm)?)
            .peer(processor(&peer)?)
            .floor(processor(&floor)?),
        Figure::new("B4", "peak memory", MEGABYTES, megabytes(&cold)?)
            .peer(megabytes(&peer)?)
            .floor(megabytes(&floor)?)
            .goal(Goal::AtMost(PEAK, Measure::Units)),
    ])
}

/// Everything that a conversion needs, and a place in memory for what it writes.
struct Stage<'a> {
    bench: &'a Bench<'a>,
    config: PathBuf,
    /// The builder's store: all but the layers stays from one benchmark to the next.
    store: PathBuf,
    blob: PathBuf,
    tar_size: f64,
    memory: TempDir,
}

impl<'a> Stage<'a> {
    fn set(bench: &'a Bench<'a>) -> Result<Self> {
        let memory = match tempfile::tempdir_in("/dev/shm") {
            Ok(folder) => folder,
            Err(_) => tempfile::tempdir().map_err(because("cannot make a temporary folder"))?,
        };
        let (layout, tar_size) = one_layer(bench, memory.path())?;
        let services = format!(
            "[service.one]\nimage = \"oci:{}:one\"\ncommand = [\"/usr/bin/pg_lsclusters\"]\n",
            layout.display()
        );
        // Built with the user's store, to have its lock.
        Machine::build(bench, "layer", Kernel::Own, &services, None)?;
        let store = bench.folder("store")?;
        let layers = store.join("layers");
        if fs::symlink_metadata(&layers).is_ok() {
            fs::remove_file(&layers).map_err(because(format!("cannot remove `{}`", layers.display())))?;
        }
        let target = memory.path().join("layers");
        fs::create_dir(&target).map_err(because("cannot make a folder in memory"))?;
        std::os::unix::fs::symlink(&target, &layers)
            .map_err(because(format!("cannot link `{}`", layers.display())))?;
        let config = bench.folder("layer")?.join("layer.toml");
        let blob = top_layer(&layout, "one")?;
        let stage = Self { bench, config, store, blob, tar_size, memory };
        // The first run fetches the kernel.
        stage.warm().map(|_| stage)
    }

    fn cold(&self) -> Result<Usage> {
        empty(&self.memory.path().join("layers"))?;
        self.warm()
    }

    fn warm(&self) -> Result<Usage> {
        let mut command = self.bench.coracle();
        command.env("CORACLE_CACHE", &self.store).arg("plan").arg(&self.config);
        usage(self.bench, &command)
    }

    fn peer(&self) -> Result<Usage> {
        // An ordinary user's tar can give files to nobody else: so be it for root as well.
        const SCRIPT: &str = "cd \"$2\"; mkdir tree; gzip -dc \"$1\" | tar -x --no-same-owner -C tree; \
                              mkfs.erofs --quiet x.erofs tree";
        let folder = self.memory.path().join("peer");
        fs::create_dir(&folder).map_err(because("cannot make a folder in memory"))?;
        let mut command = Command::new("sh");
        command.args(["-euc", SCRIPT, "sh"]).arg(&self.blob).arg(&folder);
        let result = usage(self.bench, &command);
        fs::remove_dir_all(&folder).map_err(because("cannot remove a folder in memory"))?;
        result
    }
}

fn empty(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder)
        .and_then(|()| fs::create_dir(folder))
        .map_err(because(format!("cannot empty `{}`", folder.display())))
}

/// A layout with the image `one` of one large layer, and the size of the layer's archive.
fn one_layer(bench: &Bench, memory: &Path) -> Result<(PathBuf, f64)> {
    let source = top_layer(&bench.workspace.target("images/demo"), "postgresql")?;
    let layout = memory.join("layout");
    let tar = memory.join("layer.tar");
    let inflate = format!("gzip -dc '{}' >'{}'", source.display(), tar.display());
    run_quietly(Command::new("sh").args(["-euc", &inflate]))?;
    let size = run_quietly(Command::new("stat").args(["--format=%s"]).arg(&tar))?;
    let size: f64 = size.trim().parse().map_err(because("the archive has no size"))?;
    let image = format!("{}:one", layout.display());
    run_quietly(Command::new("umoci").args(["init", "--layout"]).arg(&layout))?;
    run_quietly(Command::new("umoci").args(["new", "--image", &image]))?;
    run_quietly(Command::new("umoci").args(["raw", "add-layer", "--image", &image]).arg(&tar))?;
    fs::remove_file(&tar).map_err(because(format!("cannot remove `{}`", tar.display())))?;
    Ok((layout, size))
}

//! B2: what a build costs when nothing has changed.

use super::Bench;
use super::figure::{Figure, Goal, MILLISECONDS, Measure};
use super::machine::{Kernel, Machine};
use super::sample::{interleave, median};
use super::usage::{Usage, measure as usage};
use crate::process::Result;

/// For the document.
pub const METHOD: &str = "\
Wall time of `coracle build` on a machine that is built already: `configs/demo.toml` (two images), and one of
all five demo images. Floor: `coracle --version`, a process that does nothing. The design's goal is 20 ms.";

const ROUNDS: usize = 21;

/// All demo images in one machine: four on a shared base, and a small one.
const IMAGES: &[&str] = &["nginx", "redis", "node", "postgresql", "busybox"];

/// Measures B2.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let demo = Machine::demo(bench)?;
    let layout = bench.workspace.target("images/demo");
    let service = |tag: &&str| format!("[service.{tag}]\nimage = \"oci:{}:{tag}\"\n", layout.display());
    let services: String = IMAGES.iter().map(service).collect();
    let large = Machine::build(bench, "large", Kernel::Own, &services, None)?;

    let build = |config: &str, machine: &Machine| {
        let mut command = bench.coracle();
        command.args(["build", config, "-o"]).arg(&machine.output);
        command
    };
    let build_demo = build("configs/demo.toml", &demo);
    let build_large = build("target/bench/large/large.toml", &large);
    let mut nothing = bench.coracle();
    nothing.arg("--version");
    let [demo_times, large_times, floor_times] = interleave(
        ROUNDS,
        [&|| usage(bench, &build_demo), &|| usage(bench, &build_large), &|| usage(bench, &nothing)],
    )?;
    let floor = median(floor_times.iter().map(|usage| usage.milliseconds))?;
    let figure = |what: &str, times: &[Usage]| -> Result<Figure> {
        let ours = median(times.iter().map(|usage| usage.milliseconds))?;
        Ok(Figure::new("B2", what, MILLISECONDS, ours).floor(floor).goal(Goal::AtMost(50.0, Measure::Units)))
    };
    Ok(vec![figure("warm build, demo", &demo_times)?, figure("warm build, five images", &large_times)?])
}

//! The command line.

mod ctl;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::Port;
use crate::run::Accelerator;
pub use ctl::{Control, Ctl, Exec, Logs, Top};

/// One TOML file in, a bootable machine out.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a machine: NAME-kernel, NAME-initramfs.img and NAME-cmdline
    Build {
        /// What to build.
        #[command(flatten)]
        source: Source,
        /// Write the artifacts into this folder
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        output: PathBuf,
    },
    /// Boot a machine in QEMU, with its console here and its exit code as ours
    Run(Run),
    /// Report every problem of a machine and write nothing
    Check {
        /// What to check.
        #[command(flatten)]
        source: Source,
    },
    /// Print everything that a build would write
    Plan {
        /// What to plan.
        #[command(flatten)]
        source: Source,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let services live without a machine, and print what would happen when: the graph, restarts and the stop
    Simulate {
        /// The machine's config; several are merged, the later ones over the earlier
        #[arg(required = true, value_name = "CONFIG")]
        configs: Vec<PathBuf>,
        /// What happens: "db crashes 3 times", "db is ready after 20s", "migrate fails", "web is unhealthy at 1m",
        /// "web ignores its stop signal", "the network is down at 30s for 1m", "the network is up at 5s",
        /// "the clock is set at 3s", "/dev/vdb appears at 10s", "/dev/vdb is gone at 1m", "the machine powers off at 2m";
        /// several may be given, or separated by commas
        #[arg(long = "event", value_name = "TEXT", value_delimiter = ',')]
        events: Vec<String>,
        /// How long the machine runs
        #[arg(long = "for", value_name = "DURATION", value_parser = crate::config::duration, default_value = "2m")]
        until: Duration,
    },
    /// Talk to a machine that runs: how its services are, what they say, orders, and programs in their containers
    Ctl(Ctl),
    /// Look at what builds keep, or remove it: layers, kernels and documents, which the next build makes again
    Cache {
        /// What to do with it.
        #[command(subcommand)]
        command: Cache,
    },
    /// Look into a layer: list its files, read one of them, or make an archive of all
    Layer {
        /// What to do with it.
        #[command(subcommand)]
        command: Layer,
    },
}

/// What can be done with the store.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// List what there is, with sizes and when it was last used
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove some of it
    Rm {
        /// What to remove: a name that `ls` prints, or the start of its last part
        #[arg(required_unless_present = "all", value_name = "NAME")]
        names: Vec<String>,
        /// Remove everything
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
    /// Read all layers and documents, and remove those that are damaged
    Verify,
    /// Remove what was not used for some time
    Prune {
        /// Keep what was used more recently: 30d, 12h
        #[arg(long, value_name = "AGE", value_parser = crate::cache::age)]
        older_than: Duration,
    },
}

/// What can be done with a layer.
#[derive(Debug, Subcommand)]
pub enum Layer {
    /// List files: mode, names, owner, size, time in UTC, and path
    Ls {
        /// An .erofs file, or a name that `coracle cache ls` prints, or the start of its last part
        layer: PathBuf,
        /// A folder or file of the layer
        #[arg(default_value = "/")]
        path: OsString,
        /// List a folder and all that is below it
        #[arg(short = 'R', long)]
        recursive: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the contents of a file to stdout
    Cat {
        /// An .erofs file, or a name that `coracle cache ls` prints, or the start of its last part
        layer: PathBuf,
        /// A file of the layer
        path: OsString,
    },
    /// Write an OCI layer's tar archive to stdout that has everything the layer has
    Tar {
        /// An .erofs file, or a name that `coracle cache ls` prints, or the start of its last part
        layer: PathBuf,
    },
}

impl Layer {
    /// The layer that is meant, as it was written.
    pub fn layer(&self) -> &Path {
        match self {
            Self::Ls { layer, .. } | Self::Cat { layer, .. } | Self::Tar { layer } => layer,
        }
    }
}

/// The inputs of a build.
#[derive(Debug, Args)]
pub struct Source {
    /// The config; keys of later files replace or add to those of earlier ones
    #[arg(required = true, value_name = "CONFIG")]
    pub configs: Vec<PathBuf>,
    /// Inputs not given on the command line as files.
    #[command(flatten)]
    pub inputs: Inputs,
}

/// Options of a build.
#[derive(Debug, Args)]
pub struct Inputs {
    /// Fail when the lock file does not say what would be built
    #[arg(long)]
    pub locked: bool,
    /// Leave layers uncompressed: the first build is faster, the machine larger
    #[arg(long)]
    pub fast: bool,
    /// Fail when a key gives a service a privilege; `plan` lists them
    #[arg(long)]
    pub deny_privileges: bool,
    /// The machine's PID 1 [default: the file `init` beside this program]
    #[arg(long, value_name = "FILE", env = "CORACLE_INIT")]
    pub init: Option<PathBuf>,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Configs to build and boot, or the folder that `build` wrote
    #[arg(required = true, value_name = "CONFIG|DIR")]
    pub targets: Vec<PathBuf>,
    /// Options of the build.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Offer a port of the machine on this host, beside those of the config: HOST:GUEST, ADDRESS:HOST:GUEST
    #[arg(short, long, value_name = "HOST:GUEST")]
    pub publish: Vec<Port>,
    /// Memory [default: 512MiB, more where the initramfs needs it]
    #[arg(short, long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// Virtual processors [default: 2, or 1 where there is only one]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub cpus: Option<u32>,
    /// End the machine and fail when it still runs after this long
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    pub timeout: Option<Duration>,
    /// What runs the machine's instructions [default: the fastest that works here]
    #[arg(long, value_name = "NAME")]
    pub accel: Option<Accelerator>,
    /// Keep the machine's report (JSON lines: ready, exit) in this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Further arguments for QEMU, after `--`
    #[arg(last = true, value_name = "QEMU ARGUMENT")]
    pub qemu: Vec<OsString>,
}

/// At least what a kernel and its initramfs need to get anywhere, at most what QEMU's machine maps.
fn memory(text: &str) -> Result<u64, String> {
    match crate::config::size(text)? {
        size if size < 64 << 20 => Err("a machine has at least 64MiB".to_owned()),
        size if size > 1 << 40 => Err("a machine has at most 1024GiB".to_owned()),
        size => Ok(size),
    }
}

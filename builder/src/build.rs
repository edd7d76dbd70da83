//! The flow of a build: config → lock → images → layers → plan → artifacts. Each step is a call of one stage.

use std::path::{Path, PathBuf};

use crate::artifact::{self, Written};
use crate::cli::{self, Inputs};
use crate::config::{self, Config, FileContent, Problems};
use crate::convert;
use crate::error::{Context, Error, Result, gather};
use crate::fetch;
use crate::kernel;
use crate::lock::Lock;
use crate::oci::descriptor::Digest;
use crate::oci::source::Bounds;
use crate::plan::{self, ImagePlan};
use crate::progress::say;
use crate::resolve;
use crate::root;
use crate::run;
use crate::seccomp;
use crate::source_file::SourceFile;
use crate::store::Store;

/// Why a command failed, as its reader meets it.
#[derive(Debug)]
pub enum Failure {
    /// The config is wrong.
    Config(Problems),
    /// The config is right, and yet these things stand in the way.
    Machine(Vec<Error>),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl From<Vec<Error>> for Failure {
    fn from(errors: Vec<Error>) -> Self {
        Self::Machine(errors)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Machine(vec![error])
    }
}

impl Failure {
    /// Each problem as `error:` and a sentence, and `hint:` with what to do.
    pub fn render(&self, colour: bool) -> String {
        let errors = match self {
            Self::Config(problems) => return problems.render(colour),
            Self::Machine(errors) => errors,
        };
        let (red, cyan, reset) = if colour { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let render = |error: &Error| {
            let hint =
                error.advice().map(|advice| format!("\n{cyan}hint{reset}: {advice}")).unwrap_or_default();
            format!("{red}error{reset}: {error}{hint}")
        };
        errors.iter().map(render).collect::<Vec<_>>().join("\n")
    }
}

/// A machine that is ready to be written.
#[derive(Debug)]
pub struct Planned {
    /// What will be written.
    pub plan: ImagePlan,
    lock: Lock,
    lock_path: PathBuf,
}

/// Everything up to the plan. Writes nothing but the store.
pub fn plan(configs: &[PathBuf], inputs: &Inputs) -> Result<Planned, Failure> {
    let config = config::load(configs)?;
    let store = Store::open()?;
    let mut errors = Vec::new();
    let init = gather(&mut errors, init(inputs, config.control));
    let sources = gather(&mut errors, file_sources(&config));
    let profiles = gather(&mut errors, seccomp::read(&config));

    let lock_path = config.base.join(format!("{}.lock", config.name));
    let old = Lock::read(&lock_path)?;
    let lock = gather(&mut errors, resolve::resolve(&config, old.as_ref(), &store));
    let (Some(init), Some(sources), Some(profiles), Some(lock)) = (init, sources, profiles, lock) else {
        return Err(errors.into());
    };
    if inputs.locked {
        resolve::require_fresh(old.as_ref(), &lock, &lock_path)?;
    }

    let bounds = Bounds { base: &config.base, store: &store, limits: config.layers.limits };
    let images = fetch::fetch(&lock, bounds)?;
    let kernel = kernel::open(&config.kernel.source, &lock, &images, &store)?;
    let modules = kernel.modules(plan::needs(&config), &config.kernel.modules)?;
    let watchdogs = kernel.watchdogs();
    let layers = config::Layers { compression: Some(config::Compress::None), ..config.layers };
    let compression = kernel.compression(if inputs.fast { &layers } else { &config.layers })?;
    let converted = convert::convert(&config, &images, compression, &store)?;
    let roots = root::look(&config, &converted);

    let kernel_file = SourceFile::look(&kernel.image)?;
    let images: Vec<convert::Image> = converted.into_iter().map(|converted| converted.image).collect();
    let found = plan::Inputs {
        config: &config,
        images: &images,
        ids: &lock.ids,
        compression,
        roots: &roots,
        kernel: (&kernel.label, &kernel_file),
        release: kernel.release(),
        profiles: &profiles,
        modules: &modules,
        watchdogs: &watchdogs,
        init: &init,
        sources: &sources,
    };
    let plan = plan::plan(&found)?;
    if inputs.deny_privileges {
        plan::deny(&plan.privileges)?;
    }
    Ok(Planned { plan, lock, lock_path })
}

/// Plans the machine and writes its artifacts into a folder, and the lock beside the config.
pub fn build(configs: &[PathBuf], inputs: &Inputs, output: &Path) -> Result<Written, Failure> {
    let Planned { plan, lock, lock_path } = plan(configs, inputs)?;
    let written = artifact::write(&plan, output)?;
    lock.write(&lock_path)?;
    Ok(written)
}

/// Runs a machine from a folder of artifacts, or builds one first. Returns the machine's exit code.
pub fn run(options: &cli::Run) -> Result<u8, Failure> {
    let store = Store::open()?;
    let written = match &options.targets[..] {
        [folder] if folder.is_dir() => artifact::open(folder)?,
        configs => build(configs, &options.inputs, &machine_folder(&store, configs)?)?,
    };
    let artifacts = written.artifacts()?;
    let mut ports = written.ports()?;
    // A port that is published by hand takes the place of the config's wish for it.
    ports.retain(|port| !options.publish.iter().any(|other| other.same_guest(port) || other.same_host(port)));
    ports.extend(&options.publish);
    let accelerator = options.accel.map_or_else(|| run::choose(&store), Ok)?;
    let cpus = options.cpus.unwrap_or_else(default_cpus);
    let memory = memory(options.memory, written.initramfs_size())?;
    let run_options = run::Options {
        name: written.name().to_owned(),
        accelerator,
        memory,
        cpus,
        ports,
        timeout: options.timeout,
        report: options.report.clone(),
        extra: options.qemu.clone(),
    };
    for port in &run_options.ports {
        say(format_args!("{}:{} is port {} of the machine", port.address, port.host, port.guest));
    }
    say(format_args!(
        "booting {} with {}, {} MiB, {cpus} processors (Ctrl-C powers it off)",
        written.name(),
        accelerator.as_str().to_uppercase(),
        memory >> 20,
    ));
    Ok(run::run(&artifacts, &run_options)?)
}

/// What was asked for, unless the machine cannot start with it.
fn memory(asked: Option<u64>, initramfs: u64) -> Result<u64> {
    let least = plan::memory::least(initramfs);
    match asked {
        Some(asked) if asked < least => Err(Error::new(format!(
            "cannot boot in {} MiB: the kernel unpacks an initramfs of {} MiB",
            asked >> 20,
            initramfs >> 20,
        ))
        .hint(format!("give it at least {0} MiB: --memory {0}MiB", least >> 20))),
        Some(asked) => Ok(asked),
        None => Ok(plan::memory::usual(initramfs)),
    }
}

/// Two, so that services start beside each other; more help nobody who has just two.
fn default_cpus() -> u32 {
    let here = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if here > 1 { 2 } else { 1 }
}

/// Where `run CONFIG` keeps what it builds: the same folder for the same configs, so that a second run builds nothing.
fn machine_folder(store: &Store, configs: &[PathBuf]) -> Result<PathBuf> {
    let mut id = Vec::new();
    for config in configs {
        // A config that is not there is reported by the build, with all its problems.
        let path = std::path::absolute(config).doing(|| format!("find `{}`", config.display()))?;
        id.extend_from_slice(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
        id.push(0);
    }
    Ok(store.machine_path(&Digest::of(&id).hex()[..16]))
}

/// The machine's PID 1: the one that can run programs for others, or the one without any code for that.
fn init(inputs: &Inputs, control: manifest::Control) -> Result<SourceFile> {
    let name = if control.exec { "init" } else { "init-without-exec" };
    let path = match &inputs.init {
        Some(path) => path.clone(),
        None => std::env::current_exe().doing(|| "find this program's own folder")?.with_file_name(name),
    };
    let hint = "`--init FILE` names the machine's PID 1; `cargo xtask dist` builds it beside `coracle`";
    SourceFile::look(&path).map_err(|error| error.within("the machine's PID 1").hint(hint))
}

/// The files of `[[file]]` tables, in their order.
fn file_sources(config: &Config) -> Result<Vec<SourceFile>, Vec<Error>> {
    let mut errors = Vec::new();
    let mut sources = Vec::new();
    for file in &config.files {
        if let FileContent::Source(path) = &file.content {
            let source =
                SourceFile::look(path).map_err(|error| error.within(format!("file `{}`", file.path)));
            sources.extend(gather(&mut errors, source));
        }
    }
    if errors.is_empty() { Ok(sources) } else { Err(errors) }
}

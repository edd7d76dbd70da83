//! The kernel of a machine: its image, what is built into it, and the modules that the machine loads.

mod compression;
#[cfg(any(test, fuzzing))]
pub mod damage;
mod deb;
mod image;
mod module;
mod package;
mod requirement;
mod source;
mod xz;

pub use package::resolve;
pub use requirement::Needs;
pub use source::open;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::store::Draft;
use module::ModInfo;

/// A kernel that has been fetched: files in a folder, nothing in memory.
#[derive(Debug)]
pub struct Kernel {
    /// What the user called it, for messages.
    pub label: String,
    /// The bzImage or vmlinux.
    pub image: PathBuf,
    /// The kernel's own configuration, where it is known.
    options: Option<Options>,
    /// File of each module, by normalised name.
    modules: BTreeMap<String, PathBuf>,
    /// Names and aliases of what is built in.
    builtin: BTreeSet<String>,
    /// Where decompressed modules are kept from one build to the next.
    ready: Option<PathBuf>,
}

/// A kernel's configuration, as its build left it.
#[derive(Debug)]
struct Options {
    /// The release that it is of: 6 and 1 of `6.1.192`.
    release: Option<(u32, u32)>,
    /// What is set.
    values: BTreeMap<String, String>,
}

/// A module as it goes into the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, normalised, and `.ko`.
    pub file: String,
    /// ELF, decompressed, without a signature unless the kernel insists on one.
    pub bytes: Vec<u8>,
}

/// Module names are the same whether written with `-` or `_`; the kernel itself uses `_`.
fn normalise(name: &str) -> String {
    name.replace('-', "_")
}

impl Kernel {
    /// The value of an option of the kernel's configuration: `Some("y")`, `Some("m")`, …; `None` when it is not set.
    /// `Err` when the configuration is not known.
    fn option(&self, name: &str) -> std::result::Result<Option<&str>, ()> {
        self.options.as_ref().map(|options| options.values.get(name).map(String::as_str)).ok_or(())
    }

    /// The first two numbers of its release; `None` when its configuration is not known.
    pub fn release(&self) -> Option<(u32, u32)> {
        self.options.as_ref()?.release
    }

    /// The modules that `needs` asks for and those named in `extra`, with all that they depend on, in load order.
    /// Fails when the kernel has neither a module nor a built-in for one of them.
    pub fn modules(&self, needs: Needs, extra: &[String]) -> Result<Vec<Module>> {
        let mut order =
            LoadOrder { kernel: self, done: BTreeSet::new(), path: Vec::new(), modules: Vec::new() };
        for name in requirement::needed_modules(self, needs)? {
            order.require(name)?;
        }
        // Nothing waits for them, and no machine depends on one.
        if needs.watchdog {
            requirement::watchdogs(self).1.into_iter().try_for_each(|name| order.require(name))?;
        }
        for name in extra {
            order.require(name).map_err(|error| {
                error.within("kernel.modules").hint("`modules` lists names such as \"nvme\", without .ko")
            })?;
        }
        Ok(order.modules)
    }

    /// The watchdogs that it has drivers for, those of the hardware first.
    pub fn watchdogs(&self) -> Vec<&'static str> {
        requirement::watchdogs(self).0
    }

    /// The decompressed bytes of a module.
    fn read_module(&self, name: &str, file: &Path) -> Result<Vec<u8>> {
        let keep_signature = self.option("CONFIG_MODULE_SIG_FORCE") == Ok(Some("y"));
        let ready = self.ready.as_ref().map(|folder| folder.join(format!("{name}.ko")));
        let kept = ready.as_ref().and_then(|path| std::fs::read(path).ok());
        if let Some(bytes) = kept.filter(|bytes| ModInfo::parse(file, bytes).is_ok()) {
            return Ok(bytes);
        }
        let mut bytes = module::read(file)?;
        ModInfo::parse(file, &bytes)?;
        if !keep_signature {
            module::strip_signature(&mut bytes);
        }
        if let Some(path) = ready {
            let mut draft = Draft::begin(&path)?;
            draft.write_all(&bytes).doing(|| format!("write `{}`", path.display()))?;
            draft.commit()?;
        }
        Ok(bytes)
    }

    /// A kernel that the store keeps can be had again.
    fn with_way_out(&self, error: Error) -> Error {
        match self.ready.as_deref().and_then(Path::parent) {
            Some(folder) => {
                error.hint(format!("delete `{}`: the next build unpacks the kernel again", folder.display()))
            }
            None => error,
        }
    }

    /// The modules that carry `alias`: what a soft dependency may name instead of a module.
    fn by_alias(&self, alias: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for (name, file) in &self.modules {
            let bytes = module::read(file)?;
            if ModInfo::parse(file, &bytes)?.aliases.iter().any(|known| known == alias) {
                found.push(name.clone());
            }
        }
        Ok(found)
    }
}

/// A depth-first walk that puts every module behind its dependencies.
struct LoadOrder<'a> {
    kernel: &'a Kernel,
    done: BTreeSet<String>,
    /// From the module that was asked for to the one that is looked at: a name twice in it is a cycle.
    path: Vec<String>,
    modules: Vec<Module>,
}

impl LoadOrder<'_> {
    fn require(&mut self, name: &str) -> Result<()> {
        let name = normalise(name);
        if self.done.contains(&name) || self.kernel.builtin.contains(&name) {
            return Ok(());
        }
        let Some(file) = self.kernel.modules.get(&name) else {
            let asked =
                self.path.first().map(|first| format!(", which `{first}` depends on,")).unwrap_or_default();
            let meant = crate::config::suggestion(&name, self.kernel.modules.keys().map(String::as_str));
            return Err(Error::new(format!(
                "{} has no module `{name}`{asked} and no such driver built in{meant}",
                self.kernel.label
            )));
        };
        if self.path.contains(&name) {
            return Err(Error::new(format!(
                "modules depend on each other in a circle: {}",
                self.path.join(", ")
            )));
        }
        let bytes = self.kernel.read_module(&name, file).map_err(|error| self.kernel.with_way_out(error))?;
        let info = ModInfo::parse(file, &bytes)?;
        self.path.push(name.clone());
        for dependency in &info.depends {
            self.require(dependency)?;
        }
        for soft in &info.soft_before {
            self.prefer(soft)?;
        }
        self.path.pop();
        self.modules.push(Module { file: format!("{name}.ko"), bytes });
        self.done.insert(name);
        Ok(())
    }

    /// A soft dependency: a module, something built in, or an alias; absent is fine.
    fn prefer(&mut self, name: &str) -> Result<()> {
        let normal = normalise(name);
        if self.kernel.builtin.contains(&normal) || self.kernel.builtin.contains(name) {
            return Ok(());
        }
        let names = if self.kernel.modules.contains_key(&normal) {
            vec![normal]
        } else {
            self.kernel.by_alias(name)?
        };
        names.iter().try_for_each(|name| if self.path.contains(name) { Ok(()) } else { self.require(name) })
    }
}

/// All modules below a folder, by name. Of several with one name it is that below `updates/`, as for depmod(8), and
/// else the first by its path.
fn find_modules(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    let updates = folder.join("updates");
    let rank = |path: &Path| (!path.starts_with(&updates), path.to_owned());
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let doing = || format!("list modules in `{}`", folder.display());
        for entry in std::fs::read_dir(&folder).doing(doing)? {
            let entry = entry.doing(doing)?;
            let file_type = entry.file_type().doing(doing)?;
            let path = entry.path();
            if file_type.is_dir() {
                folders.push(path);
            } else if let Some(name) = path.file_name().and_then(|name| module::name(name.to_str()?)) {
                let place = found.entry(normalise(name)).or_insert_with(|| path.clone());
                if rank(&path) < rank(place) {
                    *place = path;
                }
            }
        }
    }
    Ok(found)
}

/// What is built in: `modules.builtin` lists paths, `modules.builtin.modinfo` has the aliases.
fn find_builtin(folder: &Path) -> BTreeSet<String> {
    // Absent in hand-made folders; what is built in is then unknown, and the kernel's configuration decides.
    let list = std::fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let info = std::fs::read(folder.join("modules.builtin.modinfo")).unwrap_or_default();
    let names = list.lines().filter_map(|path| module::name(path.rsplit('/').next()?)).map(normalise);
    let aliases = info.split(|byte| *byte == 0).filter_map(|line| {
        let (key, value) = std::str::from_utf8(line).ok()?.split_once('=')?;
        key.ends_with(".alias").then(|| value.to_owned())
    });
    names.chain(aliases).collect()
}

/// `CONFIG_X=y` lines, and the title: `# Linux/x86 6.1.192 Kernel Configuration`.
fn parse_options(text: &str) -> Options {
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let values = text.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(pair).collect();
    let title = text.lines().find_map(|line| line.strip_prefix("# Linux/")?.split_once(' '));
    let release = title.and_then(|(_, rest)| {
        let mut numbers = rest.split(['.', '-', ' ']);
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    });
    Options { release, values }
}

#[cfg(test)]
mod tests;

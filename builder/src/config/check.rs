//! From what is written to what is meant: defaults, cross-references and contradictions.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use manifest::Name;

use super::graph;
use super::limits;
use super::logging;
use super::problem::{Problem, suggestion};
use super::profile::{self, Profile};
use super::raw::{
    At, Modules, Raw, RawControl, RawFile, RawKernel, RawLayers, RawService, RawWatchdog, Variables,
};
use super::supervision;
use super::value::{self, Port};
use super::{
    Compress, Config, File, FileContent, Kernel, KernelSource, Layers, Seccomp, Service, Table, Userns,
};
use crate::artifact::erofs::CLUSTER_RANGE;
use crate::oci::limits::Limits;
use crate::oci::reference::Reference;

/// The package that Debian's users get when they ask for no kernel in particular.
const DEFAULT_KERNEL: &str = "linux-image-cloud-amd64";

/// Docker's.
const DEFAULT_GRACE_PERIOD: Duration = Duration::from_secs(10);

/// Folders of the machine that are mounted over when it boots, or are init's own.
pub(super) const RESERVED_FOLDERS: &[&str] = &["/coracle", "/dev", "/init", "/proc", "/run", "/sys"];

/// The longest kernel command line, less the room that Coracle's own words take (`COMMAND_LINE_SIZE` is 2,048).
const MAX_CMDLINE: usize = 1536;

/// Half of it passes between two signs of life. PID 1 wakes for nothing else, so that a longer one is cheaper.
const DEFAULT_WATCHDOG: Duration = Duration::from_secs(60);

/// A fatal error of PID 1 is on the console for three seconds before the reboot, and the longest hardware that is
/// common counts to 613.
const WATCHDOG_RANGE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(600);

/// What layers can be compressed by, and the levels of each.
const COMPRESSIONS: &[(&str, Compress, Option<RangeInclusive<i32>>)] = &[
    ("none", Compress::None, None),
    ("lz4", Compress::Lz4, Some(1..=12)),
    ("zstd", Compress::Zstd, Some(1..=19)),
];

/// The machine that is meant, as far as one can be made; whoever calls looks at `problems` first.
pub fn check(raw: Raw, base: PathBuf, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut check = Check { problems };
    let name = match &raw.name {
        Some(name) => check.name("name", name),
        None => {
            check.missing("name", "a machine has a name, such as name = \"shop\"");
            None
        }
    };
    let kernel = check.kernel(raw.kernel, &base);
    let watchdog = check.watchdog(raw.watchdog);
    let layers = check.layers(raw.layers);
    let control = check.control(raw.control);
    let log = logging::check_machine(raw.log, &mut check);
    let mut services: Vec<At<Service>> = Vec::new();
    let tables =
        [(raw.oneshots, Table::Oneshot), (raw.services, Table::Service), (raw.shutdowns, Table::Shutdown)];
    for (tables, kind) in tables {
        for table in tables {
            let span = table.span.clone();
            let Some(value) = check.service(table, kind, &base) else { continue };
            if let Some(other) = services.iter().find(|other| other.value.name == value.name) {
                let what = format!("{} has the same name; names are unique in a machine", other.value.path());
                check.at(&span, value.path(), what);
            }
            services.push(At { value, span });
        }
    }
    let mut files: Vec<At<File>> = Vec::new();
    for (index, table) in raw.files.into_iter().enumerate() {
        let span = table.span.clone();
        files.extend(check.file(index, table, &base).map(|value| At { value, span }));
    }
    graph::check(&services, &mut check);
    supervision::check_paths(&services, &files, &mut check);
    check.file_collisions(&files);
    check.mount_collisions(&services);
    check.port_collisions(&services);
    let services = services.into_iter().map(|service| service.value).collect();
    let files = files.into_iter().map(|file| file.value).collect();
    Some(Config { name: name?, kernel: kernel?, watchdog, control, log, layers, services, files, base })
}

/// A size that clusters of layers can have.
fn cluster_size(size: u64) -> Result<usize, String> {
    let (least, most) = CLUSTER_RANGE.into_inner();
    let known =
        usize::try_from(size).ok().filter(|size| size.is_power_of_two() && CLUSTER_RANGE.contains(size));
    known.ok_or_else(|| {
        format!("a cluster has {}KiB, twice that and so on up to {}KiB", least >> 10, most >> 10)
    })
}

/// Where a seccomp profile comes from. A path of one of the two words has a `./` before it.
fn seccomp(written: Option<&str>, profile: &Profile, base: &std::path::Path) -> Seccomp {
    match written {
        None if profile.privileged => Seccomp::Unconfined,
        None | Some("default") => Seccomp::Default,
        Some("unconfined") => Seccomp::Unconfined,
        Some(path) => Seccomp::File(base.join(path)),
    }
}

pub(super) struct Check<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    pub(super) fn at(&mut self, span: &Range<usize>, path: impl fmt::Display, what: impl fmt::Display) {
        self.problems.push(Problem::at(span, path, what));
    }

    fn missing(&mut self, path: impl fmt::Display, what: &str) {
        self.problems.push(Problem { span: None, sentence: format!("{path}: {what}") });
    }

    /// Notes the problem of a value that could not be read.
    pub(super) fn value<T>(
        &mut self,
        span: &Range<usize>,
        path: impl fmt::Display,
        result: Result<T, String>,
    ) -> Option<T> {
        result.map_err(|what| self.at(span, path, what)).ok()
    }

    fn name(&mut self, path: &str, name: &At<String>) -> Option<Name> {
        self.value(&name.span, path, Name::try_from(name.value.clone()).map_err(|why| why.to_string()))
    }

    fn reference(&mut self, path: &str, image: &At<String>) -> Option<Reference> {
        let reference = image.value.parse().map_err(|error: crate::error::Error| {
            let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
            format!("{error}{advice}")
        });
        self.value(&image.span, path, reference)
    }

    fn control(&mut self, raw: RawControl) -> manifest::Control {
        let vsock = raw.vsock.and_then(|port| {
            // The last number means any port.
            let known = (1..u32::MAX).contains(&port.value).then_some(port.value);
            let known = known.ok_or_else(|| format!("a port of the vsock is 1 to {}", u32::MAX - 1));
            self.value(&port.span, "control.vsock", known)
        });
        manifest::Control { exec: raw.exec.is_none_or(|exec| exec.value), vsock }
    }

    fn kernel(&mut self, raw: RawKernel, base: &std::path::Path) -> Option<Kernel> {
        let given = [&raw.package, &raw.image, &raw.path];
        if let Some(second) = given.into_iter().flatten().nth(1) {
            self.at(
                &second.span,
                "kernel",
                "a kernel comes from one of `package`, `image` and `path`, not from two",
            );
        }
        let (folder, modules) = match raw.modules {
            None => (None, Vec::new()),
            Some(At { value: Modules::Folder(folder), span }) => {
                if raw.path.is_none() {
                    self.at(
                        &span,
                        "kernel.modules",
                        "a folder goes with `path`; names to load are a list, [\"nvme\"]",
                    );
                }
                (Some(base.join(folder)), Vec::new())
            }
            Some(At { value: Modules::Names(names), .. }) => (None, names),
        };
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        for name in modules.iter().filter(|name| name.value.is_empty() || !name.value.chars().all(word)) {
            self.at(
                &name.span,
                "kernel.modules",
                format!("`{}` is no module name", name.value.escape_debug()),
            );
        }
        let source = match (raw.package, raw.image, raw.path) {
            (_, Some(image), _) => KernelSource::Image(self.reference("kernel.image", &image)?),
            (_, _, Some(path)) => KernelSource::Files { image: base.join(path.value), modules: folder },
            (Some(package), ..) => {
                let character = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '+' | '-' | '.');
                if !package.value.starts_with("linux-image-") || !package.value.chars().all(character) {
                    let what = "expected a Debian kernel package such as \"linux-image-cloud-amd64\"";
                    self.at(&package.span, "kernel.package", what);
                }
                KernelSource::Package(package.value)
            }
            (None, None, None) => KernelSource::Package(DEFAULT_KERNEL.to_owned()),
        };
        let cmdline = raw.cmdline.map_or_else(String::new, |cmdline| {
            if cmdline.value.len() > MAX_CMDLINE || cmdline.value.chars().any(char::is_control) {
                let what = format!("a kernel command line is one line of at most {MAX_CMDLINE} bytes");
                self.at(&cmdline.span, "kernel.cmdline", what);
            }
            cmdline.value.trim().to_owned()
        });
        Some(Kernel { source, modules: modules.into_iter().map(|name| name.value).collect(), cmdline })
    }

    fn watchdog(&mut self, raw: RawWatchdog) -> Option<Duration> {
        let Some(written) = raw.timeout else { return Some(DEFAULT_WATCHDOG) };
        if written.value == "none" {
            return None;
        }
        let timeout = value::duration(&written.value).and_then(|timeout| {
            let is_whole = timeout.subsec_nanos() == 0;
            let known = (is_whole && WATCHDOG_RANGE.contains(&timeout)).then_some(timeout);
            known.ok_or_else(|| "a watchdog has whole seconds, 10s to 10m, or is \"none\"".to_owned())
        });
        self.value(&written.span, "watchdog.timeout", timeout)
    }

    fn layers(&mut self, raw: RawLayers) -> Layers {
        let compression = raw.compression.and_then(|written| {
            let found = COMPRESSIONS.iter().find(|(name, ..)| *name == written.value);
            if found.is_none() {
                let known: Vec<&str> = COMPRESSIONS.iter().map(|(name, ..)| *name).collect();
                let what = format!("`{}` is no compression: there are {}", written.value, known.join(", "));
                let meant = suggestion(&written.value, known);
                self.at(&written.span, "layers.compression", what + &meant);
            }
            found
        });
        let level = raw.level.and_then(|level| {
            let Some((name, _, Some(levels))) = compression else {
                let what = "a level goes with a `compression`: each counts in its own way";
                self.at(&level.span, "layers.level", what);
                return None;
            };
            let value = i32::try_from(level.value).ok().filter(|value| levels.contains(value));
            if value.is_none() {
                let what = format!("{name} has the levels {} to {}", levels.start(), levels.end());
                self.at(&level.span, "layers.level", what);
            }
            value
        });
        let cluster = raw.cluster_size.and_then(|written| {
            let size = value::size(&written.value).and_then(cluster_size);
            self.value(&written.span, "layers.cluster-size", size)
        });
        Layers {
            compression: compression.map(|(_, compression, _)| *compression),
            level,
            cluster,
            limits: self.limits(raw.max_size, raw.max_ratio, raw.max_entries),
            allow_devices: raw.allow_devices.is_some_and(|allowed| allowed.value),
        }
    }

    fn limits(
        &mut self,
        size: Option<At<String>>,
        ratio: Option<At<u32>>,
        entries: Option<At<u32>>,
    ) -> Limits {
        let usual = Limits::default();
        let size = size.and_then(|size| self.value(&size.span, "layers.max-size", value::size(&size.value)));
        let mut count = |path: &str, written: Option<At<u32>>| {
            let written = written?;
            if written.value == 0 {
                self.at(&written.span, path, "no layer fits into 0");
            }
            Some(u64::from(written.value).max(1))
        };
        Limits {
            size: size.unwrap_or(usual.size),
            ratio: count("layers.max-ratio", ratio).unwrap_or(usual.ratio),
            entries: count("layers.max-entries", entries).unwrap_or(usual.entries),
        }
    }

    fn service(
        &mut self,
        At { value: raw, span }: At<RawService>,
        table: Table,
        base: &std::path::Path,
    ) -> Option<Service> {
        let path = format!("{}.{}", table.as_str(), raw.name.value);
        let name = self.name(&path, &raw.name);
        let image = match &raw.image {
            Some(image) => self.reference(&format!("{path}.image"), image),
            None => {
                self.at(&span, format!("{path}.image"), "missing: every service runs an image");
                None
            }
        };
        let profile = profile::check(&raw, &path, self.problems);
        let command = self.words(&path, "command", raw.command);
        let entrypoint = self.words(&path, "entrypoint", raw.entrypoint);
        let environment = self.environment(&path, raw.environment);
        let working_dir = raw.working_dir.and_then(|dir| {
            self.value(&dir.span, format!("{path}.working-dir"), value::absolute(&dir.value))
        });
        let user = raw.user.map(|user| user.value.0);
        let ports = self.each(&path, "ports", raw.ports, |port| port.0.parse());
        let tmpfs = self.each(&path, "tmpfs", raw.tmpfs, |text| text.parse());
        let volumes = self.each(&path, "volumes", raw.volumes, |text| text.parse());
        let devices = self.each(&path, "devices", raw.devices, |text| value::device(text));
        let limits = limits::check(raw.limits, &path, self);
        let init = raw.init.is_some_and(|init| {
            if init.value && limits.processes < 2 {
                self.at(
                    &init.span,
                    format!("{path}.init"),
                    "is a process itself: it takes a `pids-limit` of at least 2",
                );
            }
            init.value
        });
        let logging = logging::check(raw.logging, &path, self);
        let userns = raw.userns.and_then(|userns| {
            self.value(&userns.span, format!("{path}.userns"), value::userns(&userns.value))
        });
        let hostname = raw.hostname.and_then(|name| self.name(&format!("{path}.hostname"), &name));
        let (kind, supervision) = supervision::check(raw.supervision, table, &limits, &path, self);
        let stop_signal = raw.stop_signal.and_then(|signal| {
            self.value(&signal.span, format!("{path}.stop-signal"), value::signal(&signal.value.0))
        });
        let grace = raw.stop_grace_period.and_then(|grace| {
            self.value(&grace.span, format!("{path}.stop-grace-period"), value::duration(&grace.value))
        });
        Some(Service {
            name: name?,
            kind,
            image: image?,
            command,
            entrypoint,
            environment,
            working_dir,
            user,
            ports,
            tmpfs,
            volumes,
            devices,
            limits,
            seccomp: seccomp(raw.seccomp.as_ref().map(|written| written.value.as_str()), &profile, base),
            init,
            read_only: raw.read_only.is_some_and(|read_only| read_only.value),
            userns: userns.unwrap_or(if profile.privileged { Userns::Host } else { Userns::Private }),
            profile,
            hostname,
            supervision,
            control: raw.control.is_some_and(|control| control.value),
            logging,
            stop_signal,
            stop_grace_period: grace.unwrap_or(DEFAULT_GRACE_PERIOD),
        })
    }

    /// The strings of a list that pass `read`; the others become problems.
    fn each<T, U>(
        &mut self,
        path: &str,
        key: &str,
        list: Option<At<Vec<At<T>>>>,
        read: impl Fn(&T) -> Result<U, String>,
    ) -> Vec<U> {
        let items = list.map(|list| list.value).unwrap_or_default();
        let read = |item: At<T>| self.value(&item.span, format!("{path}.{key}"), read(&item.value));
        items.into_iter().filter_map(read).collect()
    }

    fn words(&mut self, path: &str, key: &str, list: Option<At<Vec<At<String>>>>) -> Option<Vec<String>> {
        let list = list?;
        for word in list.value.iter().filter(|word| word.value.contains('\0')) {
            self.at(&word.span, format!("{path}.{key}"), "a word of a command has no NUL");
        }
        Some(list.value.into_iter().map(|word| word.value).collect())
    }

    fn environment(&mut self, path: &str, table: Option<At<Variables>>) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for (name, value) in table.map(|table| table.value).unwrap_or_default() {
            let path = format!("{path}.environment.{}", name.value);
            if name.value.is_empty() || name.value.contains(['=', '\0']) {
                self.at(&name.span, &path, "a variable's name is not empty and has neither `=` nor NUL");
            }
            if value.value.0.contains('\0') {
                self.at(&value.span, &path, "a variable's value has no NUL");
            }
            environment.insert(name.value, value.value.0);
        }
        environment
    }

    fn file(
        &mut self,
        index: usize,
        At { value: raw, span }: At<RawFile>,
        base: &std::path::Path,
    ) -> Option<File> {
        let table = format!("file[{index}]");
        let content = match (raw.contents, raw.source) {
            (Some(contents), None) => Some(FileContent::Contents(contents.value)),
            (None, Some(source)) => Some(FileContent::Source(base.join(source.value))),
            _ => {
                self.at(&span, &table, "a file has either `contents` or `source`");
                None
            }
        };
        let Some(path) = raw.path else {
            self.at(&span, format!("{table}.path"), "missing: where the machine has this file");
            return None;
        };
        let absolute = self.value(&path.span, format!("{table}.path"), value::absolute(&path.value))?;
        let below = |folder: &&&str| absolute == **folder || absolute.starts_with(&format!("{folder}/"));
        if absolute == "/" {
            self.at(&path.span, format!("{table}.path"), "`/` is a folder");
        } else if let Some(folder) = RESERVED_FOLDERS.iter().find(below) {
            let what =
                format!("`{folder}` of the machine is Coracle's own; choose another folder, such as /etc");
            self.at(&path.span, format!("{table}.path"), what);
        }
        let mode = raw.mode.map_or(0o644, |mode| mode.value.0);
        let (uid, gid) = (raw.uid.map_or(0, |uid| uid.value), raw.gid.map_or(0, |gid| gid.value));
        Some(File { path: absolute, content: content?, mode, uid, gid })
    }

    fn file_collisions(&mut self, files: &[At<File>]) {
        for (index, file) in files.iter().enumerate() {
            for earlier in &files[..index] {
                let (a, b) = (&earlier.value.path, &file.value.path);
                if a == b {
                    self.at(
                        &file.span,
                        format!("file[{index}].path"),
                        format!("`{b}` is written by an earlier table"),
                    );
                } else if a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/")) {
                    let what = format!("`{a}` and `{b}` cannot both be files");
                    self.at(&file.span, format!("file[{index}].path"), what);
                }
            }
        }
    }

    fn mount_collisions(&mut self, services: &[At<Service>]) {
        for At { value: service, span } in services {
            let mut targets: Vec<&str> = service.tmpfs.iter().map(|tmpfs| tmpfs.target.as_str()).collect();
            targets.extend(service.volumes.iter().map(|volume| volume.target.as_str()));
            targets.sort_unstable();
            for pair in targets.windows(2).filter(|pair| pair[0] == pair[1]) {
                self.at(span, service.path(), format!("two mounts have the target `{}`", pair[0]));
            }
        }
    }

    fn port_collisions(&mut self, services: &[At<Service>]) {
        let mut published: Vec<(&Service, Port)> = Vec::new();
        for At { value: service, span } in services {
            for port in &service.ports {
                let collides = |(_, other): &&(&Service, Port)| {
                    other.protocol == port.protocol && (other.host == port.host || other.guest == port.guest)
                };
                if let Some((other, taken)) = published.iter().find(collides) {
                    let what = format!(
                        "{}:{}/{} is in the way of {}:{} of {} (all services share the machine's network)",
                        port.host,
                        port.guest,
                        port.protocol.as_str(),
                        taken.host,
                        taken.guest,
                        other.path(),
                    );
                    self.at(span, format!("{}.ports", service.path()), what);
                }
                published.push((service, *port));
            }
        }
    }
}

//! The config as it is written: every key that exists, its value's type and its place, and nothing of its meaning.
//!
//! A hand-written reader and not serde's: serde stops at the first problem, and a person wants to see them all.

use std::ops::Range;

use super::Table as Kind;
use super::document::{Node, Table, Value};
use super::limits::RawLimits;
use super::logging::{RawLog, RawLogging};
use super::problem::{Problem, suggestion};
use super::profile::RawProfile;
use super::supervision::{RawSupervision, hint};

/// What people write who come from Docker, Compose, LinuxKit or systemd, and the key that means it here.
const OTHER_SPELLINGS: &[(&str, &str)] = &[
    ("args", "command"),
    ("cmd", "command"),
    ("binds", "volumes"),
    ("mounts", "volumes"),
    ("container", "service"),
    ("services", "service"),
    ("onboot", "oneshot"),
    ("cwd", "working-dir"),
    ("workdir", "working-dir"),
    ("env", "environment"),
    ("files", "file"),
    ("publish", "ports"),
    ("readonly", "read-only"),
    ("security-opt", "seccomp"),
    ("capabilities", "cap-add"),
    ("ambientcapabilities", "cap-add"),
    ("capabilityboundingset", "cap-drop"),
    ("cap-adds", "cap-add"),
    ("cap-drops", "cap-drop"),
    ("network-mode", "network"),
    ("networks", "network"),
    ("net", "network"),
    ("privatenetwork", "network"),
    ("pid-mode", "pid"),
    ("ipc-mode", "ipc"),
    ("sysctl", "sysctls"),
    ("groups", "group-add"),
    ("additional-gids", "group-add"),
    ("supplementarygroups", "group-add"),
    ("nonewprivileges", "allow-setuid"),
    ("no-new-privileges", "allow-setuid"),
    ("masked-paths", "unmask"),
    ("systemcallfilter", "seccomp"),
    ("tini", "init"),
    ("docker-init", "init"),
    ("restart-policy", "restart"),
    ("depends_on", "depends-on"),
    ("requires", "depends-on"),
    ("after", "depends-on"),
    ("wants", "depends-on"),
    ("waits-for", "wait-for"),
    ("conditionpathexists", "wait-for"),
    ("pathexists", "wait-for"),
    ("health-check", "healthcheck"),
    ("readiness", "ready"),
    ("watchdogsec", "watchdog"),
    ("restartpreventexitstatus", "restart-prevent-exit-status"),
    ("restartsec", "backoff"),
    ("startlimitburst", "give-up"),
    ("onshutdown", "shutdown"),
    ("timeout-stop", "stop-grace-period"),
    ("userns-mode", "userns"),
    ("log-opt", "logging"),
    ("log-driver", "logging"),
    ("log", "logging"),
    ("max-size", "size"),
    // systemd's, whose words have no hyphens once they are in lower case.
    ("execstart", "command"),
    ("killsignal", "stop-signal"),
    ("timeoutstopsec", "stop-grace-period"),
    ("workingdirectory", "working-dir"),
    ("content", "contents"),
    // Limits, as Docker, Compose and systemd spell them.
    ("mem-limit", "memory"),
    ("memorymax", "memory"),
    ("mem-reservation", "memory-reservation"),
    ("memorylow", "memory-reservation"),
    ("tasksmax", "pids-limit"),
    ("cpuquota", "cpus"),
    ("cpuset-cpus", "cpuset"),
    ("allowedcpus", "cpuset"),
    ("oomscoreadjust", "oom-score-adj"),
    ("rlimits", "ulimits"),
    ("blkio-config", "io-weight"),
    ("blkio-weight", "io-weight"),
    ("ioweight", "io-weight"),
    ("runtimewatchdogsec", "watchdog"),
];

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place in the config's text.
    pub span: Range<usize>,
}

/// The whole config.
#[derive(Debug, Default)]
pub struct Raw {
    pub name: Option<At<String>>,
    pub kernel: RawKernel,
    pub watchdog: RawWatchdog,
    pub layers: RawLayers,
    pub control: RawControl,
    pub log: RawLog,
    pub services: Vec<At<RawService>>,
    pub oneshots: Vec<At<RawService>>,
    pub shutdowns: Vec<At<RawService>>,
    pub files: Vec<At<RawFile>>,
}

/// `[kernel]`.
#[derive(Debug, Default)]
pub struct RawKernel {
    pub package: Option<At<String>>,
    pub image: Option<At<String>>,
    pub path: Option<At<String>>,
    pub modules: Option<At<Modules>>,
    pub cmdline: Option<At<String>>,
}

/// `[watchdog]`.
#[derive(Debug, Default)]
pub struct RawWatchdog {
    pub timeout: Option<At<String>>,
}

/// `[control]`.
#[derive(Debug, Default)]
pub struct RawControl {
    pub exec: Option<At<bool>>,
    pub vsock: Option<At<u32>>,
}

/// `[layers]`.
#[derive(Debug, Default)]
pub struct RawLayers {
    pub compression: Option<At<String>>,
    pub level: Option<At<u32>>,
    pub cluster_size: Option<At<String>>,
    pub max_size: Option<At<String>>,
    pub max_ratio: Option<At<u32>>,
    pub max_entries: Option<At<u32>>,
    pub allow_devices: Option<At<bool>>,
}

/// `kernel.modules`: a folder when the kernel is a file, else names to load.
#[derive(Debug, Clone, PartialEq)]
pub enum Modules {
    Folder(String),
    Names(Vec<At<String>>),
}

/// `[service.NAME]`, `[oneshot.NAME]` and `[shutdown.NAME]`.
#[derive(Debug)]
pub struct RawService {
    pub name: At<String>,
    pub image: Option<At<String>>,
    pub command: Option<At<Vec<At<String>>>>,
    pub entrypoint: Option<At<Vec<At<String>>>>,
    pub environment: Option<At<Variables>>,
    pub working_dir: Option<At<String>>,
    pub user: Option<At<Scalar>>,
    pub ports: Option<At<Vec<At<Scalar>>>>,
    pub tmpfs: Option<At<Vec<At<String>>>>,
    pub volumes: Option<At<Vec<At<String>>>>,
    pub devices: Option<At<Vec<At<String>>>>,
    pub limits: RawLimits,
    pub seccomp: Option<At<String>>,
    pub init: Option<At<bool>>,
    pub read_only: Option<At<bool>>,
    pub userns: Option<At<String>>,
    pub profile: RawProfile,
    pub hostname: Option<At<String>>,
    pub supervision: RawSupervision,
    pub control: Option<At<bool>>,
    pub logging: RawLogging,
    pub stop_signal: Option<At<Scalar>>,
    pub stop_grace_period: Option<At<String>>,
}

/// `[[file]]`.
#[derive(Debug)]
pub struct RawFile {
    pub path: Option<At<String>>,
    pub contents: Option<At<String>>,
    pub source: Option<At<String>>,
    pub mode: Option<At<Mode>>,
    pub uid: Option<At<u32>>,
    pub gid: Option<At<u32>>,
}

/// An environment, in the order in which it is written.
pub type Variables = Vec<(At<String>, At<Scalar>)>;

/// A string, or a number or truth value written without quotes where text is meant: `PORT = 80`.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar(pub String);

/// Permission bits: `0o644` or `"0644"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mode(pub u32);

impl Raw {
    /// Reads the merged tables; what does not fit becomes a problem and counts as absent.
    pub fn read(table: Table, problems: &mut Vec<Problem>) -> Self {
        let mut fields = Fields::new(table, String::new(), problems);
        let name = fields.take("name");
        let kernel = fields.table("kernel", RawKernel::read).unwrap_or_default();
        let watchdog = fields
            .table("watchdog", |fields| RawWatchdog { timeout: fields.take("timeout") })
            .unwrap_or_default();
        let layers = fields.table("layers", RawLayers::read).unwrap_or_default();
        let control = fields
            .table("control", |fields| RawControl { exec: fields.take("exec"), vsock: fields.take("vsock") });
        let log = fields.table("log", RawLog::read).unwrap_or_default();
        let mut tables =
            |key, kind| fields.named_tables(key, |name, fields| RawService::read(name, kind, fields));
        let services = tables("service", Kind::Service);
        let oneshots = tables("oneshot", Kind::Oneshot);
        let shutdowns = tables("shutdown", Kind::Shutdown);
        let files = fields.list_of_tables("file", RawFile::read);
        fields.finish();
        let control = control.unwrap_or_default();
        Self { name, kernel, watchdog, layers, control, log, services, oneshots, shutdowns, files }
    }
}

impl RawKernel {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            package: fields.take("package"),
            image: fields.take("image"),
            path: fields.take("path"),
            modules: fields.take("modules"),
            cmdline: fields.take("cmdline"),
        }
    }
}

impl RawLayers {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            compression: fields.take("compression"),
            level: fields.take("level"),
            cluster_size: fields.take("cluster-size"),
            max_size: fields.take("max-size"),
            max_ratio: fields.take("max-ratio"),
            max_entries: fields.take("max-entries"),
            allow_devices: fields.take("allow-devices"),
        }
    }
}

impl RawService {
    fn read(name: At<String>, kind: Kind, fields: &mut Fields<'_>) -> Self {
        Self {
            name,
            image: fields.take("image"),
            command: fields.take("command"),
            entrypoint: fields.take("entrypoint"),
            environment: fields.take("environment"),
            working_dir: fields.take("working-dir"),
            user: fields.take("user"),
            ports: fields.take("ports"),
            tmpfs: fields.take("tmpfs"),
            volumes: fields.take("volumes"),
            devices: fields.take("devices"),
            limits: RawLimits::read(fields),
            seccomp: fields.take("seccomp"),
            init: fields.take("init"),
            read_only: fields.take("read-only"),
            userns: fields.take("userns"),
            profile: RawProfile::read(fields),
            hostname: fields.take("hostname"),
            supervision: RawSupervision::read(kind, fields),
            control: fields.take("control"),
            logging: fields.table("logging", RawLogging::read).unwrap_or_default(),
            stop_signal: fields.take("stop-signal"),
            stop_grace_period: fields.take("stop-grace-period"),
        }
    }
}

impl RawFile {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            path: fields.take("path"),
            contents: fields.take("contents"),
            source: fields.take("source"),
            mode: fields.take("mode"),
            uid: fields.take("uid"),
            gid: fields.take("gid"),
        }
    }
}

/// A type that a key's value can have.
pub trait FromValue: Sized {
    /// The type with an article, for messages.
    const EXPECTED: &'static str;

    /// The value, or `None` when it is of another type.
    fn from_value(value: Value) -> Option<Self>;
}

impl FromValue for String {
    const EXPECTED: &'static str = "a string";
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Boolean(value) = value { Some(value) } else { None }
    }
}

impl FromValue for u32 {
    const EXPECTED: &'static str = "an integer from 0 to 4294967295";
    fn from_value(value: Value) -> Option<Self> {
        if let Value::Integer(value) = value { Self::try_from(value).ok() } else { None }
    }
}

impl FromValue for Scalar {
    const EXPECTED: &'static str = "a string or a number";
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(Self(text)),
            Value::Integer(value) => Some(Self(value.to_string())),
            Value::Boolean(value) => Some(Self(value.to_string())),
            _ => None,
        }
    }
}

impl FromValue for Mode {
    const EXPECTED: &'static str = "permission bits such as 0o644 or \"0644\"";
    fn from_value(value: Value) -> Option<Self> {
        let bits = match value {
            Value::Integer(value) => u32::try_from(value).ok()?,
            Value::Text(text) => u32::from_str_radix(&text, 8).ok()?,
            _ => return None,
        };
        (bits <= 0o7777).then_some(Self(bits))
    }
}

impl FromValue for Vec<At<String>> {
    const EXPECTED: &'static str = "a list of strings such as [\"first\", \"second\"]";
    fn from_value(value: Value) -> Option<Self> {
        list(value)
    }
}

impl FromValue for Vec<At<Scalar>> {
    const EXPECTED: &'static str = "a list such as [\"8080:80\"]";
    fn from_value(value: Value) -> Option<Self> {
        list(value)
    }
}

impl FromValue for Variables {
    const EXPECTED: &'static str = "a table of strings such as { NAME = \"value\" }";
    fn from_value(value: Value) -> Option<Self> {
        let Value::Table(table) = value else { return None };
        let pair = |entry: super::document::Entry| {
            let value = At { value: Scalar::from_value(entry.node.value)?, span: entry.node.span };
            Some((At { value: entry.key, span: entry.key_span }, value))
        };
        table.0.into_iter().map(pair).collect()
    }
}

impl FromValue for Modules {
    const EXPECTED: &'static str = "a list of module names, or the path of a modules folder";
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(folder) => Some(Self::Folder(folder)),
            value => list(value).map(Self::Names),
        }
    }
}

/// What is to be said of the first word that stands for no service, if one of them does.
fn targets(value: &Value) -> Option<String> {
    match value {
        Value::Text(words) => words.split_whitespace().find_map(hint),
        Value::List(nodes) => nodes.iter().find_map(|node| targets(&node.value)),
        _ => None,
    }
}

fn list<T: FromValue>(value: Value) -> Option<Vec<At<T>>> {
    let Value::List(nodes) = value else { return None };
    nodes.into_iter().map(|node| Some(At { value: T::from_value(node.value)?, span: node.span })).collect()
}

/// A table that is being read: keys are taken out of it, and what remains is unknown.
pub struct Fields<'a> {
    table: Table,
    /// The table's key path; empty for the root.
    path: String,
    /// The keys that were asked for.
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Fields<'a> {
    fn new(table: Table, path: String, problems: &'a mut Vec<Problem>) -> Self {
        Self { table, path, known: Vec::new(), problems }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key, of whatever type.
    pub fn node(&mut self, key: &'static str) -> Option<Node> {
        self.remove(key)
    }

    /// Reads a table that is somewhere in the value of a key, at `path` below this table.
    pub fn inner<T>(&mut self, path: &str, table: Table, read: impl FnOnce(&mut Fields<'_>) -> T) -> T {
        let mut fields = Fields::new(table, self.path_of(path), self.problems);
        let value = read(&mut fields);
        fields.finish();
        value
    }

    fn remove(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let index = self.table.0.iter().position(|entry| entry.key == key)?;
        Some(self.table.0.remove(index).node)
    }

    /// Reports a value of the wrong type, at `path` below this table.
    pub fn wrong_type(&mut self, path: &str, expected: &str, node: &Node) {
        let what = format!("expected {expected}, found {}", node.value.kind());
        self.problems.push(Problem::at(&node.span, self.path_of(path), what));
    }

    /// The value of a key; a wrong type becomes a problem.
    pub fn take<T: FromValue>(&mut self, key: &'static str) -> Option<At<T>> {
        let node = self.remove(key)?;
        let value = T::from_value(node.value.clone());
        if value.is_none() {
            self.wrong_type(key, T::EXPECTED, &node);
        }
        value.map(|value| At { value, span: node.span })
    }

    /// The table that is a key's value.
    pub fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Fields<'_>) -> T) -> Option<T> {
        self.table_at(key, read).map(|table| table.value)
    }

    /// Likewise, with its place.
    pub fn table_at<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<At<T>> {
        let node = self.remove(key)?;
        let Value::Table(table) = node.value else {
            self.wrong_type(key, "a table", &node);
            return None;
        };
        Some(At { value: self.inner(key, table, read), span: node.span })
    }

    /// `[key.NAME]` tables, each with the place of its name.
    fn named_tables<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(At<String>, &mut Fields<'_>) -> T,
    ) -> Vec<At<T>> {
        let Some(node) = self.remove(key) else { return Vec::new() };
        let Value::Table(table) = node.value else {
            self.wrong_type(key, &format!("tables with names: [{key}.NAME]"), &node);
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in table.0 {
            let path = format!("{key}.{}", entry.key);
            let Value::Table(table) = entry.node.value else {
                self.wrong_type(&path, "a table", &entry.node);
                continue;
            };
            let span = entry.key_span.clone();
            let name = At { value: entry.key, span: span.clone() };
            let value = self.inner(&path, table, |fields| read(name, fields));
            found.push(At { value, span });
        }
        found
    }

    /// `[[key]]` tables, each with its place.
    fn list_of_tables<T>(&mut self, key: &'static str, read: impl Fn(&mut Fields<'_>) -> T) -> Vec<At<T>> {
        let Some(node) = self.remove(key) else { return Vec::new() };
        let Value::List(nodes) = node.value else {
            self.wrong_type(key, &format!("a list of tables: [[{key}]]"), &node);
            return Vec::new();
        };
        let mut found = Vec::new();
        for (index, node) in nodes.into_iter().enumerate() {
            let path = format!("{key}[{index}]");
            let Value::Table(table) = node.value else {
                self.wrong_type(&path, "a table", &node);
                continue;
            };
            found.push(At { value: self.inner(&path, table, &read), span: node.span });
        }
        found
    }

    /// Reports what is left: keys that do not exist.
    fn finish(self) {
        for entry in &self.table.0 {
            let kebab = entry.key.replace('_', "-").to_lowercase();
            let meant = OTHER_SPELLINGS.iter().find(|(other, _)| *other == kebab).map(|(_, key)| *key);
            let meant = meant.filter(|key| self.known.contains(key));
            let targets = targets(&entry.node.value).filter(|_| meant == Some("depends-on"));
            let hint = match meant {
                Some(_) if targets.is_some() => targets.unwrap_or_default(),
                Some(key) => format!(" (did you mean `{key}`?)"),
                None => suggestion(&kebab, self.known.iter().copied()),
            };
            let path = self.path_of(&entry.key);
            self.problems.push(Problem::at(&entry.key_span, path, format!("there is no such key{hint}")));
        }
    }
}

//! The plan as text for people and as JSON for programs.

use std::fmt;

use manifest::{
    ConsoleFormat, Files, IDS_PER_CONTAINER, Ids, Kind, Limits, Log, Memory, Mount, Service, Watchdog,
};
use serde_json::{Value, json};

use super::{Content, Entry, ImagePlan, SourceFile, supervision};
use crate::oci::descriptor::Digest;

impl ImagePlan {
    /// All of the plan as JSON; equal plans have equal texts, and unequal ones do not.
    pub fn json(&self) -> String {
        format!("{:#}\n", self.value())
    }

    /// All of the plan.
    pub fn value(&self) -> Value {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        json!({
            "name": self.name,
            "kernel": { "label": self.kernel_label, "file": source(&self.kernel) },
            "cmdline": self.cmdline,
            "initramfs": self.initramfs.iter().map(entry).collect::<Vec<_>>(),
            "manifest": self.manifest,
            "layers": self.layer_users,
            "compression": self.compression.map(|compression| compression.to_string()),
            "ports": ports,
            "watchdogs": self.watchdogs,
            "privileges": self.privileges,
            "special": self.special,
        })
    }
}

/// The plan for a person: what boots, what runs, what it weighs.
impl fmt::Display for ImagePlan {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(text, "machine   {}", self.name)?;
        writeln!(text, "kernel    {}", self.kernel_label)?;
        writeln!(text, "cmdline   {}", self.cmdline)?;
        let modules: Vec<&str> =
            self.manifest.modules.iter().map(|file| file.trim_end_matches(".ko")).collect();
        writeln!(text, "modules   {}", modules.join(" "))?;
        writeln!(text, "watchdog  {}", self.watchdog())?;
        writeln!(text, "log       {}", log(&self.manifest.log))?;
        for port in &self.ports {
            let (protocol, address) = (port.protocol.as_str(), port.address);
            writeln!(text, "port      {}/{protocol} is {address}:{} of the host", port.guest, port.host)?;
        }
        for service in &self.manifest.services {
            write_service(text, service, &self.manifest.services)?;
        }
        match self.compression {
            Some(compression) => writeln!(text, "\nlayers ({compression})")?,
            None => writeln!(text, "\nlayers (not compressed)")?,
        }
        for (digest, users) in &self.layer_users {
            let size = bytes(self.layer_size(digest));
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            writeln!(text, "  {size:>10}  {}  {}", &digest[..12.min(digest.len())], users.join(", "))?;
        }
        self.write_initramfs(text)?;
        writeln!(text, "\nprivileges")?;
        self.privileges.iter().try_for_each(|line| writeln!(text, "  {line}"))?;
        self.write_special(text)
    }
}

impl ImagePlan {
    /// Who reboots the machine when PID 1 is stuck.
    fn watchdog(&self) -> String {
        match (self.manifest.watchdog, &self.watchdogs[..]) {
            (Watchdog::None, _) => "none: a machine whose PID 1 is stuck stays as it is".to_owned(),
            (Watchdog::Armed { .. }, []) => {
                "none: the kernel has no driver for one, and a machine whose PID 1 is stuck stays as it is"
                    .to_owned()
            }
            (Watchdog::Armed { timeout }, drivers) => {
                let those = if drivers.len() > 1 { ", those that the machine has" } else { "" };
                format!("{}{those}, after {timeout} s without PID 1", drivers.join(" "))
            }
        }
    }

    fn layer_size(&self, digest: &str) -> u64 {
        let path = format!("{}/{digest}.erofs", manifest::path::LAYERS);
        self.initramfs.iter().find(|entry| entry.path == path).map_or(0, |entry| entry.content.size())
    }

    /// What is in images that elsewhere gives privileges. It gives none here: containers have no new privileges, and
    /// their roots are mounted without devices.
    fn write_special(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gives = self.manifest.services.iter().any(|service| service.container.profile.set_id);
        let mut heading = if gives {
            "\nwithout effect, but for services with `allow-setuid`\n"
        } else {
            "\nwithout effect\n"
        };
        for (image, special) in &self.special {
            for (named, what) in [
                (&special.set_id, "set-id programs"),
                (&special.capable, "files with capabilities"),
                (&special.devices, "device nodes"),
            ] {
                if named.count > 0 {
                    let more = if named.first.len() as u64 == named.count { "" } else { ", …" };
                    let (count, first) = (named.count, named.first.join(" "));
                    writeln!(
                        text,
                        "{}  {image}: {count} {what}: {first}{more}",
                        std::mem::take(&mut heading)
                    )?;
                }
            }
        }
        Ok(())
    }

    fn write_initramfs(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(text, "\ninitramfs")?;
        let layers = format!("{}/", manifest::path::LAYERS);
        let (mut of_layers, mut total) = (0, 0);
        for Entry { path, mode, content, .. } in &self.initramfs {
            total += content.size();
            if path.starts_with(&layers) {
                of_layers += content.size();
            } else if *content != Content::Folder {
                writeln!(text, "  {:>10}  {mode:04o}  {path}", bytes(content.size()))?;
            }
        }
        writeln!(
            text,
            "  {:>10}  0600  {layers} (the {} above)",
            bytes(of_layers),
            count(self.layer_users.len())
        )?;
        writeln!(text, "  {:>10}  in all", bytes(total))?;
        writeln!(text, "  {:>10}  of memory at least, to unpack it", bytes(super::memory::least(total)))
    }
}

/// Where what is said goes to, beside memory.
fn log(log: &Log) -> String {
    let console = match log.console {
        ConsoleFormat::Text => "on the console",
        ConsoleFormat::Json => "on the console as JSON",
        ConsoleFormat::None => "not on the console",
    };
    let syslog = log.syslog.map(|server| format!(", and to {server}")).unwrap_or_default();
    let files = log.files.as_ref().map(|files| {
        let Files { folder, max_size, max_files } = files;
        format!(", and in {max_files} files of {} of each service in {folder}", bytes(*max_size))
    });
    console.to_owned() + &syslog + &files.unwrap_or_default()
}

fn write_service(text: &mut fmt::Formatter<'_>, service: &Service, all: &[Service]) -> fmt::Result {
    let container = &service.container;
    let user = &container.user;
    writeln!(text, "\n{}", path(service))?;
    let words: Vec<String> = container.argv.iter().map(|word| shown(word)).collect();
    writeln!(text, "  runs     {}", words.join(" "))?;
    write!(text, "  as       user {} and group {}", user.uid, user.gid)?;
    if !user.groups.is_empty() {
        let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
        write!(text, " (also {})", groups.join(", "))?;
    }
    writeln!(text, " in {}", container.cwd)?;
    writeln!(text, "  users    {}", users(service, all))?;
    writeln!(text, "  host     {}", container.hostname)?;
    // Values can be secrets; `--json` has them.
    let names: Vec<&str> = container.env.iter().filter_map(|pair| pair.split('=').next()).collect();
    writeln!(text, "  env      {}", names.join(" "))?;
    let root = if container.read_only { "read-only" } else { "writable" };
    writeln!(text, "  root     {root}, {}", count(container.layers.len()))?;
    for mount in &container.mounts {
        match mount {
            Mount::Tmpfs { target, size, read_only, no_exec, .. } => {
                let of = if *size == 0 { String::new() } else { format!(" of {}", bytes(*size)) };
                writeln!(text, "  mounts   a tmpfs{of} on {target}{}", access(*read_only, *no_exec))?;
            }
            Mount::Bind { source, target, read_only, no_exec } => {
                let access = access(*read_only, *no_exec);
                writeln!(text, "  mounts   the machine's {source} on {target}{access}")?;
            }
        }
    }
    for device in &container.devices {
        writeln!(text, "  device   the machine's {} as {}", device.source, device.target)?;
    }
    for sysctl in &container.profile.sysctls {
        writeln!(text, "  sysctl   {} = {}", sysctl.path.replace('/', "."), sysctl.value)?;
    }
    writeln!(text, "  limits   {}", limits(&container.limits))?;
    for (word, what) in supervision::describe(service, all) {
        writeln!(text, "  {word:8} {what}")?;
    }
    Ok(())
}

/// Which of the machine's users those of a service are, and who has them as well.
fn users(service: &Service, all: &[Service]) -> String {
    let Ids::Own { first } = service.container.ids else { return "the machine's own".to_owned() };
    let range = format!("{first} to {} of the machine", first.saturating_add(IDS_PER_CONTAINER - 1));
    let same = |other: &&Service| other.name != service.name && other.container.ids == service.container.ids;
    let others: Vec<String> = all.iter().filter(same).map(path).collect();
    if others.is_empty() { range } else { format!("{range}, shared with {}", others.join(", ")) }
}

/// What cannot be done in a mount, as the end of a line about it.
fn access(read_only: bool, no_exec: bool) -> &'static str {
    match (read_only, no_exec) {
        (false, false) => "",
        (true, false) => ", read-only",
        (false, true) => ", without programs",
        (true, true) => ", read-only, without programs",
    }
}

/// What a service may take of the machine, but for what each process may.
fn limits(limits: &Limits) -> String {
    let mut words = match limits.memory {
        Memory::Half => "half of the memory".to_owned(),
        Memory::Bytes(size) => format!("{} of memory", bytes(size)),
    };
    if limits.memory_reservation > 0 {
        words += &format!(" ({} reserved)", bytes(limits.memory_reservation));
    }
    words += &format!(", {} processes", limits.processes);
    if limits.processor_millis > 0 {
        let processors = f64::from(limits.processor_millis) / 1000.0;
        words += &format!(", the time of {processors} processors");
    }
    if limits.io_weight > 0 {
        words += &format!(", a weight of {} for disks (others: 100)", limits.io_weight);
    }
    if !limits.processors.is_empty() {
        let numbers: Vec<String> = limits.processors.iter().map(u32::to_string).collect();
        words += &format!(", on processors {}", numbers.join(" "));
    }
    words
}

/// A word of a command: quoted where a reader could not tell where it ends.
fn shown(word: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | '\\');
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("{word:?}") }
}

fn count(layers: usize) -> String {
    if layers == 1 { "1 layer".to_owned() } else { format!("{layers} layers") }
}

fn path(service: &Service) -> String {
    let table = match service.kind {
        Kind::Service => "service",
        Kind::Oneshot { .. } => "oneshot",
        Kind::Shutdown { .. } => "shutdown",
    };
    format!("{table}.{}", service.name)
}

fn entry(entry: &Entry) -> Value {
    let content = match &entry.content {
        Content::Folder => json!("folder"),
        Content::Bytes(bytes) => json!({ "size": bytes.len(), "sha256": Digest::of(bytes).hex() }),
        Content::File(file) => source(file),
        Content::CharDevice { major, minor } => json!({ "device": [major, minor] }),
    };
    json!({
        "path": entry.path,
        "mode": format!("{:04o}", entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "content": content,
    })
}

fn source(file: &SourceFile) -> Value {
    json!({ "file": file.path, "size": file.size, "modified": file.modified.to_string() })
}

/// A size for a person: three digits and a unit.
pub fn bytes(size: u64) -> String {
    const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| size >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", size / unit, size % unit * 10 / unit),
        None => format!("{size} B"),
    }
}

//! The plan as text for people and as JSON for programs.

use std::fmt;

use manifest::{Kind, Mount, Service};
use serde_json::{Value, json};

use super::{Content, Entry, ImagePlan, SourceFile};
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
            "ports": ports,
            "privileges": self.privileges(),
        })
    }

    /// What weakens the isolation of a service, each with its key path.
    fn privileges(&self) -> Vec<String> {
        let mut privileges = Vec::new();
        for service in &self.manifest.services {
            let path = path(service);
            privileges.push(format!("{path}: shares the machine's network"));
            for device in &service.container.devices {
                privileges.push(format!("{path}.devices: may use {}", device.source));
            }
            for mount in &service.container.mounts {
                if let Mount::Bind { source, read_only, .. } = mount {
                    let may = if *read_only { "may read" } else { "may write" };
                    privileges.push(format!("{path}.volumes: {may} the machine's {source}"));
                }
            }
        }
        privileges
    }
}

/// The plan for a person: what boots, what runs, what it weighs.
impl fmt::Display for ImagePlan {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(text, "machine   {}", self.name)?;
        writeln!(text, "kernel    {}", self.kernel_label)?;
        writeln!(text, "cmdline   {}", self.cmdline)?;
        writeln!(text, "modules   {}", self.manifest.modules.join(" ").replace(".ko", ""))?;
        for service in &self.manifest.services {
            write_service(text, service)?;
        }
        writeln!(text, "\nlayers")?;
        for (digest, users) in &self.layer_users {
            let size = self.layer_size(digest);
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            writeln!(
                text,
                "  {:>10}  {}  {}",
                bytes(size),
                &digest[..12.min(digest.len())],
                users.join(", ")
            )?;
        }
        writeln!(text, "\ninitramfs")?;
        for entry in self.initramfs.iter().filter(|entry| entry.content != Content::Folder) {
            writeln!(text, "  {:>10}  {:04o}  {}", bytes(entry.content.size()), entry.mode, entry.path)?;
        }
        let total: u64 = self.initramfs.iter().map(|entry| entry.content.size()).sum();
        writeln!(text, "  {:>10}  in all", bytes(total))?;
        writeln!(text, "\nprivileges")?;
        self.privileges().iter().try_for_each(|line| writeln!(text, "  {line}"))
    }
}

impl ImagePlan {
    fn layer_size(&self, digest: &str) -> u64 {
        let path = format!("{}/{digest}.erofs", manifest::path::LAYERS);
        self.initramfs.iter().find(|entry| entry.path == path).map_or(0, |entry| entry.content.size())
    }
}

fn write_service(text: &mut fmt::Formatter<'_>, service: &Service) -> fmt::Result {
    let container = &service.container;
    let user = &container.user;
    writeln!(text, "\n{}", path(service))?;
    writeln!(text, "  runs    {}", container.argv.join(" "))?;
    writeln!(text, "  as      {}:{} {:?} in {}", user.uid, user.gid, user.groups, container.cwd)?;
    let root = if container.read_only { "read-only" } else { "writable" };
    writeln!(text, "  root    {root}, {} layers", container.layers.len())?;
    for mount in &container.mounts {
        match mount {
            Mount::Tmpfs { target, size: 0, .. } => writeln!(text, "  mounts  tmpfs on {target}")?,
            Mount::Tmpfs { target, size, .. } => {
                writeln!(text, "  mounts  tmpfs of {} on {target}", bytes(*size))?
            }
            Mount::Bind { source, target, read_only } => {
                let access = if *read_only { " read-only" } else { "" };
                writeln!(text, "  mounts  {source} on {target}{access}")?;
            }
        }
    }
    let stop = service.stop;
    writeln!(text, "  stops   by signal {}, killed after {} ms", stop.signal, stop.grace_ms)
}

fn path(service: &Service) -> String {
    let table = match service.kind {
        Kind::Service => "service",
        Kind::Oneshot { .. } => "oneshot",
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

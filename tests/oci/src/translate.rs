//! From a config to the description that the container code takes.

use std::path::Path;

use init::container::{Bundle, IdRange};
use manifest::{
    Container, Ids, Limits, Memory, Name, Namespace, Profile, Resource, ResourceLimit, Seccomp, Sysctl, User,
};

use crate::config::{Config, Linux, Process, Resources, Rlimit};
use crate::folder::Folder;
use crate::{Result, because, capability, mount};

/// The most processes that a kernel lets a cgroup have: no limit.
const ALL_PROCESSES: u32 = 4_194_304;

/// Settings of the IPC namespace begin so; those of the network with `net.`.
const IPC_SYSCTLS: [&str; 4] = ["fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm"];

/// What is meant by a config.
#[derive(Debug)]
pub(crate) struct Meaning {
    pub(crate) container: Container,
    pub(crate) bundle: Bundle,
    pub(crate) terminal: bool,
}

/// Translates `config` of the bundle at `folder`, or says which field the container code has no words for.
pub(crate) fn translate(config: &Config, folder: &Path) -> Result<Meaning> {
    refuse_absent_features(config)?;
    let root = config.root.as_ref().ok_or("root: it is missing")?;
    let path = folder.join(&root.path);
    let path = path.canonicalize().map_err(because(format!("root.path `{}`", path.display())))?;
    let process = config.process.as_ref().ok_or("process: it is missing")?;
    let mounts = mount::translate(&config.mounts, &config.linux)?;
    let mut profile = profile(&config.linux)?;
    profile.unmasked.clone_from(&mounts.unmasked);
    let bundle = Bundle {
        folder: path.to_str().ok_or("root.path is no UTF-8")?.to_owned(),
        ids: ids(&config.linux)?,
        mounts: mounts.of_bundle,
        masks: mounts.masks,
    };
    let container = Container {
        init: None,
        layers: Vec::new(),
        read_only: root.readonly,
        hostname: hostname(config)?,
        argv: Vec::new(),
        env: Vec::new(),
        cwd: String::new(),
        ids: Ids::Machine,
        user: User { uid: 0, gid: 0, groups: Vec::new() },
        profile,
        seccomp: Seccomp::Unconfined,
        mounts: Vec::new(),
        devices: Vec::new(),
        sockets: Vec::new(),
        limits: limits(&config.linux.resources, mounts.shm_size)?,
    };
    let container = with_process(container, process, &Folder::open(&path)?)?;
    Ok(Meaning { container, bundle, terminal: process.terminal })
}

/// What a container of Coracle does not have at all.
fn refuse_absent_features(config: &Config) -> Result<()> {
    let linux = &config.linux;
    for (is_there, field, reason) in [
        (!config.oci_version.starts_with("1."), "ociVersion", "only version 1 is known"),
        (config.hooks.is_some(), "hooks", "nothing of the machine runs for a container"),
        (config.domainname.is_some(), "domainname", "a container has a host name only"),
        (linux.time_offsets.is_some(), "linux.timeOffsets", "a container has the machine's clocks"),
        (linux.seccomp.is_some(), "linux.seccomp", "profiles are compiled by `coracle`, and tested there"),
        (!linux.devices.is_empty(), "linux.devices", "a node is made of one that the machine has"),
        (linux.mount_label.is_some(), "linux.mountLabel", "there is no SELinux"),
        (linux.intel_rdt.is_some(), "linux.intelRdt", "there is none"),
        (linux.personality.is_some(), "linux.personality", "it is Linux's"),
    ] {
        refuse(is_there, field, reason)?;
    }
    match linux.rootfs_propagation.as_deref() {
        None | Some("private" | "rprivate") => Ok(()),
        Some(other) => {
            Err(format!("linux.rootfsPropagation: mounts of a container are private, not `{other}`"))
        }
    }
}

fn refuse(is_there: bool, field: &str, reason: &str) -> Result<()> {
    if is_there { Err(format!("{field}: {reason}")) } else { Ok(()) }
}

/// The container with `process` as the one that runs in it.
pub(crate) fn with_process(mut container: Container, process: &Process, root: &Folder) -> Result<Container> {
    for (is_there, field, reason) in [
        (
            process.console_size.is_some(),
            "consoleSize",
            "whoever has the terminal's other side sets its size",
        ),
        (process.apparmor_profile.is_some(), "apparmorProfile", "there is no AppArmor"),
        (process.selinux_label.is_some(), "selinuxLabel", "there is no SELinux"),
        (process.scheduler.is_some(), "scheduler", "it is the machine's"),
        (process.io_priority.is_some(), "ioPriority", "it is the machine's"),
        (process.user.umask.is_some_and(|mask| mask != 0o022), "user.umask", "it is 022"),
        (process.args.is_empty(), "args", "it names no program"),
        (!process.cwd.starts_with('/'), "cwd", "it is not absolute"),
    ] {
        refuse(is_there, &format!("process.{field}"), reason)?;
    }
    container.argv.clone_from(&process.args);
    container.env.clone_from(&process.env);
    if !container.env.iter().any(|variable| variable.starts_with("HOME=")) {
        container.env.push(format!("HOME={}", root.home(process.user.uid)));
    }
    container.cwd.clone_from(&process.cwd);
    container.user =
        User { uid: process.user.uid, gid: process.user.gid, groups: process.user.additional_gids.clone() };
    container.profile.capabilities = capability::sets(&process.capabilities, process.user.uid)?;
    container.profile.set_id = !process.no_new_privileges;
    container.limits.oom_score_adj = process.oom_score_adj.unwrap_or(0);
    container.limits.resources = process.rlimits.iter().map(resource).collect::<Result<_>>()?;
    Ok(container)
}

/// Everything but what belongs to the process and to mounts.
fn profile(linux: &Linux) -> Result<Profile> {
    let [network, pid, ipc] = ["network", "pid", "ipc"].map(|kind| namespace(linux, kind));
    let (network, pid, ipc) = (network?, pid?, ipc?);
    let known = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];
    for namespace in &linux.namespaces {
        if !known.contains(&namespace.kind.as_str()) {
            return Err(format!("linux.namespaces: a container has no `{}` namespace", namespace.kind));
        }
    }
    let sysctl = |(name, value): (&String, &String)| {
        let is_network = name.starts_with("net.") && network == Namespace::Own;
        let is_ipc = IPC_SYSCTLS.iter().any(|start| name.starts_with(start)) && ipc == Namespace::Own;
        if !is_network && !is_ipc {
            return Err(format!("linux.sysctl: `{name}` is no setting of the container's own namespaces"));
        }
        Ok(Sysctl { path: name.replace('.', "/"), value: value.clone() })
    };
    Ok(Profile {
        capabilities: manifest::Capabilities { bounding: 0, held: 0 },
        network,
        pid,
        ipc,
        set_id: false,
        all_devices: false,
        unmasked: Vec::new(),
        sysctls: linux.sysctl.iter().map(sysctl).collect::<Result<_>>()?,
    })
}

/// A namespace that is not named is the machine's, and so is one that is named by the machine's own.
fn namespace(linux: &Linux, kind: &str) -> Result<Namespace> {
    let Some(named) = linux.namespaces.iter().find(|namespace| namespace.kind == kind) else {
        return Ok(Namespace::Machine);
    };
    let Some(path) = &named.path else {
        return Ok(Namespace::Own);
    };
    let file = if kind == "network" { "net" } else { kind };
    match (std::fs::metadata(path), std::fs::metadata(format!("/proc/self/ns/{file}"))) {
        (Ok(one), Ok(own)) if is_same(&one, &own) => Ok(Namespace::Machine),
        _ => Err(format!(
            "linux.namespaces: a container cannot join `{path}`, it has its own or the machine's"
        )),
    }
}

fn is_same(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn ids(linux: &Linux) -> Result<Vec<IdRange>> {
    let has_users = linux.namespaces.iter().any(|namespace| namespace.kind == "user");
    refuse(has_users && linux.uid_mappings.is_empty(), "linux.uidMappings", "there are none")?;
    refuse(!has_users && !linux.uid_mappings.is_empty(), "linux.uidMappings", "there is no user namespace")?;
    let differ = linux.uid_mappings != linux.gid_mappings;
    refuse(differ, "linux.gidMappings", "groups are mapped as users are")?;
    let range = |mapping: &crate::config::Mapping| IdRange {
        inside: mapping.inside,
        outside: mapping.outside,
        count: mapping.size,
    };
    Ok(linux.uid_mappings.iter().map(range).collect())
}

/// Without one, it is the machine's: a container always has a host name of its own.
fn hostname(config: &Config) -> Result<Name> {
    let text = match &config.hostname {
        Some(name) => name.clone(),
        None => {
            let name = nix::unistd::gethostname().map_err(because("cannot ask for the host name"))?;
            name.to_string_lossy().into_owned()
        }
    };
    Name::try_from(text).map_err(because("hostname"))
}

fn limits(resources: &Resources, shm_size: u64) -> Result<Limits> {
    let (memory, cpu) = (&resources.memory, &resources.cpu);
    let swaps = memory.swap.is_some_and(|swap| memory.limit.is_some_and(|limit| swap != limit));
    for (is_there, field, reason) in [
        (swaps, "memory.swap", "a container has no swap"),
        (
            memory.kernel.is_some(),
            "memory.kernel",
            "what the kernel keeps for a container counts as its memory",
        ),
        (memory.kernel_tcp.is_some(), "memory.kernelTCP", "it counts as memory"),
        (memory.swappiness.is_some(), "memory.swappiness", "a container has no swap"),
        (memory.disable_oom_killer.is_some(), "memory.disableOOMKiller", "a container ends as a whole"),
        (memory.use_hierarchy.is_some(), "memory.useHierarchy", "there are no cgroups of version 1"),
        (memory.check_before_update.is_some(), "memory.checkBeforeUpdate", "limits are written once"),
        (cpu.mems.is_some(), "cpu.mems", "a container has all memory nodes"),
        (cpu.shares.is_some(), "cpu.shares", "a container has a quota or all there is"),
        (cpu.burst.is_some(), "cpu.burst", "a quota is one"),
        (cpu.idle.is_some(), "cpu.idle", "a container has a quota or all there is"),
        (cpu.realtime_runtime.is_some(), "cpu.realtimeRuntime", "nothing is scheduled so"),
        (cpu.realtime_period.is_some(), "cpu.realtimePeriod", "nothing is scheduled so"),
        (resources.block_io.is_some(), "blockIO", "there is no such limit"),
        (resources.hugepage_limits.is_some(), "hugepageLimits", "there is no such limit"),
        (resources.network.is_some(), "network", "there is no such limit"),
        (resources.rdma.is_some(), "rdma", "there is no such limit"),
        (!resources.unified.is_empty(), "unified", "limits have names, and are not files"),
    ] {
        refuse(is_there, &format!("linux.resources.{field}"), reason)?;
    }
    check_devices(resources)?;
    Ok(Limits {
        memory: Memory::Bytes(positive(memory.limit).unwrap_or(u64::MAX >> 1)),
        memory_reservation: positive(memory.reservation).unwrap_or(0),
        processes: match resources.pids.as_ref().map(|pids| pids.limit) {
            None | Some(i64::MIN..=-1) => ALL_PROCESSES,
            Some(0) => {
                return Err("linux.resources.pids.limit: 0 has no room for the first process".to_owned());
            }
            Some(limit) => u32::try_from(limit).unwrap_or(ALL_PROCESSES).min(ALL_PROCESSES),
        },
        processor_millis: quota(cpu.quota, cpu.period)?,
        io_weight: 0,
        processors: cpu.cpus.as_deref().map_or(Ok(Vec::new()), processors)?,
        oom_score_adj: 0,
        shm_size,
        resources: Vec::new(),
    })
}

fn positive(limit: Option<i64>) -> Option<u64> {
    limit.and_then(|limit| u64::try_from(limit).ok()).filter(|&limit| limit > 0)
}

fn quota(quota: Option<i64>, period: Option<u64>) -> Result<u32> {
    let Some(quota) = positive(quota) else { return Ok(0) };
    let millis = quota * 1000 / period.unwrap_or(100_000).max(1);
    match u32::try_from(millis) {
        Ok(millis) if millis > 0 => Ok(millis),
        _ => Err("linux.resources.cpu.quota: it is no number of thousandths of a processor".to_owned()),
    }
}

fn processors(list: &str) -> Result<Vec<u32>> {
    let number = |text: &str| text.trim().parse::<u32>().map_err(because("linux.resources.cpu.cpus"));
    let mut processors = Vec::new();
    for part in list.split(',') {
        match part.split_once('-') {
            Some((first, last)) => processors.extend(number(first)?..=number(last)?),
            None => processors.push(number(part)?),
        }
    }
    processors.sort_unstable();
    processors.dedup();
    Ok(processors)
}

/// Everything is denied but what every container may open.
fn check_devices(resources: &Resources) -> Result<()> {
    match resources.devices.iter().position(|rule| rule.allow) {
        None => Ok(()),
        Some(index) => Err(format!(
            "linux.resources.devices[{index}]: a container has devices by their nodes, not by numbers"
        )),
    }
}

fn resource(limit: &Rlimit) -> Result<ResourceLimit> {
    let name = limit.kind.strip_prefix("RLIMIT_").unwrap_or_default().to_lowercase();
    let resource: Resource = serde_json::from_value(name.into())
        .map_err(|_| format!("process.rlimits: there is no `{}`", limit.kind))?;
    Ok(ResourceLimit { resource, soft: limit.soft, hard: limit.hard })
}

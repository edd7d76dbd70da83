//! What a machine needs of its kernel: options, each with the module that brings it where it is not built in.

use super::Kernel;
use crate::error::{Error, Result};

/// What this machine makes use of, beside what every machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// A container's root is more than one layer, or writable.
    pub overlay: bool,
    /// A container has users of its own.
    pub user_namespaces: bool,
    /// A container has a network of its own.
    pub network_namespaces: bool,
    /// The system calls of some container are filtered.
    pub seccomp: bool,
    /// Some container may not have all of the processors' time.
    pub processor_time: bool,
    /// Some container may not run on all processors.
    pub processor_sets: bool,
    /// Some container has a share of disks that is not everybody's.
    pub disk_shares: bool,
    /// The host can connect to the control channel by a vsock.
    pub vsock: bool,
    /// Somebody sees to it that PID 1 is not stuck.
    pub watchdog: bool,
}

/// An option of the kernel, and why a machine cannot do without it.
struct Requirement {
    option: &'static str,
    /// The module that the option becomes when it is `m`; `None` for what can only be built in.
    module: Option<&'static str>,
    why: &'static str,
}

const fn built_in(option: &'static str, why: &'static str) -> Requirement {
    Requirement { option, module: None, why }
}

const fn driver(option: &'static str, module: &'static str, why: &'static str) -> Requirement {
    Requirement { option, module: Some(module), why }
}

/// In the order in which modules are loaded: what a first container waits for comes first.
const EVERY_MACHINE: &[Requirement] = &[
    built_in("CONFIG_BLK_DEV_INITRD", "to boot from an initramfs"),
    built_in("CONFIG_DEVTMPFS", "for /dev"),
    built_in("CONFIG_PROC_FS", "for /proc"),
    built_in("CONFIG_SYSFS", "for /sys"),
    built_in("CONFIG_TMPFS", "for /run and containers' writable files"),
    built_in("CONFIG_CGROUPS", "to give each service a cgroup"),
    built_in("CONFIG_MEMCG", "to limit a service's memory"),
    built_in("CONFIG_CGROUP_PIDS", "to limit a service's processes"),
    built_in("CONFIG_CGROUP_BPF", "to keep a service from devices that are not its own"),
    built_in("CONFIG_PID_NS", "to give each service processes of its own"),
    built_in("CONFIG_UTS_NS", "to give each service a host name"),
    built_in("CONFIG_IPC_NS", "to give each service IPC objects of its own"),
    built_in("CONFIG_SIGNALFD", "for PID 1's event loop"),
    built_in("CONFIG_EPOLL", "for PID 1's event loop"),
    built_in("CONFIG_UNIX", "for local sockets"),
    built_in("CONFIG_INET", "for the network"),
    built_in("CONFIG_EROFS_FS_XATTR", "for file capabilities and opaque folders in layers"),
    driver("CONFIG_EROFS_FS", "erofs", "to mount image layers"),
    driver("CONFIG_VIRTIO_PCI", "virtio_pci", "for the devices of a virtual machine"),
    driver("CONFIG_VIRTIO_NET", "virtio_net", "for the network of a virtual machine"),
    driver("CONFIG_VIRTIO_CONSOLE", "virtio_console", "to report to `coracle run`"),
    driver("CONFIG_ACPI_BUTTON", "button", "to power off when the power button is pressed"),
    driver("CONFIG_INPUT_EVDEV", "evdev", "to power off when the power button is pressed"),
];

const OVERLAY: Requirement =
    driver("CONFIG_OVERLAY_FS", "overlay", "to put a container's layers on each other");
const USER_NS: Requirement = built_in("CONFIG_USER_NS", "to give each service users of its own");
const NET_NS: Requirement =
    built_in("CONFIG_NET_NS", "for services without a network (see the key `network`)");
const SECCOMP: Requirement =
    built_in("CONFIG_SECCOMP_FILTER", "to filter system calls (see the key `seccomp`)");
const PROCESSOR_TIME: Requirement =
    built_in("CONFIG_CFS_BANDWIDTH", "to limit a service's processor time (see the key `cpus`)");
const PROCESSOR_SETS: Requirement =
    built_in("CONFIG_CPUSETS", "to keep a service to its processors (see the key `cpuset`)");
const DISK_SHARES: Requirement =
    built_in("CONFIG_BLK_CGROUP_IOCOST", "to share disks by weight (see the key `io-weight`)");
const VSOCK: Requirement = driver(
    "CONFIG_VIRTIO_VSOCKETS",
    "vmw_vsock_virtio_transport",
    "to be reached by a vsock (see `vsock` in `[control]`)",
);
const LOOP: Requirement = driver("CONFIG_BLK_DEV_LOOP", "loop", "to mount image layers from files");

/// Timers that reboot a machine: those of the hardware first, the kernel's own last. init takes those that there are.
/// Each with what else it takes to find it.
const WATCHDOGS: &[(&str, &str, &[&str])] = &[
    ("CONFIG_I6300ESB_WDT", "i6300esb", &[]),
    ("CONFIG_ITCO_WDT", "iTCO_wdt", &["lpc_ich", "i2c_i801"]),
    ("CONFIG_SP5100_TCO", "sp5100_tco", &[]),
    ("CONFIG_WDAT_WDT", "wdat_wdt", &[]),
    ("CONFIG_SOFT_WATCHDOG", "softdog", &[]),
];

/// Set where EROFS can mount a file by itself (Linux 6.12 and later), so that no loop device is needed.
const FILE_BACKED_EROFS: &str = "CONFIG_EROFS_FS_BACKED_BY_FILE";

/// The first release in which EROFS maps owners, and overlayfs takes layers with mapped owners (Linux 5.19).
const MAPPED_LAYERS_SINCE: (u32, u32) = (5, 19);

/// The modules that the machine needs, before dependencies; an error names the first option that is missing.
pub fn needed_modules(kernel: &Kernel, needs: Needs) -> Result<Vec<&'static str>> {
    let file_backed = kernel.option(FILE_BACKED_EROFS) == Ok(Some("y"));
    let conditional = [
        (needs.overlay, &OVERLAY),
        (needs.user_namespaces, &USER_NS),
        (needs.network_namespaces, &NET_NS),
        (needs.seccomp, &SECCOMP),
        (needs.processor_time, &PROCESSOR_TIME),
        (needs.processor_sets, &PROCESSOR_SETS),
        (needs.disk_shares, &DISK_SHARES),
        (needs.vsock, &VSOCK),
        (!file_backed, &LOOP),
    ];
    let conditional =
        conditional.into_iter().filter(|(needed, _)| *needed).map(|(_, requirement)| requirement);
    let mut modules = Vec::new();
    for requirement in EVERY_MACHINE.iter().chain(conditional) {
        modules.extend(check(kernel, requirement)?);
    }
    let release = kernel.options.as_ref().and_then(|options| options.release);
    if let Some((major, minor)) = release.filter(|release| *release < MAPPED_LAYERS_SINCE)
        && needs.user_namespaces
    {
        let what = format!(
            "{} is Linux {major}.{minor}, which cannot give layers to a service's own users: 5.19 and later can",
            kernel.label
        );
        return Err(
            Error::new(what).hint("take a newer kernel, or set `userns = \"host\"` for every service")
        );
    }
    Ok(modules)
}

/// The watchdogs that the kernel can have, and the modules that bring them.
pub fn watchdogs(kernel: &Kernel) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut drivers, mut modules) = (Vec::new(), Vec::new());
    for &(option, driver, buses) in WATCHDOGS {
        let is_built_in = kernel.option(option) == Ok(Some("y")) || kernel.builtin.contains(driver);
        let is_module = kernel.modules.contains_key(driver);
        if is_built_in || is_module {
            drivers.push(driver);
        }
        if is_module {
            modules.extend(buses.iter().filter(|bus| kernel.modules.contains_key(**bus)).chain([&driver]));
        }
    }
    (drivers, modules)
}

/// The module to load for a requirement, if one is; an error when the kernel does not meet it.
fn check(kernel: &Kernel, requirement: &Requirement) -> Result<Option<&'static str>> {
    let Requirement { option, module, why } = requirement;
    let has_module = module.filter(|name| kernel.modules.contains_key(*name));
    let met = match (kernel.option(option), module) {
        (Ok(Some("y")), _) => return Ok(None),
        (Ok(Some("m")), _) => has_module.is_some(),
        (Ok(_), _) => false,
        // Without the kernel's configuration, its modules tell what they can, and the rest is taken on trust.
        (Err(()), None) => return Ok(None),
        (Err(()), Some(name)) if kernel.builtin.contains(*name) => return Ok(None),
        (Err(()), Some(_)) => has_module.is_some(),
    };
    if met {
        return Ok(has_module);
    }
    if let (Err(()), Some(name)) = (kernel.option(option), module) {
        let what = format!(
            "{} has no module `{name}`, needed {why}, and whether {option} is built in is not known",
            kernel.label
        );
        return Err(Error::new(what).hint("put the kernel's configuration beside it as `config`"));
    }
    let module = module.map(|name| format!(" and has no module `{name}`")).unwrap_or_default();
    Err(Error::new(format!("{} lacks {option}{module}, needed {why}", kernel.label))
        .hint("take a kernel that has it, such as [kernel] package = \"linux-image-cloud-amd64\""))
}

/// Every option that can be required.
#[cfg(test)]
pub fn options() -> impl Iterator<Item = &'static str> {
    let conditional = [
        &OVERLAY,
        &USER_NS,
        &NET_NS,
        &SECCOMP,
        &PROCESSOR_TIME,
        &PROCESSOR_SETS,
        &DISK_SHARES,
        &VSOCK,
        &LOOP,
    ];
    EVERY_MACHINE.iter().chain(conditional).map(|requirement| requirement.option)
}

//! What is written: `config.json` of OCI's runtime specification, version 1.
//!
//! Unknown keys are errors, which the specification would not have them be: one of them could ask for a protection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The whole document.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) oci_version: String,
    pub(crate) process: Option<Process>,
    pub(crate) root: Option<Root>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<Value>,
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hooks: Option<Value>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) linux: Linux,
}

/// `root`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) readonly: bool,
}

/// `process`, in the config and as `exec --process` takes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Process {
    #[serde(default)]
    pub(crate) terminal: bool,
    pub(crate) console_size: Option<Value>,
    #[serde(default)]
    pub(crate) user: User,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    #[serde(default)]
    pub(crate) capabilities: Capabilities,
    #[serde(default)]
    pub(crate) rlimits: Vec<Rlimit>,
    #[serde(default)]
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i16>,
    pub(crate) apparmor_profile: Option<Value>,
    pub(crate) selinux_label: Option<Value>,
    pub(crate) scheduler: Option<Value>,
    pub(crate) io_priority: Option<Value>,
}

/// `process.user`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    #[serde(default)]
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) umask: Option<u32>,
}

/// `process.capabilities`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Capabilities {
    pub(crate) bounding: Vec<String>,
    pub(crate) effective: Vec<String>,
    pub(crate) inheritable: Vec<String>,
    pub(crate) permitted: Vec<String>,
    pub(crate) ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// One of `mounts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Mount {
    pub(crate) destination: String,
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) options: Vec<String>,
    pub(crate) uid_mappings: Option<Value>,
    pub(crate) gid_mappings: Option<Value>,
}

/// `linux`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Linux {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) uid_mappings: Vec<Mapping>,
    pub(crate) gid_mappings: Vec<Mapping>,
    pub(crate) time_offsets: Option<Value>,
    pub(crate) devices: Vec<Value>,
    pub(crate) cgroups_path: Option<String>,
    pub(crate) resources: Resources,
    pub(crate) rootfs_propagation: Option<String>,
    pub(crate) seccomp: Option<Value>,
    pub(crate) sysctl: BTreeMap<String, String>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) mount_label: Option<Value>,
    pub(crate) intel_rdt: Option<Value>,
    pub(crate) personality: Option<Value>,
}

/// One of `linux.namespaces`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) path: Option<String>,
}

/// One of `linux.uidMappings` or `linux.gidMappings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapping {
    #[serde(rename = "containerID")]
    pub(crate) inside: u32,
    #[serde(rename = "hostID")]
    pub(crate) outside: u32,
    pub(crate) size: u32,
}

/// `linux.resources`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Resources {
    pub(crate) devices: Vec<DeviceRule>,
    pub(crate) memory: Memory,
    pub(crate) cpu: Cpu,
    pub(crate) pids: Option<Pids>,
    pub(crate) block_io: Option<Value>,
    pub(crate) hugepage_limits: Option<Value>,
    pub(crate) network: Option<Value>,
    pub(crate) rdma: Option<Value>,
    pub(crate) unified: BTreeMap<String, String>,
}

/// One of `linux.resources.devices`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceRule {
    pub(crate) allow: bool,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) major: Option<i64>,
    pub(crate) minor: Option<i64>,
    pub(crate) access: Option<String>,
}

/// `linux.resources.memory`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Memory {
    pub(crate) limit: Option<i64>,
    pub(crate) reservation: Option<i64>,
    pub(crate) swap: Option<i64>,
    pub(crate) kernel: Option<Value>,
    #[serde(rename = "kernelTCP")]
    pub(crate) kernel_tcp: Option<Value>,
    pub(crate) swappiness: Option<Value>,
    #[serde(rename = "disableOOMKiller")]
    pub(crate) disable_oom_killer: Option<Value>,
    pub(crate) use_hierarchy: Option<Value>,
    pub(crate) check_before_update: Option<Value>,
}

/// `linux.resources.cpu`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Cpu {
    pub(crate) quota: Option<i64>,
    pub(crate) period: Option<u64>,
    pub(crate) cpus: Option<String>,
    pub(crate) mems: Option<Value>,
    pub(crate) shares: Option<Value>,
    pub(crate) burst: Option<Value>,
    pub(crate) idle: Option<Value>,
    pub(crate) realtime_runtime: Option<Value>,
    pub(crate) realtime_period: Option<Value>,
}

/// `linux.resources.pids`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pids {
    pub(crate) limit: i64,
}

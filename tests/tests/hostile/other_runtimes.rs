//! The same program in containers of runc and crun, as Docker would configure them.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use tests::{Line, made};

use crate::document::Column;
use crate::outcomes;

/// What a service may do and a container of Docker's defaults may not, and why.
pub const EXCEPTIONS: &[(&str, &str)] = &[
    ("connect to another service's port", SHARED),
    ("connect to another service's abstract socket", SHARED),
    ("see another service's abstract socket", SHARED),
    ("have a route to 169.254.169.254", SHARED),
    (
        "listen on port 80",
        "a machine has services and no users: its first thousand ports are as good as others",
    ),
];

const SHARED: &str = "services share the machine's network, and this container has none";

/// Docker's defaults, of its own documentation.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Type, target, options.
const MOUNTS: [(&str, &str, &[&str]); 6] = [
    ("proc", "/proc", &["nosuid", "noexec", "nodev"]),
    ("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
    ("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
    ("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
];

/// A root with the hostile program, on a file system that lets nodes be opened, and a cgroup below which others can be
/// made: none may have both processes and children. One that lists the processes is gone when it is moved.
const PREPARE: &str = "set -e
mkdir /b && mount -t tmpfs -o mode=755 tmpfs /b
mkdir /b/rootfs && cd /b/rootfs
mkdir proc dev sys etc nodes && mkdir -m 1777 tmp
cp /srv/guest/* .
for copy in set-user-id with-setuid with-sys-admin; do cp hostile $copy; done
chmod 4755 set-user-id
./hostile grant with-setuid 7
./hostile grant with-sys-admin 21
printf 'shared by all' > shared
mknod -m 666 nodes/mem c 1 1
mknod -m 666 nodes/disk b 254 0
mknod -m 666 nodes/console c 5 1
mknod -m 666 nodes/null c 1 3
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/first
for pid in $(cat /sys/fs/cgroup/cgroup.procs); do echo $pid > /sys/fs/cgroup/first/cgroup.procs || true; done
";

/// System calls that services may make, and that are newer than Docker's profile.
pub const NEWER_CALLS: [&str; 9] = [
    "file_getattr",
    "file_setattr",
    "getxattrat",
    "listxattrat",
    "mseal",
    "removexattrat",
    "setxattrat",
    "uprobe",
    "uretprobe",
];

/// Docker's default profile: the rules that are for these capabilities and x86-64.
fn rules() -> Vec<Value> {
    let text = fs::read_to_string(made("profile/docker.json", "setup")).unwrap();
    let published: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(published["defaultAction"], "SCMP_ACT_ERRNO");
    let has = |capability: &String| CAPABILITIES.contains(&capability.as_str());
    let fits = |rule: &&Value| {
        let list = |which: &str, what: &str| names(&rule[which][what]);
        let arches = list("includes", "arches");
        list("includes", "caps").iter().all(has)
            && !list("excludes", "caps").iter().any(has)
            && (arches.is_empty() || arches.iter().any(|arch| arch == "amd64"))
            && !list("excludes", "arches").iter().any(|arch| arch == "amd64")
    };
    published["syscalls"].as_array().unwrap().iter().filter(fits).cloned().collect()
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// The calls that it allows whatever their arguments are.
pub fn allowed_calls() -> BTreeSet<String> {
    let is_allowed = |rule: &Value| rule["action"] == "SCMP_ACT_ALLOW" && !has_arguments(rule);
    rules().iter().filter(|rule| is_allowed(rule)).flat_map(|rule| names(&rule["names"])).collect()
}

fn has_arguments(rule: &Value) -> bool {
    rule["args"].as_array().is_some_and(|arguments| !arguments.is_empty())
}

/// The same, as a runtime takes it.
fn seccomp() -> Value {
    let as_runtimes_take_it = |rule: &Value| {
        let mut taken = json!({ "names": rule["names"], "action": rule["action"] });
        if rule["errnoRet"].is_number() {
            taken["errnoRet"] = rule["errnoRet"].clone();
        }
        if has_arguments(rule) {
            taken["args"] = rule["args"].clone();
        }
        taken
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules().iter().map(as_runtimes_take_it).collect::<Vec<Value>>(),
    })
}

fn bundle(uid: u32, command: &str) -> Value {
    let of_user = if uid == 0 { CAPABILITIES.to_vec() } else { vec![] };
    let mounts = MOUNTS.map(|(kind, target, options)| {
        json!({ "destination": target, "type": kind, "source": kind, "options": options })
    });
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": uid, "gid": uid },
            "args": ["/hostile", command],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": of_user, "permitted": of_user,
                "inheritable": [], "ambient": [],
            },
            "noNewPrivileges": false,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "docker",
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "seccomp": seccomp(),
        },
    })
}

/// Root and user 1000 in containers of both.
pub fn all(line: &Line) -> Vec<Column> {
    let prepared = line.run(&["bash", "-c", PREPARE]);
    assert_eq!(prepared.code, Some(0), "{prepared:?}");
    let mut columns = Vec::new();
    for (name, beside, runtime, uid) in [
        ("runc, root", "root", "runc", 0),
        ("runc, user", "user", "runc", 1000),
        ("crun, root", "root", "crun", 0),
        ("crun, user", "user", "crun", 1000),
    ] {
        line.write("/b/config.json", &bundle(uid, "all").to_string()).unwrap();
        let output = line.run(&[runtime, "--root", "/run/hostile", "run", "--bundle", "/b", "c"]);
        assert_eq!(output.code, Some(0), "{name}: {output:?}");
        columns.push(Column { name, key: None, beside: Some(beside), outcomes: outcomes(&output.stdout) });
    }
    columns
}

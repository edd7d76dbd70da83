//! crun and runc in a guest, beside which S4 puts a container of Coracle's.

use serde_json::{Value, json};

use super::Bench;
use super::boot::millions;
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of};
use crate::process::Result;
use crate::workspace::{read_file, write_file};

/// Million instructions for one container.
#[derive(Debug, Clone, Copy)]
pub struct Peers {
    /// Of `crun run`.
    pub crun: f64,
    /// Of `runc run`.
    pub runc: f64,
}

/// What each of them runs in a row.
const ROUNDS: u32 = 10;

/// The lines of `/proc/self/status` that must be the same in all containers.
const PARITY: [&str; 9] =
    ["Uid:", "Gid:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"];

/// Runs both in one guest, once each to see what their containers are, and then in a loop.
pub fn measure(bench: &Bench, kernel: Kernel) -> Result<Peers> {
    let name = if kernel == Kernel::Own { "peers-own" } else { "peers-second" };
    let machine = machine(bench, kernel, name, SCRIPT)?;
    let mut guest = Guest::counted_in(&machine, &machine.initramfs(), 2048)?;
    let mut each = |runtime: &str| {
        let microseconds = guest.moment(&format!("{runtime}_US"))?;
        let microseconds = u32::try_from(microseconds).map_err(|_| format!("{runtime} took hours"))?;
        Ok::<f64, String>(f64::from(microseconds) / 1e3 / f64::from(ROUNDS))
    };
    let peers = Peers { crun: each("crun")?, runc: each("runc")? };
    require_parity(&guest.wait_for(" | ", 1)?)?;
    Ok(peers)
}

/// Compares what the kernel says of the three containers' processes.
fn require_parity(lines: &[String]) -> Result<()> {
    let said = |service: &str, name: &str| -> Vec<String> {
        let of_service = lines.iter().filter_map(|line| line.trim_start().strip_prefix(service));
        let texts = of_service.filter_map(|line| line.strip_prefix(" | "));
        texts.filter(|text| text.starts_with(name)).map(str::to_owned).collect()
    };
    for name in PARITY {
        let (ours, theirs) = (said("ours", name), said("peers", name));
        let equal = ours.len() == 1 && theirs.len() == 2 && theirs.iter().all(|line| ours.contains(line));
        if !equal {
            return Err(format!(
                "containers are not alike: {ours:?} in ours, {theirs:?} in those of crun and runc"
            ));
        }
    }
    Ok(())
}

/// Million instructions from the first `runc kill` of 20 containers that run until the last is deleted.
pub fn measure_stop(bench: &Bench) -> Result<f64> {
    let machine = machine(bench, Kernel::Own, "peers-stop", SCRIPT_OF_STOP)?;
    let microseconds = Guest::counted_in(&machine, &machine.initramfs(), 2048)?.moment("STOP_US")?;
    Ok(millions(microseconds.saturating_mul(1000)))
}

/// A machine with two services: one container of ours, and a privileged one in which the runtimes make theirs.
fn machine(bench: &Bench, kernel: Kernel, name: &str, script: &str) -> Result<Machine> {
    let image = image_of(bench, "moment", &bench.moment)?;
    let bundle = bench.folder("bundle")?;
    for (file, word) in [("status.json", "status"), ("end.json", "end"), ("wait.json", "wait")] {
        let config = bundle_config(&allowed_calls(bench)?, word);
        write_file(&bundle.join(file), &config.to_string())?;
    }
    let file = |path: &str, source: &str, mode: &str| {
        format!("[[file]]\npath = \"{path}\"\nsource = \"{source}\"\nmode = {mode}\n")
    };
    let services = format!(
        "[oneshot.ours]\nimage = \"{image}\"\ncommand = [\"/moment\", \"status\"]\n\
         [service.peers]\nimage = \"oci:{}:runtimes\"\nprivileged = true\nrestart = \"never\"\n\
         volumes = [\"/srv/bundle:/srv:ro\", \"/sys/fs/cgroup:/cgroup\"]\n\
         command = [\"bash\", \"-euc\", '''{script}''']\n{}{}{}{}",
        bench.workspace.target("images/demo").display(),
        file("/srv/bundle/moment", &bench.moment.to_string_lossy(), "0o755"),
        file("/srv/bundle/status.json", &bundle.join("status.json").to_string_lossy(), "0o644"),
        file("/srv/bundle/end.json", &bundle.join("end.json").to_string_lossy(), "0o644"),
        file("/srv/bundle/wait.json", &bundle.join("wait.json").to_string_lossy(), "0o644"),
    );
    Machine::build(bench, name, kernel, &services, None)
}

/// The cgroups are the machine's own: below that of the service no runtime can let devices through.
const SCRIPT: &str = "\
    mount --bind /cgroup /sys/fs/cgroup
    mkdir -p /bundle/rootfs/{proc,dev,sys}
    cp /srv/moment /bundle/rootfs/
    cd /bundle
    for runtime in crun runc; do
        cp /srv/status.json config.json
        $runtime run first
        cp /srv/end.json config.json
        begin=$EPOCHREALTIME
        for round in 1 2 3 4 5 6 7 8 9 10; do $runtime run round; done
        end=$EPOCHREALTIME
        echo ${runtime}_US=$(( ${end/./} - ${begin/./} ))
    done";

const SCRIPT_OF_STOP: &str = "\
    mount --bind /cgroup /sys/fs/cgroup
    mkdir -p /bundle/rootfs/{proc,dev,sys}
    cp /srv/moment /bundle/rootfs/
    cd /bundle
    for number in {1..20}; do
        sed \"s,/peer,/peer$number,\" /srv/wait.json >config.json
        runc run --detach c$number </dev/null >/dev/null 2>&1
    done
    begin=$EPOCHREALTIME
    for number in {1..20}; do runc kill c$number KILL; done
    for number in {1..20}; do until runc delete c$number; do :; done; done
    end=$EPOCHREALTIME
    echo STOP_US=$(( ${end/./} - ${begin/./} ))";

/// The names of calls that the default profile allows whatever their arguments, as its document lists them.
fn allowed_calls(bench: &Bench) -> Result<Vec<String>> {
    let document = read_file(&bench.workspace.root.join("docs/system-calls.md"))?;
    let section = document.split("\n## ").find(|section| section.starts_with("Allowed")).unwrap_or_default();
    let pairs = section.split(',').filter_map(|item| item.trim().rsplit_once(' '));
    let names = pairs.filter(|(_, number)| number.parse::<u32>().is_ok());
    // The first of a list follows its heading.
    let names = names.filter_map(|(name, _)| name.split_whitespace().last()).map(str::to_owned);
    let names: Vec<String> = names.collect();
    if names.len() < 200 { Err("docs/system-calls.md lists no calls".to_owned()) } else { Ok(names) }
}

/// A container like one of ours, as an OCI runtime takes it.
fn bundle_config(allowed: &[String], word: &str) -> Value {
    const CAPABILITIES: [&str; 9] = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
    ];
    let ids = json!([{ "containerID": 0, "hostID": 2_000_000, "size": 65_536 }]);
    let namespaces = ["pid", "ipc", "uts", "mount", "cgroup", "user"].map(|kind| json!({ "type": kind }));
    let (hidden, read_only): (Vec<_>, Vec<_>) = manifest::mask::MASKS
        .into_iter()
        .filter(|(path, _)| !matches!(*path, "/proc" | "/sys"))
        .partition(|(_, mask)| *mask == manifest::mask::Mask::Hidden);
    let paths = |masks: Vec<(&'static str, _)>| masks.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/moment", word],
            "env": ["PATH=/"],
            "cwd": "/",
            "capabilities": { "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES },
            "rlimits": [
                { "type": "RLIMIT_NOFILE", "soft": 4096, "hard": 65_536 },
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
                { "type": "RLIMIT_MEMLOCK", "soft": 65_536, "hard": 65_536 },
            ],
            "noNewPrivileges": true,
            "oomScoreAdj": 0,
        },
        "root": { "path": "rootfs" },
        "hostname": "s1",
        "mounts": mounts(),
        "linux": {
            "cgroupsPath": "/peer",
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": namespaces,
            "resources": {
                "memory": { "limit": 1 << 30, "swap": 1 << 30 },
                "pids": { "limit": 512 },
                "devices": [{ "allow": false, "access": "rwm" }],
            },
            "maskedPaths": paths(hidden),
            "readonlyPaths": paths(read_only),
            "seccomp": seccomp(allowed),
        },
    })
}

fn mounts() -> Value {
    let strict = ["nosuid", "noexec", "nodev"];
    let mount = |target: &str, kind: &str, options: &[&str]| {
        let source = if kind == "bind" { target } else { kind };
        json!({ "destination": target, "type": kind, "source": source, "options": options })
    };
    json!([
        mount("/proc", "proc", &strict),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &strict),
        // The network is the machine's, so that its sysfs cannot be mounted by the container's users.
        mount("/sys", "bind", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
    ])
}

/// What the default profile allows and refuses, in the words of libseccomp.
fn seccomp(allowed: &[String]) -> Value {
    let rule = |call: &str, index: u32, operation: &str, value: u64, second: u64| {
        let condition = json!({ "index": index, "op": operation, "value": value, "valueTwo": second });
        json!({ "names": [call], "action": "SCMP_ACT_ALLOW", "args": [condition] })
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            { "names": allowed, "action": "SCMP_ACT_ALLOW" },
            rule("socket", 0, "SCMP_CMP_EQ", 1, 0),
            rule("socket", 0, "SCMP_CMP_EQ", 2, 0),
            rule("socket", 0, "SCMP_CMP_EQ", 10, 0),
            rule("socketpair", 0, "SCMP_CMP_EQ", 1, 0),
            rule("clone", 0, "SCMP_CMP_MASKED_EQ", 0x7e02_0000, 0),
            rule("ioctl", 1, "SCMP_CMP_NE", 0x5412, 0),
            rule("personality", 0, "SCMP_CMP_EQ", 0, 0),
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(peer: &str) -> Vec<String> {
        let of =
            |service: &str, value: &str| PARITY.map(|name| format!("  {service} | {name}\t{value}")).to_vec();
        [of("ours", "1"), of("peers", "1"), of("peers", peer)].concat()
    }

    #[test]
    fn containers_are_alike_when_the_kernel_says_so_of_all_three() {
        assert_eq!(require_parity(&lines("1")), Ok(()));
        assert!(require_parity(&lines("2")).is_err());
        assert!(require_parity(&lines("1")[1..]).is_err());
        assert!(SCRIPT.contains(&ROUNDS.to_string()));
    }
}

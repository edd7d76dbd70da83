//! An outside scale: `systemd-analyze security` scores units that are made from the plan of services. 0 is none of what
//! it knows, 10 is all of it; a unit that says nothing has 9.6.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use manifest::{Container, Ids, Manifest, Mount, Namespace, Resource, Seccomp};
use tests::{coracle, folder, probe_image, root};

/// What is asked of services, by their names: their keys, and between which scores they are.
const SERVICES: [(&str, &str, f64, f64); 5] = [
    ("root", "", 2.0, 2.5),
    ("user", "user = 1000", 1.0, 2.0),
    ("closed", "user = 1000\nread-only = true\ncap-drop = [\"ALL\"]\nnetwork = \"none\"", 0.5, 1.0),
    (
        "opened",
        "cap-add = [\"SYS_ADMIN\", \"NET_ADMIN\"]\nallow-setuid = true\nunmask = [\"/proc/sys\"]\nuserns = \"host\"",
        6.0,
        8.0,
    ),
    ("almighty", "privileged = true\npid = \"host\"\nipc = \"host\"", 8.0, 9.6),
];

/// What the scale misses in the best of them, and why it is not there: directives as it names them.
const MISSING: [(&str, &str); 11] = [
    ("MemoryDenyWriteExecute=", "programs that compile while they run are usual"),
    ("ProcSubset=", "/proc/meminfo, /proc/cpuinfo and /proc/sys are read by many programs"),
    ("RestrictSUIDSGID=", "set-id files can be made, and give nothing"),
    ("UMask=", "images count on 022"),
    ("DeviceAllow=", "systemd lets whoever may not set the clock read it: there is no such device here"),
    ("RestrictAddressFamilies=~AF_(INET|INET6)", "what servers are for"),
    ("RestrictAddressFamilies=~AF_UNIX", "what servers are for"),
    ("RestrictAddressFamilies=~AF_NETLINK", "NETLINK_ROUTE alone: the C library lists addresses by it"),
    ("SystemCallFilter=~@privileged", "chown and setuid, within the service's own users"),
    ("SystemCallFilter=~@resources", "a process may lower its own priority and limits"),
    ("SupplementaryGroups=", "an image's user has the groups of the image"),
];

/// How the capabilities of a container are told, where its users are its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Capabilities {
    /// As it has them, which the scale takes for power over the machine.
    OfContainer,
    /// As what they are over the machine: a capability in a user namespace is none outside of it.
    OverMachine,
}

const SYS_MODULE: u32 = 16;
const SYS_RAWIO: u32 = 17;
const SYS_ADMIN: u32 = 21;
const SYS_NICE: u32 = 23;
const SYS_TIME: u32 = 25;
const MKNOD: u32 = 27;
const SYSLOG: u32 = 34;
const WAKE_ALARM: u32 = 35;

#[test]
fn services_have_the_scores_that_the_documentation_shows() {
    let containers = planned();
    let filter = &containers["root"].seccomp;
    let mut scores = BTreeMap::new();
    for (name, _, least, most) in SERVICES {
        let (score, _) = scored(name, &unit(&containers[name], filter, Capabilities::OfContainer));
        println!("{name}: {score}");
        assert!((least..=most).contains(&score), "{name} has {score}, and not {least} to {most}");
        scores.insert(name, score);
    }
    let (bare, _) = scored("bare", "[Service]\nExecStart=/bin/true\n");
    assert!(scores["almighty"] < bare, "{scores:?} and {bare}");
    let document = fs::read_to_string(root().join("docs/security.md")).unwrap();
    for (directive, why) in MISSING {
        let directive = directive.trim_end_matches('=').replace('|', "\\|");
        assert!(document.contains(&format!("| `{directive}` | {why} |")), "{directive} is not in the table");
    }
}

#[test]
fn what_the_scale_misses_in_a_closed_service_has_a_reason() {
    let containers = planned();
    let closed = unit(&containers["closed"], &containers["root"].seccomp, Capabilities::OfContainer);
    let (_, missing) = scored("closed-again", &closed);
    assert!(!missing.is_empty());
    for directive in missing {
        assert!(MISSING.iter().any(|(known, _)| *known == directive), "{directive} has no reason");
    }
}

#[test]
fn what_the_default_may_do_to_the_machine_is_at_most_2() {
    let containers = planned();
    for (name, most) in [("root", 2.0), ("user", 2.0)] {
        let unit = unit(&containers[name], &containers["root"].seccomp, Capabilities::OverMachine);
        let (score, _) = scored(&format!("{name}-over-machine"), &unit);
        println!("{name}: {score}");
        assert!(score <= most, "{name} has {score}");
    }
}

/// The containers of the machine's services, by their names.
fn planned() -> BTreeMap<String, Container> {
    let image = probe_image();
    let table = |(name, keys, ..): &(&str, &str, f64, f64)| {
        format!("[service.{name}]\nimage = \"{image}\"\ncommand = [\"/probe\"]\n{keys}\n")
    };
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("exposure.toml");
    let tables: String = SERVICES.iter().map(table).collect();
    fs::write(&config, format!("name = \"exposure\"\n{tables}")).unwrap();
    let output = coracle().args(["plan", "--json"]).arg(&config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let manifest: Manifest = serde_json::from_value(plan["manifest"].take()).unwrap();
    manifest.services.into_iter().map(|service| (service.name.to_string(), service.container)).collect()
}

/// The container as a unit. A directive stands there only where the container has its effect, seen from the machine.
/// Of seccomp programs only `default` is known; another one counts as if it let everything pass but other ABIs.
fn unit(container: &Container, default: &Seccomp, capabilities: Capabilities) -> String {
    let profile = &container.profile;
    let filtered = container.seccomp == *default;
    let has_own_users = matches!(container.ids, Ids::Own { .. });
    let bounding = match capabilities {
        Capabilities::OverMachine if has_own_users => 0,
        Capabilities::OfContainer | Capabilities::OverMachine => profile.capabilities.bounding,
    };
    let lacks = |capability: u32| bounding >> capability & 1 == 0;
    let sees = |place: &str| {
        container.mounts.iter().any(|mount| match mount {
            Mount::Bind { source, .. } => place.starts_with(source.as_str()) || source.starts_with(place),
            Mount::Tmpfs { .. } => false,
        })
    };
    let is_real_time = container.limits.resources.iter().any(|limit| limit.resource == Resource::Rtprio);
    let directives = [
        ("RootDirectory=/run/coracle/stage", true),
        ("PrivateMounts=yes", true),
        ("ProtectHostname=yes", true),
        ("PrivateTmp=yes", !sees("/tmp")),
        ("ProtectHome=yes", !["/home", "/root", "/run/user"].into_iter().any(sees)),
        ("ProtectSystem=strict", container.read_only),
        ("NoNewPrivileges=yes", !profile.set_id),
        ("PrivateUsers=yes", has_own_users),
        (
            "PrivateDevices=yes",
            container.devices.is_empty() && !profile.all_devices && lacks(MKNOD) && lacks(SYS_RAWIO),
        ),
        ("DevicePolicy=closed", !profile.all_devices),
        ("ProtectClock=yes", filtered && lacks(SYS_TIME) && lacks(WAKE_ALARM) && !profile.all_devices),
        ("ProtectKernelLogs=yes", filtered && lacks(SYSLOG) && !profile.all_devices),
        ("ProtectKernelModules=yes", filtered && lacks(SYS_MODULE)),
        ("ProtectKernelTunables=yes", profile.unmasked.is_empty() && lacks(SYS_ADMIN)),
        ("ProtectControlGroups=yes", lacks(SYS_ADMIN)),
        ("ProtectProc=invisible", !profile.unmasked.iter().any(|path| path == "/proc")),
        ("SystemCallArchitectures=native", container.seccomp != Seccomp::Unconfined),
        ("RestrictNamespaces=yes", filtered && lacks(SYS_ADMIN)),
        ("LockPersonality=yes", filtered),
        ("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", filtered),
        ("RestrictRealtime=yes", lacks(SYS_NICE) && !is_real_time),
        ("RemoveIPC=yes", profile.ipc == Namespace::Own),
        ("PrivateNetwork=yes\nIPAddressDeny=any", profile.network == Namespace::Own),
    ];
    let mut text = "[Service]\nExecStart=/bin/true\n".to_owned();
    let held = directives.iter().filter(|(_, holds)| *holds);
    text.extend(held.map(|(directive, _)| format!("{directive}\n")));
    let user = match container.ids {
        Ids::Own { first } => first + container.user.uid,
        Ids::Machine => container.user.uid,
    };
    text += &format!("User={user}\nCapabilityBoundingSet={}\n", numbers(bounding));
    let held = profile.capabilities.held & bounding;
    if container.user.uid != 0 && held != 0 {
        text += &format!("AmbientCapabilities={}\n", numbers(held));
    }
    for group in &container.user.groups {
        text += &format!("SupplementaryGroups={group}\n");
    }
    for device in &container.devices {
        text += &format!("DeviceAllow={} rw\n", device.source);
    }
    if filtered {
        text += &format!("SystemCallFilter={}\n", allowed_calls().join(" "));
    }
    text
}

/// systemd takes a capability's number for its name.
fn numbers(set: u64) -> String {
    let numbers = (0..=40).filter(|number| set >> number & 1 == 1).map(|number: u32| number.to_string());
    numbers.collect::<Vec<_>>().join(" ")
}

/// What the default filter lets pass, at least with some arguments: other tests hold the document against the kernel.
fn allowed_calls() -> Vec<String> {
    let document = fs::read_to_string(root().join("docs/system-calls.md")).unwrap();
    let sections = document.split("\n## ").filter(|section| {
        ["Allowed", "Decided by arguments"].iter().any(|heading| section.starts_with(heading))
    });
    let mut calls = Vec::new();
    for line in sections.flat_map(str::lines) {
        let line = line.strip_prefix("- ").and_then(|line| line.split(':').next()).unwrap_or(line);
        for (name, number) in line.split(',').filter_map(|item| item.trim().split_once(' ')) {
            if number.parse::<u32>().is_ok() {
                calls.push(name.to_owned());
            }
        }
    }
    assert!(calls.len() > 250, "{} calls are documented", calls.len());
    calls
}

/// The score of a unit, and the directives that it is worse for.
fn scored(name: &str, unit: &str) -> (f64, Vec<String>) {
    let path = folder("exposure").join(format!("{name}.service"));
    fs::write(&path, unit).unwrap();
    let analyze = |format: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager"]).args(format).arg(&path);
        let output = command.output().expect("`cargo xtask setup` installs systemd");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = analyze(&[]);
    let overall =
        text.lines().find_map(|line| line.split_once("Overall exposure level for ")?.1.split(' ').nth(1));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&analyze(&["--json=short"])).unwrap();
    let worse = rows.iter().filter(|row| row["exposure"].as_str().is_some());
    let missing = worse.map(|row| row["name"].as_str().unwrap().to_owned()).collect();
    (overall.unwrap().parse().unwrap(), missing)
}

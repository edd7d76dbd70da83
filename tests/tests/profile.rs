//! The default profile, and each key that loosens it: what a service sees, may write and may become. On both kernels.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs;

use manifest::mask::{MASKS, Mask};
use probe::Request;
use serde_json::json;
use tests::{Config, Image, Kernel, Layer, Line, Machine, layout, made};

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EROFS: i32 = 30;

/// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE.
const OF_ROOT: u64 = 0b101_1111_1011 & !(1 << 2);
const NET_BIND_SERVICE: u64 = 1 << 10;
const SYS_TIME: u64 = 1 << 25;
/// All that both kernels know.
const ALL: u64 = (1 << 41) - 1;

/// What only mounts keep the machine's root from writing to.
const TRIGGERS: [&str; 3] =
    ["/proc/sysrq-trigger", "/proc/sys/kernel/domainname", "/sys/kernel/uevent_helper"];

/// An image with a set-id program of root's.
fn image() -> String {
    let program = fs::read(made("dist-test/probe", "dist")).unwrap();
    let layer = Layer::with_probe()
        .file("probe-as-root", 0o4755, &program)
        .directory("etc", 0o755, (0, 0))
        .file("etc/group", 0o644, b"root:x:0:\naudio:x:29:\n")
        .directory("tmp", 0o1777, (0, 0));
    let config = json!({ "Entrypoint": ["/probe"], "Cmd": ["agent"], "WorkingDir": "/" });
    layout("profile-images", vec![Image { tag: "set-id", layers: vec![layer], config }])
}

/// Keys of each service. `root` and `user` have none that loosen anything.
const SERVICES: [(&str, &str); 8] = [
    (
        "root",
        "tmpfs = [\"/programs:noexec\", \"/fixed:ro\"]\nvolumes = [\"/proc:/machine/proc\", \"/srv/v:/v:noexec\"]",
    ),
    ("user", "user = \"1000:1000\"\ngroup-add = [\"audio\", 7]\nread-only = true\ntmpfs = [\"/tmp\"]"),
    ("machines", "userns = \"host\""),
    ("gifted", "user = \"1000:1000\"\nallow-setuid = true\ncap-add = [\"NET_BIND_SERVICE\"]"),
    ("changed", "cap-drop = [\"ALL\"]\ncap-add = [\"CAP_SYS_TIME\"]\nunmask = \"all\""),
    (
        "alone",
        "network = \"none\"\nread-only = true\nallow-setuid = true\nunmask = [\"/proc/sys\"]\n\
         sysctls = { net.core.somaxconn = 77, \"kernel.sem\" = \"32 64 8 16\", fs.mqueue.msg_max = 11 }",
    ),
    ("shared", "user = 1000\ncap-add = [\"NET_BIND_SERVICE\"]\npid = \"host\"\nipc = \"host\""),
    ("almighty", "privileged = true\npid = \"host\"\nipc = \"host\""),
];

fn machine(kernel: Kernel) -> Machine {
    let image = format!("{}:set-id", image());
    let config = Config::new("profile").kernel(kernel);
    let with = |config: Config, (name, keys): &(&str, &str)| {
        config.probe_in(&image, name, &format!("command = [\"agent\"]\n{keys}\n"))
    };
    SERVICES.iter().fold(config, with).boot()
}

#[test]
fn on_the_machines_own_kernel() {
    check_all(machine(Kernel::Own));
}

#[test]
fn on_the_second_kernel() {
    check_all(machine(Kernel::Second));
}

fn check_all(machine: Machine) {
    let [root, user, machines, gifted, changed, alone, shared, almighty] =
        SERVICES.map(|(name, _)| machine.probe(name));
    what_is_masked_gives_nothing_away(root);
    what_is_masked_gives_nothing_away(user);
    what_is_read_only_cannot_be_written(root, &[EACCES, EROFS]);
    what_is_read_only_cannot_be_written(user, &[EACCES, EROFS]);
    // The mounts alone are in the way of the machine's root.
    what_is_read_only_cannot_be_written(machines, &[EROFS]);
    what_is_masked_gives_nothing_away(machines);
    no_mask_is_left_where_none_is_wanted(changed);
    no_mask_is_left_where_none_is_wanted(almighty);
    root_has_few_capabilities_and_users_have_none(root, user);
    capabilities_are_those_that_the_keys_leave(gifted, changed, shared, almighty);
    a_set_id_program_gives_nothing_unless_it_is_allowed_to(user, gifted);
    processes_of_other_users_are_not_seen(root, gifted);
    groups_are_added(user);
    a_mount_allows_what_its_options_say(root);
    a_service_without_a_network_has_a_loopback_alone(root, alone);
    settings_are_those_of_the_services_own_namespaces(root, alone);
    one_path_can_be_unmasked_by_itself(alone);
    what_is_shared_with_the_machine_is(root, shared, almighty);
    a_privileged_service_has_every_device(root, almighty);
    processes_of_a_service_end_with_it(shared, almighty);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
}

/// What reading a file gives: its text, or the error number.
fn try_read(line: &Line, path: &str) -> Result<String, i32> {
    match line.try_ask(&Request::Read { path: path.to_owned() }) {
        Ok(probe::Answer::Text(text)) => Ok(text),
        Ok(other) => panic!("{other:?} is no text"),
        Err(refusal) => Err(refusal.errno),
    }
}

/// The masked paths of a kind that this kernel has.
fn masked<'a>(line: &'a Line, mask: Mask) -> impl Iterator<Item = &'static str> + 'a {
    let of_kind = MASKS.iter().filter(move |(_, kind)| *kind == mask).map(|(path, _)| *path);
    of_kind.filter(|path| line.exists(path))
}

fn is_folder(line: &Line, path: &str) -> bool {
    line.stat(path).mode & 0o170_000 == 0o040_000
}

fn what_is_masked_gives_nothing_away(line: &Line) {
    let mut found = 0;
    for path in masked(line, Mask::Hidden) {
        found += 1;
        if is_folder(line, path) {
            assert_eq!(line.list(path), [""; 0], "{path}");
            assert_eq!(line.write(&format!("{path}/new"), "x"), Err(EROFS), "{path}");
        } else {
            assert_eq!(line.read(path), "", "{path}");
        }
    }
    assert!(found >= 5, "both kernels have more than {found} of them");
}

fn what_is_read_only_cannot_be_written(line: &Line, reasons: &[i32]) {
    for path in TRIGGERS {
        let refused = line.write(path, "h").unwrap_err();
        assert!(reasons.contains(&refused), "{path}: {refused}");
    }
    let mounts = line.read("/proc/self/mountinfo");
    for path in masked(line, Mask::ReadOnly) {
        let mount = mounts.lines().rfind(|mount| mount.split(' ').nth(4) == Some(path));
        let options =
            mount.and_then(|mount| mount.split(' ').nth(5)).unwrap_or_else(|| panic!("{path} in {mounts}"));
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(options.split(',').any(|found| found == option), "{path}: {option} in {options}");
        }
    }
}

fn no_mask_is_left_where_none_is_wanted(line: &Line) {
    assert!(!line.list("/sys/firmware").is_empty());
    assert!(line.read("/proc/interrupts").contains("CPU0"));
    let mounts = line.read("/proc/self/mountinfo");
    let inside = |mount: &&str| {
        mount.split(' ').nth(4).is_some_and(|at| at.starts_with("/proc/") || at.starts_with("/sys/"))
    };
    assert_eq!(mounts.lines().filter(inside).count(), 0, "{mounts}");
    for path in TRIGGERS {
        assert_ne!(line.write(path, "h"), Err(EROFS), "{path}");
    }
}

/// A line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in\n{status}")).trim()
}

/// Bounding, permitted, effective, inheritable and ambient.
fn capabilities(status: &str) -> [u64; 5] {
    ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"]
        .map(|name| u64::from_str_radix(field(status, name), 16).unwrap())
}

fn root_has_few_capabilities_and_users_have_none(root: &Line, user: &Line) {
    let status = root.read("/proc/self/status");
    assert_eq!(capabilities(&status), [OF_ROOT, OF_ROOT, OF_ROOT, 0, 0]);
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
    let status = user.read("/proc/self/status");
    assert_eq!(capabilities(&status), [0; 5]);
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"));
}

fn capabilities_are_those_that_the_keys_leave(gifted: &Line, changed: &Line, shared: &Line, almighty: &Line) {
    let status = gifted.read("/proc/self/status");
    let one = NET_BIND_SERVICE;
    assert_eq!(capabilities(&status), [OF_ROOT, one, one, one, one]);
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("0", "2"));
    let status = shared.read("/proc/self/status");
    assert_eq!((capabilities(&status), field(&status, "NoNewPrivs")), ([one; 5], "1"));
    let status = changed.read("/proc/self/status");
    assert_eq!(capabilities(&status), [SYS_TIME, SYS_TIME, SYS_TIME, 0, 0]);
    let status = almighty.read("/proc/self/status");
    assert_eq!(capabilities(&status), [ALL, ALL, ALL, 0, 0]);
    assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("0", "0"));
    assert_eq!(almighty.read("/proc/self/uid_map").split_ascii_whitespace().last(), Some("4294967295"));
}

fn a_set_id_program_gives_nothing_unless_it_is_allowed_to(user: &Line, gifted: &Line) {
    for (line, effective, expected) in [(user, "1000", 0), (gifted, "0", OF_ROOT)] {
        assert_eq!(line.stat("/probe-as-root").mode & 0o7777, 0o4755);
        let output = line.run(&["/probe-as-root", "show", "/proc/self/status"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        let ids: Vec<&str> = field(&output.stdout, "Uid").split('\t').collect();
        assert_eq!(ids[..2], ["1000", effective], "real and effective");
        assert_eq!(capabilities(&output.stdout)[2], expected);
    }
}

fn processes(line: &Line) -> Vec<i32> {
    line.list("/proc").iter().filter_map(|name| name.parse().ok()).collect()
}

/// The set-id program is root's while it runs.
fn processes_of_other_users_are_not_seen(root: &Line, gifted: &Line) {
    let output = gifted.run(&["/probe-as-root", "orphan", "600000"]);
    let orphan: i32 = output.stdout.trim().parse().unwrap();
    assert_eq!(processes(gifted), [1], "and not {orphan}, which is there to be ended");
    gifted.ask(&Request::Signal { pid: orphan, signal: 9 });
    let mounts = root.read("/proc/self/mountinfo");
    let proc = mounts.lines().find(|mount| mount.split(' ').nth(4) == Some("/proc")).unwrap();
    assert!(proc.contains("hidepid=invisible"), "{proc}");
}

fn groups_are_added(user: &Line) {
    let identity = user.identity();
    assert_eq!((identity.uid, identity.gid, identity.groups), (1000, 1000, vec![7, 29, 1000]));
}

fn a_mount_allows_what_its_options_say(root: &Line) {
    let mounts = root.read("/proc/self/mountinfo");
    let options = |at: &str| {
        let mount = mounts.lines().find(|mount| mount.split(' ').nth(4) == Some(at));
        mount.and_then(|mount| mount.split(' ').nth(5)).unwrap().to_owned()
    };
    assert!(options("/programs").starts_with("rw,nosuid,nodev,noexec"), "{}", options("/programs"));
    assert!(options("/v").starts_with("rw,nosuid,nodev,noexec"), "{}", options("/v"));
    assert!(options("/fixed").starts_with("ro,nosuid,nodev"), "{}", options("/fixed"));
    assert!(options("/").contains("nosuid,nodev"), "{}", options("/"));
    assert_eq!(root.write("/fixed/file", "x"), Err(EROFS));
}

fn a_service_without_a_network_has_a_loopback_alone(root: &Line, alone: &Line) {
    assert!(root.list("/sys/class/net").len() > 1);
    assert_eq!(alone.list("/sys/class/net"), ["lo"]);
    assert_eq!(alone.read("/sys/class/net/lo/flags"), "0x9\n", "up, and a loopback");
    assert_eq!(alone.read("/proc/net/route").lines().count(), 1, "a heading and no route");
    assert!(alone.read("/proc/net/fib_trie").contains("127.0.0.1"), "its address is there");
    assert_eq!(alone.read("/proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n");
    assert_ne!(alone.link("/proc/self/ns/net"), root.link("/proc/self/ns/net"));
}

fn settings_are_those_of_the_services_own_namespaces(root: &Line, alone: &Line) {
    for (path, value) in [
        ("/proc/sys/net/core/somaxconn", "77"),
        ("/proc/sys/kernel/sem", "32\t64\t8\t16"),
        ("/proc/sys/fs/mqueue/msg_max", "11"),
    ] {
        assert_eq!(alone.read(path).trim(), value, "{path}");
        assert_ne!(root.read(path).trim(), value, "{path} of another service");
    }
}

fn one_path_can_be_unmasked_by_itself(alone: &Line) {
    let refused = alone.write("/proc/sys/kernel/domainname", "x").unwrap_err();
    assert!(
        [EACCES, EPERM].contains(&refused),
        "{refused}: the setting is the machine's, and no mount in the way"
    );
    assert_eq!(alone.write("/proc/sysrq-trigger", "h"), Err(EROFS));
    assert_eq!(alone.read("/proc/interrupts"), "");
}

fn what_is_shared_with_the_machine_is(root: &Line, shared: &Line, almighty: &Line) {
    for namespace in ["pid", "ipc"] {
        let path = format!("/proc/self/ns/{namespace}");
        assert_eq!(shared.link(&path), almighty.link(&path));
        assert_ne!(shared.link(&path), root.link(&path));
        assert_eq!(almighty.link(&path), almighty.link(&format!("/proc/1/ns/{namespace}")));
    }
    assert_ne!(shared.identity().pid, 1);
    assert_eq!(shared.read("/proc/1/comm"), "init\n");
    assert!(processes(shared).len() > SERVICES.len());
    assert_eq!(try_read(shared, "/proc/1/environ"), Err(EACCES), "seen, and yet out of reach");
    assert!(try_read(almighty, "/proc/1/environ").is_ok());
}

fn a_privileged_service_has_every_device(root: &Line, almighty: &Line) {
    for device in ["/dev/kmsg", "/dev/mem", "/dev/console"] {
        assert!(!root.exists(device), "{device}");
        assert!(almighty.exists(device), "{device}");
    }
    almighty.write("/dev/kmsg", "<7>a privileged service opens what it has\n").unwrap();
    almighty.write("/proc/sysrq-trigger", "h").unwrap();
    almighty.write("/proc/sys/kernel/domainname", "almighty").unwrap();
}

/// Where a service has no pid namespace of its own, its processes could outlive it.
fn processes_of_a_service_end_with_it(shared: &Line, almighty: &Line) {
    let probe::Answer::Pid(orphan) = shared.ask(&Request::Orphan { milliseconds: 600_000 }) else {
        panic!("no process id")
    };
    assert!(almighty.exists(&format!("/proc/{orphan}")));
    shared.exit(1);
    shared.next_start();
    tests::eventually("the orphan is gone", || !almighty.exists(&format!("/proc/{orphan}")));
}

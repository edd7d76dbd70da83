//! What a service sees and may do: one machine with many claims, on both kernels.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use serde_json::json;
use tests::{Config, Image, Kernel, Layer, Line, Machine, layout};

/// An image whose layers try everything that layers can do to each other.
fn images() -> String {
    let lower = Layer::with_probe()
        .directory("etc", 0o755, (0, 0))
        .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n")
        .file(
            "etc/group",
            0o644,
            b"root:x:0:\nuser:x:1001:\naudio:x:29:user\nvideo:x:44:root,user\nmail:x:8:root\n",
        )
        .directory("data", 0o755, (0, 0))
        .file("data/kept", 0o644, b"from the lower layer")
        .file("data/hidden", 0o644, b"hidden by a whiteout")
        .file("data/replaced", 0o600, b"old")
        .directory("data/opaque", 0o755, (0, 0))
        .file("data/opaque/below", 0o644, b"hidden by an opaque folder")
        .directory("home", 0o755, (0, 0))
        .directory("home/user", 0o700, (1000, 1001))
        .owned_file("home/user/mine", 0o640, (1000, 1001), b"mine")
        .symlink("link", "data/kept");
    let upper = Layer::new()
        .whiteout("data/hidden")
        .file("data/replaced", 0o444, b"new")
        .directory("data/opaque", 0o711, (5, 6))
        .opaque("data/opaque")
        .file("data/opaque/above", 0o644, b"seen")
        .hard_link("data/second-name", "data/kept")
        .attribute("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        .file("capable", 0o755, b"cap_net_bind_service");
    let config = json!({
        "Env": ["PATH=/bin:/", "FROM_IMAGE=1", "REPLACED=image"],
        "Entrypoint": ["/probe"],
        "Cmd": ["exit", "1"],
        "WorkingDir": "/data",
    });
    layout("container-images", vec![Image { tag: "layers", layers: vec![lower, upper], config }])
}

fn machine(kernel: Kernel) -> Machine {
    let image = format!("{}:layers", images());
    Config::new("container")
        .kernel(kernel)
        .with(&format!(
            "[oneshot.prepare]\nimage = \"{image}\"\ncommand = [\"print\", \"prepared\"]\n\
             volumes = [\"/srv/shared:/shared\"]\n\
             [oneshot.who]\nimage = \"{image}\"\nuser = \"user\"\ncommand = [\"identity\", \"/shared/who\"]\n\
             volumes = [\"/srv/who:/shared/who\"]\n\
             [[file]]\npath = \"/srv/who\"\nmode = 0o666\ncontents = \"\"\n\
             [[file]]\npath = \"/srv/greeting\"\nuid = 3\ngid = 4\nmode = 0o640\ncontents = \"hello\"\n"
        ))
        .probe_in(
            &image,
            "a",
            "command = [\"agent\"]\nenvironment = { REPLACED = \"config\", ADDED = 2 }\nhostname = \"first\"\n\
             tmpfs = [\"/scratch:size=1MiB,mode=0700\"]\n\
             volumes = [\"/proc:/machine/proc\", \"/srv:/machine/srv\", \"/srv:/machine/fixed:ro\", \
             \"/coracle/layers:/machine/layers:ro\"]\n",
        )
        .probe_in(&image, "b", "command = [\"agent\"]\nread-only = true\nworking-dir = \"/home/user\"")
        .boot()
}

#[test]
fn on_the_machines_own_kernel() {
    check_all(machine(Kernel::Own));
}

#[test]
fn on_the_second_kernel() {
    let machine = machine(Kernel::Second);
    let release = machine.probe("a").read("/proc/sys/kernel/osrelease");
    assert!(release.starts_with("6.12."), "the second kernel is {release}");
    check_all(machine);
}

fn check_all(machine: Machine) {
    let (a, b) = (machine.probe("a"), machine.probe("b"));
    each_service_has_namespaces_of_its_own(a, b);
    each_service_is_the_first_process_and_sees_no_other(a);
    config_and_image_are_merged(a, b);
    only_the_standard_descriptors_are_open(a);
    privileges_are_gone(a);
    the_user_and_groups_are_those_of_the_images_own_files(a);
    whiteouts_and_opaque_folders_hide(a);
    owners_links_and_attributes_survive(a);
    a_writable_root_is_the_services_own(a, b);
    a_read_only_root_is(b);
    mounts_are_what_the_config_says(a);
    devices_are_the_usual_ones(a);
    layers_come_through_loop_devices_where_files_are_no_source(a);
    a_shared_layer_is_mounted_once(a);
    the_name_servers_are_those_of_the_lease(a);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
}

fn each_service_has_namespaces_of_its_own(a: &Line, b: &Line) {
    for namespace in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        let path = format!("/proc/self/ns/{namespace}");
        assert_ne!(a.link(&path), b.link(&path), "{namespace}");
    }
    assert_eq!(a.link("/proc/self/ns/net"), b.link("/proc/self/ns/net"), "the network is the machine's");
    assert_eq!(a.read("/proc/self/cgroup"), "0::/\n");
}

fn each_service_is_the_first_process_and_sees_no_other(a: &Line) {
    assert_eq!(a.identity().pid, 1);
    let processes: Vec<String> =
        a.list("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).collect();
    assert_eq!(processes, ["1"]);
}

fn config_and_image_are_merged(a: &Line, b: &Line) {
    let (a, b) = (a.identity(), b.identity());
    assert_eq!(a.argv, ["/probe", "agent"], "the image's entrypoint, the config's command");
    let value = |name: &str| a.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    assert_eq!(value("FROM_IMAGE"), Some("1"));
    assert_eq!(value("REPLACED"), Some("config"));
    assert_eq!(value("ADDED"), Some("2"));
    assert_eq!(value("PATH"), Some("/bin:/"));
    assert_eq!((a.cwd.as_str(), b.cwd.as_str()), ("/data", "/home/user"));
    assert_eq!((a.hostname.as_str(), b.hostname.as_str()), ("first", "b"));
}

fn only_the_standard_descriptors_are_open(a: &Line) {
    assert_eq!(a.identity().descriptors, [0, 1, 2]);
    assert_eq!(a.link("/proc/self/fd/0"), "/dev/null");
}

fn privileges_are_gone(a: &Line) {
    let status = a.read("/proc/self/status");
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    for (set, expected) in
        [("CapInh", "0000000000000000"), ("CapAmb", "0000000000000000"), ("CapEff", field(&status, "CapBnd"))]
    {
        assert_eq!(field(&status, set), expected, "{set}");
    }
    let bounding = u64::from_str_radix(field(&status, "CapBnd"), 16).unwrap();
    for (name, number) in
        [("NET_ADMIN", 12), ("SYS_MODULE", 16), ("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("MKNOD", 27)]
    {
        assert_eq!(bounding >> number & 1, 0, "CAP_{name}");
    }
}

fn the_user_and_groups_are_those_of_the_images_own_files(a: &Line) {
    let user: probe::Identity = serde_json::from_str(&a.read("/machine/srv/who")).unwrap();
    assert_eq!((user.uid, user.gid), (1000, 1001));
    assert!(user.groups.contains(&29) && user.groups.contains(&44), "{:?}", user.groups);
    assert!(!user.groups.contains(&8) && !user.groups.contains(&0), "{:?}", user.groups);
    assert_eq!((a.identity().uid, a.identity().gid), (0, 0));
}

fn whiteouts_and_opaque_folders_hide(a: &Line) {
    assert_eq!(a.list("/data"), ["kept", "opaque", "replaced", "second-name"]);
    assert_eq!(a.list("/data/opaque"), ["above"]);
    assert_eq!(a.read("/data/replaced"), "new");
    let opaque = a.stat("/data/opaque");
    assert_eq!((opaque.mode & 0o7777, opaque.uid, opaque.gid), (0o711, 5, 6));
}

fn owners_links_and_attributes_survive(a: &Line) {
    let mine = a.stat("/home/user/mine");
    assert_eq!((mine.mode, mine.uid, mine.gid, mine.mtime), (0o100_640, 1000, 1001, 1_000_000_000));
    assert_eq!(a.link("/link"), "data/kept");
    assert_eq!(a.read("/data/second-name"), "from the lower layer");
    assert_eq!(a.attribute("/capable", "security.capability"), "0100000200040000000000000000000000000000");
}

fn a_writable_root_is_the_services_own(a: &Line, b: &Line) {
    a.write("/data/written", "by a").unwrap();
    a.write("/data/kept", "changed by a").unwrap();
    assert_eq!(a.read("/data/written"), "by a");
    assert!(!b.exists("/data/written"));
    assert_eq!(b.read("/data/kept"), "from the lower layer");
}

fn a_read_only_root_is(b: &Line) {
    const EROFS: i32 = 30;
    assert_eq!(b.write("/data/written", "by b"), Err(EROFS));
    assert_eq!(b.write("/etc/passwd", "by b"), Err(EROFS));
    b.write("/dev/null", "goes nowhere").unwrap();
}

fn mounts_are_what_the_config_says(a: &Line) {
    assert_eq!(a.stat("/scratch").mode & 0o7777, 0o700);
    a.write("/scratch/file", "fits").unwrap();
    let mounts = a.read("/proc/self/mountinfo");
    let mount = |target: &str| {
        let found = mounts.lines().find(|line| line.split(' ').nth(4) == Some(target));
        found.unwrap_or_else(|| panic!("nothing is mounted at {target}:\n{mounts}"))
    };
    assert!(mount("/scratch").contains("size=1024k"), "{}", mount("/scratch"));
    for target in ["/scratch", "/machine/srv"] {
        assert!(mount(target).contains("nosuid,nodev"), "{}", mount(target));
    }
    let greeting = a.stat("/machine/srv/greeting");
    assert_eq!((greeting.mode & 0o7777, greeting.uid, greeting.gid), (0o640, 3, 4));
    assert_eq!(a.read("/machine/srv/greeting"), "hello");
    a.write("/machine/srv/new", "seen twice").unwrap();
    assert_eq!(a.read("/machine/fixed/new"), "seen twice");
    assert!(a.write("/machine/fixed/new", "no").is_err());
}

fn devices_are_the_usual_ones(a: &Line) {
    for (path, device) in
        [("/dev/null", (1, 3)), ("/dev/zero", (1, 5)), ("/dev/urandom", (1, 9)), ("/dev/tty", (5, 0))]
    {
        let metadata = a.stat(path);
        assert_eq!((metadata.device, metadata.mode), (device, 0o020_666), "{path}");
    }
    assert_eq!(a.link("/dev/stdout"), "/proc/self/fd/1");
    assert!(a.exists("/dev/ptmx") && a.exists("/dev/pts") && a.exists("/dev/shm"));
    assert!(!a.exists("/dev/kmsg") && !a.exists("/dev/mem"));
}

/// Every mounted EROFS has one folder in sysfs. The store has the image's two layers, which four containers use,
/// and those that the builder adds.
fn a_shared_layer_is_mounted_once(a: &Line) {
    let stored = a.list("/machine/layers").len();
    let mounted = a.list("/sys/fs/erofs").into_iter().filter(|name| name != "features").count();
    assert!((2..=2 + 4).contains(&stored), "{stored} stored layers");
    assert_eq!(mounted, stored, "mounted and stored layers");
}

/// A loop device would read past the page cache, and cannot in the initramfs, whose pages are the file.
fn layers_come_through_loop_devices_where_files_are_no_source(a: &Line) {
    let mounts_files = a.read("/proc/sys/kernel/osrelease").starts_with("6.12.");
    let stored = if mounts_files { 0 } else { a.list("/machine/layers").len() };
    let settings = |name: &String| format!("/sys/block/{name}/loop");
    let loops: Vec<String> =
        a.list("/sys/block").iter().map(settings).filter(|path| a.exists(path)).collect();
    assert_eq!(loops.len(), stored, "{loops:?}");
    for path in loops {
        assert!(a.read(&format!("{path}/backing_file")).starts_with("/coracle/layers/"), "{path}");
        assert_eq!(a.read(&format!("{path}/dio")), "0\n", "{path}");
    }
}

fn the_name_servers_are_those_of_the_lease(a: &Line) {
    tests::eventually("the lease's name server is in /etc/resolv.conf", || {
        a.read("/etc/resolv.conf").contains("nameserver 10.0.2.3")
    });
    let routes = a.read("/proc/net/route");
    assert!(routes.contains("00000000\t0202000A"), "no default route by 10.0.2.2:\n{routes}");
}

/// A line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in\n{status}")).trim()
}

//! Each service has users of its own: what it sees of them, and what it can do to anybody else. On both kernels.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use probe::Request;
use serde_json::json;
use tests::{Config, Image, Kernel, Layer, Line, Machine, layout};

const EPERM: i32 = 1;
const ESRCH: i32 = 3;
const EACCES: i32 = 13;

/// What the kernel shows for an id that has no number inside.
const NOBODY: u32 = 65_534;

/// How many ids a service has.
const COUNT: u32 = 65_536;

/// An access control list in the kernel's form: user 1000 may read, beside the owner.
const LIST: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\xe8\x03\0\0\
    \x04\0\0\0\xff\xff\xff\xff\x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

/// An image with files of several users, and with all that `b` needs: its root is this one layer.
fn image() -> String {
    let layer = Layer::with_probe()
        .directory("etc", 0o755, (0, 0))
        .file("etc/hosts", 0o644, b"")
        .file("etc/resolv.conf", 0o644, b"")
        .directory("dev", 0o755, (0, 0))
        .directory("proc", 0o555, (0, 0))
        .directory("sys", 0o555, (0, 0))
        .directory("machine", 0o755, (0, 0))
        .directory("machine/proc", 0o755, (0, 0))
        .file("known", 0o644, b"")
        .attribute("system.posix_acl_access", LIST)
        .file("listed", 0o640, b"for user 1000")
        .directory("home", 0o711, (0, 4))
        .directory("home/user", 0o700, (1000, 1001))
        .owned_file("home/user/mine", 0o640, (1000, 1001), b"mine")
        .owned_file("last", 0o644, (65_535, 65_535), b"the highest number that there is inside")
        .owned_file("beyond", 0o644, (65_536, 70_000), b"of nobody")
        .directory("data", 0o750, (33, 34));
    let config = json!({ "Entrypoint": ["/probe"], "Cmd": ["agent"], "WorkingDir": "/" });
    layout("user-namespace-images", vec![Image { tag: "owners", layers: vec![layer], config }])
}

/// Two services with users of their own, `a` and `b`, and two with the machine's, `c` and `d`; and `heir`, which gets
/// something from a oneshot.
fn machine(kernel: Kernel) -> Machine {
    const KEYS: &str = "command = [\"agent\"]\n";
    const HOST: &str = "command = [\"agent\"]\nuserns = \"host\"\n";
    let image = format!("{}:owners", image());
    let volumes = |more: &str| format!("volumes = [\"/proc:/machine/proc\"{more}]\n");
    Config::new("user-namespace")
        .kernel(kernel)
        .with(&format!(
            "[oneshot.testator]\nimage = \"{image}\"\ncommand = [\"identity\", \"/will/who\"]\n\
             volumes = [\"/var/lib/will:/will\"]\n\
             [oneshot.reader]\nimage = \"{image}\"\nuser = 1000\ncommand = [\"read\", \"/listed\"]\n\
             [[file]]\npath = \"/srv/secret\"\nuid = 5\nmode = 0o600\ncontents = \"of a alone\"\n\
             [[file]]\npath = \"/etc/known\"\nuid = 5\nmode = 0o644\ncontents = \"of a and b\"\n"
        ))
        .probe_in(
            &image,
            "a",
            &format!(
                "{KEYS}tmpfs = [\"/scratch\"]\n{}",
                volumes(
                    ", \"/srv:/srv\", \"/var/data:/data\", \"/run/data:/run/data\", \"/etc/known:/known:ro\""
                )
            ),
        )
        .probe_in(&image, "b", &format!("{KEYS}read-only = true\n{}", volumes(", \"/etc/known:/known:ro\"")))
        .probe_in(
            &image,
            "c",
            &format!("{HOST}{}", volumes(", \"/var:/machine/var:ro\", \"/run:/machine/run:ro\"")),
        )
        .probe_in(
            &image,
            "heir",
            &format!(
                "{KEYS}depends-on = {{ testator = \"completed\" }}\nvolumes = [\"/var/lib/will:/will\"]\n"
            ),
        )
        .probe_in(&image, "d", HOST)
        .boot()
}

#[test]
fn on_the_machines_own_kernel() {
    check_all(&machine(Kernel::Own), false);
}

#[test]
fn on_the_second_kernel() {
    check_all(&machine(Kernel::Second), true);
}

fn check_all(machine: &Machine, is_new: bool) {
    let [a, b, c, d, heir] = ["a", "b", "c", "d", "heir"].map(|name| machine.probe(name));
    each_service_has_ids_that_no_other_has(a, b, c);
    files_belong_to_whom_they_belong_in_the_image(a);
    files_belong_to_whom_they_belong_in_the_image(b);
    // What a list allows holds on both kernels: see the oneshot `reader`. 6.1 does not say it right where owners are
    // mapped.
    if is_new {
        lists_of_users_name_them_as_in_the_image(a);
        lists_of_users_name_them_as_in_the_image(b);
    }
    assert!(root_of(a).contains(" - overlay ") && root_of(b).contains(" - erofs "));
    what_init_makes_belongs_to_root_inside(a);
    files_can_be_given_away_inside(a);
    another_service_is_out_of_reach(a, b, c);
    services_with_the_machines_users_reach_each_other(c, d);
    the_machines_settings_are_out_of_reach(a);
    pid_1_has_descriptors_for_the_namespaces_of_thousands(c);
    no_further_user_namespace_can_be_made(a);
    a_file_of_the_machine_belongs_to_the_one_service_that_sees_it(a, b);
    a_volume_outlives_its_service(a, c);
    services_that_share_a_volume_share_their_users(heir);
    assert_ne!(first(heir), first(a));
    a_volume_stores_the_numbers_inside_where_owners_can_be_mapped(a, c, is_new);
}

/// The numbers of a map of ids.
fn map(line: &Line, path: &str) -> Vec<u32> {
    line.read(path).split_ascii_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// The machine's id that 0 is inside.
fn first(line: &Line) -> u32 {
    let map = map(line, "/proc/self/uid_map");
    assert_eq!((map[0], map[2]), (0, COUNT));
    map[1]
}

fn each_service_has_ids_that_no_other_has(a: &Line, b: &Line, c: &Line) {
    let (of_a, of_b) = (first(a), first(b));
    assert!(of_a.abs_diff(of_b) >= COUNT, "{of_a} and {of_b} overlap");
    for (line, expected) in [(a, [0, of_a, COUNT]), (b, [0, of_b, COUNT]), (c, [0, 0, u32::MAX])] {
        assert_eq!(map(line, "/proc/self/uid_map"), expected);
        assert_eq!(map(line, "/proc/self/gid_map"), expected);
    }
    assert!(of_a >= 1 << 20 && of_b >= 1 << 20, "far from the users of any system: {of_a}, {of_b}");
    assert_eq!((a.identity().uid, a.identity().gid), (0, 0));
    assert_ne!(a.link("/proc/self/ns/user"), b.link("/proc/self/ns/user"));
    let status = c.read(&format!("/machine/proc/{}/status", process_of(a, c)));
    assert!(status.contains(&format!("Uid:\t{of_a}\t{of_a}\t{of_a}\t{of_a}\n")), "{status}");
}

/// The first process of a service with ids of its own, by its number on the machine.
fn process_of(line: &Line, witness: &Line) -> i32 {
    let expected = [0, first(line), COUNT];
    let pids = witness.list("/machine/proc").into_iter().filter_map(|name| name.parse::<i32>().ok());
    let mut found = pids.filter(|pid| map(witness, &format!("/machine/proc/{pid}/uid_map")) == expected);
    found.next().unwrap_or_else(|| panic!("no process has the ids {expected:?}"))
}

fn owner(line: &Line, path: &str) -> (u32, u32) {
    let metadata = line.stat(path);
    (metadata.uid, metadata.gid)
}

fn files_belong_to_whom_they_belong_in_the_image(line: &Line) {
    for (path, expected) in [
        ("/", (0, 0)),
        ("/probe", (0, 0)),
        ("/home", (0, 4)),
        ("/home/user/mine", (1000, 1001)),
        ("/last", (65_535, 65_535)),
        ("/beyond", (NOBODY, NOBODY)),
    ] {
        assert_eq!(owner(line, path), expected, "{path}");
    }
    assert_eq!(line.read("/home/user/mine"), "mine", "root inside may read what is not its own");
}

fn lists_of_users_name_them_as_in_the_image(line: &Line) {
    let expected: String = LIST.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(line.attribute("/listed", "system.posix_acl_access"), expected);
}

/// What is mounted on `/`.
fn root_of(line: &Line) -> String {
    let mounts = line.read("/proc/self/mountinfo");
    let root = mounts.lines().find(|mount| mount.split(' ').nth(4) == Some("/"));
    root.unwrap_or_else(|| panic!("no root in\n{mounts}")).to_owned()
}

fn what_init_makes_belongs_to_root_inside(a: &Line) {
    for path in
        ["/dev", "/dev/null", "/dev/stdout", "/dev/shm", "/scratch", "/dev/probe", "/proc/self/environ"]
    {
        assert_eq!(owner(a, path), (0, 0), "{path}");
    }
    for path in ["/dev/shm/file", "/dev/file", "/scratch/file", "/file"] {
        a.write(path, "x").unwrap();
        assert_eq!(owner(a, path), (0, 0), "{path}");
    }
}

fn files_can_be_given_away_inside(a: &Line) {
    for path in ["/home/user/mine", "/file", "/scratch/file"] {
        let output = a.run(&["/probe", "chown", path, "33", "65535"]);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{path}");
        assert_eq!(owner(a, path), (33, 65_535), "{path}");
    }
    let output = a.run(&["/probe", "chown", "/file", "65536", "0"]);
    assert_eq!(output.code, Some(2), "there is no such user inside");
}

fn another_service_is_out_of_reach(a: &Line, b: &Line, c: &Line) {
    let pid = process_of(b, c);
    for file in ["environ", "mem", "root", "fd"] {
        let path = format!("/machine/proc/{pid}/{file}");
        let request = match file {
            "root" | "fd" => Request::List { path },
            _ => Request::Read { path },
        };
        let errno = a.try_ask(&request).unwrap_err().errno;
        assert!([EACCES, EPERM].contains(&errno), "{file}: {errno}");
    }
    let refusal = a.try_ask(&Request::Signal { pid, signal: 9 }).unwrap_err();
    assert_eq!(refusal.errno, ESRCH);
    assert_eq!(b.identity().pid, 1);
}

fn services_with_the_machines_users_reach_each_other(c: &Line, d: &Line) {
    let own = d.link("/proc/self/ns/pid");
    let pids = c.list("/machine/proc").into_iter().filter_map(|name| name.parse::<i32>().ok());
    let link = |pid: i32| c.try_ask(&Request::Link { path: format!("/machine/proc/{pid}/ns/pid") });
    let seen = pids.filter(|&pid| link(pid) == Ok(probe::Answer::Text(own.clone()))).count();
    assert_eq!(seen, 1, "the other one's process is found by what only a peer can read");
}

fn the_machines_settings_are_out_of_reach(a: &Line) {
    for file in ["sys/kernel/core_pattern", "sys/kernel/printk", "sys/vm/overcommit_memory", "sysrq-trigger"]
    {
        assert_eq!(a.write(&format!("/machine/proc/{file}"), "1"), Err(EACCES), "{file}");
    }
}

fn pid_1_has_descriptors_for_the_namespaces_of_thousands(c: &Line) {
    let limits = c.read("/machine/proc/1/limits");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().next(), Some("65536"));
}

fn no_further_user_namespace_can_be_made(a: &Line) {
    assert_eq!(a.read("/proc/sys/user/max_user_namespaces"), "0\n");
    let output = a.run(&["/probe", "user-namespace"]);
    assert!(["ENOSPC\n", "EPERM\n"].contains(&output.stdout.as_str()), "{output:?}");
}

fn a_file_of_the_machine_belongs_to_the_one_service_that_sees_it(a: &Line, b: &Line) {
    assert_eq!(owner(a, "/srv"), (0, 0));
    assert_eq!(owner(a, "/srv/secret"), (5, 0));
    assert_eq!(a.read("/srv/secret"), "of a alone");
    a.write("/srv/new", "x").unwrap();
    for line in [a, b] {
        assert_eq!(owner(line, "/known"), (NOBODY, NOBODY));
        assert_eq!(line.read("/known"), "of a and b");
    }
}

fn a_volume_outlives_its_service(a: &Line, c: &Line) {
    let folder = a.stat("/data");
    assert_eq!((folder.mode & 0o7777, folder.uid, folder.gid), (0o750, 33, 34), "as in the image");
    a.write("/data/kept", "by the first run").unwrap();
    a.exit(1);
    a.next_start();
    assert_eq!(a.read("/data/kept"), "by the first run");
    assert_eq!(owner(a, "/data/kept"), (0, 0));
    assert!(!a.exists("/file"), "what is no volume is new");
    assert_eq!(owner(c, "/machine/var/data"), (first(a) + 33, first(a) + 34), "ramfs cannot map owners");
}

fn services_that_share_a_volume_share_their_users(heir: &Line) {
    assert_eq!(owner(heir, "/will/who"), (0, 0));
    heir.write("/will/who", "written again").unwrap();
}

fn a_volume_stores_the_numbers_inside_where_owners_can_be_mapped(a: &Line, c: &Line, is_mapped: bool) {
    a.write("/run/data/file", "x").unwrap();
    assert_eq!(owner(a, "/run/data/file"), (0, 0));
    let stored = if is_mapped { 0 } else { first(a) };
    assert_eq!(owner(c, "/machine/run/data/file"), (stored, stored));
}

//! Bugs that have led out of containers of other runtimes since 2016, tried on ours: the list is in docs/escapes.md.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Config, Image, Kernel, Layer, Line, Machine, layout, made};

/// User 0's and nobody's capabilities, as `/proc/PID/status` has them.
const OF_ROOT: &str = "00000000000005fb";
const NONE: &str = "0000000000000000";

/// An image that tries what images have tried.
fn image() -> String {
    let program = fs::read(made("dist-test/probe", "dist")).unwrap();
    let capable = [&[1, 0, 0, 2][..], &[0xff; 4], &[0; 4], &[0xff; 4], &[0; 4]].concat();
    let layer = Layer::with_probe()
        .directory("etc", 0o755, (0, 0))
        .file("etc/passwd", 0o644, b"web:x:1000:1000::/:/\nweb:x:0:0::/:/\n1000:x:0:0::/:/\n")
        .file("etc/group", 0o644, b"web:x:1000:\nother:x:50:\n")
        .directory("dev", 0o755, (0, 0))
        .symlink("dev/null", "/etc/passwd")
        .symlink("dev/console", "/etc/passwd")
        .symlink("dev/pts", "/etc")
        .symlink("dev/shm", "/etc")
        .directory("proc", 0o555, (0, 0))
        .symlink("proc/kcore", "/etc/passwd")
        .symlink("proc/sys", "/etc")
        .directory("proc/self", 0o755, (0, 0))
        .symlink("proc/self/attr", "/etc")
        .directory("sys", 0o555, (0, 0))
        .symlink("sys/firmware", "/etc")
        .directory("sys/fs", 0o755, (0, 0))
        .symlink("sys/fs/cgroup", "/etc")
        .symlink("run", "../../../../../../etc")
        .symlink("link", "/../../run")
        .directory("tmp", 0o1777, (0, 0))
        .file("trick", 0o755, b"#!/proc/self/exe\n")
        .attribute("security.capability", &capable)
        .file("capable", 0o755, &program)
        .owned_file("as-other", 0o2755, (0, 50), &program)
        .owned_file("closed-to-web", 0o604, (0, 1000), b"");
    let config = json!({ "Entrypoint": ["/probe"], "Cmd": ["agent"], "WorkingDir": "/" });
    layout("escape-images", vec![Image { tag: "hostile", layers: vec![layer], config }])
}

fn machine(kernel: Kernel) -> Machine {
    const AGENT: &str = "command = [\"agent\"]\n";
    let image = format!("{}:hostile", image());
    Config::new("escapes")
        .kernel(kernel)
        .with(&format!(
            "[service.trick]\nimage = \"{image}\"\nentrypoint = [\"/trick\"]\nrestart = \"never\"\n\
             [[file]]\npath = \"/srv/v/of-the-machine\"\ncontents = \"\"\n"
        ))
        .probe_in(&image, "root", &format!("{AGENT}volumes = [\"/srv/v:/link/v\"]\n"))
        .probe_in(&image, "user", &format!("{AGENT}user = \"web\"\nread-only = true\n"))
        .probe_in(&image, "gifted", &format!("{AGENT}user = \"web\"\nallow-setuid = true\n"))
        .probe("seer", "pid = \"host\"\nuserns = \"host\"\nunmask = \"all\"")
        .boot()
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
    let [root, user, gifted, seer] = ["root", "user", "gifted", "seer"].map(|name| machine.probe(name));
    for line in [root, user] {
        what_the_image_has_in_the_way_of_mounts_means_nothing(line);
        there_is_no_cgroup_to_write_to(line);
    }
    a_volume_stays_inside_whatever_leads_to_it(root);
    nobody_hears_pid_1(root, seer);
    capabilities_of_files_give_nothing(root, user);
    nobody_loses_a_group_by_a_set_id_program(gifted);
    inits_program_does_nothing_in_a_container(&machine);
    for line in [root, gifted, seer] {
        nothing_is_handed_down(line);
        line.exit(1);
        line.next_start();
        nothing_is_handed_down(line);
    }
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
}

fn what_the_image_has_in_the_way_of_mounts_means_nothing(line: &Line) {
    assert_eq!(line.stat("/dev/null").device, (1, 3));
    assert!(!line.exists("/dev/console"));
    for folder in ["/dev/pts", "/dev/shm", "/proc/sys", "/sys/firmware"] {
        assert_eq!(line.stat(folder).mode & 0o170_000, 0o040_000, "{folder}");
    }
    assert!(line.exists("/dev/pts/ptmx"));
    assert_eq!((line.read("/proc/kcore"), line.list("/sys/firmware")), (String::new(), vec![]));
    assert!(line.read("/etc/passwd").starts_with("web:"), "where the links lead");
    for made in ["/etc/kcore", "/etc/ptmx", "/etc/shm", "/etc/cgroup.procs"] {
        assert!(!line.exists(made), "{made}");
    }
}

fn there_is_no_cgroup_to_write_to(line: &Line) {
    assert_eq!(line.list("/sys/fs/cgroup"), [""; 0]);
    let mounts = line.read("/proc/self/mountinfo");
    assert!(!mounts.contains("cgroup"), "{mounts}");
}

/// The link that leads to the mount point leads out, if it is not followed inside.
fn a_volume_stays_inside_whatever_leads_to_it(root: &Line) {
    assert_eq!(root.list("/etc/v"), ["of-the-machine"]);
    root.write("/etc/v/file", "x").unwrap();
}

/// Abstract sockets are of the network, which services share with the machine.
fn nobody_hears_pid_1(root: &Line, seer: &Line) {
    for line in [root, seer] {
        let sockets = line.read("/proc/net/unix");
        assert!(!sockets.contains('@'), "{sockets}");
    }
}

fn capabilities_of_files_give_nothing(root: &Line, user: &Line) {
    for (line, expected) in [(root, OF_ROOT), (user, NONE)] {
        assert!(line.attribute("/capable", "security.capability").starts_with("01000002ffffffff"));
        let output = line.run(&["/capable", "show", "/proc/self/status"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        for set in ["CapEff", "CapPrm"] {
            assert!(output.stdout.contains(&format!("{set}:\t{expected}\n")), "{set}: {output:?}");
        }
    }
}

/// What is closed to a group is closed to its members, also while they run a program of another group's.
fn nobody_loses_a_group_by_a_set_id_program(gifted: &Line) {
    assert_eq!((gifted.identity().gid, gifted.identity().groups), (1000, vec![1000]));
    for program in ["/probe", "/as-other"] {
        let output = gifted.run(&[program, "read", "/closed-to-web"]);
        assert!(output.stderr.contains("Permission denied"), "{program}: {output:?}");
    }
    let status = gifted.run(&["/as-other", "show", "/proc/self/status"]).stdout;
    assert!(status.contains("Gid:\t1000\t50\t50\t50\n"), "the program is of another group: {status}");
}

/// Before exec, `/proc/self/exe` of a container's first process is init's program: this is what a script names as its
/// interpreter. It finds nothing there that it could do, and the machine is as it was.
fn inits_program_does_nothing_in_a_container(machine: &Machine) {
    tests::eventually("the trick has ended", || {
        machine.console().lines().any(|line| line.contains("`trick` ") && line.contains("ended"))
    });
}

fn nothing_is_handed_down(line: &Line) {
    let identity = line.identity();
    assert_eq!(identity.descriptors, [0, 1, 2]);
    assert_eq!(line.link("/proc/self/fd/0"), "/dev/null");
    for number in [1, 2] {
        assert!(line.link(&format!("/proc/self/fd/{number}")).starts_with("pipe:"), "{number}");
    }
    let names: Vec<&str> = identity.env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["HOME", "HOSTNAME", "PATH"]);
    assert!(identity.cwd.starts_with('/'), "{}", identity.cwd);
}

/// How often the victims start until the test is content.
const STARTS: usize = 1000;

/// One service swaps a folder for a link all the time, while others start with a volume there, or below: none of them
/// is led to where the link leads, and nothing is made there (CVE-2021-30465, CVE-2024-45310). Meanwhile another looks
/// at the programs of all processes.
#[test]
fn a_thousand_starts_beside_a_swapping_neighbour_change_nothing_outside() {
    let probe = tests::probe_image();
    let service = |name: &str, command: &str, keys: &str| {
        format!("[service.{name}]\nimage = \"{probe}\"\ncommand = [\"/probe\", {command}]\n{keys}\n")
    };
    /// Whoever is first makes the folder its own.
    const AFTER: &str = "depends-on = { maker = \"completed\" }";
    let victims: String = (0..160)
        .map(|number| {
            let (source, file) = if number % 2 == 0 { ("a", "marker") } else { ("a/new", "new/marker") };
            let keys = format!("read-only = true\nvolumes = [\"/srv/v/{source}:/in\"]\n{AFTER}");
            service(&format!("v{number}"), &format!("\"witness\", \"/in/{file}\""), &keys)
        })
        .collect();
    let machine = Config::new("swapped")
        .with(
            &service("maker", "\"exit\", \"0\"", "volumes = [\"/srv/v:/v\"]")
                .replace("[service.", "[oneshot."),
        )
        .with("[[file]]\npath = \"/srv/secret/marker\"\ncontents = \"of the machine\"\n")
        .probe("a", "volumes = [\"/srv/secret:/secret\"]")
        .with(&service("spy", "\"spy\"", "userns = \"host\"\npid = \"host\""))
        .with(&service(
            "swapper",
            "\"swap\", \"/v\", \"/srv/secret\"",
            &format!("volumes = [\"/srv/v:/v\"]\n{AFTER}"),
        ))
        .with(&victims)
        .start();
    let begun = Instant::now();
    let count = |said: &str| machine.console().matches(said).count();
    let (mut inside, mut refused) = (0, 0);
    while inside + refused < STARTS {
        assert!(begun.elapsed() < Duration::from_secs(240), "{inside} starts inside, and {refused} refused");
        std::thread::sleep(Duration::from_millis(500));
        (inside, refused) = (count("in place"), count("cannot start `v"));
    }
    let a = machine.probe("a");
    assert_eq!(a.list("/secret"), ["marker"]);
    assert_eq!(a.read("/secret/marker"), "of the machine");
    let console = machine.console();
    assert!(inside > 50 && refused > 50, "{inside} starts inside, and {refused} refused: there was no race");
    for said in ["swapping", "spying"] {
        assert!(console.contains(said), "{console}");
    }
    for said in ["led astray", "spy: /proc"] {
        assert!(!console.contains(said), "{console}");
    }
}

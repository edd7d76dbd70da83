//! What a service may take of the machine, and which devices it reaches: one machine of greedy services, on both
//! kernels.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use tests::{Config, Kernel, Line, Machine, eventually};

const EPERM: i32 = 1;
const EBUSY: i32 = 16;

/// What a probe needs to see the machine's side.
const MACHINE: &str = "volumes = [\"/sys/fs/cgroup:/machine/cgroup:ro\", \"/proc:/machine/proc\", \
                       \"/srv:/machine/srv\"]";

fn machine(kernel: Kernel) -> Machine {
    let greedy = |name: &str, command: &str, keys: &str| {
        let image = tests::probe_image();
        format!(
            "[service.{name}]\nimage = \"{image}\"\ncommand = [\"/probe\", {command}]\nrestart = \"never\"\n{keys}\n"
        )
    };
    Config::new("limits")
        .kernel(kernel)
        .first_process("precede", "")
        .probe("a", MACHINE)
        .probe(
            "b",
            &format!(
                "{MACHINE}\nmemory = \"64MiB\"\nmemory-reservation = \"8MiB\"\npids-limit = 33\ncpus = 0.5\n\
                 cpuset = \"0\"\noom-score-adj = 200\nshm-size = \"1MiB\"\n\
                 ulimits = {{ nofile = 100, core = -1, nproc = {{ soft = 40, hard = 50 }} }}"
            ),
        )
        .with(&greedy("forks", "\"fork-bomb\"", "pids-limit = 20"))
        .with(&greedy("eats", "\"memory-bomb\"", "memory = \"16MiB\""))
        .with(&greedy("stuffs", "\"memory-bomb\", \"/dev/shm/x\"", "memory = \"16MiB\"\nshm-size = \"1GiB\""))
        .with(&greedy("fits", "\"memory-bomb\", \"/dev/shm/x\"", "memory = \"16MiB\"\nshm-size = \"1MiB\""))
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

/// Its own limit is above what all services have together, so that it takes all that there is.
#[test]
fn services_cannot_take_what_the_machine_needs() {
    for kernel in Kernel::ALL {
        let image = tests::probe_image();
        let machine = Config::new("limits-all")
            .kernel(kernel)
            .with("[kernel]\nmodules = [\"virtio_blk\"]")
            .device("-blockdev", "driver=null-co,node-name=disk,size=1048576,read-zeroes=on")
            .device("-device", "virtio-blk-pci,drive=disk")
            .probe("a", MACHINE)
            .with(&format!(
                "[service.hog]\nimage = \"{image}\"\ncommand = [\"/probe\", \"memory-bomb\"]\nmemory = \"500MiB\"\n\
                 [service.least]\nimage = \"{image}\"\ncommand = [\"/probe\", \"pause\"]\nmemory = \"4MiB\"\n\
                 io-weight = 300\n"
            ))
            .boot();
        let a = machine.probe("a");
        a_weight_for_disks_counts_on_the_machines_disks(a);
        console_says(&machine, "`hog` may have more memory than the machine's");
        console_says(&machine, "`hog` was ended by SIGKILL: the machine had no memory left for services");
        console_says(&machine, "`hog` starts again in 0.1 s");
        // The smallest that there is runs, and those who take little are not the ones who pay.
        console_says(&machine, "least | pausing");
        assert_eq!(a.run(&["/probe", "exit", "7"]).code, Some(7));
        for name in ["a", "least"] {
            assert!(value(a, name, "memory.events").lines().any(|line| line == "oom_kill 0"), "{name}");
        }
        let ended = machine.power_off();
        assert_eq!(ended.code, 0, "{}", ended.output);
        assert!(!ended.output.contains("no killable processes"), "{}", ended.output);
    }
}

/// Weights mean nothing on a disk until the kernel is told that they do.
fn a_weight_for_disks_counts_on_the_machines_disks(a: &Line) {
    assert_eq!(value(a, "least", "io.weight"), "default 300");
    assert_eq!(value(a, "a", "io.weight"), "default 100");
    let number = a.read("/sys/block/vda/dev");
    let settings = a.read("/machine/cgroup/io.cost.qos");
    let disk = settings.lines().find_map(|line| line.strip_prefix(number.trim()));
    assert!(disk.is_some_and(|settings| settings.starts_with(" enable=1")), "{settings}");
    assert_eq!(settings.lines().count(), 1, "{settings}");
}

fn check_all(machine: Machine) {
    let (a, b) = (machine.probe("a"), machine.probe("b"));
    limits_are_those_of_the_config_or_the_default(a);
    all_services_together_leave_a_reserve(a);
    processes_have_the_limits_of_the_table(a, b);
    files_in_memory_have_a_size(&machine, a, b);
    a_fork_bomb_ends_at_its_limit(&machine, a);
    a_lack_of_memory_ends_one_service_and_is_its_reason(&machine, a);
    no_device_is_made(a);
    only_devices_of_the_list_are_opened(&machine, a, b);
    // The neighbours of all this are as they were.
    for line in [a, b] {
        assert_eq!(line.identity().pid, 1);
    }
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    for name in ["a", "b"] {
        let starts = ended.events[name].iter().filter(|event| matches!(event, probe::Event::Started { .. }));
        assert_eq!(starts.count(), 1, "{name} was not disturbed: {}", ended.output);
    }
}

/// A value in the cgroup of a service, or in that of all of them.
fn value(line: &Line, service: &str, file: &str) -> String {
    line.read(&format!("/machine/cgroup/services/{service}/{file}")).trim().to_owned()
}

fn limits_are_those_of_the_config_or_the_default(a: &Line) {
    let half = memory_of(a) / 2;
    for (service, file, expected) in [
        ("a", "memory.max", (half & !4095).to_string().as_str()),
        ("a", "memory.low", "0"),
        ("a", "memory.oom.group", "1"),
        ("a", "pids.max", "512"),
        ("b", "memory.max", "67108864"),
        ("b", "memory.low", "8388608"),
        ("b", "memory.oom.group", "1"),
        ("b", "pids.max", "33"),
        ("b", "cpu.max", "50000 100000"),
        ("b", "cpuset.cpus", "0"),
        ("a", "cpu.max", "max 100000"),
    ] {
        assert_eq!(value(a, service, file), expected, "{service}: {file}");
    }
    if a.exists("/machine/cgroup/services/a/memory.swap.max") {
        assert_eq!(value(a, "a", "memory.swap.max"), "0");
    }
}

/// Bytes.
fn memory_of(line: &Line) -> u64 {
    let text = line.read("/proc/meminfo");
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    total.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn all_services_together_leave_a_reserve(a: &Line) {
    let number = |file: &str| value(a, "", file).parse::<u64>().unwrap();
    let memory = memory_of(a);
    assert!((memory / 4..=memory - (16 << 20)).contains(&number("memory.max")), "{}", number("memory.max"));
    assert_eq!(number("memory.low"), 8 << 20);
    let threads: u64 = a.read("/proc/sys/kernel/threads-max").trim().parse().unwrap();
    assert!((256..=threads - 256).contains(&number("pids.max")), "{} of {threads}", number("pids.max"));
}

fn processes_have_the_limits_of_the_table(a: &Line, b: &Line) {
    let limit = |line: &Line, name: &str| {
        let text = line.read("/proc/self/limits");
        let row = text.lines().find_map(|row| row.strip_prefix(name)).unwrap_or_default();
        row.split_whitespace().take(2).collect::<Vec<_>>().join(":")
    };
    for (line, name, expected) in [
        (a, "Max open files", "4096:65536"),
        (a, "Max core file size", "0:0"),
        (a, "Max locked memory", "65536:65536"),
        (b, "Max open files", "100:100"),
        (b, "Max core file size", "unlimited:unlimited"),
        (b, "Max locked memory", "65536:65536"),
        (b, "Max processes", "40:50"),
    ] {
        assert_eq!(limit(line, name), expected, "{name}");
    }
    assert_eq!(a.read("/proc/self/oom_score_adj").trim(), "0");
    assert_eq!(b.read("/proc/self/oom_score_adj").trim(), "200");
}

fn files_in_memory_have_a_size(machine: &Machine, a: &Line, b: &Line) {
    for (line, size) in [(a, "size=65536k"), (b, "size=1024k")] {
        let mounts = line.read("/proc/self/mountinfo");
        let shm = mounts.lines().find(|line| line.contains(" /dev/shm ")).unwrap();
        assert!(shm.split([' ', ',']).any(|option| option == size), "{shm}");
    }
    console_says(machine, "1024 KiB, and no more: No space left on device");
}

fn a_fork_bomb_ends_at_its_limit(machine: &Machine, neighbour: &Line) {
    console_says(machine, "19 children, and no more: Resource temporarily unavailable");
    assert_eq!(value(neighbour, "forks", "pids.current"), "20");
    let events = value(neighbour, "forks", "pids.events");
    assert!(!events.contains("max 0"), "{events}");
    // The neighbour can still have processes.
    assert_eq!(neighbour.run(&["/probe", "exit", "7"]).code, Some(7));
}

fn a_lack_of_memory_ends_one_service_and_is_its_reason(machine: &Machine, neighbour: &Line) {
    for name in ["eats", "stuffs"] {
        let sentence = format!("`{name}` was ended by SIGKILL: it needed more than its 16 MiB of memory");
        console_says(machine, &sentence);
        let events = value(neighbour, name, "memory.events");
        assert!(!events.lines().any(|line| line == "oom_kill 0"), "{events}");
    }
    for name in ["a", "b", "forks", "fits"] {
        let events = value(neighbour, name, "memory.events");
        assert!(events.lines().any(|line| line == "oom_kill 0"), "{name}: {events}");
    }
}

fn console_says(machine: &Machine, what: &str) {
    eventually(what, || machine.console().contains(what));
}

fn no_device_is_made(a: &Line) {
    for (major, minor) in [("1", "1"), ("1", "3"), ("4", "64")] {
        let output = a.run(&["/probe", "mknod", "/dev/made", major, minor]);
        assert!(output.stderr.contains("Operation not permitted"), "{major}:{minor}: {}", output.stderr);
    }
}

/// Nodes that a container cannot make, which somebody from outside puts into its `/dev`.
fn only_devices_of_the_list_are_opened(machine: &Machine, a: &Line, b: &Line) {
    let pid = first_process_of(a, "b");
    let own = b.stat("/dev/probe").device;
    let other = a.stat("/dev/probe").device;
    for (name, (major, minor), expected) in [
        ("null-again", (1, 3), Ok(())),
        ("memory", (1, 1), Err(EPERM)),
        ("serial", (4, 64), Err(EPERM)),
        ("console", (5, 1), Err(EPERM)),
        // A port has one user: this one is let through, and the device itself refuses.
        ("own-port", own, Err(EBUSY)),
        ("other-port", other, Err(EPERM)),
    ] {
        let planted = machine.order("a", &format!("node {pid} {name} {major} {minor}"));
        assert_eq!(planted, "Ok(())", "{name}");
        assert_eq!(b.write(&format!("/dev/{name}"), "x"), expected, "{name}");
    }
}

/// In the machine's own numbers.
fn first_process_of(line: &Line, service: &str) -> String {
    let cgroup = format!("0::/../{service}\n");
    let pids = line.list("/machine/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    let mut of_service = pids.filter(|pid| line.read(&format!("/machine/proc/{pid}/cgroup")) == cgroup);
    of_service.next().unwrap_or_else(|| panic!("no process of `{service}`"))
}

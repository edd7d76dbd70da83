//! Who reboots a machine whose PID 1 is stuck, and that nobody else's machine is rebooted.

use std::time::Duration;

use tests::oracle::survived;
use tests::{Config, Kernel, Line, Machine, demo_image, eventually, within};

/// From a reset until a boot beside others has come far.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
const SRV: &str = "volumes = [\"/srv:/machine/srv\"]";

/// A machine that can be made to be stuck, with the shortest time-out.
fn machine(name: &str) -> Config {
    Config::new(name).first_process("precede", "").with("[watchdog]\ntimeout = \"10s\"").probe("a", SRV)
}

/// Its name, its state and its time-out.
fn watchdog(line: &Line) -> [String; 3] {
    ["identity", "state", "timeout"]
        .map(|file| line.read(&format!("/sys/class/watchdog/watchdog0/{file}")).trim().to_owned())
}

/// PID 1 does not end, but it does nothing any more. Returns QEMU's events until the machine's end, and the console.
fn is_stuck(machine: Machine) -> (Vec<String>, String) {
    let monitor = machine.open_monitor();
    machine.give_order("a", "spin");
    let events = monitor.events();
    let ended = machine.wait();
    assert_eq!(ended.code, 1, "QEMU ends with the reboot: {}", ended.output);
    for other in ["Kernel panic", "powers off", "Power down"] {
        assert!(!ended.output.contains(other), "{}", ended.output);
    }
    (events, ended.output)
}

#[test]
fn the_kernels_own_watchdog_reboots_a_machine_whose_pid_1_is_stuck() {
    let machine = machine("stuck").boot();
    assert_eq!(watchdog(machine.probe("a")), ["Software Watchdog", "active", "10"]);
    let (events, output) = is_stuck(machine);
    assert!(events.iter().all(|event| event != "WATCHDOG"), "{events:?}");
    assert!(output.contains("softdog: Initiating system reboot"), "{output}");
    survived("a stuck PID 1", "its code overwritten by an endless loop: softdog", 1);
}

/// A piece of memory that the kernel leaves alone, and that a reset does not clear.
const MEMORY: &str = "memmap=1M$0x10000000 ramoops.mem_address=0x10000000 ramoops.mem_size=0x100000 \
                      ramoops.record_size=0x20000";

#[test]
fn each_boot_tells_why_the_one_before_ended() {
    let machine = Config::new("post-mortem")
        .first_process_with("precede", &format!("{MEMORY} ramoops.max_reason=3"), "modules = [\"ramoops\"]")
        .with("[watchdog]\ntimeout = \"10s\"")
        .probe("a", SRV)
        .device("-action", "reboot=reset")
        .boot();
    assert!(!machine.console().contains("the boot before"), "nothing was before");
    machine.give_order("a", "spin");
    eventually("it is reset", || machine.console().contains("softdog: Initiating system reboot"));
    let sentence = "the boot before was not ended in order: softdog: Initiating system reboot";
    eventually("the next boot tells", || machine.console().contains(sentence));
    eventually("it goes on", || machine.console().matches("ready after").count() == 2);
    // Now it dies instead, by an instruction that does not exist.
    machine.give_order("a", "break");
    let sentence =
        "the boot before was not ended in order: Kernel panic - not syncing: Attempted to kill init!";
    within(BOOT_TIMEOUT, "the boot after that tells as well", || machine.console().contains(sentence));
    within(BOOT_TIMEOUT, "it goes on again", || machine.console().matches("ready after").count() == 3);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(ended.output.contains("Power down"), "{}", ended.output);
    survived(
        "a PID 1 that dies",
        "its code overwritten by no instruction: panic, reboot, and told after it",
        1,
    );
}

#[test]
fn the_next_boot_tells_what_kept_pid_1_from_going_on() {
    // Which is no panic of the kernel by itself. Each boot ends like the one before.
    let machine = Config::new("post-mortem-own")
        .with(&format!(
            "[kernel]\ncmdline = \"{MEMORY} cgroup_disable=memory\"\nmodules = [\"ramoops\"]\n\
             [oneshot.a]\nimage = \"{}\"\ncommand = [\"true\"]",
            demo_image("busybox")
        ))
        .device("-action", "reboot=reset")
        .start();
    let line = |start: &str, end: &str| {
        let console = machine.console();
        let mut lines = console.lines().filter_map(|line| line.trim_end().strip_prefix("coracle | "));
        lines.find_map(|line| line.strip_prefix(start).filter(|line| line.ends_with(end)).map(str::to_owned))
    };
    let end = "; the machine reboots";
    within(BOOT_TIMEOUT, "it cannot go on", || line("cannot ", end).is_some());
    assert_eq!(line("the boot before", ""), None, "nothing was before");
    let before = "the boot before was not ended in order: coracle: cannot ";
    within(BOOT_TIMEOUT, "the next boot tells", || line(before, "").is_some());
    assert_eq!(line(before, ""), line("cannot ", end));
}

#[test]
fn the_hardwares_watchdog_comes_before_the_kernels_own() {
    let machine = machine("stuck-hardware").kernel(Kernel::Second).device("-device", "i6300esb").boot();
    assert_eq!(watchdog(machine.probe("a")), ["i6300ESB timer", "active", "10"]);
    // Which is there for hardware that does nothing.
    for (file, expected) in [("identity", "Software Watchdog"), ("state", "active"), ("timeout", "15")] {
        let path = format!("/sys/class/watchdog/watchdog1/{file}");
        assert_eq!(machine.probe("a").read(&path).trim(), expected, "{file}");
    }
    let (events, _) = is_stuck(machine);
    assert!(events.iter().any(|event| event == "WATCHDOG"), "{events:?}");
    survived("a stuck PID 1", "its code overwritten by an endless loop: i6300esb", 1);
}

#[test]
fn a_long_farewell_is_not_cut_short() {
    let machine = Config::new("farewell")
        .with("[watchdog]\ntimeout = \"10s\"")
        .probe("a", "command = [\"/probe\", \"agent\", \"--ignore-stop\"]\nstop-grace-period = \"15s\"")
        .boot();
    machine.probe("a").identity();
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(ended.output.contains("`a` has not stopped in time, and is killed"), "{}", ended.output);
    assert!(ended.output.contains("Power down"), "{}", ended.output);
}

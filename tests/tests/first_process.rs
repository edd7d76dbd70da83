//! PID 1 itself: who can end it, what follows when it breaks, and that nobody can change it.

use tests::{Config, Ended, Kernel, Machine, demo_image};

/// A probe that can give orders to the outsider.
const SRV: &str = "volumes = [\"/srv:/machine/srv\", \"/proc:/machine/proc\"]";
/// "Read-only file system".
const EROFS: i32 = 30;

#[test]
fn ctrl_alt_delete_powers_off_on_both_kernels() {
    for kernel in Kernel::ALL {
        let machine = Config::new("ctrl-alt-delete").kernel(kernel).probe("a", "").boot();
        machine.probe("a").identity();
        machine.press(&["ctrl", "alt", "delete"]);
        powered_off(machine.wait());
    }
}

#[test]
fn sigterm_powers_off() {
    let machine = Config::new("sigterm").first_process("precede", "").probe("a", SRV).boot();
    machine.give_order("a", "15 1");
    powered_off(machine.wait());
}

/// In order: the services were asked first.
fn powered_off(ended: Ended) {
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(ended.output.contains("powers off"), "{}", ended.output);
    assert!(ended.events["a"].iter().any(|event| matches!(event, probe::Event::Stopping { .. })));
}

#[test]
fn signals_that_end_other_processes_do_nothing() {
    let machine = Config::new("signals").first_process("precede", "").probe("a", SRV).boot();
    for signal in [1, 4, 6, 8, 9, 11, 13, 14, 19, 24, 31] {
        assert_eq!(machine.order("a", &format!("{signal} 1")), "Ok(())");
    }
    machine.probe("a").exit(0);
    machine.probe("a").next_start();
    powered_off(machine.power_off());
}

#[test]
fn a_boot_that_cannot_go_on_says_why_and_reboots() {
    // On the console, and in the kernel's log: at this level its records reach the console too.
    for (cmdline, from) in [("", "coracle | "), ("loglevel=6", "coracle: ")] {
        let ended = Config::new("spoiled").first_process("spoil", cmdline).start().wait();
        assert_eq!(ended.code, 1, "QEMU ends with the reboot: {}", ended.output);
        let why = format!("{from}cannot use the boot manifest `/coracle/manifest.json`: missing field");
        assert!(ended.output.contains(&why), "{}", ended.output);
        assert!(ended.output.contains("Restarting system"), "{}", ended.output);
    }
}

#[test]
fn the_death_of_pid_1_is_a_reboot() {
    let machine = Config::new("broken").first_process("precede", "").probe("a", SRV).boot();
    machine.give_order("a", "break");
    let ended = machine.wait();
    assert_eq!(ended.code, 1, "QEMU ends with the reboot: {}", ended.output);
    assert!(ended.output.contains("Attempted to kill init!"), "{}", ended.output);
}

#[test]
fn nobody_can_write_to_what_is_inits_own() {
    let volumes = "volumes = [\"/:/machine/root\", \"/coracle:/machine/own\", \"/run:/machine/run\", \
                   \"/srv:/machine/srv\", \"/new/volume:/new\", \"/proc:/machine/proc\"]";
    let machine = Config::new("sealed").first_process("precede", "").probe("a", volumes).boot();
    let a = machine.probe("a");
    for path in
        ["root/init", "root/new-file", "root/coracle/x", "own/manifest.json", "run/coracle/resolv.conf"]
    {
        assert_eq!(a.write(&format!("/machine/{path}"), "x"), Err(EROFS), "{path}");
    }
    for path in ["/machine/srv/x", "/new/x"] {
        assert_eq!(a.write(path, "x"), Ok(()), "{path}");
    }
    // Not even the mount that the kernel ran init from, where `/proc/self/exe` of a container's child leads.
    let answer = machine.order("a", "create /new-file");
    assert!(answer.contains("code: 30"), "{answer}");
}

#[test]
fn a_link_in_a_shared_volume_leads_nowhere() {
    let busybox = demo_image("busybox");
    let ended = Config::new("turned-around")
        .with(&format!(
            "[oneshot.attacker]\nimage = \"{busybox}\"\ncommand = [\"ln\", \"-s\", \"/\", \"/v/link\"]\n\
             volumes = [\"/srv/v:/v\"]\n\
             [oneshot.victim]\nimage = \"{busybox}\"\ncommand = [\"true\"]\nvolumes = [\"/srv/v/link:/v\"]\n\
             depends-on = {{ attacker = \"completed\" }}\n"
        ))
        .start()
        .wait();
    assert_eq!(ended.code, 126, "{}", ended.output);
    assert!(ended.output.contains("cannot start `victim`: cannot mount `/v`"), "{}", ended.output);
}

#[test]
fn whoever_is_killed_from_outside_comes_back_and_is_reaped() {
    let machine =
        Config::new("killed").first_process("precede", "").probe("victim", "").probe("a", SRV).boot();
    machine.probe("victim").next_start();
    let victim = pid(&machine, |cgroup, _| cgroup.ends_with("/victim\n"));
    machine.order("a", &format!("9 {victim}"));
    machine.probe("victim").next_start();
    // The outsider is a child of PID 1 as well, though no service.
    let outsider = pid(&machine, |_, name| name == "first\n");
    machine.order("a", "leave");
    tests::eventually("the outsider is gone", || {
        !machine.probe("a").exists(&format!("/machine/proc/{outsider}"))
    });
}

/// The first process of the machine whose cgroup and name are the wanted ones.
fn pid(machine: &Machine, wanted: impl Fn(&str, &str) -> bool) -> u32 {
    let probe = machine.probe("a");
    let read = |pid: u32, file: &str| probe.read(&format!("/machine/proc/{pid}/{file}"));
    let pids = probe.list("/machine/proc").into_iter().filter_map(|name| name.parse().ok());
    let mut others = pids.filter(|&pid| pid > 1 && wanted(&read(pid, "cgroup"), &read(pid, "comm")));
    others.next().expect("there is such a process")
}

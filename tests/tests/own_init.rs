//! Containers with a first process of init's own before their program (`init = true`).

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::process::Output;

use manifest::control::ServiceState;
use tests::oracle::{service, survived};
use tests::{Config, Kernel, Line, Machine, demo_image, eventually, probe_image};

/// The capability to signal others, alone.
const KILL: &str = "0000000000000020";
const NONE: &str = "0000000000000000";
/// How many processes are left to the first one.
const ORPHANS: usize = 50;

fn machine(kernel: Kernel) -> Machine {
    let (probe, busybox) = (probe_image(), demo_image("busybox"));
    let service = |name: &str, image: &str, command: &str, keys: &str| {
        format!(
            "[service.{name}]\nimage = \"{image}\"\ncommand = {command}\ninit = true\nrestart = \"never\"\n{keys}\n"
        )
    };
    // Whoever is killed has waited for a minute, which nobody can take for an answer to a signal.
    let patient = "stop-grace-period = \"1m\"";
    let trap = "for s in HUP USR1 TERM; do trap \\\"echo $s\\\" $s; done; trap 'echo INT; exit 3' INT; echo set; \
                while :; do sleep 1 & wait $!; done";
    Config::new("own-init")
        .kernel(kernel)
        .probe("agent", "init = true")
        .probe("mighty", "init = true\nprivileged = true")
        .probe("watcher", "volumes = [\"/proc:/machine/proc\"]\npid = \"host\"")
        .with(&service("neglects", &probe, &format!("[\"/probe\", \"neglect\", \"{ORPHANS}\"]"), ""))
        .with(&service("sleeps", &busybox, "[\"sleep\", \"100000\"]", patient))
        .with(&service(
            "traps",
            &busybox,
            &format!("[\"sh\", \"-c\", \"{trap}\"]"),
            &format!("{patient}\nstop-signal = \"INT\""),
        ))
        .with(&service(
            "drops",
            &probe,
            "[\"/probe\", \"sleep-as\", \"33\"]",
            &format!("cap-drop = [\"ALL\"]\ncap-add = [\"SETUID\"]\n{patient}"),
        ))
        .with(&service("user", &busybox, "[\"sleep\", \"100000\"]", &format!("user = 1000\n{patient}")))
        .with(&service(
            "shares",
            &busybox,
            "[\"sh\", \"-c\", \"(sleep 0 &); (sleep 1000 &); exec sleep 100000\"]",
            &format!("pid = \"host\"\n{patient}"),
        ))
        .with(&service(
            "strict",
            &busybox,
            "[\"sleep\", \"100000\"]",
            &format!("seccomp = \"unconfined\"\nulimits = {{ nofile = 8, nproc = 1 }}\n{patient}"),
        ))
        .boot()
}

#[test]
fn a_container_with_an_init_has_no_zombies_and_hears_its_signals_on_both_kernels() {
    for kernel in Kernel::ALL {
        let machine = machine(kernel);
        the_program_is_the_second_process(machine.probe("agent"));
        zombies_are_reaped_while_the_container_runs(&machine);
        signals_come_through(&machine);
        nobody_can_change_it(&machine);
        its_init_may_do_next_to_nothing(&machine);
        whoever_handles_no_signal_ends_by_it(&machine);
        let ended = machine.power_off();
        assert_eq!(ended.code, 0, "{}", ended.output);
        assert!(!ended.output.contains("is killed"), "{}", ended.output);
    }
    survived("zombies under `init = true`", "double forks in a pid namespace", ORPHANS as u64);
}

fn the_program_is_the_second_process(agent: &Line) {
    let identity = agent.identity();
    assert_eq!((identity.pid, identity.descriptors.as_slice()), (2, &[0, 1, 2][..]));
    assert_eq!(agent.read("/proc/1/comm"), "init\n");
    // As many images log.
    assert_eq!(agent.link("/proc/1/fd/1"), agent.link("/proc/self/fd/1"));
    assert_eq!(agent.list("/proc/1/fd"), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(field(&agent.read("/proc/1/status"), "PPid"), "0");
    // In a session of its own, as a first process would be.
    let stat = agent.read("/proc/2/stat");
    let session = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(3)).map(str::to_owned);
    assert_eq!(session.as_deref(), Some("2"), "{stat}");
}

fn zombies_are_reaped_while_the_container_runs(machine: &Machine) {
    eventually("they have been left alone", || logs(machine, "neglects").contains("pausing"));
    let processes = || {
        let output = ctl(machine, &["exec", "neglects", "/probe", "exit", "0"]);
        assert!(output.status.success(), "{output:?}");
        let first = service(machine, "neglects").pid.unwrap();
        let watcher = machine.probe("watcher");
        watcher.read(&format!("/machine/proc/{first}/task/{first}/children")).split_whitespace().count()
    };
    // The program itself reaps none of its own, which are not the init's yet. Theirs are.
    eventually("only the program is left to the init", || processes() == 1);
}

fn signals_come_through(machine: &Machine) {
    eventually("the handlers are set", || logs(machine, "traps").contains("set"));
    for signal in ["HUP", "USR1", "TERM"] {
        let sent = ctl(machine, &["exec", "traps", "kill", "-s", signal, "1"]);
        assert!(sent.status.success(), "{sent:?}");
        eventually("the program has heard it", || logs(machine, "traps").lines().any(|line| line == signal));
    }
    stops(machine, "traps", "ended with code 3");
}

/// Its program is PID 1's own (CVE-2019-5736).
fn nobody_can_change_it(machine: &Machine) {
    const EACCES: i32 = 13;
    const ETXTBSY: i32 = 26;
    const EROFS: i32 = 30;
    for name in ["agent", "mighty"] {
        let written = machine.probe(name).write("/proc/1/exe", "x");
        assert!(matches!(written, Err(EACCES | EROFS | ETXTBSY)), "{name}: {written:?}");
    }
}

fn its_init_may_do_next_to_nothing(machine: &Machine) {
    let watcher = machine.probe("watcher");
    for (name, capabilities) in
        [("sleeps", KILL), ("drops", KILL), ("user", NONE), ("shares", KILL), ("strict", KILL)]
    {
        let first = service(machine, name).pid.unwrap();
        let status = watcher.read(&format!("/machine/proc/{first}/status"));
        for (set, expected) in
            [("CapPrm", capabilities), ("CapEff", capabilities), ("CapBnd", capabilities), ("CapAmb", NONE)]
        {
            assert_eq!(field(&status, set), expected, "{name} {set}");
        }
        assert_eq!((field(&status, "NoNewPrivs"), field(&status, "Seccomp")), ("1", "2"), "{name}");
        assert_eq!(field(&status, "Name"), "init", "{name}");
    }
}

fn whoever_handles_no_signal_ends_by_it(machine: &Machine) {
    eventually("it has become somebody else", || logs(machine, "drops").contains("sleeping"));
    for name in ["sleeps", "drops", "user", "shares", "strict"] {
        stops(machine, name, "was ended by SIGTERM");
    }
    // What it has left behind goes with it, also without a pid namespace.
    let watcher = machine.probe("watcher");
    let left = || {
        let pids = watcher.list("/machine/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
        pids.filter(|pid| {
            let path = format!("/machine/proc/{pid}/cgroup");
            matches!(watcher.try_ask(&probe::Request::Read { path }), Ok(probe::Answer::Text(text)) if text.contains("/shares"))
        })
        .count()
    };
    eventually("nothing is left of it", || left() == 0);
}

fn stops(machine: &Machine, name: &str, how: &str) {
    let output = ctl(machine, &["stop", name]);
    assert!(output.status.success(), "{name}: {output:?}");
    let service = service(machine, name);
    assert_eq!(service.state, ServiceState::Stopped, "{name}");
    assert_eq!(service.last.map(|end| end.text).as_deref(), Some(how), "{name}");
}

fn ctl(machine: &Machine, arguments: &[&str]) -> Output {
    machine.ctl(arguments).output().unwrap()
}

fn logs(machine: &Machine, name: &str) -> String {
    String::from_utf8(ctl(machine, &["logs", name]).stdout).unwrap()
}

/// A field of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

#[test]
fn a_program_that_is_not_there_fails_as_it_does_without() {
    // On a volume, since a build looks for it everywhere else.
    let busybox = demo_image("busybox");
    let ended = Config::new("own-init-no-program")
        .with(&format!(
            "[oneshot.missing]\nimage = \"{busybox}\"\ncommand = [\"no-such-program\"]\ninit = true\n\
             environment = {{ PATH = \"/opt\" }}\nvolumes = [\"/srv/opt:/opt\"]\n"
        ))
        .start()
        .wait();
    assert_eq!(ended.code, 127, "{}", ended.output);
    let why = "cannot start `missing`: cannot run `no-such-program`: No such file or directory";
    assert!(ended.output.contains(why), "{}", ended.output);
}

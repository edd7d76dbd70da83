//! Everything at once: bombs, orphans, signals, clients and floods in one machine, and orders of eight clients.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use manifest::control::{Cause, ServiceState};
use probe::{Answer, Request};
use tests::oracle::{EVENTS_KEPT, OVERSEER, count, service, services, survived};
use tests::{Config, Line, Machine, Model, Oracle, Restarts, demo_image, eventually, probe_image};

/// A soak takes its time.
const LONGEST: Duration = Duration::from_secs(1800);

/// As many as there are kinds to go around.
const BOMBS: usize = 5;

/// How many there are of each, with all tests and in a soak.
const ORPHANS: (u64, u64) = (2_000, 20_000);
const SIGNALS: (u64, u64) = (100_000, 1_000_000);
const CLIENTS: (u64, u64) = (300, 1_000);

fn machine() -> Machine {
    let image = probe_image();
    let busybox = demo_image("busybox");
    let greedy = |name: &str, command: &str, keys: &str| {
        format!(
            "[service.{name}]\nimage = \"{image}\"\ncommand = [\"/probe\", {command}]\nnetwork = \"none\"\n{keys}\n\
             backoff = {{ first = \"1s\", cap = \"4s\" }}\n"
        )
    };
    let mut machine = Config::new("storms")
        .memory("1GiB")
        .timeout(LONGEST)
        .probe("overseer", OVERSEER)
        .probe("client", "control = true");
    for n in 0..BOMBS {
        machine = machine
            .with(&greedy(&format!("forks{n}"), "\"fork-bomb\"", "pids-limit = 20"))
            .with(&greedy(&format!("eats{n}"), "\"memory-bomb\"", "memory = \"16MiB\""));
    }
    machine
        .with(&format!(
            "[service.shell]\nimage = \"{busybox}\"\nprivileged = true\npid = \"host\"\n\
             command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done\"]\n"
        ))
        .with(&greedy("stuffs", "\"memory-bomb\", \"/dev/shm/x\"", "memory = \"16MiB\"\nshm-size = \"1GiB\""))
        .with(&greedy("crashes", "\"exit\", \"1\"", ""))
        .with(&format!(
            "[service.floods]\nimage = \"{busybox}\"\ncpus = 0.02\nnetwork = \"none\"\nrestart = \"never\"\n\
             command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; cat /dev/urandom & wait\"]\n"
        ))
        .boot()
}

#[test]
fn bombs_orphans_signals_and_clients_at_once_change_nothing_for_the_others() {
    let machine = machine();
    let rules =
        Restarts { first: Duration::from_secs(1), cap: Duration::from_secs(4), ..Restarts::default() };
    let names = ["forks", "eats", "stuffs", "crashes"];
    let model = names.iter().fold(Model::default(), |model, name| model.with(name, rules));
    let oracle = Oracle::of(&machine, model);
    let (overseer, client) = (machine.probe("overseer"), machine.probe("client"));
    fork_bombs_end_at_their_limits(overseer);
    memory_bombs_end_alone_and_that_is_told(&machine);
    orphans_are_reaped(&machine, overseer);
    signals_to_pid_1_change_nothing(&machine, overseer);
    clients_without_number_keep_nobody_from_the_channel(&machine, client);
    supervision_goes_on_without_descriptors(&machine, overseer, client);

    for line in [overseer, client] {
        assert_eq!(line.run(&["/probe", "exit", "7"]).code, Some(7), "there is room for one more");
    }
    oracle.judge_services(&machine);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    for name in ["overseer", "client"] {
        let starts = ended.events[name].iter().filter(|event| matches!(event, probe::Event::Started { .. }));
        assert_eq!(starts.count(), 1, "{name} was not disturbed: {}", ended.output);
    }
    // All of it, or nothing: it happened to one machine.
    survived("fork bomb in 5 containers", "processes without end", BOMBS as u64);
    survived("memory bomb in 6 containers", "memory and files in memory without end", BOMBS as u64 + 1);
    survived("orphans in the machine's pid namespace", "double forks", count(ORPHANS.0, ORPHANS.1));
    survived(
        "signals to PID 1",
        "every one that asks for nothing, from a privileged service",
        count(SIGNALS.0, SIGNALS.1) + 6056,
    );
    survived(
        "clients of the control channel",
        "connections with junk and half requests",
        count(CLIENTS.0, CLIENTS.1),
    );
    survived("descriptor exhaustion in PID 1", "prlimit to what it has", 1);
}

/// What a script prints that is root of the machine, and sees all its processes.
fn in_shell(machine: &Machine, script: &str) -> String {
    let output = machine.ctl(&["exec", "shell", "sh", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fork_bombs_end_at_their_limits(overseer: &Line) {
    for n in 0..BOMBS {
        let events = || overseer.read(&format!("/machine/cgroup/services/forks{n}/pids.events"));
        eventually("a fork bomb has come to its limit", || !events().contains("max 0"));
    }
}

fn memory_bombs_end_alone_and_that_is_told(machine: &Machine) {
    for name in (0..BOMBS).map(|n| format!("eats{n}")).chain(["stuffs".to_owned()]) {
        eventually("a memory bomb has ended", || service(machine, &name).last.is_some());
        let end = service(machine, &name).last.unwrap();
        assert_eq!((end.cause, end.signal), (Cause::Memory, Some(9)), "{name}: {end:?}");
    }
}

/// Each is left behind twice: by the one that made it, and by the shell.
fn orphans_are_reaped(machine: &Machine, overseer: &Line) {
    let orphans = count(ORPHANS.0, ORPHANS.1);
    let script = format!("n=0; while [ $n -lt {orphans} ]; do ( : & ); n=$((n+1)); done; echo done");
    assert_eq!(in_shell(machine, &script), "done\n");
    let census = tests::oracle::census(overseer);
    assert!(census.zombies.is_empty(), "{census:?}");
}

fn signals_to_pid_1_change_nothing(machine: &Machine, overseer: &Line) {
    let starts = service(machine, "crashes").starts;
    let (signals, each) = (count(SIGNALS.0, SIGNALS.1), 100_000);
    for _ in 0..signals / each {
        assert_eq!(overseer.run(&["/probe", "storm", &each.to_string()]).stdout, "null\n");
    }
    // Every one that asks for nothing: the others are INT, QUIT, USR1, USR2, TERM and PWR, and 32 and 33 are the C library's
    // own.
    let script = "n=1; while [ $n -le 64 ]; do case $n in 2|3|10|12|15|30|32|33) ;; *) kill -$n 1 || exit 1;; esac; \
                  n=$((n+1)); done; echo done";
    assert_eq!(in_shell(machine, script), "done\n");
    // Real-time ones, which queue up.
    let script = "n=0; while [ $n -lt 3000 ]; do kill -34 1; kill -64 1; n=$((n+1)); done; echo done";
    assert_eq!(in_shell(machine, script), "done\n");
    eventually("an end is seen after all that", || service(machine, "crashes").starts > starts);
}

fn clients_without_number_keep_nobody_from_the_channel(machine: &Machine, client: &Line) {
    let clients = count(CLIENTS.0, CLIENTS.1);
    let asking: Vec<Child> = (0..8)
        .map(|_| machine.ctl(&["status"]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    let output = client.run(&["/probe", "clients", &clients.to_string(), "1000"]);
    let connected: u64 = output.stdout.trim().parse().unwrap_or_else(|_| panic!("{output:?}"));
    assert!(connected >= 32, "{connected} clients were let in");
    for mut child in asking {
        assert!(child.wait().unwrap().success());
    }
}

fn supervision_goes_on_without_descriptors(machine: &Machine, overseer: &Line, client: &Line) {
    let starts = service(machine, "crashes").starts;
    assert_eq!(overseer.run(&["/probe", "descriptors", "1", "0"]).stdout, "null\n");
    eventually("a start fails for want of descriptors", || {
        service(machine, "crashes").last.is_some_and(|end| end.cause == Cause::Start)
    });
    // Nor is there one for another client, which waits, although nobody comes after it.
    client.send(&Request::Run { argv: vec!["/probe".to_owned(), "greet".to_owned()] });
    thread::sleep(Duration::from_secs(1));
    assert_eq!(overseer.run(&["/probe", "descriptors", "1"]).stdout, "null\n");
    match client.answer() {
        Ok(Answer::Output(output)) => assert!(output.stdout.contains("hello"), "{output:?}"),
        other => panic!("nobody greets back: {other:?}"),
    }
    eventually("starts succeed again", || {
        let crashes = service(machine, "crashes");
        crashes.starts > starts && crashes.last.is_some_and(|end| end.cause == Cause::Exit)
    });
    assert_ne!(service(machine, "forks0").state, ServiceState::Failed);
}

/// What eight clients ask for, each in another order, of services that need each other and of one that is slow to end.
const ORDERS: [&[&str]; 8] = [
    &["stop", "--no-wait", "base"],
    &["start", "--no-wait", "base"],
    &["restart", "--no-wait", "base"],
    &["stop", "--no-wait", "top"],
    &["start", "--no-wait", "top"],
    &["restart", "--no-wait", "top"],
    &["restart", "--no-wait", "slow"],
    &["start", "--no-wait", "slow"],
];

fn orders_machine(name: &str) -> Config {
    let busybox = demo_image("busybox");
    let wait = "while :; do sleep 60 & wait $!; done";
    let service = |name: &str, script: &str, keys: &str| {
        format!(
            "[service.{name}]\nimage = \"{busybox}\"\nnetwork = \"none\"\nstop-grace-period = \"2s\"\n\
             command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; {script}{wait}\"]\n{keys}\n"
        )
    };
    Config::new(name)
        .timeout(LONGEST)
        .with(&service("base", "", ""))
        .with(&service("top", "", "depends-on = { base = { condition = \"ready\", restart-with = true } }"))
        .with(&service("slow", "trap 'sleep 1; exit 0' TERM; ", ""))
        .probe("overseer", OVERSEER)
}

/// Gives `count` orders by each of eight clients at once; whether the machine takes them is not asked for.
fn give_orders(machine: &Machine, count: usize) {
    let clients: Vec<Vec<Command>> = (0..8)
        .map(|client| (0..count).map(|n| machine.ctl(ORDERS[(client * 3 + n * (client + 1)) % 8])).collect())
        .collect();
    thread::scope(|scope| {
        for commands in clients {
            scope.spawn(|| {
                for mut command in commands {
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    // An order can be too late for the machine.
                    let _status = command.status().unwrap();
                }
            });
        }
    });
}

/// Services that fill the events that PID 1 keeps, in a soak, and that are given up then.
const FILLERS: u64 = 16;

fn fillers() -> String {
    // No service may have more before it is given up.
    let ends = count(2, 100);
    let filler = |n| {
        format!(
            "[service.fills{n}]\nimage = \"{}\"\ncommand = [\"/probe\", \"exit\", \"1\"]\nnetwork = \"none\"\n\
             backoff = {{ first = \"1ms\", factor = 1, cap = \"1ms\" }}\n\
             give-up = {{ after = {ends}, within = \"1h\", then = \"stop\" }}\n",
            probe_image()
        )
    };
    (0..FILLERS).map(filler).collect()
}

#[test]
fn orders_of_eight_clients_at_once_end_as_the_last_ones_say() {
    let machine = orders_machine("orders").with(&fillers()).boot();
    let overseer = machine.probe("overseer");
    let pause = Duration::from_millis(1);
    let rules = Restarts { first: pause, factor: 1, cap: pause, ..Restarts::default() };
    let mut oracle = Oracle::of(&machine, Model::default().with("fills", rules));
    for n in 0..FILLERS {
        let name = format!("fills{n}");
        while service(&machine, &name).state != ServiceState::Failed {
            thread::sleep(Duration::from_secs(1));
        }
    }
    oracle.count(&machine, overseer);
    // From here on nothing may grow any more: in a soak there are as many events as are kept.
    let events = u64::try_from(oracle.events().len()).unwrap();
    assert!(events >= count(0, EVENTS_KEPT as u64), "{events} events");
    let orders = usize::try_from(count(10, 100)).unwrap();
    give_orders(&machine, orders);
    for name in ["base", "top", "slow"] {
        assert!(machine.ctl(&["start", name]).status().unwrap().success(), "{name}");
    }
    oracle.judge(&machine, overseer);
    // The end comes between orders, twice: the first one counts, and no order is heard any more.
    let mut first = machine.ctl(&["poweroff"]).spawn().unwrap();
    eventually("the machine powers off", || machine.console().contains("the machine powers off"));
    let mut second = machine.ctl(&["reboot"]).stderr(Stdio::null()).spawn().unwrap();
    give_orders(&machine, 1);
    assert!(first.wait().unwrap().success());
    second.wait().unwrap();
    let ended = machine.wait();
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(ended.output.contains("Power down"), "{}", ended.output);
    assert!(ended.stop.is_some_and(|stop| stop < Duration::from_secs(60)), "{:?}", ended.stop);
    survived("stop, start, restart and poweroff by eight clients", "coracle ctl", 8 * orders as u64 + 13);
}

#[test]
fn a_machine_that_is_still_starting_powers_off() {
    let machine = orders_machine("starting")
        .with(&format!(
            "[oneshot.long]\nimage = \"{}\"\ncommand = [\"sleep\", \"600\"]\n\
             [service.after]\nimage = \"{}\"\ncommand = [\"sleep\", \"600\"]\ndepends-on = {{ long = \"completed\" }}\n",
            demo_image("busybox"),
            demo_image("busybox")
        ))
        .start();
    machine.probe("overseer").identity();
    assert!(services(&machine).iter().any(|service| service.state == ServiceState::Waiting));
    assert!(machine.ctl(&["poweroff"]).status().unwrap().success());
    let ended = machine.wait();
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(!ended.output.contains("`after` starts"), "{}", ended.output);
    tests::oracle::assert_sound(&ended.output);
    survived("poweroff during start", "coracle ctl", 1);
}

//! `coracle ctl` and real machines: what it shows, what it orders, and programs that it runs inside.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

mod closed;
mod own_qemu;
mod terminal;
mod ways;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use manifest::control::{Answer, ServiceState, What};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use terminal::Terminal;
use tests::{Config, Machine, demo_image, eventually, folder, root};

/// A service of busybox.
fn busybox(table: &str, name: &str, script: &str, keys: &str) -> String {
    let image = demo_image("busybox");
    format!("[{table}.{name}]\nimage = \"{image}\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n{keys}\n")
}

/// Writes a line now and then, which are numbered, and ends when asked to.
const COUNT: &str = "trap 'exit 0' TERM; n=0; while :; do n=$((n+1)); echo \"line $n\"; sleep 0.1; done";
const WAIT: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

fn machine() -> Machine {
    Config::new("control")
        .with(&busybox("service", "web", COUNT, ""))
        .with(&busybox(
            "service",
            "db",
            &format!("sleep 1; httpd -p 127.0.0.1:5432; {WAIT}"),
            "ready = { tcp = 5432 }",
        ))
        .with(&busybox("service", "late", WAIT, "depends-on = { db = \"ready\" }"))
        .with(&busybox("oneshot", "hundred", "for n in $(seq 100); do echo \"number $n\"; done", ""))
        .with(&busybox("oneshot", "broken", "echo \"it is broken\"; exit 3", "on-failure = \"ignore\""))
        .boot()
}

#[test]
fn a_machine_is_looked_at_and_ordered_about_while_it_runs() {
    let machine = machine();
    the_status_has_every_service(&machine);
    logs_are_complete_and_in_order(&machine);
    an_order_is_done_when_it_returns(&machine);
    events_tell_of_every_order(&machine);
    two_clients_do_not_disturb_each_other(&machine);
    a_client_that_does_not_read_keeps_nobody_waiting(&machine);
    a_boot_is_drawn_with_every_service(&machine);
    use_is_told_for_people_and_for_prometheus(&machine);
    a_program_has_streams_signals_and_a_code(&machine);
    a_program_has_a_terminal(&machine);
    what_the_documents_show_works(&machine);

    let mut gone = machine.ctl(&["status"]);
    succeed(&mut machine.ctl(&["poweroff"]));
    assert_eq!(machine.wait().code, 0);
    let Output { status, stderr, .. } = gone.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && said.contains("no machine"), "{said}");
}

/// Runs it to its end, which is a good one, and returns what it prints.
fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?} ended with {status}: {said}");
    String::from_utf8(stdout).unwrap()
}

/// What a command answers with `--json`.
fn answers(machine: &Machine, arguments: &[&str]) -> Vec<Answer> {
    let text = succeed(machine.ctl(arguments).arg("--json"));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

fn service(machine: &Machine, name: &str) -> manifest::control::Service {
    let all = answers(machine, &["status", name]);
    let found = all.into_iter().find_map(|answer| match answer {
        Answer::Service(service) => Some(service),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("`{name}` is not told"))
}

fn the_status_has_every_service(machine: &Machine) {
    let table = succeed(&mut machine.ctl(&["status"]));
    let states = ["web", "db", "late", "hundred", "broken"].map(|name| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {table}")).split_whitespace().nth(1).unwrap()
    });
    assert_eq!(states, ["ready", "ready", "ready", "completed", "failed"], "{table}");
    assert!(table.starts_with("control is ready, "), "{table}");
    assert!(service(machine, "db").pid.is_some());
    let end = service(machine, "broken").last.unwrap();
    assert_eq!((end.code, end.signal, end.text.as_str()), (Some(3), None, "ended with code 3"));

    let output = machine.ctl(&["status", "wbe"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: no service is called `wbe` (did you mean `web`?)\nhint: "), "{said}");
}

fn logs_are_complete_and_in_order(machine: &Machine) {
    let all = succeed(&mut machine.ctl(&["logs", "hundred"]));
    let expected: String = (1..=100).map(|n| format!("number {n}\n")).collect();
    assert_eq!(all, expected);
    let last = succeed(&mut machine.ctl(&["logs", "-n", "2", "hundred", "broken", "--timestamps"]));
    let mut last: Vec<&str> = last.lines().collect();
    last.sort_unstable();
    assert_eq!(last.len(), 3, "{last:?}");
    assert!(last[0].starts_with(" broken | ") && last[0].ends_with("Z it is broken"), "{last:?}");
    assert!(last[1].ends_with(" number 100") && last[2].ends_with(" number 99"), "{last:?}");

    // It is written while it is read, and no line is missing or there twice.
    let (mut child, lines) = follow(machine, &["logs", "-f", "web"]);
    let numbers: Vec<u32> =
        lines.take(40).map(|line| line.unwrap().strip_prefix("line ").unwrap().parse().unwrap()).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let first = numbers[0];
    assert_eq!(numbers, (first..first + 40).collect::<Vec<_>>());
}

/// Starts something that goes on.
fn follow(machine: &Machine, arguments: &[&str]) -> (Child, std::io::Lines<BufReader<ChildStdout>>) {
    let mut child = machine.ctl(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

fn an_order_is_done_when_it_returns(machine: &Machine) {
    let before = service(machine, "db");
    assert_eq!(succeed(&mut machine.ctl(&["restart", "db"])), "");
    let after = service(machine, "db");
    assert_eq!((after.state, after.starts), (ServiceState::Ready, before.starts + 1));
    assert_ne!(after.pid, before.pid);

    succeed(&mut machine.ctl(&["stop", "web", "db"]));
    for name in ["web", "db"] {
        let stopped = service(machine, name);
        assert_eq!((stopped.state, stopped.pid), (ServiceState::Stopped, None), "{name}");
    }
    // Once more changes nothing.
    succeed(&mut machine.ctl(&["stop", "db"]));
    succeed(&mut machine.ctl(&["start", "web", "db"]));
    assert_eq!(service(machine, "db").state, ServiceState::Ready);
    succeed(&mut machine.ctl(&["start", "db", "hundred"]));
    assert_eq!(service(machine, "hundred").starts, 2);

    let output = machine.ctl(&["start", "broken"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "error: `broken` ended with code 3\n");
    assert_eq!(machine.ctl(&["start"]).output().unwrap().status.code(), Some(2));
}

fn events_tell_of_every_order(machine: &Machine) {
    let events: Vec<manifest::control::Event> = answers(machine, &["events"])
        .into_iter()
        .filter_map(|answer| if let Answer::Event(event) = answer { Some(event) } else { None })
        .collect();
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    let expected: Vec<u64> = (1..).take(events.len()).collect();
    assert_eq!(numbers, expected);
    let of_db =
        events.iter().filter(|event| event.service.as_ref().is_some_and(|name| name.as_str() == "db"));
    let starts = of_db.filter(|event| matches!(event.what, What::Started { .. })).count();
    assert_eq!(u32::try_from(starts).unwrap(), service(machine, "db").starts);
    let text = succeed(&mut machine.ctl(&["events"]));
    assert!(text.contains("Z `broken` ended with code 3\n"), "{text}");
}

fn two_clients_do_not_disturb_each_other(machine: &Machine) {
    let (mut child, mut lines) = follow(machine, &["logs", "-f", "-n", "1", "web"]);
    lines.next().unwrap().unwrap();
    succeed(&mut machine.ctl(&["restart", "web"]));
    // The new one counts from 1, and what the old one wrote last is there as well.
    lines.map(|line| line.unwrap()).find(|line| line == "line 1").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_client_that_does_not_read_keeps_nobody_waiting(machine: &Machine) {
    let mut command = machine.ctl(&["exec", "web", "cat", "/dev/zero"]);
    let mut lazy = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Its program runs, and writes without an end.
    lazy.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    eventually("a program that nobody reads is ended", || !processes(machine).contains("cat /dev/zero"));
    let Output { status, stderr, .. } = lazy.wait_with_output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.code() == Some(1) && said.contains("this one did not read for too long"), "{said}");
}

fn a_boot_is_drawn_with_every_service(machine: &Machine) {
    let chart = succeed(&mut machine.ctl(&["boot"]));
    for name in ["kernel", "init", "web", "db", "late", "hundred", "broken"] {
        assert!(chart.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {chart}");
    }
    assert!(chart.starts_with("ready after "), "{chart}");
    let answers = answers(machine, &["boot"]);
    let Some((Answer::Boot(boot), nodes)) = answers.split_first() else { panic!("{answers:?}") };
    assert_eq!(nodes.len(), 5);
    let ready = boot.ready_ns.unwrap();
    assert!(boot.init_ns < boot.supervised_ns && boot.supervised_ns < ready, "{boot:?}");
    let moment = |name: &str, of: fn(&manifest::control::Node) -> Option<u64>| {
        let found = nodes.iter().find_map(|node| match node {
            Answer::Node(node) if node.name.as_str() == name => of(node),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{name}: {nodes:?}"))
    };
    assert!(moment("db", |node| node.started_ns) < moment("db", |node| node.ready_ns));
    assert!(moment("db", |node| node.ready_ns) <= moment("late", |node| node.started_ns));

    let picture = folder("control").join("boot.svg");
    succeed(machine.ctl(&["boot", "--svg"]).arg(&picture));
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains(">hundred<"), "{svg}");
}

fn use_is_told_for_people_and_for_prometheus(machine: &Machine) {
    let table = succeed(&mut machine.ctl(&["top", "--once"]));
    assert!(table.starts_with("2 processors are ") || table.starts_with("1 processor is "), "{table}");
    assert!(table.lines().any(|line| line.starts_with("web ")), "{table}");
    let metrics = succeed(&mut machine.ctl(&["top", "--metrics"]));
    let figure = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing: {metrics}")).parse().unwrap()
    };
    assert!(figure("container_processes{name=\"web\"}") >= 1.0, "{metrics}");
    assert!(figure("container_memory_usage_bytes{name=\"web\"}") > 4096.0, "{metrics}");
    assert!(figure("container_cpu_usage_seconds_total{name=\"web\"}") > 0.0, "{metrics}");
    assert!(figure("node_memory_MemAvailable_bytes") < figure("node_memory_MemTotal_bytes"), "{metrics}");
    assert!(
        figure("node_boot_time_seconds") < figure("container_start_time_seconds{name=\"web\"}"),
        "{metrics}"
    );
    let state = "coracle_service_state{name=\"broken\",state=\"failed\"}";
    assert!((figure(state) - 1.0).abs() < f64::EPSILON, "{metrics}");
}

/// Runs a program with this input, to its end.
fn exec(machine: &Machine, arguments: &[&str], input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut command = machine.ctl(&["exec"]);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A program may end before it has read all.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
}

fn a_program_has_streams_signals_and_a_code(machine: &Machine) {
    for (arguments, code, output, error) in [
        (&["web", "sh", "-c", "echo out; echo err >&2; exit 42"][..], 42, "out\n", "err\n"),
        (&["web", "sh", "-c", "kill -KILL $$"], 137, "", ""),
        (&["-e", "A=b c", "-w", "/tmp", "web", "sh", "-c", "echo $A; pwd"], 0, "b c\n/tmp\n", ""),
        // Without -i there is nothing to read.
        (&["web", "cat"], 0, "", ""),
        (&["-i", "web", "head", "-c", "3"], 0, "aaa", ""),
        (&["web", "--", "echo", "--json"], 0, "--json\n", ""),
    ] {
        let got = exec(machine, arguments, &[b'a'; 300_000]);
        assert_eq!(got, (Some(code), output.as_bytes().to_vec(), error.to_owned()), "{arguments:?}");
    }
    let (code, _, said) = exec(machine, &["web", "no-such-program"], b"");
    assert!(code == Some(1) && said.contains("no-such-program"), "{said}");

    // Far more than the window, and all of it comes back.
    let input: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    let (code, output, said) = exec(machine, &["-i", "web", "cat"], &input);
    assert_eq!((code, output.len()), (Some(0), input.len()), "{said}");
    assert!(output == input, "the bytes are others");
    let (_, sum, _) = exec(machine, &["-i", "web", "sha256sum"], &input);
    let expected: String = Sha256::digest(&input).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(String::from_utf8(sum).unwrap(), format!("{expected}  -\n"));

    let script = "trap 'echo got it; exit 7' INT; echo ready; while :; do sleep 1 & wait $!; done";
    let mut command = machine.ctl(&["exec", "web", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got it");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

/// What runs in the container of `web`.
fn processes(machine: &Machine) -> String {
    let (code, output, said) = exec(machine, &["web", "ps"], b"");
    assert_eq!(code, Some(0), "{said}");
    String::from_utf8(output).unwrap()
}

fn a_program_has_a_terminal(machine: &Machine) {
    let mut terminal = Terminal::run(machine.ctl(&["exec", "-it", "web", "sh"]), 33, 101);
    let modes = terminal.modes();
    terminal.press("stty size\r");
    terminal.expect("33 101");
    assert_ne!(terminal.modes(), modes);
    terminal.resize(44, 222);
    eventually("the program's terminal is as large", || {
        terminal.press("stty size\r");
        terminal.shown().contains("44 222")
    });
    terminal.press("exit 5\r");
    assert_eq!(terminal.wait().code(), Some(5), "{}", terminal.shown());
    assert_eq!(terminal.modes(), modes);

    // A key that is a signal inside, and nothing here.
    let sleep = ["exec", "-it", "web", "sh", "-c", "echo asleep; exec sleep 2000"];
    let mut terminal = Terminal::run(machine.ctl(&sleep), 24, 80);
    terminal.expect("asleep");
    terminal.press("\u{3}");
    assert_eq!(terminal.wait().code(), Some(130), "{}", terminal.shown());

    let mut terminal = Terminal::run(machine.ctl(&sleep), 24, 80);
    terminal.expect("asleep");
    terminal.send(Signal::TERM);
    assert_eq!(terminal.wait().code(), Some(143), "{}", terminal.shown());
    assert_eq!(terminal.modes(), modes);
    eventually("the program has ended with its client", || !processes(machine).contains("sleep 2000"));

    let (code, _, said) = exec(machine, &["-it", "web", "sh"], b"");
    assert!(code == Some(1) && said.contains("the input here is none"), "{said}");
}

/// Those that end by themselves and leave the machine as it is.
fn what_the_documents_show_works(machine: &Machine) {
    let document = std::fs::read_to_string(root().join("docs/control.md")).unwrap()
        + &std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut count = 0;
    for command in document.lines().filter_map(|line| line.strip_prefix("$ coracle ctl ")) {
        let words: Vec<&str> = command.split('#').next().unwrap().split_whitespace().collect();
        if words.contains(&"-f") || words.contains(&"-it") || words == ["poweroff"] {
            continue;
        }
        let picture = folder("control").join("shown.svg").display().to_string();
        let words: Vec<&str> =
            words.iter().map(|word| if *word == "boot.svg" { &picture } else { *word }).collect();
        succeed(&mut machine.ctl(&words));
        count += 1;
    }
    assert!(count >= 12, "{count} commands");
}

//! The graph of services in real machines: who waits for whom, until when, and what follows a failure.

use std::path::PathBuf;

use manifest::control::{BootReport, Cause, Node};
use probe::Request;
use tests::{Config, Line, Machine, demo_image, eventually, folder};

/// A service of busybox that notes its turn in `/log/order`, and goes on with `script`.
fn noting(table: &str, name: &str, script: &str, keys: &str) -> String {
    let image = demo_image("busybox");
    format!(
        "[{table}.{name}]\nimage = \"{image}\"\nvolumes = [\"/srv/log:/log\"]\n\
         command = [\"sh\", \"-c\", '''echo {name} >>/log/order; {script}''']\n{keys}\n"
    )
}

/// Ends at the stop signal, which the first process of a container has to handle.
const WAIT: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

const LOG: &str = "volumes = [\"/srv/log:/log\", \"/proc:/machine/proc\"]";

fn order(witness: &Line) -> String {
    witness.read("/log/order").replace('\n', " ").trim_end().to_owned()
}

/// One line of the console has the moments of all services, and they are in the order of the graph.
fn the_boot_is_told(machine: &Machine) {
    let mut told: Option<BootReport> = None;
    eventually("the boot is told", || {
        let console = machine.console();
        let lines = console.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let mut own = lines.filter_map(|line| line.trim().strip_prefix("coracle | "));
        let line = own.find(|text| text.starts_with('{'));
        told = line.map(|line| serde_json::from_str(line).expect("it is a report"));
        told.is_some()
    });
    let BootReport { boot, nodes } = told.expect("it was told");
    assert!(boot.init_ns < boot.supervised_ns && Some(boot.supervised_ns) < boot.ready_ns, "{boot:?}");
    let node = |name: &str| nodes.iter().find(|node| node.name.as_str() == name).expect("it is a node");
    for name in ["db", "migrate", "weak", "anyway", "a"] {
        let Node { queued_ns, started_ns, executed_ns, .. } = node(name);
        assert!(
            started_ns.is_some() && Some(*queued_ns) <= *started_ns && started_ns < executed_ns,
            "{name}"
        );
    }
    assert!(node("db").ready_ns < node("migrate").started_ns);
    assert!(node("migrate").ready_ns <= node("anyway").started_ns);
    assert_eq!(node("weak").end.as_ref().map(|end| (end.cause, end.code)), Some((Cause::Exit, Some(3))));
    assert_eq!((node("weak").ready_ns, node("never").started_ns), (None, None));
}

fn says(console: &str, sentence: &str) -> usize {
    console.matches(sentence).count()
}

#[test]
fn each_service_starts_when_what_it_waits_for_has_come_far_enough() {
    let machine = Config::new("graph")
        .with(&noting("oneshot", "migrate", "sleep 1", "depends-on = { db = \"ready\" }"))
        .with(&noting(
            "service",
            "db",
            &format!("sleep 2; httpd -p 127.0.0.1:5432; {WAIT}"),
            "ready = { tcp = 5432 }",
        ))
        .with(&noting("oneshot", "weak", "exit 3", "on-failure = \"degrade\""))
        .with(&noting("service", "never", WAIT, "depends-on = { weak = \"completed\" }"))
        .with(&noting("service", "nor-this", WAIT, "depends-on = [\"never\"]"))
        .with(&noting(
            "service",
            "anyway",
            WAIT,
            "[service.anyway.depends-on]\nweak = { condition = \"completed\", on-failure = \"ignore\" }\n\
             migrate = \"completed\"",
        ))
        .probe("a", &format!("{LOG}\ndepends-on = {{ anyway = \"started\" }}"))
        .boot();
    let order = order(machine.probe("a"));
    let place = |name: &str| order.split(' ').position(|other| other == name);
    assert!(place("db") < place("migrate") && place("migrate") < place("anyway"), "{order}");
    assert_eq!((place("never"), place("nor-this")), (None, None), "{order}");
    let console = machine.console();
    assert_eq!(says(&console, "`db` is ready after"), 1, "{console}");
    assert_eq!(says(&console, "`never` is not started, because `weak` has failed"), 1, "{console}");
    assert_eq!(says(&console, "`nor-this` is not started, because `never` has failed"), 1, "{console}");
    the_boot_is_told(&machine);

    let ended = machine.power_off();
    let at = |sentence: &str| {
        ended.output.find(sentence).unwrap_or_else(|| panic!("{sentence}: {}", ended.output))
    };
    assert!(at("`anyway` has ended") < at("`db` has ended"), "{}", ended.output);
}

#[test]
fn a_service_says_itself_that_it_is_ready_and_alive() {
    let machine = Config::new("notify")
        .probe("a", &format!("{LOG}\nready = \"notify\"\nwatchdog = \"4s\""))
        .with(&noting("service", "after", WAIT, "depends-on = { a = \"ready\" }"))
        .probe("b", LOG)
        .start();
    let (a, b) = (machine.probe("a"), machine.probe("b"));
    assert_eq!(a.identity().env.iter().filter(|(name, _)| name == "NOTIFY_SOCKET").count(), 1);
    a.ask(&Request::Notify { text: "STATUS=almost".to_owned() });
    assert!(!b.exists("/log/order"), "`after` started before `a` was ready");
    a.ask(&Request::Notify { text: "READY=1".to_owned() });
    eventually("`after` has started", || b.exists("/log/order"));
    // Not a word from it, and it is started again.
    a.next_start();
    let console = machine.console();
    assert!(says(&console, "`a` gives no sign of life any more, and is stopped") == 1, "{console}");
}

/// A container's first process takes what it needs of PID 1's descriptors, which the kernel counts as attaching to it. Who
/// has power over the machine can forbid that to everybody, until the next boot.
#[test]
fn containers_start_when_nobody_may_attach_to_processes() {
    const FORBIDDEN: &str = "depends-on = { forbid = \"completed\" }\ninit = true";
    let line = format!("sleep 1; echo yes >&7; exec 7>&-; {WAIT}");
    let machine = Config::new("no-attach")
        .with(&noting("oneshot", "forbid", "echo 3 >/proc/sys/kernel/yama/ptrace_scope", "privileged = true"))
        .with(&noting("service", "line", &line, &format!("ready = {{ fd = 7 }}\n{FORBIDDEN}")))
        .probe("a", &format!("{LOG}\n{FORBIDDEN}"))
        .boot();
    let a = machine.probe("a");
    assert_eq!(a.read("/machine/proc/sys/kernel/yama/ptrace_scope"), "3\n");
    assert_eq!(a.identity().descriptors, [0, 1, 2]);
    assert_eq!(a.link("/proc/self/fd/0"), "/dev/null");
    assert!(a.link("/proc/self/fd/1").starts_with("pipe:"));
    let console = machine.console();
    assert_eq!(says(&console, "`line` is ready after"), 1, "{console}");
}

#[test]
fn a_line_on_a_descriptor_and_a_program_inside_make_a_service_ready() {
    let health = "healthcheck = { test = [\"CMD\", \"sh\", \"-c\", \"id -u >/log/checker; [ -e /tmp/fine ]\"], \
                  interval = \"10s\", start-interval = \"200ms\", start-period = \"60s\" }\nready = \"healthy\"\nuser = 1000";
    // Fewer descriptors than those whose numbers a service can choose.
    let line = "ready = { fd = 7 }\nulimits = { nofile = 64 }";
    let machine = Config::new("ready-ways")
        .with("[[file]]\npath = \"/srv/log/order\"\nmode = 0o666\ncontents = \"\"\n[[file]]\npath = \"/srv/log/checker\"\nmode = 0o666\ncontents = \"\"\n")
        .with(&noting("service", "line", &format!("sleep 1; echo yes >&7; exec 7>&-; {WAIT}"), line))
        .with(&noting("service", "checked", &format!("sleep 1; touch /tmp/fine; {WAIT}"), health))
        .with(&noting("service", "last", WAIT, "depends-on = { line = \"ready\", checked = \"healthy\" }"))
        .probe("a", LOG)
        .boot();
    let a = machine.probe("a");
    assert!(order(a).ends_with(" last"), "{}", order(a));
    assert_eq!(a.read("/log/checker"), "1000\n", "who checks is who is checked");
    let console = machine.console();
    for name in ["line", "checked"] {
        assert_eq!(says(&console, &format!("`{name}` is ready after")), 1, "{console}");
    }
}

#[test]
fn an_unhealthy_service_is_restarted_and_its_dependents_with_it() {
    let health = "healthcheck = { http = \"http://localhost:8080/health\", interval = \"500ms\", \
                  start-interval = \"200ms\", start-period = \"20s\", retries = 2 }\nready = \"healthy\"";
    let serve = format!(
        "mkdir -p /tmp/www; echo fine >/tmp/www/health; httpd -p 127.0.0.1:8080 -h /tmp/www; \
                         (while ! [ -e /log/sick ]; do sleep 1; done; rm /log/sick /tmp/www/health) & {WAIT}"
    );
    let machine = Config::new("health")
        .with(&noting("service", "web", &serve, health))
        .with(&noting(
            "service",
            "client",
            WAIT,
            "depends-on = { web = { condition = \"healthy\", restart-with = true } }",
        ))
        .with(&noting("service", "loner", WAIT, "depends-on = { web = \"healthy\" }"))
        .probe("a", LOG)
        .boot();
    let a = machine.probe("a");
    eventually("all have started", || order(a).split(' ').count() == 3);
    assert!(order(a).starts_with("web "), "{}", order(a));
    a.write("/log/sick", "").unwrap();
    eventually("two have started again", || order(a).split(' ').count() == 5);
    assert!(order(a).ends_with(" web client"), "{}", order(a));
    let console = machine.console();
    assert_eq!(says(&console, "`web` is unhealthy: its health check fails"), 1, "{console}");
    assert_eq!(says(&console, "`client` is stopped, to start again with `web`"), 1, "{console}");
}

#[test]
fn services_that_fail_for_good_are_given_up_as_the_config_says() {
    let broken =
        "restart-prevent-exit-status = [9]\nbackoff = { first = \"50ms\", factor = 1, cap = \"50ms\" }\n";
    let give_up = "give-up = { after = 3, within = \"1m\", then = \"poweroff\" }";
    let ended = Config::new("given-up")
        .with(&noting("service", "final", "exit 9", broken))
        .with(&noting(
            "service",
            "slow",
            "exec sleep 600",
            "ready = { tcp = 1, timeout = \"1s\" }\nrestart = \"never\"",
        ))
        .with(&noting(
            "service",
            "weak",
            "sleep 2; exit 5",
            &format!("{broken}{give_up}\ndepends-on = {{ final = {{ condition = \"started\" }} }}"),
        ))
        .with(&noting("shutdown", "farewell", "echo farewell", "timeout = \"20s\""))
        .start()
        .wait();
    let output = &ended.output;
    assert_eq!(ended.code, 5, "{output}");
    assert_eq!(says(output, "`final` ended with code 9"), 1, "{output}");
    assert_eq!(says(output, "`slow` is not ready in time, and is stopped"), 1, "{output}");
    assert_eq!(says(output, "`slow` was not ready in time"), 1, "{output}");
    assert_eq!(says(output, "`weak` ended with code 5"), 3, "{output}");
    assert_eq!(says(output, "`weak` has ended too often: the machine powers off"), 1, "{output}");
    assert_eq!(says(output, "farewell | farewell"), 1, "{output}");
}

#[test]
fn services_that_do_not_need_each_other_are_all_stopped() {
    let services: String = (0..30).map(|n| noting("service", &format!("s{n}"), WAIT, "")).collect();
    let ended = Config::new("many-stops").with(&services).boot().power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    let stopped = ended.output.split("the machine powers off").nth(1).unwrap_or_default();
    // A shell that has not come as far as its trap is killed.
    let ends = says(stopped, "` has ended") + says(stopped, "` was ended by SIGKILL");
    assert_eq!(ends, 30, "{}", ended.output);
}

#[test]
fn what_a_graph_cannot_be_is_said_with_the_way() {
    let folder: PathBuf = folder("graph-mistakes");
    let config = folder.join("m.toml");
    std::fs::write(
        &config,
        "name = \"m\"\n[service.a]\nimage = \"oci:x\"\ndepends-on = [\"b\"]\n[service.b]\nimage = \"oci:x\"\n\
         depends-on = { c = \"ready\" }\n[service.c]\nimage = \"oci:x\"\ndepends-on = { a = \"started\", databse = \"ready\" }\n\
         [service.database]\nimage = \"oci:x\"\n",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let output =
        tests::coracle().arg("check").arg(&config).output().unwrap_or_else(|error| panic!("{error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    for sentence in [
        "service.c.depends-on: nothing of this cycle could ever start: a → b → c → a",
        "service.c.depends-on: no service is called `databse` (did you mean `database`?)",
    ] {
        assert!(said.contains(sentence), "{said}");
    }
}

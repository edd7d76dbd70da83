//! Services that die, oneshots that fail, and an idle machine.

use probe::{Answer, Request};
use tests::{Config, demo_image};

#[test]
fn a_dead_service_comes_back_after_a_backoff_and_leaves_nothing_behind() {
    let machine = Config::new("restart").probe("victim", "").probe("witness", "").boot();
    let (victim, witness) = (machine.probe("victim"), machine.probe("witness"));
    for (code, backoff_ms) in [(0, 100), (1, 200), (9, 400)] {
        let orphan = victim.ask(&Request::Orphan { milliseconds: 600_000 });
        assert!(matches!(orphan, Answer::Pid(_)));
        let died = victim.identity().now_ns;
        victim.exit(code);
        let came_back = victim.next_start();
        let pause_ms = (came_back - died) / 1_000_000;
        assert!(pause_ms >= backoff_ms, "{pause_ms} ms after code {code}");
    }
    let processes = processes(witness);
    let probes = processes.iter().filter(|(name, _)| name == "probe").count();
    assert_eq!(probes, 2, "orphans are left: {processes:?}");
    assert!(!processes.iter().any(|(_, state)| state == "Z"), "somebody was not reaped: {processes:?}");
    let console = machine.console();
    let announced: Vec<&str> =
        console.lines().filter_map(|line| line.split("starts again in ").nth(1)).collect();
    assert_eq!(announced, ["0.1 s", "0.2 s", "0.4 s"]);
}

#[test]
fn an_orphan_is_reaped() {
    // The shell ends at once and leaves a child, which ends with the container and is nobody's zombie.
    let messy = format!(
        "[service.messy]\nimage = \"{}\"\ncommand = [\"sh\", \"-c\", \"(sleep 600 &) ; exit 3\"]\n",
        demo_image("busybox")
    );
    let machine = Config::new("orphan").with(&messy).probe("witness", "").boot();
    let witness = machine.probe("witness");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let processes = processes(witness);
    let sleepers = processes.iter().filter(|(name, _)| name == "sleep").count();
    assert!(sleepers <= 1, "{processes:?}");
    assert!(processes.iter().filter(|(_, state)| state == "Z").count() <= 1, "{processes:?}");
}

#[test]
fn a_chain_of_oneshots_runs_in_its_order_however_often_each_fails() {
    let busybox = demo_image("busybox");
    let oneshot = |name: &str, script: &str, keys: &str| {
        format!(
            "[oneshot.{name}]\nimage = \"{busybox}\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n\
             volumes = [\"/srv/log:/log\"]\n{keys}\n"
        )
    };
    let machine = Config::new("oneshots")
        .with(&oneshot("zeta", "sleep 1; echo zeta >>/log/order", ""))
        .with(&oneshot(
            "ignored",
            "echo ignored >>/log/order; exit 3",
            "on-failure = \"ignore\"\ndepends-on = { zeta = \"completed\" }",
        ))
        .with(&oneshot(
            "stubborn",
            "echo tried >>/log/order; [ -e /log/again ] || { touch /log/again; exit 1; }",
            "restart = \"on-failure\"\ndepends-on = { ignored = \"completed\" }",
        ))
        .with(&oneshot("alpha", "echo alpha >>/log/order", "depends-on = { stubborn = \"completed\" }"))
        .probe("a", "volumes = [\"/srv/log:/log\"]\ndepends-on = { alpha = \"completed\" }")
        .boot();
    assert_eq!(machine.probe("a").read("/log/order"), "zeta\nignored\ntried\ntried\nalpha\n");
}

#[test]
fn a_oneshots_failure_stops_the_boot_with_its_code() {
    let busybox = demo_image("busybox");
    let ended = Config::new("failure")
        .with(&format!("[oneshot.migrate]\nimage = \"{busybox}\"\ncommand = [\"sh\", \"-c\", \"exit 7\"]\n"))
        .probe("never", "depends-on = { migrate = \"completed\" }")
        .start()
        .wait();
    assert_eq!(ended.code, 7, "{}", ended.output);
    assert_eq!(ended.events["never"], []);
}

#[test]
fn a_program_that_is_not_there_fails_like_in_a_shell() {
    let busybox = demo_image("busybox");
    // On a volume, since a build looks for it everywhere else.
    let keys = "environment = { PATH = \"/opt\" }\nvolumes = [\"/srv/opt:/opt\"]";
    let ended = Config::new("no-program")
        .with(&format!("[oneshot.missing]\nimage = \"{busybox}\"\ncommand = [\"no-such-program\"]\n{keys}\n"))
        .start()
        .wait();
    assert_eq!(ended.code, 127, "{}", ended.output);
    assert!(ended.output.contains("no-such-program"), "{}", ended.output);
}

#[test]
fn an_idle_machine_sleeps_and_is_small() {
    // A watchdog is fed twice in its time-out, and without one PID 1 never wakes.
    let idle = Config::new("idle").with("[watchdog]\ntimeout = \"none\"");
    let waits = "wait-for = [\"network\", \"/dev/virtio-ports/b\"]";
    let machine = idle.probe("a", "").probe("b", waits).boot();
    let probe = machine.probe("a");
    assert_eq!(probe.list("/sys/class").iter().find(|class| *class == "watchdog"), None);
    let figure = |name: &str| -> u64 {
        let status = probe.read("/machine/proc/1/status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    };
    tests::eventually("there is a lease", || probe.read("/etc/resolv.conf").contains("nameserver"));
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = figure("voluntary_ctxt_switches");
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert_eq!(figure("voluntary_ctxt_switches"), before, "PID 1 has woken up");
    let resident = figure("VmRSS");
    println!("PID 1: {resident} KiB resident");
    // 1.5 MiB, and half of what the kernel may be wrong by: each of two processors counts up to 64 pages by itself.
    assert!(resident <= 1536 + 256, "PID 1 has {resident} KiB resident");
}

/// Name and state of each process of the machine.
fn processes(witness: &tests::Line) -> Vec<(String, String)> {
    let pids = witness.list("/machine/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    pids.filter_map(|pid| {
        let request = Request::Read { path: format!("/machine/proc/{pid}/stat") };
        // A process can end between the listing and the look.
        let Ok(Answer::Text(stat)) = witness.try_ask(&request) else { return None };
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    })
    .collect()
}

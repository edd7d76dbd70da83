//! Wall clocks that are wrong or jump, time that stands still, and consoles that nobody reads.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tests::oracle::{OVERSEER, service, survived};
use tests::{Config, Machine, Model, Oracle, Restarts, demo_image, eventually};

/// Pauses of two seconds are easily told from none, and from ten years.
const PAUSE: Duration = Duration::from_secs(2);

/// A service that ends all the time, and one that says all the time how it is.
fn machine(name: &str) -> Config {
    let busybox = demo_image("busybox");
    Config::new(name)
        .with(&format!(
            "[service.crashes]\nimage = \"{busybox}\"\ncommand = [\"false\"]\n\
             backoff = {{ first = \"2s\", factor = 1, cap = \"2s\" }}\n"
        ))
        .with(&format!(
            "[service.checked]\nimage = \"{busybox}\"\nready = \"healthy\"\nstop-grace-period = \"2s\"\n\
             command = [\"sh\", \"-c\", \"trap 'exit 0' TERM; while :; do sleep 60 & wait $!; done\"]\n\
             healthcheck = {{ test = [\"CMD\", \"true\"], interval = \"1s\", timeout = \"30s\" }}\n"
        ))
        .probe("overseer", OVERSEER)
}

fn model() -> Model {
    let rules = Restarts { first: PAUSE, factor: 1, cap: PAUSE, ..Restarts::default() };
    Model::default().with("crashes", rules)
}

/// Waits until the crashing service has been started `more` times more.
fn goes_on(machine: &Machine, more: u32) {
    let starts = || service(machine, "crashes").starts;
    let before = starts();
    eventually("restarts go on", || starts() >= before + more);
}

/// The machine has gone on by the rules, and ends.
fn ends_well(machine: Machine, oracle: Oracle) {
    oracle.judge_services(&machine);
    drop(oracle);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(!ended.output.contains("`checked` is unhealthy"), "{}", ended.output);
}

/// Seconds since 1970: its first hour, the end of 32 bits with and without a sign, nearly the last year that the kernel takes,
/// and two for good measure.
const JUMPS: [i64; 6] = [3000, 0x7fff_fff0, 0xffff_fff0, 8_000_000_000, 1_000_000_000, 1_800_000_000];

#[test]
fn no_step_of_the_wall_clock_and_no_pause_of_the_machine_starts_anything() {
    let machine = machine("clock").boot();
    let oracle = Oracle::of(&machine, model());
    let overseer = machine.probe("overseer");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let decade = 315_576_000;
    for seconds in JUMPS.into_iter().chain([now + decade, now - decade, now]) {
        assert_eq!(
            overseer.run(&["/probe", "set-clock", &seconds.to_string()]).stdout,
            "null\n",
            "{seconds}"
        );
        goes_on(&machine, 1);
    }
    let mut monitor = machine.open_monitor();
    for _ in 0..3 {
        monitor.stop();
        std::thread::sleep(Duration::from_secs(2));
        monitor.go_on();
        goes_on(&machine, 1);
    }
    drop(monitor);
    ends_well(machine, oracle);
    survived("steps of the wall clock", "clock_settime from 1970 to 2223, ten years to and fro", 9);
    survived("a machine that stands still", "QMP stop and cont", 3);
}

#[test]
fn a_machine_boots_in_any_year() {
    for base in ["1970-01-01T00:00:00", "2038-01-19T03:14:00", "2106-02-07T06:28:10", "9999-12-31T23:59:50"] {
        let machine = machine("year").device("-rtc", &format!("base={base}")).boot();
        let oracle = Oracle::of(&machine, model());
        goes_on(&machine, 2);
        ends_well(machine, oracle);
        survived("boot at another time", base, 1);
    }
}

#[test]
fn a_console_that_nobody_reads_or_that_is_not_there_delays_nothing() {
    let busybox = demo_image("busybox");
    let floods = format!(
        "[service.floods]\nimage = \"{busybox}\"\ncommand = [\"yes\"]\ncpus = 0.2\nstop-grace-period = \"1s\"\n"
    );
    for (name, cmdline) in [("unread", ""), ("unconsoled", "8250.nr_uarts=0")] {
        let config = machine(name)
            .with(&format!("[kernel]\npackage = \"linux-image-cloud-amd64\"\ncmdline = \"{cmdline}\""))
            .with(&floods);
        let config = if cmdline.is_empty() { config.unread_console() } else { config };
        let machine = config.boot();
        let oracle = Oracle::of(&machine, model());
        goes_on(&machine, 3);
        assert_eq!(machine.probe("overseer").run(&["/probe", "exit", "7"]).code, Some(7));
        let console = machine.console();
        assert!(!console.contains("ready after"), "there is a console: {console}");
        ends_well(machine, oracle);
        survived("console closed or blocked", name, 1);
    }
}

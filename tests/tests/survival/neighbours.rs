//! A service that answers, beside others that take all that they can get of the machine, and one whose first process reaps
//! nobody.

use std::process::Stdio;
use std::time::Duration;

use manifest::control::{Answer, ServiceState, What};
use probe::Latency;
use tests::oracle::{OVERSEER, answered, census, count, service, survived};
use tests::{Config, Line, Machine, Model, Oracle, Policy, Restarts, demo_image, eventually, probe_image};

/// Those who fork without end, each up to its limit.
const BOMBS: u64 = 4;
/// Those who write so many lines of 100 bytes as fast as they can, beside others who write without an end.
const FLOODS: u64 = 8;
const FLOOD_LINE: u64 = 100;
/// A soak takes its time.
const LONGEST: Duration = Duration::from_secs(900);
/// Where the neighbour answers.
const PORT: &str = "7000";
/// How often it is asked each time: an answer may take a second where processors are emulated and shared.
const ANSWERS: &str = "25";

/// What the storm waits for: a file that a probe makes.
const GO: &str = "wait-for = [\"/srv/go\"]\nnetwork = \"none\"\nrestart = \"never\"";

fn lines() -> u64 {
    count(10_000, 200_000)
}

/// When they have written them all, they say so.
const LAST_LINE: &str = "pausing\n";

fn written() -> u64 {
    lines() * FLOOD_LINE + LAST_LINE.len() as u64
}

fn machine() -> Machine {
    let (image, busybox) = (probe_image(), demo_image("busybox"));
    let storm = |name: &str, image: &str, command: &str, keys: &str| {
        format!("[service.{name}]\nimage = \"{image}\"\ncommand = [{command}]\n{GO}\n{keys}\n")
    };
    let bombs = (0..BOMBS).map(|n| {
        let keys = "pids-limit = 10\nstop-grace-period = \"1s\"";
        storm(&format!("bomb{n}"), &image, "\"/probe\", \"fork-bomb\", \"without-end\"", keys)
    });
    let floods = (0..FLOODS).map(|n| {
        let command = format!("\"/probe\", \"talk\", \"flood\", \"{}\"", lines());
        storm(&format!("flood{n}"), &image, &command, "")
    });
    let keys = "stop-grace-period = \"1s\"";
    let endless = [
        storm("yes", &busybox, "\"yes\"", keys),
        storm("noise", &busybox, "\"cat\", \"/dev/urandom\"", keys),
        storm("odd", &image, "\"/probe\", \"talk\", \"oddities\"", ""),
    ];
    Config::new("neighbours")
        .memory("1GiB")
        .timeout(LONGEST)
        .probe("overseer", OVERSEER)
        .probe("asker", "")
        .with(&format!(
            "[service.neighbour]\nimage = \"{image}\"\ncommand = [\"/probe\", \"answer\", \"{PORT}\"]\n\
             ready = \"healthy\"\nstop-grace-period = \"1s\"\n\
             healthcheck = {{ tcp = {PORT}, interval = \"500ms\", timeout = \"20s\", start-period = \"1m\" }}\n"
        ))
        .with(&format!(
            "[service.forgetful]\nimage = \"{image}\"\ncommand = [\"/probe\", \"neglect\", \"30\"]\npids-limit = 100\n\
             network = \"none\"\n"
        ))
        .with(&bombs.chain(floods).chain(endless).collect::<String>())
        .start()
}

#[test]
fn a_neighbour_answers_amid_fork_bombs_and_floods_and_no_byte_is_unaccounted_for() {
    let machine = machine();
    let (overseer, asker) = (machine.probe("overseer"), machine.probe("asker"));
    overseer.identity();
    eventually("the neighbour answers", || service(&machine, "neighbour").state == ServiceState::Ready);
    let once = Restarts { policy: Policy::Never, ..Restarts::default() };
    let names = ["bomb", "flood", "yes", "noise", "odd"];
    let model = names.iter().fold(Model::default(), |model, name| model.with(name, once));
    let oracle = Oracle::of(&machine, model);
    zombies_of_a_first_process_that_reaps_nobody_go_with_it(&machine, overseer);

    let quiet = ask(asker);
    let log = tests::folder("neighbours-log").join("followed");
    let mut follower = machine
        .ctl(&["logs", "-f", "--json", "flood0"])
        .stdout(std::fs::File::create(&log).unwrap())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    overseer.write("/machine/srv/go", "").unwrap();
    for n in 0..BOMBS {
        let events = || overseer.read(&format!("/machine/cgroup/services/bomb{n}/pids.events"));
        eventually("a fork bomb has come to its limit", || !events().contains("max 0"));
    }
    eventually("those who write do so", || service(&machine, "yes").log_dropped > 0);
    let amid = ask(asker);
    for n in 0..FLOODS {
        let name = format!("flood{n}");
        while service(&machine, &name).log_bytes < written() {
            std::thread::sleep(Duration::from_secs(1));
        }
        every_byte_is_kept_or_counted(&machine, &name);
    }
    eventually("whoever follows has every line or its number", || followed(&log) == lines() + 1);
    follower.kill().unwrap();
    follower.wait().unwrap();

    for name in (0..BOMBS).map(|n| format!("bomb{n}")).chain(["yes".to_owned(), "noise".to_owned()]) {
        assert!(machine.ctl(&["stop", &name]).status().unwrap().success(), "{name}");
        assert_eq!(overseer.read(&format!("/machine/cgroup/services/{name}/pids.current")), "0\n", "{name}");
    }
    oracle.judge_services(&machine);
    let neighbour = service(&machine, "neighbour");
    assert_eq!((neighbour.healthy, neighbour.starts), (Some(true), 1), "{neighbour:?}");
    assert!(oracle.events().iter().all(|event| event.what != What::Unhealthy));
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    answered("4 fork bombs and 11 services that write as fast as they can", quiet, amid);
    survived(
        "fork bombs beside a neighbour that is asked",
        "every process forks, at 10 processes each",
        BOMBS,
    );
    survived(
        "log floods beside a neighbour that is asked",
        "lines, random bytes, and a mebibyte without an end; kept or counted to the byte",
        FLOODS + 3,
    );
    survived("a first process that reaps nobody", "double forks in a pid namespace", 30);
}

/// All answers are there, and right.
fn ask(asker: &Line) -> Latency {
    let output = asker.run(&["/probe", "ask", PORT, ANSWERS]);
    let latency: Latency =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{output:?}: {error}"));
    assert_eq!(latency.answers.to_string(), ANSWERS);
    latency
}

/// They are its own, count against its limit, and are nobody else's business.
fn zombies_of_a_first_process_that_reaps_nobody_go_with_it(machine: &Machine, overseer: &Line) {
    let processes = || overseer.read("/machine/cgroup/services/forgetful/pids.current");
    eventually("its zombies count as its own", || processes() == "61\n");
    // Only those count that have been for a second.
    eventually("all of them are seen to stay", || census(overseer).zombies.len() == 60);
    assert!(machine.ctl(&["stop", "forgetful"]).status().unwrap().success());
    assert_eq!(census(overseer).zombies, [0; 0], "they are gone with it");
    assert_eq!(processes(), "0\n");
    assert_eq!(service(machine, "forgetful").last.unwrap().code, Some(0));
}

/// What went in is what comes out and what was counted as dropped, but for the line that was cut.
fn every_byte_is_kept_or_counted(machine: &Machine, name: &str) {
    let told = service(machine, name);
    assert_eq!(told.log_bytes, written(), "{name}: {told:?}");
    let output = machine.ctl(&["logs", name]).output().unwrap();
    assert!(output.stdout.ends_with(LAST_LINE.as_bytes()), "{name}");
    let out = output.stdout.len() as u64;
    let cut = told.log_bytes - told.log_dropped - out;
    assert!(cut < FLOOD_LINE && out > FLOOD_LINE, "{name}: {out} bytes came out of {told:?}");
}

/// Lines that came, and those that were counted as missed.
fn followed(log: &std::path::Path) -> u64 {
    let text = std::fs::read_to_string(log).unwrap();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .map(|line| match serde_json::from_str(line) {
            Ok(Answer::Log(log)) => 1 + log.dropped,
            other => panic!("{line} is no line of a log: {other:?}"),
        })
        .sum()
}

//! What has to be true of a machine whatever was done to it: its console, its services by a model of the restart rules,
//! and what a probe that sees everybody counts before and after.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use manifest::control::{self, Answer, Event, Service};
use probe::{Census, Latency};

use crate::model::Model;
use crate::{Line, Machine, eventually};

/// Words of a kernel, or of a PID 1, that is broken.
const BROKEN: [&str; 7] =
    ["Kernel panic", "BUG:", "Oops", "WARNING:", "hung task", "init is broken", "the machine reboots"];

/// What PID 1 may have more of afterwards, in bytes.
const SLACK: u64 = 64 * 1024;
/// Events that a machine keeps: once there are so many, PID 1 takes no more for them.
pub const EVENTS_KEPT: usize = 4096;
/// What each that is added may take until then: 64 bytes, in a ring that doubles.
const EVENT_SIZE: u64 = 128;

/// How long it may take until all is as it was.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a probe needs to see and to do everything: the keys of its table.
pub const OVERSEER: &str = "privileged = true\npid = \"host\"\nnetwork = \"none\"\n\
                            volumes = [\"/sys/fs/cgroup:/machine/cgroup\", \"/srv:/machine/srv\"]";

/// An observer of one machine, from its boot on.
pub struct Oracle {
    path: PathBuf,
    follower: Child,
    model: Model,
    /// With how many events there were.
    before: Option<(Census, usize)>,
}

impl Oracle {
    /// Follows all events of a machine. Services that `rules` does not name have the default ones.
    pub fn of(machine: &Machine, model: Model) -> Self {
        let path = machine.folder().join("events");
        let file = File::create(&path).unwrap();
        let mut command = machine.ctl(&["events", "-f", "--json"]);
        let follower = command.stdout(file).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { path, follower, model, before: None }
    }

    /// Counts what there is, by a probe with [`OVERSEER`], before anything is done.
    pub fn count(&mut self, machine: &Machine, overseer: &Line) {
        self.wait_until_quiet(machine);
        self.before = Some((census(overseer), self.events().len()));
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.path).unwrap();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines
            .map(|line| match serde_json::from_str(line) {
                Ok(Answer::Event(event)) => event,
                other => panic!("{line} is no event: {other:?}"),
            })
            .collect()
    }

    /// Waits until every service is what it should become.
    pub fn wait_until_quiet(&self, machine: &Machine) {
        eventually("every service is back", || {
            services(machine).iter().all(|service| self.model.is_settled(service))
        });
    }

    /// What a probe counts now is what it counted before, and the services are as the model has them. Returns the number of
    /// events.
    pub fn judge(&mut self, machine: &Machine, overseer: &Line) -> usize {
        self.wait_until_quiet(machine);
        if let Some((before, events)) = &self.before {
            let kept = |events: usize| events.min(EVENTS_KEPT);
            let added = kept(self.events().len()).saturating_sub(kept(*events));
            // What a stop leaves to the kernel takes its time, and clients are on their way out.
            let begun = Instant::now();
            let mut now = census(overseer);
            let mut found = differences(before, &now, added);
            while !found.is_empty() && begun.elapsed() < PATIENCE {
                now = census(overseer);
                found = differences(before, &now, added);
            }
            println!("PID 1: {} bytes, {} after {added} further events", before.init_memory, now.init_memory);
            assert!(found.is_empty(), "left over, before and after: {}", found.join("\n"));
        }
        self.judge_services(machine)
    }

    /// The services are as the model has them after the same events. Returns the number of all events.
    pub fn judge_services(&self, machine: &Machine) -> usize {
        let mut problems = Vec::new();
        eventually("what is told fits to the events", || {
            let (moment, told) = status(machine);
            let known = usize::try_from(moment.last_event).unwrap();
            eventually("the events until the answer are told", || self.events().len() >= known);
            problems = self.model.judge(&self.events()[..known], &told);
            // A long answer is made in pieces, between which services go on.
            problems.is_empty() || self.events().len() == known
        });
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        assert_sound(&machine.console());
        self.events().len()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It may have ended with its machine.
        let (Ok(()) | Err(_)) = self.follower.kill();
        let (Ok(_) | Err(_)) = self.follower.wait();
    }
}

/// Nothing on a console says that kernel or PID 1 is broken.
///
/// # Panics
///
/// When something does.
pub fn assert_sound(console: &str) {
    for word in BROKEN {
        assert!(!console.contains(word), "the console says `{word}`:\n{console}");
    }
}

/// How a machine and its services are, at one moment.
pub fn status(machine: &Machine) -> (control::Machine, Vec<Service>) {
    let output = machine.ctl(&["status", "--json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`coracle ctl status`: {said}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut machines = Vec::new();
    let mut services = Vec::new();
    for line in text.lines() {
        match serde_json::from_str(line).unwrap() {
            Answer::Machine(machine) => machines.push(machine),
            Answer::Service(service) => services.push(service),
            _ => {}
        }
    }
    (machines.pop().unwrap(), services)
}

/// How the services of a machine are.
pub fn services(machine: &Machine) -> Vec<Service> {
    status(machine).1
}

/// How the service called `name` is.
///
/// # Panics
///
/// When there is none.
pub fn service(machine: &Machine, name: &str) -> Service {
    let found = services(machine).into_iter().find(|service| service.name.as_str() == name);
    found.unwrap_or_else(|| panic!("`{name}` is not told"))
}

/// How the whole machine is.
pub fn census(overseer: &Line) -> Census {
    let output = overseer.run(&["/probe", "census"]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{output:?}: {error}"))
}

/// What is there that was not, or the other way round.
fn differences(before: &Census, now: &Census, added: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, is_same: bool, text: String| {
        if !is_same {
            found.push(format!("{what}: {text}"));
        }
    };
    compare("zombies", now.zombies.is_empty(), format!("{:?}", now.zombies));
    compare("cgroups", before.cgroups == now.cgroups, format!("{:?}, {:?}", before.cgroups, now.cgroups));
    compare("mounts", before.mounts == now.mounts, format!("{:?}, {:?}", before.mounts, now.mounts));
    compare(
        "namespaces",
        before.namespaces == now.namespaces,
        format!("{:?}, {:?}", before.namespaces, now.namespaces),
    );
    compare(
        "descriptors",
        before.init_descriptors == now.init_descriptors,
        format!("{:?}, {:?}", before.init_descriptors, now.init_descriptors),
    );
    let most = before.init_memory + SLACK + EVENT_SIZE * added as u64;
    compare("memory", now.init_memory <= most, format!("{}, {}", before.init_memory, now.init_memory));
    found
}

/// Takes down that a fault was survived: in the file that `CORACLE_FAULTS` names, for the list of `cargo xtask soak`.
pub fn survived(fault: &str, method: &str, injections: u64) {
    let line = serde_json::json!({ "fault": fault, "method": method, "injections": injections, "passes": 1 });
    write(&line);
}

fn write(line: &serde_json::Value) {
    println!("{line}");
    if let Some(path) = std::env::var_os("CORACLE_FAULTS") {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// Takes down how fast a neighbour has answered before something was done to the machine, and amid it.
pub fn answered(amid: &str, before: Latency, now: Latency) {
    write(&serde_json::json!({ "neighbour": amid, "before": before, "amid": now }));
}

/// How long a form that can be short or long is to take: `short`, unless `CORACLE_SOAK_SECONDS` says otherwise.
pub fn length(short: Duration) -> Duration {
    let seconds = std::env::var("CORACLE_SOAK_SECONDS").ok();
    seconds.map_or(short, |text| Duration::from_secs(text.parse().unwrap()))
}

/// `short`, or `long` in a soak.
pub fn count(short: u64, long: u64) -> u64 {
    if std::env::var_os("CORACLE_SOAK_SECONDS").is_some() { long } else { short }
}

/// Each end with its cause and number, counted.
pub fn ends(events: &[Event]) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for event in events {
        if let control::What::Ended(end) = &event.what {
            *ends.entry(end.text.clone()).or_default() += 1;
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census() -> Census {
        Census {
            zombies: Vec::new(),
            init_memory: 1 << 20,
            init_descriptors: vec!["/dev/null".to_owned()],
            cgroups: vec!["a".to_owned()],
            mounts: vec!["/ ramfs".to_owned()],
            namespaces: BTreeMap::from([("mnt".to_owned(), 2)]),
        }
    }

    type Change = fn(&mut Census);

    #[test]
    fn whatever_is_left_over_is_seen() {
        let before = census();
        assert!(differences(&before, &before, 0).is_empty());
        let changes: [(&str, Change); 6] = [
            ("zombies", |now| now.zombies.push(7)),
            ("cgroups", |now| now.cgroups.push("b".to_owned())),
            ("mounts", |now| now.mounts.clear()),
            ("namespaces", |now| now.namespaces.clear()),
            ("descriptors", |now| now.init_descriptors.push("pipe".to_owned())),
            ("memory", |now| now.init_memory += SLACK + 1),
        ];
        for (what, change) in changes {
            let mut now = before.clone();
            change(&mut now);
            let found = differences(&before, &now, 0);
            assert!(found.len() == 1 && found[0].starts_with(what), "{what}: {found:?}");
        }
    }

    #[test]
    fn a_console_is_sound_until_it_says_otherwise() {
        assert_sound("coracle | `a` was ended by SIGKILL\n");
        for word in BROKEN {
            assert!(std::panic::catch_unwind(|| assert_sound(word)).is_err(), "{word}");
        }
    }
}

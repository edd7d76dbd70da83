//! What there is to say about the machine and its services, in the protocol's words.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use manifest::control::{
    Answer, Boot, Event, Load, Machine, MachineState, Node, Now, Previous, Service, ServiceKind, ServiceState,
};
use manifest::{Awaited, Kind, Name};
use supervision::{Index, Outcome, Run, Stage, State};

use super::usage;
use crate::clock::{self, nanoseconds};
use crate::supervisor::history::{History, Record};
use crate::supervisor::main_loop::Times;
use crate::supervisor::supervised::Supervised;

/// All that can be told, at one moment.
pub struct View<'a> {
    /// The machine's name.
    pub name: &'a Name,
    /// Where all services stand.
    pub state: &'a State,
    /// The services, in the same order.
    pub services: &'a [Supervised],
    /// What has happened.
    pub history: &'a History,
    /// When the machine came up.
    pub times: &'a Times,
    /// How the boot before ended, if that is known.
    pub previous: Option<&'a Previous>,
}

impl View<'_> {
    /// The place of the service called `name`, or why there is none.
    pub fn find(&self, name: &Name) -> Result<Index, String> {
        let place = self.services.iter().position(|service| service.name == *name);
        place.ok_or_else(|| format!("no service is called `{name}`"))
    }

    /// A moment that has passed, by both clocks as they go now.
    pub fn moment(&self, time: Duration) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let past = clock::now().saturating_sub(time);
        let unix = wall.saturating_sub(past).as_millis();
        Now { monotonic_ns: nanoseconds(time), unix_ms: u64::try_from(unix).unwrap_or(u64::MAX) }
    }

    fn now(&self) -> Now {
        self.moment(clock::now())
    }

    fn name_of(&self, index: Index) -> String {
        self.services.get(index).map(|service| service.name.to_string()).unwrap_or_default()
    }

    /// Other services, and what of the machine it waits for, as `wait-for` has it.
    fn waits_for(&self, index: Index) -> Vec<String> {
        let services = self.state.unmet(index).into_iter().map(|other| self.name_of(other));
        let machine = self.state.missing(index).into_iter().map(|awaited| match awaited {
            Awaited::Network => "network".to_owned(),
            Awaited::Clock => "clock".to_owned(),
            Awaited::Path(path) => path.clone(),
        });
        services.chain(machine).collect()
    }

    fn kind(&self, index: Index) -> Option<ServiceKind> {
        Some(match self.state.services().get(index)?.rules.kind {
            Kind::Service => ServiceKind::Service,
            Kind::Oneshot { .. } => ServiceKind::Oneshot,
            Kind::Shutdown { .. } => ServiceKind::Shutdown,
        })
    }
}

/// How the machine is.
pub fn machine(view: &View<'_>) -> Answer {
    let state = match view.state {
        state if state.is_ending() => MachineState::Stopping,
        state if state.is_ready() => MachineState::Ready,
        _ => MachineState::Starting,
    };
    let last_event = view.history.last();
    Answer::Machine(Machine { name: view.name.clone(), now: view.now(), state, last_event })
}

/// How a service is. None when there is none with this number.
pub fn service(view: &View<'_>, index: Index) -> Option<Answer> {
    let service = view.services.get(index)?;
    let life = view.state.services().get(index)?;
    let (since, healthy) = match life.run {
        Run::Running(life) => (Some(life.since), life.healthy),
        _ => (None, None),
    };
    let starts_at = if let Run::Backoff { until } = life.run { Some(until) } else { None };
    Some(Answer::Service(Service {
        name: service.name.clone(),
        kind: view.kind(index)?,
        state: state(&life.run),
        pid: life.run.pid().map(|pid| pid.0),
        since_ns: since.map(nanoseconds),
        starts_at_ns: starts_at.map(nanoseconds),
        healthy,
        starts: life.starts,
        last: service.last.as_ref().map(|end| end.told()),
        says: service.says.as_deref().map(str::to_owned),
        waits_for: view.waits_for(index),
        log_bytes: service.ring.written(),
        log_dropped: service.ring.dropped(),
    }))
}

fn state(run: &Run) -> ServiceState {
    match run {
        Run::Waiting | Run::Awaiting { .. } => ServiceState::Waiting,
        Run::Running(life) if life.stage == Stage::Ready => ServiceState::Ready,
        Run::Starting | Run::Running(_) => ServiceState::Starting,
        Run::Leaving { .. } | Run::Stopping { .. } | Run::Killed { .. } => ServiceState::Stopping,
        Run::Backoff { .. } => ServiceState::Backoff,
        Run::Held => ServiceState::Stopped,
        Run::Ended(Outcome::Code(0)) => ServiceState::Completed,
        Run::Ended(_) => ServiceState::Failed,
        Run::Skipped => ServiceState::Skipped,
    }
}

/// What the machine uses. What cannot be read is 0.
pub fn load(view: &View<'_>) -> Answer {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let bytes = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) << 10
    };
    let stat = read("/proc/stat");
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .map(|line| line.split_whitespace().skip(1).flat_map(str::parse).collect())
        .unwrap_or_default();
    // USER_HZ is 100 on every machine that this runs on.
    let spent = |at: &[usize]| at.iter().filter_map(|&at| ticks.get(at)).sum::<u64>() * 10_000;
    let averages = read("/proc/loadavg");
    // Two digits after each point: see proc_loadavg(5).
    let mut averages = averages.split_whitespace().map(|word| word.replace('.', "").parse().unwrap_or(0));
    let mut average = || averages.next().unwrap_or(0);
    let pages = read("/proc/self/statm");
    let pages: u64 = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let processors = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
    Answer::Load(Load {
        now: view.now(),
        memory_total: bytes("MemTotal"),
        memory_available: bytes("MemAvailable"),
        processors: u32::try_from(processors).unwrap_or(u32::MAX),
        // user and nice; system, irq, softirq and steal: see proc_stat(5).
        user_us: spent(&[0, 1]),
        system_us: spent(&[2, 5, 6, 7]),
        idle_us: spent(&[3]),
        iowait_us: spent(&[4]),
        load_percent: [average(), average(), average()],
        init_memory: pages * 4096,
    })
}

/// What a service uses. Nothing of one whose cgroup cannot be read.
pub fn usage(view: &View<'_>, index: Index) -> Option<Answer> {
    let service = view.services.get(index)?;
    Some(Answer::Usage(usage::of(&service.name, &service.group)))
}

/// How the machine came up.
pub fn boot(view: &View<'_>) -> Boot {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Boot {
        kernel: kernel.trim_end().to_owned(),
        init_ns: nanoseconds(view.times.init),
        supervised_ns: nanoseconds(view.times.supervised.unwrap_or_default()),
        ready_ns: view.times.ready.map(nanoseconds),
        previous: view.previous.cloned(),
    }
}

/// How a service came up.
pub fn node(view: &View<'_>, index: Index) -> Option<Node> {
    let service = view.services.get(index)?;
    let life = view.state.services().get(index)?;
    let kind = view.kind(index)?;
    let story = &service.story;
    let (ended, end) = story.ended.as_ref().map(|(time, end)| (*time, end.told())).unzip();
    let ready = match kind {
        ServiceKind::Service => story.ready,
        // It is there when it has done what it is for.
        ServiceKind::Oneshot | ServiceKind::Shutdown => {
            ended.filter(|_| end.as_ref().is_some_and(|end| end.code == Some(0)))
        }
    };
    let after = life.rules.depends_on.iter().filter_map(|edge| view.services.get(edge.service));
    Some(Node {
        name: service.name.clone(),
        kind,
        after: after.map(|other| other.name.clone()).collect(),
        queued_ns: nanoseconds(view.times.supervised.unwrap_or_default()),
        started_ns: story.started.map(nanoseconds),
        executed_ns: story.executed.map(nanoseconds),
        ready_ns: ready.map(nanoseconds),
        ended_ns: ended.map(nanoseconds),
        end,
    })
}

/// Something that has happened.
pub fn event(view: &View<'_>, sequence: u64, record: &Record) -> Answer {
    Answer::Event(Event {
        sequence,
        now: view.moment(record.time),
        service: record
            .service
            .and_then(|index| view.services.get(index))
            .map(|service| service.name.clone()),
        what: record.entry.what(),
        text: record.entry.predicate(|index| view.name_of(index), view.state.conditions()),
    })
}

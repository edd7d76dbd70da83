//! What a machine and its services use, as Prometheus reads it: under cAdvisor's and node_exporter's names, so that the
//! dashboards that exist show it.

use std::fmt::Write;

use manifest::control::{Load, Service, ServiceState, Usage};

use super::status::{Status, word};
use super::top::Sample;

/// A family of figures of services: its name, its type, what it is, and where it comes from.
type Family<T> = (&'static str, &'static str, &'static str, fn(&T) -> f64);

const USAGES: &[Family<Usage>] = &[
    ("container_cpu_user_seconds_total", "counter", "Processor time in user mode.", |usage| {
        seconds(usage.user_us)
    }),
    ("container_cpu_system_seconds_total", "counter", "Processor time in the kernel.", |usage| {
        seconds(usage.system_us)
    }),
    ("container_cpu_usage_seconds_total", "counter", "Processor time.", |usage| {
        seconds(usage.user_us.saturating_add(usage.system_us))
    }),
    ("container_memory_usage_bytes", "gauge", "Memory.", |usage| number(usage.memory)),
    ("container_memory_max_usage_bytes", "gauge", "The most memory so far.", |usage| {
        number(usage.memory_peak)
    }),
    ("container_spec_memory_limit_bytes", "gauge", "The most memory allowed.", |usage| {
        number(usage.memory_limit)
    }),
    ("container_processes", "gauge", "Processes and threads.", |usage| number(usage.processes)),
    ("container_oom_events_total", "counter", "Processes that were killed for memory.", |usage| {
        number(usage.memory_kills)
    }),
    ("container_fs_reads_bytes_total", "counter", "Bytes read from disks.", |usage| number(usage.read_bytes)),
    ("container_fs_writes_bytes_total", "counter", "Bytes written to disks.", |usage| {
        number(usage.written_bytes)
    }),
];

const SERVICES: &[Family<Service>] = &[
    ("coracle_service_starts_total", "counter", "How often a service was started.", |service| {
        f64::from(service.starts)
    }),
    ("coracle_service_log_bytes_total", "counter", "Bytes that a service has written.", |service| {
        number(service.log_bytes)
    }),
    (
        "coracle_service_log_dropped_bytes_total",
        "counter",
        "How many of those are not kept any more.",
        |service| number(service.log_dropped),
    ),
];

const MACHINE: &[Family<Load>] = &[
    ("machine_cpu_cores", "gauge", "Processors.", |load| f64::from(load.processors)),
    ("machine_memory_bytes", "gauge", "Memory that there is.", |load| number(load.memory_total)),
    ("node_memory_MemTotal_bytes", "gauge", "Memory that there is.", |load| number(load.memory_total)),
    ("node_memory_MemAvailable_bytes", "gauge", "Memory that can be had.", |load| {
        number(load.memory_available)
    }),
    ("node_load1", "gauge", "Processes that want to run, over a minute.", |load| {
        f64::from(load.load_percent[0]) / 100.0
    }),
    ("node_load5", "gauge", "Processes that want to run, over 5 minutes.", |load| {
        f64::from(load.load_percent[1]) / 100.0
    }),
    ("node_load15", "gauge", "Processes that want to run, over 15 minutes.", |load| {
        f64::from(load.load_percent[2]) / 100.0
    }),
    ("node_time_seconds", "gauge", "The machine's time.", |load| milliseconds(load.now.unix_ms)),
    ("node_boot_time_seconds", "gauge", "When the machine was started.", |load| {
        milliseconds(load.now.unix_ms) - nanoseconds(load.now.monotonic_ns)
    }),
    ("coracle_init_memory_bytes", "gauge", "Memory of PID 1.", |load| number(load.init_memory)),
];

/// What processors do, and for how many microseconds.
type Mode = (&'static str, fn(&Load) -> u64);

const MODES: &[Mode] = &[
    ("idle", |load| load.idle_us),
    ("iowait", |load| load.iowait_us),
    ("system", |load| load.system_us),
    ("user", |load| load.user_us),
];

const STATES: &[ServiceState] = &[
    ServiceState::Waiting,
    ServiceState::Starting,
    ServiceState::Ready,
    ServiceState::Stopping,
    ServiceState::Backoff,
    ServiceState::Stopped,
    ServiceState::Completed,
    ServiceState::Failed,
    ServiceState::Skipped,
];

/// All of it in the text format of Prometheus.
pub fn text(sample: &Sample, status: &Status) -> String {
    let mut text = Exposition(String::new());
    for (name, kind, help, figure) in USAGES {
        text.family(name, kind, help);
        sample.usages.iter().for_each(|usage| text.of_service(name, usage.name.as_str(), figure(usage)));
    }
    text.family("container_start_time_seconds", "gauge", "When the run of a service began.");
    let now = status.machine.now;
    for service in &status.services {
        if let Some(since) = service.since_ns.filter(|_| service.pid.is_some()) {
            let ago = nanoseconds(now.monotonic_ns.saturating_sub(since));
            let at = milliseconds(now.unix_ms) - ago;
            text.of_service("container_start_time_seconds", service.name.as_str(), at);
        }
    }
    for (name, kind, help, figure) in SERVICES {
        text.family(name, kind, help);
        status
            .services
            .iter()
            .for_each(|service| text.of_service(name, service.name.as_str(), figure(service)));
    }
    text.family("coracle_service_state", "gauge", "1 for the state in which a service is, 0 for the others.");
    for service in &status.services {
        for state in STATES {
            let labels = format!("name=\"{}\",state=\"{}\"", service.name, word(*state));
            text.figure("coracle_service_state", &labels, f64::from(u8::from(service.state == *state)));
        }
    }
    text.family("node_cpu_seconds_total", "counter", "Time of all processors together, by what they did.");
    for (mode, figure) in MODES {
        text.figure("node_cpu_seconds_total", &format!("mode=\"{mode}\""), seconds(figure(&sample.load)));
    }
    for (name, kind, help, figure) in MACHINE {
        text.family(name, kind, help);
        text.figure(name, "", figure(&sample.load));
    }
    text.0
}

struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn of_service(&mut self, family: &str, name: &str, figure: f64) {
        self.figure(family, &format!("name=\"{name}\""), figure);
    }

    fn figure(&mut self, family: &str, labels: &str, figure: f64) {
        match labels {
            "" => self.line(format_args!("{family} {figure}")),
            labels => self.line(format_args!("{family}{{{labels}}} {figure}")),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let (Ok(()) | Err(std::fmt::Error)) = writeln!(self.0, "{line}");
    }
}

/// Exact up to 2^53, which bytes and microseconds do not reach before 285 years.
#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn number(count: u64) -> f64 {
    count as f64
}

fn seconds(microseconds: u64) -> f64 {
    number(microseconds) / 1e6
}

fn milliseconds(count: u64) -> f64 {
    number(count) / 1e3
}

fn nanoseconds(count: u64) -> f64 {
    number(count) / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::fake::{machine, service};
    use super::super::top::tests::sample;
    use super::*;

    fn shop() -> String {
        let services =
            vec![service("web"), Service { state: ServiceState::Failed, pid: None, ..service("db") }];
        text(&sample(900_000, 1_250_000), &Status { machine: machine(), services })
    }

    #[test]
    fn the_figures_of_a_machine_are_these() {
        insta::assert_snapshot!(shop());
    }

    /// What Prometheus' description of the text format says, as far as it is used here.
    #[test]
    fn the_text_is_what_prometheus_reads() {
        let text = shop();
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        let (mut families, mut figures) = (BTreeSet::new(), BTreeSet::new());
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no family begins with {line}"));
            let (family, _) = help.split_once(' ').unwrap();
            assert!(is_name(family) && families.insert(family), "{family} is no name, or there twice");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} "))).unwrap();
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let (figure, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
                assert!(figures.insert(figure), "{figure} is there twice");
                let (name, labels) = figure.split_once('{').unwrap_or((figure, "}"));
                assert_eq!(name, family);
                for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
                    let (label, value) = label.split_once('=').unwrap();
                    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
                    assert!(is_name(label) && !value.contains(['"', '\\', '\n']), "{line}");
                }
            }
        }
        assert!(families.len() > 20 && figures.len() > 50, "{text}");
    }
}

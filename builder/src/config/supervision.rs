//! How a service is supervised: the keys that say so, and what they mean.

mod raw;
mod waits;

use std::time::Duration;

use manifest::{
    Backoff, Condition, GiveUp, Kind, Limits, OnFailure, OnUnhealthy, Probe, Ready, ReadyBy, Resource,
    Restart, RestartPolicy, Then, UNLIMITED, Wait,
};

use super::Table;
use super::check::Check;
use super::problem::suggestion;
use super::raw::At;
use super::value;
pub use raw::RawSupervision;
use raw::{RawBackoff, RawEdge, RawGiveUp, RawHealth, RawReady};
pub use waits::{check_paths, hint};

/// As systemd has it.
const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// Docker's grace period for a container, here for what runs before the services stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// "Do not restart", as s6 has it.
const PREVENTS_RESTART: u8 = 125;

const BACKOFF: Backoff =
    Backoff { first_ms: 100, factor: 2, cap_ms: 30_000, jitter_percent: 0, reset_ms: 60_000 };

/// So many ends are remembered at most.
const MOST_ENDS: u32 = 100;

/// Descriptors that a service can be given: the standard ones are taken, and few programs expect a high one.
const DESCRIPTORS: std::ops::RangeInclusive<u32> = 3..=255;

/// The conditions of an edge, as they are written.
const CONDITIONS: &[(&str, Condition)] = &[
    ("started", Condition::Started),
    ("ready", Condition::Ready),
    ("healthy", Condition::Healthy),
    ("completed", Condition::Completed),
    // Compose's.
    ("service_started", Condition::Started),
    ("service_healthy", Condition::Healthy),
    ("service_completed_successfully", Condition::Completed),
];

const ON_FAILURE: &[(&str, OnFailure)] =
    &[("abort-boot", OnFailure::AbortBoot), ("degrade", OnFailure::Degrade), ("ignore", OnFailure::Ignore)];

const ON_UNHEALTHY: &[(&str, OnUnhealthy)] =
    &[("restart", OnUnhealthy::Restart), ("reboot", OnUnhealthy::Reboot), ("none", OnUnhealthy::None)];

const THEN: &[(&str, Then)] = &[("stop", Then::Stop), ("reboot", Then::Reboot), ("poweroff", Then::Poweroff)];

const POLICIES: &[(&str, RestartPolicy)] = &[
    ("never", RestartPolicy::Never),
    ("on-failure", RestartPolicy::OnFailure),
    ("always", RestartPolicy::Always),
    // Whoever stops a service starts it again, and a machine that boots starts everything: the two are the same.
    ("unless-stopped", RestartPolicy::Always),
    // Compose's spelling of never.
    ("no", RestartPolicy::Never),
];

/// What the config says about a service's supervision.
#[derive(Debug, Clone, PartialEq)]
pub struct Supervision {
    /// What it waits for.
    pub depends_on: Vec<Edge>,
    /// What it waits for of the machine.
    pub wait_for: Vec<At<Wait>>,
    /// When it is ready.
    pub ready: Ready,
    /// How its health is found out.
    pub health: HealthOptions,
    /// The longest time between two of its signs of life.
    pub watchdog: Option<Duration>,
    /// What follows its end.
    pub restart: Restart,
}

/// One entry of `depends-on`.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// The other service's name and its place.
    pub service: At<String>,
    /// How far it has to come.
    pub condition: At<Condition>,
    /// What follows when it never will.
    pub on_failure: OnFailure,
    /// Whether the service is started again when the other one has ended.
    pub restart_with: bool,
}

/// `healthcheck`: what is absent is the image's, or the usual.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HealthOptions {
    /// Whether anything was written.
    pub is_written: bool,
    /// The image's own is not wanted either.
    pub is_disabled: bool,
    pub probe: Option<Probe>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
    pub on_unhealthy: Option<OnUnhealthy>,
}

/// What the keys of the table at `path` mean: its kind, and the rest.
pub fn check(
    raw: RawSupervision,
    table: Table,
    limits: &Limits,
    path: &str,
    check: &mut Check<'_>,
) -> (Kind, Supervision) {
    let kind = match table {
        Table::Service => Kind::Service,
        Table::Oneshot => Kind::Oneshot {
            on_failure: word(check, ON_FAILURE, path, "on-failure", raw.on_failure)
                .unwrap_or(OnFailure::AbortBoot),
        },
        Table::Shutdown => Kind::Shutdown {
            timeout_ms: ms(duration(check, path, "timeout", raw.timeout).unwrap_or(SHUTDOWN_TIMEOUT)),
        },
    };
    let depends_on = raw.depends_on.into_iter().map(|edge| edge_of(edge, table, path, check)).collect();
    let wait_for = waits::check(raw.wait_for, path, check);
    let ready = raw
        .ready
        .map_or(Ready { by: ReadyBy::Started, timeout_ms: 0 }, |raw| ready(raw, limits, path, check));
    let health = raw.health.map(|raw| health(raw, path, check)).unwrap_or_default();
    let restart = Restart {
        policy: policy(raw.restart, table, path, check),
        prevented_by: codes(raw.prevented_by, path, check),
        backoff: raw.backoff.map_or(BACKOFF, |raw| backoff(raw, path, check)),
        give_up: raw.give_up.and_then(|raw| give_up(raw, path, check)),
    };
    let watchdog = raw.watchdog.and_then(|written| {
        let limit =
            check.value(&written.span, format!("{path}.watchdog"), value::duration(&written.value))?;
        if limit.is_zero() {
            check.at(
                &written.span,
                format!("{path}.watchdog"),
                "no service gives signs of life without a pause",
            );
        }
        Some(limit)
    });
    (kind, Supervision { depends_on, wait_for, ready, health, watchdog, restart })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn duration(check: &mut Check<'_>, path: &str, key: &str, written: Option<At<String>>) -> Option<Duration> {
    let written = written?;
    check.value(&written.span, format!("{path}.{key}"), value::duration(&written.value))
}

/// A word of a list.
fn word<T: Copy>(
    check: &mut Check<'_>,
    known: &[(&str, T)],
    path: &str,
    key: &str,
    written: Option<At<String>>,
) -> Option<T> {
    let written = written?;
    let found = known.iter().find(|(name, _)| *name == written.value);
    if found.is_none() {
        // Compose's words are understood, and ours proposed.
        let names: Vec<&str> =
            known.iter().map(|(name, _)| *name).filter(|name| !name.contains('_') && *name != "no").collect();
        let what = format!("`{}` is none of {}", written.value, names.join(", "));
        let meant = suggestion(&written.value, names);
        check.at(&written.span, format!("{path}.{key}"), what + &meant);
    }
    found.map(|(_, meaning)| *meaning)
}

fn policy(written: Option<At<String>>, table: Table, path: &str, check: &mut Check<'_>) -> RestartPolicy {
    let default = if table == Table::Service { RestartPolicy::Always } else { RestartPolicy::Never };
    let span = written.as_ref().map(|written| written.span.clone());
    let found = word(check, POLICIES, path, "restart", written).unwrap_or(default);
    if let Some(span) = span
        && table == Table::Oneshot
        && found == RestartPolicy::Always
    {
        let what = "a oneshot that always restarts never completes; use \"on-failure\" or a [service]";
        check.at(&span, format!("{path}.restart"), what);
    }
    found
}

fn codes(written: Option<At<Vec<At<u32>>>>, path: &str, check: &mut Check<'_>) -> Vec<u8> {
    let Some(written) = written else { return vec![PREVENTS_RESTART] };
    let code = |code: At<u32>| {
        let number =
            u8::try_from(code.value).map_err(|_| format!("{} is no exit code: 0 to 255", code.value));
        check.value(&code.span, format!("{path}.restart-prevent-exit-status"), number)
    };
    written.value.into_iter().filter_map(code).collect()
}

fn edge_of(raw: RawEdge, table: Table, path: &str, check: &mut Check<'_>) -> Edge {
    let path = format!("{path}.depends-on.{}", raw.service.value);
    // What comes before the end of the machine is done when it has ended.
    let default = if table == Table::Shutdown { Condition::Completed } else { Condition::Started };
    let span = raw.condition.as_ref().map_or(raw.service.span.clone(), |condition| condition.span.clone());
    let condition = word(check, CONDITIONS, &path, "condition", raw.condition).unwrap_or(default);
    Edge {
        service: raw.service,
        condition: At { value: condition, span },
        on_failure: word(check, ON_FAILURE, &path, "on-failure", raw.on_failure)
            .unwrap_or(OnFailure::Degrade),
        restart_with: raw.restart_with.is_some_and(|with| with.value),
    }
}

fn port(check: &mut Check<'_>, path: &str, key: &str, written: &At<u32>) -> Option<u16> {
    let port = u16::try_from(written.value).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| format!("{} is no port: 1 to 65535", written.value));
    check.value(&written.span, format!("{path}.{key}"), port)
}

/// The parts of an address such as `http://localhost:3000/health`. Whoever is asked is the service itself.
fn http(text: &str) -> Result<Probe, String> {
    let wrong = || {
        format!(
            "`{text}` is not asked: expected the service's own address, such as \"http://localhost:3000/health\""
        )
    };
    let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?),
        None => (host, 80),
    };
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !matches!(name, "localhost" | "127.0.0.1") || !is_plain {
        return Err(wrong());
    }
    Ok(Probe::Http { port, host: host.to_owned(), path: path.to_owned() })
}

/// How many descriptors a program may have.
fn descriptors(limits: &Limits) -> u64 {
    let limit = limits.resources.iter().find(|limit| limit.resource == Resource::Nofile);
    limit.map_or(UNLIMITED, |limit| limit.soft)
}

fn ready(raw: RawReady, limits: &Limits, path: &str, check: &mut Check<'_>) -> Ready {
    let by = |by| Ready { timeout_ms: if by == ReadyBy::Started { 0 } else { ms(READY_TIMEOUT) }, by };
    let table = match raw {
        RawReady::Word(written) => {
            let words = [("started", 0), ("notify", 1), ("healthy", 2)];
            return by(match word(check, &words, path, "ready", Some(written)) {
                Some(1) => ReadyBy::Notify,
                Some(2) => ReadyBy::Healthy,
                _ => ReadyBy::Started,
            });
        }
        RawReady::Table(table) => table,
    };
    let path = format!("{path}.ready");
    let At { value: raw, span } = table;
    let mut ways = Vec::new();
    ways.extend(
        raw.tcp.and_then(|tcp| port(check, &path, "tcp", &tcp)).map(|port| ReadyBy::Probe(Probe::Tcp(port))),
    );
    ways.extend(raw.http.and_then(|written| {
        check.value(&written.span, format!("{path}.http"), http(&written.value)).map(ReadyBy::Probe)
    }));
    ways.extend(raw.fd.and_then(|written| {
        let fd = match written.value {
            fd if !DESCRIPTORS.contains(&fd) => Err(format!("{fd} is none of the descriptors 3 to 255")),
            fd if u64::from(fd) >= descriptors(limits) => {
                Err(format!("`ulimits.nofile` leaves no descriptor {fd}: it takes {} or more", fd + 1))
            }
            fd => Ok(fd),
        };
        check.value(&written.span, format!("{path}.fd"), fd).map(ReadyBy::Fd)
    }));
    ways.extend(raw.notify.filter(|notify| notify.value).map(|_| ReadyBy::Notify));
    ways.extend(raw.healthy.filter(|healthy| healthy.value).map(|_| ReadyBy::Healthy));
    let timeout = duration(check, &path, "timeout", raw.timeout);
    if ways.len() > 1 {
        check.at(&span, &path, "a service is ready in one way: `tcp`, `http`, `fd`, `notify` or `healthy`");
    }
    let Some(way) = ways.pop() else {
        check.at(&span, &path, "missing: one of `tcp`, `http`, `fd`, `notify` or `healthy`");
        return by(ReadyBy::Started);
    };
    let usual = by(way);
    Ready { timeout_ms: timeout.map_or(usual.timeout_ms, ms), ..usual }
}

fn health(At { value: raw, span }: At<RawHealth>, path: &str, check: &mut Check<'_>) -> HealthOptions {
    let path = format!("{path}.healthcheck");
    let mut probes = Vec::new();
    let mut is_disabled = raw.disable.is_some_and(|disable| disable.value);
    if let Some(written) = raw.test {
        match exec(&written.value.0) {
            Ok(probe) => {
                is_disabled |= probe.is_none();
                probes.extend(probe);
            }
            Err(what) => check.at(&written.span, format!("{path}.test"), what),
        }
    }
    probes.extend(raw.tcp.and_then(|tcp| port(check, &path, "tcp", &tcp)).map(Probe::Tcp));
    probes.extend(
        raw.http.and_then(|written| check.value(&written.span, format!("{path}.http"), http(&written.value))),
    );
    if probes.len() > 1 || (is_disabled && !probes.is_empty()) {
        check.at(&span, &path, "a service has one health check: `test`, `http` or `tcp`, or `disable`");
    }
    let retries = raw.retries.and_then(|written| {
        let retries = Some(written.value).filter(|retries| *retries > 0);
        let retries = retries.ok_or_else(|| "the first failed check is one already".to_owned());
        check.value(&written.span, format!("{path}.retries"), retries)
    });
    let mut pause = |key: &str, written: Option<At<String>>| {
        let span = written.as_ref().map(|written| written.span.clone())?;
        let pause = duration(check, &path, key, written)?;
        if pause.is_zero() {
            check.at(
                &span,
                format!("{path}.{key}"),
                "checks without a pause are all that the service would do",
            );
        }
        Some(pause)
    };
    let (interval, timeout) = (pause("interval", raw.interval), pause("timeout", raw.timeout));
    let start_interval = pause("start-interval", raw.start_interval);
    HealthOptions {
        is_written: true,
        is_disabled,
        probe: probes.pop(),
        interval,
        timeout,
        retries,
        start_period: duration(check, &path, "start-period", raw.start_period),
        start_interval,
        on_unhealthy: word(check, ON_UNHEALTHY, &path, "on-unhealthy", raw.on_unhealthy),
    }
}

/// What Docker's and Compose's lists mean; none where there is to be no check.
pub fn exec(words: &[String]) -> Result<Option<Probe>, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let argv = match *words.as_slice() {
        ["NONE"] => return Ok(None),
        ["CMD", ref argv @ ..] if !argv.is_empty() => argv.to_vec(),
        ["CMD-SHELL", line] => vec!["/bin/sh", "-c", line],
        _ => {
            let what = "expected [\"CMD\", PROGRAM, ARGUMENT, …], [\"CMD-SHELL\", LINE] or [\"NONE\"]";
            return Err(what.to_owned());
        }
    };
    if argv.iter().any(|word| word.contains('\0')) {
        return Err("a word of a command has no NUL".to_owned());
    }
    Ok(Some(Probe::Exec(argv.into_iter().map(str::to_owned).collect())))
}

fn backoff(raw: RawBackoff, path: &str, check: &mut Check<'_>) -> Backoff {
    let path = format!("{path}.backoff");
    let first = raw.first.as_ref().map(|first| first.span.clone());
    let first_ms = duration(check, &path, "first", raw.first).map_or(BACKOFF.first_ms, ms);
    if let Some(span) = first
        && first_ms == 0
    {
        check.at(
            &span,
            format!("{path}.first"),
            "a service that fails at once would be all that the machine does",
        );
    }
    let factor = raw.factor.map_or(BACKOFF.factor, |written| {
        if !(1..=100).contains(&written.value) {
            check.at(&written.span, format!("{path}.factor"), "a factor is 1 to 100");
        }
        written.value
    });
    let jitter_percent = raw.jitter.and_then(|written| {
        let percent = written.value.hundredths().filter(|percent| *percent <= 100);
        let percent = percent.and_then(|percent| u8::try_from(percent).ok());
        let percent = percent.ok_or_else(|| "expected a share from 0 to 1, such as 0.1".to_owned());
        check.value(&written.span, format!("{path}.jitter"), percent)
    });
    Backoff {
        first_ms,
        factor,
        cap_ms: duration(check, &path, "cap", raw.cap).map_or(BACKOFF.cap_ms.max(first_ms), ms).max(first_ms),
        jitter_percent: jitter_percent.unwrap_or(BACKOFF.jitter_percent),
        reset_ms: duration(check, &path, "reset", raw.reset).map_or(BACKOFF.reset_ms, ms),
    }
}

fn give_up(At { value: raw, span }: At<RawGiveUp>, path: &str, check: &mut Check<'_>) -> Option<GiveUp> {
    let path = format!("{path}.give-up");
    let (Some(after), Some(within)) = (raw.after, raw.within) else {
        check.at(&span, &path, "missing: `after` and `within`, such as { after = 10, within = \"5m\" }");
        return None;
    };
    if !(1..=MOST_ENDS).contains(&after.value) {
        check.at(
            &after.span,
            format!("{path}.after"),
            format!("a service is given up after 1 to {MOST_ENDS} ends"),
        );
    }
    Some(GiveUp {
        after: after.value,
        within_ms: duration(check, &path, "within", Some(within)).map_or(0, ms),
        then: word(check, THEN, &path, "then", raw.then).unwrap_or(Then::Stop),
    })
}

#[cfg(test)]
mod tests;

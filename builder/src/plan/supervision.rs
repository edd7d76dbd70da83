//! How a service is supervised: the config's words over the image's health check, names turned into places.

use std::time::Duration;

use manifest::{
    Awaited, Condition, Dependency, Health, Kind, Name, OnFailure, OnUnhealthy, Probe, Ready, ReadyBy,
    Restart, RestartPolicy, Service as Supervised, Stop, Then, Wait, path,
};

use crate::config::{HealthOptions, Service, health_test, signal_name};
use crate::error::{Error, Result};
use crate::oci::image::{Healthcheck, Process};

/// Docker's.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
const START_INTERVAL: Duration = Duration::from_secs(5);

/// The edges of `service`, by the places of `names`.
pub fn depends_on(service: &Service, names: &[&Name]) -> Result<Vec<Dependency>> {
    let edge = |edge: &crate::config::Edge| {
        let place = names.iter().position(|name| name.as_str() == edge.service.value);
        let place =
            place.ok_or_else(|| Error::new(format!("no service is called `{}`", edge.service.value)))?;
        Ok(Dependency {
            service: place,
            condition: edge.condition.value,
            on_failure: edge.on_failure,
            restart_with: edge.restart_with,
        })
    };
    service.supervision.depends_on.iter().map(edge).collect()
}

/// When the service is ready. Health that nobody finds out is an error.
pub fn ready(service: &Service, health: Option<&Health>) -> Result<Ready> {
    let ready = service.supervision.ready.clone();
    if ready.by == ReadyBy::Healthy && health.is_none() {
        return Err(Error::new("`ready = \"healthy\"` waits for a health check, and there is none")
            .hint("set `healthcheck`, such as { http = \"http://localhost/\" }"));
    }
    Ok(ready)
}

/// The health check: the config's keys over the image's. None without a probe.
pub fn health(service: &Service, defaults: &Process) -> Result<Option<Health>> {
    let options = &service.supervision.health;
    let image = defaults.healthcheck.clone().unwrap_or_default();
    if options.is_disabled {
        return Ok(None);
    }
    let Some(probe) = probe(options, &image.test)? else {
        return match options.is_written {
            true => {
                Err(Error::new("`healthcheck` says how often to check, and neither it nor the image what")
                    .hint("set one of `test`, `http` and `tcp` in it"))
            }
            false => Ok(None),
        };
    };
    Ok(Some(merged(options, probe, &image)))
}

/// The config's keys over Docker's usual times, for one that has a probe.
pub fn usual_health(options: &HealthOptions) -> Option<Health> {
    options.probe.clone().map(|probe| merged(options, probe, &Healthcheck::default()))
}

fn merged(options: &HealthOptions, probe: Probe, image: &Healthcheck) -> Health {
    // The image's are in nanoseconds, and 0 where it has none.
    let ms = |own: Option<Duration>, image: i64, usual: Duration| {
        let image =
            u64::try_from(image).ok().filter(|nanoseconds| *nanoseconds > 0).map(Duration::from_nanos);
        let chosen = own.or(image).unwrap_or(usual);
        u64::try_from(chosen.as_millis()).unwrap_or(u64::MAX).max(1)
    };
    let image_retries = u32::try_from(image.retries).ok().filter(|retries| *retries > 0);
    let start_period = ms(options.start_period, image.start_period, Duration::ZERO);
    Health {
        probe,
        interval_ms: ms(options.interval, image.interval, INTERVAL),
        timeout_ms: ms(options.timeout, image.timeout, TIMEOUT),
        retries: options.retries.or(image_retries).unwrap_or(RETRIES),
        start_period_ms: if start_period > 1 { start_period } else { 0 },
        start_interval_ms: ms(options.start_interval, image.start_interval, START_INTERVAL),
        on_unhealthy: options.on_unhealthy.unwrap_or(OnUnhealthy::Restart),
    }
}

fn probe(options: &HealthOptions, test: &[String]) -> Result<Option<Probe>> {
    if options.probe.is_some() || test.is_empty() {
        return Ok(options.probe.clone());
    }
    health_test(test).map_err(|what| Error::new(format!("the image's health check: {what}")))
}

/// Services that wait for a health that nobody finds out: images have health checks too, so that it is known here only.
pub fn contradictions(services: &[Supervised]) -> Vec<Error> {
    let waits =
        services.iter().flat_map(|service| service.depends_on.iter().map(move |edge| (service, edge)));
    let is_vain = |edge: &Dependency| {
        let other = services.get(edge.service);
        other.filter(|other| edge.condition == Condition::Healthy && other.health.is_none())
    };
    let error = |(service, edge): (&Supervised, &Dependency)| {
        let other = &is_vain(edge)?.name;
        let what =
            format!("`{}` waits until `{other}` is healthy, and `{other}` has no health check", service.name);
        Some(Error::new(what).hint(format!("set `healthcheck` of `{other}`, or wait until it is \"ready\"")))
    };
    waits.filter_map(error).collect()
}

/// What programs look for that speak sd_notify(3), as far as the service has the socket.
pub fn environment(service: &Service) -> Vec<String> {
    if !notifies(service) {
        return Vec::new();
    }
    let mut variables = vec![format!("NOTIFY_SOCKET={}", path::NOTIFY_TARGET)];
    variables
        .extend(service.supervision.watchdog.map(|limit| format!("WATCHDOG_USEC={}", limit.as_micros())));
    variables
}

/// Whether the service has the socket of sd_notify(3).
pub fn notifies(service: &Service) -> bool {
    service.supervision.ready.by == ReadyBy::Notify || service.supervision.watchdog.is_some()
}

/// What a person reads of it: lines, each with the word that it begins with. `all` are the services of the machine.
pub fn describe(service: &Supervised, all: &[Supervised]) -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&str, String)> =
        service.depends_on.iter().map(|dependency| ("waits", wait(dependency, all))).collect();
    lines.extend(service.wait_for.iter().map(|wait| ("waits", wait_for(wait))));
    let limit = |ms: u64| if ms == 0 { String::new() } else { format!(", within {}", time(ms)) };
    if service.ready.by != ReadyBy::Started {
        let by = match &service.ready.by {
            ReadyBy::Started => "when its program runs".to_owned(),
            ReadyBy::Notify => "when it says so to NOTIFY_SOCKET".to_owned(),
            ReadyBy::Fd(number) => format!("when it writes a line to descriptor {number}"),
            ReadyBy::Probe(probe) => format!("when {}", question(probe)),
            ReadyBy::Healthy => "when it is healthy".to_owned(),
        };
        lines.push(("ready", by + &limit(service.ready.timeout_ms)));
    }
    if let Some(health) = &service.health {
        let then = match health.on_unhealthy {
            OnUnhealthy::Restart => "it is restarted",
            OnUnhealthy::Reboot => "the machine reboots",
            OnUnhealthy::None => "that is said",
        };
        let (what, interval) = (question(&health.probe), time(health.interval_ms));
        lines.push((
            "healthy",
            format!("when {what}, every {interval}; after {} failures {then}", health.retries),
        ));
    }
    if service.watchdog_ms > 0 {
        lines.push(("alive", format!("when it says so every {}", time(service.watchdog_ms))));
    }
    if let Kind::Shutdown { timeout_ms } = service.kind {
        lines.push(("runs", format!("before services stop, for {} at most", time(timeout_ms))));
        return lines;
    }
    lines.push(("restarts", restarts(&service.restart)));
    let Stop { signal, grace_ms } = service.stop;
    lines.push(("stops", format!("by {}, killed after {}", signal_name(signal), time(grace_ms))));
    lines
}

fn wait(dependency: &Dependency, all: &[Supervised]) -> String {
    let name = all.get(dependency.service).map_or("", |other| other.name.as_str());
    let condition = match dependency.condition {
        Condition::Started => "has started",
        Condition::Ready => "is ready",
        Condition::Healthy => "is healthy",
        Condition::Completed => "has completed",
    };
    let otherwise = match dependency.on_failure {
        OnFailure::AbortBoot => ", else the boot ends",
        OnFailure::Degrade => "",
        OnFailure::Ignore => ", or has failed",
    };
    let with = if dependency.restart_with { "; restarts with it" } else { "" };
    format!("until {name} {condition}{otherwise}{with}")
}

fn wait_for(wait: &Wait) -> String {
    let until = match &wait.until {
        Awaited::Network => "until the network is up".to_owned(),
        Awaited::Clock => "until the clock is set".to_owned(),
        Awaited::Path(path) => format!("until there is {path}"),
    };
    let otherwise = match (wait.timeout_ms, wait.on_failure) {
        (0, _) => return until,
        (_, OnFailure::AbortBoot) => ", else the boot ends",
        (_, OnFailure::Degrade) => ", else it is left out",
        (_, OnFailure::Ignore) => ", or starts without",
    };
    format!("{until}, for {}{otherwise}", time(wait.timeout_ms))
}

fn question(probe: &Probe) -> String {
    match probe {
        Probe::Exec(argv) => format!("`{}` ends with 0", argv.join(" ")),
        Probe::Tcp(port) => format!("port {port} accepts connections"),
        Probe::Http { port, path, .. } => format!("GET {path} on port {port} succeeds"),
    }
}

fn restarts(restart: &Restart) -> String {
    let when = match restart.policy {
        RestartPolicy::Never => return "never".to_owned(),
        RestartPolicy::OnFailure => "when it fails",
        RestartPolicy::Always => "always",
    };
    let codes: Vec<String> = restart.prevented_by.iter().map(u8::to_string).collect();
    let but = if codes.is_empty() { String::new() } else { format!(" but for code {}", codes.join(", ")) };
    let backoff = restart.backoff;
    let pauses = format!("after {} to {}", time(backoff.first_ms), time(backoff.cap_ms));
    let end = restart.give_up.map_or_else(String::new, |limit| {
        let then = match limit.then {
            Then::Stop => "not any more",
            Then::Reboot => "the machine reboots",
            Then::Poweroff => "the machine powers off",
        };
        format!("; after {} ends within {} {then}", limit.after, time(limit.within_ms))
    });
    format!("{when}{but}, {pauses}{end}")
}

fn time(milliseconds: u64) -> String {
    format!("{:?}", Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_a_service_waits_for_of_the_machine_and_for_how_long() {
        let path = || Awaited::Path("/dev/vda".to_owned());
        for (until, timeout_ms, on_failure, line) in [
            (Awaited::Network, 0, OnFailure::Degrade, "until the network is up"),
            (Awaited::Clock, 5000, OnFailure::Ignore, "until the clock is set, for 5s, or starts without"),
            (path(), 5000, OnFailure::Degrade, "until there is /dev/vda, for 5s, else it is left out"),
            (path(), 500, OnFailure::AbortBoot, "until there is /dev/vda, for 500ms, else the boot ends"),
        ] {
            assert_eq!(wait_for(&Wait { until, timeout_ms, on_failure }), line);
        }
    }
}

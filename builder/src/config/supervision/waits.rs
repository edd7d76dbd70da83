//! `wait-for`: what a service waits for of the machine.

use manifest::{Awaited, Namespace, OnFailure, Wait};

use super::raw::{RawWait, RawWaitTable};
use super::{ON_FAILURE, duration, ms, word};
use crate::config::check::Check;
use crate::config::problem::suggestion;
use crate::config::raw::At;
use crate::config::value::{self, Volume};
use crate::config::{File, Service};
use crate::target::is_within;

/// The words of the list.
const WORDS: &[&str] = &["network", "clock"];

/// What it is called elsewhere, in part by the names of systemd's targets.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("net", "network"),
    ("online", "network"),
    ("network-online", "network"),
    ("networking", "network"),
    ("dhcp", "network"),
    ("time", "clock"),
    ("time-set", "clock"),
    ("time-sync", "clock"),
    ("ntp", "clock"),
];

/// Where the kernel and init make files.
const MADE_BY_THE_MACHINE: &[&str] = &["/dev", "/proc", "/run", "/sys"];

/// The waits of the table at `path`.
pub fn check(raw: Vec<RawWait>, path: &str, check: &mut Check<'_>) -> Vec<At<Wait>> {
    let mut waits: Vec<At<Wait>> = Vec::new();
    for (index, raw) in raw.into_iter().enumerate() {
        let (span, wait) = match raw {
            RawWait::Word(At { value, span }) => {
                let until = check.value(&span, format!("{path}.wait-for"), awaited(&value));
                (span, until.map(|until| Wait { until, timeout_ms: 0, on_failure: OnFailure::Degrade }))
            }
            RawWait::Table(At { value, span }) => {
                let wait =
                    table(At { value, span: span.clone() }, &format!("{path}.wait-for[{index}]"), check);
                (span, wait)
            }
        };
        let Some(wait) = wait else { continue };
        if waits.iter().any(|other| other.value.until == wait.until) {
            check.at(&span, format!("{path}.wait-for"), "the same is in the list already");
        }
        waits.push(At { value: wait, span });
    }
    waits
}

/// What a word or a path stands for.
fn awaited(text: &str) -> Result<Awaited, String> {
    match text {
        "network" => Ok(Awaited::Network),
        "clock" => Ok(Awaited::Clock),
        path if path.starts_with('/') => value::absolute(path).map(Awaited::Path),
        other => {
            let meant = meant(other).map_or_else(
                || suggestion(other, WORDS.iter().copied()),
                |word| format!(" (did you mean `{word}`?)"),
            );
            Err(format!("`{other}` is neither \"network\" nor \"clock\" nor an absolute path{meant}"))
        }
    }
}

/// What is called so elsewhere.
fn meant(text: &str) -> Option<&'static str> {
    let bare = text.strip_suffix(".target").unwrap_or(text);
    let other = OTHER_WORDS.iter().find(|(other, _)| *other == bare).map(|(_, word)| *word);
    other.or_else(|| WORDS.iter().find(|word| **word == bare).copied())
}

/// What to say where somebody takes for a service what is one of the machine's conditions.
pub fn hint(text: &str) -> Option<String> {
    let word = if text.starts_with('/') { text } else { meant(text)? };
    Some(format!(" (did you mean `wait-for = [\"{word}\"]`?)"))
}

/// Reports paths that nobody makes: often they are those inside a container, and not the machine's.
pub fn check_paths(services: &[At<Service>], files: &[At<File>], check: &mut Check<'_>) {
    // Who sees the machine's processes may reach its files through them.
    if services.iter().any(|service| service.value.profile.pid == Namespace::Machine) {
        return;
    }
    for At { value: service, .. } in services {
        for At { value: wait, span } in &service.supervision.wait_for {
            let Awaited::Path(path) = &wait.until else { continue };
            let makes = |volume: &Volume| {
                let is_inside = volume.source == "/" || is_within(path, &volume.source);
                is_inside && !volume.access.read_only || is_within(&volume.source, path)
            };
            let is_made = MADE_BY_THE_MACHINE.iter().any(|folder| is_within(path, folder))
                || services.iter().any(|service| service.value.volumes.iter().any(makes))
                || files.iter().any(|file| is_within(&file.value.path, path));
            if !is_made {
                let seen = service.volumes.iter().find_map(|volume| {
                    let rest =
                        path.strip_prefix(&volume.target).filter(|_| is_within(path, &volume.target))?;
                    Some(format!(" (did you mean `{}{rest}`?)", volume.source))
                });
                let what = format!(
                    "nothing makes `{path}` of the machine: no service can write to a volume there{}",
                    seen.unwrap_or_default()
                );
                check.at(span, format!("{}.wait-for", service.path()), what);
            }
        }
    }
}

fn table(At { value: raw, span }: At<RawWaitTable>, path: &str, check: &mut Check<'_>) -> Option<Wait> {
    let mut ways = Vec::new();
    ways.extend(raw.network.filter(|network| network.value).map(|_| Awaited::Network));
    ways.extend(raw.clock.filter(|clock| clock.value).map(|_| Awaited::Clock));
    if let Some(written) = raw.path {
        let path = format!("{path}.path");
        ways.push(check.value(&written.span, path, value::absolute(&written.value)).map(Awaited::Path)?);
    }
    let limit = raw.timeout.is_some();
    let timeout_ms = duration(check, path, "timeout", raw.timeout).map_or(0, ms);
    if let Some(written) = raw.on_failure.as_ref().filter(|_| !limit) {
        let what = "it says what follows when the `timeout` is over, and there is none";
        check.at(&written.span, format!("{path}.on-failure"), what);
    }
    let on_failure =
        word(check, ON_FAILURE, path, "on-failure", raw.on_failure).unwrap_or(OnFailure::Degrade);
    if ways.len() != 1 {
        check.at(&span, path, "expected one of `network = true`, `clock = true` and `path`");
    }
    ways.pop().map(|until| Wait { until, timeout_ms, on_failure })
}

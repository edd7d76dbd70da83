//! A service and all that belongs to it in the kernel and in memory.

use std::fs::File;

use manifest::{Name, Probe, ReadyBy, Stop, path};
use nix::unistd::Pid;

use super::history::{End, Story};
use super::notify::Notify;
use super::output::Output;
use crate::container::{Ending, Group, Launch, Parent, Process, Shared, Status};
use crate::error::{Error, Result};
use crate::log::ring::Ring;

/// A service.
pub(super) struct Supervised {
    pub(super) name: Name,
    pub(super) stop: Stop,
    pub(super) launch: Launch,
    pub(super) group: Group,
    pub(super) output: Output,
    /// What it has written lately.
    pub(super) ring: Ring,
    /// While a start is underway.
    pub(super) status: Option<Status>,
    /// Where its own init, if it has one, says how its program has ended.
    pub(super) ending: Option<Ending>,
    /// Where it says how it is, if it can.
    pub(super) notify: Option<Notify>,
    /// Where it writes a line when it is ready, if it does, and the descriptor that it has for that.
    pub(super) ready: Option<Box<(u32, Output)>>,
    /// The program that checks its health, if there is one. Most have none, and it is large.
    pub(super) check: Option<Box<Process>>,
    /// The child that asks it something at the moment.
    pub(super) asking: Option<Pid>,
    /// Its mounts, once the machine ends and they need no end of their own.
    pub(super) mounts: Option<File>,
    /// Why this run's start has failed, if it has.
    pub(super) failure: Option<Box<str>>,
    /// How its last run ended.
    pub(super) last: Option<End>,
    /// What it says of itself.
    pub(super) says: Option<Box<str>>,
    /// How it came up.
    pub(super) story: Story,
}

impl Supervised {
    /// Gets everything ready that can fail.
    pub(super) fn prepare(service: &manifest::Service, shared: &mut Shared, parent: &Parent) -> Result<Self> {
        let failed = |errno| Error::new("prepare", service.name.to_string(), errno);
        let has = |target: &str| service.container.sockets.iter().any(|socket| socket.target == target);
        Ok(Self {
            name: service.name.clone(),
            stop: service.stop,
            launch: Launch::prepare(&service.container, shared)?,
            group: parent.group(service.name.as_str(), &service.container.limits)?,
            output: Output::new().map_err(failed)?,
            ring: Ring::new(usize::try_from(service.logging.size).unwrap_or(usize::MAX)),
            status: None,
            ending: None,
            notify: match has(path::NOTIFY_TARGET) {
                true => Some(Notify::new(service.name.as_str())?),
                false => None,
            },
            ready: match service.ready.by {
                ReadyBy::Fd(number) => Some(Box::new((number, Output::new().map_err(failed)?))),
                _ => None,
            },
            check: check(service, shared)?,
            asking: None,
            mounts: None,
            failure: None,
            last: None,
            says: None,
            story: Story::default(),
        })
    }
}

/// The program that checks a service's health: in all but its command like the service's own.
fn check(service: &manifest::Service, shared: &mut Shared) -> Result<Option<Box<Process>>> {
    let Some(Probe::Exec(argv)) = service.health.as_ref().map(|health| &health.probe) else {
        return Ok(None);
    };
    let container = manifest::Container { argv: argv.clone(), ..service.container.clone() };
    Process::prepare(&container, shared).map(|process| Some(Box::new(process)))
}

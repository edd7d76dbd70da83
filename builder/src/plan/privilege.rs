//! What weakens the isolation of a service, or of the whole machine, each thing with the key that asks for it.

use std::fmt;

use manifest::mask::MASKS;
use manifest::{Container, Ids, Mount, Namespace, Profile, Resource, ResourceLimit, Service as Supervised};
use serde::Serialize;

use super::profile;
use crate::capability;
use crate::config::{Config, Seccomp, Service};
use crate::error::Error;

/// Something that a container may do beside what every container may, or somebody outside with the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Privilege {
    /// The key path of the table.
    pub service: String,
    /// The key that asks for it. None where all services have it and no key takes it away yet.
    pub key: Option<&'static str>,
    /// What it is, as the rest of a sentence about the service.
    pub what: String,
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, key, what } = self;
        match key {
            Some(key) => write!(f, "{service}.{key}: {what}"),
            None => write!(f, "{service}: {what}"),
        }
    }
}

/// The privileges that the machine gives, then those of all services, in their order.
pub fn privileges(config: &Config, supervised: &[Supervised]) -> Vec<Privilege> {
    let vsock = config.control.vsock.map(|port| Privilege {
        service: "control".to_owned(),
        key: Some("vsock"),
        what: format!(
            "every program of the host that may use its vsock has the control channel, on port {port}"
        ),
    });
    let services = config.services.iter().zip(supervised);
    vsock
        .into_iter()
        .chain(services.flat_map(|(service, supervised)| of(service, supervised, config.control)))
        .collect()
}

fn of(service: &Service, supervised: &Supervised, control: manifest::Control) -> Vec<Privilege> {
    let path = service.path();
    let privilege = |key, what| Privilege { service: path.clone(), key, what };
    let profile = &supervised.container.profile;
    let mut privileges = Vec::new();
    if profile.network == Namespace::Machine {
        privileges.push(privilege(None, "shares the machine's network".to_owned()));
    }
    if service.profile.privileged {
        let what = "MAY DO EVERYTHING THAT ROOT OF THE MACHINE MAY DO, WITH EVERY DEVICE".to_owned();
        privileges.push(privilege(Some("privileged"), what));
    } else {
        privileges.extend(
            loosened(service, &supervised.container)
                .into_iter()
                .map(|(key, what)| privilege(Some(key), what)),
        );
    }
    if supervised.container.ids == Ids::Machine && !service.profile.privileged {
        let what = "its users are the machine's, its root the machine's root".to_owned();
        privileges.push(privilege(Some("userns"), what));
    }
    for (shared, key, what) in [
        (profile.pid, "pid", "sees the machine's processes"),
        (profile.ipc, "ipc", "shares the machine's System V IPC and message queues"),
    ] {
        if shared == Namespace::Machine {
            privileges.push(privilege(Some(key), what.to_owned()));
        }
    }
    match &service.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined if service.profile.privileged => {}
        Seccomp::Unconfined => {
            privileges.push(privilege(Some("seccomp"), "may make every system call".to_owned()));
        }
        Seccomp::File(file) => {
            let what = format!("may make the system calls that {} allows", file.display());
            privileges.push(privilege(Some("seccomp"), what));
        }
    }
    if service.control {
        let more = if control.exec { ", and runs programs in them" } else { "" };
        let may = format!("stops and starts every service{more}: has the machine's control channel");
        privileges.push(privilege(Some("control"), may));
    }
    for device in &supervised.container.devices {
        privileges.push(privilege(Some("devices"), format!("may use {}", device.source)));
    }
    let limits = &supervised.container.limits;
    if limits.oom_score_adj < 0 {
        let what = "is killed later than others when memory is short".to_owned();
        privileges.push(privilege(Some("oom-score-adj"), what));
    }
    if limits.resources.iter().any(takes_precedence) {
        let what = "may go before others on the processors".to_owned();
        privileges.push(privilege(Some("ulimits"), what));
    }
    for mount in &supervised.container.mounts {
        if let Mount::Bind { source, read_only, .. } = mount {
            let may = if *read_only { "may read" } else { "may write" };
            privileges.push(privilege(Some("volumes"), format!("{may} the machine's {source}")));
        }
    }
    privileges
}

/// What single keys ask for, each with its key.
fn loosened(service: &Service, container: &Container) -> Vec<(&'static str, String)> {
    let Profile { capabilities, set_id, .. } = &container.profile;
    let mut found = Vec::new();
    // Users other than 0 have none by default.
    let usual = if container.user.uid == 0 { profile::default() } else { 0 };
    let more = (capabilities.held & !usual) | (capabilities.bounding & !profile::default());
    if more != 0 {
        let names: Vec<&str> =
            if more == capability::ALL { vec!["ALL"] } else { capability::of(more).collect() };
        found.push(("cap-add", format!("has the capabilities {}", names.join(" "))));
    }
    if *set_id {
        found.push((
            "allow-setuid",
            "gains privileges by set-id programs and files with capabilities".to_owned(),
        ));
    }
    if service.profile.unmask.len() == MASKS.len() {
        found.push(("unmask", "nothing of /proc and /sys is masked".to_owned()));
    } else if !service.profile.unmask.is_empty() {
        found.push(("unmask", format!("has {} as the kernel has it", service.profile.unmask.join(" "))));
    }
    found
}

/// Whether a limit lets a process without capabilities have a better priority than it was given.
fn takes_precedence(limit: &ResourceLimit) -> bool {
    matches!(limit.resource, Resource::Nice | Resource::Rtprio) && limit.hard > 0
}

/// Refuses what keys of the config ask for.
pub fn deny(privileges: &[Privilege]) -> Result<(), Vec<Error>> {
    let asked = privileges.iter().filter(|privilege| privilege.key.is_some());
    let refuse = |privilege: &Privilege| {
        Error::new(privilege.to_string())
            .hint("`--deny-privileges` refuses this: leave out the key, or the option")
    };
    let errors: Vec<Error> = asked.map(refuse).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

//! The keys that change what a service may do: what is written, what is meant, and what contradicts itself.

use std::collections::BTreeSet;
use std::ops::Range;

use manifest::mask::MASKS;
use manifest::{Namespace, Sysctl};

use super::document::{Table, Value};
use super::problem::{Problem, suggestion};
use super::raw::{At, Fields, FromValue, RawService, Scalar};
use crate::capability;

/// What a service may do beside what every service may, and less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Everything is allowed.
    pub privileged: bool,
    /// Capabilities beside the usual ones.
    pub cap_add: Capabilities,
    /// Capabilities of the usual ones that are taken away.
    pub cap_drop: Capabilities,
    /// Set-id programs give what they say.
    pub allow_setuid: bool,
    /// Names or numbers of further groups of the user.
    pub group_add: Vec<String>,
    /// Settings of namespaces of its own.
    pub sysctls: Vec<Sysctl>,
    /// Paths of [`MASKS`] that are not masked.
    pub unmask: Vec<&'static str>,
    /// Whose processes it sees.
    pub pid: Namespace,
    /// Whose System V IPC objects and message queues it has.
    pub ipc: Namespace,
    /// Whose network it has.
    pub network: Namespace,
}

/// Capabilities as a list names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// `ALL` is among them.
    pub all: bool,
    /// The others, as a set.
    pub named: u64,
}

/// The same, as it is written.
#[derive(Debug, Default)]
pub struct RawProfile {
    pub privileged: Option<At<bool>>,
    pub cap_add: Option<At<Vec<At<String>>>>,
    pub cap_drop: Option<At<Vec<At<String>>>>,
    pub allow_setuid: Option<At<bool>>,
    pub group_add: Option<At<Vec<At<Scalar>>>>,
    pub sysctls: Option<At<Settings>>,
    pub unmask: Option<At<Unmask>>,
    pub pid: Option<At<String>>,
    pub ipc: Option<At<String>>,
    pub network: Option<At<String>>,
}

/// `unmask`: paths, or all of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Unmask {
    Word(String),
    Paths(Vec<At<String>>),
}

/// `sysctls`: names with dots, whether they are quoted or not. Without quotes TOML makes tables of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings(Vec<(At<String>, At<Scalar>)>);

impl RawProfile {
    /// Takes its keys out of a service's table.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            privileged: fields.take("privileged"),
            cap_add: fields.take("cap-add"),
            cap_drop: fields.take("cap-drop"),
            allow_setuid: fields.take("allow-setuid"),
            group_add: fields.take("group-add"),
            sysctls: fields.take("sysctls"),
            unmask: fields.take("unmask"),
            pid: fields.take("pid"),
            ipc: fields.take("ipc"),
            network: fields.take("network"),
        }
    }
}

impl FromValue for Unmask {
    const EXPECTED: &'static str = "\"all\" or a list of paths such as [\"/proc/kcore\"]";
    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(word) => Some(Self::Word(word)),
            value => Vec::from_value(value).map(Self::Paths),
        }
    }
}

impl FromValue for Settings {
    const EXPECTED: &'static str = "a table such as { \"net.core.somaxconn\" = 1024 }";
    fn from_value(value: Value) -> Option<Self> {
        let Value::Table(table) = value else { return None };
        let mut settings = Vec::new();
        flatten("", table, &mut settings)?;
        Some(Self(settings))
    }
}

/// Adds what is in `table`, with the names of the tables on the way before its own.
fn flatten(prefix: &str, table: Table, settings: &mut Vec<(At<String>, At<Scalar>)>) -> Option<()> {
    for entry in table.0 {
        let name = if prefix.is_empty() { entry.key } else { format!("{prefix}.{}", entry.key) };
        match entry.node.value {
            Value::Table(inner) => flatten(&name, inner, settings)?,
            value => {
                let value = At { value: Scalar::from_value(value)?, span: entry.node.span };
                settings.push((At { value: name, span: entry.key_span }, value));
            }
        }
    }
    Some(())
}

/// What the profile of the service at `path` means.
pub fn check(raw: &RawService, path: &str, problems: &mut Vec<Problem>) -> Profile {
    let written = &raw.profile;
    let mut check = Check { path, problems };
    let is_true = |key: &Option<At<bool>>| key.as_ref().is_some_and(|key| key.value);
    let privileged = is_true(&written.privileged);
    if privileged {
        check.privileged(raw);
    }
    let cap_add = check.capabilities("cap-add", written.cap_add.as_ref());
    let cap_drop = check.capabilities("cap-drop", written.cap_drop.as_ref());
    check.added_and_dropped(written.cap_drop.as_ref(), cap_add, cap_drop);
    let unmask = check.unmask(written.unmask.as_ref());
    let pid = check.namespace("pid", written.pid.as_ref(), &[("private", Namespace::Own), HOST]);
    let ipc = check.namespace("ipc", written.ipc.as_ref(), &[("private", Namespace::Own), HOST]);
    let network = check.namespace("network", written.network.as_ref(), &[HOST, ("none", Namespace::Own)]);
    if let (Namespace::Own, Some(ports)) = (network, &raw.ports)
        && !ports.value.is_empty()
    {
        check.at(&ports.span, "ports", "with `network = \"none\"` nothing from outside reaches the service");
    }
    Profile {
        privileged,
        cap_add,
        cap_drop,
        allow_setuid: privileged || is_true(&written.allow_setuid),
        group_add: check.groups(written.group_add.as_ref()),
        sysctls: check.sysctls(written.sysctls.as_ref(), network, ipc),
        unmask: if privileged { all_masks() } else { unmask },
        pid,
        ipc,
        network,
    }
}

const HOST: (&str, Namespace) = ("host", Namespace::Machine);

fn all_masks() -> Vec<&'static str> {
    MASKS.iter().map(|(path, _)| *path).collect()
}

struct Check<'a> {
    path: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn at(&mut self, span: &Range<usize>, key: &str, what: impl std::fmt::Display) {
        self.problems.push(Problem::at(span, format!("{}.{key}", self.path), what));
    }

    /// What takes something away from a service that is to have everything.
    fn privileged(&mut self, raw: &RawService) {
        let written = |text: &Option<At<String>>, gives: &str| {
            text.as_ref().filter(|text| text.value != gives).map(|text| text.span.clone())
        };
        let refused =
            |key: &Option<At<bool>>| key.as_ref().filter(|key| !key.value).map(|key| key.span.clone());
        let conflicts = [
            ("userns", written(&raw.userns, "host")),
            ("seccomp", written(&raw.seccomp, "unconfined")),
            ("allow-setuid", refused(&raw.profile.allow_setuid)),
            ("cap-drop", raw.profile.cap_drop.as_ref().map(|list| list.span.clone())),
        ];
        for (key, span) in conflicts {
            if let Some(span) = span {
                let what = "takes away what `privileged = true` gives: leave out one of the two";
                self.at(&span, key, what);
            }
        }
    }

    fn capabilities(&mut self, key: &str, list: Option<&At<Vec<At<String>>>>) -> Capabilities {
        let mut found = Capabilities::default();
        for item in list.map(|list| list.value.as_slice()).unwrap_or_default() {
            let upper = item.value.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match capability::bit(name) {
                Some(bit) => found.named |= bit,
                None if name == "ALL" => found.all = true,
                None => {
                    let meant = suggestion(name, capability::names().chain(["ALL"]));
                    self.at(
                        &item.span,
                        key,
                        format!("`{}` is no capability{meant}", item.value.escape_debug()),
                    );
                }
            }
        }
        found
    }

    /// `ALL` can stand against single ones: all but these, or none but these.
    fn added_and_dropped(
        &mut self,
        list: Option<&At<Vec<At<String>>>>,
        added: Capabilities,
        dropped: Capabilities,
    ) {
        let Some(list) = list else { return };
        let both: Vec<&str> = capability::of(added.named & dropped.named)
            .chain((added.all && dropped.all).then_some("ALL"))
            .collect();
        if !both.is_empty() {
            self.at(&list.span, "cap-drop", format!("{} is added and dropped", both.join(" ")));
        }
    }

    fn namespace(
        &mut self,
        key: &str,
        written: Option<&At<String>>,
        words: &[(&str, Namespace); 2],
    ) -> Namespace {
        let [(usual, default), (other, _)] = *words;
        let Some(written) = written else { return default };
        match words.iter().find(|(word, _)| *word == written.value) {
            Some((_, whose)) => *whose,
            None => {
                let value = written.value.escape_debug();
                let what = format!("`{value}` is unknown: expected \"{usual}\", the default, or \"{other}\"");
                self.at(&written.span, key, what);
                default
            }
        }
    }

    fn groups(&mut self, list: Option<&At<Vec<At<Scalar>>>>) -> Vec<String> {
        let mut groups = Vec::new();
        for item in list.map(|list| list.value.as_slice()).unwrap_or_default() {
            if item.value.0.is_empty() || item.value.0.contains([':', '\0', '\n']) {
                self.at(&item.span, "group-add", "a group is a name of the image, or a number");
            }
            groups.push(item.value.0.clone());
        }
        groups
    }

    fn unmask(&mut self, written: Option<&At<Unmask>>) -> Vec<&'static str> {
        let items = match written.map(|written| (&written.value, &written.span)) {
            None => return Vec::new(),
            Some((Unmask::Word(word), _)) if word.eq_ignore_ascii_case("all") => return all_masks(),
            Some((Unmask::Word(_), span)) => {
                self.at(span, "unmask", format!("expected {}", Unmask::EXPECTED));
                return Vec::new();
            }
            Some((Unmask::Paths(items), _)) => items,
        };
        let mut unmasked = BTreeSet::new();
        for item in items {
            let written = item.value.trim_end_matches('/');
            match MASKS.iter().find(|(path, _)| *path == written) {
                Some((path, _)) => drop(unmasked.insert(*path)),
                None if written.eq_ignore_ascii_case("all") => unmasked.extend(all_masks()),
                None => {
                    let meant = suggestion(written, all_masks());
                    let what = format!("`{}` is not masked{meant}", item.value.escape_debug());
                    self.at(&item.span, "unmask", what);
                }
            }
        }
        unmasked.into_iter().collect()
    }

    fn sysctls(&mut self, table: Option<&At<Settings>>, network: Namespace, ipc: Namespace) -> Vec<Sysctl> {
        let mut sysctls = Vec::new();
        let settings = table.map(|table| table.value.0.as_slice()).unwrap_or_default();
        for (At { value: name, span }, value) in settings {
            let key = format!("sysctls.{name}");
            if let Err(what) = allowed(name, network, ipc) {
                self.at(span, &key, what);
            }
            if value.value.0.is_empty()
                || value.value.0.len() > MAX_VALUE
                || value.value.0.chars().any(|c| c != '\t' && c.is_control())
            {
                let what = format!("a value is one line of 1 to {MAX_VALUE} bytes");
                self.at(&value.span, &key, what);
            }
            sysctls.push(Sysctl { path: name.replace('.', "/"), value: value.value.0.clone() });
        }
        sysctls
    }
}

/// The longest value of a setting; the kernel's own longest are lists of ports.
const MAX_VALUE: usize = 1024;

/// Settings of the IPC namespace; those of the network all begin with `net.`.
const IPC_SYSCTLS: &[&str] = &[
    "fs.mqueue.msg_default",
    "fs.mqueue.msg_max",
    "fs.mqueue.msgsize_default",
    "fs.mqueue.msgsize_max",
    "fs.mqueue.queues_max",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// Whether a service may have the setting: it is one of a namespace that is the service's own.
fn allowed(name: &str, network: Namespace, ipc: Namespace) -> Result<(), String> {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    if !name.split('.').all(plain) {
        return Err(
            "a setting's name is words of letters, digits, `_` and `-` with dots between them".to_owned()
        );
    }
    if name.starts_with("net.") {
        return match network {
            Namespace::Own => Ok(()),
            Namespace::Machine => {
                Err("this is a setting of the machine's network: it takes `network = \"none\"`".to_owned())
            }
        };
    }
    if IPC_SYSCTLS.contains(&name) {
        return match ipc {
            Namespace::Own => Ok(()),
            Namespace::Machine => Err("with `ipc = \"host\"` this is a setting of the machine's".to_owned()),
        };
    }
    let meant = suggestion(name, IPC_SYSCTLS.iter().copied());
    Err(format!(
        "it is no setting of a service's own: there are net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.*{meant}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_namespaces_of_its_own_are_allowed() {
        use Namespace::{Machine, Own};
        for (name, network, ipc, is) in [
            ("net.core.somaxconn", Own, Own, true),
            ("net.ipv4.conf.all.rp_filter", Own, Machine, true),
            ("net.core.somaxconn", Machine, Own, false),
            ("kernel.shmmax", Machine, Own, true),
            ("kernel.shmmax", Own, Machine, false),
            ("fs.mqueue.msg_max", Machine, Own, true),
            ("kernel.core_pattern", Own, Own, false),
            ("kernel.shm", Own, Own, false),
            ("vm.overcommit_memory", Own, Own, false),
            ("net", Own, Own, false),
            ("net..core", Own, Own, false),
            ("net./../../sysrq-trigger", Own, Own, false),
            ("net.core.somaxconn\n", Own, Own, false),
            ("", Own, Own, false),
        ] {
            assert_eq!(allowed(name, network, ipc).is_ok(), is, "{name}");
        }
    }
}

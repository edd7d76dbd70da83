//! What a hostile container tries: tables of probes, each with what is to come of it in a service of the default
//! profile, and what carries them out. The program `hostile` makes each in a process of its own.

mod attempt;
mod devices;
mod exploits;
mod kernel;
mod network;
mod proc;
mod resources;
mod rights;

use serde::{Deserialize, Serialize};

pub use attempt::{
    Attempt, CALLER, Descriptor, NOTHING, PLANTED_QUEUE, PLANTED_SOCKET, VICTIM_PORT, alone, call, code,
    outcome,
};
pub use proc::victims;

/// Where the caller's arguments can point to: what stands behind the seven words of its input. The program is machine
/// code at a fixed address.
pub const DATA: u64 = 0x40_1038;

/// One thing that is tried.
pub struct Probe {
    /// What, in a few words; no other has the same.
    pub name: &'static str,
    /// What is to come of it by default: for root and, behind a `/` where it differs, for user 1000. It is `allowed`,
    /// `nothing` when there is no error and nothing was gained either, the name of an error or of a signal.
    pub expected: &'static str,
    /// How.
    pub attempt: Attempt,
}

impl Probe {
    const fn new(name: &'static str, expected: &'static str, attempt: Attempt) -> Self {
        Self { name, expected, attempt }
    }

    /// A system call by number, with what its arguments point to.
    const fn call(
        name: &'static str,
        expected: &'static str,
        number: u64,
        arguments: &'static [u64],
        data: &'static [u8],
    ) -> Self {
        Self::with(name, expected, number, arguments, data, Descriptor::None)
    }

    /// Likewise, with a descriptor as number 2.
    const fn with(
        name: &'static str,
        expected: &'static str,
        number: u64,
        arguments: &'static [u64],
        data: &'static [u8],
        descriptor: Descriptor,
    ) -> Self {
        Self::new(name, expected, Attempt::Call { number, arguments, data, descriptor })
    }

    /// What is to come of it for root.
    pub fn for_root(&self) -> &'static str {
        self.expected.split_once(" / ").map_or(self.expected, |(root, _)| root)
    }

    /// What is to come of it for user 1000.
    pub fn for_user(&self) -> &'static str {
        self.expected.split_once(" / ").map_or(self.expected, |(_, user)| user)
    }
}

/// Probes of one kind.
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// In their order.
    pub probes: &'static [Probe],
}

/// All of them.
pub const GROUPS: &[Group] = &[
    Group { name: "Mounts", probes: kernel::MOUNTS },
    Group { name: "Namespaces", probes: kernel::NAMESPACES },
    Group { name: "Devices", probes: devices::DEVICES },
    Group { name: "Kernel", probes: kernel::KERNEL },
    Group { name: "Page cache", probes: proc::PAGE_CACHE },
    Group { name: "Sockets", probes: network::SOCKETS },
    Group { name: "/proc and /sys", probes: proc::PROC },
    Group { name: "Descriptors and start", probes: proc::START },
    Group { name: "Cgroups", probes: devices::CGROUPS },
    Group { name: "Privileges", probes: rights::PRIVILEGES },
    Group { name: "Resources", probes: resources::RESOURCES },
    Group { name: "Information", probes: proc::INFORMATION },
    Group { name: "Published exploits", probes: exploits::EXPLOITS },
];

/// Each probe once.
pub fn probes() -> impl Iterator<Item = &'static Probe> {
    GROUPS.iter().flat_map(|group| group.probes)
}

/// What came of one probe, or of one system call: a line that `hostile` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Its group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// See [`Probe::expected`].
    pub outcome: String,
}

/// How a server answered while others were greedy: what `hostile measure` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// As they have to be.
    pub right: u64,
    /// Wrong, or none.
    pub wrong: u64,
    /// Microseconds that half of them took at most.
    pub median: u64,
    /// Likewise, ninety-nine of a hundred.
    pub most: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_probe_has_a_name_of_its_own_and_says_what_is_to_come_of_it() {
        let names: Vec<&str> = probes().map(|probe| probe.name).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[index + 1..].contains(name), "{name} twice");
        }
        for probe in probes() {
            for expected in [probe.for_root(), probe.for_user()] {
                let is_word = expected == "allowed" || expected == "nothing";
                let is_number = expected.starts_with('E') || expected.starts_with("SIG");
                assert!(is_word || is_number, "{}: {expected}", probe.name);
            }
        }
    }
}

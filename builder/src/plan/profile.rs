//! The profile of a container: the default one, with what the service's keys add and take away.

use std::collections::BTreeSet;

use manifest::{Capabilities, Namespace, Profile};

use crate::capability;
use crate::config::{self, Service};

/// What user 0 of a container keeps. Other users have none.
const DEFAULT_CAPABILITIES: &[&str] =
    &["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"];

/// Shows processes of all users, without which there is little to see of the machine's.
const ALL_PROCESSES: &str = "/proc";

/// The profile of a service that begins as user `uid`.
pub fn of(service: &Service, uid: u32) -> Profile {
    let config::Profile { privileged, allow_setuid, unmask, sysctls, pid, ipc, network, .. } =
        &service.profile;
    let mut unmasked: BTreeSet<&str> = unmask.iter().copied().collect();
    if *pid == Namespace::Machine {
        unmasked.insert(ALL_PROCESSES);
    }
    Profile {
        capabilities: capabilities(&service.profile, uid),
        network: *network,
        pid: *pid,
        ipc: *ipc,
        set_id: *allow_setuid,
        all_devices: *privileged,
        unmasked: unmasked.into_iter().map(str::to_owned).collect(),
        sysctls: sysctls.clone(),
    }
}

/// What the container may have, and what its first process begins with.
fn capabilities(profile: &config::Profile, uid: u32) -> Capabilities {
    let of_root = changed(default(), profile);
    let held = if uid == 0 { of_root } else { changed(0, profile) };
    // A set-id program of root's can give what root has, and no other way leads there.
    let bounding = if profile.allow_setuid { of_root } else { held };
    Capabilities { bounding, held }
}

fn changed(usual: u64, profile: &config::Profile) -> u64 {
    if profile.privileged {
        return capability::ALL;
    }
    let (add, drop) = (profile.cap_add, profile.cap_drop);
    let begin = match (add.all, drop.all) {
        (true, _) => capability::ALL,
        (false, true) => 0,
        (false, false) => usual,
    };
    (begin | add.named) & !drop.named
}

/// The capabilities that nobody has to ask for.
pub fn default() -> u64 {
    DEFAULT_CAPABILITIES.iter().filter_map(|name| capability::bit(name)).fold(0, |set, bit| set | bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Capabilities as List;

    fn profile(cap_add: List, cap_drop: List) -> config::Profile {
        config::Profile {
            privileged: false,
            cap_add,
            cap_drop,
            allow_setuid: false,
            group_add: vec![],
            sysctls: vec![],
            unmask: vec![],
            pid: Namespace::Own,
            ipc: Namespace::Own,
            network: Namespace::Machine,
        }
    }

    #[test]
    fn every_default_capability_is_one() {
        assert_eq!(default(), 0b101_1111_1011 & !(1 << 2));
        assert_eq!(default().count_ones() as usize, DEFAULT_CAPABILITIES.len());
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let (none, all) = (List::default(), List { all: true, named: 0 });
        let [chown, admin] =
            ["CHOWN", "NET_ADMIN"].map(|name| List { all: false, named: capability::bit(name).unwrap() });
        for (add, drop, root, user) in [
            (none, none, default(), 0),
            (admin, none, default() | admin.named, admin.named),
            (none, chown, default() & !chown.named, 0),
            (chown, all, chown.named, chown.named),
            (all, chown, capability::ALL & !chown.named, capability::ALL & !chown.named),
            (none, all, 0, 0),
        ] {
            let profile = profile(add, drop);
            assert_eq!(capabilities(&profile, 0), Capabilities { bounding: root, held: root }, "{profile:?}");
            assert_eq!(
                capabilities(&profile, 33),
                Capabilities { bounding: user, held: user },
                "{profile:?}"
            );
        }
    }

    #[test]
    fn set_id_programs_give_what_root_has_and_their_caller_has_nothing() {
        let open = config::Profile { allow_setuid: true, ..profile(List::default(), List::default()) };
        assert_eq!(capabilities(&open, 33), Capabilities { bounding: default(), held: 0 });
    }
}

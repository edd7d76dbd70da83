//! The keys that change what a service may do: what init is told, and what the plan says of it.

use super::*;

/// What the plan lists under privileges, but for the network that every service has.
fn listed(keys: &str) -> Vec<String> {
    let plan = Sample::of_service(keys, defaults(), vec![base()]).planned();
    let network = "service.a: shares the machine's network";
    plan.privileges.iter().map(ToString::to_string).filter(|line| line != network).collect()
}

#[test]
fn every_loosening_is_listed_with_its_key() {
    for (keys, expected) in [
        ("", &[][..]),
        ("cap-add = [\"CAP_SYS_TIME\", \"chown\"]", &["service.a.cap-add: has the capabilities SYS_TIME"]),
        ("cap-add = [\"ALL\"]\nuser = 7", &["service.a.cap-add: has the capabilities ALL"]),
        ("cap-drop = [\"ALL\"]\ncap-add = [\"KILL\"]", &[]),
        ("user = 7\ncap-add = [\"KILL\"]", &["service.a.cap-add: has the capabilities KILL"]),
        (
            "allow-setuid = true\nuser = 7",
            &["service.a.allow-setuid: gains privileges by set-id programs and files with capabilities"],
        ),
        (
            "unmask = [\"/proc/kcore\", \"/sys\"]",
            &["service.a.unmask: has /proc/kcore /sys as the kernel has it"],
        ),
        ("unmask = \"all\"", &["service.a.unmask: nothing of /proc and /sys is masked"]),
        ("pid = \"host\"", &["service.a.pid: sees the machine's processes"]),
        ("ipc = \"host\"", &["service.a.ipc: shares the machine's System V IPC and message queues"]),
        (
            "[control]\nvsock = 1027",
            &[
                "control.vsock: every program of the host that may use its vsock has the control channel, on port 1027",
            ],
        ),
        ("group-add = [\"7\"]\nsysctls.kernel.shmmax = 4096", &[]),
        (
            "privileged = true\nunmask = \"all\"\ncap-add = [\"ALL\"]",
            &["service.a.privileged: MAY DO EVERYTHING THAT ROOT OF THE MACHINE MAY DO, WITH EVERY DEVICE"],
        ),
    ] {
        assert_eq!(listed(keys), expected, "{keys}");
    }
}

#[test]
fn a_service_without_a_network_has_no_privilege_at_all() {
    let plan = Sample::of_service("network = \"none\"", defaults(), vec![base()]).planned();
    assert_eq!(plan.privileges, []);
    assert_eq!(plan.manifest.services[0].container.profile.network, Namespace::Own);
}

#[test]
fn a_privileged_service_has_everything() {
    let container = container("privileged = true\nuser = 7", defaults(), vec![base()]);
    let profile = &container.profile;
    assert_eq!(profile.capabilities.held, (1 << 41) - 1);
    assert_eq!(profile.capabilities.bounding, (1 << 41) - 1);
    assert_eq!((container.ids, container.seccomp), (Ids::Machine, manifest::Seccomp::Unconfined));
    assert!(profile.set_id && profile.all_devices);
    assert_eq!(profile.unmasked.len(), manifest::mask::MASKS.len());
}

#[test]
fn who_sees_the_machines_processes_sees_those_of_all_users() {
    let profile = container("pid = \"host\"", defaults(), vec![base()]).profile;
    assert_eq!((profile.pid, profile.unmasked), (Namespace::Machine, vec!["/proc".to_owned()]));
}

#[test]
fn settings_are_paths_for_init_however_they_are_written() {
    let keys =
        "network = \"none\"\n[service.a.sysctls]\n\"net.core.somaxconn\" = 7\nkernel.sem = \"1 2\\t3 4\"";
    let sysctls = container(keys, defaults(), vec![base()]).profile.sysctls;
    let written: Vec<(&str, &str)> =
        sysctls.iter().map(|sysctl| (sysctl.path.as_str(), sysctl.value.as_str())).collect();
    assert_eq!(written, [("net/core/somaxconn", "7"), ("kernel/sem", "1 2\t3 4")]);
}

#[test]
fn what_a_mount_does_not_allow_is_told_to_init() {
    let keys = "tmpfs = [\"/t:noexec,ro\"]\nvolumes = [\"/srv:/v:noexec\"]";
    let plan = Sample::of_service(keys, defaults(), vec![base()]).planned().to_string();
    assert!(plan.contains("  mounts   a tmpfs on /t, read-only, without programs\n"), "{plan}");
    assert!(plan.contains("  mounts   the machine's /srv on /v, without programs\n"), "{plan}");
}

//! Every system call that there is, from inside: what the filter makes of it, with the filter and without.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::collections::BTreeMap;
use std::fs;

use probe::Outcome::{self, Done, Failed, Killed};
use serde_json::json;
use tests::{Abi, Config, Image, Kernel, Layer, Line, Machine, caller, folder, layout, root};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const EAFNOSUPPORT: i32 = 97;
const SIGSYS: i32 = 31;
/// The bit that makes a number one of the x32 ABI.
const X32: u64 = 0x4000_0000;

/// Strict mode (its operation 0) is what no process under a filter can change to.
const SECCOMP: u64 = 317;
const UNAME: u64 = 63;

fn machine(kernel: Kernel) -> Machine {
    let layer = Layer::with_probe()
        .file("call", 0o755, &caller(Abi::Native))
        .file("call-i386", 0o755, &caller(Abi::I386))
        .file("etc/passwd", 0o644, b"");
    let config = json!({ "Cmd": ["/probe", "agent"] });
    let image =
        layout("system-calls-image", vec![Image { tag: "calls", layers: vec![layer], config }]) + ":calls";
    let profile = folder("system-calls-image").join("profile.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["uname"],"action":"SCMP_ACT_ERRNO","errnoRet":7},
            {"names":["getcpu"],"action":"SCMP_ACT_KILL_PROCESS","excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#,
    )
    .unwrap();
    Config::new("system-calls")
        .kernel(kernel)
        .probe_in(&image, "confined", "command = [\"/probe\", \"agent\"]")
        .probe_in(&image, "unconfined", "seccomp = \"unconfined\"")
        .probe_in(&image, "custom", &format!("seccomp = \"{}\"", profile.display()))
        .boot()
}

#[test]
fn on_the_machines_own_kernel() {
    check_all(&machine(Kernel::Own));
}

#[test]
fn on_the_second_kernel() {
    check_all(&machine(Kernel::Second));
}

fn check_all(machine: &Machine) {
    let [confined, unconfined, custom] = ["confined", "unconfined", "custom"].map(|name| machine.probe(name));
    the_kernel_says_which_services_have_a_filter(confined, unconfined, custom);
    every_number_is_as_the_documentation_says(confined, unconfined);
    other_abis_end_the_process(confined, unconfined);
    arguments_decide(confined, unconfined);
    a_profile_of_the_users_takes_the_place_of_the_default(custom);
}

fn the_kernel_says_which_services_have_a_filter(confined: &Line, unconfined: &Line, custom: &Line) {
    for (line, expected) in [(confined, ("2", "1")), (unconfined, ("0", "0")), (custom, ("2", "1"))] {
        let status = line.read("/proc/self/status");
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        assert_eq!((field("Seccomp:"), field("Seccomp_filters:")), expected, "{status}");
    }
}

/// What the documentation says of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Allowed,
    Fails(i32),
    /// Decided by arguments.
    Depends,
}

/// The lists of `docs/system-calls.md`.
fn documented() -> BTreeMap<u64, (String, Said)> {
    let text = fs::read_to_string(root().join("docs/system-calls.md")).unwrap();
    let mut calls = BTreeMap::new();
    let mut said = None;
    for line in text.lines() {
        said = match line {
            "## Allowed" => Some(Said::Allowed),
            "## Refused: EPERM" => Some(Said::Fails(EPERM)),
            "## Missing: ENOSYS" => Some(Said::Fails(ENOSYS)),
            "## Decided by arguments" => Some(Said::Depends),
            _ if line.starts_with("## ") => None,
            _ => said,
        };
        let Some(said) = said else { continue };
        let line = line.strip_prefix("- ").and_then(|line| line.split(':').next()).unwrap_or(line);
        for item in line.split(',').map(str::trim) {
            if let Some((name, number)) = item.split_once(' ')
                && let Ok(number) = number.parse()
            {
                calls.insert(number, (name.to_owned(), said));
            }
        }
    }
    assert!(calls.len() > 350, "{} calls are documented", calls.len());
    calls
}

fn every_number_is_as_the_documentation_says(confined: &Line, unconfined: &Line) {
    let documented = documented();
    let unknown = ("of no list".to_owned(), Said::Fails(ENOSYS));
    let (mut wrong, mut flipped) = (Vec::new(), Vec::new());
    let numbers: Vec<u64> = (0..=600).collect();
    for some in numbers.chunks(60) {
        let calls: Vec<[u64; 7]> = some.iter().map(|number| [*number, 0, 0, 0, 0, 0, 0]).collect();
        let with = confined.call("/call", &calls);
        let without = unconfined.call("/call", &calls);
        for (number, (with, without)) in some.iter().zip(with.into_iter().zip(without)) {
            let (name, said) = documented.get(number).unwrap_or(&unknown);
            let fits = match said {
                _ if *number == SECCOMP => with == Failed(22),
                Said::Allowed => with == without,
                Said::Fails(errno) => with == Failed(*errno),
                Said::Depends => !matches!(with, Killed(_)),
            };
            if !fits {
                wrong.push(format!(
                    "{number} {name}: {said:?}, but {with:?}, and {without:?} without a filter"
                ));
            }
            if with != without {
                flipped.push(name.as_str());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing but the filter keeps a container from these.
    for name in ["unshare", "keyctl", "add_key", "process_vm_readv", "get_mempolicy", "clone3"] {
        assert!(flipped.contains(&name), "{name} is the same without a filter: {flipped:?}");
    }
    println!("{} calls are others without a filter: {}", flipped.len(), flipped.join(" "));
}

fn other_abis_end_the_process(confined: &Line, unconfined: &Line) {
    const GETPID: u64 = 39;
    const GETPID_I386: u64 = 20;
    let x32 = [GETPID | X32, 0, 0, 0, 0, 0, 0];
    let i386 = [GETPID_I386, 0, 0, 0, 0, 0, 0];
    assert_eq!(confined.call("/call", &[x32]), [Killed(SIGSYS)]);
    assert_eq!(confined.call("/call-i386", &[i386]), [Killed(SIGSYS)]);
    assert_eq!(unconfined.call("/call", &[x32]), [Failed(ENOSYS)], "Debian's kernels have no x32");
    assert_eq!(unconfined.call("/call-i386", &[i386]), [Done], "Debian's kernels have i386");
}

fn arguments_decide(confined: &Line, unconfined: &Line) {
    const SOCKET: u64 = 41;
    const SOCKETPAIR: u64 = 53;
    const IOCTL: u64 = 16;
    const PERSONALITY: u64 = 135;
    let (stream, datagram, raw) = (1, 2, 3);
    let upper_word = 1 << 32;
    let cases: &[(&[u64], Outcome, Outcome)] = &[
        (&[SOCKET, 1, stream], Done, Done),
        (&[SOCKET, 2, stream], Done, Done),
        (&[SOCKET, 2, datagram], Done, Done),
        (&[SOCKET, 10, datagram], Done, Done),
        // AF_NETLINK: route, audit, kobject_uevent, generic
        (&[SOCKET, 16, raw, 0], Done, Done),
        (&[SOCKET, 16, raw, 9], Failed(EAFNOSUPPORT), Done),
        (&[SOCKET, 16, raw, 15], Failed(EAFNOSUPPORT), Done),
        (&[SOCKET, 16, raw, 16], Failed(EAFNOSUPPORT), Done),
        // AF_NETLINK with a bit that the kernel does not look at
        (&[SOCKET, 16 | upper_word, raw, 9], Failed(EAFNOSUPPORT), Done),
        // AF_PACKET needs a capability as well; AF_UNIX is all that has pairs
        (&[SOCKET, 17, raw, 0], Failed(EAFNOSUPPORT), Failed(EPERM)),
        (&[SOCKETPAIR, 2, stream], Failed(EAFNOSUPPORT), Failed(14)),
        // TIOCSTI and TIOCLINUX, to what is no terminal
        (&[IOCTL, 0, 0x5412], Failed(EPERM), Failed(25)),
        (&[IOCTL, 0, 0x5412 | upper_word], Failed(EPERM), Failed(25)),
        (&[IOCTL, 0, 0x541c], Failed(EPERM), Failed(25)),
        (&[IOCTL, 0, 0x5401], Failed(25), Failed(25)),
        // PER_LINUX32, and ADDR_NO_RANDOMIZE
        (&[PERSONALITY, 8], Done, Done),
        (&[PERSONALITY, 0x4_0000], Failed(EPERM), Done),
    ];
    for (words, with, without) in cases {
        let mut call = [0; 7];
        call[..words.len()].copy_from_slice(words);
        assert_eq!(confined.call("/call", &[call]), [*with], "{words:x?}");
        assert_eq!(unconfined.call("/call", &[call]), [*without], "{words:x?} without a filter");
    }

    const CLONE: u64 = 56;
    const NEW_USER_NAMESPACE: u64 = 0x1000_0000;
    const SIGCHLD: u64 = 17;
    let call = [CLONE, NEW_USER_NAMESPACE | SIGCHLD, 0, 0, 0, 0, 0];
    assert_eq!(confined.call("/call", &[call]), [Failed(EPERM)]);
    assert_ne!(unconfined.call("/call", &[call]), [Failed(EPERM)], "the filter alone refuses namespaces");
}

fn a_profile_of_the_users_takes_the_place_of_the_default(custom: &Line) {
    const UNSHARE: u64 = 272;
    const GETCPU: u64 = 309;
    let call = |number| custom.call("/call", &[[number, 0, 0, 0, 0, 0, 0]])[0];
    assert_eq!(call(UNAME), Failed(7));
    assert_eq!(call(GETCPU), Killed(SIGSYS));
    assert_eq!(call(UNSHARE), Done);
    assert_eq!(custom.call("/call", &[[UNAME | X32, 0, 0, 0, 0, 0, 0]]), [Killed(SIGSYS)]);
}

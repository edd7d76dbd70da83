//! The boot manifest's bytes. The builder and the init of one version must agree on them, and an init of another
//! version must notice: whoever changes a line here raises `VERSION`.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fmt::Debug;

use manifest::report::Report;
use manifest::{
    Awaited, Backoff, Capabilities, Condition, ConsoleFormat, Container, Control, Dependency, Device, Files,
    GiveUp, Health, Ids, Kind, Limits, Log, Logging, Manifest, Memory, Mount, Name, Namespace, Network,
    OnFailure, OnUnhealthy, Probe, Profile, Program, Ready, ReadyBy, Resource, ResourceLimit, Restart,
    RestartPolicy, Seccomp, Service, Socket, Stop, Sysctl, Syslog, Then, Transport, UNLIMITED, User, Wait,
    Watchdog,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The sample machine, a line for each part; the document itself has no line ends.
const GOLDEN: &str = r#"
{"version":10,"name":"shop","modules":["virtio_pci.ko","erofs.ko"],
"layers":["00","aa","bb"],
"seccomp":["0006000000000000","0020000000000004 000600007fff0000"],
"network":"dhcp","watchdog":{"armed":{"timeout":60}},"control":{"exec":true,"vsock":1027},"log":{"console":"text",
"syslog":{"transport":"tcp","address":"10.0.0.2:601"},
"files":{"folder":"/var/log","max_size":10485760,"max_files":5}},
"services":[
{"name":"migrate","kind":{"oneshot":{"on_failure":"abort-boot"}},"depends_on":[],"wait_for":[],
"ready":{"by":"started","timeout_ms":0},"health":null,"watchdog_ms":0,
"restart":{"policy":"on-failure","prevented_by":[125],
"backoff":{"first_ms":100,"factor":2,"cap_ms":30000,"jitter_percent":0,"reset_ms":60000},"give_up":null},
"stop":{"signal":15,"grace_ms":10000},"logging":{"size":65536},
"container":{"layers":[1],"read_only":true,"hostname":"migrate",
"argv":["migrate"],"env":[],"cwd":"/","ids":{"own":{"first":1048576}},"user":{"uid":0,"gid":0,"groups":[]},
"profile":{"capabilities":{"bounding":1531,"held":1531},"network":"machine","pid":"own","ipc":"own",
"set_id":false,"all_devices":false,"unmasked":[],"sysctls":[]},"seccomp":{"program":1},"init":null,"mounts":[],"devices":[],
"sockets":[],"limits":{"memory":"half","memory_reservation":0,"processes":512,"processor_millis":0,"processors":[],"io_weight":0,
"oom_score_adj":0,"shm_size":67108864,"resources":[]}}},
{"name":"warm-up","kind":{"oneshot":{"on_failure":"ignore"}},"depends_on":[],"wait_for":[],
"ready":{"by":"started","timeout_ms":0},"health":null,"watchdog_ms":0,
"restart":{"policy":"never","prevented_by":[125],
"backoff":{"first_ms":100,"factor":2,"cap_ms":30000,"jitter_percent":0,"reset_ms":60000},"give_up":null},
"stop":{"signal":9,"grace_ms":0},"logging":{"size":65536},
"container":{"layers":[1],"read_only":true,"hostname":"warm-up",
"argv":["warm-up"],"env":[],"cwd":"/","ids":{"own":{"first":1048576}},"user":{"uid":0,"gid":0,"groups":[]},
"profile":{"capabilities":{"bounding":0,"held":0},"network":"machine","pid":"own","ipc":"own",
"set_id":false,"all_devices":false,"unmasked":[],"sysctls":[]},"seccomp":{"program":1},"init":null,"mounts":[],"devices":[],
"sockets":[],"limits":{"memory":"half","memory_reservation":0,"processes":512,"processor_millis":0,"processors":[],"io_weight":0,
"oom_score_adj":0,"shm_size":67108864,"resources":[]}}},
{"name":"web","kind":"service",
"depends_on":[{"service":0,"condition":"completed","on_failure":"degrade","restart_with":false},
{"service":1,"condition":"ready","on_failure":"ignore","restart_with":true}],
"wait_for":[{"until":"network","timeout_ms":0,"on_failure":"degrade"},{"until":"clock","timeout_ms":30000,"on_failure":"ignore"},
{"until":{"path":"/dev/virtio-ports/data"},"timeout_ms":1,"on_failure":"abort-boot"}],
"ready":{"by":{"probe":{"tcp":80}},"timeout_ms":90000},
"health":{"probe":{"http":{"port":80,"host":"localhost","path":"/"}},"interval_ms":30000,"timeout_ms":1000,"retries":3,
"start_period_ms":0,"start_interval_ms":5000,"on_unhealthy":"reboot"},"watchdog_ms":7000,
"restart":{"policy":"always","prevented_by":[],
"backoff":{"first_ms":1,"factor":3,"cap_ms":9,"jitter_percent":20,"reset_ms":60000},
"give_up":{"after":10,"within_ms":300000,"then":"poweroff"}},
"stop":{"signal":3,"grace_ms":90000},"logging":{"size":65536},
"container":{"layers":[0,2,1],"read_only":false,"hostname":"front",
"argv":["/bin/web","--name=\"é\""],"env":["PATH=/bin","EMPTY="],"cwd":"/srv","ids":"machine",
"user":{"uid":33,"gid":34,"groups":[4,50]},
"profile":{"capabilities":{"bounding":18446744073709551615,"held":1},"network":"own","pid":"machine","ipc":"machine",
"set_id":true,"all_devices":true,"unmasked":["/proc/kcore"],
"sysctls":[{"path":"net/core/somaxconn","value":"1024"}]},
"seccomp":"unconfined","init":0,
"mounts":[
{"tmpfs":{"target":"/run","size":1048576,"mode":1023,"read_only":false,"no_exec":true}},
{"bind":{"source":"/srv/data","target":"/data","read_only":true,"no_exec":false}}],
"devices":[{"source":"/dev/virtio-ports/a","target":"/dev/a"}],
"sockets":[{"source":"/run/coracle/notify/web","target":"/dev/notify"}],
"limits":{"memory":{"bytes":67108864},"memory_reservation":8388608,"processes":64,"processor_millis":1500,
"processors":[0,2],"io_weight":300,"oom_score_adj":-500,"shm_size":4096,
"resources":[{"resource":"nofile","soft":1024,"hard":18446744073709551615}]}}}]}
"#;

fn golden() -> String {
    GOLDEN.replace('\n', "")
}

fn name(text: &str) -> Name {
    text.to_owned().try_into().unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The default, but for the capabilities.
fn profile(capabilities: u64) -> Profile {
    Profile {
        capabilities: Capabilities { bounding: capabilities, held: capabilities },
        network: Namespace::Machine,
        pid: Namespace::Own,
        ipc: Namespace::Own,
        set_id: false,
        all_devices: false,
        unmasked: Vec::new(),
        sysctls: Vec::new(),
    }
}

const BACKOFF: Backoff =
    Backoff { first_ms: 100, factor: 2, cap_ms: 30_000, jitter_percent: 0, reset_ms: 60_000 };

const LOGGING: Logging = Logging { size: 64 << 10 };

/// A oneshot with as little as a service can have.
fn oneshot(
    called: &str,
    on_failure: OnFailure,
    policy: RestartPolicy,
    stop: Stop,
    capabilities: u64,
) -> Service {
    Service {
        name: name(called),
        kind: Kind::Oneshot { on_failure },
        depends_on: Vec::new(),
        wait_for: Vec::new(),
        ready: Ready { by: ReadyBy::Started, timeout_ms: 0 },
        health: None,
        watchdog_ms: 0,
        restart: Restart { policy, prevented_by: vec![125], backoff: BACKOFF, give_up: None },
        stop,
        logging: LOGGING,
        container: Container {
            layers: vec![1],
            read_only: true,
            hostname: name(called),
            argv: texts(&[called]),
            env: Vec::new(),
            cwd: "/".into(),
            ids: Ids::Own { first: 1 << 20 },
            user: User { uid: 0, gid: 0, groups: Vec::new() },
            profile: profile(capabilities),
            seccomp: Seccomp::Program(1),
            init: None,
            mounts: Vec::new(),
            devices: Vec::new(),
            sockets: Vec::new(),
            limits: Limits {
                memory: Memory::Half,
                memory_reservation: 0,
                processes: 512,
                processor_millis: 0,
                processors: Vec::new(),
                io_weight: 0,
                oom_score_adj: 0,
                shm_size: 64 << 20,
                resources: Vec::new(),
            },
        },
    }
}

fn wait(until: Awaited, timeout_ms: u64, on_failure: OnFailure) -> Wait {
    Wait { until, timeout_ms, on_failure }
}

/// A service with something of everything.
fn web() -> Service {
    Service {
        name: name("web"),
        kind: Kind::Service,
        depends_on: vec![
            Dependency {
                service: 0,
                condition: Condition::Completed,
                on_failure: OnFailure::Degrade,
                restart_with: false,
            },
            Dependency {
                service: 1,
                condition: Condition::Ready,
                on_failure: OnFailure::Ignore,
                restart_with: true,
            },
        ],
        wait_for: vec![
            wait(Awaited::Network, 0, OnFailure::Degrade),
            wait(Awaited::Clock, 30_000, OnFailure::Ignore),
            wait(Awaited::Path("/dev/virtio-ports/data".into()), 1, OnFailure::AbortBoot),
        ],
        ready: Ready { by: ReadyBy::Probe(Probe::Tcp(80)), timeout_ms: 90_000 },
        health: Some(Health {
            probe: Probe::Http { port: 80, host: "localhost".into(), path: "/".into() },
            interval_ms: 30_000,
            timeout_ms: 1000,
            retries: 3,
            start_period_ms: 0,
            start_interval_ms: 5000,
            on_unhealthy: OnUnhealthy::Reboot,
        }),
        watchdog_ms: 7000,
        restart: Restart {
            policy: RestartPolicy::Always,
            prevented_by: Vec::new(),
            backoff: Backoff { first_ms: 1, factor: 3, cap_ms: 9, jitter_percent: 20, ..BACKOFF },
            give_up: Some(GiveUp { after: 10, within_ms: 300_000, then: Then::Poweroff }),
        },
        stop: Stop { signal: 3, grace_ms: 90_000 },
        logging: LOGGING,
        container: Container {
            layers: vec![0, 2, 1],
            read_only: false,
            hostname: name("front"),
            argv: texts(&["/bin/web", "--name=\"é\""]),
            env: texts(&["PATH=/bin", "EMPTY="]),
            cwd: "/srv".into(),
            ids: Ids::Machine,
            user: User { uid: 33, gid: 34, groups: vec![4, 50] },
            profile: Profile {
                capabilities: Capabilities { bounding: u64::MAX, held: 1 },
                network: Namespace::Own,
                pid: Namespace::Machine,
                ipc: Namespace::Machine,
                set_id: true,
                all_devices: true,
                unmasked: texts(&["/proc/kcore"]),
                sysctls: vec![Sysctl { path: "net/core/somaxconn".into(), value: "1024".into() }],
            },
            seccomp: Seccomp::Unconfined,
            init: Some(0),
            mounts: vec![
                Mount::Tmpfs {
                    target: "/run".into(),
                    size: 1 << 20,
                    mode: 0o1777,
                    read_only: false,
                    no_exec: true,
                },
                Mount::Bind {
                    source: "/srv/data".into(),
                    target: "/data".into(),
                    read_only: true,
                    no_exec: false,
                },
            ],
            devices: vec![Device { source: "/dev/virtio-ports/a".into(), target: "/dev/a".into() }],
            sockets: vec![Socket { source: "/run/coracle/notify/web".into(), target: "/dev/notify".into() }],
            limits: Limits {
                memory: Memory::Bytes(64 << 20),
                memory_reservation: 8 << 20,
                processes: 64,
                processor_millis: 1500,
                processors: vec![0, 2],
                io_weight: 300,
                oom_score_adj: -500,
                shm_size: 4096,
                resources: vec![ResourceLimit { resource: Resource::Nofile, soft: 1024, hard: UNLIMITED }],
            },
        },
    }
}

fn sample() -> Manifest {
    let (gently, at_once) = (Stop { signal: 15, grace_ms: 10_000 }, Stop { signal: 9, grace_ms: 0 });
    Manifest {
        version: 10,
        name: name("shop"),
        modules: texts(&["virtio_pci.ko", "erofs.ko"]),
        layers: texts(&["00", "aa", "bb"]),
        seccomp: [&["0006000000000000"][..], &["0020000000000004", "000600007fff0000"]]
            .map(|instructions| Program::try_from(instructions.join(" ")).unwrap())
            .into(),
        network: Network::Dhcp,
        watchdog: Watchdog::Armed { timeout: 60 },
        control: Control { exec: true, vsock: Some(1027) },
        log: Log {
            console: ConsoleFormat::Text,
            syslog: Some(Syslog { transport: Transport::Tcp, address: "10.0.0.2:601".parse().unwrap() }),
            files: Some(Files { folder: "/var/log".into(), max_size: 10 << 20, max_files: 5 }),
        },
        services: vec![
            oneshot("migrate", OnFailure::AbortBoot, RestartPolicy::OnFailure, gently, 1531),
            oneshot("warm-up", OnFailure::Ignore, RestartPolicy::Never, at_once, 0),
            web(),
        ],
    }
}

fn is_written_and_read_as<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, text: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), text);
    assert_eq!(&serde_json::from_str::<T>(text).unwrap(), value);
}

#[test]
fn the_bytes_are_these_and_read_back_the_same() {
    assert_eq!(manifest::VERSION, 10, "another version has another golden document");
    is_written_and_read_as(&sample(), &golden());
    is_written_and_read_as(&Network::None, "\"none\"");
    is_written_and_read_as(&Watchdog::None, "\"none\"");
}

#[test]
fn the_report_is_lines_of_these_bytes() {
    is_written_and_read_as(
        &Report::Ready { init_ns: 1, first_start_ns: 2, ready_ns: 3 },
        r#"{"event":"ready","init_ns":1,"first_start_ns":2,"ready_ns":3}"#,
    );
    is_written_and_read_as(
        &Report::Exit { code: 255, stop_ns: 4, off_ns: u64::MAX },
        r#"{"event":"exit","code":255,"stop_ns":4,"off_ns":18446744073709551615}"#,
    );
}

#[test]
fn what_another_version_might_add_or_leave_out_is_refused() {
    for (from, to) in [
        (r#""version":10"#, r#""version":10,"future":true"#),
        (r#""network":"dhcp","#, ""),
        (r#""network":"dhcp""#, r#""network":"static""#),
        (r#""kind":"service""#, r#""kind":"timer""#),
        (r#""policy":"never""#, r#""policy":"sometimes""#),
        (r#","condition":"completed""#, ""),
        (r#""until":"clock""#, r#""until":"moon""#),
        (r#""until":"network","timeout_ms":0,"#, r#""until":"network","#),
        (r#""give_up":{"#, r#""give_up":{"never":1,"#),
        (r#""signal":9"#, r#""signal":9,"second_signal":9"#),
        (r#","ids":"machine""#, ""),
        (r#""ids":"machine""#, r#""ids":"all""#),
        (r#""uid":33"#, r#""uid":-33"#),
        (r#""gid":34"#, r#""gid":4294967296"#),
        (r#""cwd":"/srv""#, r#""cwd":"/srv","apparmor":[]"#),
        (r#""seccomp":"unconfined","#, ""),
        (r#","pid":"own""#, ""),
        (r#""unmasked":[],"#, ""),
        (r#","held":1}"#, "}"),
        (r#","no_exec":true"#, ""),
        (r#""ipc":"machine""#, r#""ipc":"private""#),
        (r#""0006000000000000""#, r#""0006""#),
        (r#""on_failure":"ignore""#, r#""on_failure":"reboot""#),
        (r#"{"tmpfs":{"#, r#"{"tmpfs":{"huge":true,"#),
        (r#"{"bind":{"#, r#"{"overlay":{"#),
        (r#""hostname":"front""#, r#""hostname":"../front""#),
        (r#""target":"/dev/a""#, r#""target":"/dev/a","mode":6"#),
    ] {
        let text = golden().replacen(from, to, 1);
        assert_ne!(text, golden(), "{from} is not in the golden document");
        assert!(serde_json::from_str::<Manifest>(&text).is_err(), "{to} is accepted");
    }
}

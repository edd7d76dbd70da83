//! What configs mean, and what is said of those that mean nothing.

use manifest::{ConsoleFormat, Files, RestartPolicy};

use super::*;

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn config(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    load(&[write(&folder, "m.toml", text)]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The problems of a config, without the folder it was written to.
fn problems(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let problems = load(&[write(&folder, "m.toml", text)]).unwrap_err().to_string();
    problems.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_machine_needs_a_name_and_gets_the_rest_by_default() {
    let config =
        config("name = \"m\"\n[service.web]\nimage = \"oci:web\"\n[oneshot.first]\nimage = \"oci:a\"\n");
    assert_eq!(config.name.as_str(), "m");
    assert_eq!(config.kernel.source, KernelSource::Package("linux-image-cloud-amd64".into()));
    let [first, web] = &config.services[..] else { panic!("{config:?}") };
    let policy = |service: &Service| service.supervision.restart.policy;
    assert_eq!((first.path(), policy(first)), ("oneshot.first".into(), RestartPolicy::Never));
    assert_eq!((web.path(), policy(web)), ("service.web".into(), RestartPolicy::Always));
    assert_eq!(web.stop_grace_period, Duration::from_secs(10));
    assert_eq!((web.command.as_ref(), web.user.as_ref(), web.read_only), (None, None, false));
}

#[test]
fn oneshots_come_before_services_and_both_in_the_order_in_which_they_are_written() {
    let text = "name = \"m\"
        service.z.image = \"oci:a\"
        [oneshot.y]
        image = \"oci:a\"
        [service.b]
        image = \"oci:a\"
        [oneshot.a]
        image = \"oci:a\"";
    let names: Vec<String> = config(text).services.iter().map(Service::path).collect();
    assert_eq!(names, ["oneshot.y", "oneshot.a", "service.z", "service.b"]);
}

#[test]
fn a_later_file_replaces_keys_and_adds_tables() {
    let folder = tempfile::tempdir().unwrap();
    let first = write(
        &folder,
        "a.toml",
        "name = \"m\"\n[service.web]\nimage = \"oci:web\"\nuser = \"web\"\nports = [\"80\", \"81\"]\n\
         [[file]]\npath = \"/etc/a\"\ncontents = \"a\"\n",
    );
    let second = write(
        &folder,
        "b.toml",
        "[service.web]\nuser = 7\nports = [\"82\"]\n[service.db]\nimage = \"oci:db\"\n\
         [[file]]\npath = \"/etc/b\"\ncontents = \"b\"\n",
    );
    let config = load(&[first, second]).unwrap_or_else(|problems| panic!("{problems}"));
    let [web, db] = &config.services[..] else { panic!("{config:?}") };
    assert_eq!((web.user.as_deref(), web.ports.len(), web.ports[0].guest), (Some("7"), 1, 82));
    assert_eq!(db.name.as_str(), "db");
    assert_eq!(config.files.len(), 2);
}

#[test]
fn every_problem_is_reported_at_once_with_its_line_and_a_proposal() {
    let text = r#"nmae = "m"
[kernel]
package = "linux-image-cloud-amd64"
path = "bzImage"
[service.Web]
imgae = "oci:web"
read_only = true
restart = "alway"
[oneshot.migrate]
image = "oci:web"
env = { A = "b" }
restart = "always"
stop-grace-period = 10
ports = ["80:x"]
[service.migrate]
image = "oci:web"
volumes = ["/a:/b", "/c:/b", "data:/d"]
on-failure = "ignore"
[[file]]
path = "/dev/x"
"#;
    insta::assert_snapshot!(problems(text));
}

#[test]
fn a_file_that_is_not_toml_is_shown_where_it_stops_being_it() {
    insta::assert_snapshot!(problems("name = \"m\"\n[service.web\nimage = 1 2\n"));
}

#[test]
fn a_problem_of_the_second_file_is_shown_in_the_second_file() {
    let folder = tempfile::tempdir().unwrap();
    let first = write(&folder, "a.toml", "name = \"m\"\n");
    let second = write(&folder, "b.toml", "# longer than the first file\n\n[service.web]\nimage = 3\n");
    let text = load(&[first, second]).unwrap_err().to_string();
    assert!(text.contains("b.toml:4:9"), "{text}");
    assert!(!text.contains("a.toml"), "{text}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let text = load(&[PathBuf::from("/nowhere/m.toml")]).unwrap_err().to_string();
    assert_eq!(text, "error: cannot read config `/nowhere/m.toml`: No such file or directory (os error 2)");
}

#[test]
fn layers_are_compressed_as_the_table_says_and_else_as_the_kernel_likes() {
    assert_eq!(config("name = \"m\"").layers, Layers::default());
    let text = "name = \"m\"\n[layers]\ncompression = \"lz4\"\nlevel = 12\ncluster-size = \"16KiB\"\n";
    let layers = Layers {
        compression: Some(Compress::Lz4),
        level: Some(12),
        cluster: Some(16 << 10),
        ..Layers::default()
    };
    assert_eq!(config(text).layers, layers);
    for (keys, said) in [
        (
            "compression = \"lz5\"",
            "layers.compression: `lz5` is no compression: there are none, lz4, zstd (did you mean `lz4`?)",
        ),
        ("compression = \"zstd\"\nlevel = 20", "layers.level: zstd has the levels 1 to 19"),
        ("compression = \"lz4\"\nlevel = 13", "layers.level: lz4 has the levels 1 to 12"),
        ("level = 3", "layers.level: a level goes with a `compression`"),
        ("compression = \"none\"\nlevel = 3", "layers.level: a level goes with a `compression`"),
        (
            "cluster-size = \"100KiB\"",
            "layers.cluster-size: a cluster has 4KiB, twice that and so on up to 256KiB",
        ),
        ("cluster-size = \"1KiB\"", "a cluster has 4KiB"),
        ("max-ratio = 0", "layers.max-ratio: no layer fits into 0"),
        ("max-size = 7", "layers.max-size: "),
    ] {
        let found = problems(&format!("name = \"m\"\n[layers]\n{keys}\n"));
        assert!(found.contains(said), "{found}");
    }
}

#[test]
fn layers_may_take_what_the_table_allows() {
    let text =
        "name = \"m\"\n[layers]\nmax-size = \"1GiB\"\nmax-ratio = 7\nmax-entries = 8\nallow-devices = true\n";
    let layers = config(text).layers;
    assert_eq!(layers.limits, Limits { size: 1 << 30, ratio: 7, entries: 8 });
    assert!(layers.allow_devices);
}

#[test]
fn a_service_has_users_of_its_own_unless_it_asks_for_the_machines() {
    let of = |key: &str| format!("name = \"m\"\n[service.a]\nimage = \"oci:a\"\n{key}\n");
    for (key, userns) in [
        ("", Userns::Private),
        ("userns = \"private\"", Userns::Private),
        ("userns = \"host\"", Userns::Host),
    ] {
        assert_eq!(config(&of(key)).services[0].userns, userns, "{key}");
    }
    let found = problems(&of("userns = \"none\""));
    let said =
        "service.a.userns: `none` is no user namespace: expected \"private\", the default, or \"host\"";
    assert!(found.contains(said), "{found}");
    assert!(problems(&of("userns_mode = \"host\"")).contains("did you mean `userns`?"));
}

#[test]
fn every_contradiction_in_a_profile_is_reported_at_once() {
    let text = r#"name = "m"
[service.a]
image = "oci:a"
cap-add = ["NET_ADMNI", "CAP_KILL", "ALL"]
cap-drop = ["kill", "all"]
unmask = ["/proc/kcor", "/proc/keys/"]
pid = "hots"
ipc = "host"
network = "bridge"
group-add = ["a:b", 7]
sysctls = { "kernel.shmax" = 1, "kernel.shmmax" = 1, net.core.somaxconn = 1, "kernel.core_pattern" = "|/x", "fs.mqueue.msg_max" = "1\n2" }
[service.b]
image = "oci:a"
privileged = true
userns = "private"
seccomp = "default"
cap-drop = ["KILL"]
allow-setuid = false
unmask = "some"
[service.c]
image = "oci:a"
network = "none"
ports = ["80"]
unmask = "most"
sysctls = { "net.../../x" = 1, "net.ipv4.ip_forward" = "" }
capabilities = ["KILL"]
volumes = ["/a:/b:ro,suid"]
"#;
    insta::assert_snapshot!(problems(text));
}

#[test]
fn an_init_is_one_of_the_processes() {
    let of = |keys: &str| format!("name = \"m\"\n[service.a]\nimage = \"oci:a\"\n{keys}\n");
    for (keys, has_init) in
        [("", false), ("init = false\npids-limit = 1", false), ("init = true\npids-limit = 2", true)]
    {
        assert_eq!(config(&of(keys)).services[0].init, has_init, "{keys}");
    }
    let found = problems(&of("init = true\npids-limit = 1"));
    let said = "service.a.init: is a process itself: it takes a `pids-limit` of at least 2";
    assert!(found.contains(said), "{found}");
    assert!(problems(&of("tini = true")).contains("did you mean `init`?"));
}

#[test]
fn capabilities_have_names_with_and_without_a_prefix() {
    let text = "name = \"m\"\n[service.a]\nimage = \"oci:a\"\ncap-add = [\"CAP_KILL\", \"chown\"]\n\
                cap-drop = [\"All\"]\nunmask = \"ALL\"\ngroup-add = [\"audio\", 7]\n";
    let profile = &config(text).services[0].profile;
    assert_eq!(profile.cap_add, Capabilities { all: false, named: 1 << 5 | 1 });
    assert_eq!(profile.cap_drop, Capabilities { all: true, named: 0 });
    assert_eq!(profile.unmask.len(), manifest::mask::MASKS.len());
    assert_eq!(profile.group_add, ["audio", "7"]);
}

#[test]
fn published_ports_do_not_collide() {
    let text = "name = \"m\"\n[service.a]\nimage = \"oci:a\"\nports = [\"80:80\"]\n\
                [service.b]\nimage = \"oci:a\"\nports = [\"8080:80\", \"80:80/udp\"]\n";
    let found = problems(text);
    assert!(found.contains("service.b.ports: 8080:80/tcp is in the way of 80:80 of service.a"), "{found}");
    assert_eq!(found.matches("error:").count(), 1, "{found}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]a-z.=\" \n0-9{},-]{0,200}") {
        let folder = tempfile::tempdir().unwrap();
        if let Err(problems) = load(&[write(&folder, "m.toml", &text)]) {
            problems.render(true);
        }
    }
}

#[test]
fn a_service_has_limits_that_nobody_wrote() {
    use manifest::{Memory, Resource, ResourceLimit};
    let limits = |keys: &str| {
        let mut services =
            config(&format!("name = \"m\"\n[service.web]\nimage = \"oci:web\"\n{keys}\n")).services;
        services.remove(0).limits
    };
    let usual = limits("");
    assert_eq!((usual.memory, usual.memory_reservation, usual.processes), (Memory::Half, 0, 512));
    assert_eq!((usual.processor_millis, usual.processors.len(), usual.oom_score_adj), (0, 0, 0));
    assert_eq!((usual.shm_size, usual.io_weight), (64 << 20, 0));
    let of = |resource, soft, hard| ResourceLimit { resource, soft, hard };
    let memlock = of(Resource::Memlock, 64 << 10, 64 << 10);
    assert_eq!(usual.resources, [of(Resource::Core, 0, 0), memlock, of(Resource::Nofile, 4096, 65_536)]);
    let written = limits(
        "memory = \"64MiB\"\nmemory-reservation = \"64MiB\"\npids-limit = 7\ncpus = \"0.5\"\ncpuset = \"2,0-1\"\n\
         io-weight = 10000\noom-score-adj = -999\nshm-size = \"1GiB\"\nulimits = { core = -1, nofile = { soft = 1, hard = 2 }, nproc = 9 }",
    );
    assert_eq!((written.memory, written.memory_reservation), (Memory::Bytes(64 << 20), 64 << 20));
    assert_eq!((written.processes, written.processor_millis), (7, 500));
    assert_eq!((written.processors.as_slice(), written.oom_score_adj), (&[0, 1, 2][..], -999));
    assert_eq!((written.shm_size, written.io_weight), (1 << 30, 10_000));
    let core = of(Resource::Core, u64::MAX, u64::MAX);
    assert_eq!(
        written.resources,
        [core, memlock, of(Resource::Nofile, 1, 2), of(Resource::Nproc, 9, 9)],
        "those that are not written stay"
    );
}

#[test]
fn limits_that_make_no_sense_are_all_told() {
    let text = r#"name = "m"
[service.web]
image = "oci:web"
memory = "3MiB"
memory-reservation = "a lot"
pids-limit = 0
cpus = 0.0
cpuset = "3-1"
io-weight = 0
oom-score-adj = -1000
shm-size = "0"
ulimits = { files = 3, core = { soft = 2, hard = 1 }, nofile = -1, nproc = -7 }
[service.db]
image = "oci:db"
memory = "8MiB"
memory-reservation = "9MiB"
mem_limit = "1g"
blkio_weight = 500
io-weight = 10001
cpus = true
ulimits = { core = { soft = 2 } }
"#;
    insta::assert_snapshot!(problems(text));
}

#[test]
fn what_is_said_is_shown_as_text_unless_the_config_says_otherwise() {
    let console = |table: &str| config(&format!("name = \"m\"\n{table}")).log.console;
    for (table, expected) in [
        ("", ConsoleFormat::Text),
        ("log.console = \"text\"", ConsoleFormat::Text),
        ("log.console = \"json\"", ConsoleFormat::Json),
        ("log.console = \"none\"", ConsoleFormat::None),
    ] {
        assert_eq!(console(table), expected, "{table}");
    }
    let said = problems("name = \"m\"\n[log]\nconsole = \"jsno\"\n");
    assert!(said.contains("log.console: `jsno` is no way to show lines"), "{said}");
    assert!(said.contains("did you mean `json`?"), "{said}");
}

#[test]
fn a_syslog_server_is_an_address_with_a_transport() {
    let server = |written: &str| {
        let log = config(&format!("name = \"m\"\nlog.syslog = \"{written}\"\n")).log;
        log.syslog.map(|server| server.to_string()).unwrap_or_default()
    };
    for (written, meant) in [
        ("udp://10.0.0.2:5140", "udp://10.0.0.2:5140"),
        ("udp://10.0.0.2", "udp://10.0.0.2:514"),
        ("tcp://10.0.0.2", "tcp://10.0.0.2:601"),
        ("tcp://[fd00::2]:601", "tcp://[fd00::2]:601"),
        ("tcp://[fd00::2]", "tcp://[fd00::2]:601"),
    ] {
        assert_eq!(server(written), meant);
    }
    for wrong in [
        "10.0.0.2:514",
        "udp:10.0.0.2",
        "udp://logs:514",
        "tls://10.0.0.2",
        "tcp://10.0.0.2:0",
        "udp://0.0.0.0",
    ] {
        let said = problems(&format!("name = \"m\"\nlog.syslog = \"{wrong}\"\n"));
        assert!(said.contains("is no syslog server"), "{wrong}: {said}");
    }
}

#[test]
fn files_have_a_folder_and_limits() {
    let files = |table: &str| config(&format!("name = \"m\"\n[log]\n{table}\n")).log.files;
    let expected =
        |folder: &str, max_size, max_files| Some(Files { folder: folder.into(), max_size, max_files });
    assert_eq!(files(""), None);
    assert_eq!(files("folder = \"/var//log/\""), expected("/var/log", 10 << 20, 5));
    let all = "folder = \"/logs\"\nmax-size = \"64KiB\"\nmax-files = 1";
    assert_eq!(files(all), expected("/logs", 64 << 10, 1));
    for (wrong, why) in [
        ("max-size = \"1MiB\"", "log.max-size: `max-size` is for files, and there are none without `folder`"),
        ("folder = \"logs\"", "log.folder: `logs` is not an absolute path"),
        ("folder = \"/run/log\"", "log.folder: `/run` of the machine is Coracle's own"),
        ("folder = \"/\"", "log.folder: `/` is the machine's root"),
        ("folder = \"/l\"\nmax-files = 0", "log.max-files: each service has 1 to 1000 files"),
        ("folder = \"/l\"\nmax-size = \"1KiB\"", "log.max-size: a file of a log has 16KiB to 1TiB"),
    ] {
        let said = problems(&format!("name = \"m\"\n[log]\n{wrong}\n"));
        assert!(said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn a_machine_is_watched_unless_it_says_otherwise() {
    let timeout = |table: &str| config(&format!("name = \"m\"\n{table}")).watchdog.map(|time| time.as_secs());
    for (table, expected) in [
        ("", Some(60)),
        ("[watchdog]", Some(60)),
        ("watchdog.timeout = \"10s\"", Some(10)),
        ("watchdog.timeout = \"10m\"", Some(600)),
        ("watchdog.timeout = \"none\"", None),
    ] {
        assert_eq!(timeout(table), expected, "{table}");
    }
    for wrong in ["9s", "10m1s", "10500ms", "off", "", "60", "0s"] {
        let said = problems(&format!("name = \"m\"\nwatchdog.timeout = \"{wrong}\"\n"));
        assert!(said.contains("watchdog.timeout: "), "{wrong}: {said}");
    }
    let said = problems("name = \"m\"\n[watchdog]\ntimout = \"10s\"\n");
    assert!(said.contains("did you mean `timeout`?"), "{said}");
}

#[test]
fn the_host_has_no_vsock_to_the_machine_unless_a_port_is_named() {
    let control = |table: &str| config(&format!("name = \"m\"\n[control]\n{table}\n")).control;
    assert_eq!(control(""), manifest::Control { exec: true, vsock: None });
    assert_eq!(control("vsock = 1027\nexec = false"), manifest::Control { exec: false, vsock: Some(1027) });
    for wrong in ["0", "4294967295"] {
        let said = problems(&format!("name = \"m\"\ncontrol.vsock = {wrong}\n"));
        assert!(said.contains("control.vsock: a port of the vsock is 1 to 4294967294"), "{wrong}: {said}");
    }
}

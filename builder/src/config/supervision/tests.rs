//! What the keys of supervision mean, and what is said of those that mean nothing.

use manifest::{Awaited, Condition, OnFailure, OnUnhealthy, Probe, ReadyBy, RestartPolicy, Then};

use super::super::{Config, Service, load};
use super::*;

fn loaded(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.toml");
    std::fs::write(&path, format!("name = \"m\"\n{text}")).unwrap();
    load(&[path]).map_err(|problems| problems.to_string())
}

fn service(keys: &str) -> Service {
    let text = format!("[service.web]\nimage = \"oci:web\"\n{keys}\n[service.db]\nimage = \"oci:db\"\n");
    loaded(&text).unwrap_or_else(|problems| panic!("{problems}")).services.remove(0)
}

#[test]
fn without_keys_a_service_waits_for_nobody_and_always_restarts() {
    let Supervision { depends_on, wait_for, ready, health, watchdog, restart } = service("").supervision;
    assert_eq!((depends_on, wait_for, watchdog, health.is_written), (vec![], vec![], None, false));
    assert_eq!((ready.by, ready.timeout_ms), (ReadyBy::Started, 0));
    assert_eq!((restart.policy, restart.prevented_by), (RestartPolicy::Always, vec![125]));
    assert_eq!((restart.backoff, restart.give_up), (BACKOFF, None));
}

#[test]
fn edges_are_words_lists_or_tables_and_composes_words_are_understood() {
    let edges = |keys: &str| {
        let edges = service(keys).supervision.depends_on;
        edges
            .into_iter()
            .map(|edge| (edge.condition.value, edge.on_failure, edge.restart_with))
            .collect::<Vec<_>>()
    };
    let started = (Condition::Started, OnFailure::Degrade, false);
    assert_eq!(edges("depends-on = [\"db\"]"), [started]);
    assert_eq!(edges("depends-on = { db = \"started\" }"), [started]);
    assert_eq!(edges("depends-on = { db = { condition = \"service_healthy\" } }")[0].0, Condition::Healthy);
    let whole =
        "depends-on = { db = { condition = \"ready\", on-failure = \"abort-boot\", restart-with = true } }";
    assert_eq!(edges(whole), [(Condition::Ready, OnFailure::AbortBoot, true)]);
}

#[test]
fn a_service_waits_for_the_machine_by_words_paths_and_tables() {
    let waits = |keys: &str| -> Vec<Wait> {
        service(keys).supervision.wait_for.into_iter().map(|wait| wait.value).collect()
    };
    let plain = |until| Wait { until, timeout_ms: 0, on_failure: OnFailure::Degrade };
    let path = || Awaited::Path("/dev/virtio-ports/data".to_owned());
    assert_eq!(
        waits("wait-for = [\"network\", \"clock\", \"/dev//virtio-ports/data/\"]"),
        [plain(Awaited::Network), plain(Awaited::Clock), plain(path())]
    );
    assert_eq!(
        waits(
            "wait-for = [{ network = true }, { clock = true, timeout = \"30s\", on-failure = \"ignore\" },\n\
             { path = \"/dev/virtio-ports/data\", timeout = \"1m\", on-failure = \"abort-boot\" }]"
        ),
        [
            plain(Awaited::Network),
            Wait { timeout_ms: 30_000, on_failure: OnFailure::Ignore, ..plain(Awaited::Clock) },
            Wait { timeout_ms: 60_000, on_failure: OnFailure::AbortBoot, ..plain(path()) },
        ]
    );
}

#[test]
fn a_path_is_one_of_the_machines_that_somebody_makes() {
    let config = |path: &str, keys: &str| {
        loaded(&format!(
            "[service.web]\nimage = \"oci:web\"\nwait-for = [\"{path}\"]\nvolumes = [\"/srv/data:/data:ro\"]\n\
             [service.db]\nimage = \"oci:db\"\nvolumes = [\"/srv/db:/data\"]\n{keys}\n\
             [[file]]\npath = \"/etc/motd\"\ncontents = \"\"\n"
        ))
    };
    for path in
        ["/dev/vda", "/sys/block/vda", "/run/x", "/srv", "/srv/data", "/srv/db/socket", "/etc/motd", "/etc"]
    {
        assert!(config(path, "").is_ok(), "{path}");
    }
    for (path, meant) in [
        ("/srv/data/x", ""),
        ("/srv/dbx", ""),
        ("/device", ""),
        ("/data/socket", " (did you mean `/srv/data/socket`?)"),
    ] {
        let said = config(path, "").unwrap_err();
        let what = format!(
            "service.web.wait-for: nothing makes `{path}` of the machine: no service can write to a volume there{meant}\n"
        );
        assert!(said.contains(&what), "{what}{said}");
        assert!(config(path, "[service.all]\nimage = \"oci:a\"\nvolumes = [\"/:/machine\"]").is_ok());
        assert!(config(path, "pid = \"host\"").is_ok(), "it may reach the machine's files");
    }
}

#[test]
fn systemds_targets_lead_to_what_is_meant() {
    for (keys, sentence) in [
        (
            "after = \"network-online.target\"",
            "service.web.after: there is no such key (did you mean `wait-for = [\"network\"]`?)",
        ),
        (
            "Wants = [\"db\", \"time-sync.target\"]",
            "service.web.Wants: there is no such key (did you mean `wait-for = [\"clock\"]`?)",
        ),
        ("after = \"db\"", "service.web.after: there is no such key (did you mean `depends-on`?)"),
        (
            "depends-on = [\"network-online.target\"]",
            "service.web.depends-on: no service is called `network-online.target` (did you mean `wait-for = [\"network\"]`?)",
        ),
        (
            "depends-on = [\"/dev/vda\"]",
            "service.web.depends-on: no service is called `/dev/vda` (did you mean `wait-for = [\"/dev/vda\"]`?)",
        ),
        (
            "wait-for = [\"time-sync\"]",
            "service.web.wait-for: `time-sync` is neither \"network\" nor \"clock\" nor an absolute path (did you mean `clock`?)",
        ),
        ("wait-for = [\"netwrok\"]", "nor an absolute path (did you mean `network`?)"),
    ] {
        let said = loaded(&format!("[service.web]\nimage = \"oci:web\"\n{keys}\n")).unwrap_err();
        assert!(said.contains(sentence), "{sentence}\n{said}");
    }
}

#[test]
fn a_service_is_ready_in_one_of_many_ways() {
    for (written, by, timeout_ms) in [
        ("\"notify\"", ReadyBy::Notify, 90_000),
        ("\"healthy\"", ReadyBy::Healthy, 90_000),
        ("{ tcp = 5432 }", ReadyBy::Probe(Probe::Tcp(5432)), 90_000),
        ("{ fd = 3, timeout = \"5s\" }", ReadyBy::Fd(3), 5000),
        ("{ notify = true, timeout = \"0s\" }", ReadyBy::Notify, 0),
        (
            "{ http = \"http://localhost:3000/health?deep=1\" }",
            ReadyBy::Probe(Probe::Http {
                port: 3000,
                host: "localhost:3000".into(),
                path: "/health?deep=1".into(),
            }),
            90_000,
        ),
    ] {
        let ready = service(&format!("ready = {written}")).supervision.ready;
        assert_eq!((ready.by, ready.timeout_ms), (by, timeout_ms), "{written}");
    }
}

#[test]
fn health_checks_are_composes() {
    let health = |keys: &str| service(&format!("healthcheck = {{ {keys} }}")).supervision.health;
    let shell = Probe::Exec(["/bin/sh", "-c", "ls /ok"].map(str::to_owned).into());
    assert_eq!(health("test = \"ls /ok\"").probe, Some(shell.clone()));
    assert_eq!(health("test = [\"CMD-SHELL\", \"ls /ok\"]").probe, Some(shell));
    assert_eq!(health("test = [\"CMD\", \"ls\"]").probe, Some(Probe::Exec(vec!["ls".into()])));
    assert!(health("test = [\"NONE\"]").is_disabled && health("disable = true").is_disabled);
    let all = health("tcp = 80, interval = \"1s\", retries = 2, on-unhealthy = \"none\"");
    assert_eq!((all.probe, all.interval), (Some(Probe::Tcp(80)), Some(Duration::from_secs(1))));
    assert_eq!((all.retries, all.on_unhealthy, all.timeout), (Some(2), Some(OnUnhealthy::None), None));
}

#[test]
fn restarts_have_their_pauses_and_their_end() {
    let keys = "restart = \"on-failure\"\nrestart-prevent-exit-status = [2, 3]\n\
                backoff = { first = \"1s\", factor = 3, cap = \"1m\", jitter = 0.25 }\n\
                give-up = { after = 4, within = \"2m\", then = \"reboot\" }";
    let restart = service(keys).supervision.restart;
    assert_eq!((restart.policy, restart.prevented_by), (RestartPolicy::OnFailure, vec![2, 3]));
    let backoff = Backoff { first_ms: 1000, factor: 3, cap_ms: 60_000, jitter_percent: 25, reset_ms: 60_000 };
    assert_eq!(restart.backoff, backoff);
    assert_eq!(restart.give_up, Some(GiveUp { after: 4, within_ms: 120_000, then: Then::Reboot }));
}

#[test]
fn every_mistake_is_said_at_once() {
    let said = loaded(
        r#"
[service.web]
image = "oci:web"
depends-on = { db = "completed", once = "ready", last = "started", web = "ready", dbb = "ready" }
ready = { tcp = 5432, fd = 2, notify = true }
healthcheck = { test = ["LS"], tcp = 70000, interval = "0s", retries = 0 }
watchdog = "0s"
restart-prevent-exit-status = [256]
backoff = { first = "0s", factor = 0, jitter = 1.5 }
give-up = { after = 0, within = "1m", then = "panic" }
wait-for = ["clock", { clock = true }, { timeout = "1s" }, { path = "x" }, { network = true, on-failure = "ignore" }, 7]
[service.db]
image = "oci:db"
wait-for = "network"
ready = { http = "http://example.org/" }
give-up = { after = 3 }
[oneshot.once]
image = "oci:once"
restart = "always"
ready = "notify"
[shutdown.last]
image = "oci:last"
restart = "always"
[service.few]
image = "oci:few"
ready = { fd = 8 }
ulimits = { nofile = 8 }
"#,
    )
    .unwrap_err();
    for sentence in [
        "service.web.depends-on: `db` always restarts, and never completes; wait until it is \"ready\"",
        "service.web.depends-on: `once` runs to its end once, and is \"started\" or \"completed\"",
        "service.web.depends-on: `last` does not run at the same time",
        "service.web.depends-on: a service cannot wait for itself",
        "service.web.depends-on: no service is called `dbb` (did you mean `db`?)",
        "service.web.ready.fd: 2 is none of the descriptors 3 to 255",
        "service.web.ready: a service is ready in one way",
        "service.few.ready.fd: `ulimits.nofile` leaves no descriptor 8: it takes 9 or more",
        "service.web.healthcheck.test: expected [\"CMD\"",
        "service.web.healthcheck.tcp: 70000 is no port",
        "service.web.healthcheck.interval: checks without a pause",
        "service.web.healthcheck.retries: the first failed check is one already",
        "service.web.watchdog: no service gives signs of life without a pause",
        "service.web.restart-prevent-exit-status: 256 is no exit code",
        "service.web.backoff.first: a service that fails at once",
        "service.web.backoff.factor: a factor is 1 to 100",
        "service.web.backoff.jitter: expected a share from 0 to 1",
        "service.web.give-up.after: a service is given up after 1 to 100 ends",
        "service.web.give-up.then: `panic` is none of stop, reboot, poweroff",
        "service.web.wait-for: the same is in the list already",
        "service.web.wait-for[2]: expected one of `network = true`, `clock = true` and `path`",
        "service.web.wait-for[3].path: `x`",
        "service.web.wait-for[4].on-failure: it says what follows when the `timeout` is over, and there is none",
        "service.web.wait-for[5]: expected \"network\", \"clock\", a path, or a table, found an integer",
        "service.db.wait-for: expected a list such as [\"network\", \"/dev/vda\"], found a string",
        "service.db.ready.http: `http://example.org/` is not asked",
        "service.db.give-up: missing: `after` and `within`",
        "oneshot.once.restart: a oneshot that always restarts never completes",
        "oneshot.once.ready: there is no such key",
        "shutdown.last.restart: there is no such key",
    ] {
        assert!(said.contains(sentence), "{sentence}\n{said}");
    }
}

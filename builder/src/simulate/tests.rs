//! Machines that never were.

use super::*;

const CONFIG: &str = r#"
name = "m"
[service.db]
image = "oci:db"
ready = { tcp = 5432 }
[oneshot.migrate]
image = "oci:db"
depends-on = { db = "ready" }
[service.web]
image = "oci:web"
depends-on = { migrate = "completed", db = { condition = "ready", restart-with = true } }
healthcheck = { http = "http://localhost/", interval = "10s", retries = 2 }
"#;

fn simulated(events: &[&str], seconds: u64) -> Result<String> {
    simulated_in(CONFIG, events, seconds)
}

fn simulated_in(config: &str, events: &[&str], seconds: u64) -> Result<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.toml");
    std::fs::write(&path, config).unwrap();
    let config = crate::config::load(&[path]).unwrap_or_else(|problems| panic!("{problems}"));
    let events: Vec<String> = events.iter().map(|&event| event.to_owned()).collect();
    timeline(&config, &events, Duration::from_secs(seconds))
}

#[test]
fn a_life_reads_as_a_timeline() {
    let text = simulated(&["db crashes after 5s once", "the machine powers off at 20s"], 60).unwrap();
    insta::assert_snapshot!(text, @r"
         0.000 s  `db` starts
         1.065 s  `db` is ready after 1.07 s
         1.065 s  `migrate` starts
         2.065 s  `migrate` has ended
         2.065 s  `web` starts
         2.075 s  the machine is ready
         5.000 s  `db` was ended by SIGSEGV
         5.000 s  `db` starts again in 0.1 s
         5.000 s  `web` is stopped, to start again with `db`
         5.000 s  `web` is asked to stop
         5.010 s  `web` was ended by SIGTERM
         5.100 s  `db` starts
         6.165 s  `db` is ready after 1.07 s
         6.165 s  `web` starts
        20.000 s  the machine powers off
        20.000 s  `web` is asked to stop
        20.010 s  `web` was ended by SIGTERM
        20.010 s  `db` is asked to stop
        20.020 s  `db` was ended by SIGTERM
        20.020 s  everything has ended, with code 0
    ");
}

#[test]
fn a_machine_whose_oneshot_fails_ends_with_its_code() {
    let text = simulated(&["migrate exits with 7"], 60).unwrap();
    assert!(text.contains("`migrate` has failed for good: the boot ends here"), "{text}");
    assert!(text.ends_with("everything has ended, with code 7\n"), "{text}");
    assert!(!text.contains("`web` starts"), "{text}");
}

#[test]
fn the_same_events_give_the_same_life_and_nothing_lasts_longer_than_asked() {
    let events = ["db crashes", "web is unhealthy at 1m", "web ignores its stop signal"];
    let (one, other) = (simulated(&events, 3600).unwrap(), simulated(&events, 3600).unwrap());
    assert_eq!(one, other);
    assert!(one.lines().count() < 2 * MOST_LINES, "{}", one.lines().count());
    let last = one.lines().last().unwrap().trim_start().split(' ').next().unwrap();
    assert!(last.parse::<f64>().unwrap() <= 3600.0, "{last}");
}

#[test]
fn a_service_waits_for_the_network_the_clock_and_a_path() {
    let config = format!(
        "{CONFIG}\n[service.sync]\nimage = \"oci:s\"\nwait-for = [\"network\", {{ path = \"/dev/x\", timeout = \"1m\" }}]\n\
         [oneshot.late]\nimage = \"oci:s\"\nwait-for = [{{ clock = true, timeout = \"5s\", on-failure = \"ignore\" }}]\n"
    );
    let text = simulated_in(&config, &["db crashes 3 times", "network down 60s", "clock is set at 9s"], 120)
        .unwrap();
    for line in [
        "     0.000 s  `sync` waits for the network\n",
        "     0.000 s  `late` waits for the clock to be set\n",
        "     5.000 s  `late` starts\n",
        "    60.000 s  `sync` starts\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let text = simulated_in(
        &config,
        &["/dev/x appears at 3s", "sync crashes after 7s once", "/dev/x is gone at 8s"],
        120,
    );
    let text = text.unwrap();
    for line in [
        "     3.000 s  `sync` starts\n",
        "    10.100 s  `sync` waits for `/dev/x`\n",
        "    70.100 s  `sync` is not started: it has waited too long for `/dev/x`\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let everything = simulated_in(&config, &[], 120).unwrap();
    assert!(everything.contains("     0.000 s  `sync` starts\n"), "{everything}");
    let error = simulated_in(&config, &["/dev/y appears at 1s"], 1).unwrap_err();
    assert_eq!(error.to_string(), "no service waits for `/dev/y` (did you mean `/dev/x`?)");
}

#[test]
fn absences_are_told_in_many_ways() {
    let seconds = Duration::from_secs;
    for (text, from, until) in [
        ("the network is up after 5s", 0, Some(5)),
        ("network up at 5s", 0, Some(5)),
        ("the network is down", 0, None),
        ("network down 1m", 0, Some(60)),
        ("the network is down for 1m", 0, Some(60)),
        ("the network is down at 30s", 30, None),
        ("network is down after 30s for 1m", 30, Some(90)),
        ("the clock is set at 3s", 0, Some(3)),
        ("/a appears at 10s", 0, Some(10)),
        ("/a is gone at 10s for 5s", 10, Some(15)),
    ] {
        let Ok(Wish::Absence(_, absence)) = Wish::parse(text, &[]) else { panic!("{text}") };
        assert_eq!((absence.from, absence.until), (seconds(from), until.map(seconds)), "{text}");
    }
    for text in
        ["the network is up", "the clock is gone at 3s", "/a appears", "clock down", "the network is up soon"]
    {
        assert!(Wish::parse(text, &["network"]).is_err(), "{text}");
    }
    let crash = Wish::parse("network crashes once", &["network"]).unwrap();
    assert!(matches!(crash, Wish::Service(0, _)), "a service may be called so");
}

#[test]
fn what_is_no_event_is_said_with_what_would_be_one() {
    for (event, sentence) in [
        ("dbb crashes", "no service is called `dbb` (did you mean `db`?)"),
        ("db sings", "`db sings` is no event"),
        ("db crashes thrice times", "`db crashes thrice times` is no event"),
        ("db is ready after soon", "event `db is ready after soon`: `soon` is no duration"),
        ("the machine powers off", "`the machine powers off` is no event"),
        ("", "`` is no event"),
    ] {
        let error = simulated(&[event], 1).unwrap_err();
        assert!(error.to_string().starts_with(sentence), "{event}: {error}");
    }
}

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
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.toml");
    std::fs::write(&path, CONFIG).unwrap();
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

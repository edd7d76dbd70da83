//! crun's own tests, against the table of docs/oci.md: what passes, and what does not apply.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use probe::{Answer, Request};
use tests::{Line, root};

use super::shell;

/// The longest that the suite may take, on an emulated machine that shares its processors with others.
pub const PATIENCE: Duration = Duration::from_secs(540);

/// The command under test, and the control.
const RUNTIMES: [&str; 2] = ["oci", "crun"];

/// Lets the suite run against both at once.
pub fn begin(line: &Line) {
    for runtime in RUNTIMES {
        let script = format!("setsid sh /srv/suite.sh {runtime} </dev/null >/srv/run.{runtime} 2>&1 &");
        assert_eq!(shell(line, &script), (Some(0), String::new()));
    }
}

/// Waits for it, and compares what came of each test with the table.
pub fn check(line: &Line) {
    let begun = Instant::now();
    let [found, control] = RUNTIMES.map(|runtime| {
        results(line, runtime, begun).lines().filter_map(parse).collect::<BTreeMap<String, String>>()
    });
    let said = RUNTIMES
        .map(|runtime| shell(line, &format!("cat /srv/run.{runtime}; tail -c 100000 /srv/log.{runtime}")).1);
    let documented = documented();
    let rows = |table: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
        let differing = table.iter().filter(|(name, outcome)| other.get(*name) != Some(outcome));
        differing.map(|(name, outcome)| format!("| `{name}` | {outcome} |")).collect::<Vec<_>>()
    };
    let (now, before) = (rows(&found, &documented.outcomes), rows(&documented.outcomes, &found));
    assert_eq!(now, before, "docs/oci.md says otherwise (left: what is so). The tests said:\n{}", said[0]);
    for name in &documented.applicable {
        let with_crun = control.get(name).map(String::as_str);
        assert_eq!(with_crun, Some("ok"), "{name} proves nothing: crun itself said:\n{}", said[1]);
    }
}

fn results(line: &Line, runtime: &str, begun: Instant) -> String {
    loop {
        match line.try_ask(&Request::Read { path: format!("/srv/results.{runtime}") }) {
            Ok(Answer::Text(text)) => return text,
            other => assert!(begun.elapsed() < PATIENCE, "{runtime} has not come to an end: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A line as `suite.sh` writes it: `test_start: not ok 3 - run-twice`. The tests print other lines as well.
fn parse(line: &str) -> Option<(String, String)> {
    let (file, rest) = line.split_once(": ")?;
    let (verdict, name) = rest.split_once(" - ")?;
    let outcome = match verdict.rsplit_once(' ')?.0 {
        "ok" if name.ends_with(" #SKIP") => "skipped",
        "ok" => "ok",
        "not ok" => "fails",
        _ => return None,
    };
    let name = name.trim_end_matches(" #SKIP");
    Some((format!("{} {name}", file.trim_start_matches("test_")), outcome.to_owned()))
}

/// The table of docs/oci.md.
#[derive(Default)]
struct Documented {
    outcomes: BTreeMap<String, String>,
    /// Tests that are ok without a word beside it.
    applicable: Vec<String>,
}

fn documented() -> Documented {
    let document = std::fs::read_to_string(root().join("docs/oci.md")).unwrap();
    let mut table = Documented::default();
    for row in document.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').splitn(3, '|').map(str::trim).collect();
        let [name, outcome, reason] = *cells.as_slice() else { panic!("no row of three cells: {row}") };
        let name = name.trim_matches('`').to_owned();
        match (outcome, reason) {
            ("ok", "") => table.applicable.push(name.clone()),
            (_, "") => panic!("no reason is given: {row}"),
            _ => {}
        }
        assert!(table.outcomes.insert(name, outcome.to_owned()).is_none(), "twice: {row}");
    }
    let [all, ok] = [table.outcomes.len(), table.applicable.len()];
    let claim = format!("Of {all} tests, {ok} pass and {} do not apply", all - ok);
    assert!(document.contains(&claim), "docs/oci.md has to say: {claim}");
    table
}

#[test]
fn lines_of_tap_are_told_from_others() {
    for (line, expected) in [
        ("test_start: ok 1 - start", Some(("start start", "ok"))),
        ("test_start: not ok 13 - empty-home", Some(("start empty-home", "fails"))),
        ("test_tty: ok 2 - test-stdin-tty #SKIP", Some(("tty test-stdin-tty", "skipped"))),
        ("test_tty: 1..4", None),
        ("test_hooks: {'prestart': [{'path': '/bin/sh - x'}]}", None),
    ] {
        let expected = expected.map(|(name, outcome)| (name.to_owned(), outcome.to_owned()));
        assert_eq!(parse(line), expected, "{line}");
    }
}

//! Faults of services that the supervisor survives and tells exactly: rows of a table, in few machines.

use std::collections::BTreeMap;

use tests::oracle::survived;
use tests::{Config, Line, demo_image, eventually};

/// Signals that end a process and that a shell can send to itself, and two real-time ones. The first process of a
/// container gets none whose action is the default, so a child of it dies, and the shell says how. busybox ignores SIGQUIT.
const SIGNALS: [i32; 23] =
    [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34];

/// Some that could be taken for signals.
const CODES_UNDER_INIT: [i32; 6] = [0, 1, 125, 137, 143, 255];

#[test]
fn every_exit_code_is_told_as_it_was_and_a_crash_loop_disturbs_nobody() {
    let busybox = demo_image("busybox");
    // In chains, so that a hundred do not start in the same moment.
    let codes: String = (0..=255)
        .map(|code| {
            let after = match code {
                0..=7 => String::new(),
                _ => format!(
                    "depends-on = {{ c{} = {{ condition = \"completed\", on-failure = \"ignore\" }} }}\n",
                    code - 8
                ),
            };
            format!(
                "[oneshot.c{code}]\nimage = \"{busybox}\"\ncommand = [\"sh\", \"-c\", \"exit {code}\"]\n\
                 on-failure = \"degrade\"\n{after}"
            )
        })
        .collect();
    let signals: String = SIGNALS
        .iter()
        .map(|signal| {
            format!(
                "[oneshot.s{signal}]\nimage = \"{busybox}\"\non-failure = \"degrade\"\n\
                 command = [\"sh\", \"-c\", \"sh -c 'kill -{signal} $$'; exit $?\"]\n\
                 depends-on = {{ c255 = {{ condition = \"completed\", on-failure = \"ignore\" }} }}\n"
            )
        })
        .collect();
    // With an init of its own before it, a program gets every signal, and how it has ended is told by two processes.
    let under_init: String = SIGNALS
        .iter()
        .map(|signal| (format!("i{signal}"), format!("kill -{signal} $$")))
        .chain(CODES_UNDER_INIT.iter().map(|code| (format!("e{code}"), format!("exit {code}"))))
        .map(|(name, script)| {
            format!(
                "[oneshot.{name}]\nimage = \"{busybox}\"\non-failure = \"degrade\"\ninit = true\n\
                 command = [\"sh\", \"-c\", \"{script}\"]\n\
                 depends-on = {{ s34 = {{ condition = \"completed\", on-failure = \"ignore\" }} }}\n"
            )
        })
        .collect();
    let looping: String = (0..50)
        .map(|n| {
            format!("[service.loop{n}]\nimage = \"{busybox}\"\ncommand = [\"false\"]\nbackoff = {{ cap = \"1s\" }}\n")
        })
        .collect();
    let machine = Config::new("exit-codes")
        .with(&codes)
        .with(&signals)
        .with(&under_init)
        .with(&looping)
        .probe("witness", "")
        .memory("1GiB")
        .boot();
    // The others loop, and it has answered all the while.
    let witness = machine.probe("witness");
    assert_eq!(witness.identity().pid, 1);
    // One may end in any moment, but none stays unreaped.
    let unreaped = zombies(witness, witness.list("/machine/proc"));
    eventually("every zombie is reaped", || zombies(witness, unreaped.clone()).is_empty());
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in ended.output.lines() {
        let Some((name, predicate)) = line.split_once('`').and_then(|(_, rest)| rest.split_once("` ")) else {
            continue;
        };
        if predicate.contains("ended") {
            told.entry(name.to_owned()).or_default().push(predicate.to_owned());
        }
    }
    let sentence = |code: i32| match code {
        0 => "has ended".to_owned(),
        code => format!("ended with code {code}"),
    };
    for code in 0..=255 {
        assert_eq!(told[&format!("c{code}")], [sentence(code)], "code {code}");
    }
    for signal in SIGNALS {
        assert_eq!(told[&format!("s{signal}")], [sentence(128 + signal)], "signal {signal}");
    }
    for signal in SIGNALS {
        let ends = &told[&format!("i{signal}")];
        let name = manifest::signal::name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned);
        assert!(
            ends.len() == 1 && ends[0].starts_with(&format!("was ended by {name}")),
            "signal {signal}: {ends:?}"
        );
    }
    for code in CODES_UNDER_INIT {
        assert_eq!(told[&format!("e{code}")], [sentence(code)], "code {code}");
    }
    survived("ends by signals under `init = true`", "sh -c 'kill -N $$'", SIGNALS.len() as u64);
    survived("exit codes", "0 to 255", 256);
    survived("ends by signals", "sh -c 'kill -N $$'", SIGNALS.len() as u64);
    for n in 0..50 {
        let ends = &told[&format!("loop{n}")];
        assert!(
            ends.len() >= 3 && ends.iter().all(|end| end.contains("code 1") || end.contains("SIG")),
            "{ends:?}"
        );
    }
}

/// Those of the processes `pids` of the machine that have ended and nobody has reaped.
fn zombies(witness: &Line, pids: Vec<String>) -> Vec<String> {
    let is_zombie = |pid: &String| {
        let stat = witness.try_ask(&probe::Request::Read { path: format!("/machine/proc/{pid}/stat") });
        matches!(stat, Ok(probe::Answer::Text(stat)) if stat.contains(") Z "))
    };
    pids.into_iter().filter(is_zombie).collect()
}

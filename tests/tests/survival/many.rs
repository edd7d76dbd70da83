//! Very many services, and very many that crash.

use std::thread;
use std::time::{Duration, Instant};

use tests::oracle::{OVERSEER, count, ends, length, services, survived};
use tests::{Config, Model, Oracle, probe_image};

#[test]
fn very_many_services_start_run_and_stop() {
    let image = probe_image();
    let total = count(150, 1_000);
    let many: String = (0..total)
        .map(|n| {
            format!(
                "[service.s{n}]\nimage = \"{image}\"\ncommand = [\"/probe\", \"pause\"]\nnetwork = \"none\"\n\
                 read-only = true\n"
            )
        })
        .collect();
    let machine = Config::new("many")
        .with(&many)
        .probe("overseer", OVERSEER)
        .memory(&format!("{}MiB", 512 + 4 * total))
        .timeout(Duration::from_secs(1800))
        .start();
    let begun = Instant::now();
    while machine.reports().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(900), "the machine was not ready");
        thread::sleep(Duration::from_millis(100));
    }
    let mut oracle = Oracle::of(&machine, Model::default());
    oracle.count(&machine, machine.probe("overseer"));
    assert_eq!(services(&machine).len() as u64, total + 1);
    oracle.judge(&machine, machine.probe("overseer"));
    drop(oracle);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    survived("very many services in one machine", "one wave at boot, one stop", total);
}

#[test]
fn crash_loops_of_fifty_services_follow_the_formula() {
    let image = probe_image();
    let loops: String = (0..50)
        .map(|n| {
            format!(
                "[service.loop{n}]\nimage = \"{image}\"\ncommand = [\"/probe\", \"exit\", \"{}\"]\n",
                n % 3
            )
        })
        .collect();
    let duration = length(Duration::from_secs(10));
    let machine = Config::new("loops")
        .with(&loops)
        .probe("overseer", OVERSEER)
        .timeout(duration + Duration::from_secs(300))
        .boot();
    let oracle = Oracle::of(&machine, Model::default());
    thread::sleep(duration);
    oracle.judge_services(&machine);
    let crashes: usize = ends(&oracle.events()).values().sum();
    drop(oracle);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    survived("crash loops of 50 services", "exit 0, 1 and 2 at once", crashes as u64);
}

//! Processes of twenty services are killed at random, for as long as it takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tests::oracle::{OVERSEER, length, survived};
use tests::{Config, Model, Oracle, Restarts, probe_image};

/// What one call of the probe does of it.
const ROUND: Duration = Duration::from_secs(10);

/// Another one each time; `CORACLE_SEED` repeats one.
fn seed() -> u64 {
    let given = std::env::var("CORACLE_SEED").ok().map(|text| text.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let seed = given.unwrap_or(u64::try_from(now).unwrap());
    println!("CORACLE_SEED={seed}");
    seed
}

#[test]
fn every_service_comes_back_whichever_of_its_processes_is_killed() {
    let image = probe_image();
    let victims: String = (0..20)
        .map(|n| {
            format!(
                "[service.victim{n}]\nimage = \"{image}\"\ncommand = [\"/probe\", \"family\", \"2\"]\n\
                 backoff = {{ cap = \"1s\", reset = \"5s\" }}\nnetwork = \"none\"\ninit = {}\n",
                // What is killed of the others may be that process, or the program behind it.
                n % 2 == 1
            )
        })
        .collect();
    let duration = length(Duration::from_secs(20));
    let machine = Config::new("chaos")
        .with(&victims)
        .probe("overseer", OVERSEER)
        .memory("1GiB")
        .timeout(duration + Duration::from_secs(300))
        .boot();
    let rules =
        Restarts { cap: Duration::from_secs(1), reset: Duration::from_secs(5), ..Restarts::default() };
    let overseer = machine.probe("overseer");
    let mut oracle = Oracle::of(&machine, Model::default().with("victim", rules));
    oracle.count(&machine, overseer);

    let (begun, mut seed, mut killed) = (Instant::now(), seed(), 0);
    while begun.elapsed() < duration {
        let round = ROUND.as_millis().to_string();
        let output = overseer.run(&["/probe", "chaos", &seed.to_string(), &round, "victim"]);
        let deaths: BTreeMap<String, u64> =
            serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{output:?}: {error}"));
        killed += deaths.values().sum::<u64>();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    let events = oracle.judge(&machine, overseer);
    assert!(killed > 50 && events > 100, "{killed} signals, {events} events");
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    survived("random kills over 20 services", "signals to any process of their cgroups", killed);
}

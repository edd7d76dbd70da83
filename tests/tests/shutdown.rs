//! How machines end.

use std::time::Duration;

use probe::Event;
use tests::{Config, Ended, Kernel};

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

#[test]
fn the_power_button_stops_services_in_the_reverse_of_their_order_on_both_kernels() {
    for kernel in Kernel::ALL {
        let machine = Config::new("reverse")
            .kernel(kernel)
            .probe("first", "")
            .probe("second", "stop-signal = \"SIGINT\"\ndepends-on = [\"first\"]")
            .probe("third", "depends-on = [\"second\"]")
            .boot();
        for name in ["first", "second", "third"] {
            machine.probe(name).identity();
        }
        let ended = machine.power_off();
        assert_eq!(ended.code, 0, "{}", ended.output);
        let stops = ["third", "second", "first"].map(|name| stop(&ended, name));
        assert!(stops.is_sorted_by_key(|(_, at_ns)| *at_ns), "{stops:?}");
        assert_eq!(stops.map(|(signal, _)| signal), [SIGTERM, SIGINT, SIGTERM]);
        let took = ended.stop.unwrap();
        println!("stop of three services on the {kernel:?} kernel: {took:?}");
        // Nobody was waited for in vain: the goal is 100 ms, the grace period is ten seconds.
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

#[test]
fn a_stuck_service_is_killed_after_its_grace_period() {
    let machine = Config::new("stuck")
        .probe("polite", "")
        .probe("stuck", "command = [\"/probe\", \"agent\", \"--ignore-stop\"]\nstop-grace-period = \"1s\"")
        .boot();
    for name in ["polite", "stuck"] {
        machine.probe(name).identity();
    }
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    let took = ended.stop.unwrap();
    // Its own grace period, and not the polite one's of ten seconds.
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
    // It was asked, it did not go, and the other one was not forgotten over it.
    assert_eq!(stop(&ended, "stuck").0, SIGTERM);
    assert_eq!(stop(&ended, "polite").0, SIGTERM);
}

/// The one stop signal that a probe got, and when.
fn stop(ended: &Ended, name: &str) -> (i32, u64) {
    let stops: Vec<_> = ended.events[name]
        .iter()
        .filter_map(|event| match event {
            Event::Stopping { signal, at_ns } => Some((*signal, *at_ns)),
            Event::Started { .. } => None,
        })
        .collect();
    assert_eq!(stops.len(), 1, "stop signals of {name}: {stops:?}");
    stops[0]
}

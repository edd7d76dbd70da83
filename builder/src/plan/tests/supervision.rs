//! How services of a plan are supervised: images have a word in it.

use manifest::{Health, OnUnhealthy, Probe, ReadyBy, Service};

use super::sample::{Sample, base, defaults, image};
use crate::oci::image::{Healthcheck, Process};

const SECOND: i64 = 1_000_000_000;

/// An image with a health check of its own.
fn checked(test: &[&str]) -> Process {
    let test = test.iter().map(|&word| word.to_owned()).collect();
    Process {
        healthcheck: Some(Healthcheck { test, interval: 7 * SECOND, retries: 9, ..Healthcheck::default() }),
        ..defaults()
    }
}

fn planned(keys: &str, defaults: Process) -> Service {
    Sample::of_service(keys, defaults, vec![base()]).planned().manifest.services.remove(0)
}

fn health(keys: &str, defaults: Process) -> Option<Health> {
    planned(keys, defaults).health
}

#[test]
fn an_images_health_check_is_the_default_and_each_key_replaces_a_part_of_it() {
    let of_image = health("", checked(&["CMD", "check"])).unwrap();
    assert_eq!(of_image.probe, Probe::Exec(vec!["check".into()]));
    assert_eq!((of_image.interval_ms, of_image.retries, of_image.timeout_ms), (7000, 9, 30_000));
    assert_eq!((of_image.start_period_ms, of_image.on_unhealthy), (0, OnUnhealthy::Restart));
    let keys = "healthcheck = { tcp = 80, retries = 2, on-unhealthy = \"none\" }";
    let mixed = health(keys, checked(&["CMD", "check"])).unwrap();
    assert_eq!((mixed.probe, mixed.interval_ms, mixed.retries), (Probe::Tcp(80), 7000, 2));
    assert_eq!(health("healthcheck = { disable = true }", checked(&["CMD", "check"])), None);
    assert_eq!(health("", checked(&["NONE"])), None);
    assert_eq!(health("", defaults()), None);
}

#[test]
fn a_health_that_nobody_finds_out_is_not_waited_for() {
    let refused = |keys: &str| Sample::of_service(keys, defaults(), vec![base()]).refused();
    assert!(refused("ready = \"healthy\"").contains("waits for a health check, and there is none"));
    assert!(refused("healthcheck = { interval = \"1s\" }").contains("neither it nor the image what"));
    let config = "name = \"m\"\n[service.a]\nimage = \"oci:a\"\ndepends-on = { b = \"healthy\" }\n\
                  [service.b]\nimage = \"oci:a\"\n";
    let said = Sample::new(config, vec![image("oci:a", defaults(), vec![base()])]).refused();
    assert!(said.contains("`a` waits until `b` is healthy, and `b` has no health check"), "{said}");
}

#[test]
fn a_service_that_speaks_has_the_socket_and_knows_how_often() {
    let speaking = planned("ready = \"notify\"\nwatchdog = \"30s\"", defaults());
    assert_eq!((speaking.ready.by, speaking.watchdog_ms), (ReadyBy::Notify, 30_000));
    assert_eq!(speaking.container.sockets[0].source, "/run/coracle/notify/a");
    for variable in ["NOTIFY_SOCKET=/dev/notify", "WATCHDOG_USEC=30000000"] {
        assert!(speaking.container.env.iter().any(|known| known == variable), "{variable}");
    }
    let silent = planned("", defaults());
    assert!(silent.container.sockets.is_empty());
    assert!(!silent.container.env.iter().any(|variable| variable.starts_with("NOTIFY_SOCKET")));
}

//! Every example of `configs/` is built, booted and asked from the host.

use tests::oracle::service;
use tests::{Config, Machine, assert_answers, eventually};

const HTTP: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

fn end(machine: Machine) {
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
}

#[test]
fn the_demo_answers() {
    let machine = Config::of_file("configs/demo.toml").publish(80).publish(6379).boot();
    assert_answers(machine.port(80), HTTP, "HTTP/1.1 200 OK");
    assert_answers(machine.port(6379), b"PING\r\n", "+PONG\r\n");
    end(machine);
}

#[test]
fn the_minimal_machine_serves_its_page() {
    let machine = Config::of_file("configs/minimal.toml").publish(80).boot();
    assert_answers(machine.port(80), HTTP, "hello from a machine of one file");
    end(machine);
}

#[test]
fn a_database_starts_from_layers_that_are_compressed_hard() {
    let machine = Config::of_file("configs/compressed.toml").publish(6379).boot();
    assert_answers(machine.port(6379), b"PING\r\n", "+PONG\r\n");
    end(machine);
}

#[test]
fn the_page_of_a_oneshot_is_served() {
    let machine = Config::of_file("configs/oneshot.toml").publish(80).boot();
    assert_answers(machine.port(80), HTTP, "made at boot by a oneshot (0:0) on workshop");
    end(machine);
}

#[test]
fn a_server_answers_that_has_given_up_what_it_does_not_need() {
    let machine = Config::of_file("configs/hardened.toml").publish(80).boot();
    assert_answers(machine.port(80), HTTP, "made by 0 of page");
    end(machine);
}

#[test]
fn the_graph_brings_up_a_page_from_the_database_and_ends_in_reverse() {
    let machine = Config::of_file("configs/graph.toml").publish(80).memory("1GiB").boot();
    assert_answers(machine.port(80), HTTP, "5432 - accepting connections");
    let ended = machine.power_off();
    let at = |sentence: &str| {
        ended.output.find(sentence).unwrap_or_else(|| panic!("{sentence}: {}", ended.output))
    };
    assert!(at("`page` has ended") < at("the machine powers off"), "{}", ended.output);
    assert!(at("the database still runs") < at("`web` has ended"), "{}", ended.output);
}

#[test]
fn a_log_is_shown_by_another_service() {
    const LOG: &[u8] = b"GET /clock.log HTTP/1.0\r\n\r\n";
    let machine = Config::of_file("configs/logs.toml").publish(80).boot();
    assert_answers(machine.port(80), LOG, " UTC 20");
    end(machine);
}

#[test]
fn a_keeper_restarts_the_server_and_nobody_runs_programs() {
    let machine = Config::of_file("configs/control.toml").publish(80).boot();
    assert_answers(machine.port(80), HTTP, "HTTP/1.1 200 OK");
    eventually("the server was restarted", || service(&machine, "web").starts > 1);
    let refused = machine.ctl(&["exec", "web", "true"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("exec = false"), "{said}");
    assert_answers(machine.port(80), HTTP, "HTTP/1.1 200 OK");
    end(machine);
}

#[test]
fn the_application_reaches_its_database() {
    let machine = Config::of_file("configs/app.toml").publish(3000).publish(5432).memory("1GiB").boot();
    assert_answers(machine.port(3000), HTTP, "visit 1");
    assert_answers(machine.port(3000), HTTP, "visit 2");
    // node handles no signal here, and is not the first process.
    assert!(machine.ctl(&["stop", "web"]).status().unwrap().success());
    assert!(machine.console().contains("`web` was ended by SIGTERM"), "{}", machine.console());
    end(machine);
}

//! A machine that runs no programs for others: its PID 1 is built without the code for that.

use std::fs;

use tests::{Config, Kernel, made};

use super::{WAIT, busybox, succeed};

#[test]
fn a_machine_without_exec_does_all_the_rest() {
    let machine = Config::new("closed")
        .kernel(Kernel::Second)
        // A vsock that its VMM does not have changes nothing.
        .with("[control]\nexec = false\nvsock = 1027")
        // A health check runs a program in the container all the same.
        .with(&busybox(
            "service",
            "web",
            WAIT,
            "healthcheck = { test = [\"CMD\", \"true\"], interval = \"1s\" }\nready = \"healthy\"",
        ))
        .boot();
    let refused = machine.ctl(&["exec", "web", "ls"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("this machine was built without exec (`exec = false` in `[control]`)"), "{said}");
    succeed(&mut machine.ctl(&["restart", "web"]));
    assert!(succeed(&mut machine.ctl(&["events"])).contains("`web` is asked to stop"));
    succeed(&mut machine.ctl(&["poweroff"]));
    assert_eq!(machine.wait().code, 0);
}

#[test]
fn its_pid_1_has_nothing_of_what_runs_programs() {
    let programs =
        ["init", "init-without-exec"].map(|name| fs::read(made(&format!("dist/{name}"), "dist")).unwrap());
    let has = |text: &str| {
        programs.each_ref().map(|program| program.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    // What is said of pipes, terminals, places and requests: each stands beside what it is about.
    for text in [
        "the program's input and output",
        "the program's terminal",
        "/dev/pts/ptmx",
        "programs run for others already",
        "is no variable: NAME=value",
        "bytes of input are underway",
    ] {
        assert_eq!(has(text), [true, false], "{text}");
    }
    assert_eq!(has("this machine was built without exec"), [false, true]);
    assert!(programs[1].len() < programs[0].len());
}

//! `coracle run` as its user meets it: how it ends, and what it leaves behind.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tests::{coracle, eventually, folder, root};

/// A machine of one service that sleeps, as `run` is given it.
fn config(name: &str) -> String {
    let path = folder("run").join(format!("{name}.toml"));
    let image = root().join("target/images/busybox.docker.tar");
    let text = format!(
        "name = \"{name}\"\n[kernel]\npackage = \"linux-image-cloud-amd64\"\n\
         [service.sleeper]\nimage = \"docker-archive:{}\"\ncommand = [\"sh\", \"-c\", \
         \"trap exit TERM; sleep 1000 & wait\"]\n",
        image.display()
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Starts it and waits until it is ready.
fn start(config: &str, options: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = coracle();
    command.args(["run", config]).args(options).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut console = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(console.read_line(&mut line).unwrap(), 0, "the machine ended before it was ready");
    }
    (child, console)
}

/// The process that the command has started, once there is one.
fn qemu_of(child: &Child) -> Option<String> {
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    let children = std::fs::read_to_string(path).unwrap();
    children.split_whitespace().next().map(str::to_owned)
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn assert_gone(qemu: &str) {
    eventually("QEMU has ended", || !Path::new("/proc").join(qemu).exists());
}

fn said(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn one_signal_powers_the_machine_off() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let (child, _console) = start(&config("one-signal"), &[]);
        send(&child, signal);
        let (code, text) = said(child);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("powering the machine off"), "{text}");
    }
}

#[test]
fn a_second_signal_ends_the_machine_at_once() {
    let (mut child, _console) = start(&config("two-signals"), &[]);
    let qemu = qemu_of(&child).unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    send(&child, Signal::INT);
    said.find(|line| line.contains("powering the machine off")).unwrap();
    send(&child, Signal::INT);
    let rest: Vec<String> = said.collect();
    assert_eq!(rest, ["error: the machine was ended before it had powered off"]);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_gone(&qemu);
}

#[test]
fn a_machine_ends_with_the_command_even_when_nobody_reads_any_more() {
    let (mut child, console) = start(&config("no-readers"), &[]);
    let qemu = qemu_of(&child).unwrap();
    drop(console);
    drop(child.stderr.take());
    send(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_gone(&qemu);
}

#[test]
fn a_timeout_ends_the_machine_and_fails() {
    let mut command = coracle();
    command.args(["run", &config("timeout"), "--timeout", "2s"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let mut qemu = None;
    eventually("QEMU runs", || {
        qemu = qemu_of(&child);
        qemu.is_some()
    });
    let (code, text) = said(child);
    assert_eq!(code, Some(1));
    assert!(text.contains("error: the machine still ran when its time was over\nhint: --timeout"), "{text}");
    assert_gone(&qemu.unwrap());
}

#[test]
fn too_little_memory_is_refused_before_the_boot() {
    let output = coracle().args(["run", "configs/demo.toml", "--memory", "128MiB"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("error: cannot boot in 128 MiB: the kernel unpacks an initramfs of "), "{text}");
    assert!(text.contains("hint: give it at least "), "{text}");
}

#[test]
fn a_built_folder_runs_without_its_config() {
    let output = folder("run").join("built");
    let built = coracle().args(["build", &config("built"), "-o"]).arg(&output).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let (child, _console) = start(output.to_str().unwrap(), &[]);
    send(&child, Signal::TERM);
    assert_eq!(said(child).0, Some(0));
}

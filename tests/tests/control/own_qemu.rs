//! A machine under a QEMU that somebody starts by hand, as docs/control.md shows it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use manifest::control::Answer;
use rustix::process::{Pid, Signal, kill_process_group};
use tests::{coracle, eventually, folder, root};

use crate::{WAIT, busybox, succeed};

/// From QEMU's start, or the machine's end, until it is ready.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// The shell that has started QEMU, and QEMU: they are a process group.
struct Shell(Child);

impl Drop for Shell {
    fn drop(&mut self) {
        // They have ended already, where all went well.
        let (Ok(()) | Err(_)) = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        self.0.wait().unwrap();
    }
}

fn ctl(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = coracle();
    command.current_dir(folder).args(["ctl", "--socket", "ctl.sock"]).args(arguments);
    command
}

/// Waits until the machine has come up, which takes its time beside others.
fn boots(folder: &Path) {
    let begun = Instant::now();
    while !String::from_utf8_lossy(&ctl(folder, &["status"]).output().unwrap().stdout)
        .contains("own is ready")
    {
        assert!(begun.elapsed() < BOOT_TIMEOUT, "the machine was not ready within {BOOT_TIMEOUT:?}");
    }
}

fn clock(folder: &Path) -> u64 {
    let text = succeed(&mut ctl(folder, &["status", "--json"]));
    let first = text.lines().next().unwrap();
    match serde_json::from_str(first) {
        Ok(Answer::Machine(machine)) => machine.now.monotonic_ns,
        other => panic!("{first}: {other:?}"),
    }
}

#[test]
fn a_machine_is_reached_by_the_socket_of_its_port() {
    let folder = folder("control-own");
    let config = folder.join("own.toml");
    let text = format!(
        "name = \"own\"\n[kernel]\npackage = \"linux-image-cloud-amd64\"\n{}",
        busybox("service", "web", WAIT, "")
    );
    std::fs::write(&config, text).unwrap();
    succeed(coracle().arg("build").arg(&config).arg("-o").arg(folder.join("out")));

    let document = std::fs::read_to_string(root().join("docs/control.md")).unwrap();
    let shown = document.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let (qemu, status) = shown.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(status, "coracle ctl --socket ctl.sock status");
    let script = format!("{}\nwait", qemu.replace("NAME", "own"));
    drop(std::fs::remove_file(folder.join("ctl.sock")));
    let mut shell = Command::new("sh");
    // Nothing of the test's own, which would wait for QEMU's end where something goes wrong.
    let said = || File::create(folder.join("qemu.log")).unwrap();
    shell.current_dir(&folder).args(["-c", &script]).process_group(0);
    shell.stdin(Stdio::null()).stdout(said()).stderr(said());
    let mut shell = Shell(shell.spawn().unwrap());

    eventually("QEMU listens", || folder.join("ctl.sock").exists());
    boots(&folder);
    // A client that is killed in the middle leaves the next one nothing to stumble over.
    let mut follower = ctl(&folder, &["events", "-f"]).stdout(Stdio::null()).spawn().unwrap();
    follower.kill().unwrap();
    follower.wait().unwrap();
    let before = clock(&folder);
    assert!(clock(&folder) > before);

    // QEMU goes on, and so does the socket: the machine is another one.
    succeed(&mut ctl(&folder, &["reboot"]));
    boots(&folder);
    succeed(&mut ctl(&folder, &["poweroff"]));
    assert!(shell.0.wait().unwrap().success());
}

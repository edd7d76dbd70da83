//! Services that not even SIGKILL ends, and one that stands still.

use std::time::Duration;

use manifest::control::ServiceState;
use tests::oracle::{OVERSEER, assert_sound, service, survived};
use tests::{Config, Machine, demo_image, eventually, probe_image};

/// Waits for the path of a file in a file system that never answers, and becomes the one that reads it.
const READ: &str = "until [ -s /machine/srv/path ]; do sleep 0.2; done; path=$(cat /machine/srv/path); \
                    rm /machine/srv/path; exec cat $path";

/// Lets the service read what never comes.
fn get_stuck(machine: &Machine) {
    let overseer = machine.probe("overseer");
    let hangs = service(machine, "hangs").pid.unwrap();
    overseer.write("/machine/srv/path", &format!("/proc/{hangs}/root/srv/hang/x\n")).unwrap();
    let pid = service(machine, "stuck").pid.unwrap();
    // The kernel's function for it. One who waits there is beyond reach from the first signal on.
    eventually("it waits for what never comes", || {
        overseer.read(&format!("/proc/{pid}/wchan")) == "request_wait_answer"
    });
}

#[test]
fn a_service_that_cannot_be_killed_is_told_and_left_behind() {
    let (image, busybox) = (probe_image(), demo_image("busybox"));
    let machine = Config::new("stuck-service")
        .with("[kernel]\npackage = \"linux-image-cloud-amd64\"\nmodules = [\"fuse\"]")
        .with(&format!(
            "[service.hangs]\nimage = \"{image}\"\ncommand = [\"/probe\", \"hang\", \"/srv/hang\"]\n\
             privileged = true\npid = \"host\"\nstop-grace-period = \"6s\"\n"
        ))
        .with(&format!(
            "[service.stuck]\nimage = \"{busybox}\"\ncommand = [\"sh\", \"-c\", \"{READ}\"]\nprivileged = true\n\
             pid = \"host\"\nvolumes = [\"/srv:/machine/srv\"]\nstop-grace-period = \"1s\"\ndepends-on = [\"hangs\"]\n"
        ))
        .with(&format!(
            "[service.frozen]\nimage = \"{busybox}\"\ncommand = [\"sh\", \"-c\", \"trap 'exit 0' TERM; sleep 600 & wait\"]\n\
             stop-grace-period = \"1s\"\n"
        ))
        .probe("overseer", OVERSEER)
        .boot();
    let overseer = machine.probe("overseer");
    get_stuck(&machine);
    assert!(machine.ctl(&["restart", "--no-wait", "stuck"]).status().unwrap().success());
    eventually("that it cannot be killed is told", || {
        machine.console().contains("`stuck` cannot be killed: its end is waited for")
    });
    let lingers = service(&machine, "stuck");
    assert_eq!((lingers.state, lingers.starts), (ServiceState::Stopping, 1), "two would be one too many");
    // What it waited for fails, and all that was wanted follows.
    let hangs = service(&machine, "hangs").pid.unwrap();
    overseer.ask(&probe::Request::Signal { pid: hangs, signal: 9 });
    eventually("it runs again", || service(&machine, "stuck").state == ServiceState::Ready);
    assert_eq!(service(&machine, "stuck").last.and_then(|end| end.signal), Some(9));
    eventually("the other one runs again", || service(&machine, "hangs").state == ServiceState::Ready);
    survived("a service that cannot be killed", "a read of a FUSE file system that hangs", 1);

    let freeze = "/machine/cgroup/services/frozen/cgroup.freeze";
    overseer.write(freeze, "1").unwrap();
    assert!(machine.ctl(&["restart", "--no-wait", "frozen"]).status().unwrap().success());
    eventually("it is started again", || service(&machine, "frozen").starts == 2);
    eventually("it runs, and does not stand still", || {
        service(&machine, "frozen").state == ServiceState::Ready && overseer.read(freeze) == "0\n"
    });
    survived("a frozen service", "cgroup.freeze", 1);

    assert_eq!(overseer.run(&["/probe", "exit", "7"]).code, Some(7));
    get_stuck(&machine);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(ended.stop.is_some_and(|stop| stop < Duration::from_secs(60)), "{:?}", ended.stop);
    assert!(ended.output.contains("`stuck` could not be killed"), "{}", ended.output);
    assert!(ended.output.contains("Power down"), "{}", ended.output);
    assert_sound(&ended.output);
    survived("power-off with a service that cannot be killed", "a read of a FUSE file system that hangs", 1);
}

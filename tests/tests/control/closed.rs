//! A machine that runs no programs for others.

use tests::Config;

use super::{WAIT, busybox, succeed};

#[test]
fn a_machine_without_exec_does_all_the_rest() {
    let machine = Config::new("closed")
        .with("[control]\nexec = false")
        .with(&busybox("service", "web", WAIT, ""))
        .boot();
    let refused = machine.ctl(&["exec", "web", "ls"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("this machine runs no programs for others (`exec = false` in `[control]`)"),
        "{said}"
    );
    succeed(&mut machine.ctl(&["restart", "web"]));
    assert!(succeed(&mut machine.ctl(&["events"])).contains("`web` is asked to stop"));
    succeed(&mut machine.ctl(&["poweroff"]));
    assert_eq!(machine.wait().code, 0);
}

//! What `coracle` says, to people who made a mistake and to those who did not.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Output;

use serde_json::json;
use tests::{coracle, demo_image, folder};

fn config(name: &str, text: &str) -> PathBuf {
    let path = folder("cli").join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = coracle().args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn every_problem_is_reported_at_once_with_its_place() {
    let path = config(
        "problems",
        "name = \"Shop\"\n\n[service.web]\nimage = \"oci:x:y\"\nenviroment = { A = \"1\" }\nrestart = \"sometimes\"\n",
    );
    let (code, stdout, stderr) = run(&["check", path.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    for part in ["problems.toml:1", "service.web.enviroment", "did you mean `environment`?", "`sometimes`"] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
}

#[test]
fn a_check_says_that_all_is_well_and_writes_nothing() {
    let image = demo_image("busybox");
    let path = config("checked", &format!("name = \"checked\"\n[service.a]\nimage = \"{image}\"\n"));
    let (code, stdout, stderr) = run(&["check", path.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (Some(0), "checked: no problems in 1 service\n"), "{stderr}");
    assert!(!path.with_extension("lock").exists());
}

#[test]
fn a_plan_is_json_for_programs() {
    let image = demo_image("busybox");
    let path = config("planned", &format!("name = \"planned\"\n[service.a]\nimage = \"{image}\"\n"));
    let (code, stdout, stderr) = run(&["plan", "--json", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    let plan: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(plan["manifest"]["services"][0]["name"], "a");
    let network = json!({ "service": "service.a", "key": null, "what": "shares the machine's network" });
    assert_eq!(plan["privileges"][0], network);
}

#[test]
fn privileges_that_keys_ask_for_are_listed_and_can_be_denied() {
    let image = demo_image("busybox");
    let text = |keys: &str| format!("name = \"privileged\"\n[service.a]\nimage = \"{image}\"\n{keys}\n");
    let loose = config("loose", &text("seccomp = \"unconfined\"\nvolumes = [\"/srv:/srv:ro\"]"));
    let (code, stdout, stderr) = run(&["plan", loose.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    let listed = "\nprivileges\n  service.a: shares the machine's network\n  \
                  service.a.seccomp: may make every system call\n  service.a.volumes: may read the machine's /srv\n";
    assert!(stdout.contains(listed), "{stdout}");

    let (code, _, stderr) = run(&["check", "--deny-privileges", loose.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    let hint = "\nhint: `--deny-privileges` refuses this: leave out the key, or the option\n";
    let expected = format!(
        "error: service.a.seccomp: may make every system call{hint}\
         error: service.a.volumes: may read the machine's /srv{hint}"
    );
    assert_eq!(stderr, expected);

    let strict = config("strict", &text("seccomp = \"default\""));
    let (code, stdout, stderr) = run(&["check", "--deny-privileges", strict.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (Some(0), "privileged: no problems in 1 service\n"), "{stderr}");
}

#[test]
fn a_seccomp_profile_is_read_from_a_file_and_its_mistakes_are_named() {
    let image = demo_image("busybox");
    let path = config(
        "profiled",
        &format!("name = \"profiled\"\n[service.a]\nimage = \"{image}\"\nseccomp = \"profile.json\"\n"),
    );
    let profile = path.with_file_name("profile.json");
    for (text, said) in [
        (None, "cannot read `PROFILE`: No such file or directory (os error 2)"),
        (
            Some(
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bfp"],"action":"SCMP_ACT_ERRNO"}]}"#,
            ),
            "`PROFILE`: there is no system call `bfp` (did you mean `bpf`?)",
        ),
        (
            Some(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#),
            "`PROFILE`: it does not allow `execve`, without which no program starts",
        ),
    ] {
        match text {
            Some(text) => fs::write(&profile, text).unwrap(),
            None => drop(fs::remove_file(&profile)),
        }
        let (code, _, stderr) = run(&["check", path.to_str().unwrap()]);
        assert_eq!(code, Some(1));
        let said = said.replace("PROFILE", profile.to_str().unwrap());
        assert!(stderr.contains(&said) && stderr.starts_with("error: service.a"), "{stderr}");
    }
    fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
    let (_, stdout, stderr) = run(&["plan", path.to_str().unwrap()]);
    let listed = format!("service.a.seccomp: may make the system calls that {} allows", profile.display());
    assert!(stdout.contains(&listed), "{stdout}{stderr}");
}

#[test]
fn a_machine_that_does_not_run_is_told_with_a_way_out() {
    let session = tempfile::tempdir().unwrap();
    // What a killed run leaves, of a process that cannot be there.
    let left = session.path().join("coracle/shop.4194304");
    fs::create_dir_all(&left).unwrap();
    fs::set_permissions(left.parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
    fs::write(left.join("machine.json"), r#"{"name":"shop","pid":4194304,"since":0}"#).unwrap();
    drop(UnixListener::bind(left.join("ctl")).unwrap());
    let ctl = |arguments: &[&str]| {
        let output =
            coracle().arg("ctl").args(arguments).env("XDG_RUNTIME_DIR", session.path()).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, _, said) = ctl(&["status"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        "error: no machine runs here\n\
         hint: `coracle run CONFIG` runs one; `--socket ADDRESS` leads to one under a QEMU of your own\n"
    );
    assert!(!left.exists(), "what a killed run has left is still there");
    assert_eq!(ctl(&["ls"]), (Some(0), "NAME  PID  SINCE\n".to_owned(), String::new()));
    assert_eq!(ctl(&["ls", "--json"]), (Some(0), String::new(), String::new()));
    for (arguments, code, part) in [
        (&["-m", "shop", "logs"][..], 1, "error: no machine called `shop` runs here\nhint: "),
        (&["--socket", "/nonexistent", "status"], 1, "error: cannot connect to `/nonexistent`: No such file"),
        (&["exec", "web"], 2, "<PROGRAM>"),
        (&["exec", "-e", "=x", "web", "true"], 2, "it is written NAME=VALUE"),
        (&["exec", "-w", "tmp", "web", "true"], 2, "it begins with `/`"),
        (&["restart"], 2, "<SERVICE>"),
        (&["top", "--json", "--metrics"], 2, "cannot be used with"),
    ] {
        let (got, _, said) = ctl(arguments);
        assert!(got == Some(code) && said.contains(part), "{arguments:?}: {got:?} {said}");
    }
}

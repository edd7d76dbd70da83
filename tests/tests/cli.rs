//! What `coracle` says, to people who made a mistake and to those who did not.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs;
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

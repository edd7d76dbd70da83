//! Every check in one go: what continuous integration runs.

use std::process::Command;
use std::time::Instant;

use crate::process::{Result, heading, run, seconds, step};
use crate::workspace::Workspace;
use crate::{demo, dist, fuzz, images, setup, tidy};

/// One check, by name. All of them run, whatever the others say.
struct Check {
    name: &'static str,
    perform: fn(&Workspace) -> Result<()>,
}

const CHECKS: &[Check] = &[
    Check { name: "tidy", perform: tidy::tidy },
    Check { name: "format", perform: |workspace| cargo(workspace, &["fmt", "--all", "--check"]) },
    Check { name: "clippy", perform: clippy },
    Check { name: "dependencies", perform: deny },
    Check { name: "set-up", perform: setup::setup_tests },
    Check { name: "fuzz", perform: fuzz::check },
    Check { name: "images", perform: images::images },
    Check { name: "dist", perform: dist::dist },
    Check { name: "demo", perform: |workspace| demo::demo(workspace, true) },
    Check { name: "tests", perform: |workspace| cargo(workspace, &["test", "--workspace", "--quiet"]) },
];

/// Runs all checks and prints a summary; fails when one of them does.
pub fn test(workspace: &Workspace) -> Result<()> {
    let mut failed = Vec::new();
    let mut summary = String::new();
    for Check { name, perform } in CHECKS {
        let begun = Instant::now();
        let verdict = match step(name, || perform(workspace)) {
            Ok(()) => "ok",
            Err(error) => {
                eprintln!("error: {error}");
                failed.push(*name);
                "FAILED"
            }
        };
        summary += &format!("   {name:14}{verdict:8}{:>10}\n", seconds(begun.elapsed()));
    }
    heading("summary");
    eprintln!("{summary}");
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    run(Command::new(env!("CARGO")).current_dir(&workspace.root).args(arguments))
}

/// Everything, and the init that is built without a part of it.
fn clippy(workspace: &Workspace) -> Result<()> {
    for packages in [&["--workspace"][..], &["--package", "init", "--no-default-features"]] {
        let rest = ["--all-targets", "--quiet", "--", "--deny", "warnings"];
        cargo(workspace, &[&["clippy"], packages, &rest].concat())?;
    }
    Ok(())
}

/// Licences, sources and duplicate versions, where the tool is installed: it is not part of the toolchain.
fn deny(workspace: &Workspace) -> Result<()> {
    let mut version = Command::new("cargo-deny");
    if !version.arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("   skipped: cargo-deny is not installed");
        return Ok(());
    }
    cargo(workspace, &["deny", "--offline", "check", "bans", "licenses", "sources"])
}

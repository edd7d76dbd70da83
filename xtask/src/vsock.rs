//! A vsock that takes nothing of the host's kernel: a program of rust-vmm's, which is QEMU's device and offers the machine's
//! ports as a file. The tests connect through it.

use std::process::Command;

use crate::process::{Result, run_quietly};
use crate::workspace::Workspace;

const PROGRAM: &str = "vhost-device-vsock";
const VERSION: &str = "0.3.0";

/// Builds the program, unless that has been done, as `target/vsock/bin/vhost-device-vsock`.
pub fn install(workspace: &Workspace) -> Result<()> {
    let folder = workspace.cache.join("vsock").join(VERSION);
    if !folder.join("bin").join(PROGRAM).is_file() {
        eprintln!("   building {PROGRAM}");
        let mut install = Command::new(env!("CARGO"));
        install.args(["install", PROGRAM, "--version", VERSION, "--locked", "--quiet", "--root"]);
        run_quietly(install.arg(&folder))?;
    }
    workspace.link("vsock", &folder)
}

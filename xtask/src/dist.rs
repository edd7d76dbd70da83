//! The product's programs, and those of the tests: two probes, and the OCI command.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{Result, because, run};
use crate::workspace::{Workspace, make_folder};

/// Static programs need an explicit target: without one, the flag would reach build scripts and proc-macros,
/// which cannot be static.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What makes a program static, what it relocates itself by (DT_RELR) a bitmap instead of a list of 60 KB, and the script
/// that leaves out what only unwinding reads, with the header that would lead there.
///
/// Linkers run in the workspace's root, like the commands that take this.
pub const STATIC: &str = "-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs \
                          -C link-arg=-Wl,-T,init/unwinding.ld -C link-arg=-Wl,--no-eh-frame-hdr";

/// Builds `target/dist/{coracle,init,init-without-exec}` and `target/dist-test/{hostile,oci,probe}`, and prints their sizes.
pub fn dist(workspace: &Workspace) -> Result<()> {
    cargo(workspace, &["build", "--release", "--package", "builder"], false)?;
    let built = cargo_target(workspace);
    let programs = built.join(TARGET).join("init");
    // First of those with its name, which take its place there.
    let without = ["build", "--profile", "init", "--package", "init", "--no-default-features"];
    cargo(workspace, &without, true)?;
    place(&programs.join("init"), &workspace.target("dist/init-without-exec"))?;
    cargo(workspace, &["build", "--profile", "init", "--package", "init", "--package", "probe"], true)?;
    // By itself: it asks for more of the crates that init is made of.
    cargo(workspace, &["build", "--profile", "init", "--package", "oci"], true)?;
    place(&built.join("release/coracle"), &workspace.target("dist/coracle"))?;
    place(&programs.join("init"), &workspace.target("dist/init"))?;
    place(&programs.join("probe"), &workspace.target("dist-test/probe"))?;
    place(&programs.join("hostile"), &workspace.target("dist-test/hostile"))?;
    place(&programs.join("oci"), &workspace.target("dist-test/oci"))
}

fn cargo(workspace: &Workspace, arguments: &[&str], is_static: bool) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(&workspace.root).arg(arguments[0]).arg("--quiet").args(&arguments[1..]);
    if is_static {
        command.args(["--target", TARGET]).env("RUSTFLAGS", STATIC);
    }
    run(&mut command)
}

/// Where cargo puts its output, which need not be `target/`.
pub fn cargo_target(workspace: &Workspace) -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.target(""), Into::into)
}

/// Copies a program to its place by a rename, since the old one may be running.
fn place(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    let draft = to.with_extension("draft");
    let size = fs::copy(from, &draft).map_err(because(format!("cannot copy `{}`", from.display())))?;
    fs::rename(&draft, to).map_err(because(format!("cannot rename `{}`", draft.display())))?;
    let name = to.file_name().unwrap_or(to.as_os_str()).to_string_lossy();
    eprintln!("   {name:18}{size:>9} bytes");
    Ok(())
}

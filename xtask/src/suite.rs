//! The tests of crun, from Debian's source package, which judge the OCI command: `target/suite`.
//!
//! They are fetched and never kept in this tree. What they run in containers is one C program, built here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Result, because, run_quietly};
use crate::setup::{configure_apt, update_lists};
use crate::sources::Kind;
use crate::workspace::{Workspace, make_folder, write_file};

/// Where the tests are taken from, whatever the machine's own suite is: `tests/tests/oci.rs` knows each by name.
const SUITE: &str = "bookworm";
const PACKAGE: &str = "crun";

/// What the C program asks of crun's own configuration.
const CONFIGURATION: &str = "#define HAVE_ERROR_H 1\n";

/// Fetches the tests and builds their program, unless that has been done.
pub fn fetch(workspace: &Workspace) -> Result<()> {
    let made = workspace.cache.join("suite").join(SUITE);
    if !made.is_dir() {
        eprintln!("   fetching the tests of {PACKAGE}");
        make_folder(&workspace.cache.join("suite"))?;
        // Two processes may do this at once: each in a folder of its own, and one rename wins.
        let draft = made.with_extension(format!("draft.{}", std::process::id()));
        make_folder(&draft)?;
        let result = make(workspace, &draft);
        if result.is_ok() && !made.is_dir() {
            fs::rename(&draft, &made).map_err(because(format!("cannot rename `{}`", draft.display())))?;
        } else {
            fs::remove_dir_all(&draft).map_err(because(format!("cannot remove `{}`", draft.display())))?;
        }
        result?;
    }
    workspace.link("suite", &made)
}

fn make(workspace: &Workspace, folder: &Path) -> Result<()> {
    let apt = workspace.cache.join("apt").join(format!("{SUITE}-source"));
    configure_apt(&apt, SUITE, Kind::Sources)?;
    update_lists(&apt)?;
    let mut source = Command::new("apt-get");
    source.env("APT_CONFIG", apt.join("apt.conf")).current_dir(folder);
    run_quietly(source.args(["--quiet", "source", "--download-only", PACKAGE]))?;
    let mut tar = Command::new("tar");
    tar.current_dir(folder).arg("--extract").arg("--file").arg(archive(folder)?);
    run_quietly(tar.args(["--strip-components=1", "--wildcards", "*/tests/*.py", "*/tests/init.c"]))?;
    let tests = folder.join("tests");
    write_file(&tests.join("config.h"), CONFIGURATION)?;
    let mut compile = Command::new("cc");
    compile.current_dir(&tests).args(["-static", "-O1", "-w", "-I.", "-o", "init", "init.c"]);
    run_quietly(&mut compile).map(drop)
}

/// Upstream's own archive: Debian's changes are about its build.
fn archive(folder: &Path) -> Result<PathBuf> {
    let cannot = || format!("cannot list `{}`", folder.display());
    for entry in fs::read_dir(folder).map_err(because(cannot()))? {
        let path = entry.map_err(because(cannot()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.contains(".orig.tar.") && !name.ends_with(".asc") {
            return Ok(path);
        }
    }
    Err(format!("the source of {PACKAGE} has no archive in `{}`", folder.display()))
}

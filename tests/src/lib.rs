//! Boots real machines in QEMU and asks them for facts.
//!
//! A test writes a config, boots it, and asks the probes that run as its services:
//!
//! ```no_run
//! let machine = tests::Config::new("greeting").probe("a", "hostname = \"hello\"").boot();
//! assert_eq!(machine.probe("a").identity().hostname, "hello");
//! ```
//!
//! The product's programs are run as processes, from where `cargo xtask dist` and `cargo xtask images` leave them.
//! Whatever goes wrong here ends the test with a panic that says what happened and shows the machine's console.

#![expect(clippy::unwrap_used, reason = "every failure in this crate is a test's failure")]

mod answer;
mod caller;
mod image;
mod line;
mod model;
pub mod oracle;
pub mod place;
mod slot;
mod tree;
mod vm;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use answer::assert_answers;
pub use caller::{Abi, caller};
pub use image::{Entry, Image, Layer, layout};
pub use line::Line;
pub use model::{Model, Policy, Restarts};
pub use oracle::Oracle;
pub use tree::Tree;
pub use vm::{Config, Ended, Kernel, Machine, Monitor, probe_image};

/// Something that `cargo xtask TASK` makes below `target/`.
///
/// # Panics
///
/// When it has not been made yet.
pub fn made(path: &str, task: &str) -> PathBuf {
    let full = target().join(path);
    assert!(full.exists(), "`target/{path}` is missing: run `cargo xtask {task}` first");
    full
}

/// The program under test, with its working directory in the workspace's root.
pub fn coracle() -> Command {
    let mut command = Command::new(made("dist/coracle", "dist"));
    command.current_dir(root());
    command
}

/// A reference to one of the images that `cargo xtask images` makes.
pub fn demo_image(tag: &str) -> String {
    format!("oci:{}:{tag}", made("images/demo", "images").display())
}

/// The workspace's root.
///
/// # Panics
///
/// Never: this package is a folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the workspace's root")
}

/// A folder below `target/tmp` for one test, made if it is not there.
///
/// # Panics
///
/// When it cannot be made.
pub fn folder(name: &str) -> PathBuf {
    let folder = target().join("tmp").join(name);
    std::fs::create_dir_all(&folder)
        .unwrap_or_else(|error| panic!("cannot make `{}`: {error}", folder.display()));
    folder
}

/// Writes a file that another test may be reading at this moment: it is the old one or the new one, never half.
fn replace(path: &Path, mode: u32, bytes: &[u8]) {
    if std::fs::read(path).is_ok_and(|now| now == bytes) {
        return;
    }
    let unique = format!("draft-{}-{:?}", std::process::id(), std::thread::current().id());
    let draft = target().join("tmp").join(unique);
    std::fs::write(&draft, bytes).unwrap();
    std::fs::set_permissions(&draft, Permissions::from_mode(mode)).unwrap();
    std::fs::rename(&draft, path).unwrap();
}

/// Waits until something is true.
///
/// # Panics
///
/// When it is not true after half a minute.
pub fn eventually(claim: &str, is_true: impl FnMut() -> bool) {
    within(Duration::from_secs(30), claim, is_true);
}

/// Waits until something is true that may take longer, such as a boot beside others.
///
/// # Panics
///
/// When it is not true after so long.
pub fn within(patience: Duration, claim: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < patience, "never came true: {claim}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn target() -> PathBuf {
    root().join("target")
}

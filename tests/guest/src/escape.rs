//! What has led out of containers of other runtimes, tried while containers start.

use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Often enough for the looks of a start to fall between.
const PAUSE: Duration = Duration::from_micros(200);

/// Exchanges `a` and `b` in `folder` for ever: one is a folder, the other a link to `target`. What others have made in
/// the folder is taken away, so that they make it again.
pub fn swap(folder: &str, target: &str) -> Result<Infallible, String> {
    let cannot = |error: std::io::Error| format!("cannot swap in `{folder}`: {error}");
    let [a, b] = ["a", "b"].map(|name| Path::new(folder).join(name));
    if !a.exists() {
        fs::create_dir(&a).map_err(cannot)?;
    }
    symlink(target, &b).map_err(cannot)?;
    println!("swapping");
    loop {
        renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).map_err(|error| cannot(error.into()))?;
        thread::sleep(PAUSE);
        for made in [&a, &b].iter().filter(|path| !path.is_symlink()) {
            // Busy while a container has it mounted.
            let (Ok(()) | Err(_)) = fs::remove_dir(made.join("new"));
        }
    }
}

/// Says what it sees, and ends.
pub fn witness(file: &str) -> ExitCode {
    println!("{}", if Path::new(file).exists() { "led astray" } else { "in place" });
    ExitCode::SUCCESS
}

/// Looks at the program of every process for ever, and opens it where it is init's: only such a descriptor, kept until
/// nobody runs the program any more, can be written to.
pub fn spy() -> Result<Infallible, String> {
    println!("spying");
    loop {
        let processes = fs::read_dir("/proc").map_err(|error| format!("cannot list /proc: {error}"))?;
        for process in processes.flatten() {
            let exe = process.path().join("exe");
            if fs::read_link(&exe).is_ok_and(|program| program.ends_with("init")) {
                let opened = OpenOptions::new().write(true).open(&exe).is_ok();
                println!("spy: {} is init's, opened for writing: {opened}", exe.display());
            }
        }
        thread::sleep(PAUSE);
    }
}

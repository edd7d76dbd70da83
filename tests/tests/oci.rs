//! The container code, judged from outside: `tests/oci` gives it OCI's command line, and crun's own tests run it. The
//! same tests run crun itself beside it: what fails there proves nothing. All on one machine.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

#[path = "oci/lifecycle.rs"]
mod lifecycle;
#[path = "oci/suite.rs"]
mod suite;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tests::{Config, Line, Machine, demo_image, made, root};

/// A machine with everything that is needed below /srv, and a service that sees the cgroups as PID 1 does: a service's
/// own ones cannot have further device programs below them.
fn machine() -> Machine {
    const ENTRY: &str = "mount -t cgroup2 none /sys/fs/cgroup && exec /srv/probe agent";
    let mut files = vec![
        ("probe".to_owned(), made("dist-test/probe", "dist")),
        ("oci".to_owned(), made("dist-test/oci", "dist")),
        ("suite.sh".to_owned(), root().join("tests/tests/oci/suite.sh")),
        ("suite/libmount.py".to_owned(), root().join("tests/tests/oci/libmount.py")),
    ];
    for entry in fs::read_dir(made("suite/tests", "setup")).unwrap() {
        let path = entry.unwrap().path();
        files.push((format!("suite/{}", path.file_name().unwrap().to_string_lossy()), path));
    }
    let file = |(path, source): &(String, PathBuf)| {
        format!("[[file]]\npath = \"/srv/{path}\"\nmode = 0o755\nsource = \"{}\"\n", source.display())
    };
    Config::new("oci")
        .with("[kernel]\npackage = \"linux-image-cloud-amd64\"\nmodules = [\"fuse\"]\n")
        .with(&files.iter().map(file).collect::<String>())
        .probe_in(
            &demo_image("runtimes"),
            "judge",
            &format!(
                "entrypoint = [\"nsenter\", \"--cgroup\", \"--target\", \"1\", \"sh\", \"-c\", \"{ENTRY}\"]\n\
                 volumes = [\"/srv:/srv\"]\nprivileged = true\npid = \"host\"\npids-limit = 4096\n"
            ),
        )
        .memory("1GiB")
        .timeout(suite::PATIENCE + Duration::from_secs(60))
        .boot()
}

/// What a script's end says, and all that it prints.
fn shell(line: &Line, script: &str) -> (Option<i32>, String) {
    let output = line.run(&["sh", "-c", script]);
    (output.code, output.stdout + &output.stderr)
}

#[test]
fn the_container_code_is_a_runtime_for_oci() {
    let machine = machine();
    let line = machine.probe("judge");
    if std::env::var_os("X").is_none() {
        suite::begin(line)
    };
    lifecycle::check(line);
    suite::check(line);
}

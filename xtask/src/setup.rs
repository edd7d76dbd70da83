//! What a development machine needs beside a Rust toolchain, and the apt configuration that reads the suite of
//! the second test kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::process::{Result, because, run_quietly};
use crate::sources::{Kind, rewrite_deb822, rewrite_lines};
use crate::suite;
use crate::vsock;
use crate::workspace::{Workspace, make_folder, read_file, write_file};

/// Debian packages, and what each is for.
const PACKAGES: &[(&str, &str)] = &[
    ("cpio", "reads initramfs archives in the builder's tests"),
    ("debian-archive-keyring", "verifies what mmdebstrap fetches"),
    ("erofs-utils", "checks EROFS images in the builder's tests"),
    ("mmdebstrap", "makes the demo and test images"),
    ("mount", "mounts /dev, /proc and /sys while the images are made"),
    ("qemu-system-x86", "boots machines"),
    ("skopeo", "writes image archives"),
    ("systemd", "scores the isolation of services in the tests"),
    ("tar", "reads the source of crun's tests"),
    ("uidmap", "lets mmdebstrap run as an ordinary user"),
    ("umoci", "writes image layouts"),
    ("xz-utils", "inflates the source of crun's tests"),
    ("zstd", "compresses for the benchmark"),
];

/// The suite of the second test kernel (6.12); the first is the machine's own suite.
const SECOND_SUITE: &str = "trixie";

/// How old the second suite's package lists may be before they are fetched again.
const LISTS_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A Debian package that has Docker's default seccomp profile among its sources, and where. Containers with it are what
/// services are compared with.
const DOCKER: &str = "golang-github-docker-docker-dev";
const DOCKER_PROFILE: &str = "usr/share/gocode/src/github.com/docker/docker/profiles/seccomp/default.json";

/// Installs what is missing and prepares `target/apt/apt.conf` and `target/profile/docker.json`.
pub fn setup(workspace: &Workspace) -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().map(|(package, _)| *package).filter(|package| !is_installed(package)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    second_suite(workspace)?;
    docker_profile(workspace)
}

/// The same, and what only tests need.
pub fn setup_tests(workspace: &Workspace) -> Result<()> {
    setup(workspace)?;
    suite::fetch(workspace)?;
    vsock::install(workspace)
}

/// Fetches the package and takes the one file out of it: it needs not be installed. The second suite's, so that it is
/// the same on every machine.
fn docker_profile(workspace: &Workspace) -> Result<()> {
    let folder = workspace.cache.join("profile").join(SECOND_SUITE);
    let file = folder.join("docker.json");
    if !file.is_file() {
        eprintln!("   fetching Docker's seccomp profile");
        let draft = folder.join(format!("draft.{}", std::process::id()));
        make_folder(&draft)?;
        let mut download = Command::new("apt-get");
        download.current_dir(&draft).env("APT_CONFIG", workspace.target("apt/apt.conf"));
        run_quietly(download.args(["--quiet", "download", DOCKER]))?;
        let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
        let entries = fs::read_dir(&draft).map_err(because("cannot list what apt-get fetched"))?;
        let package = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).find(is_package);
        let package = package.ok_or_else(|| format!("apt-get fetched no `{DOCKER}`"))?;
        run_quietly(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&draft))?;
        fs::rename(draft.join(DOCKER_PROFILE), &file)
            .map_err(because(format!("`{DOCKER}` has no `{DOCKER_PROFILE}`")))?;
        fs::remove_dir_all(&draft).map_err(because(format!("cannot remove `{}`", draft.display())))?;
    }
    workspace.link("profile", &folder)
}

fn is_installed(package: &str) -> bool {
    run_quietly(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// Installs through apt-get, as root or through sudo. The package lists are fetched only when that fails.
fn install(packages: &[&str]) -> Result<()> {
    let as_root = rustix::process::geteuid().is_root();
    let can_ask = as_root || Command::new("sudo").arg("--version").output().is_ok();
    if !can_ask {
        let mut sentence = "these Debian packages are missing, and only root can install them:\n".to_owned();
        for (package, purpose) in PACKAGES.iter().filter(|(package, _)| packages.contains(package)) {
            sentence += &format!("  {package:24}{purpose}\n");
        }
        return Err(format!("{sentence}hint: as root, run `apt-get install {}`", packages.join(" ")));
    }
    eprintln!("   installing {}", packages.join(" "));
    let apt_get = |arguments: &[&str]| {
        let mut command = if as_root { Command::new("env") } else { Command::new("sudo") };
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--quiet"]).args(arguments);
        command
    };
    let install = [&["install", "--no-install-recommends"], packages].concat();
    if run_quietly(&mut apt_get(&install)).is_ok() {
        return Ok(());
    }
    run_quietly(&mut apt_get(&["update"]))?;
    run_quietly(&mut apt_get(&install)).map(drop)
}

/// Writes an apt configuration of our own that knows the second suite, and fetches its package lists.
///
/// It has its own lists, cache and an empty status file: nothing of the machine's apt is changed, and no package
/// counts as installed.
fn second_suite(workspace: &Workspace) -> Result<()> {
    let folder = workspace.cache.join("apt").join(SECOND_SUITE);
    let changed = configure_apt(&folder, SECOND_SUITE, Kind::Packages)?;
    workspace.link("apt", &folder)?;
    let fetched = folder.join("fetched");
    if !changed && is_younger(&fetched, LISTS_AGE) {
        return Ok(());
    }
    eprintln!("   fetching the package lists of {SECOND_SUITE}");
    update_lists(&folder)?;
    write_file(&fetched, "")
}

/// Writes an apt configuration into `folder` that knows one suite and nothing of the machine; true when its sources
/// are others than before.
pub fn configure_apt(folder: &Path, suite: &str, kind: Kind) -> Result<bool> {
    for part in ["lists/partial", "cache/archives/partial", "sources.d"] {
        make_folder(&folder.join(part))?;
    }
    let changed = write_sources(&folder.join("sources.d"), suite, kind)?;
    write_file(&folder.join("status"), "")?;
    write_file(
        &folder.join("apt.conf"),
        &format!(
            "Dir::State::lists \"{0}/lists\";\nDir::State::status \"{0}/status\";\nDir::Cache \"{0}/cache\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{0}/sources.d\";\n",
            folder.display()
        ),
    )?;
    Ok(changed)
}

/// Fetches the lists of what a configuration's sources have.
pub fn update_lists(folder: &Path) -> Result<()> {
    let mut update = Command::new("apt-get");
    run_quietly(update.env("APT_CONFIG", folder.join("apt.conf")).args(["--quiet", "update"])).map(drop)
}

/// Writes the machine's sources, rewritten for a suite, as `debian.list` and `debian.sources`; true when they
/// differ from those that were there.
pub fn write_sources(folder: &Path, suite: &str, kind: Kind) -> Result<bool> {
    let own_suite = own_suite()?;
    let mut lines = String::new();
    let mut stanzas = String::new();
    for path in source_files()? {
        let text = read_file(&path)?;
        if path.extension().is_some_and(|extension| extension == "sources") {
            stanzas += &(rewrite_deb822(&text, &own_suite, suite, kind) + "\n");
        } else {
            lines += &rewrite_lines(&text, &own_suite, suite, kind);
        }
    }
    if lines.is_empty() && stanzas.trim().is_empty() {
        return Err(format!("apt's sources name no suite `{own_suite}` with the component `main`"));
    }
    let mut changed = false;
    for (name, text) in [("debian.list", lines), ("debian.sources", stanzas)] {
        let path = folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            continue;
        }
        write_file(&path, &text)?;
        changed = true;
    }
    Ok(changed)
}

/// The files that apt itself would read, in its order.
fn source_files() -> Result<Vec<PathBuf>> {
    let folder = Path::new("/etc/apt/sources.list.d");
    let mut files: Vec<_> = match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(format!("cannot list `{}`: {error}", folder.display())),
    };
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "list" || extension == "sources")
    });
    files.sort();
    let list = Path::new("/etc/apt/sources.list");
    if list.is_file() {
        files.insert(0, list.to_owned());
    }
    Ok(files)
}

/// The code name of the machine's Debian.
pub fn own_suite() -> Result<String> {
    let path = Path::new("/etc/os-release");
    let text = read_file(path)?;
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim_matches('"'))
    };
    match (field("ID="), field("VERSION_CODENAME=")) {
        (Some("debian"), Some(suite)) => Ok(suite.to_owned()),
        (id, suite) => Err(format!(
            "this machine is `{} {}`, and the tasks know Debian 12 and 13 only",
            id.unwrap_or("unknown"),
            suite.unwrap_or("")
        )),
    }
}

fn is_younger(path: &Path, age: Duration) -> bool {
    let modified: Result<SystemTime> =
        fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(because("stat"));
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed < age))
}

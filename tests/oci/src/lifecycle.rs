//! What the commands do with a container, from its creation to its deletion.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use init::container::{
    self, Failure, Launch, Origin, Parent, Progress, Running, Shared, Source, Started, Stdio,
};
use init::{mounts, sys};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{WaitOptions, waitpid};

use crate::config::{Config, Process};
use crate::folder::{Folder, Place};
use crate::state::{Entry, Record, Status, began};
use crate::{Result, because, relay, translate};

const CGROUPS: &str = "/sys/fs/cgroup";

/// What `create` and `run` are told.
#[derive(Debug, Default)]
pub(crate) struct Creation {
    pub(crate) bundle: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console: Console,
}

/// Who gets the other side of a terminal.
#[derive(Debug, Default)]
pub(crate) enum Console {
    /// Who listens there.
    Socket(PathBuf),
    /// This command, which carries it.
    Own,
    /// Nobody: there cannot be a terminal.
    #[default]
    Nobody,
}

/// What `exec` is told.
#[derive(Debug)]
pub(crate) struct Addition {
    pub(crate) process: Process,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console: Console,
    /// Below the container's own.
    pub(crate) cgroup: Option<String>,
    pub(crate) detach: bool,
}

/// A process that this command has started.
pub(crate) struct Child {
    pid: i32,
    /// The other side of its terminal, where this command carries it.
    terminal: Option<OwnedFd>,
}

/// Creates a container: everything is there, and its program does not run.
pub(crate) fn create(root: &Path, id: &str, creation: &Creation) -> Result<Child> {
    let text = fs::read(&creation.config)
        .map_err(because(format!("cannot read `{}`", creation.config.display())))?;
    let config: Config = serde_json::from_slice(&text).map_err(because("config.json"))?;
    let name = config.linux.cgroups_path.clone().unwrap_or_else(|| id.to_owned());
    let cgroup = Path::new(CGROUPS).join(name.trim_start_matches('/'));
    let entry = Entry::make(root, id)?;
    // Its processes and limits would be somebody else's.
    if cgroup.exists() {
        entry.remove()?;
        return Err(format!("linux.cgroupsPath: `{}` is there already", cgroup.display()));
    }
    match create_in(&entry, config, &cgroup, creation) {
        Ok(child) => Ok(child),
        Err(sentence) => {
            remove_cgroup(&cgroup)?;
            entry.remove()?;
            Err(sentence)
        }
    }
}

fn create_in(entry: &Entry, config: Config, cgroup: &Path, creation: &Creation) -> Result<Child> {
    const NONE: Option<&str> = None;
    // The container code expects what PID 1 has: mounts that nobody else sees, and a folder with nothing in it.
    unshare(CloneFlags::CLONE_NEWNS).map_err(because("cannot leave the mount namespace"))?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(because("cannot make the mounts private"))?;
    fs::create_dir_all(mounts::EMPTY).map_err(because(format!("cannot make `{}`", mounts::EMPTY)))?;

    let meaning = translate::translate(&config, &creation.bundle)?;
    make_mount_points(&meaning)?;
    let (above, name) = match (cgroup.parent(), cgroup.file_name()) {
        (Some(above), Some(name)) => (above.to_string_lossy(), name.to_string_lossy()),
        _ => return Err("linux.cgroupsPath: it leads nowhere".to_owned()),
    };
    let limits = &meaning.container.limits;
    let sentence = |error: init::Error| error.to_string();
    let parent = Parent::take(&above, limits).map_err(sentence)?;
    let mut group = parent.group(&name, limits).map_err(sentence)?;
    let launch = Launch::prepare_bundle(&meaning.container, &meaning.bundle, &mut Shared::default())
        .map_err(sentence)?;
    let origin = Origin::this().map_err(sentence)?;
    let gate = UnixListener::bind(entry.gate()).map_err(because("cannot make the gate"))?;
    let explain = |failure: &Failure| launch.explain(failure);
    let child = begin(meaning.terminal, &creation.console, explain, |stdio| {
        container::create(&launch, &mut group, stdio, &origin, &gate)
    })?;
    let record = Record {
        pid: child.pid,
        began: began(child.pid).ok_or("the container ended while it was created")?,
        bundle: creation.bundle.clone(),
        cgroup: cgroup.to_owned(),
        config,
    };
    entry.write(&record)?;
    write_pid(creation.pid_file.as_deref(), child.pid)?;
    Ok(child)
}

/// Starts a process with its standard descriptors, and waits until it runs or is created.
fn begin(
    terminal: bool,
    console: &Console,
    explain: impl Fn(&Failure) -> String,
    start: impl FnOnce(Stdio<'_>) -> init::error::Result<Started>,
) -> Result<Child> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let given = Stdio::Given { input: input.as_fd(), output: output.as_fd(), error: error.as_fd() };
    let (sending, receiving) = match (terminal, console) {
        (false, Console::Socket(_)) => return Err("--console-socket: there is no terminal".to_owned()),
        (false, _) => (None, None),
        (true, Console::Nobody) => return Err("process.terminal: use --console-socket".to_owned()),
        (true, Console::Own) => {
            let (sending, receiving) = UnixStream::pair().map_err(because("cannot make a socket"))?;
            (Some(sending), Some(receiving))
        }
        (true, Console::Socket(path)) => {
            let socket = UnixStream::connect(path);
            (Some(socket.map_err(because(format!("cannot connect to `{}`", path.display())))?), None)
        }
    };
    let stdio = sending.as_ref().map_or(given, |socket| Stdio::Terminal(socket.as_fd()));
    let mut started = start(stdio).map_err(|error| error.to_string())?;
    if let Some(failure) = outcome(&mut started.status)? {
        return Err(format!("cannot {}", explain(&failure)));
    }
    // Not earlier: it is this process's that the child takes. What was sent waits.
    drop(sending);
    let terminal = receiving.map(|socket| relay::receive(&socket)).transpose()?;
    Ok(Child { pid: started.pid.as_raw(), terminal })
}

/// Waits for what becomes of a start.
fn outcome(status: &mut container::Status) -> Result<Option<Failure>> {
    fcntl_setfl(&*status, OFlags::empty()).map_err(because("cannot wait for the start"))?;
    loop {
        match status.progress() {
            Progress::Underway => {}
            Progress::Executed => return Ok(None),
            Progress::Failed(failure) => return Ok(Some(failure)),
        }
    }
}

/// The places that the container code mounts on are there before it begins.
fn make_mount_points(meaning: &translate::Meaning) -> Result<()> {
    let root = Folder::open(Path::new(&meaning.bundle.folder))?;
    let mut covered = vec!["/proc", "/sys", "/dev"];
    for standard in &covered {
        root.make(standard, Place::Folder)?;
    }
    for mount in &meaning.bundle.mounts {
        let target = mount.target.as_str();
        if !covered.iter().any(|above| Path::new(target).starts_with(above)) {
            let is_file = matches!(&mount.source, Source::Place { path, .. } if !Path::new(path).is_dir());
            root.make(target, if is_file { Place::File } else { Place::Folder })?;
        }
        covered.push(target);
    }
    root.make(&meaning.container.cwd, Place::Folder)
}

fn write_pid(file: Option<&Path>, pid: i32) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    fs::write(file, pid.to_string()).map_err(because(format!("cannot write `{}`", file.display())))
}

/// Lets a created container's program run.
pub(crate) fn start(root: &Path, id: &str) -> Result<()> {
    let entry = Entry::find(root, id)?;
    let record = entry.read()?;
    let status = entry.status(&record);
    if status != Status::Created {
        return Err(format!(
            "container `{id}` is {}, and only a created one can be started",
            status.as_str()
        ));
    }
    let gate = UnixStream::connect(entry.gate()).map_err(because("cannot reach the container's process"))?;
    let failure = outcome(&mut OwnedFd::from(gate).into())?;
    fs::remove_file(entry.gate()).map_err(because("cannot remove the gate"))?;
    let Some(failure) = failure else { return Ok(()) };
    let container = translate::translate(&record.config, &record.bundle)?.container;
    let process =
        container::Process::prepare(&container, &mut Shared::default()).map_err(|error| error.to_string())?;
    Err(format!("cannot {}", process.explain(&failure)))
}

/// Carries the terminal of a process, if it has one here, and waits for its end. Returns its exit code, as a shell
/// would say it.
pub(crate) fn wait(child: Child) -> Result<i32> {
    child.terminal.map_or(Ok(()), relay::carry)?;
    let pid = rustix::process::Pid::from_raw(child.pid);
    let ended = waitpid(pid, WaitOptions::empty()).map_err(because("cannot wait for the container"))?;
    let (_, status) = ended.ok_or("the container's process is gone")?;
    Ok(status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(1))
}

/// Sends a signal to the first process, or to all.
pub(crate) fn kill(root: &Path, id: &str, signal: i32, all: bool) -> Result<()> {
    let entry = Entry::find(root, id)?;
    let record = entry.read()?;
    if entry.status(&record) == Status::Stopped {
        return Err(format!("container `{id}` is not running"));
    }
    let mut pids = vec![record.pid];
    if all {
        let listed = fs::read_to_string(record.cgroup.join("cgroup.procs"));
        let listed = listed.map_err(because("cannot list the container's processes"))?;
        pids = listed.lines().filter_map(|line| line.parse().ok()).collect();
    }
    pids.into_iter().try_for_each(|pid| {
        sys::send_signal(Pid::from_raw(pid), signal).map_err(because(format!("cannot signal process {pid}")))
    })
}

/// Takes a container away: one that has ended, or with `force` any.
pub(crate) fn delete(root: &Path, id: &str, force: bool) -> Result<()> {
    let entry = match Entry::find(root, id) {
        Err(_) if force => return Ok(()),
        entry => entry?,
    };
    let record = entry.read()?;
    // Like crun and runc, and unlike the specification: nothing of a created one has run.
    if entry.status(&record) == Status::Running && !force {
        return Err(format!("container `{id}` is running: kill it first, or delete it with --force"));
    }
    remove_cgroup(&record.cgroup)?;
    entry.remove()
}

/// Ends every process in a cgroup, and removes it with all that are below it.
fn remove_cgroup(cgroup: &Path) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(20);
    if !cgroup.is_dir() {
        return Ok(());
    }
    let failed = |error| format!("cannot remove the cgroup `{}`: {error}", cgroup.display());
    fs::write(cgroup.join("cgroup.kill"), "1").map_err(failed)?;
    let begun = Instant::now();
    loop {
        match remove_all(cgroup) {
            // EBUSY: what was killed has not ended yet.
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(2));
            }
            removed => return removed.map_err(failed),
        }
    }
}

fn remove_all(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// Runs a further process in a container; returns its exit code, 0 when it is not waited for.
pub(crate) fn exec(root: &Path, id: &str, addition: &Addition) -> Result<i32> {
    let entry = Entry::find(root, id)?;
    let record = entry.read()?;
    if entry.status(&record) == Status::Stopped {
        return Err(format!("container `{id}` is not running"));
    }
    let meaning = translate::translate(&record.config, &record.bundle)?;
    let folder = Folder::open(Path::new(&meaning.bundle.folder))?;
    let container = translate::with_process(meaning.container, &addition.process, &folder)?;
    let below = addition.cgroup.as_deref().unwrap_or_default();
    let cgroup = record.cgroup.join(below.trim_start_matches('/'));
    let sentence = |error: init::Error| error.to_string();
    let running = Running::find(&container, &meaning.bundle.ids, Pid::from_raw(record.pid), &cgroup);
    let running = running.map_err(sentence)?;
    let process = container::Process::prepare(&container, &mut Shared::default()).map_err(sentence)?;
    drop(entry);
    let explain = |failure: &Failure| process.explain(failure);
    let child = begin(addition.process.terminal, &addition.console, explain, |stdio| {
        container::enter(&running, &process, stdio)
    })?;
    write_pid(addition.pid_file.as_deref(), child.pid)?;
    if addition.detach { Ok(0) } else { wait(child) }
}

/// The process that the container's config names, for those who change parts of it.
pub(crate) fn process_of(root: &Path, id: &str) -> Result<Process> {
    let record = Entry::find(root, id)?.read()?;
    record.config.process.ok_or_else(|| "process: it is missing".to_owned())
}

/// What `state` prints.
pub(crate) fn state(root: &Path, id: &str) -> Result<String> {
    let entry = Entry::find(root, id)?;
    Ok(format!("{:#}", entry.document(&entry.read()?)))
}

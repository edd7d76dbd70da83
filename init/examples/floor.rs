//! The floor of the benchmark: the least that a PID 1 can do to run programs in containers.
//!
//! It takes the same boot manifest as init, loads the same modules and mounts the same layers; then it clones each
//! program into the same namespaces and a cgroup with the same limits, on an overlay root whose owners are mapped, with
//! the kinds of file systems that belong to these namespaces and the same seccomp filter. It does nothing else: no masks,
//! no devices, no descriptors, no resource limits, no capabilities, no log, no supervision. What init needs beyond it is
//! the price of those.
//!
//! A program with `FLOOR=bare` in its environment gets none of the file systems either.

#![no_main]

use std::convert::Infallible;
use std::ffi::{CString, c_int};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::thread::sleep;
use std::time::Duration;

use init::clock::{self, nanoseconds};
use init::container::{Filter, Group, Parent};
use init::error::{Error, Result, errno};
use init::log::Console;
use init::sys::{self, Strings};
use init::{boot, fatal, layers, modules, mounts, report};
use manifest::report::Report;
use manifest::{Container, IDS_PER_CONTAINER, Ids, Kind, Manifest, Seccomp};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::wait::{wait, waitpid};
use nix::unistd::{Gid, Uid, chdir, chown, mkdir, pipe2, pivot_root, setresgid, setresuid, write};
use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::{WaitId, WaitIdOptions, waitid};

init::entry!(first_process);

fn first_process() -> c_int {
    match run() {
        Ok(never) => match never {},
        Err(error) => fatal::reboot_because(&error),
    }
}

fn run() -> Result<Infallible> {
    let began = clock::now();
    mounts::leave_rootfs()?;
    mounts::early()?;
    let mut console = Console::open();
    let manifest = boot::read_manifest()?;
    boot::tune(&manifest, &mut console);
    modules::load(&manifest.modules, &mut console);
    layers::mount_all(&manifest.layers)?;
    // The setting of init's that makes a filter dearer: the same filter costs the same on both sides.
    let harden = "/proc/sys/net/core/bpf_jit_harden";
    fs::write(harden, "2").map_err(|error| Error::io("write", harden, &error))?;
    let programs = programs(&manifest)?;

    let (first_start, ready) = start(&programs)?;
    report::send(&Report::Ready {
        init_ns: nanoseconds(began),
        first_start_ns: nanoseconds(first_start),
        ready_ns: nanoseconds(ready),
    })?;
    tell_memory(&mut console)?;
    loop {
        if wait().is_err() {
            nix::unistd::pause();
        }
    }
}

/// Says how much memory is available once everything has come to rest, with the free pages that each processor keeps for
/// itself, as the benchmark's reading service does.
fn tell_memory(console: &mut Console) -> Result<()> {
    const PAGE_KIB: u64 = 4;
    let read = |path: &'static str| fs::read_to_string(path).map_err(|error| Error::io("read", path, &error));
    let sum = |text: &str, name: &str| -> u64 {
        let values = text.lines().filter_map(|line| line.trim_start().strip_prefix(name));
        values.filter_map(|value| value.split_whitespace().next()?.parse::<u64>().ok()).sum()
    };
    sleep(Duration::from_secs(2));
    let caches = "/proc/sys/vm/drop_caches";
    fs::write(caches, "3").map_err(|error| Error::io("write", caches, &error))?;
    sleep(Duration::from_secs(1));
    let kept = PAGE_KIB * sum(&read("/proc/zoneinfo")?, "count:");
    let available = sum(&read("/proc/meminfo")?, "MemAvailable:") + kept;
    console.say(format_args!("AVAILABLE={available}"));
    console.say(format_args!("MEASURED=1"));
    Ok(())
}

/// What it takes to start a program.
struct Program {
    is_oneshot: bool,
    is_bare: bool,
    /// Made in advance, as init's are.
    group: Group,
    users: File,
    /// User and group 0 of these, as the machine knows them.
    root: (Uid, Gid),
    layers: Vec<CString>,
    options: CString,
    path: CString,
    arguments: Strings,
    environment: Strings,
    filter: Option<Rc<Filter>>,
}

fn programs(manifest: &Manifest) -> Result<Vec<Program>> {
    let parent = Parent::make(manifest.services.iter().map(|service| &service.container), 0)?;
    let filters = Filter::prepare_all(&manifest.seccomp);
    let prepare = |service: &manifest::Service| {
        let Container { layers, argv, env, limits, ids, seccomp, .. } = &service.container;
        let text = |text: &String| {
            CString::new(text.as_str()).map_err(|_| Error::new("use", text.clone(), Errno::EINVAL))
        };
        let layers: Vec<String> = layers.iter().map(usize::to_string).collect();
        let options = format!("lowerdir={},upperdir=../stage/u,workdir=../stage/w", layers.join(":"));
        let arguments = argv.iter().map(text).collect::<Result<Vec<CString>>>()?;
        let first = first(*ids)?;
        Ok(Program {
            is_bare: env.iter().any(|variable| variable == "FLOOR=bare"),
            is_oneshot: service.kind != Kind::Service,
            group: parent.group(service.name.as_str(), limits)?,
            users: users(first)?,
            root: (Uid::from_raw(first), Gid::from_raw(first)),
            layers: layers.iter().map(text).collect::<Result<_>>()?,
            options: text(&options)?,
            path: arguments.first().cloned().unwrap_or_default(),
            arguments: Strings::new(&arguments),
            environment: Strings::new(&[]),
            filter: match seccomp {
                Seccomp::Program(index) => filters.get(*index).cloned(),
                Seccomp::Unconfined => None,
            },
        })
    };
    manifest.services.iter().map(prepare).collect()
}

/// The first of the ids that a container has for itself.
fn first(ids: Ids) -> Result<u32> {
    match ids {
        Ids::Own { first } => Ok(first),
        Ids::Machine => Err(Error::said("use", "the machine's ids", "init has others")),
    }
}

/// A user namespace with the ids from `first` on, made as init makes those of its containers.
fn users(first: u32) -> Result<File> {
    let failed = |errno| Error::new("make", "a user namespace", errno);
    let pid = sys::clone_into(None, libc::CLONE_NEWUSER, || 0).map_err(failed)?;
    let zombie = rustix::process::Pid::from_raw(pid.as_raw()).ok_or_else(|| failed(Errno::ESRCH))?;
    waitid(WaitId::Pid(zombie), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        .map_err(|error| failed(errno(error)))?;
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, format!("0 {first} {IDS_PER_CONTAINER}"))
            .map_err(|error| Error::io("write", path, &error))?;
    }
    let users =
        File::open(format!("/proc/{pid}/ns/user")).map_err(|error| Error::io("open", "/proc", &error))?;
    waitpid(pid, None).map_err(failed)?;
    Ok(users)
}

/// Runs the oneshots one after the other, and starts the rest. Returns when the first one was cloned, and when all of
/// them were executed: then nobody has the pipe any more, which exec closes.
fn start(programs: &[Program]) -> Result<(Duration, Duration)> {
    let failed = |errno| Error::new("clone", "a program", errno);
    let (status, report) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let first_start = clock::now();
    for program in programs {
        let pid = clone(program, &report).map_err(failed)?;
        if program.is_oneshot {
            waitpid(pid, None).map_err(failed)?;
        }
    }
    drop(report);
    let mut reason = [0];
    let told = File::from(status).read(&mut reason);
    match told.map_err(|error| Error::io("wait for", "the programs", &error))? {
        0 => Ok((first_start, clock::now())),
        // Or the floor would be that of programs that do not run.
        _ => Err(Error::new("run", "a program", Errno::from_raw(reason[0].into()))),
    }
}

/// Runs the program, or says in `report` why that cannot be.
fn clone(program: &Program, report: &OwnedFd) -> nix::Result<nix::unistd::Pid> {
    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    sys::clone_into(Some(program.group.as_fd()), namespaces, || {
        let (arguments, environment) = (program.arguments.pointers(), program.environment.pointers());
        let errno = match enter(program) {
            Ok(()) => sys::execute(&program.path, &arguments, &environment),
            Err(errno) => errno,
        };
        let code = errno as c_int;
        // Every errno fits into a byte.
        write(report, &code.to_le_bytes()[..1]).map_or(code, |_| code)
    })
}

/// What a container's namespaces show of themselves, and where it can write: kind, place, options.
const STANDARD: [(&str, &str, Option<&str>); 6] = [
    ("proc", "proc", Some("hidepid=invisible")),
    ("sysfs", "sys", None),
    ("tmpfs", "dev", Some("mode=0755")),
    ("devpts", "dev/pts", None),
    ("tmpfs", "dev/shm", None),
    ("mqueue", "dev/mqueue", None),
];

fn enter(program: &Program) -> nix::Result<()> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    chdir(mounts::STAGE)?;
    mount(Some("tmpfs"), ".", Some("tmpfs"), MsFlags::empty(), NONE)?;
    chdir(mounts::STAGE)?;
    for folder in ["u", "w", "r"] {
        mkdir(folder, Mode::S_IRWXU)?;
    }
    // The owner of the upper is that of `/`: nobody else could enter it, whatever he may do in his namespace.
    chown("u", Some(program.root.0), Some(program.root.1))?;
    chdir(layers::MOUNTED)?;
    for layer in &program.layers {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree: OwnedFd = open_tree(CWD, layer, flags).map_err(errno)?;
        sys::map_mount_owners(tree.as_fd(), program.users.as_fd())?;
        move_mount(&tree, c"", CWD, layer, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(errno)?;
    }
    mount(
        Some("overlay"),
        "../stage/r",
        Some("overlay"),
        MsFlags::empty(),
        Some(program.options.as_c_str()),
    )?;
    chdir("../stage/r")?;
    if !program.is_bare {
        for (kind, target, options) in STANDARD {
            mount(Some(kind), target, Some(kind), MsFlags::empty(), options)?;
            if target == "dev" {
                for folder in ["dev/pts", "dev/shm", "dev/mqueue"] {
                    mkdir(folder, Mode::S_IRWXU)?;
                }
            }
        }
    }
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    setns(&program.users, CloneFlags::CLONE_NEWUSER)?;
    setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0))?;
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0))?;
    prctl::set_no_new_privs()?;
    program.filter.as_ref().map_or(Ok(()), |filter| filter.install())
}

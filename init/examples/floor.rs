//! The floor of the benchmark: the least that a PID 1 can do to run one program in a container.
//!
//! It takes the same boot manifest as init, loads the same modules and mounts the same layers; then it clones
//! the first service's program into its namespaces, on an overlay root, with its seccomp filter, and does nothing
//! else: no standard mounts, no cgroup, no user, no limits, no capabilities, no supervision. What init needs beyond it is the
//! price of those.

#![no_main]

use std::convert::Infallible;
use std::ffi::{CString, c_int};
use std::fs;

use init::container::Filter;
use init::error::{Error, Result};
use init::log::Console;
use init::sys::{self, Strings};
use init::{boot, clock, fatal, layers, modules, mounts};
use manifest::Seccomp;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::wait::wait;
use nix::unistd::{chdir, mkdir, pivot_root};
use nix::{errno::Errno, sys::stat::Mode};

init::entry!(first_process);

fn first_process() -> c_int {
    match run() {
        Ok(never) => match never {},
        Err(error) => fatal::reboot_because(&error),
    }
}

fn run() -> Result<Infallible> {
    let began = clock::nanoseconds(clock::now());
    mounts::leave_rootfs()?;
    mounts::early()?;
    let mut console = Console::open();
    let manifest = boot::read_manifest()?;
    modules::load(&manifest.modules, &mut console);
    layers::mount_all(&manifest.layers)?;
    // The setting of init's that makes a filter dearer: the same filter costs the same on both sides.
    let harden = "/proc/sys/net/core/bpf_jit_harden";
    fs::write(harden, "2").map_err(|error| Error::io("write", harden, &error))?;
    let filters = Filter::prepare_all(&manifest.seccomp);
    let container = match manifest.services.first() {
        Some(service) => &service.container,
        None => return Err(Error::said("start", "the first service", "there is none")),
    };
    let text = |text: &String| CString::new(text.as_str()).unwrap_or_default();
    let names: Vec<String> = container.layers.iter().map(usize::to_string).collect();
    let options =
        CString::new(format!("lowerdir={},upperdir=../stage/u,workdir=../stage/w", names.join(":")));
    let options = options.map_err(|_| Error::new("name", "the layers", Errno::EINVAL))?;
    let arguments: Vec<CString> = container.argv.iter().map(text).collect();
    let program = arguments.first().cloned().unwrap_or_default();
    let arguments = Strings::new(arguments);
    // What the program says of its first moment is worth something only beside these two.
    let cloned = clock::nanoseconds(clock::now());
    let moments = [format!("INIT_NS={began}"), format!("CLONE_NS={cloned}")];
    let environment = Strings::new(moments.iter().map(text).collect());

    let filter = match container.seccomp {
        Seccomp::Program(index) => filters.get(index),
        Seccomp::Unconfined => None,
    };
    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let confine = || filter.map_or(Ok(()), |filter| filter.install());
    sys::clone_into(None, namespaces, || match enter(&options).and_then(|()| confine()) {
        Ok(()) => sys::execute(&program, &arguments, &environment) as c_int,
        Err(errno) => errno as c_int,
    })
    .map_err(|errno| Error::new("clone", "the program", errno))?;
    loop {
        if wait().is_err() {
            nix::unistd::pause();
        }
    }
}

fn enter(options: &CString) -> nix::Result<()> {
    const NONE: Option<&str> = None;
    chdir("/run/coracle/stage")?;
    mount(Some("tmpfs"), ".", Some("tmpfs"), MsFlags::empty(), NONE)?;
    chdir("/run/coracle/stage")?;
    for folder in ["u", "w", "r"] {
        mkdir(folder, Mode::S_IRWXU)?;
    }
    chdir(layers::MOUNTED)?;
    mount(Some("overlay"), "../stage/r", Some("overlay"), MsFlags::empty(), Some(options.as_c_str()))?;
    chdir("../stage/r")?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)
}

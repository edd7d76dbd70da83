//! PID 1 of a Coracle machine: the boot, from the first instruction to the supervisor's loop.

#![no_main]

use std::convert::Infallible;
use std::ffi::c_int;

use init::log::{Console, files};
use init::net::Network;
use init::supervisor::{Supervisor, Times};
use init::watchdog::Watchdog;
use init::{boot, clock, container, error, fatal, layers, modules, mounts, post_mortem, sys, sysctl};
use nix::unistd::getpid;

init::entry!(first_process);

fn first_process() -> c_int {
    let arguments: Vec<String> = std::env::args().collect();
    // Also a first process, but a container's.
    if let Some(code) = container::init::serve(&arguments) {
        return code;
    }
    if getpid().as_raw() != 1 {
        if let Some(code) = files::serve(&arguments) {
            return code;
        }
        eprintln!("error: init is the first process of a Coracle machine, and of nothing else");
        return 2;
    }
    fatal::catch_panics();
    match run() {
        Ok(never) => match never {},
        Err(error) => fatal::reboot_because(&error),
    }
}

fn run() -> error::Result<Infallible> {
    let times = Times::from(clock::now());
    boot::block_signals()?;
    mounts::leave_rootfs()?;
    mounts::early()?;
    mounts::seal()?;
    let mut console = Console::open();
    let manifest = boot::read_manifest()?;
    boot::tune(&manifest, &mut console);
    modules::load(&manifest.modules, &mut console);
    sysctl::apply(&mut console);
    let watchdog = Watchdog::arm(manifest.watchdog, &mut console);
    let previous = post_mortem::read(&mut console);
    layers::mount_all(&manifest.layers)?;
    let network = Network::begin(&manifest, &mut console)?;
    let supervisor = Supervisor::new(&manifest, network, console, times, previous, watchdog)?;
    drop(manifest);
    sys::give_back_memory();

    // From here on nothing may end the process.
    supervisor.run()
}

//! A terminal of the test's own, in which `coracle ctl` runs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use tests::eventually;

/// A program in a terminal.
pub struct Terminal {
    master: OwnedFd,
    /// The program's side, kept so that its modes can be looked at when the program has ended.
    slave: File,
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts a program in a terminal of this size.
    pub fn run(mut command: Command, rows: u16, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = OsStr::from_bytes(name.as_bytes());
        let slave = File::options().read(true).write(true).open(path).unwrap();
        set_size(&master, rows, columns);
        let side = || slave.try_clone().unwrap();
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut output, all) = (File::from(master.try_clone().unwrap()), Arc::clone(&shown));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match output.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => all.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length])),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The other side is closed.
                    Err(_) => return,
                }
            }
        });
        Self { master, slave, child, shown }
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        File::from(self.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// Makes it larger or smaller, as a window is: whoever has it for its controlling terminal is told by the kernel,
    /// and the program here, which has not, by the test.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
        self.send(Signal::WINCH);
    }

    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until something is shown.
    pub fn expect(&self, text: &str) {
        eventually(&format!("{text:?} is shown"), || self.shown().contains(text));
    }

    pub fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Its modes, in a form that can be compared.
    pub fn modes(&self) -> String {
        let Termios { input_modes, output_modes, control_modes, local_modes, .. } =
            tcgetattr(&self.slave).unwrap();
        format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?}")
    }

    /// Waits for the program's end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program in the terminal has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

fn set_size(master: &OwnedFd, rows: u16, columns: u16) {
    tcsetwinsize(master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

//! In place of the programs that clients run in containers: there are none, and nothing here could run one.

use std::convert::Infallible;

use manifest::control::{self, Ask};
use nix::sys::epoll::Epoll;
use nix::unistd::Pid;
use supervision::{Outcome, Run};

use super::session::Next;
use crate::supervisor::supervised::Supervised;

/// The place of a program, of which there is none.
pub type Slot = Infallible;

/// No programs.
#[derive(Default)]
pub struct Programs;

impl Programs {
    /// Whatever the boot manifest allows.
    pub fn new(_: manifest::Control) -> Self {
        Self
    }

    /// Says why there is none.
    pub fn begin(&mut self, _: &control::Exec, _: (&Supervised, &Run), _: &Epoll) -> Result<Slot, String> {
        Err("this machine was built without exec (`exec = false` in `[control]`)".to_owned())
    }

    /// Of no program.
    pub fn tell(&mut self, slot: Slot, _: Ask) -> Result<(), String> {
        match slot {}
    }

    /// Of no program.
    pub fn next(&mut self, slot: Slot, _: &Epoll) -> Next {
        match slot {}
    }

    /// Of no program.
    pub fn cancel(&mut self, slot: Slot, _: &Epoll) {
        match slot {}
    }

    /// No process is one of these.
    pub fn reaped(&mut self, _: Pid, _: Outcome) -> bool {
        false
    }
}

//! The programs that clients run in containers. A machine whose config says `exec = false` is built without all this:
//! `no_exec` stands in its place.

mod program;

use manifest::control::{self, Answer, Ask};
use nix::sys::epoll::Epoll;
use nix::unistd::Pid;
use supervision::{Outcome, Run, Stage};

use super::session::Next;
use crate::supervisor::supervised::Supervised;
use program::Program;

/// How many programs clients may run at a time.
const PROGRAMS: usize = 32;

/// The place of a program.
pub type Slot = usize;

/// Those that run, and those that have ended and whose clients do not know it yet.
#[derive(Default)]
pub struct Programs {
    /// Whether there can be any.
    are_allowed: bool,
    slots: Vec<Option<Program>>,
}

impl Programs {
    /// None.
    pub fn new(allowed: manifest::Control) -> Self {
        Self { are_allowed: allowed.exec, slots: Vec::new() }
    }

    /// Runs a program in a service's container, or says why not.
    pub fn begin(
        &mut self,
        request: &control::Exec,
        (service, run): (&Supervised, &Run),
        epoll: &Epoll,
    ) -> Result<Slot, String> {
        if !self.are_allowed {
            return Err("this machine runs no programs for others (`exec = false` in `[control]`)".to_owned());
        }
        check(request)?;
        let Run::Running(life) = run else { return Err(format!("`{}` does not run", service.name)) };
        if life.stage <= Stage::Cloned {
            return Err(format!("`{}` does not run", service.name));
        }
        let first = Pid::from_raw(life.pid.0);
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot >= PROGRAMS {
            return Err(format!("{PROGRAMS} programs run for others already: end one first"));
        }
        let program = Program::begin(request, service, first, (epoll, slot));
        let program = program.map_err(|error| error.to_string())?;
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(program);
        }
        Ok(slot)
    }

    /// Hands on what a client has for its program. After an error nobody wants it any more.
    pub fn tell(&mut self, slot: Slot, ask: Ask) -> Result<(), String> {
        let Some(Some(program)) = self.slots.get_mut(slot) else { return Ok(()) };
        match ask {
            Ask::Input { data } => return program.push(&data),
            Ask::InputEnd => program.end_input(),
            Ask::Resize(size) => program.resize(size),
            Ask::Signal { number } => program.signal(number),
            _ => {}
        }
        Ok(())
    }

    /// The next thing to say to a program's client.
    pub fn next(&mut self, slot: Slot, epoll: &Epoll) -> Next {
        let Some(place) = self.slots.get_mut(slot) else { return Next::End(Answer::Done) };
        let Some(program) = place else { return Next::End(Answer::Done) };
        match program.next(epoll, slot) {
            None => Next::Nothing,
            Some(last @ (Answer::Exit { .. } | Answer::Error { .. })) => {
                *place = None;
                Next::End(last)
            }
            Some(answer) => Next::Part(answer),
        }
    }

    /// Kills a program that nobody listens to any more.
    pub fn cancel(&mut self, slot: Slot, epoll: &Epoll) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        let Some(program) = place else { return };
        program.abandon(epoll);
        if program.has_ended() {
            *place = None;
        }
    }

    /// Takes note of the end of a process. Says whether it was one of these.
    pub fn reaped(&mut self, pid: Pid, outcome: Outcome) -> bool {
        let is_it = |place: &&mut Option<Program>| place.as_ref().is_some_and(|program| program.pid() == pid);
        let Some(place) = self.slots.iter_mut().find(is_it) else { return false };
        if place.as_mut().is_some_and(|program| program.ended(outcome)) {
            *place = None;
        }
        true
    }
}

/// Whether a request can be one.
fn check(request: &control::Exec) -> Result<(), String> {
    if request.argv.is_empty() {
        return Err("it names no program".to_owned());
    }
    if let Some(odd) =
        request.env.iter().find(|variable| !variable.contains('=') || variable.starts_with('='))
    {
        return Err(format!("`{odd}` is no variable: NAME=value"));
    }
    if let Some(cwd) = request.cwd.as_deref().filter(|cwd| !cwd.starts_with('/')) {
        return Err(format!("the working directory `{cwd}` is not absolute"));
    }
    Ok(())
}

//! What the child of a start tells of it, through a pipe.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read};

use super::failure::{Failure, Step};

/// A child's word that it has what it needs of its parent's descriptors. No record of a [`Failure`] begins with it.
pub(super) const TAKEN: u8 = u8::MAX;

/// How far a start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The child is still at it.
    Underway,
    /// The program runs, or the child was killed before it did.
    Executed,
    /// The child gave up, and ends with [`Failure::exit_code`].
    Failed(Failure),
}

/// The pipe on which a child tells how far it has come. Reading does not block.
pub struct Status {
    pipe: OwnedFd,
    /// What is open until the child has taken it. As long as the pipe's other end is among it, the pipe has no end.
    lent: Vec<OwnedFd>,
}

impl Status {
    /// The pipe, and its other end.
    pub(super) fn pipe() -> nix::Result<(Self, OwnedFd)> {
        let (pipe, report) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self { pipe, lent: Vec::new() }, report))
    }

    /// The same for a child that takes over `lent`.
    pub(super) fn lending(self, lent: Vec<OwnedFd>) -> Self {
        Self { lent, ..self }
    }

    /// Reads what the child has to say.
    pub fn progress(&mut self) -> Progress {
        let mut said = [0; 1 + Failure::SIZE];
        let length = match read(&self.pipe, &mut said) {
            Ok(0) => return Progress::Executed,
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Progress::Underway,
            Err(errno) => return Progress::Failed(Failure::new(Step::Report, 0, errno)),
        };
        let said = said.get(..length).unwrap_or_default();
        let record = said.strip_prefix(&[TAKEN]).unwrap_or(said);
        if record.is_empty() {
            self.let_go();
            return self.progress();
        }
        // What is written in one piece is read in one.
        Progress::Failed(record.try_into().map_or(Failure::new(Step::Report, 0, Errno::EIO), Failure::decode))
    }

    /// The child takes nothing any more: it has what it needs, or it is dead.
    pub fn let_go(&mut self) {
        self.lent = Vec::new();
    }
}

impl From<OwnedFd> for Status {
    /// What a child that waits at a gate tells of the rest to whoever has come.
    fn from(pipe: OwnedFd) -> Self {
        Self { pipe, lent: Vec::new() }
    }
}

impl AsFd for Status {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::write;

    use super::*;

    #[test]
    fn a_child_tells_that_it_has_its_descriptors_and_how_it_ends() {
        let failure = Failure::new(Step::Execute, 3, Errno::ENOENT);
        let lending = || {
            let (status, report) = Status::pipe().unwrap();
            let its = report.try_clone().unwrap();
            (status.lending(vec![report]), its)
        };
        let (mut status, report) = lending();
        assert_eq!(status.progress(), Progress::Underway);
        write(&report, &[TAKEN]).unwrap();
        assert_eq!(status.progress(), Progress::Underway);
        assert!(status.lent.is_empty());
        drop(report);
        assert_eq!(status.progress(), Progress::Executed);

        let (mut status, report) = lending();
        write(&report, &[TAKEN]).unwrap();
        write(&report, &failure.encode()).unwrap();
        assert_eq!(status.progress(), Progress::Failed(failure));

        let (mut status, report) = lending();
        drop(report);
        assert_eq!(status.progress(), Progress::Underway, "nobody has said that it is dead");
        status.let_go();
        assert_eq!(status.progress(), Progress::Executed);
    }

    #[test]
    fn no_failure_begins_with_the_word() {
        for step in Step::ALL {
            assert_ne!(Failure::new(step, usize::MAX, Errno::ENOENT).encode()[0], TAKEN);
        }
    }
}

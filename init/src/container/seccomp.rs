//! Which system calls a container has: a program that the kernel runs for each of them, compiled by the builder.

use std::rc::Rc;

use manifest::Program;
use nix::errno::Errno;
use nix::libc::sock_filter;

use crate::sys;

/// A program in the form in which the kernel takes it.
pub struct Filter(Vec<sock_filter>);

impl Filter {
    /// Prepares the machine's programs, once for all containers that share them.
    pub fn prepare_all(programs: &[Program]) -> Vec<Rc<Self>> {
        programs.iter().map(|program| Rc::new(Self::prepare(program))).collect()
    }

    fn prepare(program: &Program) -> Self {
        let instruction = |&manifest::Instruction { operation, if_true, if_false, value }: &_| sock_filter {
            code: operation,
            jt: if_true,
            jf: if_false,
            k: value,
        };
        Self(program.0.iter().map(instruction).collect())
    }

    /// Filters this process's system calls from now on, for good. Needs no_new_privs or CAP_SYS_ADMIN.
    pub fn install(&self) -> nix::Result<()> {
        sys::filter_system_calls(&self.0)
    }
}

/// Why a filter was not installed, as the end of a sentence.
pub(super) fn explain(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSYS => "the kernel has no seccomp (CONFIG_SECCOMP_FILTER)",
        Errno::EINVAL => "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER), or refuses this one",
        errno => errno.desc(),
    }
}

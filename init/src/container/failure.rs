//! Why a container did not start: the step, what in that step, and the kernel's reason. Eight bytes in a
//! pipe.

use nix::errno::Errno;

use super::seccomp;

/// The steps between clone and exec, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// The parent could not read what the child said.
    Report,
    /// A session and a cgroup namespace.
    Isolate,
    /// The namespaces of a container that runs.
    Join,
    /// The host name.
    Hostname,
    /// A network of its own.
    Network,
    /// A setting of its own namespaces.
    Sysctl,
    /// The tmpfs that takes what the container writes.
    Upper,
    /// The layers, with owners as they are inside.
    Layers,
    /// The layers as one tree.
    Overlay,
    /// The folder of a bundle.
    Folder,
    /// One of the standard mounts.
    StandardMount,
    /// What it does not see of a standard mount.
    Mask,
    /// `/dev` and its standard nodes.
    Dev,
    /// A device that the config asks for.
    Device,
    /// A mount that the config asks for.
    Mount,
    /// The machine's `resolv.conf`.
    ResolvConf,
    /// The working directory.
    WorkingDirectory,
    /// The new root in place of the machine's.
    Pivot,
    /// Standard input, output and error.
    Stdio,
    /// Resource limits.
    Limits,
    /// The container's ids in place of the machine's.
    UserNamespace,
    /// The bounding set, and what user 0 keeps.
    Capabilities,
    /// The user and its groups.
    User,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// The signal mask.
    Signals,
    /// Descriptors: those that it has from its parent, and that they end with exec.
    Descriptors,
    /// The word to go on.
    Gate,
    /// The process of init's own before the program.
    Init,
    /// The seccomp filter.
    Seccomp,
    /// The program itself.
    Execute,
}

impl Step {
    pub(super) const ALL: [Self; 30] = [
        Self::Report,
        Self::Isolate,
        Self::Join,
        Self::Hostname,
        Self::Network,
        Self::Sysctl,
        Self::Upper,
        Self::Layers,
        Self::Overlay,
        Self::Folder,
        Self::StandardMount,
        Self::Mask,
        Self::Dev,
        Self::Device,
        Self::Mount,
        Self::ResolvConf,
        Self::WorkingDirectory,
        Self::Pivot,
        Self::Stdio,
        Self::Limits,
        Self::UserNamespace,
        Self::Capabilities,
        Self::User,
        Self::NoNewPrivileges,
        Self::Signals,
        Self::Descriptors,
        Self::Gate,
        Self::Init,
        Self::Seccomp,
        Self::Execute,
    ];

    /// What the step does, for a sentence after `cannot start: `.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Report => "read",
            Self::Isolate => "isolate",
            Self::Hostname
            | Self::Sysctl
            | Self::Limits
            | Self::Capabilities
            | Self::NoNewPrivileges
            | Self::Signals => "set",
            Self::Network => "set up",
            Self::Mask => "mask what is in",
            Self::Upper
            | Self::Layers
            | Self::Overlay
            | Self::Folder
            | Self::StandardMount
            | Self::Mount
            | Self::ResolvConf => "mount",
            Self::Dev => "make",
            Self::Device => "make the device",
            Self::Join | Self::WorkingDirectory | Self::UserNamespace => "enter",
            Self::Pivot => "change to",
            Self::Stdio => "connect",
            Self::User => "become",
            Self::Descriptors => "prepare",
            Self::Gate => "wait for",
            Self::Init => "start",
            Self::Seccomp => "install",
            Self::Execute => "run",
        }
    }

    /// What it does it to, where there is only one such thing.
    pub(super) fn object(self) -> &'static str {
        match self {
            Self::Report => "the child's report",
            Self::Isolate => "the process",
            Self::Join => "the container",
            Self::Hostname => "the host name",
            Self::Network => "the network",
            Self::Upper => "the writable layer",
            Self::Layers => "the layers",
            Self::Overlay => "the overlay root",
            Self::Folder => "the bundle's folder",
            Self::Dev => "/dev",
            Self::ResolvConf => manifest::path::RESOLV_CONF,
            Self::Pivot => "the container's root",
            Self::Stdio => "the standard descriptors",
            Self::Limits => "resource limits",
            Self::UserNamespace => "the user namespace",
            Self::Capabilities => "capabilities",
            Self::User => "the user",
            Self::NoNewPrivileges => "no_new_privs",
            Self::Signals => "the signal mask",
            Self::Descriptors => "descriptors",
            Self::Gate => "the word to go on",
            Self::Init => "the container's own init",
            Self::Seccomp => "the seccomp filter",
            Self::Sysctl
            | Self::StandardMount
            | Self::Mask
            | Self::Device
            | Self::Mount
            | Self::WorkingDirectory
            | Self::Execute => "",
        }
    }
}

/// What a child that could not become its container says with its last breath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Where it was.
    pub step: Step,
    index: u16,
    /// What the kernel said.
    pub errno: Errno,
}

impl Failure {
    /// Bytes of a failure in the pipe. Far below `PIPE_BUF`, so it arrives whole or not at all.
    pub const SIZE: usize = 8;

    /// `index` counts within the step's table or list.
    pub fn new(step: Step, index: usize, errno: Errno) -> Self {
        Self { step, index: u16::try_from(index).unwrap_or(u16::MAX), errno }
    }

    /// Which entry of the step's table or list it is about.
    pub fn index(&self) -> usize {
        usize::from(self.index)
    }

    /// As a shell would say it: 127 for a program that is not there, 126 for one that cannot run.
    pub fn exit_code(&self) -> i32 {
        if self.step == Step::Execute && self.errno == Errno::ENOENT { 127 } else { 126 }
    }

    /// "mount `/proc`: Invalid argument", where `object` is what it was about.
    pub(super) fn sentence(&self, object: &str) -> String {
        let reason = match self.step {
            Step::Seccomp => seccomp::explain(self.errno),
            Step::Layers if self.errno == Errno::EINVAL => {
                "the kernel cannot give layers to a service's own users, as Linux 5.19 and later can"
            }
            _ => self.errno.desc(),
        };
        format!("{} `{object}`: {reason}", self.step.verb())
    }

    pub(super) fn encode(&self) -> [u8; Self::SIZE] {
        let [i0, i1] = self.index.to_le_bytes();
        let [e0, e1, e2, e3] = (self.errno as i32).to_le_bytes();
        [self.step as u8, 0, i0, i1, e0, e1, e2, e3]
    }

    pub(super) fn decode(record: [u8; Self::SIZE]) -> Self {
        let [step, _, i0, i1, e0, e1, e2, e3] = record;
        Self {
            step: Step::ALL.get(usize::from(step)).copied().unwrap_or(Step::Report),
            index: u16::from_le_bytes([i0, i1]),
            errno: Errno::from_raw(i32::from_le_bytes([e0, e1, e2, e3])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_pipe() {
        for step in Step::ALL {
            let failure = Failure::new(step, 517, Errno::ENOTDIR);
            assert_eq!(Failure::decode(failure.encode()), failure);
        }
    }

    #[test]
    fn the_exit_codes_are_a_shells() {
        assert_eq!(Failure::new(Step::Execute, 0, Errno::ENOENT).exit_code(), 127);
        assert_eq!(Failure::new(Step::Execute, 0, Errno::EACCES).exit_code(), 126);
        assert_eq!(Failure::new(Step::Mount, 0, Errno::ENOENT).exit_code(), 126);
    }
}

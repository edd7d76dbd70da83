//! Who a container's first process is, and what it may do: limits, capabilities, user.

use manifest::{Capabilities, Container, ResourceLimit, Seccomp};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities_secure_bits,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};

use crate::error::errno;

/// Limits what each process may have. It takes privileges where a limit is above the machine's own.
pub(super) fn limit(resources: &[ResourceLimit]) -> nix::Result<()> {
    resources.iter().try_for_each(|limit| setrlimit(number(limit.resource), limit.soft, limit.hard))
}

fn number(resource: manifest::Resource) -> Resource {
    use manifest::Resource as Written;
    match resource {
        Written::As => Resource::RLIMIT_AS,
        Written::Core => Resource::RLIMIT_CORE,
        Written::Cpu => Resource::RLIMIT_CPU,
        Written::Data => Resource::RLIMIT_DATA,
        Written::Fsize => Resource::RLIMIT_FSIZE,
        Written::Locks => Resource::RLIMIT_LOCKS,
        Written::Memlock => Resource::RLIMIT_MEMLOCK,
        Written::Msgqueue => Resource::RLIMIT_MSGQUEUE,
        Written::Nice => Resource::RLIMIT_NICE,
        Written::Nofile => Resource::RLIMIT_NOFILE,
        Written::Nproc => Resource::RLIMIT_NPROC,
        Written::Rss => Resource::RLIMIT_RSS,
        Written::Rtprio => Resource::RLIMIT_RTPRIO,
        Written::Rttime => Resource::RLIMIT_RTTIME,
        Written::Sigpending => Resource::RLIMIT_SIGPENDING,
        Written::Stack => Resource::RLIMIT_STACK,
    }
}

/// What a container's processes may do of what only root may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rights {
    capabilities: Capabilities,
    /// Whether set-id programs and files with capabilities give more.
    set_id: bool,
    /// Capabilities of the first process until its exec, which takes them away: they are in no set that outlasts it.
    until_exec: u64,
}

impl Rights {
    pub(super) fn of(container: &Container) -> Self {
        let set_id = container.profile.set_id;
        // Where new privileges can be had, it takes this one to install a filter.
        let until_exec = match container.seccomp {
            Seccomp::Program(_) if set_id => CapabilitySet::SYS_ADMIN.bits(),
            Seccomp::Program(_) | Seccomp::Unconfined => 0,
        };
        Self { capabilities: container.profile.capabilities, set_id, until_exec }
    }

    /// Those of a process that may have `kept` and nothing else.
    fn only(kept: CapabilitySet) -> Self {
        let capabilities = Capabilities { bounding: kept.bits(), held: kept.bits() };
        Self { capabilities, set_id: false, until_exec: 0 }
    }

    /// Takes every capability that is not to be had out of the bounding set: no program that is ever run can have it.
    pub(super) fn bound(&self) -> nix::Result<()> {
        let bounding = self.capabilities.bounding;
        for capability in bits().filter(|bit| bounding & bit == 0) {
            match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(capability)) {
                Ok(()) => {}
                // The first number that this kernel does not know. There are none above.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(errno(error)),
            }
        }
        Ok(())
    }

    /// Reduces the first process, which has become `uid`, to what it is to have. Only what is ambient outlasts exec for
    /// users other than 0, and what is ambient must be inheritable. Else nothing is either.
    pub(super) fn keep(&self, uid: Uid) -> nix::Result<()> {
        let held = self.capabilities.held;
        let now = CapabilitySet::from_bits_retain(held | self.until_exec);
        let ambient = if uid.is_root() { 0 } else { held };
        let inheritable = CapabilitySet::from_bits_retain(ambient);
        let sets = CapabilitySets { effective: now, permitted: now, inheritable };
        set_capabilities(None, sets).map_err(errno)?;
        for bit in bits().filter(|bit| ambient & bit != 0) {
            configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(bit), true).map_err(errno)?;
        }
        Ok(())
    }

    /// Sees to it that no program gives more than this.
    pub(super) fn renounce(&self) -> nix::Result<()> {
        if self.set_id { Ok(()) } else { prctl::set_no_new_privs() }
    }
}

/// Lets this process and the program that it becomes do of what only root may nothing but `kept`.
pub fn keep_capabilities(kept: CapabilitySet) -> nix::Result<()> {
    let rights = Rights::only(kept);
    rights.bound()?;
    rights.keep(Uid::from_raw(0))?;
    rights.renounce()
}

/// Becomes the user, with nothing but `kept` of what only root may, whatever is executed: user 0 keeps that through exec.
pub(super) fn become_user_with(uid: Uid, gid: Gid, groups: &[Gid], kept: CapabilitySet) -> nix::Result<()> {
    let rights = Rights::only(kept);
    rights.bound()?;
    become_user(uid, gid, groups)?;
    rights.keep(uid)?;
    rights.renounce()
}

/// Each set of one capability.
fn bits() -> impl Iterator<Item = u64> {
    (0..u64::BITS).map(|number| 1 << number)
}

/// Becomes the user. Capabilities outlast that, and are left to [`Rights::keep`].
pub(super) fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> nix::Result<()> {
    prctl::set_keepcaps(true)?;
    setgroups(groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Runs `make`. The files that it makes belong to `owner` from the beginning: to give each away takes as long as to make it.
///
/// What this process may do stays as it is meanwhile. Without the bit, the kernel would take from whoever acts for another
/// than root, among other things, the power to make devices (see capabilities(7), "Effect of user ID changes").
pub(super) fn owned_by<T>(owner: (Uid, Gid), make: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    if owner == root {
        return make();
    }
    let before = capabilities_secure_bits().map_err(errno)?;
    set_capabilities_secure_bits(before | CapabilitiesSecureBits::NO_SETUID_FIXUP).map_err(errno)?;
    own_new_files(owner)?;
    let made = make();
    own_new_files(root)?;
    set_capabilities_secure_bits(before).map_err(errno)?;
    made
}

/// Lets files that this process makes belong to `owner`.
fn own_new_files((uid, gid): (Uid, Gid)) -> nix::Result<()> {
    /// No user and no group: it is refused, and the answer is what is set.
    const NOBODY: u32 = u32::MAX;
    setfsgid(gid);
    setfsuid(uid);
    // Neither tells whether it has failed.
    let set = (setfsuid(Uid::from_raw(NOBODY)), setfsgid(Gid::from_raw(NOBODY)));
    if set == (uid, gid) { Ok(()) } else { Err(Errno::EPERM) }
}

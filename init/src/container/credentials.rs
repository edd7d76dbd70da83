//! Who a container's first process is, and what it may do: limits, capabilities, user.

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities};

use crate::error::errno;

/// Resource, soft limit, hard limit.
const LIMITS: [(Resource, u64, u64); 3] = [
    // The soft limit is low because programs that use select(2) or close every descriptor read it; the hard
    // one is what a server may raise it to.
    (Resource::RLIMIT_NOFILE, 4096, 65_536),
    (Resource::RLIMIT_CORE, 0, 0),
    (Resource::RLIMIT_MEMLOCK, 64 * 1024, 64 * 1024),
];

pub(super) fn limit() -> nix::Result<()> {
    LIMITS.iter().try_for_each(|&(resource, soft, hard)| setrlimit(resource, soft, hard))
}

/// Takes every capability that is not in `kept` out of the bounding set: no program that is ever run can have
/// it.
pub(super) fn bound(kept: u64) -> nix::Result<()> {
    for capability in (0..u64::BITS).map(|number| 1u64 << number).filter(|bit| kept & bit == 0) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(capability)) {
            Ok(()) => {}
            // The first number that this kernel does not know. There are none above.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(errno(error)),
        }
    }
    Ok(())
}

/// Becomes the user. Capabilities can outlast that, and are left to [`keep`].
pub(super) fn become_user(uid: Uid, gid: Gid, groups: &[Gid]) -> nix::Result<()> {
    setgroups(groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// Reduces user 0 to the capabilities in `kept`. Nothing is inheritable, and so nothing ambient, for anybody.
pub(super) fn keep(kept: u64, uid: Uid) -> nix::Result<()> {
    let mine = if uid.is_root() { CapabilitySet::from_bits_retain(kept) } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: mine, permitted: mine, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(errno)
}

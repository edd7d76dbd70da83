//! Which of the machine's users and groups a container's own are.

use std::os::fd::{AsFd, BorrowedFd};

use manifest::IDS_PER_CONTAINER;
use nix::unistd::{Gid, Uid};

use super::user_namespace::UserNamespace;
use crate::error::{Error, Result};
use crate::sys;

/// A container's ids, and the namespace that makes them its own.
pub(super) struct Ids {
    /// The machine's id that 0 inside stands for.
    first: u32,
    /// None where the ids are the machine's.
    namespace: Option<UserNamespace>,
}

impl Ids {
    /// Makes the namespace, if there is to be one.
    pub(super) fn prepare(ids: manifest::Ids) -> Result<Self> {
        match ids {
            manifest::Ids::Machine => Ok(Self { first: 0, namespace: None }),
            manifest::Ids::Own { first } if is_range(first) => {
                Ok(Self { first, namespace: Some(UserNamespace::make(first)?) })
            }
            manifest::Ids::Own { first } => {
                Err(Error::said("use", format!("ids from {first} on"), "they are the machine's, or none"))
            }
        }
    }

    /// A user and a group of the container, as the machine knows them.
    pub(super) fn outside(&self, uid: Uid, gid: Gid) -> (Uid, Gid) {
        (Uid::from_raw(self.number(uid.as_raw())), Gid::from_raw(self.number(gid.as_raw())))
    }

    /// The owner of what init makes for the container: its user and group 0.
    pub(super) fn root(&self) -> (Uid, Gid) {
        self.outside(Uid::from_raw(0), Gid::from_raw(0))
    }

    /// The machine's number of the container's `id`. One beyond the range stays what it is, which inside is
    /// nobody.
    pub(super) fn number(&self, id: u32) -> u32 {
        if id < IDS_PER_CONTAINER { self.first + id } else { id }
    }

    /// Lets files in `mount`, which is not attached yet, belong inside to whom they belong in their file system.
    pub(super) fn map_owners(&self, mount: BorrowedFd<'_>) -> nix::Result<()> {
        self.namespace.as_ref().map_or(Ok(()), |namespace| sys::map_mount_owners(mount, namespace.as_fd()))
    }

    /// Whether owners of files inside are others than in their file systems.
    pub(super) fn are_own(&self) -> bool {
        self.namespace.is_some()
    }

    /// Makes the ids this process's own, and the machine's out of its reach.
    pub(super) fn enter(&self) -> nix::Result<()> {
        self.namespace.as_ref().map_or(Ok(()), UserNamespace::enter)
    }
}

/// Whether `first` begins a range that contains neither the machine's users nor the last id, which means none.
fn is_range(first: u32) -> bool {
    first >= IDS_PER_CONTAINER && first.checked_add(IDS_PER_CONTAINER).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_from_the_first() {
        let own = Ids { first: 1 << 20, namespace: None };
        assert_eq!(own.number(0), 1_048_576);
        assert_eq!(own.number(65_535), 1_114_111);
        assert_eq!(own.number(65_536), 65_536, "not another container's");
        let machine = Ids::prepare(manifest::Ids::Machine).unwrap();
        assert_eq!((machine.number(0), machine.number(33)), (0, 33));
    }

    #[test]
    fn a_range_has_no_user_of_the_machine_and_not_the_last_id() {
        for (first, is) in [
            (0, false),
            (65_535, false),
            (65_536, true),
            (1 << 20, true),
            (u32::MAX - IDS_PER_CONTAINER, true),
            (u32::MAX - IDS_PER_CONTAINER + 1, false),
        ] {
            assert_eq!(is_range(first), is, "{first}");
        }
    }
}

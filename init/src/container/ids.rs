//! Which of the machine's users and groups a container's own are.

use std::os::fd::{AsFd, BorrowedFd};

use manifest::IDS_PER_CONTAINER;
use nix::unistd::{Gid, Pid, Uid};

use super::Origin;
use super::user_namespace::UserNamespace;
use crate::error::{Error, Result};
use crate::sys;

/// Ids in a row: what they are in a container, and what they stand for on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first one as it is inside.
    pub inside: u32,
    /// The first one as it is on the machine.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// A container's ids, and the namespace that makes them its own.
pub(super) struct Ids {
    /// Empty where the ids are the machine's.
    ranges: Vec<IdRange>,
    namespace: Option<UserNamespace>,
}

impl Ids {
    /// Makes the namespace, if there is to be one.
    pub(super) fn prepare(ids: manifest::Ids) -> Result<Self> {
        match ids {
            manifest::Ids::Own { first } if !is_range(first) => {
                Err(Error::said("use", format!("ids from {first} on"), "they are the machine's, or none"))
            }
            manifest::Ids::Own { .. } => Self::own(ranges(ids)),
            manifest::Ids::Machine => Ok(Self { ranges: Vec::new(), namespace: None }),
        }
    }

    /// Makes a namespace with `ranges`, whosever the ids are.
    pub(super) fn own(ranges: Vec<IdRange>) -> Result<Self> {
        let namespace = UserNamespace::make(&ranges)?;
        Ok(Self { ranges, namespace: Some(namespace) })
    }

    /// Those of a container that runs, whose first process is `pid`.
    pub(super) fn of_running(ranges: Vec<IdRange>, pid: Pid) -> Result<Self> {
        let namespace = if ranges.is_empty() { None } else { Some(UserNamespace::of(pid)?) };
        Ok(Self { ranges, namespace })
    }

    /// The same in a child that takes what it needs from `origin`.
    pub(super) fn taken(&self, origin: &Origin) -> nix::Result<Self> {
        let namespace = self.namespace.as_ref().map(|namespace| namespace.taken(origin)).transpose()?;
        Ok(Self { ranges: self.ranges.clone(), namespace })
    }

    /// The same once more.
    pub(super) fn shared(&self) -> std::io::Result<Self> {
        let namespace = self.namespace.as_ref().map(UserNamespace::shared).transpose()?;
        Ok(Self { ranges: self.ranges.clone(), namespace })
    }

    /// A user and a group of the container, as the machine knows them.
    pub(super) fn outside(&self, uid: Uid, gid: Gid) -> (Uid, Gid) {
        (Uid::from_raw(self.number(uid.as_raw())), Gid::from_raw(self.number(gid.as_raw())))
    }

    /// The owner of what init makes for the container: its user and group 0.
    pub(super) fn root(&self) -> (Uid, Gid) {
        self.outside(Uid::from_raw(0), Gid::from_raw(0))
    }

    /// The machine's number of the container's `id`. One beyond its ranges stays what it is, which inside is nobody.
    pub(super) fn number(&self, id: u32) -> u32 {
        let within = |range: &IdRange| {
            let offset = id.checked_sub(range.inside).filter(|&offset| offset < range.count)?;
            range.outside.checked_add(offset)
        };
        self.ranges.iter().find_map(within).unwrap_or(id)
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

/// What the ids of a container stand for; nothing where they are the machine's.
pub(super) fn ranges(ids: manifest::Ids) -> Vec<IdRange> {
    match ids {
        manifest::Ids::Machine => Vec::new(),
        manifest::Ids::Own { first } => {
            vec![IdRange { inside: 0, outside: first, count: IDS_PER_CONTAINER }]
        }
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
        let range = IdRange { inside: 0, outside: 1 << 20, count: IDS_PER_CONTAINER };
        let own = Ids { ranges: vec![range], namespace: None };
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

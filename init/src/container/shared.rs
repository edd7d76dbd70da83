//! What containers share: those of one image that the config says little about differ in their names, their ids
//! and their commands, and in nothing else.

use std::ffi::CString;
use std::rc::Rc;

use manifest::{Container, Limits, Program};
use nix::unistd::{Gid, Uid};

use super::credentials::Rights;
use super::seccomp::Filter;
use super::{rootfs, text};
use crate::error::{Error, Result};
use crate::pool::Pool;

/// While containers are prepared, what several of them can have.
#[derive(Default)]
pub struct Shared {
    filters: Box<[Rc<Filter>]>,
    pub(super) roots: Pool<rootfs::Plan>,
    pub(super) terms: Pool<Terms>,
}

impl Shared {
    /// For containers whose filters are made of `programs`.
    pub fn new(programs: &[Program]) -> Self {
        Self { filters: Filter::prepare_all(programs).into(), ..Self::default() }
    }

    /// The filter that a container names by its place.
    pub(super) fn filter(&self, index: usize) -> Result<Rc<Filter>> {
        let filter = self.filters.get(index).map(Rc::clone);
        filter.ok_or_else(|| Error::said("install", "the seccomp filter", "it is not there"))
    }
}

/// On what terms a process runs, whatever its program is: where it begins, who it is, and what it may do and have.
#[derive(Clone, PartialEq)]
pub(super) struct Terms {
    pub(super) cwd: CString,
    /// As it is inside, like those that follow.
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Box<[Gid]>,
    pub(super) rights: Rights,
    /// Those of its whole container as well.
    pub(super) limits: Limits,
}

impl Terms {
    pub(super) fn of(container: &Container) -> Result<Self> {
        Ok(Self {
            cwd: text(&container.cwd)?,
            uid: Uid::from_raw(container.user.uid),
            gid: Gid::from_raw(container.user.gid),
            groups: groups(&container.user),
            rights: Rights::of(container),
            limits: container.limits.clone(),
        })
    }

    /// The same in another working directory.
    pub(super) fn in_folder(&self, cwd: &str) -> Result<Self> {
        Ok(Self { cwd: text(cwd)?, ..self.clone() })
    }
}

/// All groups of a process. The user's own is among the further ones as well: else a set-gid program, which has another in
/// its place, could open what is closed to this very group (CVE-2022-2995).
fn groups(user: &manifest::User) -> Box<[Gid]> {
    let further = user.groups.iter().copied().filter(|&group| group != user.gid);
    std::iter::once(user.gid).chain(further).map(Gid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::container;
    use crate::container::{Launch, Process};
    use manifest::{Name, User};

    #[test]
    fn the_users_own_group_is_among_the_further_ones_once() {
        let all = |further: &[u32]| groups(&User { uid: 7, gid: 8, groups: further.to_vec() });
        assert_eq!(*all(&[]), [8].map(Gid::from_raw));
        assert_eq!(*all(&[4, 8, 9]), [8, 4, 9].map(Gid::from_raw));
    }

    #[test]
    fn containers_that_differ_in_name_and_command_share_the_rest() {
        let mut shared = Shared::default();
        let mut prepare = |container: Container| Launch::prepare(&container, &mut shared).unwrap();
        let one = prepare(container());
        let hostname = Name::try_from("other".to_owned()).unwrap();
        let alike = prepare(Container { hostname, argv: vec!["true".to_owned()], ..container() });
        let other = prepare(Container { read_only: true, cwd: "/".to_owned(), ..container() });
        let shares = |a: &Launch, b: &Launch| {
            (Rc::ptr_eq(&a.root, &b.root), Rc::ptr_eq(&a.process.terms, &b.process.terms))
        };
        assert_eq!(shares(&one, &alike), (true, true));
        assert_eq!(shares(&one, &other), (false, false));
    }

    #[test]
    fn a_further_process_shares_the_terms_unless_it_begins_elsewhere() {
        let process = Process::prepare(&container(), &mut Shared::default()).unwrap();
        let other = |cwd| process.other(&["id".to_owned()], &[], cwd).unwrap().terms;
        assert!(Rc::ptr_eq(&process.terms, &other(None)));
        let elsewhere = other(Some("/tmp"));
        assert_eq!((&*elsewhere.cwd, elsewhere.uid), (c"/tmp", process.terms.uid));
    }
}

//! Which of the machine's user and group ids each service has: given by name, and kept by the lock for good.

use std::collections::{BTreeMap, BTreeSet};

use manifest::{IDS_PER_CONTAINER, Name};

use crate::config::{Config, Service, Userns, Volume};
use crate::error::{Error, Result};
use crate::target::is_within;

/// The first id of each service's range.
pub type Ranges = BTreeMap<Name, u32>;

/// The first range of all: far above what any distribution gives to users, or `/etc/subuid` to containers.
const FIRST: u32 = 1 << 20;

/// The ranges end where ids no longer fit 31 bits: some system calls take signed ones.
const END: u32 = 1 << 31;

/// What no service can write to, or what is the same for all whatever their users are.
const SHARED_ANYWAY: &[&str] = &["/coracle", "/dev", "/init", "/proc", "/sys"];

/// All ranges, the lowest first.
fn ranges() -> impl Iterator<Item = u32> {
    (FIRST..END).step_by(IDS_PER_CONTAINER as usize)
}

/// Gives a range to each service that has none in `old`: the lowest that nobody has, in the config's order.
///
/// What `old` has stays, whether there is such a service or not: on a disk there may be files of one that was
/// removed, and they must not become another's.
pub fn allocate(config: &Config, old: &Ranges) -> Result<Ranges> {
    let mut given = old.clone();
    let taken: BTreeSet<u32> = old.values().copied().collect();
    let mut free = ranges().filter(|first| !taken.contains(first));
    for service in config.services.iter().filter(|service| service.userns == Userns::Private) {
        if given.contains_key(&service.name) {
            continue;
        }
        let none = || {
            Error::new(format!(
                "{}: there are user ids for {} services only",
                service.path(),
                ranges().count()
            ))
            .hint("remove those of services that are gone from the lock")
        };
        given.insert(service.name.clone(), free.next().ok_or_else(none)?);
    }
    Ok(given)
}

/// The range that each service runs with: its own, or that of the first service with which it shares volumes.
///
/// Volumes are in the machine's memory, whose file system cannot map owners: with other users a service could not even
/// read what a oneshot has prepared for it. Services that share nothing, or only read, have no ids in common.
pub fn in_use(config: &Config, given: &Ranges) -> Ranges {
    let private: Vec<&Service> =
        config.services.iter().filter(|service| service.userns == Userns::Private).collect();
    // Each one's first, by position. A service that joins two groups makes one of them.
    let mut leaders: Vec<usize> = (0..private.len()).collect();
    for (later, service) in private.iter().enumerate() {
        for earlier in 0..later {
            let (one, other) = (leaders[earlier], leaders[later]);
            if one != other && share(private[earlier], service) {
                let first = one.min(other);
                leaders
                    .iter_mut()
                    .filter(|leader| [one, other].contains(leader))
                    .for_each(|leader| *leader = first);
            }
        }
    }
    let ranges = private.iter().zip(leaders).filter_map(|(service, leader)| {
        let first = given.get(&private[leader].name)?;
        Some((service.name.clone(), *first))
    });
    ranges.collect()
}

/// Whether one of the two may see what the other writes.
fn share(one: &Service, other: &Service) -> bool {
    let is_anyway = |a: &&Volume| SHARED_ANYWAY.iter().any(|top| is_within(&a.source, top));
    let overlap = |a: &Volume, b: &Volume| is_within(&a.source, &b.source) || is_within(&b.source, &a.source);
    let shares = |a: &Volume| {
        other.volumes.iter().any(|b| (!a.access.read_only || !b.access.read_only) && overlap(a, b))
    };
    one.volumes.iter().filter(|a| !is_anyway(a)).any(shares)
}

/// Why these are not ranges as [`allocate`] gives them, if they are not.
pub fn find_mistake(given: &Ranges) -> Option<String> {
    let mut taken: BTreeMap<u32, &Name> = BTreeMap::new();
    given.iter().find_map(|(name, &first)| {
        if !(FIRST..END).contains(&first) || first % IDS_PER_CONTAINER != 0 {
            let last = END - IDS_PER_CONTAINER;
            let name = name.as_str();
            return Some(format!(
                "the ids of `{name}` begin at {first}, which is no multiple of {IDS_PER_CONTAINER} from {FIRST} to {last}"
            ));
        }
        let other = taken.insert(first, name)?;
        Some(format!("`{}` and `{}` have the same ids, from {first} on", other.as_str(), name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(services: &[&str]) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.toml");
        let tables: String =
            services.iter().map(|table| format!("[service.{table}\nimage = \"dir:x\"\n")).collect();
        std::fs::write(&path, format!("name = \"m\"\n{tables}")).unwrap();
        crate::config::load(&[path]).unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn given(pairs: &[(&str, u32)]) -> Ranges {
        pairs.iter().map(|(name, first)| ((*name).to_owned().try_into().unwrap(), *first)).collect()
    }

    const SECOND: u32 = FIRST + IDS_PER_CONTAINER;
    const THIRD: u32 = SECOND + IDS_PER_CONTAINER;

    #[test]
    fn each_service_gets_the_lowest_range_that_nobody_has() {
        let config = config(&["web]", "db]"]);
        assert_eq!(allocate(&config, &Ranges::new()), Ok(given(&[("web", FIRST), ("db", SECOND)])));
        let old = given(&[("cache", SECOND)]);
        let expected = given(&[("cache", SECOND), ("web", FIRST), ("db", THIRD)]);
        assert_eq!(allocate(&config, &old), Ok(expected), "a removed service keeps its range");
    }

    #[test]
    fn a_range_stays_what_it_is_whatever_comes_and_goes() {
        let old = allocate(&config(&["web]", "db]"]), &Ranges::new()).unwrap();
        let fewer = allocate(&config(&["db]"]), &old).unwrap();
        let more = allocate(&config(&["a]", "web]", "db]"]), &fewer).unwrap();
        assert_eq!(more, given(&[("web", FIRST), ("db", SECOND), ("a", THIRD)]));
    }

    #[test]
    fn a_service_with_the_machines_users_needs_no_range() {
        let config = config(&["web]", "host]\nuserns = \"host\""]);
        assert_eq!(allocate(&config, &Ranges::new()), Ok(given(&[("web", FIRST)])));
    }

    #[test]
    fn services_that_share_what_one_of_them_writes_have_the_same_users() {
        for (volumes, together) in [
            (["/srv/x:/x", "/srv/x:/x:ro"], true),
            (["/srv:/x:ro", "/srv/x/y:/y"], true),
            (["/srv/x:/x:ro", "/srv/x:/x:ro"], false),
            (["/srv/x:/x", "/srv/y:/x"], false),
            (["/srv/x:/x", "/srv/xy:/x"], false),
            (["/proc:/a", "/proc:/a"], false),
            (["/coracle/layers:/a", "/coracle:/a"], false),
        ] {
            let [one, other] = volumes.map(|volume| format!("\nvolumes = [\"{volume}\"]"));
            let config = config(&[&format!("a]{one}"), "b]", &format!("c]{other}")]);
            let given = allocate(&config, &Ranges::new()).unwrap();
            let used = in_use(&config, &given);
            let first = |name: &str| used[&Name::try_from(name.to_owned()).unwrap()];
            assert_eq!(first("a") == first("c"), together, "{volumes:?}");
            assert_eq!((first("a"), first("b")), (FIRST, SECOND), "{volumes:?}");
        }
    }

    #[test]
    fn who_shares_with_two_makes_them_share() {
        let config = config(&[
            "a]\nvolumes = [\"/a:/a\"]",
            "host]\nuserns = \"host\"\nvolumes = [\"/a:/a\", \"/e:/e\"]",
            "b]\nvolumes = [\"/b:/b\"]",
            "e]\nvolumes = [\"/e:/e\"]",
            "c]\nvolumes = [\"/b:/b\", \"/a:/a\"]",
        ]);
        let used = in_use(&config, &allocate(&config, &Ranges::new()).unwrap());
        assert_eq!(used, given(&[("a", FIRST), ("b", FIRST), ("c", FIRST), ("e", THIRD)]));
    }

    #[test]
    fn when_all_are_given_away_the_next_service_is_refused() {
        let name = |first: u32| Name::try_from(format!("s{first}")).unwrap();
        let old: Ranges = ranges().map(|first| (name(first), first)).collect();
        assert_eq!(find_mistake(&old), None);
        let error = allocate(&config(&["web]"]), &old).unwrap_err();
        assert_eq!(error.to_string(), "service.web: there are user ids for 32752 services only");
    }

    #[test]
    fn ranges_that_overlap_or_are_the_machines_are_mistakes() {
        for first in [0, 1000, FIRST - IDS_PER_CONTAINER, FIRST + 1, END, u32::MAX] {
            assert!(find_mistake(&given(&[("web", first)])).is_some(), "{first}");
        }
        assert_eq!(
            find_mistake(&given(&[("web", SECOND), ("db", SECOND)])).unwrap(),
            "`db` and `web` have the same ids, from 1114112 on"
        );
        assert_eq!(find_mistake(&given(&[("web", FIRST), ("db", END - IDS_PER_CONTAINER)])), None);
    }
}

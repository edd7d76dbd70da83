//! Capabilities: five lists of names become the two sets that a container has.

use manifest::Capabilities;
use rustix::thread::CapabilitySet;

use crate::Result;
use crate::config;

/// The sets of a process of user `uid`.
///
/// A container's first process has nothing inheritable or ambient as user 0, and as any other user exactly what
/// is to be there after exec: permitted, effective, inheritable and ambient are one set.
pub(crate) fn sets(written: &config::Capabilities, uid: u32) -> Result<Capabilities> {
    let [bounding, permitted, inheritable, ambient] =
        [&written.bounding, &written.permitted, &written.inheritable, &written.ambient]
            .map(|names| bits(names));
    // As user 0, exec gives all that is in the bounding set; as another one, only what is ambient stays.
    if uid == 0 {
        refuse("inheritable", inheritable != 0, "user 0 has nothing inheritable")?;
        refuse("ambient", ambient != 0, "user 0 has nothing ambient")?;
        return Ok(Capabilities { bounding, held: bounding & permitted });
    }
    refuse("inheritable", inheritable != ambient, "what is inheritable and what is ambient are the same")?;
    refuse("ambient", ambient & !permitted != 0, "what is ambient is permitted")?;
    Ok(Capabilities { bounding, held: ambient })
}

fn refuse(field: &str, is_so: bool, rule: &str) -> Result<()> {
    if is_so {
        Err(format!("process.capabilities.{field}: {rule} in a container of Coracle"))
    } else {
        Ok(())
    }
}

/// Names that no kernel knows are left out, as the specification says.
pub(crate) fn bits(names: &[String]) -> u64 {
    let set = |name: &String| {
        let found = name.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
        if found.is_none() {
            eprintln!("warning: `{name}` is no capability");
        }
        found.unwrap_or(CapabilitySet::empty()).bits()
    };
    names.iter().map(set).fold(0, |bits, one| bits | one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lists: [&[&str]; 5], uid: u32) -> Result<Capabilities> {
        let [bounding, effective, inheritable, permitted, ambient] =
            lists.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        sets(&config::Capabilities { bounding, effective, inheritable, permitted, ambient }, uid)
    }

    #[test]
    fn what_has_no_words_is_refused_by_its_name() {
        let admin: &[&str] = &["CAP_SYS_ADMIN"];
        let bit = CapabilitySet::SYS_ADMIN.bits();
        for (lists, uid, expected) in [
            ([&[][..], &[], &[], &[], &[]], 0, Ok((0, 0))),
            ([&["CAP_UNKNOWN", "SYS_ADMIN"], &[], &[], &[], &[]], 0, Ok((0, 0))),
            ([admin, admin, &[], admin, &[]], 0, Ok((bit, bit))),
            ([admin, &[], &[], &[], &[]], 0, Ok((bit, 0))),
            ([admin, &[], admin, &[], &[]], 0, Err("process.capabilities.inheritable")),
            ([admin, admin, admin, admin, admin], 0, Err("process.capabilities.inheritable")),
            ([admin, admin, admin, admin, admin], 1000, Ok((bit, bit))),
            ([admin, admin, &[], admin, &[]], 1000, Ok((bit, 0))),
            ([admin, admin, admin, admin, &[]], 1000, Err("process.capabilities.inheritable")),
        ] {
            match (of(lists, uid), expected) {
                (Ok(found), Ok((bounding, held))) => assert_eq!(found, Capabilities { bounding, held }),
                (Err(found), Err(field)) => assert!(found.starts_with(field), "{found}"),
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        }
    }
}

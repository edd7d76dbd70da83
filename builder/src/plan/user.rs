//! `USER` of an image, resolved to numbers from the image's own `/etc/passwd` and `/etc/group`.

use manifest::User;

use crate::error::{Error, Result};

/// The first process's credentials and where its home is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The numbers.
    pub user: User,
    /// The home folder of the user's passwd entry; `/` without one.
    pub home: String,
}

/// One line of passwd(5).
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Lines that are no entry are passed over, as libc does.
fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, uid, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1).filter(|home| home.starts_with('/')).unwrap_or("/");
        Some(PasswdEntry { name, uid, gid, home })
    })
}

/// Name, number and members of each line of group(5).
fn group_entries(text: &str) -> impl Iterator<Item = (&str, u32, std::str::Split<'_, char>)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        Some((name, gid, fields.next().unwrap_or_default().split(',')))
    })
}

/// Resolves `user`, `uid`, `user:group`, `uid:gid`, `uid:group` or `user:gid`; empty is user 0.
///
/// Digits are a number and never looked up as a name (CVE-2026-46680), and fit 31 bits: `-1` means "unchanged" to
/// the system calls, and some of them take signed ids.
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<Resolved> {
    let (user, group_spec) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = number(user)?;
    let entry = passwd_entries(passwd).find(|entry| match number {
        Some(uid) => entry.uid == uid,
        None => entry.name == user,
    });
    let uid = match (number, &entry) {
        (Some(uid), _) => uid,
        (None, Some(entry)) => entry.uid,
        (None, None) => {
            let known = passwd_entries(passwd).map(|entry| entry.name);
            return Err(unknown("user", user, "/etc/passwd", known));
        }
    };
    let gid = match group_spec.filter(|group| !group.is_empty()) {
        Some(name) => group_id(name, group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    // A group that is asked for replaces the user's own, as in Docker.
    let groups = match (&entry, group_spec) {
        (Some(entry), None) => supplementary(entry.name, gid, group),
        _ => Vec::new(),
    };
    let home = entry.map_or("/", |entry| entry.home).to_owned();
    Ok(Resolved { user: User { uid, gid, groups }, home })
}

/// Adds groups, by name or number, to those that the user has.
pub fn add_groups(user: &mut User, groups: &[String], group: &str) -> Result<()> {
    for name in groups {
        let id = group_id(name, group)?;
        if id != user.gid && !user.groups.contains(&id) {
            user.groups.push(id);
        }
    }
    user.groups.sort_unstable();
    Ok(())
}

fn group_id(name: &str, group: &str) -> Result<u32> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    let found = group_entries(group).find(|(known, ..)| *known == name).map(|(_, gid, _)| gid);
    found.ok_or_else(|| unknown("group", name, "/etc/group", group_entries(group).map(|(known, ..)| known)))
}

fn unknown<'a>(what: &str, name: &str, file: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let meant = crate::config::suggestion(name, known);
    Error::new(format!("no {what} is called `{}` in the image's {file}{meant}", name.escape_debug()))
        .hint("`user` takes names of the image, and numbers such as \"1000:1000\"")
}

fn supplementary(user: &str, primary: u32, group: &str) -> Vec<u32> {
    let of_user = group_entries(group).filter(|(_, _, members)| members.clone().any(|member| member == user));
    let mut groups: Vec<u32> = of_user.map(|(_, gid, _)| gid).filter(|gid| *gid != primary).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// The number that digits stand for; `None` for a name.
fn number(text: &str) -> Result<Option<u32>> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse::<u32>().ok().filter(|number| i32::try_from(*number).is_ok());
    number
        .map(Some)
        .ok_or_else(|| Error::new(format!("`{text}` is no user or group id: the largest is 2147483647")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n\nbroken\nweb:x:33:33::/var/www:/bin/sh\n7:x:70:70::/seven:\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlog:x:4:syslog,web\nssl:x:50:web\ndb:x:90:db\n";

    #[test]
    fn users_are_resolved_as_docker_does() {
        for (spec, uid, gid, groups, home) in [
            ("", 0, 0, vec![], "/root"),
            ("root", 0, 0, vec![], "/root"),
            ("web", 33, 33, vec![4, 50], "/var/www"),
            ("33", 33, 33, vec![4, 50], "/var/www"),
            ("web:db", 33, 90, vec![], "/var/www"),
            ("web:7", 33, 7, vec![], "/var/www"),
            ("1000", 1000, 0, vec![], "/"),
            ("1000:1001", 1000, 1001, vec![], "/"),
            (":db", 0, 90, vec![], "/root"),
        ] {
            let expected = Resolved { user: User { uid, gid, groups }, home: home.into() };
            assert_eq!(resolve(spec, PASSWD, GROUP), Ok(expected), "{spec}");
        }
    }

    #[test]
    fn groups_are_added_by_name_and_by_number_and_each_once() {
        let mut user = resolve("web", PASSWD, GROUP).unwrap().user;
        let names = ["db", "7", "log", "33"].map(str::to_owned);
        add_groups(&mut user, &names, GROUP).unwrap();
        assert_eq!(user.groups, [4, 7, 50, 90]);
        let error = add_groups(&mut user, &["dc".to_owned()], GROUP).unwrap_err().to_string();
        assert!(error.contains("no group is called `dc`") && error.contains("did you mean"), "{error}");
    }

    #[test]
    fn digits_are_never_a_name() {
        assert_eq!(resolve("7", PASSWD, GROUP).unwrap().user.uid, 7);
        assert_eq!(resolve("007", PASSWD, GROUP).unwrap().user.uid, 7);
    }

    #[test]
    fn unknown_names_and_numbers_beyond_31_bits_are_refused() {
        for spec in
            ["nobody", "web:nobody", "2147483648", "4294967295", "0:4294967295", "99999999999999999999", "-1"]
        {
            assert!(resolve(spec, PASSWD, GROUP).is_err(), "{spec}");
        }
    }
}

//! How the whole machine is, as a process that sees everybody finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use probe::Census;

/// A zombie that is there for so long is one that nobody reaps.
const AGE: Duration = Duration::from_secs(1);

/// Where the machine's cgroups are.
pub const CGROUPS: &str = "/machine/cgroup";

/// What every process has one of.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Takes it, which needs `/proc` of the machine with everybody in it.
pub fn take() -> io::Result<Census> {
    let before = zombies()?;
    thread::sleep(AGE);
    let zombies = zombies()?.intersection(&before).map(|(pid, _)| *pid).collect();
    // Counted page by page: `/proc/1/status` may be wrong by 64 pages for each processor.
    let memory = fs::read_to_string("/proc/1/smaps_rollup")?;
    let kibibytes =
        memory.lines().find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB"));
    let memory: u64 = kibibytes.and_then(|text| text.trim().parse().ok()).unwrap_or_default();
    Ok(Census {
        zombies,
        init_memory: memory * 1024,
        init_descriptors: descriptors_of_init()?,
        cgroups: folders(&format!("{CGROUPS}/services"))?,
        mounts: mounts_of_init()?,
        namespaces: namespaces()?,
    })
}

/// Pids, and when each began: a pid can come back.
fn zombies() -> io::Result<BTreeSet<(i32, String)>> {
    let mut found = BTreeSet::new();
    for pid in pids()? {
        // One that has ended meanwhile is none.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut words = rest.split(' ');
        if words.next() == Some("Z") {
            // The 22nd of all words, see proc_pid_stat(5).
            found.insert((pid, words.nth(18).unwrap_or_default().to_owned()));
        }
    }
    Ok(found)
}

fn pids() -> io::Result<Vec<i32>> {
    Ok(crate::facts::names("/proc")?.iter().filter_map(|name| name.parse().ok()).collect())
}

fn descriptors_of_init() -> io::Result<Vec<String>> {
    let mut open = Vec::new();
    for number in fs::read_dir("/proc/1/fd")? {
        // A pipe has a number of its own, which another one of the same kind does not share.
        if let Ok(target) = fs::read_link(number?.path()) {
            let text = target.to_string_lossy().into_owned();
            open.push(text.split_once(":[").map_or(text.clone(), |(kind, _)| kind.to_owned()));
        }
    }
    open.sort_unstable();
    Ok(open)
}

fn folders(path: &str) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?.flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Where something is mounted, and what.
fn mounts_of_init() -> io::Result<Vec<String>> {
    let table = fs::read_to_string("/proc/1/mountinfo")?;
    let rows = table.lines().filter_map(|row| {
        let (place, kind) = row.split_once(" - ")?;
        Some(format!("{} {kind}", place.split(' ').nth(4)?))
    });
    Ok(rows.collect())
}

/// How many of each kind somebody is in.
fn namespaces() -> io::Result<BTreeMap<String, usize>> {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for pid in pids()? {
        for kind in NAMESPACES {
            if let Ok(target) = fs::read_link(format!("/proc/{pid}/ns/{kind}")) {
                seen.entry(kind.to_owned()).or_default().insert(target.to_string_lossy().into_owned());
            }
        }
    }
    Ok(seen.into_iter().map(|(kind, all)| (kind, all.len())).collect())
}

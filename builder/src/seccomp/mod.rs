//! Which system calls a container has, as programs that the kernel runs for each of them.
//!
//! `profile` and `docker` say what becomes of each call, `program` makes instructions of it.

#[cfg(any(test, fuzzing))]
pub mod damage;
mod docker;
mod number;
mod policy;
mod profile;
mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use manifest::{Program, Seccomp};

pub use docker::Profile;

use crate::config::{self, Config};
use crate::error::{Context, Error, Result};
use policy::{Policy, Verdict};

/// The largest profile: the longest in use have 30 KiB.
const MAX_SIZE: u64 = 1 << 20;

/// The profiles of a config's files, by their paths.
pub type Profiles = BTreeMap<PathBuf, Profile>;

/// What a profile may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The capabilities that the container's processes may have, as a set.
    pub capabilities: u64,
    /// The first two numbers of the kernel's release, where they are known.
    pub kernel: Option<(u32, u32)>,
}

/// Reads the profiles that services name.
pub fn read(config: &Config) -> Result<Profiles, Vec<Error>> {
    let mut profiles = Profiles::new();
    let mut errors = Vec::new();
    let mut met = BTreeSet::new();
    for service in &config.services {
        let config::Seccomp::File(path) = &service.seccomp else { continue };
        if !met.insert(path) {
            continue;
        }
        match read_one(path) {
            Ok(profile) => drop(profiles.insert(path.clone(), profile)),
            Err(error) => errors.push(error.within(format!("{}.seccomp", service.path()))),
        }
    }
    if errors.is_empty() { Ok(profiles) } else { Err(errors) }
}

fn read_one(path: &Path) -> Result<Profile> {
    let doing = || format!("read `{}`", path.display());
    let hint = "`seccomp` is \"default\", \"unconfined\" or the path of a profile in Docker's JSON format";
    let file = std::fs::File::open(path).doing(doing).map_err(|error| error.hint(hint))?;
    let mut text = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut text).doing(doing).map_err(|error| error.hint(hint))?;
    if text.len() as u64 > MAX_SIZE {
        return Err(Error::new(format!("`{}` is larger than 1 MiB", path.display())).hint(hint));
    }
    Profile::parse(&text).map_err(|error| error.within(format!("`{}`", path.display())))
}

/// The programs of all containers, each once.
#[derive(Debug, Default)]
pub struct Programs(Vec<Program>);

impl Programs {
    /// What init does for a container for which `choice` is made.
    pub fn add(&mut self, choice: &config::Seccomp, profiles: &Profiles, facts: Facts) -> Result<Seccomp> {
        let policy = match choice {
            config::Seccomp::Unconfined => return Ok(Seccomp::Unconfined),
            config::Seccomp::Default => profile::policy(facts.capabilities),
            config::Seccomp::File(path) => {
                let profile = profiles.get(path);
                let profile =
                    profile.ok_or_else(|| Error::new(format!("`{}` was not read", path.display())))?;
                let policy = profile.policy(facts).and_then(startable);
                policy.map_err(|error| error.within(format!("`{}`", path.display())))?
            }
        };
        self.share(&policy).map(Seccomp::Program)
    }

    /// What init does for the process of its own that is the first one of a container.
    pub fn add_init(&mut self) -> Result<usize> {
        self.share(&profile::of_init())
    }

    /// The index of the program that does what `policy` says.
    fn share(&mut self, policy: &Policy) -> Result<usize> {
        let program = Program(program::compile(policy));
        if program.0.len() > Program::MAX_LENGTH {
            let (length, most) = (program.0.len(), Program::MAX_LENGTH);
            return Err(Error::new(format!(
                "the profile has {length} instructions, and a kernel takes {most}"
            )));
        }
        Ok(self.0.iter().position(|known| *known == program).unwrap_or_else(|| {
            self.0.push(program);
            self.0.len() - 1
        }))
    }

    /// The programs by their indices.
    pub fn into_list(self) -> Vec<Program> {
        self.0
    }
}

/// Refuses a policy under which nothing starts: the filter is there before the container's program is.
fn startable(policy: Policy) -> Result<Policy> {
    let decision = number::number("execve").and_then(|execve| policy.calls.get(&execve));
    let passes = |verdict| matches!(verdict, Verdict::Allow | Verdict::Log);
    let may_pass = decision.is_some_and(|decision| {
        passes(decision.otherwise) || decision.rules.iter().any(|rule| passes(rule.verdict))
    });
    if may_pass {
        return Ok(policy);
    }
    Err(Error::new("it does not allow `execve`, without which no program starts"))
}

#[cfg(test)]
mod tests;

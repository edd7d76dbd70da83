//! Where what is said goes to beside the console, one piece with each turn of the loop.

use std::time::Duration;

use manifest::Manifest;
use nix::unistd::Pid;

use super::main_loop::Supervisor;
use super::supervised::Supervised;
use crate::clock;
use crate::container;
use crate::error::{Error, Result};
use crate::log::{Console, Files, Syslog, Voice};

/// How long the last words may take to reach a server.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long files may take to be written at the end. A disk that is alive takes no longer for a megabyte.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// The cgroup of the writer of files.
const CGROUP: &str = "log";

/// All of them.
pub(super) struct Sinks {
    pub(super) syslog: Option<Syslog>,
    pub(super) files: Option<Files>,
}

impl Sinks {
    /// Gets everything ready that can fail.
    pub(super) fn prepare(manifest: &Manifest) -> Result<Self> {
        let failed = |errno| Error::new("prepare", "the log", errno);
        let (log, host) = (&manifest.log, manifest.name.as_str());
        let syslog = log.syslog.map(|server| Syslog::new(server, host)).transpose().map_err(failed)?;
        let files = match &log.files {
            Some(files) => Some(Files::new(files, container::beside_all(CGROUP)?).map_err(failed)?),
            None => None,
        };
        Ok(Self { syslog, files })
    }

    /// When there is something to do even if nothing comes.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let syslog = self.syslog.as_ref().and_then(Syslog::deadline);
        let files = self.files.as_ref().and_then(Files::deadline);
        syslog.into_iter().chain(files).min()
    }
}

/// Init's own lines, then those of each service.
fn voice<'a>(console: &'a Console, services: &'a [Supervised], number: usize) -> Option<Voice<'a>> {
    let Some(index) = number.checked_sub(1) else { return Some(console.voice()) };
    services.get(index).map(|service| Voice { name: service.name.as_str(), ring: &service.ring })
}

impl Supervisor {
    /// Passes on what was said.
    pub(super) fn attend_sinks(&mut self) {
        let Self { sinks, console, services, .. } = self;
        if sinks.syslog.is_none() && sinks.files.is_none() {
            return;
        }
        let now = clock::now();
        let voices = |number| voice(console, services, number);
        let of_syslog = sinks.syslog.as_mut().and_then(|syslog| syslog.attend(now, voices));
        let of_files = sinks.files.as_mut().and_then(|files| files.attend(now, voices));
        for news in of_syslog.into_iter().chain(of_files) {
            console.say(format_args!("{news}"));
        }
    }

    /// Takes note of the end of a process, if it was one of theirs.
    pub(super) fn reap_of_sinks(&mut self, pid: Pid) -> bool {
        let files = self.sinks.files.as_mut();
        let Some(news) = files.and_then(|files| files.reap(pid, clock::now())) else { return false };
        self.console.say(format_args!("{news}"));
        true
    }

    /// Writes what was said, when all services have ended and before disks are let go of.
    pub(super) fn finish_files(&mut self) {
        let Self { sinks, console, services, .. } = self;
        if let Some(files) = &mut sinks.files {
            files.finish(LAST_WRITE, |number| voice(console, services, number));
        }
    }

    /// Passes on the last words, before the machine ends.
    pub(super) fn finish_syslog(&mut self) {
        let Self { sinks, console, services, .. } = self;
        if let Some(syslog) = &mut sinks.syslog {
            syslog.finish(FAREWELL, |number| voice(console, services, number));
        }
    }
}

//! Where what is said goes to beside the console, one piece with each turn of the loop.

use std::time::Duration;

use manifest::Manifest;

use super::main_loop::Supervisor;
use super::supervised::Supervised;
use crate::clock;
use crate::error::{Error, Result};
use crate::log::{Console, Syslog, Voice};

/// How long the last words may take to reach a server.
const FAREWELL: Duration = Duration::from_secs(1);

/// All of them.
pub(super) struct Sinks {
    pub(super) syslog: Option<Syslog>,
}

impl Sinks {
    /// Gets everything ready that can fail.
    pub(super) fn prepare(manifest: &Manifest) -> Result<Self> {
        let failed = |errno| Error::new("prepare", "the log", errno);
        let host = manifest.name.as_str();
        let syslog =
            manifest.log.syslog.map(|server| Syslog::new(server, host)).transpose().map_err(failed)?;
        Ok(Self { syslog })
    }

    /// When there is something to do even if nothing comes.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.syslog.as_ref().and_then(Syslog::deadline)
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
        let now = clock::now();
        let syslog = sinks.syslog.as_mut();
        let news = syslog.and_then(|syslog| syslog.attend(now, |number| voice(console, services, number)));
        if let Some(news) = news {
            console.say(format_args!("{news}"));
        }
    }

    /// Passes on the last words, before the machine ends.
    pub(super) fn finish_sinks(&mut self) {
        let Self { sinks, console, services, .. } = self;
        if let Some(syslog) = &mut sinks.syslog {
            syslog.finish(FAREWELL, |number| voice(console, services, number));
        }
    }
}

//! `coracle ctl status`: how services are.

use manifest::Name;
use manifest::control::{Answer, Ask, Machine, MachineState, Service, ServiceState};

use super::channel::Channel;
use super::table::{Table, plain};
use super::time::{seconds, span};
use crate::config::suggestion;
use crate::error::{Error, Result};

/// How a machine and its services are.
#[derive(Debug)]
pub struct Status {
    /// The machine.
    pub machine: Machine,
    /// Its services.
    pub services: Vec<Service>,
}

impl Status {
    /// Asks for it.
    pub fn ask(channel: &mut Channel) -> Result<Self> {
        let (mut machine, mut services) = (None, Vec::new());
        for answer in channel.all(Ask::Status)? {
            match answer {
                Answer::Machine(about) => machine = Some(about),
                Answer::Service(service) => services.push(service),
                _ => {}
            }
        }
        let machine = machine.ok_or_else(|| Error::new("the machine does not say how it is"))?;
        Ok(Self { machine, services })
    }

    /// The names of services that are meant, all of which have to be there.
    pub fn named(&self, wanted: &[String]) -> Result<Vec<Name>> {
        wanted.iter().map(|name| self.find(name).map(|service| service.name.clone())).collect()
    }

    /// A service.
    pub fn find(&self, name: &str) -> Result<&Service> {
        let known = || self.services.iter().map(|service| service.name.as_str());
        self.services.iter().find(|service| service.name.as_str() == name).ok_or_else(|| {
            let sentence = format!("no service is called `{}`{}", plain(name), suggestion(name, known()));
            let names: Vec<String> = known().map(|name| format!("`{name}`")).collect();
            Error::new(sentence).hint(format!("the machine `{}` has {}", self.machine.name, names.join(", ")))
        })
    }

    /// Leaves all but these out, if there are any.
    pub fn only(mut self, wanted: &[String]) -> Result<Self> {
        let names = self.named(wanted)?;
        self.services.retain(|service| names.is_empty() || names.contains(&service.name));
        Ok(self)
    }

    /// As an answer of the protocol each.
    pub fn answers(self) -> impl Iterator<Item = Answer> {
        std::iter::once(Answer::Machine(self.machine)).chain(self.services.into_iter().map(Answer::Service))
    }

    /// For a person.
    pub fn table(&self) -> String {
        let now = self.machine.now.monotonic_ns;
        let state = match self.machine.state {
            MachineState::Starting => "is starting",
            MachineState::Ready => "is ready",
            MachineState::Stopping => "is going down",
        };
        let mut table =
            Table::new(&["NAME", "STATE", "FOR", "RESTARTS", "PID", "HEALTH", "LAST END", "SAYS"]);
        for service in &self.services {
            table.row(row(service, now));
        }
        format!("{} {state}, {} after its start\n\n{table}", self.machine.name, span(now))
    }
}

fn row(service: &Service, now: u64) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let is_running = service.pid.is_some();
    let health = service.healthy.map(|healthy| if healthy { "healthy" } else { "unhealthy" }.to_owned());
    [
        service.name.to_string(),
        state(service, now),
        or_dash(service.since_ns.filter(|_| is_running).map(|since| span(now.saturating_sub(since)))),
        service.starts.saturating_sub(1).to_string(),
        or_dash(service.pid.map(|pid| pid.to_string())),
        or_dash(health),
        or_dash(service.last.as_ref().map(|end| plain(&end.text))),
        service.says.as_deref().map(plain).unwrap_or_default(),
    ]
}

/// A state, and what it waits for.
fn state(service: &Service, now: u64) -> String {
    let word = word(service.state);
    match (service.state, service.starts_at_ns) {
        (ServiceState::Waiting, _) if !service.waits_for.is_empty() => {
            format!("{word} for {}", plain(&service.waits_for.join(", ")))
        }
        (ServiceState::Backoff, Some(at)) => format!("{word}, starts in {}", seconds(at.saturating_sub(now))),
        _ => word.to_owned(),
    }
}

/// The protocol's word for a state.
pub fn word(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Waiting => "waiting",
        ServiceState::Starting => "starting",
        ServiceState::Ready => "ready",
        ServiceState::Stopping => "stopping",
        ServiceState::Backoff => "backoff",
        ServiceState::Stopped => "stopped",
        ServiceState::Completed => "completed",
        ServiceState::Failed => "failed",
        ServiceState::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use manifest::control::{Cause, End, ServiceKind};

    use super::super::fake::{machine, service};
    use super::*;

    fn end(text: &str) -> Option<End> {
        Some(End { cause: Cause::Exit, code: Some(3), signal: None, text: text.to_owned() })
    }

    fn shop() -> Status {
        let db = Service {
            healthy: Some(true),
            says: Some("12 clients\u{1b}[31m".to_owned()),
            starts: 3,
            last: end("ended with code 3"),
            ..service("db")
        };
        let migrate = Service {
            kind: ServiceKind::Oneshot,
            state: ServiceState::Completed,
            pid: None,
            last: end("has ended"),
            ..service("migrate")
        };
        let web = Service {
            state: ServiceState::Waiting,
            pid: None,
            since_ns: None,
            starts: 0,
            waits_for: vec!["cache".to_owned(), "network".to_owned()],
            ..service("web")
        };
        let cache = Service {
            state: ServiceState::Backoff,
            pid: None,
            starts_at_ns: Some(903_250_000_000),
            ..service("cache")
        };
        Status { machine: machine(), services: vec![db, migrate, web, cache] }
    }

    #[test]
    fn a_table_says_how_each_service_is() {
        insta::assert_snapshot!(shop().table());
    }

    #[test]
    fn a_service_that_is_not_there_is_named_with_those_that_are() {
        let error = shop().named(&["wep".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "no service is called `wep` (did you mean `web`?)");
        assert_eq!(error.advice(), Some("the machine `shop` has `db`, `migrate`, `web`, `cache`"));
        let only = shop().only(&["web".to_owned()]).unwrap();
        assert_eq!(only.services.len(), 1);
        assert_eq!(shop().only(&[]).unwrap().services.len(), 4);
    }
}

//! The graph of services: every edge leads to a service, can be met, and is part of no cycle.

use manifest::{Condition, Kind, RestartPolicy};

use super::Service;
use super::check::Check;
use super::problem::suggestion;
use super::raw::At;
use super::supervision::hint;

/// Reports what is wrong with the edges of all services.
pub fn check(services: &[At<Service>], check: &mut Check<'_>) {
    for At { value: service, .. } in services {
        for edge in &service.supervision.depends_on {
            let path = format!("{}.depends-on", service.path());
            match services.iter().find(|other| other.value.name.as_str() == edge.service.value) {
                None => {
                    let names = services.iter().map(|other| other.value.name.as_str());
                    let names = names.filter(|name| *name != service.name.as_str());
                    let meant = hint(&edge.service.value);
                    let meant = meant.unwrap_or_else(|| suggestion(&edge.service.value, names));
                    let what = format!("no service is called `{}`{meant}", edge.service.value);
                    check.at(&edge.service.span, path, what);
                }
                Some(other) => {
                    if let Some(what) = contradiction(service, &other.value, edge.condition.value) {
                        check.at(&edge.condition.span, path, what);
                    }
                }
            }
        }
    }
    cycles(services, check);
}

/// Why a service cannot wait for another one's `condition`.
fn contradiction(service: &Service, other: &Service, condition: Condition) -> Option<String> {
    let name = &other.name;
    let is_hook = |service: &Service| matches!(service.kind, Kind::Shutdown { .. });
    if is_hook(service) != is_hook(other) {
        return Some(format!(
            "`{name}` does not run at the same time: [shutdown] tables wait for each other only"
        ));
    }
    match (condition, other.kind) {
        (Condition::Ready | Condition::Healthy, Kind::Oneshot { .. } | Kind::Shutdown { .. }) => {
            Some(format!("`{name}` runs to its end once, and is \"started\" or \"completed\""))
        }
        (Condition::Completed, Kind::Service)
            if other.supervision.restart.policy == RestartPolicy::Always =>
        {
            Some(format!("`{name}` always restarts, and never completes; wait until it is \"ready\""))
        }
        (Condition::Healthy, _) if other.supervision.health.is_disabled => {
            Some(format!("`{name}` has its health check disabled"))
        }
        _ => None,
    }
}

/// Reports each cycle once, with the way around it, where it is closed.
fn cycles(services: &[At<Service>], check: &mut Check<'_>) {
    let mut search = Search { services, marks: vec![Mark::New; services.len()], way: Vec::new() };
    let mut found = Vec::new();
    for index in 0..services.len() {
        search.visit(index, &mut found);
    }
    for (index, edge, way) in found {
        let Some(At { value: service, .. }) = services.get(index) else { continue };
        let Some(edge) = service.supervision.depends_on.get(edge) else { continue };
        let what = if way.len() == 2 {
            "a service cannot wait for itself".to_owned()
        } else {
            format!("nothing of this cycle could ever start: {}", way.join(" → "))
        };
        check.at(&edge.service.span, format!("{}.depends-on", service.path()), what);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    OnTheWay,
    Done,
}

/// A depth-first search that knows its way. The config's size bounds its depth to some hundred thousand, so it keeps
/// its own stack.
struct Search<'a> {
    services: &'a [At<Service>],
    marks: Vec<Mark>,
    /// Each service on the way, and how many of its edges have been followed.
    way: Vec<(usize, usize)>,
}

/// The service and the edge that close a cycle, and the names around it.
type Cycle = (usize, usize, Vec<String>);

impl Search<'_> {
    fn visit(&mut self, start: usize, found: &mut Vec<Cycle>) {
        if self.marks[start] != Mark::New {
            return;
        }
        self.marks[start] = Mark::OnTheWay;
        self.way.push((start, 0));
        while let Some((index, followed)) = self.way.last_mut() {
            let (index, edge) = (*index, *followed);
            *followed += 1;
            let Some(written) = self.services[index].value.supervision.depends_on.get(edge) else {
                self.marks[index] = Mark::Done;
                self.way.pop();
                continue;
            };
            let is_meant = |other: &At<Service>| other.value.name.as_str() == written.service.value;
            let Some(other) = self.services.iter().position(is_meant) else { continue };
            match self.marks[other] {
                Mark::New => {
                    self.marks[other] = Mark::OnTheWay;
                    self.way.push((other, 0));
                }
                Mark::OnTheWay => found.push((index, edge, self.names_from(other))),
                Mark::Done => {}
            }
        }
    }

    /// From the service on the way to its end, and back to it.
    fn names_from(&self, start: usize) -> Vec<String> {
        let indices =
            self.way.iter().map(|(index, _)| *index).skip_while(|index| *index != start).chain([start]);
        indices.map(|index| self.services[index].value.name.to_string()).collect()
    }
}

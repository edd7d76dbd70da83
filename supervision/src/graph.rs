//! What services mean to each other: whether one may start, and in which order they stop.

use manifest::{Condition, Dependency, Kind, OnFailure};

use crate::event::{Index, Outcome};
use crate::service::{Life, Run, Service, Stage};

/// Whether a service may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// At once.
    Start,
    /// Not yet.
    Wait,
    /// Never, because this has failed, and this is what the edge says about it.
    Never(Cause, OnFailure),
}

/// What is waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A service.
    Service(Index),
    /// A condition of the machine.
    Condition(Index),
}

/// Whether the service with these `dependencies` may start.
pub fn verdict(services: &[Service], dependencies: &[Dependency]) -> Verdict {
    let mut verdict = Verdict::Start;
    for dependency in dependencies {
        match progress(services, dependency) {
            Progress::Met => {}
            Progress::Underway => verdict = Verdict::Wait,
            Progress::Failed if dependency.on_failure == OnFailure::Ignore => {}
            Progress::Failed => {
                return Verdict::Never(Cause::Service(dependency.service), dependency.on_failure);
            }
        }
    }
    verdict
}

/// Those of `dependencies` that a service with them still waits for.
pub fn unmet(services: &[Service], dependencies: &[Dependency]) -> Vec<Index> {
    let is_unmet = |edge: &&Dependency| matches!(progress(services, edge), Progress::Underway);
    dependencies.iter().filter(is_unmet).map(|edge| edge.service).collect()
}

enum Progress {
    Met,
    Underway,
    Failed,
}

fn progress(services: &[Service], dependency: &Dependency) -> Progress {
    // The builder has made sure that it is there.
    let Some(other) = services.get(dependency.service) else { return Progress::Failed };
    let is_met = match (dependency.condition, &other.run) {
        (Condition::Started, Run::Running(Life { stage, .. })) => *stage >= Stage::Executed,
        (Condition::Started, Run::Ended(_)) => other.was_executed,
        (Condition::Ready, Run::Running(Life { stage, .. })) => *stage == Stage::Ready,
        (Condition::Healthy, Run::Running(Life { healthy, .. })) => *healthy == Some(true),
        (Condition::Completed, Run::Ended(outcome)) => *outcome == Outcome::Code(0),
        _ => false,
    };
    let is_passed_over = other.rules.kind == Kind::Oneshot { on_failure: OnFailure::Ignore };
    match other.run {
        _ if is_met => Progress::Met,
        Run::Ended(_) if is_passed_over => Progress::Met,
        Run::Ended(_) | Run::Skipped => Progress::Failed,
        _ => Progress::Underway,
    }
}

/// Of each service, whether something lives that depends on it, however many others are between them.
pub fn needed(services: &[Service]) -> Vec<bool> {
    let mut needed = vec![false; services.len()];
    spread(services, |index, dependency| {
        let holds = services.get(index).is_some_and(|service| service.run.is_alive())
            || needed.get(index).is_some_and(|needed| *needed);
        needed.get_mut(dependency).filter(|needed| holds && !**needed).map(|needed| *needed = true)
    });
    needed
}

/// Of each service, how many stop before it, one after the other, at the least.
pub fn stop_levels(services: &[Service]) -> Vec<u32> {
    let mut levels = vec![0; services.len()];
    spread(services, |index, dependency| {
        let above = levels.get(index).map_or(0, |level| level + 1);
        levels.get_mut(dependency).filter(|level| **level < above).map(|level| *level = above)
    });
    levels
}

/// Goes along every edge, from each service to what it depends on, until nothing changes any more. One round is right
/// for one level more; a graph with a cycle, which no builder makes, ends all the same.
fn spread(services: &[Service], mut along: impl FnMut(Index, Index) -> Option<()>) {
    for _ in services {
        let mut changed = false;
        for (index, service) in services.iter().enumerate() {
            for dependency in &service.rules.depends_on {
                changed |= along(index, dependency.service).is_some();
            }
        }
        if !changed {
            break;
        }
    }
}

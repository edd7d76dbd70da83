//! What there is to say of services, in sentences: the console's and the simulation's are the same.

use manifest::{Awaited, Then};

use crate::event::{Fact, Index, Power};

/// Whether it is said, or only kept for whoever asks: what every service does is no news.
pub fn is_news(fact: Fact) -> bool {
    !matches!(fact, Fact::Started(_) | Fact::ReadyAtOnce | Fact::Stopping | Fact::Held)
}

/// The end of a sentence that begins with a service's name. `name` is for the others that it is about, `conditions` are
/// those of the machine.
pub fn predicate(fact: Fact, name: impl Fn(Index) -> String, conditions: &[Awaited]) -> String {
    match fact {
        Fact::Started(pid) => format!("starts as process {}", pid.0),
        Fact::Stopping => "is asked to stop".to_owned(),
        Fact::Held => "is not started again until somebody says so".to_owned(),
        Fact::ReadyAtOnce => "runs".to_owned(),
        Fact::Ended(outcome) => outcome.to_string(),
        Fact::Restarts(pause) => format!("starts again in {:.1} s", pause.as_secs_f32()),
        Fact::Ready(took) => format!("is ready after {:.2} s", took.as_secs_f32()),
        Fact::Healthy => "is healthy again".to_owned(),
        Fact::Unhealthy => "is unhealthy: its health check fails".to_owned(),
        Fact::Late => "is not ready in time, and is stopped".to_owned(),
        Fact::Silent => "gives no sign of life any more, and is stopped".to_owned(),
        Fact::Killed => "has not stopped in time, and is killed".to_owned(),
        Fact::Lingers => "cannot be killed: its end is waited for".to_owned(),
        Fact::Skipped(other) => format!("is not started, because `{}` has failed", name(other)),
        Fact::Awaits(condition) => format!("waits for {}", thing(conditions, condition)),
        Fact::Unmet(condition) => {
            format!("is not started: it has waited too long for {}", thing(conditions, condition))
        }
        Fact::AbortsBoot => "has failed for good: the boot ends here".to_owned(),
        Fact::RestartsWith(other) => format!("is stopped, to start again with `{}`", name(other)),
        Fact::GivenUp(then) => {
            let then = match then {
                Then::Stop => "it is not started again",
                Then::Reboot => "the machine reboots",
                Then::Poweroff => "the machine powers off",
            };
            format!("has ended too often: {then}")
        }
    }
}

fn thing(conditions: &[Awaited], condition: Index) -> String {
    match conditions.get(condition) {
        Some(Awaited::Path(path)) => format!("`{path}`"),
        Some(Awaited::Network) => "the network".to_owned(),
        Some(Awaited::Clock) => "the clock to be set".to_owned(),
        None => String::new(),
    }
}

/// The end of a sentence about the machine.
pub fn power(power: Power) -> &'static str {
    match power {
        Power::Off => "powers off",
        Power::Reboot => "reboots",
        Power::Halt => "halts",
    }
}

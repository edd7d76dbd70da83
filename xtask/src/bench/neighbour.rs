//! N1: what a service notices of others that take all that they can get.

use serde_json::Value;

use super::Bench;
use super::figure::{Figure, Goal, MICROSECONDS, Measure};
use super::guest::Guest;
use super::machine::{Kernel, Machine, image_of};
use crate::process::{Result, because};

/// For the document.
pub const METHOD: &str = "\
How long a server takes to answer a client in another container of the same machine, on one processor whose
clock is its instructions: the median of 300 answers, what nine of ten stay below, and the longest. Meanwhile other services fork without an
end, ten processes each, or run in a circle. Floor: the same while nothing else runs. The
design asks for at most twice of that.";

const ANSWERS: u32 = 300;
/// Services of each kind of greed.
const GREEDY: usize = 4;

/// What the client says, in microseconds.
struct Latency {
    median: f64,
    nine_of_ten: f64,
    longest: f64,
}

/// Measures N1.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let probe = image_of(bench, "probe", &bench.workspace.target("dist-test/probe"))?;
    let busybox = format!("oci:{}:busybox", bench.workspace.target("images/demo").display());
    let greedy = |image: &str, command: &str| -> String {
        let one = |number| {
            format!(
                "[service.greedy{number}]\nimage = \"{image}\"\ncommand = [{command}]\npids-limit = 10\n\
                 restart = \"never\"\nnetwork = \"none\"\n"
            )
        };
        (0..GREEDY).map(one).collect()
    };
    let quiet = ask(bench, "quiet", &probe, "")?;
    let bombs = greedy(&probe, r#""/probe", "fork-bomb", "without-end""#);
    let loops = greedy(&busybox, r#""sh", "-c", "while :; do :; done""#);
    let mut figures = Vec::new();
    for (what, name, others) in [("fork bombs", "bombs", bombs), ("endless loops", "loops", loops)] {
        let amid = ask(bench, name, &probe, &others)?;
        let figure = |of: &str, part: fn(&Latency) -> f64| {
            let what = format!("{of}, amid {GREEDY} {what}");
            Figure::new("N1", what, MICROSECONDS, part(&amid)).floor(part(&quiet))
        };
        figures.push(figure("an answer", |latency| latency.median).goal(Goal::AtMost(2.0, Measure::Floors)));
        figures.push(figure("nine of ten answers", |latency| latency.nine_of_ten));
        figures.push(figure("the longest answer", |latency| latency.longest));
    }
    Ok(figures)
}

/// Asks a server beside the services `others`.
fn ask(bench: &Bench, name: &str, image: &str, others: &str) -> Result<Latency> {
    let config = format!(
        "{others}[service.server]\nimage = \"{image}\"\ncommand = [\"/probe\", \"answer\", \"7000\"]\n\
         ready = {{ tcp = 7000 }}\n\
         [service.client]\nimage = \"{image}\"\ncommand = [\"/probe\", \"ask\", \"7000\", \"{ANSWERS}\"]\n\
         restart = \"never\"\ndepends-on = {{ server = \"ready\" }}\n"
    );
    let machine = Machine::build(bench, &format!("neighbour-{name}"), Kernel::Own, &config, None)?;
    let mut guest = Guest::run_counted(bench, &machine)?;
    let lines = guest.wait_for("\"median_us\"", 1)?;
    let said =
        lines.first().and_then(|line| line.find('{').and_then(|at| line.get(at..))).unwrap_or_default();
    let latency: Value = serde_json::from_str(said).map_err(because(format!("the client says {said:?}")))?;
    let number = |name: &str| {
        let number = latency.get(name).and_then(Value::as_f64);
        number.ok_or_else(|| format!("the client does not say its `{name}`"))
    };
    match number("answers")? {
        answers if answers == f64::from(ANSWERS) => {
            let (median, nine_of_ten) = (number("median_us")?, number("p90_us")?);
            Ok(Latency { median, nine_of_ten, longest: number("longest_us")? })
        }
        answers => Err(format!("of {ANSWERS} answers came {answers}")),
    }
}

//! `coracle ctl boot`: how the machine came up, as a chart.

use std::path::Path;

use manifest::control::{Answer, Ask, Boot, Node};

use super::channel::Channel;
use super::table::plain;
use super::terminal;
use super::time::seconds;
use super::{print, print_json, svg};
use crate::error::{Context, Error, Result};

/// The narrowest that bars are drawn, in characters.
const BAR_MIN: usize = 20;

/// What something did for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waited for others.
    Queued,
    /// It came up.
    Starting,
    /// It was there.
    Ready,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Queued, Self::Starting, Self::Ready];

    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Ready => "ready",
        }
    }

    fn symbol(self) -> char {
        match self {
            Self::Queued => '·',
            Self::Starting => '▒',
            Self::Ready => '█',
        }
    }
}

/// A line of the chart. Times are nanoseconds since the kernel's start.
#[derive(Debug)]
pub struct Row {
    /// Who.
    pub name: String,
    /// What it did, from when until when.
    pub spans: Vec<(Phase, u64, u64)>,
    /// How long it took, and what went wrong.
    pub says: String,
}

/// A boot, ready to be drawn.
#[derive(Debug)]
pub struct Chart {
    /// What it took in all.
    pub title: String,
    /// From top to bottom.
    pub rows: Vec<Row>,
    /// Where the chart ends.
    pub end_ns: u64,
}

/// Prints how the machine came up, or draws it into a file.
pub fn boot(channel: &mut Channel, picture: Option<&Path>, is_json: bool) -> Result<()> {
    let answers = channel.all(Ask::Boot)?;
    if is_json {
        return print_json(answers.into_iter());
    }
    let (mut boot, mut nodes) = (None, Vec::new());
    for answer in answers {
        match answer {
            Answer::Boot(found) => boot = Some(found),
            Answer::Node(node) => nodes.push(node),
            _ => {}
        }
    }
    let boot = boot.ok_or_else(|| Error::new("the machine does not say how it came up"))?;
    let chart = Chart::of(&boot, &nodes);
    match picture {
        Some(file) => {
            std::fs::write(file, svg::picture(&chart)).doing(|| format!("write `{}`", file.display()))
        }
        None => print(&chart.text(terminal::width())),
    }
}

impl Chart {
    /// The kernel and init first, then services in the order in which they began to start.
    pub fn of(boot: &Boot, nodes: &[Node]) -> Self {
        let moments = |node: &Node| {
            let known = [node.started_ns, node.ready_ns, node.ended_ns];
            known.into_iter().flatten().chain([node.queued_ns]).max().unwrap_or(0)
        };
        let last = nodes.iter().map(moments).max().unwrap_or(0).max(boot.supervised_ns);
        let end_ns = boot.ready_ns.unwrap_or(last).max(1);
        let took = |from: u64, to: u64| seconds(to.saturating_sub(from));
        let own = |name: &str, from, to| Row {
            name: name.to_owned(),
            spans: vec![(Phase::Starting, from, to)],
            says: took(from, to),
        };
        let mut rows = vec![own("kernel", 0, boot.init_ns), own("init", boot.init_ns, boot.supervised_ns)];
        let mut nodes: Vec<&Node> = nodes.iter().collect();
        nodes.sort_by_key(|node| (node.started_ns.unwrap_or(u64::MAX), node.queued_ns));
        rows.extend(nodes.into_iter().map(|node| row(node, end_ns)));
        let parts = format!(
            "{} (kernel {}) + {} (init) + {} (services)",
            seconds(boot.init_ns),
            plain(&boot.kernel),
            took(boot.init_ns, boot.supervised_ns),
            took(boot.supervised_ns, end_ns),
        );
        let ready = if boot.ready_ns.is_some() { "ready after" } else { "not ready after" };
        let mut title = format!("{ready} {} = {parts}", seconds(end_ns));
        if let Some(previous) = &boot.previous {
            title += &format!("\nthe boot before was not ended in order: {}", plain(&previous.cause));
        }
        Self { title, rows, end_ns }
    }

    /// For a terminal that is so wide.
    pub fn text(&self, width: usize) -> String {
        let widest =
            |of: fn(&Row) -> &str| self.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
        let (names, says) = (widest(|row| &row.name), widest(|row| &row.says));
        let bars = width.saturating_sub(names + says + 4).max(BAR_MIN);
        let mut text = format!("{}\n\n", self.title);
        for row in &self.rows {
            let line = format!("{:names$}  {}  {}", row.name, self.bar(row, bars), row.says);
            text += &format!("{}\n", line.trim_end());
        }
        let end = seconds(self.end_ns);
        text += &format!("{:names$}  0{end:>rest$}\n", "", rest = bars - 1);
        let legend: Vec<String> =
            Phase::ALL.iter().map(|phase| format!("{} {}", phase.symbol(), phase.word())).collect();
        text + &format!("{:names$}  {}\n", "", legend.join("  "))
    }

    fn bar(&self, row: &Row, width: usize) -> String {
        let column = |moment: u64| {
            let column = u128::from(moment.min(self.end_ns)) * width as u128 / u128::from(self.end_ns);
            usize::try_from(column).unwrap_or(width)
        };
        let mut bar = vec![' '; width];
        for (phase, from, to) in &row.spans {
            // However short, it is there.
            let from = column(*from).min(width - 1);
            let to = column(*to).max(from + 1);
            bar[from..to].fill(phase.symbol());
        }
        bar.into_iter().collect()
    }
}

fn row(node: &Node, end_ns: u64) -> Row {
    let mut spans = vec![(Phase::Queued, node.queued_ns, node.started_ns.unwrap_or(end_ns))];
    let until = node.ended_ns.unwrap_or(end_ns);
    if let Some(started) = node.started_ns {
        spans.push((Phase::Starting, started, node.ready_ns.unwrap_or(until)));
    }
    if let Some(ready) = node.ready_ns.filter(|ready| *ready < until) {
        spans.push((Phase::Ready, ready, until));
    }
    spans.retain(|(_, from, to)| from < to);
    let mut says = match (node.started_ns, node.ready_ns) {
        (Some(started), Some(ready)) => seconds(ready.saturating_sub(started)),
        (Some(_), None) if node.ended_ns.is_some() => "never ready".to_owned(),
        (Some(_), None) => "not ready yet".to_owned(),
        (None, _) => "not started".to_owned(),
    };
    if let Some(end) = node.end.as_ref().filter(|end| end.code != Some(0)) {
        says += &format!(", {}", plain(&end.text));
    }
    Row { name: node.name.to_string(), spans, says }
}

#[cfg(test)]
pub mod tests {
    use manifest::control::{Cause, End, ServiceKind};

    use super::super::fake::name;
    use super::*;

    fn node(text: &str, times: [u64; 4]) -> Node {
        let known = |time: u64| (time > 0).then_some(time * 1_000_000);
        let [queued, started, ready, ended] = times;
        Node {
            name: name(text),
            kind: ServiceKind::Service,
            after: Vec::new(),
            queued_ns: queued * 1_000_000,
            started_ns: known(started),
            executed_ns: known(started),
            ready_ns: known(ready),
            ended_ns: known(ended),
            end: None,
        }
    }

    /// A machine of five services, of which one has failed and one was left out.
    pub fn shop() -> Chart {
        let boot = Boot {
            kernel: "6.1.0-40-cloud-amd64".to_owned(),
            init_ns: 1_200_000_000,
            supervised_ns: 1_450_000_000,
            ready_ns: Some(4_000_000_000),
            previous: None,
        };
        let failed =
            End { cause: Cause::Exit, code: Some(3), signal: None, text: "ended with code 3".to_owned() };
        let nodes = [
            node("web", [1450, 2900, 2901, 0]),
            node("db", [1450, 1460, 2500, 0]),
            node("migrate", [1450, 2510, 2890, 2890]),
            Node { end: Some(failed), ..node("mailer", [1450, 1470, 0, 1900]) },
            node("left-out", [1450, 0, 0, 0]),
        ];
        Chart::of(&boot, &nodes)
    }

    #[test]
    fn a_chart_shows_who_waited_and_who_started() {
        insta::assert_snapshot!(shop().text(100));
    }

    #[test]
    fn a_chart_fits_into_any_width_and_any_time() {
        for width in [0, 1, 80, 1000] {
            let text = shop().text(width);
            let widest = text.lines().skip(2).map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= width.max(BAR_MIN + 42), "{text}");
        }
        let late = Chart { end_ns: 1, ..shop() };
        assert_eq!(late.text(80).lines().count(), shop().text(80).lines().count());
        let boot =
            Boot { kernel: String::new(), init_ns: 0, supervised_ns: 0, ready_ns: None, previous: None };
        assert!(Chart::of(&boot, &[]).text(80).starts_with("not ready after 0.000 s"));
    }
}

//! Figures: what was measured, beside the peer and the floor, and whether the goal is met.

use std::fmt;

/// What a value counts, and how many decimals of it mean something.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    name: &'static str,
    decimals: usize,
}

/// Wall time or a guest's time.
pub const MILLISECONDS: Unit = Unit { name: "ms", decimals: 1 };
/// The same, of what is shorter.
pub const MICROSECONDS: Unit = Unit { name: "us", decimals: 0 };
/// Of a guest's processor, in millions.
pub const MILLION_INSTRUCTIONS: Unit = Unit { name: "M instr", decimals: 2 };
/// 10⁶ bytes in a second.
pub const MEGABYTES_PER_SECOND: Unit = Unit { name: "MB/s", decimals: 0 };
/// 10⁶ bytes.
pub const MEGABYTES: Unit = Unit { name: "MB", decimals: 2 };
/// 10³ bytes.
pub const KILOBYTES: Unit = Unit { name: "KB", decimals: 1 };

/// How often something happens.
pub const TIMES: Unit = Unit { name: "times", decimals: 0 };
/// 2²⁰ bytes, as QEMU counts memory.
pub const MEBIBYTES: Unit = Unit { name: "MiB", decimals: 0 };

/// What is hoped for.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// Where less is better.
    AtMost(f64, Measure),
    /// Where more is better.
    AtLeast(f64, Measure),
}

/// What a goal's number counts.
#[derive(Debug, Clone, Copy)]
pub enum Measure {
    /// The figure's own unit.
    Units,
    /// Multiples of the floor's value.
    Floors,
    /// Multiples of the peer's value.
    Peers,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Figure {
    /// The row of the design that it belongs to.
    pub row: &'static str,
    /// What was measured.
    pub what: String,
    /// Of all three values.
    pub unit: Unit,
    /// Coracle's value.
    pub ours: f64,
    /// What a user would pick instead.
    pub peer: Option<f64>,
    /// The least that the same work can take.
    pub floor: Option<f64>,
    /// None for what is only told.
    pub goal: Option<Goal>,
}

impl Figure {
    /// A value that stands alone.
    pub fn new(row: &'static str, what: impl Into<String>, unit: Unit, ours: f64) -> Self {
        Self { row, what: what.into(), unit, ours, peer: None, floor: None, goal: None }
    }

    /// Beside what a user would pick instead.
    pub fn peer(self, value: f64) -> Self {
        Self { peer: Some(value), ..self }
    }

    /// Beside the least that the same work can take.
    pub fn floor(self, value: f64) -> Self {
        Self { floor: Some(value), ..self }
    }

    /// With a goal.
    pub fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Whether the goal is met; none without a goal, or without the value that it speaks of.
    pub fn is_met(&self) -> Option<bool> {
        let scale = |measure| match measure {
            Measure::Units => Some(1.0),
            Measure::Floors => self.floor,
            Measure::Peers => self.peer,
        };
        Some(match self.goal? {
            Goal::AtMost(limit, measure) => self.ours <= limit * scale(measure)?,
            Goal::AtLeast(limit, measure) => self.ours >= limit * scale(measure)?,
        })
    }

    /// The cells of its line, as [`HEADINGS`] name them.
    fn cells(&self) -> [String; 9] {
        let with_unit = |value: f64| format!("{} {}", self.number(value), self.unit.name);
        let beside = |value: Option<f64>| value.map(with_unit).unwrap_or_default();
        let ratio = |value: Option<f64>| match value {
            Some(other) if other > 0.0 => format!("{:.2} ×", self.ours / other),
            _ => String::new(),
        };
        let verdict = match self.is_met() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        [
            self.row.to_owned(),
            self.what.clone(),
            with_unit(self.ours),
            beside(self.peer),
            ratio(self.peer),
            beside(self.floor),
            ratio(self.floor),
            self.goal.map(|goal| self.hope(goal)).unwrap_or_default(),
            verdict.to_owned(),
        ]
    }

    fn number(&self, value: f64) -> String {
        format!("{value:.*}", self.unit.decimals)
    }

    fn hope(&self, goal: Goal) -> String {
        let (sign, limit, measure) = match goal {
            Goal::AtMost(limit, measure) => ('≤', limit, measure),
            Goal::AtLeast(limit, measure) => ('≥', limit, measure),
        };
        let measure = match measure {
            Measure::Units => self.unit.name,
            Measure::Floors => "× floor",
            Measure::Peers => "× peer",
        };
        format!("{sign} {limit} {measure}")
    }
}

const HEADINGS: [&str; 9] =
    ["row", "measured", "Coracle", "peer", "of peer", "floor", "of floor", "goal", "verdict"];

/// Figures as a table in Markdown, its columns aligned for those who read it as text.
pub struct Table<'a>(pub &'a [Figure]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<[String; 9]> =
            std::iter::once(HEADINGS.map(str::to_owned)).chain(self.0.iter().map(Figure::cells)).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
        for (number, line) in lines.iter().enumerate() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Values are read from the right, words from the left.
                let cell = if (2..=6).contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:width$}")
                };
                write!(text, "| {cell} ")?;
            }
            writeln!(text, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let end = if (2..=6).contains(&column) { ":" } else { "-" };
                    write!(text, "|{}{end}", "-".repeat(width + 1))?;
                }
                writeln!(text, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_at_its_very_limit() {
        let figure = Figure::new("B2", "x", MILLISECONDS, 50.0).peer(100.0).floor(25.0);
        for (goal, is_met) in [
            (Goal::AtMost(50.0, Measure::Units), true),
            (Goal::AtMost(49.9, Measure::Units), false),
            (Goal::AtMost(2.0, Measure::Floors), true),
            (Goal::AtMost(1.9, Measure::Floors), false),
            (Goal::AtLeast(2.0, Measure::Floors), true),
            (Goal::AtLeast(2.1, Measure::Floors), false),
            (Goal::AtMost(0.5, Measure::Peers), true),
            (Goal::AtMost(0.4, Measure::Peers), false),
            (Goal::AtLeast(0.5, Measure::Peers), true),
            (Goal::AtLeast(0.6, Measure::Peers), false),
        ] {
            assert_eq!(figure.clone().goal(goal).is_met(), Some(is_met), "{goal:?}");
        }
        assert_eq!(figure.is_met(), None);
    }

    #[test]
    fn a_goal_beside_a_floor_that_was_not_measured_is_neither_met_nor_missed() {
        let figure = Figure::new("S2", "x", MILLISECONDS, 50.0).goal(Goal::AtMost(3.0, Measure::Floors));
        assert_eq!(figure.is_met(), None);
    }

    #[test]
    fn the_table_is_aligned_and_says_what_is_missed() {
        let figures = [
            Figure::new("B2", "warm build", MILLISECONDS, 61.25)
                .floor(1.0)
                .goal(Goal::AtMost(50.0, Measure::Units)),
            Figure::new("S1", "boot", MILLION_INSTRUCTIONS, 110.0)
                .peer(100.0)
                .goal(Goal::AtMost(1.15, Measure::Peers)),
        ];
        let expected = "\
| row | measured   |        Coracle |           peer | of peer |  floor | of floor | goal          | verdict    |
|-----|------------|---------------:|---------------:|--------:|-------:|---------:|---------------|------------|
| B2  | warm build |        61.2 ms |                |         | 1.0 ms |  61.25 × | ≤ 50 ms       | **missed** |
| S1  | boot       | 110.00 M instr | 100.00 M instr |  1.10 × |        |          | ≤ 1.15 × peer | met        |
";
        assert_eq!(Table(&figures).to_string(), expected);
    }
}

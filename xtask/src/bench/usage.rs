//! What a program on the host takes: wall time and memory.

use std::process::Command;

use super::Bench;
use crate::process::{Result, run_quietly};

/// What one run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// From the start to the end, in milliseconds.
    pub milliseconds: f64,
    /// On all processors together, in milliseconds.
    pub processor: f64,
    /// The most memory that one of its processes had resident at a time, in bytes.
    pub peak: f64,
}

/// Runs a program through `examples/usage.rs`.
pub fn measure(bench: &Bench, program: &Command) -> Result<Usage> {
    let mut command = Command::new(&bench.usage);
    command.arg(program.get_program()).args(program.get_args()).current_dir(&bench.workspace.root);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    parse(&run_quietly(&mut command)?)
}

fn parse(line: &str) -> Result<Usage> {
    let mut numbers = line.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Ok(wall)), Some(Ok(processor)), Some(Ok(kibibytes)), None) => {
            Ok(Usage { milliseconds: wall / 1e6, processor: processor / 1e6, peak: kibibytes * 1024.0 })
        }
        _ => Err(format!("{line:?} is no usage")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_is_three_numbers() {
        let expected = Usage { milliseconds: 2.5, processor: 3.0, peak: 4096.0 };
        assert_eq!(parse("2500000 3000000 4\n"), Ok(expected));
        for text in ["", "1", "1 2", "1 2 x", "1 2 3 4"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

//! Running other programs, with errors that say which one failed and how.

use std::fmt::Display;
use std::io::IsTerminal;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What every task returns: nothing, or a sentence that says what failed and why.
pub type Result<T> = std::result::Result<T, String>;

/// Turns a cause into a sentence: `map_err(because("cannot read `x`"))`.
pub fn because<E: Display>(what: impl Display) -> impl FnOnce(E) -> String {
    move |cause| format!("{what}: {cause}")
}

/// Runs a program to its end; any exit code but 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(because(format!("cannot run `{}`", shown(command))))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed: {status}", shown(command))) }
}

/// Runs a program and keeps what it prints; a failure carries all of it.
pub fn run_quietly(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let output = command.output().map_err(because(format!("cannot run `{}`", shown(command))))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}` failed: {}\n{stdout}{stderr}", shown(command), output.status))
}

/// Announces a step, performs it, and says how long it took.
pub fn step<T>(name: &str, perform: impl FnOnce() -> Result<T>) -> Result<T> {
    heading(name);
    let begun = Instant::now();
    let done = perform()?;
    eprintln!("   {name}: done in {}", seconds(begun.elapsed()));
    Ok(done)
}

/// Prints a line that stands out, between the output of other programs.
pub fn heading(text: &str) {
    let (bold, plain) = if std::io::stderr().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    eprintln!("{bold}=> {text}{plain}");
}

/// A duration as people read it.
pub fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// The program and its arguments, cut where they become a script.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

//! `docs/system-calls.md`, which lists the default profile for people, and for the test that tries every number in a
//! machine.

use std::fmt::Write;
use std::path::Path;

use super::super::policy::{ENOSYS, EPERM, Verdict};
use super::super::{number, profile};

/// What stands above the first list is written by hand.
const FIRST: &str = "## Allowed\n";

/// The widest line.
const WIDTH: usize = 110;

/// The lists, as the profile has them.
fn lists() -> String {
    let mut text = String::new();
    for (heading, verdict) in [
        (FIRST, Verdict::Allow),
        ("## Refused: EPERM\n", Verdict::Errno(EPERM)),
        ("## Missing: ENOSYS\n", Verdict::Errno(ENOSYS)),
    ] {
        text += heading;
        for group in profile::GROUPS.iter().filter(|group| group.verdict == verdict) {
            let numbered = |name| format!("{name} {}", number::number(name).unwrap());
            let calls: Vec<String> = group.calls.split_whitespace().map(numbered).collect();
            write!(text, "\n{}:\n\n{}", capitalised(group.why), wrapped("", "", &calls)).unwrap();
        }
        text += "\n";
    }
    text += "## Decided by arguments\n\n";
    for filtered in profile::FILTERED {
        let number = number::number(filtered.call).unwrap();
        writeln!(text, "- {} {number}: {}", filtered.call, filtered.why).unwrap();
    }
    text += "\n## Allowed by capabilities\n\n";
    for (capability, calls) in profile::BY_CAPABILITY {
        let calls: Vec<String> = calls.split_whitespace().map(str::to_owned).collect();
        text += &wrapped(&format!("- {capability}:"), "  ", &calls);
    }
    text
}

fn capitalised(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

/// Items in lines, the later ones of which begin with `indent`.
fn wrapped(first: &str, indent: &str, items: &[String]) -> String {
    let mut lines = vec![first.to_owned()];
    for (index, item) in items.iter().enumerate() {
        let comma = if index + 1 < items.len() { "," } else { "" };
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = format!("{item}{comma}"),
            Some(line) if line.len() + item.len() + 2 <= WIDTH => *line += &format!(" {item}{comma}"),
            _ => lines.push(format!("{indent}{item}{comma}")),
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_documentation_lists_the_default_profile() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/system-calls.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (introduction, listed) = text.split_at(text.find(FIRST).unwrap());
    if listed != lists() {
        let draft = path.with_extension("md.new");
        std::fs::write(&draft, introduction.to_owned() + &lists()).unwrap();
        panic!("the lists are others: compare `{}` and rename it", draft.display());
    }
}

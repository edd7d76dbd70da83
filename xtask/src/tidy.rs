//! The rules that no compiler checks. Each finding names a place and what to do there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Result, because, run_quietly};
use crate::workspace::{Workspace, read_file};

/// The most lines that a file may have: by its name, or by how the name ends; the first that fits counts.
const LINE_LIMITS: &[(&str, usize)] = &[
    ("README.md", 90),
    ("ARCHITECTURE.md", 200),
    ("CONTRIBUTING.md", 60),
    (".rs", 600),
    ("configs/*.toml", 40),
];

/// The one file in which `unsafe` may stand.
const UNSAFE_FILE: &str = "init/src/sys.rs";

/// All that is linked into init, or runs while it is built. A new line here is a decision: see "init" in
/// the design's list of dependencies.
const INIT_DEPENDENCIES: &[&str] = &[
    "autocfg",
    "bitflags",
    "cfg-if",
    "cfg_aliases",
    "itoa",
    "libc",
    "linux-raw-sys",
    "manifest",
    "memchr",
    "memoffset",
    "nix",
    "proc-macro2",
    "quote",
    "rustix",
    "serde",
    "serde_core",
    "serde_derive",
    "serde_json",
    "supervision",
    "syn",
    "unicode-ident",
    "zmij",
];

/// Not looked into: what is made, and what is not ours.
const SKIPPED_FOLDERS: &[&str] = &["target", ".git"];

/// Checks the whole workspace and reports every finding at once.
pub fn tidy(workspace: &Workspace) -> Result<()> {
    let mut paths = Vec::new();
    list(&workspace.root, &mut paths)?;
    paths.sort();
    let files: Vec<(String, String)> = paths
        .iter()
        .filter(|path| {
            path.extension().is_some_and(|e| ["rs", "toml", "md", "sh"].iter().any(|known| e == *known))
        })
        .map(|path| {
            let name = path.strip_prefix(&workspace.root).unwrap_or(path).to_string_lossy().into_owned();
            read_file(path).map(|text| (name, text))
        })
        .collect::<Result<_>>()?;
    let boot_tests: String = files
        .iter()
        .filter(|(name, _)| name.starts_with("tests/tests/"))
        .map(|(_, text)| text.as_str())
        .collect();

    let mut findings: Vec<String> = Vec::new();
    for (name, text) in &files {
        findings.extend(check_file(name, text));
        if is_config(name) && !boot_tests.contains(name.as_str()) {
            findings.push(format!("{name}:1: no file in tests/tests/ boots this config: name it in one"));
        }
    }
    findings.extend(check_init_dependencies(workspace)?);
    if findings.is_empty() { Ok(()) } else { Err(format!("the tree is untidy\n{}", findings.join("\n"))) }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = || format!("cannot list `{}`", folder.display());
    for entry in fs::read_dir(folder).map_err(because(cannot()))? {
        let entry = entry.map_err(because(cannot()))?;
        let kind = entry.file_type().map_err(because(cannot()))?;
        let is_skipped = SKIPPED_FOLDERS.iter().any(|skipped| entry.file_name() == *skipped);
        if kind.is_dir() && !is_skipped {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn is_config(name: &str) -> bool {
    name.starts_with("configs/") && name.ends_with(".toml")
}

/// The findings in one file.
fn check_file(name: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let fits = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => name.starts_with(start) && name.ends_with(end),
        None if pattern.starts_with('.') => name.ends_with(pattern),
        None => name == pattern,
    };
    let lines = text.lines().count();
    if let Some((_, limit)) = LINE_LIMITS.iter().find(|(pattern, _)| fits(pattern))
        && lines > *limit
    {
        findings.push(format!("{name}:{limit}: {lines} lines, and {limit} is the most: split or shorten it"));
    }
    if name.ends_with(".rs") && !text.starts_with("//!") {
        findings.push(format!("{name}:1: begin with a `//!` line that says what this module is"));
    }
    // Put together here, so that this file is tidy itself.
    let unfinished = ["TO", "DO"].concat();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        if line.contains(&unfinished) {
            findings.push(format!("{place}: do it, or write an issue: no `{unfinished}` is kept"));
        }
        if name.ends_with(".rs") && name != UNSAFE_FILE && has_word(&code(line), "unsafe") {
            findings.push(format!("{place}: `unsafe` belongs into {UNSAFE_FILE}"));
        }
    }
    findings
}

/// A line without its comment and without what stands between quotes.
fn code(line: &str) -> String {
    let bare = line.split("//").next().unwrap_or_default();
    bare.split('"').step_by(2).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|other| other == word)
}

/// Compares what cargo would link into init with the list above.
fn check_init_dependencies(workspace: &Workspace) -> Result<Vec<String>> {
    let tree = run_quietly(Command::new(env!("CARGO")).current_dir(&workspace.root).args([
        "tree",
        "--package=init",
        "--edges=normal,build",
        "--prefix=none",
        "--format={p}",
        "--target=x86_64-unknown-linux-gnu",
    ]))?;
    let mut found: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "init")
        .collect();
    found.sort_unstable();
    found.dedup();
    let here = file!();
    let added = found.iter().filter(|name| !INIT_DEPENDENCIES.contains(name));
    let gone = INIT_DEPENDENCIES.iter().filter(|name| !found.contains(name));
    Ok(added
        .map(|name| format!("init/Cargo.toml:1: init depends on `{name}`, which {here} does not list: do without it or add it"))
        .chain(gone.map(|name| format!("{here}:1: init does not depend on `{name}` any more: remove it from the list")))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_breach_and_says_where() {
        let unfinished = ["// TO", "DO later"].concat();
        for (name, text, finding) in [
            ("a/src/x.rs", "fn main() {}".to_owned(), "a/src/x.rs:1: begin with"),
            ("a/src/x.rs", format!("//! x\n{unfinished}"), "a/src/x.rs:2: do it"),
            ("a/src/x.rs", "//! x\n\nunsafe { f() }".to_owned(), "a/src/x.rs:3: `unsafe` belongs"),
            ("a/src/x.rs", "//!\n".repeat(601), "a/src/x.rs:600: 601 lines"),
            ("README.md", "x\n".repeat(91), "README.md:90: 91 lines"),
            ("configs/a.toml", "x\n".repeat(41), "configs/a.toml:40: 41 lines"),
        ] {
            let findings = check_file(name, &text);
            assert!(findings.len() == 1 && findings[0].starts_with(finding), "{findings:?} for {finding}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_found() {
        for (name, text) in [
            ("init/src/sys.rs", "//! The border.\nunsafe { f() }"),
            ("a/src/x.rs", "//! x\n// unsafe in a comment\nlet s = \"unsafe\";\n#![expect(unsafe_code)]"),
            ("docs/README.md", "x"),
        ] {
            assert_eq!(check_file(name, text), Vec::<String>::new(), "{name}");
        }
    }
}

//! Faults in machines that run for minutes: the long forms of the tests, and the list of what was survived.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::process::{Result, because, run, run_quietly};
use crate::workspace::{Workspace, read_file, write_file};

/// What may be asked for: for how many minutes each long form goes on.
pub const OPTIONS: &[&str] = &[MINUTES, crate::NUMBER];
const MINUTES: &str = "--minutes";

/// How many they are unless said otherwise.
const USUAL_MINUTES: u32 = 10;

/// The tests that take down what was survived.
const TESTS: &[&str] = &["survival", "faults", "own_init", "watchdog"];

/// The document, and where in it the generated part begins.
const DOCUMENT: &str = "docs/faults.md";
const MARK: &str = "<!-- made by cargo xtask soak -->\n";

/// A fault and how it is done.
type Fault = (String, String);

/// Runs the tests in their long form, prints what was survived as JSON lines, and writes it into the document. What was not
/// survived is not in the list, and the task fails.
pub fn soak(workspace: &Workspace, options: &[String]) -> Result<()> {
    let minutes = match options {
        [] => USUAL_MINUTES,
        [flag, number] if flag == MINUTES => number.parse().map_err(because(format!("`{number}`")))?,
        _ => return Err(format!("say `{MINUTES} N`")),
    };
    let list = workspace.target("faults.jsonl");
    if list.exists() {
        fs::remove_file(&list).map_err(because(format!("cannot remove `{}`", list.display())))?;
    }
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(&workspace.root).args(["test", "--package", "tests"]);
    command.args(TESTS.iter().flat_map(|test| ["--test", test]));
    command.arg("--no-fail-fast");
    command.env("CORACLE_SOAK_SECONDS", (u64::from(minutes) * 60).to_string()).env("CORACLE_FAULTS", &list);
    let verdict = run(&mut command);
    let text = read_file(&list)?;
    print!("{text}");
    let took = begun.elapsed().as_secs().div_ceil(60);
    let date = run_quietly(Command::new("date").arg("+%F"))?;
    let table = table(&text)?;
    let made =
        format!("On {} in {took} minutes, of which each long form had {minutes}:\n\n{table}", date.trim());
    let path = workspace.root.join(DOCUMENT);
    let document = read_file(&path)?;
    let Some((head, _)) = document.split_once(MARK) else {
        return Err(format!("`{DOCUMENT}` does not say where the list belongs: `{}`", MARK.trim_end()));
    };
    write_file(&path, &format!("{head}{MARK}\n{made}"))?;
    verdict
}

/// A row for each fault and method, in order, with the sums; and one for each neighbour that was asked meanwhile.
fn table(lines: &str) -> Result<String> {
    let mut rows: BTreeMap<Fault, (u64, u64)> = BTreeMap::new();
    let mut neighbours = String::new();
    for line in lines.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).map_err(because(format!("cannot read `{line}`")))?;
        if let Some(amid) = value["neighbour"].as_str() {
            neighbours += &neighbour(amid, &value);
            continue;
        }
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| value[key].as_u64().unwrap_or_default();
        let (injections, passes) = rows.entry((text("fault"), text("method"))).or_default();
        *injections += number("injections");
        *passes += number("passes");
    }
    let mut table = "| fault | method | injections | passes |\n|---|---|---|---|\n".to_owned();
    for ((fault, method), (injections, passes)) in rows {
        table += &format!("| {fault} | {method} | {injections} | {passes} |\n");
    }
    if !neighbours.is_empty() {
        table += NEIGHBOURS;
        table += &neighbours;
    }
    Ok(table)
}

/// Times are no verdict: processors are emulated and shared.
const NEIGHBOURS: &str = "\nHow fast a neighbour answers, in milliseconds before and amid it:\n\n\
                          | amid | answers | median | 9 of 10 | longest |\n|---|---|---|---|---|\n";

fn neighbour(amid: &str, value: &serde_json::Value) -> String {
    let milliseconds = |time: &str, key: &str| value[time][key].as_u64().unwrap_or_default() as f64 / 1e3;
    let both = |key: &str| format!("{:.1}, {:.1}", milliseconds("before", key), milliseconds("amid", key));
    let answers = &value["amid"]["answers"];
    format!("| {amid} | {answers} | {} | {} | {} |\n", both("median_us"), both("p90_us"), both("longest_us"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_sums_of_faults_and_what_neighbours_took() {
        let lines = r#"{"fault":"a","method":"b","injections":2,"passes":1}
{"neighbour":"c","before":{"median_us":1500},"amid":{"answers":25,"median_us":2000,"longest_us":12345}}
{"fault":"a","method":"b","injections":3,"passes":1}"#;
        let table = table(lines).unwrap();
        assert!(table.contains("| a | b | 5 | 2 |\n"), "{table}");
        assert!(table.ends_with("| c | 25 | 1.5, 2.0 | 0.0, 0.0 | 0.0, 12.3 |\n"), "{table}");
        assert!(table.contains("| amid | answers |"), "{table}");
    }
}

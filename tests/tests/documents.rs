//! What the documents show is true.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs;

use tests::{coracle, folder, root};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("cannot read `{path}`: {error}"))
}

/// The contents of the blocks of a language, in their order.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    document.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_readme_shows_the_demos_config() {
    let demo = read("configs/demo.toml");
    let lines: Vec<&str> = demo.lines().skip_while(|line| line.starts_with('#') || line.is_empty()).collect();
    assert_eq!(blocks(&read("README.md"), "toml"), [lines.join("\n") + "\n"]);
}

#[test]
fn the_readmes_commands_work() {
    let shown = blocks(&read("README.md"), "console").concat();
    // `run` is what run.rs and configs.rs do, and `ctl` what control.rs does.
    let commands: Vec<&str> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("$ coracle "))
        .filter(|command| !command.starts_with("run ") && !command.starts_with("ctl "))
        .collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    let out = folder("readme").display().to_string();
    for command in commands {
        let words = command.split('#').next().unwrap().split_whitespace();
        let words: Vec<&str> = words.map(|word| if word == "out" { &out } else { word }).collect();
        let output = coracle().args(&words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stdout.is_empty(), "{words:?} prints nothing");
    }
}

#[test]
fn the_simulation_that_is_shown_is_what_coracle_prints() {
    let document = read("docs/supervision.md");
    let blocks = blocks(&document, "console");
    let simulation = blocks.iter().find(|block| block.starts_with("$ coracle simulate ")).unwrap();
    let (command, shown) = simulation.split_once('\n').unwrap();
    let (config, rest) = command.strip_prefix("$ coracle simulate ").unwrap().split_once(' ').unwrap();
    let events = rest.strip_prefix("--event \"").unwrap().trim_end_matches('"');
    let output = coracle().args(["simulate", config, "--event", events]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), shown);
}

#[test]
fn the_reference_of_the_config_is_complete_and_its_example_is_right() {
    let document = read("docs/config.md");
    let documents = document.clone() + &read("docs/supervision.md");
    let code = ["raw", "limits", "profile", "supervision/raw"]
        .map(|file| read(&format!("builder/src/config/{file}.rs")))
        .concat();
    let keys: Vec<&str> =
        code.split("fields.take(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(keys.contains(&"stop-grace-period") && keys.contains(&"pids-limit"), "{keys:?}");
    for key in keys {
        let is_there =
            documents.contains(&format!("`{key}`")) || documents.contains(&format!("`kernel.{key}`"));
        assert!(is_there, "`{key}` is missing");
    }
    let [example] = blocks(&document, "toml")[..] else { panic!("one example is expected") };
    let example = example.replace("../target", &root().join("target").display().to_string());
    let path = folder("documents").join("everything.toml");
    fs::write(&path, example).unwrap();
    let output = coracle().arg("check").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn everything_that_is_masked_is_listed() {
    let document = read("docs/security.md");
    for (path, _) in manifest::mask::MASKS {
        assert!(document.contains(&format!("`{path}`")), "{path} is missing");
    }
}

/// Between backticks, the last column of each row has files, each followed by the test in it.
#[test]
fn every_bug_of_another_runtime_has_the_test_that_is_named() {
    let document = read("docs/escapes.md");
    let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let words: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!words.is_empty() && words.len().is_multiple_of(2), "{row}");
        for pair in words.chunks(2) {
            assert!(read(pair[0]).contains(&format!("fn {}(", pair[1])), "{} has no {}", pair[0], pair[1]);
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/config.md",
        "docs/control.md",
        "docs/escapes.md",
        "docs/security.md",
        "docs/supervision.md",
        "docs/system-calls.md",
    ] {
        let folder = root().join(document).parent().unwrap().to_owned();
        let text = read(document);
        let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| !link.starts_with("http")) {
            let link = link.split('#').next().unwrap();
            assert!(folder.join(link).exists(), "{document}: `{link}` is not there");
        }
    }
}

//! apt's sources, read in both of their notations and rewritten for another suite.
//!
//! Derived from the machine's own, so that its mirror and its keys are used and no host is named here.

/// What is taken from an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What is installed.
    Packages,
    /// What it was made from.
    Sources,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Packages => "deb",
            Self::Sources => "deb-src",
        }
    }
}

/// The entries of a deb822 file (`NAME.sources`) that belong to suite `from`, for suite `to`.
///
/// What is of another origin (a suite of another name, or no component `main`) is left out: it may have nothing
/// for the other suite.
pub fn rewrite_deb822(text: &str, from: &str, to: &str, kind: Kind) -> String {
    let stanzas: Vec<String> = text
        .split("\n\n")
        .map(|stanza| stanza.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>())
        .filter_map(|stanza| rewrite_stanza(&stanza, from, to, kind))
        .collect();
    stanzas.join("\n")
}

fn rewrite_stanza(lines: &[&str], from: &str, to: &str, kind: Kind) -> Option<String> {
    let field = |name: &str| {
        lines.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    };
    if field("Enabled").is_some_and(|value| value.trim() == "no")
        || !field("Components")?.split_whitespace().any(|component| component == "main")
    {
        return None;
    }
    let suites = rewrite_suites(field("Suites")?, from, to);
    if suites.is_empty() {
        return None;
    }
    let rewritten = lines.iter().map(|line| match line.split_once(':') {
        Some((key, _)) if key.eq_ignore_ascii_case("Suites") => format!("Suites: {}\n", suites.join(" ")),
        Some((key, _)) if key.eq_ignore_ascii_case("Types") => format!("Types: {}\n", kind.word()),
        _ => format!("{line}\n"),
    });
    Some(rewritten.collect())
}

/// The entries of a file of lines (`sources.list`) that belong to suite `from`, for suite `to`.
pub fn rewrite_lines(text: &str, from: &str, to: &str, kind: Kind) -> String {
    text.lines().filter_map(|line| rewrite_line(line, from, to, kind)).collect()
}

fn rewrite_line(line: &str, from: &str, to: &str, kind: Kind) -> Option<String> {
    let rest = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (options, rest) = bracketed.split_once(']')?;
            (format!("[{}] ", options.trim()), rest)
        }
        None => (String::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let components: Vec<&str> = words.take_while(|word| !word.starts_with('#')).collect();
    let suites = rewrite_suites(suite, from, to);
    let suite = suites.first().filter(|_| components.contains(&"main"))?;
    Some(format!("{} {options}{uri} {suite} {}\n", kind.word(), components.join(" ")))
}

/// `from` and `from-updates`, `from/updates` … with the name exchanged; backports are nobody's default.
fn rewrite_suites(suites: &str, from: &str, to: &str) -> Vec<String> {
    suites
        .split_whitespace()
        .filter_map(|suite| suite.strip_prefix(from))
        .filter(|rest| rest.is_empty() || rest.starts_with(['-', '/']))
        .filter(|rest| !rest.contains("backports"))
        .map(|rest| format!("{to}{rest}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deb822_file_moves_to_the_other_suite_and_loses_what_is_not_debians() {
        let text = "Types: deb deb-src\n# a comment\nURIs: mirror:/m\nSuites: bookworm bookworm-updates bookworm-backports\n\
                    Components: main contrib\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: mirror:/s\nSuites: bookworm-security\n\
                    Components: main\n\nTypes: deb\nURIs: mirror:/other\nSuites: nodistro\nComponents: main\n\n\
                    Types: deb\nURIs: mirror:/vendor\nSuites: bookworm\nComponents: stable\n\n\
                    Enabled: no\nTypes: deb\nURIs: mirror:/off\nSuites: bookworm\nComponents: main\n";
        assert_eq!(
            rewrite_deb822(text, "bookworm", "trixie", Kind::Packages),
            "Types: deb\nURIs: mirror:/m\nSuites: trixie trixie-updates\nComponents: main contrib\nSigned-By: /k.gpg\n\n\
             Types: deb\nURIs: mirror:/s\nSuites: trixie-security\nComponents: main\n"
        );
    }

    #[test]
    fn a_file_of_lines_moves_to_the_other_suite() {
        let text = "# comment\ndeb [signed-by=/k.gpg arch=amd64] mirror:/m bookworm main contrib # tail\n\
                    deb-src mirror:/m bookworm main\ndeb mirror:/s bookworm-security main\n\
                    deb mirror:/m bookworm-backports main\ndeb mirror:/vendor bookworm stable\ndeb mirror:/x nodistro main\n";
        assert_eq!(
            rewrite_lines(text, "bookworm", "trixie", Kind::Packages),
            "deb [signed-by=/k.gpg arch=amd64] mirror:/m trixie main contrib\ndeb mirror:/s trixie-security main\n"
        );
    }

    #[test]
    fn the_machine_that_already_is_of_the_suite_keeps_its_lines() {
        let line = "deb mirror:/m trixie main\n";
        assert_eq!(rewrite_lines(line, "trixie", "trixie", Kind::Packages), line);
    }

    #[test]
    fn sources_are_where_the_packages_are() {
        let line = "deb [arch=amd64] mirror:/m trixie main\ndeb-src mirror:/x trixie main\n";
        let lines = rewrite_lines(line, "trixie", "bookworm", Kind::Sources);
        assert_eq!(lines, "deb-src [arch=amd64] mirror:/m bookworm main\n");
        let stanza = "Types: deb\nURIs: mirror:/m\nSuites: trixie\nComponents: main";
        let stanza = rewrite_deb822(stanza, "trixie", "bookworm", Kind::Sources);
        assert_eq!(stanza, "Types: deb-src\nURIs: mirror:/m\nSuites: bookworm\nComponents: main\n");
    }
}

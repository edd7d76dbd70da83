//! The command line, as runtimes for OCI have it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::config::{Process, User};
use crate::lifecycle::{self, Addition, Console, Creation};
use crate::{Result, because};

const USAGE: &str = "usage: oci [--root DIR] COMMAND
  create [--bundle DIR] [--config FILE] [--pid-file FILE] [--console-socket SOCKET] ID
  run    likewise, and [--detach]
  start|state ID
  kill [--all] ID [SIGNAL]
  delete [--force] ID
  exec [--process FILE] [--env NAME=VALUE] [--cwd DIR] [--user UID[:GID]] [--cap NAME] [--no-new-privs] [--tty]
       [--cgroup PATH] [--detach] [--pid-file FILE] [--console-socket SOCKET] ID [PROGRAM ARGUMENT...]";

/// An option: its names, and whether a value follows.
type Flag = (&'static str, &'static str, bool);

const GLOBAL: &[Flag] = &[
    ("--root", "", true),
    ("--cgroup-manager", "", true),
    ("--log", "", true),
    ("--log-format", "", true),
    ("--debug", "", false),
    ("--version", "-v", false),
];
const CREATE: &[Flag] = &[
    ("--bundle", "-b", true),
    ("--config", "-f", true),
    ("--pid-file", "", true),
    ("--console-socket", "", true),
    ("--preserve-fds", "", true),
    ("--detach", "-d", false),
];
const KILL: &[Flag] = &[("--all", "-a", false)];
const DELETE: &[Flag] = &[("--force", "-f", false)];
const EXEC: &[Flag] = &[
    ("--process", "-p", true),
    ("--env", "-e", true),
    ("--cwd", "", true),
    ("--user", "-u", true),
    ("--cap", "-c", true),
    ("--no-new-privs", "", false),
    ("--tty", "-t", false),
    ("--cgroup", "", true),
    ("--detach", "-d", false),
    ("--pid-file", "", true),
    ("--console-socket", "", true),
];

/// Options that were given, and the words after them.
struct Line<'a> {
    options: BTreeMap<&'static str, Vec<&'a str>>,
    words: &'a [String],
}

impl<'a> Line<'a> {
    fn parse(mut words: &'a [String], known: &[Flag]) -> Result<Self> {
        let mut options: BTreeMap<&'static str, Vec<&'a str>> = BTreeMap::new();
        while let Some((word, rest)) = words.split_first().filter(|(word, _)| word.starts_with('-')) {
            words = rest;
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let found = known.iter().find(|(long, short, _)| *long == name || *short == name);
            let Some((long, _, takes_value)) = found else {
                return Err(format!("there is no option `{name}`\n{USAGE}"));
            };
            let value = match (takes_value, attached) {
                (true, Some(value)) => value,
                (true, None) => {
                    let (value, rest) =
                        words.split_first().ok_or_else(|| format!("{long}: a value is missing"))?;
                    words = rest;
                    value
                }
                (false, None) => "",
                (false, Some(_)) => return Err(format!("{long} takes no value")),
            };
            options.entry(long).or_default().push(value);
        }
        Ok(Self { options, words })
    }

    fn has(&self, option: &str) -> bool {
        self.options.contains_key(option)
    }

    fn all(&self, option: &str) -> &[&'a str] {
        self.options.get(option).map_or(&[], Vec::as_slice)
    }

    fn value(&self, option: &str) -> Option<&'a str> {
        self.all(option).last().copied()
    }

    fn path(&self, option: &str) -> Option<PathBuf> {
        self.value(option).map(PathBuf::from)
    }

    fn id(&self) -> Result<&'a str> {
        self.words.first().map(String::as_str).ok_or_else(|| format!("an id is missing\n{USAGE}"))
    }

    fn console(&self, otherwise: Console) -> Console {
        self.path("--console-socket").map_or(otherwise, Console::Socket)
    }
}

/// Performs one command, and returns its exit code.
pub fn perform(words: &[String]) -> Result<i32> {
    let global = Line::parse(words, GLOBAL)?;
    if global.has("--version") {
        println!("oci {}\nspec: 1.0.0", env!("CARGO_PKG_VERSION"));
        return Ok(0);
    }
    if global.value("--cgroup-manager").is_some_and(|manager| manager != "cgroupfs") {
        return Err("--cgroup-manager: cgroups are made by `cgroupfs` only".to_owned());
    }
    let root = global.path("--root").unwrap_or_else(|| "/run/oci".into());
    let (command, rest) = global.words.split_first().ok_or(USAGE)?;
    match command.as_str() {
        "create" => {
            let line = Line::parse(rest, CREATE)?;
            lifecycle::create(&root, line.id()?, &creation(&line, Console::Nobody)?).map(|_| 0)
        }
        "run" => run(&root, &Line::parse(rest, CREATE)?),
        "start" => lifecycle::start(&root, Line::parse(rest, &[])?.id()?).map(|()| 0),
        "state" => {
            println!("{}", lifecycle::state(&root, Line::parse(rest, &[])?.id()?)?);
            Ok(0)
        }
        "kill" => {
            let line = Line::parse(rest, KILL)?;
            let signal = signal(line.words.get(1).map_or("SIGTERM", String::as_str))?;
            lifecycle::kill(&root, line.id()?, signal, line.has("--all")).map(|()| 0)
        }
        "delete" => {
            let line = Line::parse(rest, DELETE)?;
            lifecycle::delete(&root, line.id()?, line.has("--force")).map(|()| 0)
        }
        "exec" => exec(&root, &Line::parse(rest, EXEC)?),
        other => Err(format!("there is no command `{other}`\n{USAGE}")),
    }
}

fn creation(line: &Line<'_>, console: Console) -> Result<Creation> {
    if line.value("--preserve-fds").is_some_and(|number| number != "0") {
        return Err("--preserve-fds: a container inherits nothing but its standard descriptors".to_owned());
    }
    let bundle = line.path("--bundle").unwrap_or_else(|| ".".into());
    let bundle = bundle.canonicalize().map_err(because(format!("cannot find `{}`", bundle.display())))?;
    Ok(Creation {
        config: bundle.join(line.value("--config").unwrap_or("config.json")),
        bundle,
        pid_file: line.path("--pid-file"),
        console: line.console(console),
    })
}

fn run(root: &Path, line: &Line<'_>) -> Result<i32> {
    let detach = line.has("--detach");
    let id = line.id()?;
    let child =
        lifecycle::create(root, id, &creation(line, if detach { Console::Nobody } else { Console::Own })?)?;
    let code = match lifecycle::start(root, id) {
        Ok(()) if detach => return Ok(0),
        Ok(()) => lifecycle::wait(child),
        Err(sentence) => Err(sentence),
    };
    lifecycle::delete(root, id, true)?;
    code
}

fn exec(root: &Path, line: &Line<'_>) -> Result<i32> {
    let id = line.id()?;
    let mut process = match line.path("--process") {
        Some(file) => {
            let text = std::fs::read(&file).map_err(because(format!("cannot read `{}`", file.display())))?;
            serde_json::from_slice(&text).map_err(because("process"))?
        }
        None => changed(lifecycle::process_of(root, id)?, line)?,
    };
    if line.has("--no-new-privs") {
        process.no_new_privileges = true;
    }
    let detach = line.has("--detach");
    let addition = Addition {
        process,
        pid_file: line.path("--pid-file"),
        console: line.console(if detach { Console::Nobody } else { Console::Own }),
        cgroup: line.value("--cgroup").map(str::to_owned),
        detach,
    };
    lifecycle::exec(root, id, &addition)
}

/// The container's own process, with what the command line says in place.
fn changed(mut process: Process, line: &Line<'_>) -> Result<Process> {
    process.args = line.words.get(1..).unwrap_or_default().to_vec();
    process.terminal = line.has("--tty");
    for variable in line.all("--env") {
        let name = variable.split_once('=').map_or(*variable, |(name, _)| name);
        process.env.retain(|other| other.split_once('=').is_none_or(|(other, _)| other != name));
        process.env.push((*variable).to_owned());
    }
    if let Some(cwd) = line.value("--cwd") {
        cwd.clone_into(&mut process.cwd);
    }
    if let Some(user) = line.value("--user") {
        let number =
            |text: &str| text.parse::<u32>().map_err(because(format!("--user: `{text}` is no number")));
        let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
        process.user = User { uid: number(uid)?, gid: number(gid)?, ..User::default() };
    }
    for capability in line.all("--cap") {
        let sets = &mut process.capabilities;
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.push((*capability).to_owned());
        }
    }
    Ok(process)
}

/// By number or by name, with or without `SIG`.
fn signal(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let name = format!("SIG{}", text.to_uppercase().trim_start_matches("SIG"));
    Signal::from_str(&name).map(|signal| signal as i32).map_err(|_| format!("there is no signal `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_end_with_the_first_other_word() {
        let words = words("-e A=1 --env=B=2 --tty c1 sh -c");
        let line = Line::parse(&words, EXEC).unwrap();
        assert_eq!(line.all("--env"), ["A=1", "B=2"]);
        assert!(line.has("--tty"));
        assert_eq!(line.words, ["c1", "sh", "-c"]);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for (line, message) in [
            ("--systemd-cgroup", "there is no option `--systemd-cgroup`"),
            ("pause c1", "there is no command `pause`"),
            ("--root", "--root: a value is missing"),
            ("--cgroup-manager systemd state c1", "--cgroup-manager: cgroups are made by `cgroupfs` only"),
            ("kill c1 SIGNOTHING", "there is no signal `SIGNOTHING`"),
        ] {
            let said = perform(&words(line)).unwrap_err();
            assert_eq!(said.lines().next(), Some(message));
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!([signal("9"), signal("KILL"), signal("sigkill")], [Ok(9), Ok(9), Ok(9)]);
    }
}

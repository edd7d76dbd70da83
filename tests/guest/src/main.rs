//! The guest probe: runs as a service of a machine under test and answers the test's questions from the inside.

mod agent;
mod answers;
mod calls;
mod census;
mod escape;
mod facts;
mod fault;
mod greed;
mod outside;
mod talk;

use std::fmt::Display;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

const USAGE: &str = "\
usage: probe agent [--ignore-stop] [PORT]   serve requests; end on SIGTERM, SIGINT or SIGQUIT unless told otherwise
       probe identity FILE                  write what the probe is to a file, as JSON, then end
       probe exit CODE                      end at once
       probe print TEXT [CODE]              print a line, then end
       probe sleep MILLISECONDS             end later
       probe sleep-as USER                  become a user by number, say so, and sleep without a handler for any signal
       probe orphan MILLISECONDS            leave such a sleeper behind, and print its process id
       probe show FILE                      print a file, then end
       probe pause [PROCESSES]              say so, then end on SIGTERM, SIGINT or SIGQUIT; so many more do as well
       probe talk lines COUNT MILLISECONDS  write numbered lines with pauses, then pause as above
       probe talk flood COUNT               write numbered lines of 100 bytes as fast as can be, then pause
       probe talk many PROCESSES COUNT      let many processes write numbered lines at once, then pause
       probe talk pour PIECES SIZE TTY [cat] write pieces of lines to the output or to what does as cat, say how long
                                            that took on a terminal, then pause
       probe talk oddities                  write what is no line of text, and end in the middle of a line
       probe read FILE                      fail when it cannot be read
       probe chown FILE UID GID             give a file to somebody
       probe fork-bomb                      start processes until none can be, and stay with them
       probe fork-bomb without-end          do so, and so do all of them, and go on when there is no room
       probe neglect COUNT                  leave so many children and theirs to themselves, reap none, then pause
       probe answer PORT                    give back what comes to this port
       probe ask PORT COUNT                 ask whoever does that, and print how long it took
       probe memory-bomb [FILE]             fill all memory, or a file, until something gives way
       probe mknod FILE MAJOR MINOR         make a character device
       probe user-namespace                 try to make one, and print `made` or why not
       probe swap FOLDER TARGET             let `a` in a folder be a folder and a link to somewhere else, in turns
       probe witness FILE                   say whether the file is there, which it must not be
       probe spy                            look for a program that is init's among all processes
       probe precede|spoil                  as the machine's first process: leave an outsider behind, or spoil
                                            the boot manifest, and become init
       probe outside                        do what the file of orders says
       probe census                         print how the whole machine is, as JSON
       probe family COUNT                   live with so many children, whoever dies
       probe chaos SEED MILLISECONDS PREFIX kill processes of services with such names, and print how many
       probe ambush SERVICE cloned|executed kill it and what comes in its place at this stage; print whether it was cloned
       probe storm COUNT                    send so many signals to PID 1
       probe clients COUNT MILLISECONDS     open so many connections to the control channel
       probe greet                          say hello on the control channel, and print the answer
       probe descriptors PID [SPARE]        let a process have so many more descriptors, or 1024
       probe set-clock SECONDS              set the wall clock, in seconds since 1970
       probe hang FOLDER                    mount a file system that never answers";

fn main() -> ExitCode {
    // First of all: this instant is what start-up times are measured to.
    let first_ns = monotonic_ns();
    let born_with = facts::descriptors();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match *words.as_slice() {
        ["agent"] => agent::serve(probe::PORT, true, first_ns, born_with),
        ["agent", "--ignore-stop"] => agent::serve(probe::PORT, false, first_ns, born_with),
        ["agent", "--ignore-stop", port] => agent::serve(port, false, first_ns, born_with),
        ["agent", port] => agent::serve(port, true, first_ns, born_with),
        ["identity", file] => identity(file, first_ns, born_with),
        ["exit", code] => exit_code(code),
        ["print", text] => {
            println!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        ["print", text, code] => {
            println!("{text}");
            exit_code(code)
        }
        ["sleep", milliseconds] => sleep(milliseconds),
        ["sleep-as", user] => number(user).and_then(sleep_as),
        ["orphan", milliseconds] => orphan(milliseconds),
        ["show", file] => show(file),
        ["pause"] => pause(),
        ["pause", processes] => pause_with(processes),
        ["read", file] => std::fs::read(file)
            .map(|_| ExitCode::SUCCESS)
            .map_err(|error| format!("cannot read `{file}`: {error}")),
        ["chown", file, uid, gid] => chown(file, uid, gid),
        ["talk", "lines", count, milliseconds] => talk::lines(count, milliseconds).and_then(|()| pause()),
        ["talk", "flood", count] => talk::flood(count).and_then(|()| pause()),
        ["talk", "many", processes, count] => talk::many(processes, count).and_then(|()| pause()),
        ["talk", "one-of-many", process, count] => {
            talk::one_of_many(process, count).map(|()| ExitCode::SUCCESS)
        }
        ["talk", "pour", pieces, size, terminal] => {
            talk::pour(pieces, size, terminal, false).and_then(|()| pause())
        }
        ["talk", "pour", pieces, size, terminal, "cat"] => {
            talk::pour(pieces, size, terminal, true).and_then(|()| pause())
        }
        ["talk", "cat"] => talk::cat().map(|()| ExitCode::SUCCESS),
        ["talk", "oddities"] => talk::oddities().map(|()| ExitCode::SUCCESS),
        ["fork-bomb", "without-end"] => greed::fork_without_end().map(|never| match never {}),
        ["neglect", count] => number(count).and_then(greed::neglect).and_then(|()| pause()),
        ["answer", port] => number(port).and_then(|port| print(answers::serve(port))),
        ["ask", port, count] => number(port).and_then(|port| print(answers::ask(port, number(count)?))),
        ["fork-bomb"] => greed::fork().and_then(|()| pause()),
        ["memory-bomb"] => greed::allocate(),
        ["memory-bomb", file] => greed::fill(file),
        ["mknod", file, major, minor] => mknod(file, major, minor),
        ["user-namespace"] => {
            match nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER) {
                Ok(()) => println!("made"),
                Err(errno) => println!("{errno:?}"),
            }
            Ok(ExitCode::SUCCESS)
        }
        ["swap", folder, target] => escape::swap(folder, target).map(|never| match never {}),
        ["witness", file] => Ok(escape::witness(file)),
        ["spy"] => escape::spy().map(|never| match never {}),
        ["precede"] => outside::precede().map(|never| match never {}),
        ["spoil"] => outside::spoil().map(|never| match never {}),
        ["outside"] => Ok(outside::obey()),
        ["census"] => print(census::take()),
        ["chaos", seed, duration, prefix] => number(seed).and_then(|seed| {
            let duration = Duration::from_millis(number(duration)?);
            print(fault::chaos(seed, duration, prefix))
        }),
        ["family", count] => number(count).and_then(|count| print(fault::family(count))),
        ["ambush", service, "cloned"] => print(fault::ambush(service, false)),
        ["ambush", service, "executed"] => print(fault::ambush(service, true)),
        ["storm", count] => number(count).and_then(|count| print(fault::storm(count))),
        ["clients", count, duration] => number(count).and_then(|count| {
            let duration = Duration::from_millis(number(duration)?);
            print(fault::clients(count, duration))
        }),
        ["greet"] => print(fault::greet()),
        ["descriptors", pid] => number(pid).and_then(|pid| print(fault::limit_descriptors(pid, None))),
        ["descriptors", pid, spare] => number(pid).and_then(|pid| {
            let spare = number(spare)?;
            print(fault::limit_descriptors(pid, Some(spare)))
        }),
        ["set-clock", seconds] => number(seconds).and_then(|seconds| print(fault::set_clock(seconds))),
        ["hang", folder] => print(fault::hang(folder)),
        _ => Err(USAGE.to_owned()),
    };
    outcome.unwrap_or_else(|problem| {
        eprintln!("probe: {problem}");
        ExitCode::from(2)
    })
}

fn number<N: FromStr<Err: Display>>(text: &str) -> Result<N, String> {
    text.parse().map_err(|error| format!("`{text}` is no number: {error}"))
}

/// Prints what came of it, as JSON.
fn print<T: Serialize>(result: io::Result<T>) -> Result<ExitCode, String> {
    let value = result.map_err(|error| error.to_string())?;
    println!("{}", serde_json::to_string(&value).map_err(|error| error.to_string())?);
    Ok(ExitCode::SUCCESS)
}

/// The monotonic clock, which is the machine's and not the container's.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// For a probe that may not open a port, having another user than root.
fn identity(file: &str, first_ns: u64, born_with: Vec<u32>) -> Result<ExitCode, String> {
    let write = || -> io::Result<()> {
        let identity = facts::identity(first_ns, born_with)?;
        std::fs::write(file, serde_json::to_vec(&identity)?)
    };
    write().map(|()| ExitCode::SUCCESS).map_err(|error| format!("cannot write `{file}`: {error}"))
}

fn exit_code(text: &str) -> Result<ExitCode, String> {
    text.parse::<u8>().map(ExitCode::from).map_err(|error| format!("`{text}` is no exit code: {error}"))
}

fn sleep(milliseconds: &str) -> Result<ExitCode, String> {
    let duration = milliseconds
        .parse()
        .map_err(|error| format!("`{milliseconds}` is no number of milliseconds: {error}"))?;
    thread::sleep(Duration::from_millis(duration));
    Ok(ExitCode::SUCCESS)
}

fn sleep_as(user: u32) -> Result<ExitCode, String> {
    println!("sleeping");
    let error = Command::new("/proc/self/exe").args(["sleep", "100000000"]).uid(user).exec();
    Err(format!("cannot become user {user}: {error}"))
}

fn show(file: &str) -> Result<ExitCode, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot read `{file}`: {error}"))?;
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn chown(file: &str, uid: &str, gid: &str) -> Result<ExitCode, String> {
    let number = |text: &str| text.parse().map_err(|error| format!("`{text}` is no id: {error}"));
    std::os::unix::fs::lchown(file, Some(number(uid)?), Some(number(gid)?))
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| format!("cannot give `{file}` away: {error}"))
}

fn mknod(file: &str, major: &str, minor: &str) -> Result<ExitCode, String> {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let number = |text: &str| text.parse().map_err(|error| format!("`{text}` is no number: {error}"));
    let device = makedev(number(major)?, number(minor)?);
    mknodat(CWD, file, FileType::CharacterDevice, Mode::from_bits_truncate(0o666), device)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| format!("cannot make `{file}`: {error}"))
}

/// Starts a sleeper and ends before it does, so that it becomes somebody else's child.
fn orphan(milliseconds: &str) -> Result<ExitCode, String> {
    let sleeper = Command::new("/proc/self/exe")
        .args(["sleep", milliseconds])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start a sleeper: {error}"))?;
    println!("{}", sleeper.id());
    Ok(ExitCode::SUCCESS)
}

/// The least that a service can do: it waits for a stop signal.
fn pause_with(processes: &str) -> Result<ExitCode, String> {
    for _ in 0..number::<u32>(processes)? {
        let begun = Command::new("/proc/self/exe").arg("pause").spawn();
        begun.map_err(|error| format!("cannot start a process: {error}"))?;
    }
    pause()
}

fn pause() -> Result<ExitCode, String> {
    // A container's first process gets no signal whose action is the default, so each needs a handler.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT])
        .map_err(|error| format!("cannot handle signals: {error}"))?;
    println!("pausing");
    match signals.forever().next() {
        Some(_) => Ok(ExitCode::SUCCESS),
        None => Err("cannot wait for signals".to_owned()),
    }
}

//! The hostile program: tries to get out of the container that it runs in, and says what came of it. Beside that it is
//! its own victim, and whoever watches it from outside.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use probe::hostile::{self, Answers, Attempt, Finding, GROUPS, PLANTED_QUEUE, PLANTED_SOCKET, VICTIM_PORT};

const USAGE: &str = "\
usage: hostile all                 make each probe, and print one line of JSON for each
       hostile try NAME            make one of the greedy probes, and say by the exit code what came of it
       hostile euid|status         say who it is
       hostile victim              answer, and have what others should not reach
       hostile measure MS          ask the victim for so long, and print how it answered
       hostile begin-bombs MS      begin, in the background, to print to /tmp/bombs
       hostile bombs MS            take of everything what there is, for so long
       hostile grant FILE NUMBER   give a file a capability
       hostile survey              print what a change of the machine or the victim would show, each with a hash";

/// The longest that one probe may take. Emulated machines are slow.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match *words.as_slice() {
        ["all"] => all(),
        ["try", name] => return attempt(name),
        ["euid"] => Ok(say(&rustix::process::geteuid().as_raw().to_string())),
        ["status"] => fs::read_to_string("/proc/self/status").map(|text| say(&text)).map_err(Into::into),
        ["victim"] => victim(),
        ["measure", milliseconds] => measure(milliseconds),
        ["begin-bombs", milliseconds] => begin_bombs(milliseconds),
        ["bombs", milliseconds] => bombs(milliseconds),
        ["grant", file, number] => grant(file, number),
        ["survey"] => survey(),
        _ => Err(USAGE.into()),
    };
    outcome.unwrap_or_else(|problem| {
        eprintln!("hostile: {problem}");
        ExitCode::from(2)
    })
}

fn say(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

/// Each probe in a thread of its own, which has a time limit and can have mounts of its own. What makes system calls or
/// takes all that there is does so in a process.
fn all() -> Outcome {
    for group in GROUPS {
        for probe in group.probes {
            let (sender, receiver) = mpsc::channel();
            thread::spawn(move || {
                if probe.attempt.changes_mounts() {
                    // Who can have mounts of its own can do more with them, and does no harm to the next probe.
                    match nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS) {
                        Ok(()) | Err(_) => {}
                    }
                }
                // Nobody waits any more where the limit is over.
                sender.send(hostile::outcome(&probe.attempt.carry_out(probe.name)))
            });
            let outcome = receiver.recv_timeout(PROBE_LIMIT).unwrap_or_else(|_| "SIGALRM".to_owned());
            print(group.name, probe.name, &outcome)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(group: &str, name: &str, outcome: &str) -> Result<(), serde_json::Error> {
    let finding = Finding { group: group.to_owned(), name: name.to_owned(), outcome: outcome.to_owned() };
    println!("{}", serde_json::to_string(&finding)?);
    Ok(())
}

fn attempt(name: &str) -> ExitCode {
    match hostile::probes().find(|probe| probe.name == name).map(|probe| &probe.attempt) {
        Some(Attempt::Alone(function)) => ExitCode::from(hostile::code(&function())),
        _ => ExitCode::from(hostile::NOTHING + 1),
    }
}

/// Answers each number with the next one, for as long as it lives.
fn victim() -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, VICTIM_PORT))?;
    let _socket = UnixListener::bind_addr(&UnixAddress::from_abstract_name(PLANTED_SOCKET)?)?;
    // A queue that everybody may use (0o1666: IPC_CREAT and a mode), and that outlives the call.
    plant_queue()?;
    println!("the victim answers");
    for stream in listener.incoming() {
        thread::spawn(move || stream.and_then(answer));
    }
    Ok(ExitCode::SUCCESS)
}

fn plant_queue() -> std::io::Result<()> {
    const MSGGET: u64 = 68;
    hostile::call(MSGGET, &[PLANTED_QUEUE, 0o1666], b"", None).map(drop)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut number = [0; 8];
    loop {
        stream.read_exact(&mut number)?;
        stream.write_all(&u64::from_ne_bytes(number).wrapping_add(1).to_ne_bytes())?;
    }
}

/// A connection for each question, as from clients who do not know each other.
fn measure(milliseconds: &str) -> Outcome {
    let end = Instant::now() + Duration::from_millis(milliseconds.parse()?);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, VICTIM_PORT));
    let (mut times, mut wrong) = (Vec::new(), 0);
    while Instant::now() < end {
        let begun = Instant::now();
        let question = times.len() as u64;
        match ask(&address, question) {
            Ok(answer) if answer == question + 1 => times.push(u64::try_from(begun.elapsed().as_micros())?),
            _ => wrong += 1,
        }
        thread::sleep(Duration::from_millis(2));
    }
    times.sort_unstable();
    let at = |percent: usize| {
        times.get(times.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
    };
    let answers = Answers { right: times.len() as u64, wrong, median: at(50), most: at(99) };
    println!("{}", serde_json::to_string(&answers)?);
    Ok(ExitCode::SUCCESS)
}

fn ask(address: &SocketAddr, question: u64) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&question.to_ne_bytes())?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    Ok(u64::from_ne_bytes(answer))
}

/// The bombs outlive this process, and have an end of their own.
fn begin_bombs(milliseconds: &str) -> Outcome {
    let report = fs::File::create("/tmp/bombs")?;
    Command::new("/hostile").args(["bombs", milliseconds]).stdin(Stdio::null()).stdout(report).spawn()?;
    Ok(ExitCode::SUCCESS)
}

/// Kinds of greed, each in a process that begins anew when it has what it can get.
fn bombs(milliseconds: &str) -> Outcome {
    const GREED: [&str; 5] = [
        "600 threads",
        "70,000 descriptors",
        "65 MiB in /dev/shm",
        "1,000 files in /tmp",
        "200 instances of inotify",
    ];
    let end = Instant::now() + Duration::from_millis(milliseconds.parse()?);
    // Twice as many as the machine has processors.
    let busy = (0..2 * thread::available_parallelism().map_or(1, usize::from))
        .map(|_| thread::spawn(move || while Instant::now() < end {}))
        .collect::<Vec<_>>();
    let mut counts = BTreeMap::new();
    while Instant::now() < end {
        for name in GREED {
            *counts.entry((name, hostile::outcome(&hostile::alone(name)))).or_insert(0) += 1;
        }
    }
    for thread in busy {
        thread.join().map_err(|_| "a thread panicked")?;
    }
    for ((name, outcome), count) in counts {
        println!("{count} times {name}: {outcome}");
    }
    // At last everybody is killed whom it can see, which must be nobody outside. It is not itself among them, and a
    // container's first process gets no signal from inside that it does not handle.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), nix::sys::signal::Signal::SIGKILL)?;
    fs::write("/tmp/bombs-ended", "")?;
    Ok(ExitCode::SUCCESS)
}

/// Values of `/proc/sys` that change by themselves.
const RESTLESS: &[&str] = &[
    "/fs/dentry-state",
    "/fs/file-nr",
    "/fs/inode-nr",
    "/fs/inode-state",
    "/kernel/ns_last_pid",
    "/kernel/pty/nr",
    "/kernel/random/",
    "/net/netfilter/nf_conntrack_count",
    "/vm/stat_refresh",
];

/// As setcap(8) does: permitted and effective, in the second version of the attribute.
fn grant(file: &str, number: &str) -> Outcome {
    let set = 1_u32 << number.parse::<u32>()?;
    let words = [0x0200_0001, set, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(file, "security.capability", &value, rustix::fs::XattrFlags::empty())?;
    Ok(ExitCode::SUCCESS)
}

/// Settings, modules, mounts and files of the machine, and files of the victim.
fn survey() -> Outcome {
    let mut facts = BTreeMap::new();
    settings(Path::new("/proc/sys"), &mut facts)?;
    let modules = fs::read_to_string("/proc/modules")?;
    let names = modules.lines().filter_map(|line| line.split(' ').next());
    facts.extend(names.map(|name| (format!("module {name}"), 0)));
    let mounts = fs::read_to_string("/proc/1/mountinfo")?;
    facts.extend(mounts.lines().map(|line| (format!("mount {line}"), 0)));
    for pid in hostile::victims()?.iter().map(String::as_str).chain(["1"]) {
        let root = format!("/proc/{pid}/root/");
        files(Path::new(&root), Path::new(&root), &mut facts)?;
    }
    println!("{}", serde_json::to_string(&facts)?);
    Ok(ExitCode::SUCCESS)
}

fn settings(folder: &Path, facts: &mut BTreeMap<String, u64>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.to_string_lossy().into_owned();
        if RESTLESS.iter().any(|restless| name.trim_start_matches("/proc/sys").starts_with(restless)) {
            continue;
        }
        if path.is_dir() {
            settings(&path, facts)?;
        } else if let Ok(value) = fs::read(&path) {
            facts.insert(name, hash(&value));
        }
    }
    Ok(())
}

/// Files of one file system.
fn files(root: &Path, folder: &Path, facts: &mut BTreeMap<String, u64>) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(root)?.dev();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.dev() != device {
            continue;
        }
        let name = path.display().to_string();
        if metadata.is_dir() {
            facts.insert(name, u64::from(metadata.mode()));
            files(root, &path, facts)?;
        } else if metadata.is_file() {
            facts.insert(name, hash(&fs::read(&path)?) ^ u64::from(metadata.mode()));
        } else {
            facts.insert(name, u64::from(metadata.mode()));
        }
    }
    Ok(())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

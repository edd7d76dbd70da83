//! What services write, and where it gets to: the console, files, and a syslog server on this host.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use probe::{Answer, Request};
use serde_json::Value;
use tests::{Config, Line, Machine, demo_image, eventually, within};

/// Where the machine sees this host's loopback interface.
const HOST: &str = "10.0.2.2";

/// Lines of 100 bytes that the flood has, many times what any ring, file or buffer of this test holds.
const FLOOD: u64 = 150_000;

/// A message as RFC 5424 has it.
#[derive(Debug, Clone)]
struct Message {
    name: String,
    pid: String,
    text: String,
}

impl Message {
    fn parse(bytes: &[u8]) -> Self {
        let message = std::str::from_utf8(bytes).unwrap();
        let words: Vec<&str> = message.splitn(8, ' ').collect();
        let [priority, time, host, name, pid, "-", "-", text] = words[..] else { panic!("{message}") };
        assert!(["<30>1", "<28>1"].contains(&priority), "{message}");
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{message}");
        assert!(["logs-tcp", "logs-udp"].contains(&host), "{message}");
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { name: name.to_owned(), pid: pid.to_owned(), text: text.to_owned() }
    }
}

/// A syslog server.
struct Server {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<Message>>>,
}

impl Server {
    /// One that takes connections, each until its end.
    fn tcp() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Self { address: listener.local_addr().unwrap(), messages: Arc::default() };
        let messages = Arc::clone(&server.messages);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let (mut bytes, mut buffer) = (Vec::new(), [0; 65_536]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    bytes.extend(&buffer[..length]);
                    let taken = unframe(&bytes, &mut messages.lock().unwrap());
                    bytes.drain(..taken);
                }
            }
        });
        server
    }

    fn udp() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Self { address: socket.local_addr().unwrap(), messages: Arc::default() };
        let messages = Arc::clone(&server.messages);
        thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(length) = socket.recv(&mut buffer) {
                messages.lock().unwrap().push(Message::parse(&buffer[..length]));
            }
        });
        server
    }

    /// What a service has said so far.
    fn texts(&self, name: &str) -> Vec<String> {
        let messages = self.messages.lock().unwrap();
        messages.iter().filter(|message| message.name == name).map(|message| message.text.clone()).collect()
    }

    fn has_heard(&self, name: &str, text: &str) -> bool {
        self.messages.lock().unwrap().iter().any(|message| message.name == name && message.text == text)
    }

    /// How many lines of a service it was told are missing.
    fn missing(&self, name: &str) -> u64 {
        let ending = format!(" lines of `{name}` are missing");
        let counts = self
            .texts("coracle")
            .into_iter()
            .filter_map(|text| text.strip_suffix(&ending).map(|count| count.parse::<u64>().unwrap()));
        counts.sum()
    }
}

/// Takes whole messages, each with its length before it, and returns how many bytes they had.
fn unframe(bytes: &[u8], messages: &mut Vec<Message>) -> usize {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == b' ') {
        let length: usize = std::str::from_utf8(&rest[..at]).unwrap().parse().unwrap();
        let Some(message) = rest.get(at + 1..at + 1 + length) else { break };
        messages.push(Message::parse(message));
        rest = &rest[at + 1 + length..];
    }
    bytes.len() - rest.len()
}

/// Says nothing until it is told to, and then a long line a hundred times a second.
const STEADY: &str = "until [ -e /machine/srv/go ]; do sleep 0.2; done; long=$(printf '%0250d' 0); n=0; \
                      while :; do n=$((n+1)); echo \"line $n $long\"; sleep 0.01; done";

fn talker(name: &str, words: &str, keys: &str) -> String {
    let image = tests::probe_image();
    format!(
        "[service.{name}]\nimage = \"{image}\"\ncommand = [\"/probe\", \"talk\", {words}]\nrestart = \"never\"\n{keys}\n"
    )
}

#[test]
fn loud_strange_and_quiet_services_beside_each_other() {
    let server = Server::tcp();
    let machine = Config::new("logs-tcp")
        .with(&format!(
            "[log]\nconsole = \"json\"\nsyslog = \"tcp://{HOST}:{}\"\nfolder = \"/var/log/machine\"\n\
             max-size = \"256KiB\"\nmax-files = 3",
            server.address.port()
        ))
        .probe("a", "volumes = [\"/var/log/machine:/logs:ro\", \"/proc:/machine/proc\"]")
        .with(&talker("flood", &format!("\"flood\", \"{FLOOD}\""), ""))
        .with(&talker("quiet", "\"lines\", \"100\", \"50\"", ""))
        .with(&talker("many", "\"many\", \"20\", \"100\"", "logging = { size = \"256KiB\" }"))
        .with(&talker("odd", "\"oddities\"", "logging = { size = \"2MiB\" }"))
        .boot();
    let a = machine.probe("a");
    for (name, last) in [("quiet", "pausing"), ("many", "pausing"), ("odd", "no end"), ("flood", "pausing")] {
        eventually(&format!("`{name}` has said everything"), || {
            assert_eq!(a.identity().pid, 1, "others go on meanwhile");
            server.has_heard(name, last)
        });
    }
    every_line_of_the_quiet_ones_arrives(&server);
    lines_of_the_flood_arrive_or_are_counted(&server);
    odd_lines_arrive_as_lines(&server);
    the_process_is_the_services(&server, a);
    files_are_rotated_and_have_whole_lines(a);
    pid_1_stays_small(a);
    every_line_of_the_console_is_an_object(&machine);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    // The server has the last words too, because the machine waits for that.
    let own = server.texts("coracle");
    assert!(own.iter().any(|text| text.starts_with("everything has ended")), "{own:?}");
}

fn every_line_of_the_quiet_ones_arrives(server: &Server) {
    let expected: Vec<String> = (0..100).map(|line| format!("line {line}")).collect();
    assert_eq!(server.texts("quiet")[..100], expected);
    assert_eq!(server.missing("quiet"), 0);
    let many = server.texts("many");
    assert_eq!(many.len(), 20 * 100 + 1);
    for process in 0..20 {
        let start = format!("process {process} line ");
        let lines: Vec<&str> = many.iter().filter_map(|text| text.strip_prefix(&start)).collect();
        let expected: Vec<String> = (0..100).map(|line| line.to_string()).collect();
        assert_eq!(lines, expected, "process {process}");
    }
}

fn lines_of_the_flood_arrive_or_are_counted(server: &Server) {
    let texts = server.texts("flood");
    let numbers: Vec<u64> = texts.iter().filter_map(|text| text.trim_end().parse().ok()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order and once");
    assert_eq!(numbers.len() + 1, texts.len(), "nothing but whole lines");
    let missing = server.missing("flood");
    assert_eq!(numbers.len() as u64 + missing, FLOOD, "{missing} are missing");
}

fn odd_lines_arrive_as_lines(server: &Server) {
    let texts = server.texts("odd");
    for expected in [
        "a line in three pieces",
        r"\x1b[2J\x1b]0;title\x07\x1b[31mred",
        r#""quoted" \ é\xe2\x82"#,
        "after a mebibyte",
        "has taken what it could of its own lines",
        "no end",
    ] {
        let short = || texts.iter().filter(|text| text.len() < 2000).collect::<Vec<_>>();
        assert!(texts.iter().any(|text| text == expected), "{expected}: {:?}", short());
    }
    let long: usize = texts.iter().filter(|text| text.starts_with("xx")).map(String::len).sum();
    assert_eq!(long, 1 << 20);
}

fn the_process_is_the_services(server: &Server, a: &Line) {
    let messages = server.messages.lock().unwrap().clone();
    let pid = &messages.iter().find(|message| message.name == "quiet").unwrap().pid;
    assert_eq!(a.read(&format!("/machine/proc/{pid}/cgroup")), "0::/../quiet\n");
    assert!(messages.iter().filter(|message| message.name == "coracle").all(|message| message.pid == "1"));
}

/// The lines of a service's file, without their times.
fn lines_of(a: &Line, file: &str) -> Vec<String> {
    let text = a.read(&format!("/logs/{file}"));
    assert!(text.ends_with('\n'), "{file} ends with a whole line");
    text.lines()
        .map(|line| line.split_once("Z ").unwrap_or_else(|| panic!("{file}: {line}")).1.to_owned())
        .collect()
}

fn files_are_rotated_and_have_whole_lines(a: &Line) {
    eventually("files are written", || {
        let is_written = |name: &str, last: &str| {
            a.exists(&format!("/logs/{name}.log"))
                && a.read(&format!("/logs/{name}.log")).ends_with(&format!(" {last}\n"))
        };
        [("quiet", "pausing"), ("flood", "pausing"), ("odd", "no end")]
            .iter()
            .all(|(name, last)| is_written(name, last))
    });
    let names = a.list("/logs");
    for name in ["coracle.log", "quiet.log", "many.log", "odd.log", "flood.log", "flood.log.1", "flood.log.2"]
    {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    assert!(!names.iter().any(|name| name == "flood.log.3"), "{names:?}");
    for name in &names {
        let size = a.stat(&format!("/logs/{name}")).size;
        assert!(size <= 256 << 10, "{name} has {size} bytes");
    }
    assert_eq!(lines_of(a, "quiet.log").len(), 101);
    // What a file has lost is said in the place where it is missing.
    let mut next = None;
    for file in ["flood.log.2", "flood.log.1", "flood.log"] {
        for line in lines_of(a, file) {
            if let Some(count) = line.strip_prefix("[coracle] ") {
                let count: u64 = count.strip_suffix(" lines are missing").unwrap().parse().unwrap();
                next = next.map(|number: u64| number + count);
            } else if line != "pausing" {
                let number: u64 = line.trim_end().parse().unwrap_or_else(|_| panic!("{file}: {line}"));
                assert_eq!(next.unwrap_or(number), number, "{file}");
                next = Some(number + 1);
            }
        }
    }
    assert_eq!(next, Some(FLOOD));
}

fn pid_1_stays_small(a: &Line) {
    let status = a.read("/machine/proc/1/status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    // Its rings may have 2.5 MiB and 64 KiB for each service more.
    assert!(kib < 8 << 10, "{kib} KiB");
}

fn every_line_of_the_console_is_an_object(machine: &Machine) {
    let console = machine.console();
    let lines = console.lines().filter(|line| line.starts_with('{'));
    let objects: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}")))
        .collect();
    assert!(!console.contains(" | "), "{console}");
    // The flood may have taken the place of any service's line, but not of init's own.
    for (name, text) in [("coracle", "ready after"), ("flood", "")] {
        let says =
            |object: &&Value| object["service"] == name && object["text"].as_str().unwrap().starts_with(text);
        assert!(objects.iter().any(|object| says(&object)), "{name}: {text}");
    }
}

#[test]
fn datagrams_wait_for_the_network_files_for_a_writer_and_names_have_colours() {
    let server = Server::udp();
    let machine = Config::new("logs-udp")
        .with(&format!("[log]\nsyslog = \"udp://{HOST}:{}\"\nfolder = \"/logs\"", server.address.port()))
        .probe(
            "k",
            "pid = \"host\"\nprivileged = true\n\
             volumes = [\"/logs:/logs\", \"/proc:/machine/proc\", \"/srv:/machine/srv\"]",
        )
        .first_process("precede", "coracle.colour=1")
        .with(&talker("early", "\"lines\", \"3\", \"0\"", ""))
        .with(&talker("later", "\"lines\", \"3\", \"0\"", ""))
        .with(&format!(
            "[service.steady]\nimage = \"{}\"\ncommand = [\"sh\", \"-c\", '''{STEADY}''']\n\
             volumes = [\"/srv:/machine/srv:ro\"]\nstop-grace-period = \"1s\"\n",
            demo_image("busybox")
        ))
        .boot();
    for name in ["early", "later"] {
        eventually(&format!("`{name}` is heard"), || server.has_heard(name, "pausing"));
        assert_eq!(server.texts(name), ["line 0", "line 1", "line 2", "pausing"]);
    }
    a_writer_that_is_killed_is_replaced(machine.probe("k"));
    a_folder_that_is_full_loses_lines_until_there_is_room(&machine);
    eventually("names have colours", || {
        let console = machine.console();
        console.contains("\x1b[33m  early |\x1b[0m line 0")
            && console.contains("\x1b[32m  later |\x1b[0m line 0")
    });
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
}

fn a_writer_that_is_killed_is_replaced(k: &Line) {
    let said = |name: &str, what: &str| {
        eventually(&format!("`{name}` has {what:?} in its file"), || {
            let file = format!("/logs/{name}.log");
            k.exists(&file) && k.read(&file).contains(what)
        });
    };
    said("later", "Z pausing\n");
    let first = writer(k).unwrap();
    let status = k.read(&format!("/machine/proc/{first}/status"));
    for line in ["CapEff:\t0000000000000002", "CapBnd:\t0000000000000002", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert_eq!(k.read(&format!("/machine/proc/{first}/cgroup")).trim_end().rsplit('/').next(), Some("log"));
    k.ask(&Request::Signal { pid: first, signal: 9 });
    said("coracle", "the log's writer has ended");
    assert_ne!(writer(k).unwrap(), first);
}

/// The process that writes files.
fn writer(k: &Line) -> Option<i32> {
    let mut numbers = k.list("/machine/proc").into_iter().filter_map(|name| name.parse::<i32>().ok());
    let is_writer = |pid: &i32| {
        let arguments = k.try_ask(&Request::Read { path: format!("/machine/proc/{pid}/cmdline") });
        matches!(arguments, Ok(Answer::Text(text)) if text.starts_with("init\0write-logs\0"))
    };
    numbers.find(is_writer)
}

/// The writer has its folder since it began: a new one has what is there then.
fn a_folder_that_is_full_loses_lines_until_there_is_room(machine: &Machine) {
    let k = machine.probe("k");
    let first = writer(k).unwrap();
    assert!(machine.order("k", "shrink /logs").ends_with("Ok(())"), "{}", machine.console());
    k.ask(&Request::Signal { pid: first, signal: 9 });
    k.write("/machine/srv/go", "").unwrap();
    let full = "cannot write the log of `steady`: No space left on device";
    within(Duration::from_secs(120), "the folder is full", || machine.console().contains(full));
    // Everything else goes on meanwhile.
    assert_eq!(succeed(&mut machine.ctl(&["logs", "-n", "1", "early"])), "pausing\n");

    let file = format!("/machine/proc/{}/root/logs/steady.log", writer(k).unwrap());
    k.write(&file, "").unwrap();
    let told = |console: &str| -> Option<u64> {
        let (_, rest) = console.split_once("the log of `steady` is written again: ")?;
        rest.split_once(" lines are missing")?.0.parse().ok()
    };
    eventually("it is written again", || told(&machine.console()).is_some());
    let missing = told(&machine.console()).unwrap();
    let text = k.read(&file);
    let notice = format!("[coracle] {missing} lines could not be written: No space left on device");
    let mut lines =
        text.lines().map(|line| line.split_once("Z ").unwrap().1).skip_while(|line| *line != notice);
    assert_eq!(lines.next(), Some(notice.as_str()), "{text}");
    let numbers: Vec<u64> = lines
        .map_while(|line| line.strip_prefix("line ")?.split(' ').next()?.parse().ok())
        .take(20)
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) && missing > 0, "{numbers:?}");
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

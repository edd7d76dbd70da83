//! A machine under test: built and run by `coracle`, ended with the test at the latest.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use manifest::report::Report;
use probe::Event;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::line::Line;
use crate::slot::Slot;
use crate::{coracle, folder, made, replace, root};

/// The longest that a machine runs, unless its config says otherwise; `coracle run` ends it then.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(300);

/// From QEMU's start to the machine's report that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// From the request to power off to the end of `coracle run`.
const END_TIMEOUT: Duration = Duration::from_secs(120);

/// QEMU tells the guest which ports have somebody at the other end, and loses what does not fit into the queue for this.
/// A port that nobody seems to listen to is never written to. So there are few on the device of `coracle run`, which
/// has two of its own, and on each further one.
const PORTS_PER_DEVICE: usize = 7;

/// Where a machine's kernel comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Debian's cloud kernel of the machine's own suite: 6.1 on Debian 12.
    Own,
    /// Debian 13's: 6.12.
    Second,
}

impl Kernel {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Own, Self::Second];
}

/// Where a config stands.
#[derive(Debug, Clone)]
enum Source {
    Text(String),
    File(PathBuf),
}

/// A machine's config, and how it is run.
#[derive(Debug, Clone)]
pub struct Config {
    name: String,
    /// The config's text, or the file that has it.
    source: Source,
    probes: Vec<String>,
    kernel: Kernel,
    memory: String,
    published: Vec<(u16, u16)>,
    /// Further arguments of QEMU.
    devices: Vec<String>,
    timeout: Duration,
    console_is_read: bool,
}

impl Config {
    /// A machine without services. The name also names its folder below `target/tmp`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            source: Source::Text(String::new()),
            probes: Vec::new(),
            kernel: Kernel::Own,
            memory: "512MiB".to_owned(),
            published: Vec::new(),
            devices: Vec::new(),
            timeout: MACHINE_TIMEOUT,
            console_is_read: true,
        }
    }

    /// A config of the workspace, by its path from the root.
    pub fn of_file(path: &str) -> Self {
        let path = root().join(path);
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Self { source: Source::File(path), ..Self::new(&name) }
    }

    /// A service that is a probe and sees the machine's processes; `keys` are further lines of its table.
    pub fn probe(self, name: &str, keys: &str) -> Self {
        self.probe_in(&probe_image(), name, keys)
    }

    /// Likewise, in an image of the test's own, which has the probe as `/probe`.
    pub fn probe_in(mut self, image: &str, name: &str, keys: &str) -> Self {
        self.probes.push(name.to_owned());
        let has = |key: &str| keys.lines().any(|line| line.trim_start().starts_with(key));
        let mut table = format!("[service.{name}]\nimage = \"{image}\"\n");
        if !has("command") && !has("entrypoint") {
            table += "command = [\"/probe\", \"agent\"]\n";
        }
        if !has("volumes") {
            table += "volumes = [\"/proc:/machine/proc\"]\n";
        }
        if !has("devices") {
            table += &format!("devices = [\"/dev/virtio-ports/{name}:/dev/probe\"]\n");
        }
        self.with(&format!("{table}{keys}\n"))
    }

    /// Further tables.
    pub fn with(mut self, toml: &str) -> Self {
        match &mut self.source {
            Source::Text(text) => *text += &format!("{toml}\n"),
            Source::File(path) => panic!("`{}` is booted as it is", path.display()),
        }
        self
    }

    /// Lets the probe be the machine's first process, with `task`: it leaves an outsider behind (`precede`, see
    /// [`Machine::order`]) or spoils the boot manifest (`spoil`), and becomes init. `cmdline` is for the kernel.
    pub fn first_process(self, task: &str, cmdline: &str) -> Self {
        self.first_process_with(task, cmdline, "")
    }

    /// Likewise, with further `keys` for the kernel.
    pub fn first_process_with(self, task: &str, cmdline: &str, keys: &str) -> Self {
        let probe = made("dist-test/probe", "dist");
        self.with(&format!(
            "[kernel]\npackage = \"linux-image-cloud-amd64\"\ncmdline = \"{cmdline} rdinit=/srv/first -- {task}\"\n{keys}\n\
             [[file]]\npath = \"/srv/first\"\nmode = 0o755\nsource = \"{}\"\n\
             [[file]]\npath = \"/srv/orders\"\ncontents = \"\"\n",
            probe.display()
        ))
    }

    /// Another kernel.
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self.name += if kernel == Kernel::Second { "-second" } else { "" };
        self
    }

    /// More memory than the default of 512 MiB.
    pub fn memory(mut self, size: &str) -> Self {
        size.clone_into(&mut self.memory);
        self
    }

    /// A further device, as QEMU's option names it.
    pub fn device(mut self, option: &str, value: &str) -> Self {
        self.devices.extend([option, value].map(str::to_owned));
        self
    }

    /// Lets nobody read what the machine writes to its console: it blocks as soon as a pipe is full.
    pub fn unread_console(mut self) -> Self {
        self.console_is_read = false;
        self
    }

    /// Another limit to how long it runs.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Offers a port of the machine on a free port of this host: see [`Machine::port`].
    pub fn publish(mut self, guest: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        self.published.push((listener.local_addr().unwrap().port(), guest));
        self
    }

    /// Builds the machine, and returns its folder.
    fn build(&self) -> PathBuf {
        let folder = folder(&self.name);
        let config = match &self.source {
            Source::File(path) => path.clone(),
            Source::Text(text) => {
                let path = folder.join(format!("{}.toml", self.name));
                fs::write(&path, format!("name = \"{}\"\n\n{text}", self.name)).unwrap();
                path
            }
        };
        let mut command = self.command();
        let output = command.arg("build").arg(&config).arg("-o").arg(folder.join("out")).output().unwrap();
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`coracle build` of `{}` failed:\n{messages}", config.display());
        folder
    }

    fn command(&self) -> Command {
        let mut command = coracle();
        if self.kernel == Kernel::Second {
            command.env("APT_CONFIG", made("apt/apt.conf", "setup"));
        }
        command
    }

    /// Builds and boots the machine and waits until it is ready.
    pub fn boot(&self) -> Machine {
        let mut machine = self.start();
        if machine.was_tripped() {
            drop(machine);
            machine = self.start();
        }
        machine.wait_until_ready();
        machine
    }

    /// Builds and starts the machine, and waits for nothing.
    pub fn start(&self) -> Machine {
        let folder = self.build();
        let slot = Slot::take();
        let report = folder.join("report");
        // A report of the run before would be taken for this one's.
        fs::write(&report, "").unwrap();
        let sockets = folder.join("sockets");
        if sockets.exists() {
            fs::remove_dir_all(&sockets).unwrap();
        }
        fs::create_dir(&sockets).unwrap();
        let mut command = self.command();
        command.current_dir(&sockets).arg("run").arg(folder.join("out")).arg("--report").arg(&report);
        command
            .arg("--timeout")
            .arg(format!("{}s", self.timeout.as_secs()))
            .arg("--memory")
            .arg(&self.memory);
        for (host, guest) in &self.published {
            command.arg("--publish").arg(format!("127.0.0.1:{host}:{guest}"));
        }
        command.arg("--").args(["-qmp", "unix:monitor,server=on,wait=off"]);
        command.args(&self.devices);
        for (index, some) in self.probes.chunks(PORTS_PER_DEVICE).enumerate() {
            let bus = if index == 0 { "coracle-serial".to_owned() } else { format!("test-serial-{index}") };
            if index > 0 {
                command.args(["-device", &format!("virtio-serial-pci,id={bus}")]);
            }
            command.args(some.iter().flat_map(|name| port_arguments(&bus, name)));
        }
        command.stdin(Stdio::null());
        let console = File::create(folder.join("console.log")).unwrap();
        command.stdout(if self.console_is_read { console.into() } else { Stdio::piped() });
        command.stderr(File::create(folder.join("run.log")).unwrap());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run `coracle`: {error}"));
        let mut machine = Machine {
            name: self.name.clone(),
            folder,
            child,
            lines: BTreeMap::new(),
            published: self.published.clone(),
            code: None,
            _slot: slot,
        };
        machine.connect(&self.probes, &sockets);
        machine
    }
}

/// A virtio-serial port, with a socket in QEMU's working directory.
fn port_arguments(bus: &str, name: &str) -> [String; 4] {
    [
        "-chardev".to_owned(),
        format!("socket,id=test-{name},path={name},server=on,wait=off"),
        "-device".to_owned(),
        format!("virtserialport,bus={bus}.0,chardev=test-{name},name={name}"),
    ]
}

/// The folder with nothing but the probe, as an image.
pub fn probe_image() -> String {
    let folder = folder("probe-image");
    replace(&folder.join("probe"), 0o755, &fs::read(made("dist-test/probe", "dist")).unwrap());
    format!("dir:{}", folder.display())
}

/// A machine that runs.
pub struct Machine {
    name: String,
    folder: PathBuf,
    child: Child,
    lines: BTreeMap<String, Line>,
    published: Vec<(u16, u16)>,
    /// The exit code of `coracle run`, once it has ended; `Some(None)` when a signal ended it.
    code: Option<Option<i32>>,
    _slot: Slot,
}

/// A machine that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code of `coracle run`.
    pub code: i32,
    /// What each probe reported by itself, in order.
    pub events: BTreeMap<String, Vec<Event>>,
    /// From the beginning of the stop until everything had ended, by the machine's clock. None when it did not
    /// report its end.
    pub stop: Option<Duration>,
    /// The console, and what `coracle run` said.
    pub output: String,
}

impl Machine {
    fn connect(&mut self, probes: &[String], sockets: &Path) {
        // A socket's address has room for 107 bytes of path: this one is short however deep the folder lies.
        let handle = File::open(sockets).unwrap();
        let sockets = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        for name in probes {
            match Line::connect(name, &sockets.join(name)) {
                Ok(line) => self.lines.insert(name.clone(), line),
                Err(problem) => panic!("{problem}"),
            };
        }
    }

    /// Where its console, its report and what a test keeps of it are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// `coracle ctl` for this machine, which others of its name may run beside.
    pub fn ctl(&self, arguments: &[&str]) -> Command {
        let mut command = coracle();
        command.args(["ctl", "-m", &format!("{}.{}", self.name, self.child.id())]).args(arguments);
        command
    }

    /// Waits until PID 1 has said something, and whether the emulator has ended the kernel before. The kernel changes its own
    /// instructions while it boots, by a breakpoint for the moment; QEMU's threads let another processor run into one that
    /// is gone already ("Oops: int3"). That is nobody's fault here, and seldom.
    fn was_tripped(&mut self) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < READY_TIMEOUT {
            let has_ended = self.ended().is_some();
            let console = self.console();
            if console.contains(" | ") || !self.reports().is_empty() {
                return false;
            }
            if has_ended {
                return console.contains("Oops: int3");
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Waits until all oneshots have completed and every service has been started.
    pub fn wait_until_ready(&mut self) {
        let begun = Instant::now();
        while !self.reports().iter().any(|report| matches!(report, Report::Ready { .. })) {
            assert!(self.ended().is_none(), "the machine ended before it was ready");
            assert!(begun.elapsed() < READY_TIMEOUT, "the machine was not ready within {READY_TIMEOUT:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the machine has reported so far.
    pub fn reports(&self) -> Vec<Report> {
        let text = fs::read_to_string(self.folder.join("report")).unwrap();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("the report says {line:?}: {error}"))
            })
            .collect()
    }

    /// What has come out of the console so far.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("console.log")).unwrap()).into_owned()
    }

    /// The line to a probe.
    pub fn probe(&self, name: &str) -> &Line {
        self.lines.get(name).unwrap_or_else(|| panic!("no probe is called `{name}`"))
    }

    /// The port of this host that leads to a published port of the machine.
    pub fn port(&self, guest: u16) -> u16 {
        let found = self.published.iter().find(|(_, published)| *published == guest);
        found.unwrap_or_else(|| panic!("port {guest} is not published")).0
    }

    /// Presses the power button by SIGTERM to `coracle run`, and waits for the machine's end.
    pub fn power_off(self) -> Ended {
        self.terminate();
        self.wait()
    }

    /// Gives an order to the outsider of [`Config::first_process`], by a probe that has `/srv` as `/machine/srv`.
    /// Waits for nothing: the order may be the machine's end.
    pub fn give_order(&self, probe: &str, order: &str) {
        self.probe(probe).write("/machine/srv/orders", &format!("{order}\n")).unwrap();
    }

    /// Likewise; returns what came of it.
    pub fn order(&self, probe: &str, order: &str) -> String {
        self.give_order(probe, order);
        let (said, mut answer) = (format!("outside: {order}: "), None);
        crate::eventually("the outsider answers", || {
            let console = self.console();
            let mut lines = console.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            answer =
                lines.find_map(|line| line.split_once(&said).map(|(_, rest)| rest.trim_end().to_owned()));
            answer.is_some()
        });
        answer.unwrap_or_default()
    }

    /// Presses keys of the machine's keyboard at the same time, by their names in QEMU (`qcode`).
    pub fn press(&self, keys: &[&str]) {
        let key = |name: &&str| json!({ "type": "qcode", "data": name });
        let keys: Vec<Value> = keys.iter().map(key).collect();
        self.monitor(&json!({ "execute": "send-key", "arguments": { "keys": keys } }));
    }

    /// Puts the cable into the machine's network card, or pulls it out.
    pub fn plug(&self, is_in: bool) {
        self.monitor(&json!({ "execute": "set_link", "arguments": { "name": "net", "up": is_in } }));
    }

    /// Tells QEMU something, on a monitor of the test's own.
    fn monitor(&self, command: &Value) {
        self.open_monitor().ask(command);
    }

    /// A connection to QEMU. It has one at a time, and tells events to nobody else.
    pub fn open_monitor(&self) -> Monitor {
        let handle = File::open(self.folder.join("sockets")).unwrap();
        let socket = format!("/proc/self/fd/{}/monitor", handle.as_raw_fd());
        let mut lines = BufReader::new(UnixStream::connect(socket).unwrap());
        let mut greeting = String::new();
        lines.read_line(&mut greeting).unwrap();
        let mut monitor = Monitor(lines);
        monitor.ask(&json!({ "execute": "qmp_capabilities" }));
        monitor
    }

    /// Waits for the machine's own end.
    pub fn wait(mut self) -> Ended {
        let begun = Instant::now();
        let code = loop {
            if let Some(code) = self.ended() {
                break code.unwrap_or_else(|| panic!("a signal ended `coracle run`"));
            }
            assert!(begun.elapsed() < END_TIMEOUT, "the machine did not end within {END_TIMEOUT:?}");
            thread::sleep(Duration::from_millis(10));
        };
        let lines = std::mem::take(&mut self.lines);
        let stop = self.reports().iter().find_map(|report| match report {
            Report::Exit { stop_ns, off_ns, .. } => {
                Some(Duration::from_nanos(off_ns.saturating_sub(*stop_ns)))
            }
            Report::Ready { .. } => None,
        });
        let events = lines.into_iter().map(|(name, line)| (name, line.into_events())).collect();
        Ended { code, events, stop, output: self.output() }
    }

    fn ended(&mut self) -> Option<Option<i32>> {
        if self.code.is_none() {
            self.code = self.child.try_wait().unwrap().map(|status| status.code());
        }
        self.code
    }

    fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)
            .unwrap_or_else(|error| panic!("cannot signal `coracle run`: {error}"));
    }

    /// Everything that can help to understand a failure.
    fn output(&self) -> String {
        let mut output = String::new();
        for name in ["console.log", "run.log"] {
            let path = self.folder.join(name);
            let text = fs::read(&path).unwrap_or_default();
            // Writing to a string cannot fail.
            write!(output, "--- {}\n{}", path.display(), String::from_utf8_lossy(&text)).unwrap();
        }
        output
    }
}

/// A connection to QEMU's monitor (QMP).
pub struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn ask(&mut self, command: &Value) {
        self.0.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        // Events may stand before the answer.
        while !answer.contains("\"return\"") {
            answer.clear();
            self.0.read_line(&mut answer).unwrap();
            assert!(!answer.contains("\"error\""), "QEMU, asked for {command}: {answer}");
        }
    }

    /// Lets the machine's time stand still.
    pub fn stop(&mut self) {
        self.ask(&json!({ "execute": "stop" }));
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        self.ask(&json!({ "execute": "cont" }));
    }

    /// The names of all events until QEMU's end.
    pub fn events(self) -> Vec<String> {
        // QEMU closes the connection by its end, in the middle of a line or not.
        let lines = self.0.lines().map_while(Result::ok);
        let events = lines.filter_map(|line| {
            let event: Value = serde_json::from_str(&line).ok()?;
            Some(event.get("event")?.as_str()?.to_owned())
        });
        events.collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first signal asks the machine to power off, the second makes `coracle run` end QEMU, which SIGKILL
        // would leave behind.
        let begun = Instant::now();
        while self.ended().is_none() && begun.elapsed() < Duration::from_secs(10) {
            self.terminate();
            thread::sleep(Duration::from_millis(50));
        }
        if thread::panicking() {
            eprintln!("{}", self.output());
        }
    }
}

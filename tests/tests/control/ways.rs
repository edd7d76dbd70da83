//! The other ways to a machine than its port: from inside of a service, and by its vsock.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use manifest::control::{Answer, ServiceState};
use tests::{Config, Machine, coracle, demo_image, eventually, folder, made};

use crate::{WAIT, busybox, service, succeed};

/// What does the work of a host's vsock in a process of its own: the host's kernel needs none for it.
struct Vsock {
    device: Child,
    folder: PathBuf,
}

impl Vsock {
    fn start() -> Self {
        let folder = folder("control-ways");
        for socket in ["device", "host"] {
            // One may be left of a run before.
            drop(std::fs::remove_file(folder.join(socket)));
        }
        let mut command = Command::new(made("vsock/bin/vhost-device-vsock", "setup"));
        command.current_dir(&folder).args(["--guest-cid", "7", "--socket", "device", "--uds-path", "host"]);
        let device =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the device is there", || folder.join("device").exists());
        Self { device, folder }
    }

    /// QEMU's side of it, which has to share the machine's memory.
    fn attach(config: Config) -> Config {
        config
            .device("-object", "memory-backend-memfd,id=shared,size=512M,share=on")
            .device("-machine", "memory-backend=shared")
            .device("-chardev", "socket,id=vsock,path=../device")
            .device("-device", "vhost-user-vsock-pci,chardev=vsock")
    }

    /// `coracle ctl` by this way.
    fn ctl(&self, port: u32, arguments: &[&str]) -> Command {
        let mut command = coracle();
        command.current_dir(&self.folder).args(["ctl", "--socket", &format!("vsock:./host:{port}")]);
        command.args(arguments);
        command
    }

    /// A client that follows what happens, and says no more.
    fn follower(&self) -> UnixStream {
        let mut stream = UnixStream::connect(self.folder.join("host")).unwrap();
        stream.write_all(b"CONNECT 1027\n").unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().starts_with("OK "));
        stream.write_all(b"{\"id\":1,\"ask\":{\"events\":{\"since\":0,\"follow\":true}}}\n").unwrap();
        assert!(lines.next().unwrap().unwrap().contains("\"event\""));
        stream
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.device.kill().unwrap();
        self.device.wait().unwrap();
    }
}

/// Hands what comes to port 7777 of the vsock on to the service's own socket, for one client at a time.
const RELAY: &str = r#"
    socket(L, 40, SOCK_STREAM, 0) && bind(L, pack("SSLLL", 40, 0, 7777, 4294967295, 0)) && listen(L, 5) or die $!;
    while (accept(C, L)) {
        socket(U, PF_UNIX, SOCK_STREAM, 0) && connect(U, pack_sockaddr_un("/dev/coracle.ctl")) or die $!;
        my $other = fork;
        my ($from, $to) = $other ? (*U, *C) : (*C, *U);
        while (sysread($from, $bytes, 65536)) { syswrite($to, $bytes) }
        shutdown($to, 1);
        $other ? waitpid($other, 0) : exit;
    }"#;

/// A service that has this program, but no way to the host's.
fn with_coracle(name: &str, first: &str, keys: &str) -> String {
    let image = demo_image("base");
    format!(
        "[service.{name}]\nimage = \"{image}\"\ncommand = [\"sh\", \"-c\", '''{first}{WAIT}''']\nvolumes = [\"/srv:/srv:ro\"]\n{keys}\n"
    )
}

/// `coracle ctl` inside of a service.
fn inside(machine: &Machine, name: &str, arguments: &[&str]) -> Command {
    machine.ctl(&[&["exec", name, "/srv/coracle", "ctl"], arguments].concat())
}

/// What a command says that has to fail.
fn fail(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_machine_is_reached_by_its_services_and_its_vsock() {
    let host = Vsock::start();
    let program = made("dist/coracle", "dist");
    let config = Config::new("control-ways")
        .with("[kernel]\npackage = \"linux-image-cloud-amd64\"\nmodules = [\"vsock_loopback\"]")
        .with("[control]\nvsock = 1027")
        .with(&format!("[[file]]\npath = \"/srv/coracle\"\nmode = 0o755\nsource = \"{}\"", program.display()))
        .with(&busybox("service", "web", WAIT, ""))
        .with(&with_coracle(
            "inside",
            &format!("perl -MSocket -e '{RELAY}' & "),
            "control = true\nseccomp = \"unconfined\"",
        ))
        .with(&with_coracle("plain", "", ""));
    let machine = Vsock::attach(config).boot();
    a_service_with_control_has_the_whole_machine(&machine);
    a_service_without_it_has_nothing(&machine);
    a_client_can_be_on_a_vsock(&machine);
    the_host_has_the_machine_by_its_vsock(&machine, &host);
    nobody_else_has_it_by_the_vsock(&machine);
    followers_that_are_gone_leave_their_places(&host);
    // It ends with its service, or a moment before.
    inside(&machine, "inside", &["poweroff"]).output().unwrap();
    let ended = machine.wait();
    assert_eq!(ended.code, 0, "{}", ended.output);
    assert!(ended.output.contains("asked to end by the control channel"), "{}", ended.output);
}

fn a_service_with_control_has_the_whole_machine(machine: &Machine) {
    let table = succeed(&mut inside(machine, "inside", &["status"]));
    assert!(table.starts_with("control-ways is ready, "), "{table}");
    for name in ["web", "inside", "plain"] {
        assert!(table.lines().any(|line| line.starts_with(&format!("{name} "))), "{table}");
    }
    let before = service(machine, "web");
    succeed(&mut inside(machine, "inside", &["restart", "web"]));
    let after = service(machine, "web");
    assert_eq!((after.state, after.starts), (ServiceState::Ready, before.starts + 1));
    let mut other = inside(machine, "inside", &["exec", "web", "sh", "-c", "hostname; exit 9"]);
    let output = other.output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), &b"web\n"[..]));
}

fn a_service_without_it_has_nothing(machine: &Machine) {
    let said = fail(&mut inside(machine, "plain", &["status"]));
    assert!(said.contains("no machine runs here"), "{said}");
    fail(&mut machine.ctl(&["exec", "web", "ls", "/dev/coracle.ctl"]));
}

/// As the host's is where its kernel has one.
fn a_client_can_be_on_a_vsock(machine: &Machine) {
    let by_relay =
        |arguments: &[&str]| inside(machine, "inside", &[&["--socket", "vsock:1:7777"], arguments].concat());
    eventually("the relay listens", || by_relay(&["status"]).output().unwrap().status.success());
    assert!(succeed(&mut by_relay(&["status"])).starts_with("control-ways is ready, "));
    assert_eq!(succeed(&mut by_relay(&["exec", "web", "hostname"])), "web\n");
    let said = fail(&mut inside(machine, "inside", &["--socket", "vsock:1:7778", "status"]));
    assert!(said.contains("cannot connect to `vsock:1:7778`: Connection reset"), "{said}");
}

fn the_host_has_the_machine_by_its_vsock(machine: &Machine, host: &Vsock) {
    let answers = succeed(&mut host.ctl(1027, &["status", "--json"]));
    let first: Answer = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
    let Answer::Machine(told) = first else { panic!("{answers}") };
    assert_eq!(told.name.as_str(), "control-ways");

    let before = service(machine, "web").starts;
    succeed(&mut host.ctl(1027, &["restart", "web"]));
    assert_eq!(service(machine, "web").starts, before + 1);

    let input: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut command = host.ctl(1027, &["exec", "-i", "web", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| stdin.write_all(&input).map(|()| drop(stdin)).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success() && output.stdout == input, "{} bytes", output.stdout.len());

    let said = fail(&mut host.ctl(1028, &["status"]));
    assert!(said.contains("the machine does not listen to this port of its vsock"), "{said}");
}

fn nobody_else_has_it_by_the_vsock(machine: &Machine) {
    // A service with all system calls connects through the kernel's loopback, and is sent away all the same.
    let said = fail(&mut inside(machine, "inside", &["--socket", "vsock:1:1027", "status"]));
    assert!(said.contains("the connection to the machine `vsock:1:1027` was closed"), "{said}");
    let told = "sent somebody away from the control channel: 1 on the vsock is not the host";
    eventually("the console tells", || machine.console().contains(told));
    // Usual ones do not come so far.
    let said = fail(&mut inside(machine, "plain", &["--socket", "vsock:1:1027", "status"]));
    assert!(said.contains("cannot connect to `vsock:1:1027`: Address family not supported"), "{said}");
}

/// There can be 32 clients.
fn followers_that_are_gone_leave_their_places(host: &Vsock) {
    for _ in 0..40 {
        drop(host.follower());
    }
    succeed(&mut host.ctl(1027, &["status"]));
}

//! The whole tour: from a clean checkout to a machine whose services answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::SIGINT;

use crate::process::{Result, because, heading, run, seconds, step};
use crate::workspace::Workspace;
use crate::{dist, images, setup};

/// A service of `configs/demo.toml` as seen from the host.
struct Door {
    service: &'static str,
    guest_port: u16,
    /// Taken when it is free on the host, else any other.
    favourite: u16,
    request: &'static str,
    answer: &'static str,
    /// How a person tries it.
    by_hand: fn(SocketAddr) -> String,
}

const DOORS: &[Door] = &[
    Door {
        service: "web",
        guest_port: 80,
        favourite: 8080,
        request: "GET / HTTP/1.0\r\n\r\n",
        answer: "HTTP/1.1 200 OK",
        by_hand: |address| format!("curl http://{address}/"),
    },
    Door {
        service: "redis",
        guest_port: 6379,
        favourite: 6379,
        request: "PING\r\n",
        answer: "+PONG",
        by_hand: |address| format!("redis-cli -p {}", address.port()),
    },
];

const CONFIG: &str = "configs/demo.toml";
const OUTPUT: &str = "target/demo";

/// From the start of `coracle run` to the last answer. Emulation without KVM on a busy machine takes 10 to 20 s.
const ANSWER_DEADLINE: Duration = Duration::from_secs(180);

/// From SIGTERM to the end of `coracle run`: the longest grace period and some.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// Sets up, builds, boots and waits for answers; then stays with the console, or powers off when `once`.
pub fn demo(workspace: &Workspace, once: bool) -> Result<()> {
    step("set-up: Debian packages", || setup::setup(workspace))?;
    step("build of coracle and init", || dist::dist(workspace))?;
    step("demo images, made from Debian packages", || images::images(workspace))?;
    let coracle = workspace.target("dist/coracle");
    step(&format!("coracle build {CONFIG}"), || {
        let mut build = Command::new(&coracle);
        run(build.current_dir(&workspace.root).args(["build", CONFIG, "-o", OUTPUT]))
    })?;

    // Ctrl-C reaches `coracle run` as well, which powers the machine off; this process waits for that.
    signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false)))
        .map_err(because("cannot handle Ctrl-C"))?;
    let doors =
        DOORS.iter().map(|door| Ok((door, free_address(door.favourite)?))).collect::<Result<Vec<_>>>()?;
    let mut command = Command::new(&coracle);
    command.current_dir(&workspace.root).args(["run", OUTPUT]);
    for (door, address) in &doors {
        command.arg("--publish").arg(format!("{address}:{}", door.guest_port));
    }
    if once {
        command.stdin(Stdio::null());
    }
    let begun = Instant::now();
    let mut machine =
        Machine(command.spawn().map_err(because(format!("cannot run `{}`", coracle.display())))?);
    for (door, address) in &doors {
        wait_for_answer(door, *address, begun, &mut machine)?;
    }
    if once {
        return step("power-off", || machine.power_off());
    }
    heading("the machine runs; try");
    for (door, address) in &doors {
        eprintln!("     {}", (door.by_hand)(*address));
    }
    eprintln!("   Ctrl-C powers it off");
    machine.wait()
}

fn free_address(favourite: u16) -> Result<SocketAddr> {
    [favourite, 0]
        .into_iter()
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .and_then(|listener| listener.local_addr().ok())
        .ok_or_else(|| "no port of 127.0.0.1 is free".to_owned())
}

fn wait_for_answer(door: &Door, address: SocketAddr, begun: Instant, machine: &mut Machine) -> Result<()> {
    loop {
        let problem = match answer(door, address) {
            Ok(line) if line.starts_with(door.answer) => {
                let after = seconds(begun.elapsed());
                heading(&format!("`{}` answers on {address} after {after}: {line}", door.service));
                return Ok(());
            }
            Ok(line) => format!("it said {line:?}, not {:?}", door.answer),
            Err(error) => error.to_string(),
        };
        if let Some(status) = machine.0.try_wait().map_err(because("cannot wait for `coracle run`"))? {
            return Err(format!("`coracle run` ended before `{}` answered: {status}", door.service));
        }
        if begun.elapsed() > ANSWER_DEADLINE {
            let limit = seconds(ANSWER_DEADLINE);
            return Err(format!("`{}` did not answer on {address} within {limit}: {problem}", door.service));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The first line of the answer. QEMU accepts a connection before anything in the guest does, so a connection
/// that stays silent or is reset is an ordinary failure, tried again by the caller.
fn answer(door: &Door, address: SocketAddr) -> std::io::Result<String> {
    let timeout = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(door.request.as_bytes())?;
    let mut first = [0; 256];
    let length = stream.read(&mut first)?;
    let text = String::from_utf8_lossy(first.get(..length).unwrap_or_default()).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A running `coracle run`, ended when it goes out of scope.
struct Machine(Child);

impl Machine {
    fn power_off(&mut self) -> Result<()> {
        self.terminate()?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_DEADLINE {
            if self.0.try_wait().map_err(because("cannot wait for `coracle run`"))?.is_some() {
                return self.wait();
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(format!("the machine did not power off within {}", seconds(STOP_DEADLINE)))
    }

    fn terminate(&self) -> Result<()> {
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("`coracle run` has no process id")?;
        kill_process(pid, Signal::TERM).map_err(because("cannot send SIGTERM to `coracle run`"))
    }

    fn wait(&mut self) -> Result<()> {
        let status = self.0.wait().map_err(because("cannot wait for `coracle run`"))?;
        if status.success() { Ok(()) } else { Err(format!("`coracle run` failed: {status}")) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // After a failure: SIGTERM lets `coracle run` take QEMU down with it, which SIGKILL would not.
        if let Ok(None) = self.0.try_wait()
            && let Err(problem) = self.power_off()
        {
            eprintln!("error: {problem}");
        }
    }
}

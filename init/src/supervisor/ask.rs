//! Questions to a service that runs: whether it is ready or healthy.
//!
//! Whoever asks is a child of PID 1, in the cgroup of the service and its network, so that neither a connection that
//! hangs nor an answer that is made to confuse is PID 1's problem. Its exit code is the answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use manifest::Probe;
use nix::unistd::Pid;

use crate::container::{self, Group, Launch, Process, Running, Stdio};
use crate::error::{Error, Result};

/// The child is killed when the answer comes too late; this only ends a connection that goes nowhere.
const PATIENCE: Duration = Duration::from_secs(60);

/// The status line is at the beginning of what comes.
const STATUS_LINE: usize = 64;

/// Who is asked.
pub struct Asked<'a> {
    /// The container.
    pub launch: &'a Launch,
    /// Its cgroup.
    pub group: &'a Group,
    /// Its first process.
    pub first: Pid,
    /// The program that answers, if it is one.
    pub check: Option<&'a Process>,
    /// What that program reads and writes.
    pub null: BorrowedFd<'a>,
}

/// Asks. Returns the child that ends with 0 for yes.
pub fn ask(probe: &Probe, asked: &Asked<'_>) -> Result<Pid> {
    let Asked { launch, group, first, check, null } = *asked;
    match probe {
        Probe::Tcp(port) => container::visit_network(group, first, || code(connect(*port).is_ok())),
        Probe::Http { port, host, path } => {
            container::visit_network(group, first, || code(get(*port, host, path)))
        }
        Probe::Exec(argv) => {
            let missing = || Error::said("run", argv.join(" "), "it was not prepared");
            let stdio = Stdio::Given { input: null, output: null, error: null };
            let running = Running::of(launch, group, first)?;
            container::enter(&running, check.ok_or_else(missing)?, stdio).map(|started| started.pid)
        }
    }
}

fn code(is_yes: bool) -> i32 {
    i32::from(!is_yes)
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Whether a GET request succeeds.
fn get(port: u16, host: &str, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = connect(port)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: coracle\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut line = Vec::new();
        while line.len() < STATUS_LINE && !line.contains(&b'\n') {
            let mut piece = [0; STATUS_LINE];
            let length = stream.read(&mut piece)?;
            if length == 0 {
                break;
            }
            line.extend_from_slice(piece.get(..length).unwrap_or_default());
        }
        Ok(status(&line).is_some_and(|status| (200..400).contains(&status)))
    };
    ask().unwrap_or(false)
}

/// The status code of an answer that begins with `text`.
fn status(text: &[u8]) -> Option<u16> {
    let line = text.strip_prefix(b"HTTP/1.")?;
    let [b'0' | b'1', b' ', a, b, c, rest @ ..] = line else { return None };
    if !matches!(rest.first(), None | Some(b' ' | b'\r' | b'\n')) {
        return None;
    }
    [a, b, c]
        .into_iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 404\r\n", Some(404)),
            ("HTTP/1.1 302", Some(302)),
            ("HTTP/1.1 2000 OK", None),
            ("HTTP/2 200", None),
            ("SSH-2.0-OpenSSH", None),
            ("HTTP/1.1 2x0 OK", None),
            ("HTTP/1.1 +20 OK", None),
            ("", None),
        ] {
            assert_eq!(status(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_server_is_asked_and_its_status_decides() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let mut requests = vec![];
            for status in ["204 No Content", "500 Oh"] {
                let mut stream = listener.accept().unwrap().0;
                let mut request = [0; 512];
                let length = stream.read(&mut request).unwrap();
                requests.push(String::from_utf8_lossy(&request[..length]).into_owned());
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).unwrap();
            }
            requests
        });
        assert!(get(port, "localhost:3000", "/health?deep=1"));
        assert!(!get(port, "localhost:3000", "/health?deep=1"));
        let requests = server.join().unwrap();
        assert!(requests[0].starts_with("GET /health?deep=1 HTTP/1.1\r\nHost: localhost:3000\r\n"));
        assert!(!get(port, "localhost:3000", "/"), "nobody listens any more");
    }
}

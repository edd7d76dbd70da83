//! Where a machine's control channel is: a socket's file, or a port of its vsock.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, VsockAddr};

use super::channel::PATIENCE;
use crate::machines;

/// The most that a VMM answers before it hands a connection on.
const GREETING_MAX: usize = 64;

/// Where a machine can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The file of a unix socket.
    File(PathBuf),
    /// A port of the machine that has this number on the host's vsock.
    Vsock {
        /// The machine's number (CID).
        cid: u32,
        /// The port.
        port: u32,
    },
    /// A port of the machine whose VMM offers its vsock as the file of a unix socket: Firecracker, Cloud Hypervisor, and
    /// vhost-device-vsock beside QEMU.
    VsockFile {
        /// The file.
        file: PathBuf,
        /// The port.
        port: u32,
    },
}

impl Address {
    /// Connects.
    pub fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::File(file) => machines::connect(file),
            Self::Vsock { cid, port } => {
                let flags = SockFlag::SOCK_CLOEXEC;
                let socket = socket::socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
                socket::connect(socket.as_raw_fd(), &VsockAddr::new(*cid, *port))?;
                // What is done with it from here on is the same for both kinds: reading, writing and time limits.
                Ok(UnixStream::from(socket))
            }
            Self::VsockFile { file, port } => {
                let mut stream = machines::connect(file)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
                is_handed_on(&mut stream)?;
                stream.set_read_timeout(None)?;
                Ok(stream)
            }
        }
    }
}

/// Reads the line `OK PORT`, and nothing of what follows.
fn is_handed_on(stream: &mut impl Read) -> io::Result<()> {
    let mut line = Vec::new();
    while line.len() < GREETING_MAX {
        let mut byte = [0];
        match stream.read_exact(&mut byte) {
            Ok(()) => line.extend(byte),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
        if line.ends_with(b"\n") && line.starts_with(b"OK ") {
            return Ok(());
        }
    }
    Err(io::Error::other("the machine does not listen to this port of its vsock"))
}

/// `FILE`, `vsock:CID:PORT` or `vsock:FILE:PORT`.
impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("vsock:") else { return Ok(Self::File(text.into())) };
        let wrong = "expected FILE, vsock:CID:PORT, or vsock:FILE:PORT with a `/` in the file's path";
        let (place, port) = rest.rsplit_once(':').ok_or(wrong)?;
        let port = port.parse().map_err(|_| wrong)?;
        if place.contains('/') {
            return Ok(Self::VsockFile { file: place.into(), port });
        }
        Ok(Self::Vsock { cid: place.parse().map_err(|_| wrong)?, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::VsockFile { file, port } => write!(f, "vsock:{}:{port}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_shown() {
        let file = PathBuf::from("/run/vm:1.sock");
        for (text, address) in [
            ("/run/ctl", Address::File("/run/ctl".into())),
            ("ctl.sock", Address::File("ctl.sock".into())),
            ("vsock:42:1027", Address::Vsock { cid: 42, port: 1027 }),
            ("vsock:/run/vm:1.sock:1027", Address::VsockFile { file, port: 1027 }),
            ("vsock:./42:1", Address::VsockFile { file: "./42".into(), port: 1 }),
        ] {
            assert_eq!(text.parse::<Address>(), Ok(address.clone()));
            assert_eq!(address.to_string(), text);
        }
        for text in ["vsock:", "vsock:42", "vsock:42:", "vsock:vm:1027", "vsock:4294967296:1", "vsock:42:-1"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_vmm_hands_a_connection_on_or_says_that_nobody_listens() {
        let mut heard: &[u8] = b"OK 1073741824\n{\"id\":1}";
        is_handed_on(&mut heard).unwrap();
        assert_eq!(heard, b"{\"id\":1}", "what follows is the machine's");
        for mut heard in [&b""[..], b"OK", b"NO 1\n", &[b'O'; 1000]] {
            let error = is_handed_on(&mut heard).unwrap_err().to_string();
            assert_eq!(error, "the machine does not listen to this port of its vsock");
        }
    }
}

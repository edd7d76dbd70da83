//! Where clients connect: the socket of one service, or the machine's vsock.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use manifest::Name;
use manifest::path::CONTROL;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, getpeername, listen, socket,
};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::error::{Error, Result};
use crate::mounts::make_folder;

/// How many clients of the vsock the kernel keeps until PID 1 has looked at them.
const BACKLOG: i32 = 32;

/// Where clients connect.
pub struct Listener {
    socket: OwnedFd,
    is_vsock: bool,
    /// Whether somebody may be there: until accepting would block.
    is_waiting: bool,
}

/// Who was there.
pub enum Visitor {
    /// A client. Its stream does not block.
    Client(OwnedFd),
    /// Somebody on the vsock with this number who is not the host, and was sent away.
    Stranger(u32),
    /// Somebody for whom there is no descriptor or memory, and who still waits.
    Shortage,
    /// Nobody any more.
    Nobody,
}

impl Listener {
    /// The socket of a service.
    pub fn of_service(name: &Name) -> Result<Self> {
        make_folder(CONTROL)?;
        let path = format!("{CONTROL}/{name}");
        let failed = |error: std::io::Error| Error::io("make the socket", path.clone(), &error);
        let socket = UnixListener::bind(&path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        // The service's users are not the machine's. Nobody else sees the socket.
        fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(failed)?;
        Ok(Self { socket: socket.into(), is_vsock: false, is_waiting: false })
    }

    /// A port of the machine's vsock.
    pub fn vsock(port: u32) -> Result<Self> {
        let failed = |errno| Error::new("listen to", format!("port {port} of the vsock"), errno);
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None).map_err(failed)?;
        // Whatever number the machine has: its hypervisor may give it another one while it runs.
        let address = VsockAddr::new(libc::VMADDR_CID_ANY, port);
        bind(socket.as_raw_fd(), &address).map_err(failed)?;
        listen(&socket, Backlog::new(BACKLOG).map_err(failed)?).map_err(failed)?;
        Ok(Self { socket, is_vsock: true, is_waiting: false })
    }

    /// To wait for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes note of an event.
    pub fn wake(&mut self) {
        self.is_waiting = true;
    }

    /// Whether somebody may be there.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// The next one who is there.
    pub fn accept(&mut self) -> Visitor {
        let stream = match accept_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(stream) => stream,
            // This one is gone; another may be there.
            Err(Errno::CONNABORTED | Errno::INTR) => return Visitor::Nobody,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return Visitor::Shortage,
            Err(_) => {
                self.is_waiting = false;
                return Visitor::Nobody;
            }
        };
        if !self.is_vsock {
            return Visitor::Client(stream);
        }
        // Other machines of the host, and programs of this one by way of a loopback, have numbers of their own. The kernel
        // has taken this one from the transport; no program can choose it.
        match getpeername::<VsockAddr>(stream.as_raw_fd()) {
            Ok(peer) if peer.cid() == libc::VMADDR_CID_HOST => Visitor::Client(stream),
            Ok(peer) => Visitor::Stranger(peer.cid()),
            // It is gone already.
            Err(_) => Visitor::Stranger(libc::VMADDR_CID_ANY),
        }
    }
}

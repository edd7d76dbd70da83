//! The sockets on which services say how they are, as sd_notify(3) does.

use std::fs::{self, Permissions};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use manifest::path::NOTIFY;
use rustix::net::{RecvFlags, recv};

use crate::error::{Error, Result};
use crate::mounts::make_folder;

/// How many datagrams are read before the other services get their turn again.
const DATAGRAMS: usize = 16;

/// The longest status that is kept.
const STATUS_MAX: usize = 256;

/// The socket of one service. Whoever it is shown to can write to it, and that is the service alone.
pub struct Notify(UnixDatagram);

/// What a service says.
#[derive(Debug, PartialEq, Eq)]
pub enum Word<'a> {
    /// `READY=1`
    Ready,
    /// `WATCHDOG=1`
    Alive,
    /// `STATUS=…`, cut where it is too long.
    Status(&'a str),
}

impl Notify {
    /// Makes the socket of the service `name`.
    pub fn new(name: &str) -> Result<Self> {
        make_folder(NOTIFY)?;
        let path = format!("{NOTIFY}/{name}");
        let failed = |error: std::io::Error| Error::io("make the socket", path.clone(), &error);
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        // The service's users are not the machine's. Nobody else sees the socket.
        fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(failed)?;
        Ok(Self(socket))
    }

    /// To wait for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Reads what has come, and passes on what is understood.
    pub fn read(&self, buffer: &mut [MaybeUninit<u8>], say: &mut dyn FnMut(Word<'_>)) {
        for _ in 0..DATAGRAMS {
            // A longer datagram loses its end.
            let Ok(((datagram, _), _)) = recv(&self.0, &mut *buffer, RecvFlags::empty()) else { return };
            words(datagram).for_each(&mut *say);
        }
    }
}

/// The words of one datagram.
fn words(datagram: &[u8]) -> impl Iterator<Item = Word<'_>> {
    datagram.split(|&byte| byte == b'\n').filter_map(|line| match line {
        b"READY=1" => Some(Word::Ready),
        b"WATCHDOG=1" => Some(Word::Alive),
        line => {
            let status = line.strip_prefix(b"STATUS=")?;
            let valid = status.utf8_chunks().next().map_or("", |chunk| chunk.valid());
            Some(Word::Status(valid.get(..valid.floor_char_boundary(STATUS_MAX)).unwrap_or_default()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_is_passed_on_in_its_order() {
        let all: Vec<Word<'_>> =
            words(b"MAINPID=7\nREADY=1\nSTATUS=serving \xff 7\nREADY=2\n\nWATCHDOG=1").collect();
        assert_eq!(all, [Word::Ready, Word::Status("serving "), Word::Alive]);
        assert_eq!(words(b"").count() + words(b"\n\n=\nREADY").count(), 0);
    }

    #[test]
    fn a_status_is_cut_between_two_characters() {
        let long = format!("STATUS={}", "é".repeat(200));
        let Some(Word::Status(status)) = words(long.as_bytes()).next() else { panic!("no status") };
        assert_eq!(status, "é".repeat(128));
    }
}

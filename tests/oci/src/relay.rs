//! The other side of a container's terminal: received from the container's process, and carried to and from this
//! command's own standard input and output.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::{Result, because};

/// This command's own terminal, as it was before.
struct Restored(Option<Termios>);

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let (Ok(()) | Err(_)) = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Takes the descriptor that was sent over `socket`.
pub(crate) fn receive(socket: &UnixStream) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(because("cannot receive the terminal"))?;
    let mut messages = control.drain();
    let descriptors = messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.and_then(|mut sent| sent.next()).ok_or_else(|| "no terminal was sent".to_owned())
}

/// Carries everything until nobody has the terminal any more.
pub(crate) fn carry(terminal: OwnedFd) -> Result<()> {
    let failed = || because("cannot use the terminal");
    let _restored = prepare(&terminal);
    let mut input = std::fs::File::from(terminal.try_clone().map_err(failed())?);
    let mut output = std::fs::File::from(terminal);
    // Ends with the process: nobody waits for what is typed after the container's end.
    thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut input));
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            // EIO: the last one inside has closed it.
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => {
                let mut stdout = std::io::stdout();
                let written = stdout.write_all(buffer.get(..length).unwrap_or_default());
                written.and_then(|()| stdout.flush()).map_err(failed())?;
            }
        }
    }
}

/// Gives the terminal the size of this command's own, which from now on passes every key on.
fn prepare(terminal: &OwnedFd) -> Restored {
    let own = std::io::stdin();
    if !isatty(own.as_fd()) {
        return Restored(None);
    }
    // A terminal without a size is one as well.
    let (Ok(()) | Err(_)) = tcgetwinsize(&own).and_then(|size| tcsetwinsize(terminal, size));
    let Ok(before) = tcgetattr(&own) else { return Restored(None) };
    let mut raw = before.clone();
    raw.make_raw();
    let (Ok(()) | Err(_)) = tcsetattr(&own, OptionalActions::Now, &raw);
    Restored(Some(before))
}

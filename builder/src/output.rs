//! Stdout, where results go, and whose reader may have seen enough.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use crate::error::{Context as _, Result};

/// How much is written at once.
const CHUNK: usize = 64 * 1024;

/// Stdout while a result is written to it.
pub type Output = BufWriter<Watched>;

/// Stdout, and whether its reader has gone.
#[derive(Debug)]
pub struct Watched {
    stdout: StdoutLock<'static>,
    is_abandoned: bool,
}

/// Lets `produce` write a result. A reader that has seen enough, such as `head`, is no failure.
pub fn write(produce: impl FnOnce(&mut Output) -> Result<()>) -> Result<()> {
    let watched = Watched { stdout: io::stdout().lock(), is_abandoned: false };
    let mut output = BufWriter::with_capacity(CHUNK, watched);
    let written = produce(&mut output).and_then(|()| output.flush().doing(|| "write to stdout"));
    if output.get_ref().is_abandoned { Ok(()) } else { written }
}

impl Watched {
    fn watch<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        self.is_abandoned |= outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        outcome
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stdout.write(bytes);
        self.watch(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.stdout.flush();
        self.watch(flushed)
    }
}

//! The terminal that `coracle ctl exec -t` gives away, and what it was before.

use std::io::{stdin, stdout};
use std::os::fd::AsFd;

use manifest::control::Size;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Context, Result};

/// The size where there is no terminal that has one.
const USUAL: Size = Size { rows: 24, columns: 80 };

/// How the terminal on stdin was: it becomes so again with the last of these.
#[derive(Debug)]
pub struct Raw(Saved);

/// What is needed to restore the terminal at any time.
#[derive(Debug, Clone)]
pub struct Saved(Termios);

impl Raw {
    /// From now on the terminal hands each key on, and does nothing by itself.
    pub fn enter() -> Result<Self> {
        let terminal = stdin();
        let saved = tcgetattr(&terminal).doing(|| "look at the terminal")?;
        let mut raw = saved.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Drain, &raw).doing(|| "set up the terminal")?;
        Ok(Self(Saved(saved)))
    }

    /// What restores it.
    pub fn saved(&self) -> Saved {
        self.0.clone()
    }
}

impl Saved {
    /// Makes the terminal what it was.
    pub fn restore(&self) {
        // A terminal that is gone needs no care.
        let (Ok(()) | Err(_)) = tcsetattr(stdin(), OptionalActions::Drain, &self.0);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.0.restore();
    }
}

/// Whether somebody may type.
pub fn is_there() -> bool {
    isatty(stdin())
}

/// Its size now.
pub fn size() -> Size {
    size_of(stdout()).or_else(|| size_of(stdin())).unwrap_or(USUAL)
}

/// How many characters a line of stdout has.
pub fn width() -> usize {
    size_of(stdout()).map_or(usize::from(USUAL.columns), |size| usize::from(size.columns))
}

/// Whether a person reads stdout.
pub fn is_read() -> bool {
    isatty(stdout())
}

fn size_of(terminal: impl AsFd) -> Option<Size> {
    let size = tcgetwinsize(terminal).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(Size { rows: size.ws_row, columns: size.ws_col })
}

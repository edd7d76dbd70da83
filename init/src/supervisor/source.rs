//! What the loop waits for, as the number that epoll hands back.

use supervision::Index;

/// One descriptor's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Signals to PID 1.
    Signals,
    /// The console has room again.
    Console,
    /// The network's descriptors.
    Network,
    /// This power button.
    Button(Index),
    /// What this service writes.
    Output(Index),
    /// How far this service's start has come.
    Start(Index),
    /// What this service says of itself.
    Notify(Index),
    /// Where this service says that it is ready.
    Ready(Index),
    /// Clients of the control channel that wait at this socket.
    Listener(usize),
    /// This client of the control channel.
    Client(usize),
    /// The program that runs for a client, at this place.
    Exec(usize),
    /// The syslog server.
    Syslog,
    /// The writer of files.
    Files,
}

impl Source {
    /// The kind in the upper half, the index in the lower.
    pub fn encode(self) -> u64 {
        let (kind, index): (u64, Index) = match self {
            Self::Signals => (0, 0),
            Self::Console => (1, 0),
            Self::Network => (2, 0),
            Self::Button(index) => (3, index),
            Self::Output(index) => (4, index),
            Self::Start(index) => (5, index),
            Self::Notify(index) => (6, index),
            Self::Ready(index) => (7, index),
            Self::Listener(place) => (8, place),
            Self::Client(place) => (9, place),
            Self::Exec(place) => (10, place),
            Self::Syslog => (11, 0),
            Self::Files => (12, 0),
        };
        kind << 32 | u64::try_from(index).unwrap_or_default() & u64::from(u32::MAX)
    }

    /// What [`encode`](Self::encode) made. Nothing else is ever registered.
    pub fn decode(number: u64) -> Option<Self> {
        let index = Index::try_from(number & u64::from(u32::MAX)).ok()?;
        Some(match number >> 32 {
            0 => Self::Signals,
            1 => Self::Console,
            2 => Self::Network,
            3 => Self::Button(index),
            4 => Self::Output(index),
            5 => Self::Start(index),
            6 => Self::Notify(index),
            7 => Self::Ready(index),
            8 => Self::Listener(index),
            9 => Self::Client(index),
            10 => Self::Exec(index),
            11 => Self::Syslog,
            12 => Self::Files,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_survives_epoll() {
        for source in [
            Source::Signals,
            Source::Console,
            Source::Network,
            Source::Button(1),
            Source::Output(0),
            Source::Start(70_000),
            Source::Notify(3),
            Source::Ready(4),
            Source::Listener(1),
            Source::Client(32),
            Source::Exec(0),
            Source::Syslog,
            Source::Files,
        ] {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
        assert_eq!(Source::decode(u64::MAX), None);
    }
}

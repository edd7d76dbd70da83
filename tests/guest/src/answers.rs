//! A server that gives back what it gets, and who asks it how long that takes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use probe::Latency;

/// From one question to the next.
const PAUSE: Duration = Duration::from_millis(10);
/// What is asked and answered.
const QUESTION: &[u8; 16] = b"how are you then";

/// Gives back what comes to `port`, one connection after the other.
pub fn serve(port: u16) -> io::Result<()> {
    for connection in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let mut question = [0; QUESTION.len()];
        // A health check says nothing.
        if let Ok(mut stream) = connection
            && stream.read_exact(&mut question).is_ok()
        {
            stream.write_all(&question)?;
        }
    }
    Ok(())
}

/// Asks the server at `port` so many times, each time by a connection of its own.
pub fn ask(port: u16, count: usize) -> io::Result<Latency> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(QUESTION)?;
        let mut answer = [0; QUESTION.len()];
        stream.read_exact(&mut answer)?;
        if &answer != QUESTION {
            return Err(io::Error::other("it answers something else"));
        }
        took.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        thread::sleep(PAUSE);
    }
    took.sort_unstable();
    let of_hundred = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1)));
    let [median_us, p90_us, longest_us] =
        [50, 90, 100].map(|share| of_hundred(share).copied().unwrap_or_default());
    Ok(Latency { answers: took.len(), median_us, p90_us, longest_us })
}

//! Asking a machine's servers from the host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::eventually;

/// Asks until the answer contains what is expected. QEMU accepts connections before the server does: a
/// connection that is reset or stays silent is tried again.
///
/// # Panics
///
/// When that answer has not come after half a minute.
pub fn assert_answers(port: u16, request: &[u8], expected: &str) {
    let mut last = String::new();
    eventually(&format!("the answer on port {port} contains {expected:?}"), || {
        last = exchange(port, request).unwrap_or_else(|error| error.to_string());
        last.contains(expected)
    });
}

/// What comes within a second of silence.
fn exchange(port: u16, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    // A server that keeps the connection open ends this by the timeout, with what has come until then.
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

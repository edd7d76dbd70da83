//! A line as syslog has it: RFC 5424.

use std::fmt::{self, Display};
use std::io::Write;

use super::timestamp::Timestamp;

/// What `Facility` and `Severity` of RFC 5424 are for a daemon that tells something.
pub const INFORMATIONAL: u8 = 3 * 8 + 6;
/// Likewise, of a warning.
pub const WARNING: u8 = 3 * 8 + 4;

/// The longest name of a program in a message.
const NAME_MAX: usize = 48;

/// What a text that is more than ASCII begins with, so that whoever reads it knows that it is UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// One message.
pub struct Message<'a> {
    /// [`INFORMATIONAL`] or [`WARNING`].
    pub priority: u8,
    /// When it was said.
    pub time: Timestamp,
    /// The machine.
    pub host: &'a str,
    /// The service.
    pub name: &'a str,
    /// Its first process; 0 when that is not known.
    pub pid: i32,
    /// What was said, without control characters.
    pub text: &'a dyn Display,
}

impl Message<'_> {
    /// Adds the message to `bytes`.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let Self { priority, time, host, name, pid, text } = self;
        let name = name.get(..NAME_MAX).unwrap_or(name);
        let pid: &dyn Display = if *pid == 0 { &"-" } else { pid };
        append(bytes, format_args!("<{priority}>1 {time} {host} {name} {pid} - - "));
        let start = bytes.len();
        append(bytes, format_args!("{text}"));
        if bytes.get(start..).is_some_and(|text| !text.is_ascii()) {
            bytes.splice(start..start, BYTE_ORDER_MARK);
        }
    }

    /// Likewise, with its length before it: one of many in a stream (RFC 6587, section 3.4.1).
    pub fn write_framed(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        self.write(bytes);
        let length = format!("{} ", bytes.len() - start);
        bytes.splice(start..start, length.into_bytes());
    }
}

/// Writing to a vector cannot fail; a Display that does leaves a shorter text.
fn append(bytes: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    let (Ok(()) | Err(_)) = bytes.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Line;
    use super::*;

    fn written(name: &str, pid: i32, text: &[u8], framed: bool) -> String {
        let message = Message {
            priority: INFORMATIONAL,
            time: Timestamp(Duration::from_micros(951_782_399_000_001)),
            host: "shop",
            name,
            pid,
            text: &Line(text),
        };
        let mut bytes = b"before ".to_vec();
        if framed {
            message.write_framed(&mut bytes)
        } else {
            message.write(&mut bytes)
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_message_has_its_header_and_its_text() {
        let header = "before <30>1 2000-02-28T23:59:59.000001Z shop";
        assert_eq!(written("web", 7, b"a b", false), format!("{header} web 7 - - a b"));
        assert_eq!(written("web", 0, b"\x1b\xff", false), format!("{header} web - - - \\x1b\\xff"));
        let mark = '\u{feff}';
        assert_eq!(written("web", 7, "ä".as_bytes(), false), format!("{header} web 7 - - {mark}ä"));
        let long = "x".repeat(60);
        assert_eq!(written(&long, 7, b"", false), format!("{header} {} 7 - - ", "x".repeat(48)));
    }

    #[test]
    fn a_message_in_a_stream_says_how_many_bytes_it_has() {
        let framed = written("web", 7, "größer".as_bytes(), true);
        let (length, message) = framed.strip_prefix("before ").unwrap().split_once(' ').unwrap();
        assert_eq!(length.parse(), Ok(message.len()));
        assert!(message.starts_with("<30>1 "));
    }
}

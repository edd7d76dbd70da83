//! A line as it is shown.

use std::fmt;

/// One line of a service, shown so that it can do nothing to a terminal: control characters and bytes that
/// are no UTF-8 appear as escapes. A carriage return at the end is left out.
pub struct Line<'a>(pub &'a [u8]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.strip_suffix(b"\r").unwrap_or(self.0);
        for chunk in text.utf8_chunks() {
            let mut plain = chunk.valid();
            while let Some(at) = plain.find(|c: char| c.is_control() && c != '\t') {
                let (before, from) = plain.split_at(at);
                f.write_str(before)?;
                let mut characters = from.chars();
                if let Some(control) = characters.next() {
                    write!(f, "\\x{:02x}", u32::from(control))?;
                }
                plain = characters.as_str();
            }
            f.write_str(plain)?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_cursor_reaches_the_terminal() {
        for (line, shown) in [
            (&b"\x1b[2J\x07a\tb\x7f\xff\xc2\x9b31m"[..], "\\x1b[2J\\x07a\tb\\x7f\\xff\\x9b31m"),
            ("größer".as_bytes(), "größer"),
            (b"dos\r", "dos"),
        ] {
            assert_eq!(Line(line).to_string(), shown);
        }
    }
}

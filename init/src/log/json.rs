//! A line as an object: one line of JSON, whatever is in it.

use std::fmt::{self, Write};

use super::timestamp::Timestamp;

/// `{"time":"…","service":"…","text":"…"}`
pub struct Object<'a> {
    /// When it was said.
    pub time: Timestamp,
    /// Who has said it: a name, which needs no escapes.
    pub name: &'a str,
    /// What.
    pub text: &'a dyn fmt::Display,
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"time\":\"{}\",\"service\":\"{}\",\"text\":\"", self.time, self.name)?;
        write!(Escaped(f), "{}", self.text)?;
        f.write_str("\"}")
    }
}

/// What stands between the quotes of a JSON string.
struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(|c: char| matches!(c, '"' | '\\') || c.is_control()) {
            let special = piece.chars().next_back().filter(|&c| matches!(c, '"' | '\\') || c.is_control());
            let Some(special) = special else {
                self.0.write_str(piece)?;
                continue;
            };
            self.0.write_str(piece.strip_suffix(special).unwrap_or_default())?;
            match special {
                '"' | '\\' => write!(self.0, "\\{special}")?,
                '\t' => self.0.write_str("\\t")?,
                // All of them are among the first 160 characters.
                control => write!(self.0, "\\u{:04x}", u32::from(control))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::Line;
    use super::*;

    fn object(text: &[u8]) -> String {
        Object { time: Timestamp(Duration::ZERO), name: "web", text: &Line(text) }.to_string()
    }

    #[test]
    fn a_line_is_an_object() {
        let expected =
            r#"{"time":"1970-01-01T00:00:00.000000Z","service":"web","text":"a\t\"b\" \\x1b\\xff"}"#;
        assert_eq!(object(b"a\t\"b\" \x1b\xff"), expected);
    }

    proptest! {
        #[test]
        fn every_line_is_read_back_as_it_is_shown(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let written = object(&text);
            prop_assert!(!written.contains('\n'));
            let value: serde_json::Value = serde_json::from_str(&written).unwrap();
            let shown = Line(&text).to_string();
            prop_assert_eq!(value["text"].as_str(), Some(shown.as_str()));
        }

        #[test]
        fn whatever_init_says_is_read_back(text in ".*") {
            let written = Object { time: Timestamp(Duration::ZERO), name: "x", text: &text }.to_string();
            let value: serde_json::Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(value["text"].as_str(), Some(text.as_str()));
        }
    }
}

//! How lines get to the process that writes files: each with the name of its file before it.

/// A line for a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Whose file.
    pub name: &'a str,
    /// The whole line, with its end.
    pub line: &'a [u8],
}

/// The length of a name, and that of a line in four bytes.
const HEADER: usize = 1 + 4;

impl<'a> Frame<'a> {
    /// Adds it to `bytes`. What is too long for a frame, as no name and no line is, is left out.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let (Ok(name), Ok(line)) = (u8::try_from(self.name.len()), u32::try_from(self.line.len())) else {
            return;
        };
        bytes.push(name);
        bytes.extend(line.to_le_bytes());
        bytes.extend(self.name.as_bytes());
        bytes.extend(self.line);
    }

    /// The frame at the beginning of `bytes`, and what comes after it. None when its end has not come yet.
    pub fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let (name, line) = header.split_first()?;
        let line = usize::try_from(u32::from_le_bytes(line.try_into().ok()?)).ok()?;
        let (name, rest) = rest.split_at_checked(usize::from(*name))?;
        let (line, rest) = rest.split_at_checked(line)?;
        // Names are ASCII. The other side is PID 1.
        Some((Self { name: std::str::from_utf8(name).unwrap_or_default(), line }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_when_all_of_it_is_there() {
        let frames = [Frame { name: "web", line: b"hello\n" }, Frame { name: "x", line: b"\xff\0\n" }];
        let mut bytes = vec![];
        frames.iter().for_each(|frame| frame.write(&mut bytes));
        let (first, rest) = Frame::read(&bytes).unwrap();
        assert_eq!(first, frames[0]);
        assert_eq!(Frame::read(rest), Some((Frame { name: "x", line: b"\xff\0\n" }, &b""[..])));
        for length in 0..bytes.len() - rest.len() {
            assert_eq!(Frame::read(&bytes[..length]), None);
        }
    }
}

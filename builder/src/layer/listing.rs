//! The files of a layer's image, for people line by line and for programs as JSON.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::names;
use super::tree::OPAQUE;
use super::walk::{Place, Walk};
use crate::artifact::erofs::{Image, Inode, Kind, Metadata};
use crate::error::{Context as _, Result};

/// What is listed, and how.
#[derive(Debug, Clone, Copy)]
pub struct Listing {
    /// A folder with all below it, and not only what is in it.
    pub recursive: bool,
    /// For programs.
    pub json: bool,
}

/// Lists what is in the folder at `path`, or, if it is none, the file itself.
pub fn list(image: &Image, path: &[u8], found: &Inode, listing: Listing, out: &mut impl Write) -> Result<()> {
    let mut printer = Printer { out, json: listing.json, count: 0 };
    printer.begin()?;
    if listing.recursive || found.kind != Kind::Directory {
        let mut walk = Walk::new(image, Place::of(path), found);
        while let Some((place, inode)) = walk.next()? {
            printer.print(&place.path(), &inode)?;
        }
    } else {
        for entry in image.list(found)? {
            printer.print(&names::joined(path, &entry.name), &image.inode(entry.nid)?)?;
        }
    }
    printer.end()
}

/// Writes files one by one.
struct Printer<'a, W> {
    out: &'a mut W,
    json: bool,
    count: u64,
}

impl<W: Write> Printer<'_, W> {
    fn begin(&mut self) -> Result<()> {
        self.write(if self.json { "[" } else { "" })
    }

    fn print(&mut self, path: &[u8], inode: &Inode) -> Result<()> {
        let separator = match (self.json, self.count) {
            (false, _) => "",
            (true, 0) => "\n",
            (true, _) => ",\n",
        };
        self.count += 1;
        let text =
            if self.json { without_controls(&value(path, inode).to_string()) } else { line(path, inode) };
        self.write(&format!("{separator}{text}"))
    }

    fn end(&mut self) -> Result<()> {
        self.write(if self.json { "\n]\n" } else { "" })
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes()).doing(|| "write the list")
    }
}

/// A file as `ls -l` shows it, with its time in UTC and what it means to the layers below.
fn line(path: &[u8], inode: &Inode) -> String {
    let Metadata { uid, gid, mtime, .. } = inode.metadata;
    let size = match inode.kind {
        Kind::File { size } => size.to_string(),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => format!("{major},{minor}"),
        _ => "-".to_owned(),
    };
    let (owner, links, time) = (format!("{uid}:{gid}"), inode.links, utc(mtime));
    let mut text = format!("{} {links:>3} {owner:>11} {size:>11} {time} /{}", mode(inode), readable(path));
    match &inode.kind {
        Kind::Symlink(target) => text += &format!(" -> {}", readable(target)),
        _ if inode.kind == Kind::WHITEOUT => text += " [whiteout]",
        _ if is_opaque(inode) => text += " [opaque]",
        _ => {}
    }
    text + "\n"
}

/// A file for programs.
fn value(path: &[u8], inode: &Inode) -> Value {
    let Metadata { mode, uid, gid, mtime, mtime_nsec, xattrs } = &inode.metadata;
    let mut value = Map::new();
    let mut add = |key: &str, field: Value| value.insert(key.to_owned(), field);
    add("path", text(&[b"/", path].concat()));
    add("kind", kind(&inode.kind).into());
    match &inode.kind {
        Kind::File { size } => drop(add("size", json!(size))),
        Kind::Symlink(target) => drop(add("target", text(target))),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            add("major", json!(major));
            add("minor", json!(minor));
        }
        Kind::Directory => drop(add("opaque", json!(is_opaque(inode)))),
        Kind::Fifo | Kind::Socket => {}
    }
    add("mode", format!("{mode:04o}").into());
    add("uid", json!(uid));
    add("gid", json!(gid));
    add("mtime", json!(mtime));
    add("nanoseconds", json!(mtime_nsec));
    add("inode", json!(inode.nid));
    add("links", json!(inode.links));
    let xattrs = xattrs.iter().map(|(name, value)| json!({ "name": text(name), "value": text(value) }));
    add("xattrs", xattrs.collect());
    Value::Object(value)
}

fn kind(kind: &Kind) -> &'static str {
    match kind {
        _ if *kind == Kind::WHITEOUT => "whiteout",
        Kind::Directory => "folder",
        Kind::File { .. } => "file",
        Kind::Symlink(_) => "link",
        Kind::CharDevice { .. } => "character-device",
        Kind::BlockDevice { .. } => "block-device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

fn is_opaque(inode: &Inode) -> bool {
    inode.kind == Kind::Directory && inode.metadata.xattrs.contains_key(OPAQUE)
}

/// Ten letters, as `ls` writes them.
fn mode(inode: &Inode) -> String {
    let bits = inode.metadata.mode;
    let kind = match inode.kind {
        Kind::Directory => 'd',
        Kind::File { .. } => '-',
        Kind::Symlink(_) => 'l',
        Kind::CharDevice { .. } => 'c',
        Kind::BlockDevice { .. } => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let (read, write, execute) = (bits >> shift & 4 != 0, bits >> shift & 2 != 0, bits >> shift & 1 != 0);
        text.push(if read { 'r' } else { '-' });
        text.push(if write { 'w' } else { '-' });
        text.push(match (bits & special != 0, execute) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, false) => letter.to_ascii_uppercase(),
            (true, true) => letter,
        });
    }
    text
}

/// Seconds since 1970 as date and time.
fn utc(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years begin in March here, so that a leap day is the last of its year, and periods of 400 years in 0000.
    let days = days + 719_468;
    let (period, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (period * 400 + year + month / 10, (month + 2) % 12 + 1);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// A name as a terminal can take it: what is no text, or would move the cursor, is escaped as in Rust.
fn readable(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\'' | '"' => text.push(letter),
                _ => text.extend(letter.escape_debug()),
            }
        }
        text += &chunk.invalid().escape_ascii().to_string();
    }
    text
}

/// Text for programs; a list of its bytes where it is none.
fn text(bytes: &[u8]) -> Value {
    str::from_utf8(bytes).map_or_else(|_| json!(bytes), Value::from)
}

/// JSON without the control characters that it lets pass: a terminal may obey them.
fn without_controls(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_control() {
            text += &format!("\\u{:04x}", u32::from(letter));
        } else {
            text.push(letter);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_in_utc_however_far_away() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (-62_167_219_200, "0000-01-01 00:00:00"),
            (i64::MAX, "292277026596-12-04 15:30:07"),
            (i64::MIN, "-292277022657-01-27 08:29:52"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }

    #[test]
    fn names_are_readable_and_harmless() {
        for (name, expected) in [
            (b"plain name's".as_slice(), "plain name's"),
            ("grün/日本".as_bytes(), "grün/日本"),
            (b"a\x1b[2Jb\n", "a\\u{1b}[2Jb\\n"),
            (b"\xff\xfe-\\", "\\xff\\xfe-\\\\"),
            ("\u{9b}0m\u{202e}".as_bytes(), "\\u{9b}0m\\u{202e}"),
        ] {
            assert_eq!(readable(name), expected);
        }
        let json = without_controls(&text("\u{9b}\u{7f}\n".as_bytes()).to_string());
        assert_eq!(json, "\"\\u009b\\u007f\\n\"");
        assert_eq!(text(b"\xff"), json!([255]));
    }
}

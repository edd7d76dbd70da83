//! The process that writes what is said to files. Writing can wait for a disk, and PID 1 waits for nothing.
//!
//! It reads frames from its standard input until that ends. On its standard output it says what PID 1 is to tell.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::frame::Frame;
use super::timestamp::Timestamp;
use crate::clock;
use crate::error::{Error, Result};

/// What one reading takes: all that the pipe holds.
const READ_SIZE: usize = 64 * 1024;

/// How long a file may become, and how many there are of each service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes.
    pub max_size: u64,
    /// With the one that is written to.
    pub max_files: u32,
}

/// Writes what `input` says to files in `folder`, until it ends. What is to be told goes to `output`.
pub fn run(
    folder: OwnedFd,
    rotation: Rotation,
    mut input: impl Read,
    mut output: impl Write,
) -> std::io::Result<()> {
    let mut files = Files { folder, rotation, files: BTreeMap::new() };
    let (mut buffer, mut length) = (vec![0; READ_SIZE], 0);
    loop {
        if length == buffer.len() {
            buffer.resize(length * 2, 0);
        }
        match input.read(buffer.get_mut(length..).unwrap_or_default()) {
            Ok(0) => return Ok(()),
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some((frame, after)) = Frame::read(rest) {
            files.add(&frame);
            rest = after;
        }
        let left = rest.len();
        buffer.copy_within(length - left..length, 0);
        length = left;
        for news in files.write() {
            // Nobody listens when PID 1 has closed its end, and then it has closed the other one as well.
            let (Ok(()) | Err(_)) = writeln!(output, "{news}");
        }
    }
}

/// Opens the folder at `path`, and makes it where it is not there. No link is followed: a service that has a folder
/// above it as a volume could lead the way to any place of the machine by one.
pub fn open_folder(path: &Path) -> Result<OwnedFd> {
    let failed = |errno| Error::new("open the folder", path.display().to_string(), errno);
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut folder = nix::fcntl::open("/", flags, Mode::empty()).map_err(failed)?;
    for name in path.components().skip(1) {
        match nix::sys::stat::mkdirat(&folder, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        folder = openat(&folder, name.as_os_str(), flags, Mode::empty()).map_err(failed)?;
    }
    Ok(folder)
}

struct Files {
    folder: OwnedFd,
    rotation: Rotation,
    files: BTreeMap<String, Log>,
}

/// The files of one service.
#[derive(Default)]
struct Log {
    file: Option<File>,
    /// Whole lines that are to be written.
    pending: Vec<u8>,
    /// Lines that could not be written since one could, and why.
    lost: Option<(u64, Errno)>,
}

impl Files {
    fn add(&mut self, frame: &Frame<'_>) {
        match self.files.get_mut(frame.name) {
            Some(log) => log.pending.extend(frame.line),
            None => {
                let log = Log { pending: frame.line.to_vec(), ..Log::default() };
                self.files.insert(frame.name.to_owned(), log);
            }
        }
    }

    /// Writes all that is to be written, and returns what is to be told of that.
    fn write(&mut self) -> Vec<String> {
        let Self { folder, rotation, files } = self;
        let written = files.iter_mut().filter_map(|(name, log)| {
            let news = log.write(name, folder, *rotation);
            // One flood does not keep its memory for ever.
            log.pending.clear();
            log.pending.shrink_to(READ_SIZE);
            news
        });
        written.collect()
    }
}

impl Log {
    fn write(&mut self, name: &str, folder: &OwnedFd, rotation: Rotation) -> Option<String> {
        let mut pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return None;
        }
        if let Some((lines, errno)) = self.lost {
            let time = Timestamp(clock::of_day());
            let notice = format!("{time} [coracle] {lines} lines could not be written: {}\n", errno.desc());
            pending.splice(0..0, notice.into_bytes());
        }
        let (mut rest, mut lost_before) = (pending.as_slice(), None);
        while !rest.is_empty() {
            match self.write_some(name, folder, rotation, rest) {
                // There is another file now.
                Ok(0) => {}
                Ok(length) => {
                    rest = rest.get(length..).unwrap_or_default();
                    lost_before = lost_before.or(self.lost.take());
                }
                Err(errno) => return self.lose(name, lines_in(rest), errno),
            }
        }
        self.pending = pending;
        let (lines, _) = lost_before?;
        Some(format!("the log of `{name}` is written again: {lines} lines are missing"))
    }

    /// Notes that lines are lost, and says so if they are the first ones.
    fn lose(&mut self, name: &str, lines: u64, errno: Errno) -> Option<String> {
        let before = self.lost.map(|(lines, _)| lines);
        // The notice of those before is among them, since nothing was written.
        self.lost = Some((before.map_or(lines, |before| before + lines - 1), errno));
        before.is_none().then(|| format!("cannot write the log of `{name}`: {}", errno.desc()))
    }

    /// Writes as many whole lines of `bytes` as the file has room for, and returns how many bytes they have.
    fn write_some(
        &mut self,
        name: &str,
        folder: &OwnedFd,
        rotation: Rotation,
        bytes: &[u8],
    ) -> std::result::Result<usize, Errno> {
        let (file, size) = self.open(name, folder)?;
        let room = usize::try_from(rotation.max_size.saturating_sub(size)).unwrap_or(usize::MAX);
        let length = match whole_lines(bytes, room) {
            0 if size > 0 => {
                self.file = None;
                rotate(folder, name, rotation.max_files)?;
                return Ok(0);
            }
            // One line is longer than a file may be.
            0 => whole_lines(bytes, bytes.len()).min(first_line(bytes)),
            length => length,
        };
        let lines = bytes.get(..length).unwrap_or_default();
        if let Err(error) = (&*file).write_all(lines) {
            // Half a line is worth less than none. Where this fails as well, it stays.
            let (Ok(()) | Err(_)) = file.set_len(size);
            return Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
        }
        Ok(length)
    }

    /// The file, and how long it is. One that somebody has removed is made anew.
    fn open(&mut self, name: &str, folder: &OwnedFd) -> std::result::Result<(&File, u64), Errno> {
        if let Some(file) = &self.file
            && fstat(file)?.st_nlink == 0
        {
            self.file = None;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => open(folder, &format!("{name}.log"))?,
        };
        let size = u64::try_from(fstat(&file)?.st_size).unwrap_or_default();
        Ok((self.file.insert(file), size))
    }
}

/// Opens a file, or makes it. What is no file, or one that has another name as well, is somebody's trap.
fn open(folder: &OwnedFd, name: &str) -> std::result::Result<File, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
    let careful = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let file = openat(folder, name, flags | careful, Mode::from_bits_truncate(0o644))?;
    let stat = fstat(&file)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFREG || stat.st_nlink != 1 {
        return Err(Errno::EEXIST);
    }
    Ok(File::from(file))
}

/// Makes room for another `NAME.log`: it becomes `NAME.log.1`, and so on; what would be one too many is removed.
fn rotate(folder: &OwnedFd, name: &str, files: u32) -> std::result::Result<(), Errno> {
    let numbered = |number| if number == 0 { format!("{name}.log") } else { format!("{name}.log.{number}") };
    let last = files.saturating_sub(1);
    for number in (0..=last).rev() {
        let done = if number == last {
            unlinkat(folder, numbered(number).as_str(), UnlinkatFlags::NoRemoveDir)
        } else {
            renameat(folder, numbered(number).as_str(), folder, numbered(number + 1).as_str())
        };
        match done {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// How many bytes the whole lines have that fit into `room`.
fn whole_lines(bytes: &[u8], room: usize) -> usize {
    let some = bytes.get(..room).unwrap_or(bytes);
    some.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

/// How many bytes the first line has.
fn first_line(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| end + 1)
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn write(folder: &Path, rotation: Rotation, lines: &[(&str, &str)]) -> String {
        let mut input = vec![];
        for (name, line) in lines {
            Frame { name, line: format!("{line}\n").as_bytes() }.write(&mut input);
        }
        let mut output = vec![];
        run(open_folder(folder).unwrap(), rotation, input.as_slice(), &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    const LARGE: Rotation = Rotation { max_size: 1 << 20, max_files: 3 };

    #[test]
    fn each_service_has_a_file_that_goes_on_after_a_restart() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("var/log");
        for _ in 0..2 {
            assert_eq!(write(&folder, LARGE, &[("web", "one"), ("db", "1"), ("web", "two")]), "");
        }
        assert_eq!(read(folder.join("web.log")), "one\ntwo\none\ntwo\n");
        assert_eq!(read(folder.join("db.log")), "1\n1\n");
    }

    #[test]
    fn old_files_are_numbered_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..10).map(|number| format!("line {number}")).collect();
        let lines: Vec<(&str, &str)> = lines.iter().map(|line| ("web", line.as_str())).collect();
        let rotation = Rotation { max_size: 20, max_files: 3 };
        assert_eq!(write(folder.path(), rotation, &lines), "");
        let file = |name: &str| read(folder.path().join(name));
        assert_eq!(file("web.log"), "line 8\nline 9\n");
        assert_eq!(file("web.log.1"), "line 6\nline 7\n");
        assert_eq!(file("web.log.2"), "line 4\nline 5\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        let long = "x".repeat(50);
        let only = Rotation { max_size: 20, max_files: 1 };
        assert_eq!(write(folder.path(), only, &[("db", "one"), ("db", &long), ("db", "two")]), "");
        assert_eq!(file("db.log"), "two\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_when_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let trap = folder.path().join("web.log");
        fs::create_dir(&trap).unwrap();
        let mut files =
            Files { folder: open_folder(folder.path()).unwrap(), rotation: LARGE, files: BTreeMap::new() };
        let mut say = |text: &str| {
            files.add(&Frame { name: "web", line: text.as_bytes() });
            files.write()
        };
        assert_eq!(say("one\n"), ["cannot write the log of `web`: Is a directory"]);
        assert!(say("two\nthree\n").is_empty());
        fs::remove_dir(&trap).unwrap();
        assert_eq!(say("four\n"), ["the log of `web` is written again: 3 lines are missing"]);
        assert!(say("five\n").is_empty());
        let text = read(trap);
        let (notice, rest) = text.split_once('\n').unwrap();
        assert!(notice.ends_with(" [coracle] 3 lines could not be written: Is a directory"), "{notice}");
        assert_eq!(rest, "four\nfive\n");
    }

    #[test]
    fn a_file_that_is_removed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        let mut files =
            Files { folder: open_folder(folder.path()).unwrap(), rotation: LARGE, files: BTreeMap::new() };
        for text in ["one\n", "two\n"] {
            files.add(&Frame { name: "web", line: text.as_bytes() });
            assert!(files.write().is_empty());
            assert_eq!(read(path.clone()), text);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn nobody_leads_the_writer_to_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "precious").unwrap();
        let inside = |name: &str| folder.path().join(name);
        std::os::unix::fs::symlink(&other, inside("a.log")).unwrap();
        fs::hard_link(&other, inside("b.log")).unwrap();
        nix::unistd::mkfifo(&inside("c.log"), Mode::from_bits_truncate(0o600)).unwrap();
        let told = write(folder.path(), LARGE, &[("a", "x"), ("b", "x"), ("c", "x")]);
        assert_eq!(told.matches("cannot write the log of").count(), 3, "{told}");
        assert_eq!(read(other), "precious");
        std::os::unix::fs::symlink("/tmp", inside("link")).unwrap();
        let refused = open_folder(&inside("link/log")).unwrap_err().to_string();
        assert!(refused.starts_with("cannot open the folder"), "{refused}");
    }

    proptest! {
        // Each makes dozens of files.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_line_is_in_one_file_and_no_file_is_too_long(
            lines in prop::collection::vec(0usize..60, 1..80),
            max_size in 1u64..200,
            piece in 1usize..300,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let rotation = Rotation { max_size, max_files: 100 };
            let texts: Vec<String> =
                lines.iter().enumerate().map(|(n, length)| format!("{n} {}\n", "x".repeat(*length))).collect();
            let mut input = vec![];
            texts.iter().for_each(|line| Frame { name: "web", line: line.as_bytes() }.write(&mut input));
            let mut told = vec![];
            run(open_folder(folder.path()).unwrap(), rotation, Slow { rest: &input, piece }, &mut told).unwrap();
            let mut found = vec![];
            for number in (0..100).rev() {
                let name = if number == 0 { "web.log".to_owned() } else { format!("web.log.{number}") };
                let text = read(folder.path().join(name));
                prop_assert!(text.len() as u64 <= max_size || lines_in(text.as_bytes()) == 1);
                found.push(text);
            }
            prop_assert_eq!(found.concat(), texts.concat());
            prop_assert!(told.is_empty());
        }
    }

    /// Gives a few bytes at a time, as a pipe may.
    struct Slow<'a> {
        rest: &'a [u8],
        piece: usize,
    }

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = self.piece.min(self.rest.len()).min(buffer.len());
            let (some, rest) = self.rest.split_at(length);
            buffer[..length].copy_from_slice(some);
            self.rest = rest;
            Ok(length)
        }
    }
}

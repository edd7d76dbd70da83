//! What our reader takes from an archive is what Go's, Python's and GNU tar's take from it. Where those do not
//! agree with each other, it takes nothing.
//!
//! `fixtures/tar` says where the archives are from. Go's verdicts are recorded there; the others are asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::{Archive, *};
use crate::archive::{self, EntryKind};
use crate::oci::descriptor::Digest;

/// Lines by the names of archives, one for each entry, or why there are no more.
type Verdicts = BTreeMap<String, Vec<String>>;

/// The archives that are refused, and why: those that some reader refuses or takes otherwise than another, and
/// those with what layers cannot have.
const REFUSED: &[(&str, &str)] = &[
    ("compat_plexus_archiver_tar.tar", "a single block of zeros stands between entries"),
    ("compat_solaris_tar_acl.tar", "`file-with-posix-acls`: its type `A` is none that layers can contain"),
    (
        "compat_tar_directory_1.tar",
        "`directory1/`: it is no file, and yet its header says that it has 1 bytes",
    ),
    ("gnu-incremental.tar", "its header has a prefix that only some readers take for a part of its name"),
    ("gnu-multi-hdrs.tar", "an entry has two extended headers"),
    ("gnu-nil-sparse-data.tar", "it is a sparse file, which layers cannot contain"),
    ("gnu-nil-sparse-hole.tar", "it is a sparse file, which layers cannot contain"),
    ("gnu-sparse-big.tar", "it is a sparse file, which layers cannot contain"),
    ("hdr-only.tar", "`dir/`: it is no file, and yet its header says that it has 5 bytes"),
    ("invalid-go17.tar", "its header has a prefix that only some readers take for a part of its name"),
    ("issue10968.tar", "its size is not a number, negative or absurdly large"),
    ("issue11169.tar", "the checksum of its header is wrong: this is no tar archive, or it is damaged"),
    ("issue12435.tar", "its size is not a number, negative or absurdly large"),
    ("neg-size.tar", "its size is not a number, negative or absurdly large"),
    ("pax-bad-hdr-file.tar", "its extended header is malformed"),
    ("pax-bad-mtime-file.tar", "its extended header has a wrong value: `mtime=999xxx9324.432432444444`"),
    ("pax-global-records.tar", "an extended header says for all entries what each has to say itself"),
    ("pax-multi-hdrs.tar", "an entry has two extended headers"),
    ("pax-nil-sparse-data.tar", "it is a sparse file, which layers cannot contain"),
    ("pax-nil-sparse-hole.tar", "it is a sparse file, which layers cannot contain"),
    ("pax-nul-path.tar", "its extended header has a wrong value: `path=0123456789"),
    ("pax-nul-xattrs.tar", "its extended header is malformed"),
    ("pax-path-hdr.tar", "the archive is truncated"),
    ("pax-sparse-big.tar", "it is a sparse file, which layers cannot contain"),
    ("read_format_gtar_sparse_skip_entry.tar", "it is a sparse file, which layers cannot contain"),
    ("read_format_tar_empty_filename.tar", "an entry has no name"),
    ("read_format_tar_empty_pax.tar", "an extended header is followed by no entry"),
    ("read_format_tar_empty_with_gnulabel.tar", "`label`: its type `V` is none that layers can contain"),
    (
        "read_format_tar_invalid_pax_size.tar",
        "its extended header has a wrong value: `size=-19769411113659727436`",
    ),
    ("sparse-formats.tar", "it is a sparse file, which layers cannot contain"),
    ("writer-big.tar", "the archive is truncated"),
    ("writer-big-long.tar", "the archive is truncated"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tar")
}

fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for &byte in name {
        match byte {
            b'\\' | ..b' ' | 0x7f.. => write!(text, "\\x{byte:02x}").unwrap(),
            _ => text.push(char::from(byte)),
        }
    }
    text
}

fn line(entry: &archive::Entry, contents: &[u8]) -> String {
    let (mut what, mut link) = ("-".to_owned(), String::new());
    let kind = match &entry.kind {
        EntryKind::Node(Kind::File { size }) => {
            what = format!("{size} {}", &Digest::of(contents).hex()[..8]);
            "file"
        }
        EntryKind::Node(Kind::Directory) => "folder",
        EntryKind::Node(Kind::Fifo) => "fifo",
        EntryKind::Node(Kind::Socket) => "socket",
        EntryKind::Node(Kind::CharDevice { major, minor }) => {
            what = format!("{major},{minor}");
            "char"
        }
        EntryKind::Node(Kind::BlockDevice { major, minor }) => {
            what = format!("{major},{minor}");
            "block"
        }
        EntryKind::Node(Kind::Symlink(target)) => {
            link = format!(" -> {}", shown(target));
            "symlink"
        }
        EntryKind::HardLink(target) => {
            link = format!(" -> {}", shown(target));
            "link"
        }
    };
    let archive::Entry { name, metadata: Metadata { mode, uid, gid, mtime, .. }, .. } = entry;
    let name = shown(name);
    let name = name.trim_end_matches('/');
    format!("{kind} {mode:o} {uid}:{gid} {mtime} {what} {name}{link}")
}

fn ours(bytes: &[u8]) -> Result<Vec<String>> {
    let mut archive = archive::Archive::new("the archive", bytes);
    let mut lines = Vec::new();
    while let Some(entry) = archive.next()? {
        let mut contents = Vec::new();
        let read = archive.contents().read_to_end(&mut contents);
        read.map_err(|error| crate::error::Error::new(error.to_string()))?;
        lines.push(line(&entry, &contents));
    }
    Ok(lines)
}

/// Verdicts as `list.go` and `list.py` print them.
fn parse(text: &str) -> Verdicts {
    let mut verdicts = Verdicts::new();
    let mut at = None;
    for line in text.lines() {
        match (line.strip_prefix("  "), &mut at) {
            (Some(line), Some(name)) => verdicts.get_mut::<String>(name).unwrap().push(line.to_owned()),
            _ => {
                verdicts.insert(line.to_owned(), Vec::new());
                at = Some(line.to_owned());
            }
        }
    }
    verdicts
}

fn pythons(paths: &[PathBuf]) -> Option<Verdicts> {
    let output = Command::new("python3").arg("-B").arg(fixtures().join("list.py")).args(paths).output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(parse(&String::from_utf8(output.stdout).unwrap()))
}

/// GNU tar's, in fewer words: no time, no mode, no contents.
fn gnus(path: &Path) -> Option<Vec<String>> {
    let output = Command::new("tar")
        .args(["--list", "--verbose", "--absolute-names", "--numeric-owner", "--quoting-style=c", "--file"])
        .arg(path)
        .env("LC_ALL", "C")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().map(gnu_line).collect();
    if !output.status.success() {
        lines.push(format!("refused: {}", String::from_utf8_lossy(&output.stderr).replace('\n', "; ")));
    }
    Some(lines)
}

fn gnu_line(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let [mode, owner, what] = std::array::from_fn(|_| words.next().unwrap_or_default());
    let (kind, what) = match mode.as_bytes()[0] {
        b'-' | b'C' => ("file", what),
        b'd' => ("folder", "-"),
        b'l' => ("symlink", "-"),
        b'h' => ("link", "-"),
        b'c' => ("char", what),
        b'b' => ("block", what),
        b'p' => ("fifo", "-"),
        _ => ("something", what),
    };
    let names: Vec<_> = line[line.find('"').unwrap()..].split("\" ").map(unquoted).collect();
    let (name, link) = (&names[0], names[1..].last().map(|link| format!(" -> {link}")).unwrap_or_default());
    format!("{kind} {} {what} {}{link}", owner.replace('/', ":"), name.trim_end_matches('/'))
}

/// A name in GNU tar's C quoting, in the words of the verdicts. A link's has words before it.
fn unquoted(text: &str) -> String {
    let text = &text[text.find('"').unwrap() + 1..];
    let mut bytes = Vec::new();
    let mut rest = text.trim_end_matches('"').bytes();
    while let Some(byte) = rest.next() {
        let escaped = if byte == b'\\' { rest.next() } else { None };
        bytes.push(match escaped {
            None => byte,
            Some(high @ b'0'..=b'3') => {
                let digit = |byte: u8| u32::from(byte - b'0');
                let value = digit(high) << 6 | digit(rest.next().unwrap()) << 3 | digit(rest.next().unwrap());
                u8::try_from(value).unwrap()
            }
            Some(letter) => b"\x07\x08\x0c\n\r\t\x0b"
                .get(b"abfnrtv".iter().position(|other| *other == letter).unwrap_or(9))
                .copied()
                .unwrap_or(letter),
        });
    }
    shown(&bytes)
}

/// A line of ours in GNU tar's fewer words.
fn shortened(line: &str) -> String {
    let [kind, _, owner, _, what, rest] = line.splitn(6, ' ').collect::<Vec<_>>()[..] else {
        panic!("{line} has too few words")
    };
    let rest = if kind == "file" { rest.split_once(' ').map_or("", |(_, rest)| rest) } else { rest };
    format!("{kind} {owner} {what} {rest}")
}

/// Where the readers on this machine do not take what our reader took from an archive.
fn disagreements(path: &Path, lines: &[String], pythons: Option<&Verdicts>) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut found = String::new();
    if let Some(python) = pythons.map(|verdicts| &verdicts[name]).filter(|python| *python != lines) {
        writeln!(found, "{name}: ours {lines:#?}, Python's {python:#?}").unwrap();
    }
    let lines: Vec<_> = lines.iter().map(|line| shortened(line)).collect();
    if let Some(gnu) = gnus(path).filter(|gnu| *gnu != lines) {
        writeln!(found, "{name}: ours {lines:#?}, GNU tar's {gnu:#?}").unwrap();
    }
    found
}

/// The archives of Go's own tests, and of libarchive's.
pub fn archives() -> Vec<PathBuf> {
    let folders = [fixtures(), fixtures().join("libarchive")];
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    paths.sort();
    paths
}

#[test]
fn go_python_and_gnu_tar_take_the_same_from_what_gos_and_libarchives_tests_have_or_we_refuse() {
    let paths = archives();
    assert!(paths.len() > 70);
    let go = parse(&fs::read_to_string(fixtures().join("go.txt")).unwrap());
    let python = pythons(&paths);
    let mut wrong = String::new();
    for path in &paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected = REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, why)| *why);
        match (ours(&fs::read(path).unwrap()), expected) {
            (Ok(lines), None) => {
                assert_eq!(lines, go[name], "{name}: ours and Go's");
                wrong += &disagreements(path, &lines, python.as_ref());
            }
            (Err(error), Some(why)) if error.to_string().contains(why) => {}
            (Err(error), _) => writeln!(wrong, "    (\"{name}\", \"{error}\"),").unwrap(),
            (Ok(_), Some(_)) => writeln!(wrong, "{name} is taken").unwrap(),
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// An entry, with all that archives are known to do to it, and more.
#[derive(Debug, Clone)]
struct Odd {
    /// Which extended headers come before it.
    extended: Vec<Extended>,
    /// The magic number and version.
    magic: [u8; 8],
    kind: u8,
    name: Vec<u8>,
    prefix: Vec<u8>,
    link: Vec<u8>,
    size: Vec<u8>,
    mode: Vec<u8>,
    uid: Vec<u8>,
    mtime: Vec<u8>,
    contents: usize,
}

#[derive(Debug, Clone)]
enum Extended {
    LongName(Vec<u8>),
    LongLink(Vec<u8>),
    Pax(Vec<(&'static str, &'static [u8])>),
    Global(Vec<(&'static str, &'static [u8])>),
}

const RECORDS: &[(&str, &[u8])] = &[
    ("path", b"pax/name"),
    ("path", b"pax/folder/"),
    ("path", b"\xff\xfe"),
    ("path", b"a\0b"),
    ("path", b""),
    ("linkpath", b"pax/target"),
    ("linkpath", b""),
    ("size", b"3"),
    ("mtime", b"8.25"),
    ("uid", b"5"),
    ("path", b"pax"),
    ("size", b"0"),
    ("size", b"600"),
    ("size", b"+3"),
    ("size", b"18446744073709551615"),
    ("uid", b"70000"),
    ("uid", b"4294967295"),
    ("gid", b"012"),
    ("mtime", b"1.5"),
    ("mtime", b"-1.5"),
    ("mtime", b"1e3"),
    ("mtime", b" 7"),
    ("comment", b"none"),
    ("hdrcharset", b"BINARY"),
    ("SCHILY.xattr.user.a", b"\0="),
    ("GNU.sparse.name", b"sparse"),
    ("GNU.sparse.realsize", b"5"),
];

fn among(values: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(values).prop_map(<[u8]>::to_vec)
}

fn extended() -> impl Strategy<Value = Extended> {
    let names = || among(&[b"long/name\0", b"long/name", b"long/folder/\0", b"long\0er\0", b"\0", b""]);
    let records = || prop::collection::vec(prop::sample::select(RECORDS), 0..3);
    prop_oneof![
        2 => names().prop_map(Extended::LongName),
        2 => names().prop_map(Extended::LongLink),
        4 => records().prop_map(Extended::Pax),
        1 => records().prop_map(Extended::Global),
    ]
}

fn odd() -> impl Strategy<Value = Odd> {
    let names = among(&[
        b"name",
        b"a/b",
        b"folder/",
        b"",
        b"na\0me",
        b"./a//b",
        b"\xc3\xa4\xff",
        b"a\nb",
        &[b'n'; 100],
    ]);
    let prefixes =
        prop_oneof![9 => among(&[b""]), 1 => among(&[b"prefix", b"a/b/", &[b'p'; 155], &[b'p'; 140]])];
    let sizes = among(&[
        b"00000000003\0",
        b"3",
        b"          3 ",
        b"0",
        b"",
        b"00000001000",
        b"\x80\0\0\0\0\0\0\0\0\0\0\x03",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
        b"-1",
        b"0x3",
        b"3 4",
        b"3\x004",
        b"0_3",
        b"8",
    ]);
    let modes =
        among(&[b"0000644\0", b"0100644\0", b"644", b"", b"7777", b"0000648\0", b"\x80\0\0\0\0\0\x01\xa4"]);
    let uids =
        among(&[b"0001750\0", b"", b"\x80\0\0\0\0\x01\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"9"]);
    let mtimes = among(&[
        b"00000000007\0",
        b"",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe",
        b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
        b"77777777777\0",
    ]);
    let likely = |usual: Vec<u8>, other: BoxedStrategy<Vec<u8>>| prop_oneof![7 => Just(usual), 1 => other];
    let magic =
        prop::sample::select(vec![*b"ustar\x0000", *b"ustar\x0000", *b"ustar  \0", [0; 8], *b"ustar\x0001"]);
    let head = (
        prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(extended(), 1..3)],
        magic,
        prop_oneof![4 => Just(b'0'), 4 => prop::sample::select(b"\x001234567SDVgZ".as_slice())],
    );
    let fields = (
        likely(b"00000000003\0".to_vec(), sizes.boxed()),
        likely(b"0000640\0".to_vec(), modes.boxed()),
        likely(b"0000001\0".to_vec(), uids.boxed()),
        likely(b"00000000011\0".to_vec(), mtimes.boxed()),
    );
    let links = among(&[b"target", b"", b"/absolute", b"a -> b"]);
    (head, names, prefixes, links, fields, prop::bool::weighted(0.9)).prop_map(
        |((extended, magic, kind), name, prefix, link, (mut size, mode, uid, mtime), right)| {
            let is_file = matches!(kind, b'\0' | b'0' | b'7');
            if right && !is_file {
                size = b"0".to_vec();
            }
            let contents = if is_file || !right { 3 } else { 0 };
            Odd { extended, magic, kind, name, prefix, link, size, mode, uid, mtime, contents }
        },
    )
}

fn write_odd(mut archive: Archive, odd: Odd) -> Archive {
    for extended in odd.extended {
        archive = match extended {
            Extended::LongName(name) => archive.add(EntryType::GNULongName, "././@LongLink", "", &name),
            Extended::LongLink(name) => archive.add(EntryType::GNULongLink, "././@LongLink", "", &name),
            Extended::Pax(records) => archive.pax(&records),
            Extended::Global(records) => archive.records(EntryType::XGlobalHeader, &records),
        };
    }
    let Odd { magic, kind, name, prefix, link, size, mode, uid, mtime, contents, .. } = odd;
    let mut header = tar::Header::new_old();
    let raw = header.as_mut_bytes();
    for (at, bytes) in [
        (0, name),
        (100, mode),
        (108, uid),
        (116, b"0000002\0".to_vec()),
        (124, size),
        (136, mtime),
        (156, vec![kind]),
        (157, link),
        (257, magic.to_vec()),
        (329, b"0000001\0".to_vec()),
        (337, b"0000003\0".to_vec()),
        (345, prefix),
    ] {
        raw[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    archive.header(header);
    archive.data(&vec![b'c'; contents]);
    archive
}

#[test]
fn whatever_we_take_from_an_odd_archive_python_and_gnu_tar_take_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::deterministic();
    let mut taken = Vec::new();
    for number in 0..3000 {
        let entries = prop::collection::vec(odd(), 1..3).new_tree(&mut runner).unwrap().current();
        let bytes = entries.into_iter().fold(Archive::default(), write_odd).file("last", "last").end();
        if let Ok(lines) = ours(&bytes) {
            let path = folder.path().join(format!("{number}.tar"));
            fs::write(&path, bytes).unwrap();
            taken.push((path, lines));
        }
    }
    assert!((200..2000).contains(&taken.len()), "{} archives are taken", taken.len());
    let paths: Vec<_> = taken.iter().map(|(path, _)| path.clone()).collect();
    let python = pythons(&paths);
    let found = taken.iter().map(|(path, lines)| disagreements(path, lines, python.as_ref()));
    let found: Vec<_> = found.filter(|found| !found.is_empty()).collect();
    assert!(
        found.is_empty(),
        "{} archives of {}: {}",
        found.len(),
        taken.len(),
        found[..found.len().min(9)].join("\n")
    );
}

//! The shapes with which layers have broken out of their roots, and those on which programs that unpack layers
//! do not agree: each has one result here. The names of most are those of containerd's `TestBreakouts`
//! (`archive/tar_test.go`).

use super::*;

/// What a stack of layers makes: its files as lines, or why it is refused.
type Expected = std::result::Result<&'static [&'static str], &'static str>;

fn new() -> Archive {
    Archive::default()
}

/// A tree as lines: `folder/`, `link -> target`, `file contents`, and the kind of anything else.
fn lines(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let mut waiting = vec![tree.find(b"").unwrap().unwrap()];
    while let Some(folder) = waiting.pop() {
        for name in tree.list(&folder).unwrap() {
            let path = crate::layer::names::joined(&folder.path, &name);
            let child = tree.find_exactly(&path).unwrap().unwrap();
            let path = String::from_utf8(path).unwrap();
            lines.push(match &child.inode.kind {
                Kind::Directory => format!("{path}/"),
                Kind::File { .. } => format!("{path} {}", text(tree, &path)),
                Kind::Symlink(target) => format!("{path} -> {}", target.escape_ascii()),
                other => format!("{path} {other:?}"),
            });
            if child.inode.kind == Kind::Directory {
                waiting.push(child);
            }
        }
    }
    lines.sort();
    lines
}

/// What the layers make, the lowest first.
fn stacked(layers: Vec<Archive>) -> Result<Vec<String>> {
    let mut tree = Tree::default();
    for layer in layers {
        let (_, bytes) = layer.convert(&tree)?;
        tree.push(Image::from_bytes(bytes)?);
    }
    Ok(lines(&tree))
}

fn assert_results(rows: Vec<(&str, Vec<Archive>, Expected)>) {
    for (name, layers, expected) in rows {
        match (stacked(layers), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
            (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{name}: {error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

/// A root with something worth reaching.
fn etc() -> Archive {
    new().folder("etc/").file("etc/passwd", "inside")
}

#[test]
fn no_link_leads_out_of_the_tree() {
    let landed: Expected = Ok(&["etc/", "etc/passwd inside", "etc/x x", "localetc -> /etc"]);
    assert_results(vec![
        ("SymlinkAbsolute", vec![etc().link("localetc", "/etc").file("localetc/x", "x")], landed),
        (
            "SymlinkAbsolute across layers",
            vec![etc().link("localetc", "/etc"), new().file("localetc/x", "x")],
            landed,
        ),
        (
            "SymlinkUpAndOut",
            vec![etc().link("localetc", "../../../etc").file("localetc/x", "x")],
            Ok(&["etc/", "etc/passwd inside", "etc/x x", "localetc -> ../../../etc"]),
        ),
        (
            "SymlinkMultipleAbsolute",
            vec![etc().link("a", "/etc").link("b", "/a").file("b/x", "x")],
            Ok(&["a -> /etc", "b -> /a", "etc/", "etc/passwd inside", "etc/x x"]),
        ),
        (
            "SymlinkMultipleRelative",
            vec![etc().folder("d/").link("d/a", "../../etc").link("b", "d/a"), new().file("b/x", "x")],
            Ok(&["b -> d/a", "d/", "d/a -> ../../etc", "etc/", "etc/passwd inside", "etc/x x"]),
        ),
        (
            "SymlinkToNowhere",
            vec![new().link("a", "/not/there").file("a/x", "x")],
            Ok(&["a -> /not/there", "not/", "not/there/", "not/there/x x"]),
        ),
        (
            "SymlinkLoop",
            vec![new().link("a", "b").link("b", "a").file("a/x", "x")],
            Err("more than 40 symbolic links"),
        ),
        (
            "SymlinkEmptyFile",
            vec![etc().link("p", "etc/passwd").file("p", "own")],
            Ok(&["etc/", "etc/passwd inside", "p own"]),
        ),
        ("ParentIsFile", vec![etc().file("etc/passwd/x", "x")], Err("`etc/passwd` is not a folder")),
        (
            "ParentIsLinkToFile",
            vec![etc().link("p", "etc/passwd").file("p/x", "x")],
            Err("`etc/passwd` is not a folder"),
        ),
        ("NameWithDots", vec![new().file("a/../../x", "x")], Err("its name contains `..`")),
        ("NameAbsolute", vec![new().file("/etc//x", "x")], Ok(&["etc/", "etc/x x"])),
        (
            "SymlinkReplacesFolder",
            vec![etc(), new().link("etc", "/elsewhere").file("etc/x", "x")],
            Ok(&["elsewhere/", "elsewhere/x x", "etc -> /elsewhere"]),
        ),
    ]);
}

#[test]
fn a_hard_link_is_one_to_a_file_of_the_tree_or_none_at_all() {
    let linked: Expected = Ok(&["etc/", "etc/passwd inside", "p inside"]);
    assert_results(vec![
        ("HardlinkAbsolute", vec![etc().hard_link("p", "/etc/passwd")], linked),
        ("HardlinkAcrossLayers", vec![etc(), new().hard_link("p", "etc/passwd")], linked),
        ("HardlinkRelative", vec![etc().hard_link("p", "../etc/passwd")], Err("its name contains `..`")),
        (
            "HardlinkDownAndOut",
            vec![etc().hard_link("p", "etc/../../etc/passwd")],
            Err("its name contains `..`"),
        ),
        (
            "HardlinkThroughSymlink",
            vec![etc().link("l", "/etc").hard_link("p", "l/passwd")],
            Ok(&["etc/", "etc/passwd inside", "l -> /etc", "p inside"]),
        ),
        (
            "HardlinkThroughSymlinkAcrossLayers",
            vec![etc().link("l", "/../etc"), new().hard_link("p", "l/passwd")],
            Ok(&["etc/", "etc/passwd inside", "l -> /../etc", "p inside"]),
        ),
        (
            "HardlinkToSymlink",
            vec![etc().link("l", "/etc/passwd").hard_link("p", "l")],
            Ok(&["etc/", "etc/passwd inside", "l -> /etc/passwd", "p -> /etc/passwd"]),
        ),
        (
            "HardlinkToLowerSymlink",
            vec![etc().link("l", "../../etc/passwd"), new().hard_link("p", "l")],
            Ok(&["etc/", "etc/passwd inside", "l -> ../../etc/passwd", "p -> ../../etc/passwd"]),
        ),
        (
            "HardlinkToFolder",
            vec![etc().hard_link("p", "etc")],
            Err("cannot link it to `etc`: that is a folder"),
        ),
        ("HardlinkToLowerFolder", vec![etc(), new().hard_link("p", "etc")], Err("that is a folder")),
        ("HardlinkToRoot", vec![new().hard_link("p", "/")], Err("that is a folder")),
        ("HardlinkToItself", vec![new().hard_link("p", "p")], Err("there is no such file")),
        (
            "HardlinkToItselfBelow",
            vec![etc(), new().hard_link("etc/passwd", "etc/passwd")],
            Ok(&["etc/", "etc/passwd inside"]),
        ),
        (
            "HardlinkToLater",
            vec![new().hard_link("p", "later").file("later", "x")],
            Err("there is no such file"),
        ),
        ("HardlinkToWhiteout", vec![new().hard_link("p", ".wh.x")], Err("that is the name of a whiteout")),
        (
            "HardlinkToHidden",
            vec![etc(), new().file("etc/.wh.passwd", "").hard_link("p", "etc/passwd")],
            Err("there is no such file"),
        ),
        (
            "HardlinkBelowOpaque",
            vec![etc(), new().file("etc/.wh..wh..opq", "").hard_link("p", "etc/passwd")],
            Err("there is no such file"),
        ),
        (
            "HardlinkNamedAsWhiteout",
            vec![etc(), new().hard_link("etc/.wh.passwd", "etc/passwd")],
            Ok(&["etc/"]),
        ),
    ]);
}

#[test]
fn a_whiteout_hides_what_is_below_by_its_name_and_nothing_else() {
    let below = || etc().link("l", "etc").file("etc/group", "g");
    assert_results(vec![
        ("Whiteout of no name", vec![below(), new().file(".wh.", "")], Err("a whiteout of no name")),
        ("Whiteout of `.`", vec![below(), new().file("etc/.wh..", "")], Err("a whiteout of no name")),
        ("Whiteout of `..`", vec![below(), new().file("etc/.wh...", "")], Err("a whiteout of no name")),
        (
            "Whiteout of a link",
            vec![below(), new().file(".wh.l", "")],
            Ok(&["etc/", "etc/group g", "etc/passwd inside"]),
        ),
        (
            "Whiteout under a link",
            vec![below(), new().file("l/.wh.passwd", "")],
            Ok(&["etc/", "etc/group g", "l -> etc"]),
        ),
        (
            "Whiteout under a link out",
            vec![etc().link("o", "../../etc"), new().file("o/.wh.passwd", "")],
            Ok(&["etc/", "o -> ../../etc"]),
        ),
        ("Whiteout under a file", vec![below(), new().file("etc/passwd/.wh.x", "")], Err("is not a folder")),
        ("Whiteout of a folder", vec![below(), new().file(".wh.etc", "")], Ok(&["l -> etc"])),
        (
            "Whiteout, then entries",
            vec![below(), new().file(".wh.etc", "").file("etc/own", "x")],
            Ok(&["etc/", "etc/own x", "l -> etc"]),
        ),
        (
            "Entries, then whiteout",
            vec![below(), new().file("etc/own", "x").file(".wh.etc", "")],
            Ok(&["etc/", "etc/own x", "l -> etc"]),
        ),
        ("Whiteout that is a folder", vec![below(), new().folder(".wh.etc/")], Ok(&["l -> etc"])),
        ("Entry below a whiteout", vec![below(), new().file(".wh.etc/x", "")], Err("it is below a whiteout")),
        (
            "Whiteout of nothing",
            vec![below(), new().file("no/.wh.x", "")],
            Ok(&["etc/", "etc/group g", "etc/passwd inside", "l -> etc", "no/"]),
        ),
        (
            "AUFS's own names",
            vec![below(), new().file(".wh..wh.aufs", "").file(".wh..wh.plnk/1.2", "")],
            Ok(&["etc/", "etc/group g", "etc/passwd inside", "l -> etc"]),
        ),
        (
            "Opaque, before",
            vec![below(), new().file("etc/.wh..wh..opq", "").file("etc/own", "x")],
            Ok(&["etc/", "etc/own x", "l -> etc"]),
        ),
        (
            "Opaque, after",
            vec![below(), new().file("etc/own", "x").file("etc/.wh..wh..opq", "")],
            Ok(&["etc/", "etc/own x", "l -> etc"]),
        ),
        (
            "Opaque, under a link",
            vec![below(), new().file("l/.wh..wh..opq", "").file("etc/own", "x")],
            Ok(&["etc/", "etc/own x", "l -> etc"]),
        ),
        (
            "Opaque, lower layers only",
            vec![below(), new().file("etc/.wh..wh..opq", ""), new().file("etc/up", "x")],
            Ok(&["etc/", "etc/up x", "l -> etc"]),
        ),
        (
            "Opaque, above the root",
            vec![below(), new().file(".wh..wh..opq", "").file("own", "x")],
            Ok(&["own x"]),
        ),
    ]);
}

#[test]
fn the_last_word_on_a_path_counts_and_layers_come_as_tools_write_them() {
    let device = |archive: Archive| archive.add(EntryType::Fifo, "a", "", b"");
    let fifo: Expected = Ok(&["a Fifo"]);
    assert_results(vec![
        ("Two equal files", vec![new().file("a", "1").file("b", "b").file("a", "2")], Ok(&["a 2", "b b"])),
        (
            "Two spellings of one name",
            vec![new().file("./d//a", "1").file("/d/a", "2")],
            Ok(&["d/", "d/a 2"]),
        ),
        (
            "A file that was linked",
            vec![new().file("a", "1").hard_link("b", "a").file("a", "2")],
            Ok(&["a 2", "b 1"]),
        ),
        ("A folder twice", vec![new().folder("d/").file("d/a", "1").folder("d/")], Ok(&["d/", "d/a 1"])),
        (
            "A file, then a folder",
            vec![new().file("a", "1").folder("a/").file("a/b", "b")],
            Ok(&["a/", "a/b b"]),
        ),
        ("A folder, then a file", vec![new().folder("a/").file("a/b", "b").file("a", "1")], Ok(&["a 1"])),
        ("Later, a file for a folder", vec![new().file("a/b", "b"), new().file("a", "1")], Ok(&["a 1"])),
        (
            "Later, a folder for a file",
            vec![new().file("a", "1"), new().folder("a/").file("a/b", "b")],
            Ok(&["a/", "a/b b"]),
        ),
        (
            "Later, a folder for a link",
            vec![etc().link("a", "etc"), new().folder("a/").file("a/b", "b")],
            Ok(&["a/", "a/b b", "etc/", "etc/passwd inside"]),
        ),
        ("Later, a link for a folder", vec![new().file("a/b", "b"), new().link("a", "c")], Ok(&["a -> c"])),
        ("Later, a device for a file", vec![new().file("a", "1"), device(new())], fifo),
        ("Later, a device for a folder", vec![new().file("a/b", "1"), device(new())], fifo),
        ("Later, a file for a device", vec![device(new()), new().file("a", "1")], Ok(&["a 1"])),
        (
            "Folder, file, folder",
            vec![new().file("a/old", "x"), new().file("a", "1"), new().file("a/new", "y")],
            Err("`a` is not a folder"),
        ),
        (
            "Folder, file, folder listed",
            vec![new().file("a/old", "x"), new().file("a", "1"), new().folder("a/")],
            Ok(&["a/"]),
        ),
        (
            "Entries before their parents",
            vec![new().file("d/e/f", "x").folder("d/e/").folder("d/")],
            Ok(&["d/", "d/e/", "d/e/f x"]),
        ),
        (
            "Only what changed",
            vec![new().folder("d/").file("d/e/f", "1").file("d/g", "g"), new().file("d/e/f", "2")],
            Ok(&["d/", "d/e/", "d/e/f 2", "d/g g"]),
        ),
        (
            "Dots",
            vec![new().folder("./").folder("./d/").file("./d/f", "1"), new().file("d/./f", "2")],
            Ok(&["d/", "d/f 2"]),
        ),
    ]);
}

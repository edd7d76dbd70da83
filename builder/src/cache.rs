//! `coracle cache`: what the store holds, and taking away what nobody needs any more.
//!
//! Builds may run meanwhile. What goes, goes at once: a file by unlink(2), a folder by a rename before its files are
//! deleted. A build that looks for it afterwards makes it again; one that was about to copy it fails and says what
//! is missing. Drafts, which another build may be writing, go when they are a day old.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::error::{Context as _, Error, Result};
use crate::plan::bytes;
use crate::store::{self, Store};

/// The folders of the store whose files or folders are one thing each, and what those are.
const PLACES: &[(&str, &str)] =
    &[("blobs/sha256", "document"), ("kernels", "kernel"), ("machines", "machine"), ("resolved", "digest")];

/// The folder that has a folder of layers for each format, and what those are.
const LAYERS: &str = "layers";
const LAYER: &str = "layer";

/// What the names of files and folders begin with that are being written, or being deleted.
const DRAFT: char = '.';

/// How old a draft is that nobody writes any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// One thing that the store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// `layer`, `kernel`, …
    pub kind: &'static str,
    /// Its path in the store, which is its name in messages and on the command line.
    pub name: String,
    /// Its length in bytes, of all its files.
    pub size: u64,
    /// When it was last read or written, as far as the file system writes that down.
    pub used: SystemTime,
}

/// Everything that the store holds, by its names.
pub fn list(store: &Store) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (folder, kind) in PLACES {
        collect(store, folder, kind, &mut items)?;
    }
    for format in names(&store.root().join(LAYERS))? {
        collect(store, &format!("{LAYERS}/{format}"), LAYER, &mut items)?;
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

/// Takes away what is named: by its whole name, or by the start of its last part if that is enough to tell. Nothing
/// goes unless all of it is there.
pub fn remove(store: &Store, wanted: &[String]) -> Result<Vec<Item>> {
    let items = list(store)?;
    let mut chosen: Vec<Item> = Vec::new();
    for name in wanted {
        let item = find(&items, name).map_err(|error| error.within(format!("cannot remove `{name}`")))?;
        if !chosen.contains(item) {
            chosen.push(item.clone());
        }
    }
    take(store, chosen)
}

/// The file of a layer that is named likewise.
pub fn layer(store: &Store, name: &str) -> Result<PathBuf> {
    let mut items = list(store)?;
    items.retain(|item| item.kind == LAYER);
    let item = find(&items, name).map_err(|error| error.within(format!("cannot open the layer `{name}`")))?;
    Ok(store.root().join(&item.name))
}

/// Takes away everything.
pub fn clear(store: &Store) -> Result<Vec<Item>> {
    prune(store, Duration::ZERO)
}

/// Takes away what nobody used for this long.
pub fn prune(store: &Store, age: Duration) -> Result<Vec<Item>> {
    let now = SystemTime::now();
    let is_old = |item: &Item| {
        let age = if item.kind == "draft" { age.max(ABANDONED) } else { age };
        now.duration_since(item.used).unwrap_or_default() >= age
    };
    let old = list(store)?.into_iter().filter(is_old).collect();
    take(store, old)
}

/// Reads every layer and every document, and takes away those whose bytes are not what they were. Returns those that
/// were read, and those that are gone.
pub fn verify(store: &Store) -> Result<(Vec<Item>, Vec<Item>)> {
    let mut read = Vec::new();
    let mut damaged = Vec::new();
    for item in list(store)? {
        let path = store.root().join(&item.name);
        let is_whole = match item.kind {
            "layer" => store::is_whole_layer(&path)?,
            "document" => store.is_whole_blob(&path)?,
            _ => continue,
        };
        // What vanishes meanwhile was taken away by somebody else.
        if !is_whole && path.exists() {
            damaged.push(item.clone());
        }
        read.push(item);
    }
    Ok((read, take(store, damaged)?))
}

/// The items as lines and their sum.
pub fn table(items: &[Item]) -> String {
    let now = SystemTime::now();
    let mut text = String::new();
    for Item { kind, name, size, used } in items {
        let used = ago(now.duration_since(*used).unwrap_or_default());
        text += &format!("{:>10}  {used:>12}  {kind:<8}  {name}\n", bytes(*size));
    }
    text + &sum(items) + "\n"
}

/// The items for programs: times in seconds since 1970.
pub fn json(items: &[Item]) -> String {
    let value = |Item { kind, name, size, used }: &Item| {
        let used = used.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        json!({ "kind": kind, "name": name, "size": size, "used": used })
    };
    format!("{:#}\n", Value::from_iter(items.iter().map(value)))
}

/// How many of what, and their size: ``2 kernels, 3 layers: 1.2 MiB``.
pub fn sum(items: &[Item]) -> String {
    let mut kinds: Vec<&str> = items.iter().map(|item| item.kind).collect();
    kinds.sort_unstable();
    let counts: Vec<String> = kinds
        .chunk_by(|a, b| a == b)
        .map(|equal| format!("{} {}{}", equal.len(), equal[0], if equal.len() == 1 { "" } else { "s" }))
        .collect();
    let counts = if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") };
    format!("{counts}: {}", bytes(items.iter().map(|item| item.size).sum()))
}

/// A time of the past for a person.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let (number, unit) = match seconds {
        86_400.. => (seconds / 86_400, "day"),
        3_600.. => (seconds / 3_600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => return "just now".to_owned(),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}

/// An age: a number and `d`, `h`, `m` or `s`.
pub fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no age: expected one such as 30d or 12h");
    let unit = text.char_indices().last().map_or(0, |(at, _)| at);
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let number = Some(number).filter(|number| number.bytes().all(|digit| digit.is_ascii_digit()));
    let number = number.and_then(|number| number.parse::<u64>().ok()).ok_or_else(wrong)?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

fn find<'a>(items: &'a [Item], name: &str) -> Result<&'a Item> {
    if let Some(item) = items.iter().find(|item| item.name == name) {
        return Ok(item);
    }
    let last = |item: &Item| item.name.rsplit('/').next().is_some_and(|last| last.starts_with(name));
    let found: Vec<&Item> = items.iter().filter(|item| !name.is_empty() && last(item)).collect();
    match found[..] {
        [item] => Ok(item),
        [] => {
            Err(Error::new("the store has nothing of this name")
                .hint("`coracle cache ls` lists what there is"))
        }
        [first, second, ..] => Err(Error::new(format!("it could be `{}` and `{}`", first.name, second.name))),
    }
}

fn take(store: &Store, items: Vec<Item>) -> Result<Vec<Item>> {
    for item in &items {
        let path = store.root().join(&item.name);
        delete(&path).doing(|| format!("remove `{}`", path.display()))?;
        if item.kind == LAYER {
            let record = store::record_path(&path);
            delete(&record).doing(|| format!("remove `{}`", record.display()))?;
        }
    }
    Ok(items)
}

/// Deletes a file, or a folder with all that is in it. What is gone already is deleted.
fn delete(path: &Path) -> io::Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => delete_folder(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// The folder moves into one of a name that nobody looks for, which is deleted with it.
fn delete_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let gone = tempfile::Builder::new().prefix(".gone-").tempdir_in(parent)?;
    fs::rename(path, gone.path().join("folder"))?;
    gone.close()
}

/// Adds the things in a folder of the store. What vanishes meanwhile is not there.
fn collect(store: &Store, folder: &str, kind: &'static str, items: &mut Vec<Item>) -> Result<()> {
    let at = store.root().join(folder);
    for name in names(&at)? {
        // What is known of a layer goes with it.
        if kind == LAYER && name.ends_with(".json") {
            continue;
        }
        let kind = if name.starts_with(DRAFT) { "draft" } else { kind };
        let path = at.join(&name);
        let measured = measure(&path).doing(|| format!("look at `{}`", path.display()))?;
        let Some((size, used)) = measured else { continue };
        items.push(Item { kind, name: format!("{folder}/{name}"), size, used });
    }
    Ok(())
}

/// The names in a folder of the store; none of a folder that is not there.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).doing(|| format!("list `{}`", folder.display())),
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.doing(|| format!("list `{}`", folder.display()))?;
        // The store's own names are all ASCII.
        Ok(entry.file_name().into_string().ok())
    };
    entries.filter_map(|entry| name(entry).transpose()).collect()
}

/// The size of a file, or of all files in a folder, and when any of them was last used; nothing of what is gone.
fn measure(path: &Path) -> io::Result<Option<(u64, SystemTime)>> {
    let mut waiting: Vec<PathBuf> = vec![path.to_owned()];
    let mut found: Option<(u64, SystemTime)> = None;
    while let Some(path) = waiting.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        if metadata.is_dir() {
            match fs::read_dir(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                entries => waiting.extend(entries?.filter_map(|entry| entry.ok().map(|entry| entry.path()))),
            }
        }
        let (size, used) = found.unwrap_or((0, UNIX_EPOCH));
        let own = if metadata.is_dir() { 0 } else { metadata.len() };
        found = Some((size + own, used.max(last_use(&metadata))));
    }
    Ok(found)
}

/// When a file was last used. Looking into a folder counts as a use of it, and happens here: only its changes count.
fn last_use(metadata: &Metadata) -> SystemTime {
    let seconds = if metadata.is_dir() { metadata.mtime() } else { metadata.mtime().max(metadata.atime()) };
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;

    /// A store with a document of 5 bytes, a layer with its notes, a kernel and a draft, all 10 days old.
    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path()).unwrap();
        for (name, size) in [
            ("blobs/sha256/ab12", 5),
            ("layers/plain/ab99.erofs", 4096),
            ("layers/plain/ab99.json", 2),
            ("kernels/6.1/vmlinuz", 100),
            ("kernels/6.1/modules/a.ko", 50),
            ("kernels/.tmpx/vmlinuz", 7),
            ("machines/cd/m-kernel", 10),
            ("accelerator", 3),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, vec![0; size]).unwrap();
        }
        let mut waiting = vec![folder.path().to_owned()];
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            touch(&path, 10);
        }
        (folder, store)
    }

    fn touch(path: &Path, days: u64) {
        let time = SystemTime::now() - Duration::from_secs(days * 86_400 + 60);
        File::open(path).unwrap().set_times(FileTimes::new().set_accessed(time).set_modified(time)).unwrap();
    }

    fn names(items: &[Item]) -> Vec<&str> {
        items.iter().map(|item| item.name.as_str()).collect()
    }

    #[test]
    fn everything_is_listed_with_its_size_and_its_age() {
        let (_folder, store) = store();
        let items = list(&store).unwrap();
        let text = table(&items);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "       5 B   10 days ago  document  blobs/sha256/ab12",
                "       7 B   10 days ago  draft     kernels/.tmpx",
                "     150 B   10 days ago  kernel    kernels/6.1",
                "   4.0 KiB   10 days ago  layer     layers/plain/ab99.erofs",
                "      10 B   10 days ago  machine   machines/cd",
                "1 document, 1 draft, 1 kernel, 1 layer, 1 machine: 4.1 KiB",
            ]
        );
        let value: Value = serde_json::from_str(&json(&items)).unwrap();
        assert_eq!((&value[2]["name"], &value[2]["size"]), (&json!("kernels/6.1"), &json!(150)));
        assert!(value[2]["used"].as_u64().unwrap() > 1_000_000_000);
    }

    #[test]
    fn what_is_named_goes_with_all_that_belongs_to_it_and_nothing_else() {
        let (folder, store) = store();
        let removed =
            remove(&store, &["ab99".to_owned(), "kernels/6.1".to_owned(), "ab99".to_owned()]).unwrap();
        assert_eq!(names(&removed), ["layers/plain/ab99.erofs", "kernels/6.1"]);
        assert_eq!(fs::read_dir(folder.path().join("layers/plain")).unwrap().count(), 0);
        assert_eq!(names(&list(&store).unwrap()), ["blobs/sha256/ab12", "kernels/.tmpx", "machines/cd"]);
    }

    #[test]
    fn nothing_goes_when_a_name_is_wrong_or_could_be_two() {
        let (_folder, store) = store();
        for (name, why) in [
            ("ab", "it could be `blobs/sha256/ab12` and `layers/plain/ab99.erofs`"),
            ("zz", "the store has nothing of this name"),
            ("", "the store has nothing of this name"),
            ("../cache", "the store has nothing of this name"),
            ("accelerator", "the store has nothing of this name"),
        ] {
            let error = remove(&store, &["kernels/6.1".to_owned(), name.to_owned()]).unwrap_err().to_string();
            assert_eq!(error, format!("cannot remove `{name}`: {why}"));
        }
        assert_eq!(list(&store).unwrap().len(), 5);
    }

    #[test]
    fn pruning_keeps_what_was_used_and_drafts_that_may_be_written() {
        let (folder, store) = store();
        assert_eq!(prune(&store, age("11d").unwrap()).unwrap(), []);
        fs::read(folder.path().join("layers/plain/ab99.erofs")).unwrap();
        touch(&folder.path().join("kernels/6.1/modules/a.ko"), 1);
        let removed = prune(&store, age("9d").unwrap()).unwrap();
        assert!(names(&removed).contains(&"kernels/.tmpx") && names(&removed).contains(&"machines/cd"));
        assert!(!names(&removed).contains(&"kernels/6.1"));
        fs::create_dir(folder.path().join("kernels/.tmpnew")).unwrap();
        clear(&store).unwrap();
        assert_eq!(names(&list(&store).unwrap()), ["kernels/.tmpnew"]);
        assert!(folder.path().join("accelerator").exists());
        assert_eq!(sum(&clear(&store).unwrap()), "nothing: 0 B");
    }

    #[test]
    fn what_is_damaged_goes_when_it_is_looked_for() {
        let (_folder, store) = store();
        let kept = store.insert_blob(b"hello").unwrap();
        let (read, removed) = verify(&store).unwrap();
        assert_eq!(names(&removed), ["blobs/sha256/ab12", "layers/plain/ab99.erofs"]);
        assert_eq!(sum(&read), "2 documents, 1 layer: 4.0 KiB");
        assert!(store.blob_path(&kept).exists());
        assert_eq!(verify(&store).unwrap().1, []);
    }

    #[test]
    fn an_age_is_a_number_and_a_unit() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(age("12h"), Ok(Duration::from_secs(12 * 3_600)));
        for wrong in [
            "",
            "d",
            "30",
            "-1d",
            "1.5d",
            "30 d",
            "3w",
            "30dd",
            "99999999999999999999d",
            "213503982334602d",
            "1ä",
        ] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}

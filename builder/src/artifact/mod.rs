//! What the builder writes: one writer per format, and the three files of a machine.
//!
//! Each file is written under another name and renamed when it is complete. Beside them stands a record of what they
//! were made from, so that a build writes only those that become others.

pub mod cpio;
pub mod erofs;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Port;
use crate::error::{Context, Error, Result};
use crate::oci::descriptor::Digest;
use crate::plan::{Content, Entry, ImagePlan};
use crate::run::Artifacts;
use crate::source_file::SourceFile;
use crate::store::Draft;

/// The version of the record's shape.
const RECORD_VERSION: u32 = 2;

/// What was written, and from what.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    name: String,
    files: Vec<FileRecord>,
    /// What `coracle run` publishes.
    ports: Vec<String>,
}

/// A written file, as the file system describes it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    file: String,
    /// The digest of its part of the plan, and of the program that wrote it.
    key: Digest,
    size: u64,
    /// Nanoseconds since 1970.
    modified: u128,
    /// Whether it was there already.
    #[serde(skip)]
    unchanged: bool,
}

/// A machine's files in a folder.
#[derive(Debug)]
pub struct Written {
    folder: PathBuf,
    record: Record,
}

impl Written {
    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// What was written, a line each.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for FileRecord { file, size, unchanged, .. } in &self.record.files {
            let note = if *unchanged { " (unchanged)" } else { "" };
            text +=
                &format!("{:>10}  {}{note}\n", crate::plan::bytes(*size), self.folder.join(file).display());
        }
        text
    }

    /// Bytes of the initramfs.
    pub fn initramfs_size(&self) -> u64 {
        let is_it = |record: &&FileRecord| record.file.ends_with("-initramfs.img");
        self.record.files.iter().find(is_it).map_or(0, |record| record.size)
    }

    /// What `run` boots.
    pub fn artifacts(&self) -> Result<Artifacts> {
        let path = |ending: &str| self.folder.join(format!("{}-{ending}", self.name()));
        let cmdline = path("cmdline");
        Ok(Artifacts {
            kernel: path("kernel"),
            initramfs: path("initramfs.img"),
            cmdline: std::fs::read_to_string(&cmdline)
                .doing(|| format!("read `{}`", cmdline.display()))?
                .trim_end()
                .to_owned(),
        })
    }

    /// What `run` publishes.
    pub fn ports(&self) -> Result<Vec<Port>> {
        let port = |text: &String| text.parse().map_err(|what: String| Error::new(what).within(RECORD_FILE));
        self.record.ports.iter().map(port).collect()
    }
}

/// The record's file name behind the machine's name and a dot, hidden from listings.
const RECORD_FILE: &str = "build.json";

fn record_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}-{RECORD_FILE}"))
}

/// Opens the one machine that a folder holds.
pub fn open(folder: &Path) -> Result<Written> {
    let doing = || format!("look for a machine in `{}`", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).doing(doing)? {
        let file = entry.doing(doing)?.file_name().to_string_lossy().into_owned();
        let name = file.strip_prefix('.').and_then(|file| file.strip_suffix(RECORD_FILE)?.strip_suffix('-'));
        names.extend(name.map(str::to_owned));
    }
    names.sort_unstable();
    match &names[..] {
        [name] => {
            let record = read_record(folder, name).ok_or_else(|| {
                let path = record_path(folder, name);
                Error::new(format!("`{}` is no record of this version", path.display()))
                    .hint("build the machine again")
            })?;
            check_sizes(folder, &record)?;
            Ok(Written { folder: folder.to_owned(), record })
        }
        [] => Err(Error::new(format!("there is no machine in `{}`", folder.display()))
            .hint("`coracle build CONFIG -o DIR` writes one")),
        several => {
            Err(Error::new(format!("`{}` holds several machines: {}", folder.display(), several.join(", ")))
                .hint("build each into a folder of its own"))
        }
    }
}

/// Refuses files that somebody else has written since. Their times tell nothing: copies have others.
fn check_sizes(folder: &Path, record: &Record) -> Result<()> {
    for FileRecord { file, size, .. } in &record.files {
        let SourceFile { path, size: now, .. } = SourceFile::look(&folder.join(file))?;
        if now != *size {
            let what = format!("`{}` has {now} bytes, and {size} were written", path.display());
            return Err(Error::new(what).hint("build the machine again"));
        }
    }
    Ok(())
}

/// Writes the artifacts of a plan that are not there already.
pub fn write(plan: &ImagePlan, folder: &Path) -> Result<Written> {
    let name = plan.name.as_str();
    let [kernel_key, initramfs_key, cmdline_key] = keys(plan)?;
    let earlier = read_record(folder, name);
    let kept = |ending: &str, key: &Digest| {
        let files = earlier.iter().flat_map(|record| &record.files);
        let same = |record: &&FileRecord| record.file == format!("{name}-{ending}") && record.key == *key;
        files.filter(same).find(|record| is_intact(folder, record)).map(FileRecord::kept)
    };
    let files = [("kernel", kernel_key), ("initramfs.img", initramfs_key), ("cmdline", cmdline_key)];
    let kept = files.map(|(ending, key)| kept(ending, &key).ok_or((ending, key)));
    let ports: Vec<String> = plan.ports.iter().map(ToString::to_string).collect();
    let is_same = |record: &Record| record.ports == ports && kept.iter().all(Result::is_ok);
    if earlier.as_ref().is_some_and(is_same) {
        let files = kept.into_iter().flatten().collect();
        let record = Record { version: RECORD_VERSION, name: name.to_owned(), files, ports };
        return Ok(Written { folder: folder.to_owned(), record });
    }
    std::fs::create_dir_all(folder).doing(|| format!("make the folder `{}`", folder.display()))?;
    // A folder without a record is no machine: whoever is killed between two files leaves none.
    remove_record(folder, name)?;
    let write = |(ending, key): (&str, Digest)| {
        write_file(folder, (&format!("{name}-{ending}"), key), |draft| match ending {
            "kernel" => copy(&plan.kernel, draft),
            "cmdline" => writeln!(draft, "{}", plan.cmdline).doing(|| "write the kernel command line"),
            _ => write_initramfs(plan, draft),
        })
    };
    let files = kept.into_iter().map(|kept| kept.or_else(write)).collect::<Result<Vec<_>>>()?;
    let record = Record { version: RECORD_VERSION, name: name.to_owned(), files, ports };
    let text = serde_json::to_vec(&record).doing(|| "write the record of the build")?;
    let path = record_path(folder, name);
    let mut draft = Draft::begin(&path)?;
    draft.write_all(&text).doing(|| format!("write `{}`", path.display()))?;
    draft.commit()?;
    Ok(Written { folder: folder.to_owned(), record })
}

impl FileRecord {
    /// The record of a file that stays.
    fn kept(&self) -> Self {
        let Self { file, key, size, modified, .. } = self;
        Self { file: file.clone(), key: *key, size: *size, modified: *modified, unchanged: true }
    }
}

fn remove_record(folder: &Path, name: &str) -> Result<()> {
    let path = record_path(folder, name);
    match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(cause).doing(|| format!("remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// What the kernel, the initramfs and the command line depend on: each on a part of the plan, and on this program.
fn keys(plan: &ImagePlan) -> Result<[Digest; 3]> {
    let program = std::env::current_exe().doing(|| "find this program")?;
    let program = SourceFile::look(&program)?;
    let value = plan.value();
    Ok(["kernel", "initramfs", "cmdline"].map(|part| {
        let part = format!("{} {} {}", value[part], program.size, program.modified);
        Digest::of(part.as_bytes())
    }))
}

/// The record of an earlier build; a record that cannot be read is none, and the build is done again.
fn read_record(folder: &Path, name: &str) -> Option<Record> {
    let text = std::fs::read(record_path(folder, name)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    (record.version == RECORD_VERSION && record.name == name).then_some(record)
}

/// Whether a file is still the one that was written.
fn is_intact(folder: &Path, FileRecord { file, size, modified, .. }: &FileRecord) -> bool {
    let now = SourceFile::look(&folder.join(file));
    now.is_ok_and(|now| now.size == *size && now.modified == *modified)
}

fn write_file(
    folder: &Path,
    (file, key): (&str, Digest),
    write: impl FnOnce(&mut Draft) -> Result<()>,
) -> Result<FileRecord> {
    let path = folder.join(file);
    let mut draft = Draft::begin(&path)?;
    write(&mut draft).map_err(|error| error.within(format!("cannot write `{}`", path.display())))?;
    draft.commit()?;
    let SourceFile { size, modified, .. } = SourceFile::look(&path)?;
    Ok(FileRecord { file: file.to_owned(), key, size, modified, unchanged: false })
}

/// Copies a file whose size is known.
fn copy(from: &SourceFile, to: &mut Draft) -> Result<()> {
    let mut file = from.open()?;
    // From file to file this is copy_file_range(2): the bytes stay in the kernel, or are shared on the disk.
    let copied = std::io::copy(&mut file, to.file()).doing(|| format!("copy `{}`", from.path.display()))?;
    from.check_size(copied)
}

fn write_initramfs(plan: &ImagePlan, draft: &mut Draft) -> Result<()> {
    let mut archive = cpio::Writer::new(draft.file());
    for Entry { path, mode, uid, gid, content } in &plan.initramfs {
        let access = cpio::Access { permissions: *mode, uid: *uid, gid: *gid };
        match content {
            Content::Folder => archive.directory(path, access)?,
            Content::Bytes(bytes) => archive.file(path, access, content.size(), &bytes[..])?,
            Content::File(source) => archive.file(path, access, source.size, source.open()?)?,
            Content::CharDevice { major, minor } => {
                archive.character_device(path, access, (*major, *minor))?;
            }
        }
    }
    archive.finish().map(drop)
}

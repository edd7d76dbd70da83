//! What is known of containers between two commands: a folder for each, below `--root`.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Config;
use crate::{Result, because};

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Its first process waits at the gate.
    Created,
    /// Its program runs.
    Running,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// What is kept. The config as it was: changes of the bundle do not reach a container that is there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) pid: i32,
    /// When the process began, in ticks of the kernel: a later one of the same number has begun later.
    pub(crate) began: u64,
    pub(crate) bundle: PathBuf,
    pub(crate) cgroup: PathBuf,
    pub(crate) config: Config,
}

/// A container's folder, locked for as long as this lives: commands for the same container wait for each other.
pub(crate) struct Entry {
    pub(crate) id: String,
    folder: PathBuf,
    lock: File,
}

impl Entry {
    /// Makes the entry of a new container.
    pub(crate) fn make(root: &Path, id: &str) -> Result<Self> {
        check(id)?;
        let folder = root.join(id);
        let make =
            |path: &Path, parents: bool| fs::DirBuilder::new().recursive(parents).mode(0o700).create(path);
        make(root, true).map_err(because(format!("cannot make `{}`", root.display())))?;
        match make(&folder, false) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(format!("container `{id}` exists already"))
            }
            made => {
                made.map_err(because(format!("cannot make `{}`", folder.display())))?;
                Self::lock(folder, id)
            }
        }
    }

    /// The entry of a container that is there, when nobody else is at it any more.
    pub(crate) fn find(root: &Path, id: &str) -> Result<Self> {
        check(id)?;
        let folder = root.join(id);
        if !folder.is_dir() {
            return Err(format!("container `{id}` does not exist"));
        }
        Self::lock(folder, id)
    }

    fn lock(folder: PathBuf, id: &str) -> Result<Self> {
        let failed = |error| format!("cannot lock `{}`: {error}", folder.display());
        let lock = File::open(&folder).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Self { id: id.to_owned(), folder, lock })
    }

    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(because("cannot write the state"))?;
        fs::write(self.folder.join("state.json"), text).map_err(because("cannot write the state"))
    }

    pub(crate) fn read(&self) -> Result<Record> {
        let text = fs::read(self.folder.join("state.json"));
        // Its creation failed while this command waited for it.
        let text = text.map_err(|_| format!("container `{}` does not exist", self.id))?;
        serde_json::from_slice(&text).map_err(because(format!("the state of `{}` is damaged", self.id)))
    }

    /// The socket at which a created container waits.
    pub(crate) fn gate(&self) -> PathBuf {
        self.folder.join("gate")
    }

    pub(crate) fn status(&self, record: &Record) -> Status {
        match began(record.pid) {
            Some(began) if began == record.began => {
                if self.gate().exists() {
                    Status::Created
                } else {
                    Status::Running
                }
            }
            _ => Status::Stopped,
        }
    }

    /// What `state` prints.
    pub(crate) fn document(&self, record: &Record) -> Value {
        let status = self.status(record);
        let mut document = json!({
            "ociVersion": "1.0.0",
            "id": self.id,
            "status": status.as_str(),
            "bundle": record.bundle,
            "annotations": record.config.annotations,
        });
        if status != Status::Stopped {
            document["pid"] = record.pid.into();
        }
        document
    }

    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder)
            .map_err(because(format!("cannot remove `{}`", self.folder.display())))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Said aloud: a child that waits at its gate still has this file open.
        let (Ok(()) | Err(_)) = self.lock.unlock();
    }
}

fn check(id: &str) -> Result<()> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() || id.starts_with('.') || !id.bytes().all(is_name) {
        return Err(format!("`{id}` is no name for a container"));
    }
    Ok(())
}

/// When a process began; nothing when there is none, or nothing but what its parent has not yet been told of.
pub(crate) fn began(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may have any character.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

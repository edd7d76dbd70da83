//! The machines that run here: `coracle run` records each one, and `coracle ctl` finds it.
//!
//! A machine has a folder `NAME.PID` with its socket and what is known of it, in a folder that is the user's own. All
//! is reached through that folder's descriptor, once it is known whose it is: nobody else can put a machine there. And a
//! socket's address has room for 107 bytes of path, which the path by a descriptor never needs.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use manifest::Name;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// A machine's socket, in its folder.
const SOCKET: &str = "ctl";
/// What is known of it, beside.
const ABOUT: &str = "machine.json";
/// The most that is read of that.
const ABOUT_MAX: u64 = 4096;
/// What the name of a folder begins with that is not complete.
const DRAFT: char = '.';

/// What is known of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its name.
    pub name: Name,
    /// The process of `coracle run`.
    pub pid: u32,
    /// When that began, in seconds since 1970.
    pub since: u64,
}

/// The folder that has a folder for each machine.
#[derive(Debug)]
pub struct Machines(OwnedFd);

/// A machine's folder, while it runs: it goes with this.
#[derive(Debug)]
pub struct Record {
    machines: Machines,
    folder: String,
}

impl Machines {
    /// The user's own folder, which is made.
    pub fn here() -> Result<Self> {
        Self::at(&place())
    }

    /// Likewise, or nothing where no machine has ever run.
    pub fn known() -> Result<Option<Self>> {
        let place = place();
        if place.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(None);
        }
        Self::at(&place).map(Some)
    }

    /// In a folder that may have to be made.
    pub fn at(place: &Path) -> Result<Self> {
        let shown = place.display();
        match DirBuilder::new().mode(0o700).create(place) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).doing(|| format!("make `{shown}`"));
            }
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = open(place, flags, Mode::empty()).doing(|| format!("open `{shown}`"))?;
        let metadata = fstat(&folder).doing(|| format!("look at `{shown}`"))?;
        if metadata.st_uid != geteuid().as_raw() || metadata.st_mode & 0o077 != 0 {
            return Err(Error::new(format!("`{shown}` is not yours alone: others could put machines there"))
                .hint("remove it, or set XDG_RUNTIME_DIR to a folder of your own"));
        }
        Ok(Self(folder))
    }

    /// The path of something in it, by its descriptor.
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }

    /// Records a machine of this process, and listens for those who want to talk to it.
    pub fn record(self, name: &Name) -> Result<(Record, UnixListener)> {
        let pid = std::process::id();
        let folder = format!("{name}.{pid}");
        let draft = format!("{DRAFT}{folder}");
        let mut record = Record { machines: self, folder: draft.clone() };
        let path = record.machines.path(&draft);
        // Of a process before this one that had its number.
        remove(&path);
        remove(&record.machines.path(&folder));
        DirBuilder::new().mode(0o700).create(&path).doing(|| "make the machine's folder")?;
        let socket = path.join(SOCKET);
        let listener = UnixListener::bind(&socket).doing(|| "make the machine's socket")?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600)).doing(|| "keep the socket private")?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let about = serde_json::to_vec(&About { name: name.clone(), pid, since }).doing(|| "describe it")?;
        fs::write(path.join(ABOUT), about).doing(|| "describe the machine")?;
        // Whoever looks sees a folder that is complete.
        fs::rename(&path, record.machines.path(&folder)).doing(|| "show the machine's folder")?;
        record.folder = folder;
        Ok((record, listener))
    }

    /// The machines that run, the oldest first. What killed runs have left is removed.
    pub fn list(&self) -> Result<Vec<About>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path("")).doing(|| "look for machines")? {
            let name = entry.doing(|| "look for machines")?.file_name();
            let Some(name) = name.to_str() else { continue };
            match self.look(name) {
                Some(about) => found.push(about),
                None if is_left_behind(name) => remove(&self.path(name)),
                None => {}
            }
        }
        found.sort_by_key(|about| (about.since, about.pid));
        Ok(found)
    }

    /// What is known of the machine in a folder, if it can be talked to.
    fn look(&self, folder: &str) -> Option<About> {
        let path = self.path(folder);
        let mut text = String::new();
        fs::File::open(path.join(ABOUT)).ok()?.take(ABOUT_MAX).read_to_string(&mut text).ok()?;
        let about: About = serde_json::from_str(&text).ok()?;
        let is_answered = || UnixStream::connect(path.join(SOCKET)).is_ok();
        (folder == about.folder() && is_answered()).then_some(about)
    }

    /// The socket of one of the machines. The path is good for as long as this is.
    pub fn socket(&self, about: &About) -> PathBuf {
        self.path(&about.folder()).join(SOCKET)
    }
}

impl About {
    /// The name of its folder, which no two machines share.
    pub fn folder(&self) -> String {
        format!("{}.{}", self.name, self.pid)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        remove(&self.machines.path(&self.folder));
    }
}

/// What cannot be removed does no harm: nobody answers there.
fn remove(path: &Path) {
    drop(fs::remove_dir_all(path));
}

/// Whether nobody answers for a folder any more, nor will: what is not complete is left to the process that makes it.
fn is_left_behind(folder: &str) -> bool {
    let pid = folder.rsplit_once('.').and_then(|(_, pid)| pid.parse::<u32>().ok());
    let is_alive = pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists());
    pid.is_some() && (!is_alive || !folder.starts_with(DRAFT))
}

/// Where the user's machines are: in the session's folder, else in a folder of temporary files.
fn place() -> PathBuf {
    let is_own = |path: &PathBuf| fs::metadata(path).is_ok_and(|about| about.uid() == geteuid().as_raw());
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match session.filter(|path| path.is_absolute() && is_own(path)) {
        Some(session) => session.join("coracle"),
        None => std::env::temp_dir().join(format!("coracle-{}", geteuid().as_raw())),
    }
}

/// Connects to a socket, however long its path is.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    match UnixStream::connect(socket) {
        // Too long for an address.
        Err(error) if error.kind() == ErrorKind::InvalidInput => {}
        outcome => return outcome,
    }
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return UnixStream::connect(socket);
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn a_machine_is_found_while_it_runs_and_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        // Longer than a socket's address.
        let place = temporary.path().join("x".repeat(120));
        let machines = Machines::at(&place).unwrap();
        assert_eq!(machines.list().unwrap(), []);
        let (record, listener) = Machines::at(&place).unwrap().record(&name("shop")).unwrap();
        let found = machines.list().unwrap();
        assert_eq!((found.len(), found[0].name.as_str(), found[0].pid), (1, "shop", std::process::id()));
        let socket = place.join(found[0].folder()).join(SOCKET);
        assert_eq!(socket.metadata().unwrap().mode() & 0o777, 0o600);
        connect(&machines.socket(&found[0])).unwrap();
        connect(&socket).unwrap();
        drop((record, listener));
        assert_eq!(machines.list().unwrap(), []);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_has_left_is_removed_and_what_is_being_made_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let machines = Machines::at(&temporary.path().join("machines")).unwrap();
        let own = std::process::id();
        // No process has a number of 2^22 and above.
        let gone = ["shop.4194304", ".shop.4194305", &format!("shop.{own}")].map(str::to_owned);
        let kept = [format!(".shop.{own}"), "notes".to_owned()];
        for folder in gone.iter().chain(&kept) {
            fs::create_dir(machines.path(folder)).unwrap();
            // A socket that nobody listens to any more.
            drop(UnixListener::bind(machines.path(folder).join(SOCKET)).unwrap());
        }
        assert_eq!(machines.list().unwrap(), []);
        gone.iter().for_each(|folder| assert!(!machines.path(folder).exists(), "{folder}"));
        kept.iter().for_each(|folder| assert!(machines.path(folder).exists(), "{folder}"));
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let place = temporary.path().join("open");
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
        assert!(Machines::at(&place).unwrap_err().to_string().contains("is not yours alone"));
        let link = temporary.path().join("link");
        std::os::unix::fs::symlink(temporary.path(), &link).unwrap();
        assert!(Machines::at(&link).is_err());
    }
}

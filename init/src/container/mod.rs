//! Containers: a process, its root and what it may do. Nothing here knows of services.
//!
//! A [`Launch`] is prepared once, when the machine boots; [`start`] clones a child from it as often as
//! needed, and the child tells through a pipe how far it came. The caller never waits for it.

mod bundle;
mod cgroup;
mod child;
mod credentials;
mod dev;
mod device_program;
mod failure;
mod ids;
pub mod init;
mod mask;
mod origin;
mod rootfs;
mod running;
mod seccomp;
mod settings;
mod shared;
mod socket;
mod standing;
mod status;
#[cfg(feature = "exec")]
mod terminal;
mod tree;
mod user_namespace;
mod volume;

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use manifest::{Container, Namespace, Profile, Seccomp};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Pid, Uid};

pub use bundle::{Bundle, BundleMount, Source};
pub use cgroup::{Group, Parent, Shortage, beside_all};
pub use credentials::keep_capabilities;
pub use failure::{Failure, Step};
pub use ids::IdRange;
pub use init::{End, Ending};
pub use origin::Origin;
pub use running::{Running, enter};
pub use seccomp::Filter;
pub use shared::Shared;
pub use status::{Progress, Status};

use ids::Ids;
use init::Init;
use settings::Settings;
use shared::Terms;

use crate::error::{Error, Result};
use crate::fatal;
use crate::sys::{self, Strings};

/// Everything that a container's start needs, in the form in which the kernel takes it.
pub struct Launch {
    /// Shared by the containers with the same one.
    root: Rc<rootfs::Plan>,
    hostname: Box<str>,
    ids: Ids,
    /// Flags for clone: those that the container does not share with the machine.
    namespaces: i32,
    settings: Settings,
    /// Its first process, unless the program is to be that.
    init: Option<Init>,
    process: Process,
}

/// A process of a container: its program, and what it may do.
pub struct Process {
    /// The program first.
    arguments: Strings,
    environment: Strings,
    /// Shared by the containers with the same ones.
    terms: Rc<Terms>,
    /// Shared by the containers with the same one; none for those that have every system call.
    filter: Option<Rc<Filter>>,
}

/// The descriptors that a process begins with.
#[derive(Clone, Copy)]
pub enum Stdio<'a> {
    /// Those of a service.
    Log {
        /// Its standard input.
        input: BorrowedFd<'a>,
        /// A pipe for its standard output and standard error, which becomes its user's.
        output: BorrowedFd<'a>,
        /// On which it says that it is ready, if it is to.
        ready: Option<Numbered<'a>>,
    },
    /// Somebody else's, as they are.
    Given {
        /// Its standard input.
        input: BorrowedFd<'a>,
        /// Its standard output.
        output: BorrowedFd<'a>,
        /// Its standard error.
        error: BorrowedFd<'a>,
    },
    /// A terminal of the container's own, for programs that somebody runs in it. The other side of it is sent over this socket.
    #[cfg(feature = "exec")]
    Terminal(BorrowedFd<'a>),
}

impl<'a> Stdio<'a> {
    /// The same with other descriptors, which `with` gives for these.
    fn replaced<'b>(
        self,
        with: impl Fn(BorrowedFd<'a>) -> nix::Result<BorrowedFd<'b>>,
    ) -> nix::Result<Stdio<'b>> {
        Ok(match self {
            Self::Log { input, output, ready } => {
                let numbered = |Numbered { number, descriptor }: Numbered<'a>| {
                    with(descriptor).map(|descriptor| Numbered { number, descriptor })
                };
                let ready = ready.map(numbered).transpose()?;
                Stdio::Log { input: with(input)?, output: with(output)?, ready }
            }
            Self::Given { input, output, error } => {
                Stdio::Given { input: with(input)?, output: with(output)?, error: with(error)? }
            }
            #[cfg(feature = "exec")]
            Self::Terminal(socket) => Stdio::Terminal(with(socket)?),
        })
    }
}

/// A descriptor that a program expects to have a number.
#[derive(Clone, Copy)]
pub struct Numbered<'a> {
    /// Its number in the program: 3 to 255.
    pub number: u32,
    /// What it is.
    pub descriptor: BorrowedFd<'a>,
}

/// A container's first process, and the pipe that says what became of its start.
pub struct Started {
    /// In init's own pid namespace.
    pub pid: Pid,
    /// How far the start has come.
    pub status: Status,
    /// Where the container's own init says how the program has ended, if there is one.
    pub ending: Option<Ending>,
}

impl Launch {
    /// Prepares `container`, and makes its user namespace. What others have as well is taken from `shared`, and left there
    /// for those that follow. Fails when its filter is not there, and when a text contains a NUL byte, which no system call
    /// can take.
    pub fn prepare(container: &Container, shared: &mut Shared) -> Result<Self> {
        Self::assemble(container, None, shared)
    }

    /// Likewise, with a bundle in place of the container's layers.
    pub fn prepare_bundle(container: &Container, bundle: &Bundle, shared: &mut Shared) -> Result<Self> {
        Self::assemble(container, Some(bundle), shared)
    }

    fn assemble(container: &Container, bundle: Option<&Bundle>, shared: &mut Shared) -> Result<Self> {
        let profile = &container.profile;
        let ranges = bundle.map_or(&[][..], |bundle| &bundle.ids);
        Ok(Self {
            process: Process::prepare(container, shared)?,
            root: shared.roots.keep(rootfs::Plan::prepare(container, bundle)?),
            hostname: container.hostname.as_str().into(),
            ids: if ranges.is_empty() { Ids::prepare(container.ids)? } else { Ids::own(ranges.to_vec())? },
            namespaces: namespaces(profile),
            settings: Settings::prepare(&profile.sysctls)?,
            init: container.init.map(|index| Ok(Init::prepare(shared.filter(index)?))).transpose()?,
        })
    }

    /// Its first process's program, and what it may do.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The user of its first process, as the machine knows it.
    pub fn owner(&self) -> (Uid, Gid) {
        self.ids.outside(self.process.terms.uid, self.process.terms.gid)
    }

    /// Whether the container has mounts that may have to be written back when it has ended.
    pub fn has_volumes(&self) -> bool {
        self.root.has_volumes()
    }

    /// Whether processes of the container can outlive its first one, which the kernel allows where that is not the
    /// first of a pid namespace.
    pub fn can_leave_processes(&self) -> bool {
        self.namespaces & libc::CLONE_NEWPID == 0
    }

    /// What `failure` was about, as a sentence without a subject: "mount `/proc`: Invalid argument".
    pub fn explain(&self, failure: &Failure) -> String {
        let object = match failure.step {
            Step::Sysctl => self.settings.name(failure.index()),
            Step::StandardMount | Step::Mask => self.root.standard_target(failure.index()),
            Step::Mount => self.root.mount_target(failure.index()),
            Step::Device => self.root.device_source(failure.index()),
            _ => return self.process.explain(failure),
        };
        failure.sentence(&object)
    }
}

impl Process {
    /// Prepares the first process of `container`, as [`Launch::prepare`] does.
    pub fn prepare(container: &Container, shared: &mut Shared) -> Result<Self> {
        let filter = match container.seccomp {
            Seccomp::Unconfined => None,
            Seccomp::Program(index) => Some(shared.filter(index)?),
        };
        Ok(Self {
            arguments: arguments(&container.argv)?,
            environment: Strings::new(&texts(&container.env)?),
            terms: shared.terms.keep(Terms::of(container)?),
            filter,
        })
    }

    /// Another process of the same container: the same but for its command, variables that are added to the environment or
    /// replace others in it, and its working directory if one is given.
    pub fn other(&self, argv: &[String], variables: &[String], cwd: Option<&str>) -> Result<Self> {
        let name = |variable: &str| variable.split('=').next().map(str::to_owned);
        let mut env: Vec<String> =
            self.environment.iter().map(|variable| variable.to_string_lossy().into_owned()).collect();
        env.retain(|old| !variables.iter().any(|new| name(new) == name(old)));
        env.extend_from_slice(variables);
        Ok(Self {
            arguments: arguments(argv)?,
            environment: Strings::new(&texts(&env)?),
            terms: match cwd {
                Some(cwd) => Rc::new(self.terms.in_folder(cwd)?),
                None => Rc::clone(&self.terms),
            },
            filter: self.filter.clone(),
        })
    }

    /// What `failure` was about, unless it was about the container's own things.
    pub fn explain(&self, failure: &Failure) -> String {
        failure.sentence(&match failure.step {
            Step::WorkingDirectory => self.terms.cwd.to_string_lossy(),
            Step::Execute => self.program().to_string_lossy(),
            step => step.object().into(),
        })
    }

    /// The program as the container names it: one that is looked for in `PATH` has no folder.
    fn program(&self) -> &CStr {
        self.arguments.iter().next().unwrap_or_default()
    }

    /// The paths to try, as execvp(3) would. A `PATH` that is not set means the usual folders. Made for each start, because
    /// every service would else keep as many of them as its `PATH` has folders.
    fn paths(&self) -> Vec<CString> {
        const USUAL: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let program = self.program().to_bytes();
        if program.contains(&b'/') {
            return vec![self.program().to_owned()];
        }
        let path = self.environment.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH="));
        let folders = path.unwrap_or(USUAL).split(|&byte| byte == b':');
        // Parts of texts without a NUL byte have none.
        folders
            .flat_map(|folder| {
                let slash: &[u8] = if folder.is_empty() { b"" } else { b"/" };
                CString::new([folder, slash, program].concat())
            })
            .collect()
    }
}

/// Starts a container in the cgroup `group`, which becomes open to the devices that it has at this moment. The child has its
/// descriptors from `origin`, which is this process: what it needs is open in it until the child has it.
pub fn start(launch: &Launch, group: &mut Group, stdio: Stdio<'_>, origin: &Origin) -> Result<Started> {
    begin(launch, group, child::Parts { origin, stdio, gate: None, teller: None })
}

/// Likewise, but its program is not run before somebody connects to `gate`. The start counts as executed when
/// nothing else is left to do; what becomes of the program itself is told, as by the pipe, to who has connected.
pub fn create(
    launch: &Launch,
    group: &mut Group,
    stdio: Stdio<'_>,
    origin: &Origin,
    gate: &UnixListener,
) -> Result<Started> {
    begin(launch, group, child::Parts { origin, stdio, gate: Some(gate.as_fd()), teller: None })
}

fn begin(launch: &Launch, group: &mut Group, parts: child::Parts<'_>) -> Result<Started> {
    let limits = &launch.process.terms.limits;
    group.renew(limits)?;
    group.allow(launch.root.device_rules())?;
    let (ending, teller) = match &launch.init {
        Some(_) => Ending::pipe().map(|(ending, teller)| (Some(ending), Some(teller)))?,
        None => (None, None),
    };
    let (status, report) = status()?;
    let parts = child::Parts { teller: teller.as_ref().map(AsFd::as_fd), ..parts };
    let pid = standing::of_children(limits.oom_score_adj, || {
        clone(group.as_fd(), launch.namespaces | libc::CLONE_FILES, || {
            child::run(launch, &parts, report.as_fd())
        })
    })?;
    let lent = std::iter::once(report).chain(teller).collect();
    Ok(Started { pid, status: status.lending(lent), ending })
}

/// The pipe for what a child has to say, and the child's end of it.
fn status() -> Result<(Status, OwnedFd)> {
    Status::pipe().map_err(|errno| Error::new("make", "a pipe for the container's start", errno))
}

/// Runs `child` in `cgroup`.
fn clone(cgroup: BorrowedFd<'_>, flags: i32, child: impl FnOnce() -> i32) -> Result<Pid> {
    sys::clone_into(Some(cgroup), flags, child).map_err(|errno| match errno {
        Errno::EINVAL => {
            let why = "the kernel lacks one of its namespaces (CONFIG_PID_NS, CONFIG_IPC_NS, CONFIG_NET_NS)";
            Error::said("clone", "the container's process", why)
        }
        Errno::ENOSPC => {
            let why = "the kernel allows no further one of its namespaces (user.max_*_namespaces)";
            Error::said("clone", "the container's process", why)
        }
        errno => Error::new("clone", "the container's process", errno),
    })
}

/// Runs `visit` in a child that has the network of the container whose first process is `first`, and counts as one of
/// its processes. It ends with what `visit` returns.
pub fn visit_network(group: &Group, first: Pid, visit: impl FnOnce() -> i32) -> Result<Pid> {
    let network = format!("/proc/{first}/ns/net");
    let network = File::open(&network).map_err(|error| Error::io("open", network, &error))?;
    let child = || {
        fatal::catch_panics_of_child();
        match setns(&network, CloneFlags::CLONE_NEWNET) {
            Ok(()) => visit(),
            Err(errno) => errno as i32,
        }
    };
    sys::clone_into(Some(group.as_fd()), 0, child).map_err(|errno| Error::new("clone", "a visitor", errno))
}

/// Keeps the mounts of a container that runs for as long as the result is kept. Else its first process takes
/// them apart before its end can be seen.
pub fn keep_mounts(pid: Pid) -> std::io::Result<File> {
    File::open(format!("/proc/{pid}/ns/mnt"))
}

/// What clone makes anew. The user namespace is there already, and entered last.
fn namespaces(profile: &Profile) -> i32 {
    let choices = [
        (profile.pid, libc::CLONE_NEWPID),
        (profile.ipc, libc::CLONE_NEWIPC),
        (profile.network, libc::CLONE_NEWNET),
    ];
    let own = choices.iter().filter(|(whose, _)| *whose == Namespace::Own).map(|(_, flag)| flag);
    own.fold(libc::CLONE_NEWNS | libc::CLONE_NEWUTS, |flags, flag| flags | flag)
}

/// At least the program.
fn arguments(argv: &[String]) -> Result<Strings> {
    match argv {
        [] => Err(Error::said("start", "", "it names no program")),
        argv => Ok(Strings::new(&texts(argv)?)),
    }
}

fn texts(of: &[String]) -> Result<Vec<CString>> {
    of.iter().map(|one| text(one)).collect()
}

fn text(of: &str) -> Result<CString> {
    CString::new(of).map_err(|_| Error::said("use", of.replace('\0', "\\0"), "it contains a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifest::{Capabilities, Limits, Memory, Name, User};

    fn profile() -> Profile {
        Profile {
            capabilities: Capabilities { bounding: 0, held: 0 },
            network: Namespace::Machine,
            pid: Namespace::Own,
            ipc: Namespace::Own,
            set_id: false,
            all_devices: false,
            unmasked: vec![],
            sysctls: vec![],
        }
    }

    pub(super) fn container() -> Container {
        Container {
            layers: vec![1, 0],
            read_only: false,
            hostname: Name::try_from("web".to_owned()).unwrap(),
            argv: vec!["nginx".to_owned(), "-g".to_owned()],
            env: vec!["PATH=/usr/bin::/opt".to_owned()],
            cwd: "/srv".to_owned(),
            ids: manifest::Ids::Machine,
            user: User { uid: 0, gid: 0, groups: vec![] },
            profile: profile(),
            seccomp: Seccomp::Unconfined,
            init: None,
            mounts: vec![],
            devices: vec![],
            sockets: vec![],
            limits: Limits {
                memory: Memory::Half,
                memory_reservation: 0,
                processes: 512,
                processor_millis: 0,
                processors: vec![],
                io_weight: 0,
                oom_score_adj: 0,
                shm_size: 64 << 20,
                resources: vec![],
            },
        }
    }

    #[test]
    fn a_program_without_a_slash_is_looked_for_in_path() {
        let of = |program: &str| {
            let container = Container { argv: vec![program.to_owned(), "-g".to_owned()], ..container() };
            Process::prepare(&container, &mut Shared::default()).unwrap().paths()
        };
        assert_eq!(of("nginx"), [c"/usr/bin/nginx", c"nginx", c"/opt/nginx"].map(CStr::to_owned));
        assert_eq!(of("./run"), [c"./run".to_owned()]);
        let none = Container { argv: vec![], ..container() };
        assert!(Process::prepare(&none, &mut Shared::default()).is_err());
    }

    #[test]
    fn only_what_the_profile_says_is_shared_with_the_machine() {
        let usual = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
        assert_eq!(namespaces(&profile()), usual);
        let alone = Profile { network: Namespace::Own, ..profile() };
        assert_eq!(namespaces(&alone), usual | libc::CLONE_NEWNET);
        let open = Profile { pid: Namespace::Machine, ipc: Namespace::Machine, ..profile() };
        assert_eq!(namespaces(&open), libc::CLONE_NEWNS | libc::CLONE_NEWUTS);
    }

    #[test]
    fn a_failure_is_a_sentence_about_its_object() {
        let sysctls = vec![manifest::Sysctl { path: "kernel/sem".to_owned(), value: "x".to_owned() }];
        let odd = Container { profile: Profile { sysctls, ..profile() }, ..container() };
        let launch = Launch::prepare(&odd, &mut Shared::default()).unwrap();
        for (failure, sentence) in [
            (Failure::new(Step::Overlay, 0, Errno::EINVAL), "mount `the overlay root`: Invalid argument"),
            (Failure::new(Step::StandardMount, 0, Errno::EPERM), "mount `/proc`: Operation not permitted"),
            (Failure::new(Step::Sysctl, 0, Errno::EINVAL), "set `kernel.sem`: Invalid argument"),
            (Failure::new(Step::Mask, 1, Errno::EPERM), "mask what is in `/sys`: Operation not permitted"),
            (Failure::new(Step::Execute, 0, Errno::ENOENT), "run `nginx`: No such file or directory"),
            (Failure::new(Step::Mount, 9, Errno::EIO), "mount ``: I/O error"),
            (
                Failure::new(Step::Seccomp, 0, Errno::ENOSYS),
                "install `the seccomp filter`: the kernel has no seccomp (CONFIG_SECCOMP_FILTER)",
            ),
        ] {
            assert_eq!(launch.explain(&failure), sentence);
        }
    }

    #[test]
    fn a_container_whose_filter_is_missing_is_refused_when_the_machine_boots() {
        let filtered = Container { seccomp: Seccomp::Program(0), ..container() };
        let error = Launch::prepare(&filtered, &mut Shared::default()).err().unwrap();
        assert_eq!(error.to_string(), "cannot install `the seccomp filter`: it is not there");
    }

    #[test]
    fn a_text_with_a_nul_byte_is_refused_when_the_machine_boots() {
        let odd = Container { cwd: "/a\0b".to_owned(), ..container() };
        let error = Launch::prepare(&odd, &mut Shared::default()).err().unwrap();
        assert_eq!(error.to_string(), "cannot use `/a\\0b`: it contains a NUL byte");
    }
}

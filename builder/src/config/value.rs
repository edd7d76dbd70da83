//! Small languages inside strings: durations, sizes, signals, ports, mounts.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use manifest::{Device, signal};

use super::Userns;

/// A port of the machine, and where the host offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The host's address that listens.
    pub address: Ipv4Addr,
    /// The host's port.
    pub host: u16,
    /// The machine's port.
    pub guest: u16,
    /// TCP unless said otherwise.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
}

impl Protocol {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}/{}", self.address, self.host, self.guest, self.protocol.as_str())
    }
}

impl Port {
    /// Whether both are for the same port of the machine.
    pub fn same_guest(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.guest == other.guest
    }

    /// Whether both want the same port of the host, on whatever address.
    pub fn same_host(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.host == other.host
    }
}

impl FromStr for Port {
    type Err = String;

    /// `[ADDRESS:][HOST:]GUEST[/tcp|/udp]`, as Compose writes it.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no port: expected HOST:GUEST such as \"8080:80\" or \"53:53/udp\"");
        let (numbers, protocol) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.trim_end_matches("/tcp"), Protocol::Tcp),
            Some((numbers, "udp")) => (numbers, Protocol::Udp),
            Some(_) => return Err(wrong()),
        };
        let mut parts = numbers.rsplit(':');
        let port = |part: Option<&str>| part.and_then(|part| part.parse().ok()).filter(|port| *port != 0);
        let guest = port(parts.next()).ok_or_else(wrong)?;
        let host = match parts.next() {
            None => guest,
            part => port(part).ok_or_else(wrong)?,
        };
        let address = match parts.next() {
            None => Ipv4Addr::LOCALHOST,
            Some(address) => address.parse().map_err(|_| wrong())?,
        };
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self { address, host, guest, protocol }) }
    }
}

/// A `tmpfs` entry: `/path[:size=64MiB][,mode=1777][,ro][,noexec]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Absolute and normalised.
    pub target: String,
    /// Bytes at most; 0 leaves it to the kernel.
    pub size: u64,
    /// Permission bits of its root.
    pub mode: u32,
    /// What can be done in it.
    pub access: Access,
}

/// What can be done in a mount. Set-id programs and devices never have an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Nothing can be written.
    pub read_only: bool,
    /// Nothing can be run.
    pub no_exec: bool,
}

impl Access {
    /// Takes an option; whether it was one. The words that say what is so anyway are mount(8)'s and Docker's.
    fn take(&mut self, option: &str) -> bool {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "noexec" => self.no_exec = true,
            "exec" => self.no_exec = false,
            "nosuid" | "nodev" => {}
            _ => return false,
        }
        true
    }
}

impl FromStr for Tmpfs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut tmpfs =
            Self { target: mount_target(target)?, size: 0, mode: 0o1777, access: Access::default() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", value)) => tmpfs.size = size(value)?,
                Some(("mode", value)) => {
                    let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o1777);
                    tmpfs.mode = mode
                        .ok_or_else(|| format!("`{value}` is no mode: expected octal digits such as 1777"))?;
                }
                _ if tmpfs.access.take(option) => {}
                _ => {
                    return Err(format!(
                        "`{option}` is no option of a tmpfs: there are size=64MiB, mode=1777, ro and noexec"
                    ));
                }
            }
        }
        Ok(tmpfs)
    }
}

/// A `volumes` entry: `/source:/target[:ro][,noexec]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// A folder or file of the machine: absolute and normalised.
    pub source: String,
    /// Where the container sees it: absolute and normalised.
    pub target: String,
    /// What can be done in it.
    pub access: Access,
}

impl FromStr for Volume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [source, target] => (source, target, ""),
            [source, target, options] => (source, target, options),
            _ => {
                return Err(format!(
                    "`{text}` is no volume: expected \"/folder/of/the/machine:/path/inside[:ro]\""
                ));
            }
        };
        let mut access = Access::default();
        for option in options.split(',').filter(|option| !option.is_empty()) {
            if !access.take(option) {
                return Err(format!("`{option}` is no option of a volume: there are ro and noexec"));
            }
        }
        if !source.starts_with('/') {
            return Err(format!(
                "`{source}` is no absolute path of the machine: a volume is one of its folders"
            ));
        }
        Ok(Self { source: absolute(source)?, target: mount_target(target)?, access })
    }
}

/// A `devices` entry: `/dev/SOURCE[:/dev/TARGET]`.
pub fn device(text: &str) -> Result<Device, String> {
    let (source, target) = text.split_once(':').unwrap_or((text, text));
    let below_dev = |path: &str| Some(absolute(path).ok()?).filter(|path| path.starts_with("/dev/"));
    match (below_dev(source), below_dev(target)) {
        (Some(source), Some(target)) => Ok(Device { source, target }),
        _ => Err(format!("`{text}` is no device: expected \"/dev/source\" or \"/dev/source:/dev/target\"")),
    }
}

/// Whose users a service has: `private` or `host`.
pub fn userns(text: &str) -> Result<Userns, String> {
    match text {
        "private" => Ok(Userns::Private),
        "host" => Ok(Userns::Host),
        _ => Err(format!("`{text}` is no user namespace: expected \"private\", the default, or \"host\"")),
    }
}

/// An absolute path without `.`, empty components, `..` and NUL; at most 4,095 bytes, as the kernel takes it.
pub fn absolute(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` is not an absolute path"));
    }
    if text.contains('\0') || text.len() > 4095 {
        return Err("a path has no NUL and at most 4,095 bytes".to_owned());
    }
    let mut path = String::new();
    for component in text.split('/').filter(|component| !component.is_empty() && *component != ".") {
        if component == ".." {
            return Err(format!("`{text}` contains `..`"));
        }
        path.push('/');
        path.push_str(component);
    }
    Ok(if path.is_empty() { "/".to_owned() } else { path })
}

/// The folders of a container that init mounts by itself; nothing else can be mounted on or below them.
const RESERVED: &[&str] = &["/proc", "/sys", "/dev"];

/// A path at which a container can have a mount.
fn mount_target(text: &str) -> Result<String, String> {
    let path = absolute(text)?;
    let reserved = |top: &&&str| path == **top || path.starts_with(&format!("{top}/"));
    if path == "/" {
        return Err("nothing can be mounted over a container's `/`".to_owned());
    }
    match RESERVED.iter().find(reserved) {
        Some(top) => {
            Err(format!("`{path}`: {top} is set up by Coracle, and nothing else can be mounted below it"))
        }
        None => Ok(path),
    }
}

/// A duration: a number and `ms`, `s`, `m` or `h`; several may follow each other, as in `1m30s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: expected one such as \"10s\", \"500ms\" or \"1m30s\"");
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    // A year: longer than anybody waits, and far from where the kernel's clocks overflow.
    if text.is_empty() || total > 366 * 24 * 3_600_000 {
        Err(wrong())
    } else {
        Ok(Duration::from_millis(total))
    }
}

/// A size in bytes: a number and `B`, `KiB`, `MiB` or `GiB`; Docker's `k`, `m` and `g` mean the same.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: expected one such as \"64MiB\" or \"2GiB\"");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" | "b" => 0,
        "KiB" | "K" | "k" => 10,
        "MiB" | "M" | "m" => 20,
        "GiB" | "G" | "g" => 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(wrong)
}

/// A signal by name (`SIGTERM`, `TERM`, `SIGRTMIN+3`) or number.
pub fn signal(text: &str) -> Result<i32, String> {
    let wrong =
        || format!("`{text}` is no signal: expected a name such as \"SIGTERM\" or a number from 1 to 64");
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // glibc keeps 32 and 33 for itself: its SIGRTMIN is 34, and images mean that one (systemd's is RTMIN+3).
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset =
            if offset.is_empty() { Some(0) } else { offset.strip_prefix('+').and_then(|n| n.parse().ok()) };
        return offset.filter(|offset| (0..=30).contains(offset)).map(|offset| 34 + offset).ok_or_else(wrong);
    }
    let is_called = |known: &&str| known.strip_prefix("SIG") == Some(name);
    let index = signal::NAMES.iter().position(is_called).ok_or_else(wrong)?;
    i32::try_from(index + 1).map_err(|_| wrong())
}

/// What a signal is called, for people.
pub fn signal_name(number: i32) -> String {
    signal::name(number).map_or_else(|| format!("signal {number}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_in_compose() {
        let port = |address: [u8; 4], host, guest, protocol| {
            Ok(Port { address: address.into(), host, guest, protocol })
        };
        let local = [127, 0, 0, 1];
        for (text, expected) in [
            ("80", port(local, 80, 80, Protocol::Tcp)),
            ("8080:80", port(local, 8080, 80, Protocol::Tcp)),
            ("8080:80/tcp", port(local, 8080, 80, Protocol::Tcp)),
            ("53:5353/udp", port(local, 53, 5353, Protocol::Udp)),
            ("0.0.0.0:8080:80", port([0; 4], 8080, 80, Protocol::Tcp)),
        ] {
            assert_eq!(text.parse::<Port>(), expected, "{text}");
        }
        for wrong in [
            "",
            "0",
            "65536",
            "80:",
            ":80",
            "a:b",
            "80/sctp",
            "1:2:3",
            "x:1:2",
            "1:1.1.1.1:2:3",
            "80:80/tcp/tcp",
        ] {
            assert!(wrong.parse::<Port>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_stay_out_of_what_init_sets_up() {
        assert_eq!(
            "/srv//data/:/data:ro".parse::<Volume>(),
            Ok(Volume {
                source: "/srv/data".into(),
                target: "/data".into(),
                access: Access { read_only: true, no_exec: false }
            })
        );
        for wrong in [
            "data:/data",
            "/a",
            "/a:b",
            "/a:/b:rx",
            "/a:/b:ro,suid",
            "/a:/",
            "/a:/proc/self",
            "/a:/dev",
            "/a:/x/../y",
        ] {
            assert!(wrong.parse::<Volume>().is_err(), "{wrong}");
        }
        assert_eq!(
            "/tmp:size=64MiB,mode=0700,noexec".parse::<Tmpfs>(),
            Ok(Tmpfs {
                target: "/tmp".into(),
                size: 64 << 20,
                mode: 0o700,
                access: Access { read_only: false, no_exec: true }
            })
        );
        let last = "/a:/b:ro,noexec,exec,rw,nosuid,nodev".parse::<Volume>().unwrap().access;
        assert_eq!(last, Access::default(), "of two words that contradict each other the last counts");
        assert_eq!("/run".parse::<Tmpfs>().unwrap().mode, 0o1777);
        for wrong in ["tmp", "/sys", "/tmp:size", "/tmp:size=x", "/tmp:mode=9", "/tmp:uid=1", "/tmp:dev"] {
            assert!(wrong.parse::<Tmpfs>().is_err(), "{wrong}");
        }
        assert_eq!(device("/dev/kvm").unwrap().target, "/dev/kvm");
        assert_eq!(device("/dev/a:/dev/b").unwrap().target, "/dev/b");
        assert!(device("/etc/passwd").is_err());
    }

    #[test]
    fn durations_and_sizes_have_units() {
        for (text, ms) in [("0s", 0), ("10s", 10_000), ("500ms", 500), ("1m30s", 90_000), ("2h", 7_200_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "10", "s", "10 s", "-1s", "1.5s", "99999999999h", "1w", "400000h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for (text, bytes) in [("0", 0), ("7B", 7), ("4k", 4096), ("64MiB", 64 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "MiB", "1MB", "-1", "1.5GiB", "99999999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("SIGQUIT", 3),
            ("9", 9),
            ("SIGSYS", 31),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
        ] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for wrong in ["", "0", "65", "-1", "SIG", "SIGFOO", "RTMIN+31", "RTMIN3"] {
            assert!(signal(wrong).is_err(), "{wrong}");
        }
        for (number, name) in
            [(1, "SIGHUP"), (15, "SIGTERM"), (31, "SIGSYS"), (37, "signal 37"), (0, "signal 0")]
        {
            assert_eq!(signal_name(number), name);
        }
    }
}

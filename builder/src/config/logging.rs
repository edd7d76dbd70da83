//! What becomes of what services and init say.

use std::net::{IpAddr, SocketAddr};

use manifest::{ConsoleFormat, Files, Log, Logging, Syslog, Transport};

use super::check::{Check, RESERVED_FOLDERS};
use super::problem::suggestion;
use super::raw::{At, Fields};
use super::value;

/// As much as an hour of a service that says something every ten seconds.
const DEFAULT_SIZE: u64 = 64 << 10;

/// Less would not hold one long line, and PID 1's memory is the machine's.
const SIZES: std::ops::RangeInclusive<u64> = 16 << 10..=64 << 20;

/// How lines can appear on the console.
const FORMATS: &[(&str, ConsoleFormat)] =
    &[("text", ConsoleFormat::Text), ("json", ConsoleFormat::Json), ("none", ConsoleFormat::None)];

/// How large a file of a log may become, and how many there are of each service.
const DEFAULT_FILE_SIZE: u64 = 10 << 20;
const FILE_SIZES: std::ops::RangeInclusive<u64> = 16 << 10..=1 << 40;
const DEFAULT_FILE_COUNT: u32 = 5;
const FILE_COUNTS: std::ops::RangeInclusive<u32> = 1..=1000;

/// `[log]`.
#[derive(Debug, Default)]
pub struct RawLog {
    console: Option<At<String>>,
    syslog: Option<At<String>>,
    folder: Option<At<String>>,
    max_size: Option<At<String>>,
    max_files: Option<At<u32>>,
}

impl RawLog {
    pub fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            console: fields.take("console"),
            syslog: fields.take("syslog"),
            folder: fields.take("folder"),
            max_size: fields.take("max-size"),
            max_files: fields.take("max-files"),
        }
    }
}

/// What is meant for the whole machine.
pub(super) fn check_machine(raw: RawLog, check: &mut Check<'_>) -> Log {
    let console = raw.console.and_then(|written| {
        let found = FORMATS.iter().find(|(name, _)| *name == written.value);
        if found.is_none() {
            let known = FORMATS.iter().map(|(name, _)| *name);
            let what = format!("`{}` is no way to show lines: there are text, json and none", written.value);
            check.at(&written.span, "log.console", what + &suggestion(&written.value, known));
        }
        found.map(|(_, format)| *format)
    });
    let syslog =
        raw.syslog.and_then(|written| check.value(&written.span, "log.syslog", syslog(&written.value)));
    let files = files(raw.folder, raw.max_size, raw.max_files, check);
    Log { console: console.unwrap_or(ConsoleFormat::Text), syslog, files }
}

/// The files, if there is a folder for them.
fn files(
    folder: Option<At<String>>,
    size: Option<At<String>>,
    count: Option<At<u32>>,
    check: &mut Check<'_>,
) -> Option<Files> {
    let without = |key: &str| format!("`{key}` is for files, and there are none without `folder`");
    if folder.is_none() {
        let size = size.as_ref().map(|size| ("max-size", &size.span));
        let count = count.as_ref().map(|count| ("max-files", &count.span));
        for (key, span) in size.into_iter().chain(count) {
            check.at(span, format!("log.{key}"), without(key));
        }
    }
    let written = folder?;
    let folder = check.value(&written.span, "log.folder", log_folder(&written.value));
    let max_size = size.and_then(|written| {
        let size = value::size(&written.value).and_then(|size| {
            let fits = FILE_SIZES.contains(&size).then_some(size);
            fits.ok_or_else(|| "a file of a log has 16KiB to 1TiB".to_owned())
        });
        check.value(&written.span, "log.max-size", size)
    });
    let max_files = count.and_then(|written| {
        let fits = FILE_COUNTS.contains(&written.value).then_some(written.value);
        let fits = fits.ok_or_else(|| "each service has 1 to 1000 files".to_owned());
        check.value(&written.span, "log.max-files", fits)
    });
    Some(Files {
        folder: folder?,
        max_size: max_size.unwrap_or(DEFAULT_FILE_SIZE),
        max_files: max_files.unwrap_or(DEFAULT_FILE_COUNT),
    })
}

/// A folder of the machine that files can be in.
fn log_folder(text: &str) -> Result<String, String> {
    let folder = value::absolute(text)?;
    let is_below = |top: &&&str| folder == **top || folder.starts_with(&format!("{top}/"));
    match RESERVED_FOLDERS.iter().find(is_below) {
        _ if folder == "/" => Err("`/` is the machine's root; choose a folder, such as /var/log".to_owned()),
        Some(top) => {
            Err(format!("`{top}` of the machine is Coracle's own; choose another folder, such as /var/log"))
        }
        None => Ok(folder),
    }
}

/// `udp://ADDRESS[:PORT]` or `tcp://ADDRESS[:PORT]`.
fn syslog(text: &str) -> Result<Syslog, String> {
    let wrong = || {
        format!(
            "`{text}` is no syslog server: expected \"udp://10.0.0.2:514\" or \"tcp://10.0.0.2:601\", with an address \
             and no name"
        )
    };
    let (transport, usual_port, rest) = match text.split_once("://") {
        Some(("udp", rest)) => (Transport::Udp, 514, rest),
        Some(("tcp", rest)) => (Transport::Tcp, 601, rest),
        _ => return Err(wrong()),
    };
    let bare: Result<IpAddr, _> = rest.trim_start_matches('[').trim_end_matches(']').parse();
    let address = match bare {
        Ok(address) => SocketAddr::new(address, usual_port),
        Err(_) => rest.parse().map_err(|_| wrong())?,
    };
    if address.port() == 0 || address.ip().is_unspecified() {
        Err(wrong())
    } else {
        Ok(Syslog { transport, address })
    }
}

/// `logging = { … }`.
#[derive(Debug, Default)]
pub struct RawLogging {
    size: Option<At<String>>,
}

impl RawLogging {
    pub fn read(fields: &mut Fields<'_>) -> Self {
        Self { size: fields.take("size") }
    }
}

/// What is meant for a service; `path` is that of the service's table.
pub(super) fn check(raw: RawLogging, path: &str, check: &mut Check<'_>) -> Logging {
    let size = raw.size.and_then(|written| {
        let size = value::size(&written.value).and_then(|size| {
            let fits = SIZES.contains(&size).then_some(size);
            fits.ok_or_else(|| "a log in memory has 16KiB to 64MiB".to_owned())
        });
        check.value(&written.span, format!("{path}.logging.size"), size)
    });
    Logging { size: size.unwrap_or(DEFAULT_SIZE) }
}

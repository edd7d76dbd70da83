//! The stages before supervision that are no subject of their own: signals, the boot manifest, the machine's
//! name.

use std::fs;

use manifest::{Awaited, Manifest, Network, Seccomp, path};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::sethostname;

use crate::error::{Error, Result};
use crate::log::Console;

/// Blocks every signal, so that none is lost before the supervisor reads them from its descriptor.
pub fn block_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(|errno| Error::new("block", "signals", errno))
}

/// Reads what the builder wrote. Another version of it is refused: its fields could mean something else.
pub fn read_manifest() -> Result<Manifest> {
    let text = fs::read(path::MANIFEST).map_err(|error| Error::io("read", path::MANIFEST, &error))?;
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Manifest> {
    /// What every version has in common.
    const DOING: &str = "use the boot manifest";
    let refuse = |why: String| Error::said(DOING, path::MANIFEST, why);
    let manifest: Manifest = match serde_json::from_slice(text) {
        Ok(manifest) => manifest,
        Err(error) => return Err(refuse(version_differs(text).unwrap_or_else(|| error.to_string()))),
    };
    if manifest.version != manifest::VERSION {
        return Err(refuse(version_sentence(u64::from(manifest.version))));
    }
    for service in &manifest.services {
        let container = &service.container;
        if container.layers.is_empty() || container.layers.iter().any(|&layer| layer >= manifest.layers.len())
        {
            return Err(refuse(format!("service `{}` has a layer that the machine has not", service.name)));
        }
        if let Seccomp::Program(index) = container.seccomp
            && index >= manifest.seccomp.len()
        {
            let name = &service.name;
            return Err(refuse(format!("service `{name}` has a seccomp program that the machine has not")));
        }
        let mut edges = service.depends_on.iter();
        if edges.any(|edge| edge.service >= manifest.services.len()) {
            let name = &service.name;
            return Err(refuse(format!("service `{name}` waits for a service that the machine has not")));
        }
        let wants_network = service.wait_for.iter().any(|wait| wait.until == Awaited::Network);
        if wants_network && manifest.network == Network::None {
            return Err(refuse(format!(
                "service `{}` waits for a network that the machine has not",
                service.name
            )));
        }
        if container.argv.is_empty() {
            return Err(refuse(format!("service `{}` has no program", service.name)));
        }
    }
    Ok(manifest)
}

/// A manifest of another version seldom parses: then its version, and not the first strange field, is the
/// reason.
fn version_differs(text: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let version = value.get("version")?.as_u64()?;
    (version != u64::from(manifest::VERSION)).then(|| version_sentence(version))
}

fn version_sentence(version: u64) -> String {
    format!("its version is {version}, this init understands {} only", manifest::VERSION)
}

/// Descriptors that PID 1 may have: a service takes four, and the kernel's 1,024 would do for 250 of them.
const DESCRIPTORS: u64 = 65_536;

/// Settings of the running kernel: the machine's name, what a key press does, what the kernel says on the
/// console. None of them is worth a boot.
pub fn tune(manifest: &Manifest, console: &mut Console) {
    console.show_as(manifest.log.console);
    let words = words();
    if words.iter().any(|word| word == manifest::COLOUR) {
        console.paint();
    }
    let results = [
        sethostname(manifest.name.as_str()).map_err(|errno| Error::new("set", "hostname", errno)),
        // Ctrl-Alt-Del becomes a SIGINT to PID 1, which powers off in order, instead of a reset.
        set_cad_enabled(false).map_err(|errno| Error::new("disable", "Ctrl-Alt-Del", errno)),
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS)
            .map_err(|errno| Error::new("raise", "the limit of descriptors", errno)),
        // The kernel never chooses PID 1 when memory is short: it could only panic then.
        write("/proc/self/oom_score_adj", "-1000"),
        quieten(&words),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        console.say(format_args!("{error}"));
    }
}

/// The words of the kernel's command line. None of them matters as much as that the machine boots.
fn words() -> Vec<String> {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    cmdline.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Lets only the kernel's warnings and errors reach the console, unless the command line asks for more or
/// less.
fn quieten(words: &[String]) -> Result<()> {
    let decides = |word: &String| {
        matches!(word.as_str(), "quiet" | "debug" | "ignore_loglevel") || word.starts_with("loglevel=")
    };
    if words.iter().any(decides) { Ok(()) } else { write("/proc/sys/kernel/printk", "5") }
}

fn write(path: &'static str, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Error::io("write", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_manifest_of_another_version_is_refused_by_its_version() {
        let expected = "its version is 11, this init understands 10 only";
        let empty = r#""name":"m","modules":[],"layers":[],"seccomp":[],"network":"none","watchdog":"none","control":{"exec":true,"vsock":null},"log":{"console":"text","syslog":null,"files":null},"services":[]"#;
        assert!(refusal(&format!(r#"{{"version":11,{empty}}}"#)).ends_with(expected));
        assert!(refusal(r#"{"version":11,"novelty":[]}"#).ends_with(expected));
    }

    #[test]
    fn a_manifest_that_is_cut_off_is_refused_with_the_position() {
        assert!(refusal(r#"{"version":10,"#).contains("line 1"));
    }

    #[test]
    fn a_service_cannot_name_a_layer_that_the_machine_lacks() {
        let text = r#"{"version":10,"name":"m","modules":[],"layers":[],"seccomp":[],"network":"none","watchdog":"none","control":{"exec":true,"vsock":null},"log":{"console":"text","syslog":null,"files":null},"services":[{
            "name":"web","kind":"service","depends_on":[],"wait_for":[],"ready":{"by":"started","timeout_ms":0},"health":null,"watchdog_ms":0,
            "restart":{"policy":"always","prevented_by":[],"backoff":{"first_ms":1,"factor":1,"cap_ms":1,"jitter_percent":0,
            "reset_ms":1},"give_up":null},"stop":{"signal":15,"grace_ms":1},"logging":{"size":1},"container":{
            "layers":[0],"read_only":false,"hostname":"web","argv":["x"],"env":[],"cwd":"/",
            "ids":"machine","user":{"uid":0,"gid":0,"groups":[]},
            "profile":{"capabilities":{"bounding":0,"held":0},"network":"machine","pid":"own",
            "ipc":"own","set_id":false,"all_devices":false,"unmasked":[],"sysctls":[]},"seccomp":"unconfined","init":null,
            "mounts":[],"devices":[],"sockets":[],"limits":{"memory":"half","memory_reservation":0,"processes":1,
            "processor_millis":0,"processors":[],"io_weight":0,"oom_score_adj":0,"shm_size":1,"resources":[]}}}]}"#;
        assert!(refusal(text).ends_with("service `web` has a layer that the machine has not"));
    }
}

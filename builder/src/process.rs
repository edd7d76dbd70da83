//! What a service runs: the config's words over the image's defaults, before anything is known of the image's files.

use manifest::Name;

use crate::config::{Service, Volume, absolute};
use crate::error::{Error, Result};
use crate::oci::image::Process;

/// `PATH` where neither the image nor the config has one: Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The entrypoint's words and then the command's. An entrypoint of the config's own makes the image's `Cmd`, which
/// was written for the image's entrypoint, meaningless.
pub fn argv(service: &Service, defaults: &Process) -> Result<Vec<String>> {
    let entrypoint = service.entrypoint.as_ref().unwrap_or(&defaults.entrypoint);
    let no_words = Vec::new();
    let command = match (&service.command, &service.entrypoint) {
        (Some(command), _) => command,
        (None, Some(_)) => &no_words,
        (None, None) => &defaults.cmd,
    };
    let argv: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    match argv.first() {
        None => Err(Error::new("neither the image nor the config names a program to run")
            .hint("set `command = [\"program\", \"argument\"]`")),
        Some(program) if program.is_empty() => Err(Error::new("the program to run has an empty name")),
        Some(_) if argv.iter().any(|word| word.contains('\0')) => {
            Err(Error::new("the image's command contains a NUL"))
        }
        Some(_) => Ok(argv),
    }
}

/// The image's variables in their order, those of the config replacing or following them, and Docker's defaults.
pub fn environment(
    service: &Service,
    defaults: &Process,
    home: &str,
    hostname: &Name,
) -> Result<Vec<String>> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let mut set = |name, value| match pairs.iter_mut().find(|(known, _)| *known == name) {
        Some(pair) => pair.1 = value,
        None => pairs.push((name, value)),
    };
    for variable in &defaults.env {
        match variable.split_once('=') {
            Some((name, value)) if !name.is_empty() && !variable.contains('\0') => set(name, value),
            _ => {
                let variable = variable.escape_debug();
                return Err(Error::new(format!(
                    "the image's environment has `{variable}`, which is no NAME=value"
                )));
            }
        }
    }
    for (name, value) in &service.environment {
        set(name, value);
    }
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", home), ("HOSTNAME", hostname.as_str())] {
        if !pairs.iter().any(|(known, _)| *known == name) {
            pairs.push((name, value));
        }
    }
    Ok(pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// The paths at which the program of a service is looked for, in that order.
pub fn candidates(service: &Service, defaults: &Process) -> Result<Vec<String>> {
    let argv = argv(service, defaults)?;
    let program = argv[0].as_str();
    if program.contains('/') {
        return Ok(vec![joined(&working_dir(service, defaults)?, program)]);
    }
    let in_image = || defaults.env.iter().rev().find_map(|pair| pair.strip_prefix("PATH="));
    let path = service.environment.get("PATH").map(String::as_str).or_else(in_image).unwrap_or(DEFAULT_PATH);
    Ok(path.split(':').filter(|folder| !folder.is_empty()).map(|folder| joined(folder, program)).collect())
}

/// A path as seen from a folder, without `.` and `..`.
fn joined(folder: &str, path: &str) -> String {
    let folder = if path.starts_with('/') { "" } else { folder };
    let mut names: Vec<&str> = Vec::new();
    for name in folder.split('/').chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// The working directory, as it is written.
pub fn working_dir(service: &Service, defaults: &Process) -> Result<String> {
    if let Some(dir) = &service.working_dir {
        return Ok(dir.clone());
    }
    match defaults.working_dir.as_str() {
        "" => Ok("/".to_owned()),
        dir => absolute(dir).map_err(|what| Error::new(format!("WorkingDir: {what}"))),
    }
}

/// The volumes that the image declares and that must be writable although the root is not.
pub fn declared_volumes(service: &Service, defaults: &Process) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    if !service.read_only {
        return Ok(targets);
    }
    for path in defaults.volumes.keys() {
        let volume: Volume =
            format!("/:{path}").parse().map_err(|what| Error::new(format!("Volumes: {what}")))?;
        let target = volume.target;
        let by_tmpfs = service.tmpfs.iter().any(|tmpfs| tmpfs.target == target);
        let by_volume = service.volumes.iter().any(|volume| volume.target == target);
        if !by_tmpfs && !by_volume {
            targets.push(target);
        }
    }
    Ok(targets)
}

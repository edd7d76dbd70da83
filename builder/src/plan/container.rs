//! One service of the config and its image, merged into what init starts.

use manifest::{
    Container, IDS_PER_CONTAINER, Ids, Mount, Name, Seccomp, Service as Supervised, Socket, Stop, User, path,
};

use super::{profile, supervision, user};
use crate::config::{Access, Service};
use crate::error::{Error, Result};
use crate::oci::image::Process;
use crate::process::{argv, candidates, declared_volumes, environment, working_dir};
use crate::root::Root;
use crate::target::{hidden, is_within};

const SIGTERM: i32 = 15;

/// A service's container, but for the layers and the seccomp programs, which the caller numbers.
/// `names` are those of all services, in the order of the boot manifest.
pub fn merge(
    service: &Service,
    defaults: &Process,
    root: &Root,
    ids: Ids,
    names: &[&Name],
) -> Result<Supervised> {
    let spec = service.user.as_deref().unwrap_or(&defaults.user);
    let mut resolved = user::resolve(spec, &root.passwd, &root.group)?;
    user::add_groups(&mut resolved.user, &service.profile.group_add, &root.group)?;
    check_user(&resolved.user, ids)?;
    let hostname = service.hostname.clone().unwrap_or_else(|| service.name.clone());
    let signal = match service.stop_signal {
        Some(signal) => signal,
        None if defaults.stop_signal.is_empty() => SIGTERM,
        None => crate::config::signal(&defaults.stop_signal)
            .map_err(|what| Error::new(format!("StopSignal: {what}")))?,
    };
    let grace_ms = u64::try_from(service.stop_grace_period.as_millis()).unwrap_or(u64::MAX);
    let mut env = environment(service, defaults, &resolved.home, &hostname)?;
    env.extend(supervision::environment(service));
    let container = Container {
        layers: Vec::new(),
        read_only: service.read_only,
        argv: argv(service, defaults)?,
        env,
        cwd: root.resolved(&working_dir(service, defaults)?),
        ids,
        profile: profile::of(service, resolved.user.uid),
        user: resolved.user,
        hostname,
        seccomp: Seccomp::Unconfined,
        init: None,
        mounts: mounts(service, defaults, root)?,
        devices: service.devices.clone(),
        sockets: sockets(service),
        limits: service.limits.clone(),
    };
    check_program(&container, &candidates(service, defaults)?, root)?;
    check_hidden(&container, root)?;
    let health = supervision::health(service, defaults)?;
    Ok(Supervised {
        name: service.name.clone(),
        kind: service.kind,
        depends_on: supervision::depends_on(service, names)?,
        wait_for: service.supervision.wait_for.iter().map(|wait| wait.value.clone()).collect(),
        ready: supervision::ready(service, health.as_ref())?,
        health,
        watchdog_ms: service
            .supervision
            .watchdog
            .map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        restart: service.supervision.restart.clone(),
        stop: Stop { signal, grace_ms },
        logging: service.logging,
        container,
    })
}

fn sockets(service: &Service) -> Vec<Socket> {
    let notify = Socket {
        source: format!("{}/{}", path::NOTIFY, service.name),
        target: path::NOTIFY_TARGET.to_owned(),
    };
    let control = Socket {
        source: format!("{}/{}", path::CONTROL, service.name),
        target: manifest::control::TARGET.to_owned(),
    };
    let notify = supervision::notifies(service).then_some(notify);
    notify.into_iter().chain(service.control.then_some(control)).collect()
}

/// Refuses users and groups that a range of ids has no number for, or whose number an image's own files have made too
/// large: the highest means "as before" to the system calls, and the program would stay root (CVE-2026-46680).
fn check_user(user: &User, ids: Ids) -> Result<()> {
    let numbers = [user.uid, user.gid].into_iter().chain(user.groups.iter().copied());
    match (ids, numbers.max()) {
        (Ids::Own { .. }, Some(id)) if id >= IDS_PER_CONTAINER => {
            let what =
                format!("user or group {id} is beyond the {IDS_PER_CONTAINER} that a service has of its own");
            Err(Error::new(what).hint("set `user` to smaller numbers, or `userns = \"host\"`"))
        }
        (Ids::Machine, Some(id)) if i32::try_from(id).is_err() => {
            Err(Error::new(format!("user or group {id} is none: the largest is {}", i32::MAX))
                .hint("set `user` to smaller numbers"))
        }
        _ => Ok(()),
    }
}

/// The mounts of a service, sorted, none inside another.
fn mounts(service: &Service, defaults: &Process, root: &Root) -> Result<Vec<Mount>> {
    let tmpfs = service.tmpfs.iter().map(|tmpfs| {
        let target = root.resolved(&tmpfs.target);
        let Access { read_only, no_exec } = tmpfs.access;
        let (size, mode) = (tmpfs.size, tmpfs.mode);
        (tmpfs.target.clone(), Mount::Tmpfs { target, size, mode, read_only, no_exec })
    });
    let volumes = service.volumes.iter().map(|volume| {
        let (source, target) = (volume.source.clone(), root.resolved(&volume.target));
        let Access { read_only, no_exec } = volume.access;
        (volume.target.clone(), Mount::Bind { source, target, read_only, no_exec })
    });
    // Each with its target as it is written.
    let mut mounts: Vec<(String, Mount)> = tmpfs.chain(volumes).collect();
    for written in declared_volumes(service, defaults)? {
        let path = root.resolved(&written);
        // What is mounted there by the config, or by another name of the same place, is writable already.
        if !mounts.iter().any(|(_, mount)| is_within(&path, target(mount))) {
            let (size, mode, read_only, no_exec) = (0, 0o1777, false, false);
            mounts.push((written, Mount::Tmpfs { target: path, size, mode, read_only, no_exec }));
        }
    }
    // By the names on the way, so that what is inside a mount follows it.
    mounts.sort_by(|(_, a), (_, b)| target(a).split('/').cmp(target(b).split('/')));
    for pair in mounts.windows(2) {
        let [(outer, a), (inner, b)] = pair else { continue };
        if target(a) == target(b) {
            let what = format!("two mounts are on `{}`: `{outer}` and `{inner}` lead there", target(a));
            return Err(Error::new(what));
        }
        // init makes nothing inside a mount, and what the image has there is hidden by it.
        if is_within(target(b), target(a)) {
            return Err(Error::new(format!("the mount on `{inner}` is inside the mount on `{outer}`"))
                .hint("mount them beside each other"));
        }
    }
    Ok(mounts.into_iter().map(|(_, mount)| mount).collect())
}

/// Refuses mounts over what the container cannot do without.
fn check_hidden(container: &Container, root: &Root) -> Result<()> {
    let resolv_conf = root.resolved(path::RESOLV_CONF);
    for mount in &container.mounts {
        let at = target(mount);
        if is_within(&resolv_conf, at) {
            let what = format!("the mount on `{at}` hides `{resolv_conf}`, where init puts the name servers");
            return Err(Error::new(what).hint("mount on single files or folders beside it"));
        }
        let is_empty = matches!(mount, Mount::Tmpfs { .. }) && container.cwd != at;
        if is_empty && is_within(&container.cwd, at) {
            let what = format!(
                "the working directory `{}` is inside the tmpfs on `{at}`, which is empty",
                container.cwd
            );
            return Err(Error::new(what).hint("set `working-dir` to a folder that is not"));
        }
    }
    Ok(())
}

/// Refuses a program that is not there, and one that the kernel makes up, such as `/proc/self/exe` (CVE-2019-5736).
fn check_program(container: &Container, candidates: &[String], root: &Root) -> Result<()> {
    let program = container.argv[0].as_str();
    if program.contains('/')
        && let Some(top) = candidates.iter().find_map(|path| hidden(path))
    {
        return Err(Error::new(format!("the program `{program}` is below {top}, which the kernel fills"))
            .hint("set `entrypoint` to a program of the image"));
    }
    let on_mount = |path: &String| container.mounts.iter().any(|mount| is_within(path, target(mount)));
    if candidates.iter().any(|path| root.programs.contains(path) || on_mount(path)) {
        return Ok(());
    }
    // An image's words can have anything in them; quotes do no harm.
    let mut what =
        format!("the image has no program `{}`", program.escape_debug().to_string().replace("\\'", "'"));
    if !program.contains('/') {
        let folders = candidates.iter().filter_map(|path| path.rsplit_once('/')).map(|(folder, _)| folder);
        what += &format!(" in its PATH, {}", folders.collect::<Vec<_>>().join(":"));
    }
    let hint = if program.contains(char::is_whitespace) {
        "each word of a command is a string of its own: [\"sh\", \"-c\", \"echo hello\"]"
    } else {
        "`command` takes the place of the image's command, `entrypoint` that of its entrypoint"
    };
    Err(Error::new(what).hint(hint))
}

fn target(mount: &Mount) -> &str {
    match mount {
        Mount::Tmpfs { target, .. } | Mount::Bind { target, .. } => target,
    }
}

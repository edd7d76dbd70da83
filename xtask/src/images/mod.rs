//! The demo and test images: Debian's servers on one shared base, as an OCI layout and as archives.
//!
//! Made by one run of mmdebstrap (as root, or as an ordinary user in a user namespace) whose hooks make the
//! layers, and put together by umoci. Kept in the cache under the hash of the recipe.

mod recipe;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{Result, because, run_quietly};
use crate::setup::{own_suite, write_sources};
use crate::sources::Kind;
use crate::workspace::{Workspace, make_folder};

use recipe::{BUSYBOX, BUSYBOX_SCRIPT, EPOCH, EXCLUDED_PATHS, PATH, Recipe, SERVERS};

const LAYER_SCRIPT: &str = include_str!("layer.sh");

/// Makes `target/images/{demo,busybox.docker.tar,busybox.oci.tar}`, unless this recipe has been made before.
pub fn images(workspace: &Workspace) -> Result<()> {
    let suite = own_suite()?;
    let shelf = workspace.cache.join("images");
    let made = shelf.join(recipe_hash(&suite));
    if !made.is_dir() {
        make_folder(&shelf)?;
        // Two processes may make the images at once: each in a folder of its own, and one rename wins.
        let draft = shelf.join(format!("draft.{}", std::process::id()));
        make_folder(&draft)?;
        let result = make(workspace, &suite, &draft);
        if result.is_ok() && !made.is_dir() {
            fs::rename(&draft, &made).map_err(because(format!("cannot rename `{}`", draft.display())))?;
        } else {
            fs::remove_dir_all(&draft).map_err(because(format!("cannot remove `{}`", draft.display())))?;
        }
        result?;
    }
    workspace.link("images", &made)
}

fn make(workspace: &Workspace, suite: &str, folder: &Path) -> Result<()> {
    let layers = folder.join("layers");
    make_folder(&layers)?;
    bootstrap(workspace, suite, &layers)?;
    let layout = folder.join("demo");
    run_quietly(Command::new("umoci").args(["init", "--layout"]).arg(&layout))?;
    add_image(&layout, "base", None, &layers, &[("--config.cmd", "bash")])?;
    for Recipe { tag, config, .. } in SERVERS {
        add_image(&layout, tag, Some("base"), &layers, config)?;
    }
    add_image(&layout, BUSYBOX, None, &layers, &[("--config.cmd", "sh")])?;
    run_quietly(Command::new("umoci").args(["gc", "--layout"]).arg(&layout))?;
    fs::remove_dir_all(&layers).map_err(because(format!("cannot remove `{}`", layers.display())))?;
    let source = format!("oci:{}:{BUSYBOX}", layout.display());
    for (transport, file, suffix) in [
        ("docker-archive", "busybox.docker.tar", ":coracle/busybox:latest"),
        ("oci-archive", "busybox.oci.tar", ":busybox"),
    ] {
        let target = format!("{transport}:{}{suffix}", folder.join(file).display());
        // No signature policy is needed: both sides are local files.
        run_quietly(Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &source, &target]))?;
    }
    Ok(())
}

/// One run of mmdebstrap: `base.tar`, and one more layer for each hook.
fn bootstrap(workspace: &Workspace, suite: &str, layers: &Path) -> Result<()> {
    let sources = workspace.cache.join("apt").join("own");
    make_folder(&sources)?;
    write_sources(&sources, suite, Kind::Packages)?;
    let mode = if rustix::process::geteuid().is_root() { "root" } else { "unshare" };
    let mut command = Command::new("mmdebstrap");
    command.env("SOURCE_DATE_EPOCH", EPOCH.to_string());
    command.args(["--variant=minbase", "--skip=output/dev", "--quiet"]).arg(format!("--mode={mode}"));
    // Debian 12 makes / and /usr one by a package that needs all of Perl, unless it is so from the beginning.
    command.args(["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=usr-is-merged"]);
    command.args(EXCLUDED_PATHS.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
    for Recipe { tag, packages, setup, .. } in SERVERS {
        let setup = setup.replace('\'', r"'\''");
        hook(
            &mut command,
            tag,
            &format!("tag='{tag}' packages='{packages}' setup='{setup}'\n{LAYER_SCRIPT}"),
            layers,
        );
    }
    hook(&mut command, BUSYBOX, BUSYBOX_SCRIPT, layers);
    // Copied from this machine for the installation.
    command.arg("--customize-hook=rm --force \"$1\"/etc/hostname \"$1\"/etc/resolv.conf");
    command.arg(suite).arg(layers.join("base.tar"));
    for name in ["debian.list", "debian.sources"] {
        let path = sources.join(name);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 1) {
            command.arg(path);
        }
    }
    run_quietly(&mut command).map(drop)
}

/// Adds a hook that writes `/tmp/TAG.tar` in the base's root, and takes that file out again: mmdebstrap's own
/// copy works across the border of a user namespace.
fn hook(command: &mut Command, tag: &str, script: &str, layers: &Path) {
    command.arg(format!("--customize-hook={script}"));
    command.arg(format!("--customize-hook=download /tmp/{tag}.tar {}/{tag}.tar", layers.display()));
    command.arg(format!("--customize-hook=rm \"$1\"/tmp/{tag}.tar"));
}

/// Adds the image `tag`: the layer of the same name, on top of another image or of nothing.
fn add_image(
    layout: &Path,
    tag: &str,
    base: Option<&str>,
    layers: &Path,
    config: &[(&str, &str)],
) -> Result<()> {
    let time = "2023-11-14T22:13:20Z";
    let image = format!("{}:{tag}", layout.display());
    let layer = layers.join(format!("{tag}.tar"));
    let from = match base {
        Some(base) => format!("{}:{base}", layout.display()),
        None => {
            run_quietly(Command::new("umoci").args(["new", "--image", &image]))?;
            image.clone()
        }
    };
    run_quietly(
        Command::new("umoci")
            .args(["raw", "add-layer", "--image", &from, "--tag", tag, "--history.created", time])
            .arg(&layer),
    )?;
    let mut command = Command::new("umoci");
    command.args(["config", "--image", &image, "--created", time, "--history.created", time]);
    command.args(["--os", "linux", "--architecture", "amd64", "--config.env", PATH]);
    if base.is_some() {
        command.args(["--clear", "config.cmd"]);
    }
    // One word each: a value may begin with `-`.
    command.args(config.iter().map(|(option, value)| format!("{option}={value}")));
    run_quietly(&mut command).map(drop)
}

/// FNV-1a over all that decides what the images contain; it names a folder and protects nothing.
fn recipe_hash(suite: &str) -> String {
    let decisive = [suite, include_str!("mod.rs"), include_str!("recipe.rs"), LAYER_SCRIPT];
    let hash = decisive.concat().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

//! Kernels that are files, or come in an image: they boot as the packaged one does, or are refused before anything
//! is built.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value, json};
use tests::{Config, Image, Layer, coracle, demo_image, folder, layout};

/// Debian's kernel package, unpacked.
struct Unpacked {
    vmlinuz: PathBuf,
    config: PathBuf,
    /// `lib/modules/RELEASE`
    modules: PathBuf,
    /// What a machine with services loads of it: files below `modules`, in load order.
    loaded: Vec<PathBuf>,
}

/// The machine's own kernel, as the package would give it.
fn debian() -> &'static Unpacked {
    static UNPACKED: OnceLock<Unpacked> = OnceLock::new();
    UNPACKED.get_or_init(unpack)
}

fn unpack() -> Unpacked {
    let place = folder("kernels");
    let config = place.join("packaged.toml");
    fs::write(&config, format!("name = \"packaged\"\n{}", service())).unwrap();
    output(coracle().arg("build").arg(&config).arg("-o").arg(place.join("packaged")));
    let plan = output(coracle().args(["plan", "--json"]).arg(&config));
    let plan: Value = serde_json::from_str(&plan).unwrap();

    let lock = fs::read_to_string(place.join("packaged.lock")).unwrap();
    let table = lock.split("[kernel]").nth(1).unwrap();
    let locked = |key: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.unwrap_or_else(|| panic!("the lock has no `{key}`")).trim_matches('"').to_owned()
    };
    let package = format!("{}={}", locked("resolved"), locked("version"));
    let root = place.join(package.replace(['=', ':'], "_"));
    if !root.join("boot").exists() {
        let download = place.join("download");
        fs::create_dir_all(&download).unwrap();
        let apt = ["-o", "APT::Sandbox::User=root", "download", &package];
        output(Command::new("apt-get").args(apt).current_dir(&download));
        let deb = fs::read_dir(&download).unwrap().next().unwrap().unwrap().path();
        // Under its name only when it is whole.
        let draft = place.join("draft");
        output(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&draft));
        fs::rename(&draft, &root).unwrap();
        fs::remove_dir_all(&download).unwrap();
    }
    let release = locked("resolved").strip_prefix("linux-image-").unwrap().to_owned();
    // Debian 13 has moved it.
    let folders = ["lib/modules", "usr/lib/modules"].map(|folder| root.join(folder).join(&release));
    let modules = folders.into_iter().find(|folder| folder.is_dir()).expect("a kernel package has modules");
    let names = plan["manifest"]["modules"].as_array().unwrap();
    let mut names: Vec<&str> =
        names.iter().map(|name| name.as_str().unwrap().trim_end_matches(".ko")).collect();
    // A kernel of unknown configuration needs it, even one that is known to mount layers without.
    if !names.contains(&"loop") {
        names.push("loop");
    }
    let mut found = Vec::new();
    list(&modules, &mut found);
    let module = |name: &&str| {
        let is_it = |path: &&PathBuf| {
            let file = path.file_name().unwrap().to_str().unwrap();
            file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == **name)
        };
        found.iter().find(is_it).unwrap_or_else(|| panic!("the package has no module `{name}`")).clone()
    };
    Unpacked {
        vmlinuz: root.join(format!("boot/vmlinuz-{release}")),
        config: root.join(format!("boot/config-{release}")),
        loaded: names.iter().map(module).collect(),
        modules,
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), files);
        } else {
            files.push(entry.path());
        }
    }
}

fn service() -> String {
    format!("[service.a]\nimage = \"{}\"\n", demo_image("busybox"))
}

fn output(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// A machine with a kernel of its own boots, and the kernel is the one that was meant.
fn boots(name: &str, kernel: &str, release: &str) {
    let machine = Config::new(name).with(kernel).probe("a", "").boot();
    assert_eq!(machine.probe("a").read("/proc/sys/kernel/osrelease").trim_end(), release);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
}

fn release(kernel: &Unpacked) -> String {
    kernel.modules.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_kernel_of_files_boots() {
    let kernel = debian();
    let (path, modules) = (kernel.vmlinuz.display(), kernel.modules.display());
    let table = format!("[kernel]\npath = \"{path}\"\nmodules = \"{modules}\"\n");
    boots("kernel-files", &table, &release(kernel));
}

/// LinuxKit's layout has no configuration of the kernel: its modules tell what they can.
#[test]
fn a_kernel_of_an_image_in_linuxkits_layout_boots() {
    let kernel = debian();
    let release = release(kernel);
    let mut modules = Layer::new();
    for path in &kernel.loaded {
        let name = path.strip_prefix(kernel.modules.parent().unwrap()).unwrap();
        modules = modules.file(&format!("lib/modules/{}", name.display()), 0o644, &fs::read(path).unwrap());
    }
    let builtin = fs::read(kernel.modules.join("modules.builtin")).unwrap();
    let modules = modules.file(&format!("lib/modules/{release}/modules.builtin"), 0o644, &builtin);
    let layer = Layer::new().file("kernel", 0o644, &fs::read(&kernel.vmlinuz).unwrap()).file(
        "kernel.tar",
        0o644,
        &modules.into_tar(),
    );
    let images = layout("kernel-image", vec![Image { tag: "6.1", layers: vec![layer], config: json!({}) }]);
    boots("kernel-image-boot", &format!("[kernel]\nimage = \"{images}:6.1\"\n"), &release);
}

/// A kernel with these modules and nothing else, and what `check` says of a machine that boots it.
fn refusal(name: &str, with_config: bool, modules: &[&PathBuf]) -> String {
    let place = folder("kernels").join(name);
    if place.exists() {
        fs::remove_dir_all(&place).unwrap();
    }
    fs::create_dir_all(place.join("modules")).unwrap();
    let kernel = debian();
    fs::copy(&kernel.vmlinuz, place.join("bzImage")).unwrap();
    if with_config {
        fs::copy(&kernel.config, place.join("config")).unwrap();
    }
    for path in modules {
        fs::copy(path, place.join("modules").join(path.file_name().unwrap())).unwrap();
    }
    let config = place.join("machine.toml");
    let text =
        format!("name = \"{name}\"\n[kernel]\npath = \"bzImage\"\nmodules = \"modules\"\n{}", service());
    fs::write(&config, text).unwrap();
    let Output { status, stderr, .. } =
        coracle().arg("build").arg(&config).arg("-o").arg(place.join("out")).output().unwrap();
    assert_eq!(status.code(), Some(1), "{name}");
    assert!(!place.join("out").exists(), "{name}: something was written");
    String::from_utf8(stderr).unwrap().replace(place.to_str().unwrap(), "…")
}

#[test]
fn a_kernel_that_lacks_something_is_refused_by_the_options_name() {
    let without = |name: &str| -> Vec<&PathBuf> {
        let ending = format!("/{name}.ko");
        debian().loaded.iter().filter(|path| !path.display().to_string().contains(&ending)).collect()
    };
    assert_eq!(
        refusal("without-overlay", true, &without("overlay")),
        "error: kernel `…/bzImage` lacks CONFIG_OVERLAY_FS and has no module `overlay`, needed to put a container's \
         layers on each other\n\
         hint: take a kernel that has it, such as [kernel] package = \"linux-image-cloud-amd64\"\n"
    );
    // Without its configuration, nobody knows what is built in.
    assert_eq!(
        refusal("without-config", false, &without("erofs")),
        "error: kernel `…/bzImage` has no module `erofs`, needed to mount image layers, and whether CONFIG_EROFS_FS \
         is built in is not known\n\
         hint: put the kernel's configuration beside it as `config`\n"
    );
}

//! Which modules a kernel needs, in which order, and what is said when it lacks one.

use super::*;

/// A kernel of empty modules, each with its dependencies, made up in a folder.
fn kernel(folder: &tempfile::TempDir, modules: &[(&str, &str)], builtin: &[&str], options: &str) -> Kernel {
    let mut files = BTreeMap::new();
    for (name, info) in modules {
        let path = folder.path().join(format!("{name}.ko"));
        std::fs::write(&path, elf(info)).unwrap();
        files.insert(normalise(name), path);
    }
    Kernel {
        label: "kernel `test`".into(),
        image: PathBuf::new(),
        options: (!options.is_empty()).then(|| parse_options(options)),
        modules: files,
        builtin: builtin.iter().map(|name| (*name).to_owned()).collect(),
        ready: None,
    }
}

/// The smallest ELF file with a .modinfo section.
fn elf(modinfo: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let info: Vec<u8> = modinfo.split(';').flat_map(|line| line.bytes().chain([0])).collect();
    let (names_at, info_at) = (64, 64 + names.len());
    let sections_at = (info_at + info.len()).next_multiple_of(8);
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([1_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(1_u32.to_le_bytes());
    elf.extend([0, 0, sections_at as u64].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 0, 0, 64, 3, 2].iter().flat_map(|half| half.to_le_bytes()));
    elf.extend(names);
    elf.extend(&info);
    elf.resize(sections_at, 0);
    let section = |name: u32, kind: u32, at: usize, size: usize| {
        let mut header = [name, kind].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        header.extend([0, 0, at as u64, size as u64].iter().flat_map(|word| word.to_le_bytes()));
        header.resize(64, 0);
        header
    };
    elf.extend(section(0, 0, 0, 0));
    elf.extend(section(1, 1, info_at, info.len()));
    elf.extend(section(10, 3, names_at, names.len()));
    elf
}

/// A tar archive of files, each of at most one block.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, contents) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(contents.len() as u64);
        archive.append_data(&mut header, path, *contents).unwrap();
    }
    archive.into_inner().unwrap()
}

fn order(kernel: &Kernel, names: &[&str]) -> Result<Vec<String>> {
    let mut order = LoadOrder { kernel, done: BTreeSet::new(), path: Vec::new(), modules: Vec::new() };
    names.iter().try_for_each(|name| order.require(name))?;
    Ok(order.modules.into_iter().map(|module| module.file).collect())
}

#[test]
fn modules_are_loaded_after_what_they_depend_on_and_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let modules = [
        ("erofs", "depends=libcrc32c"),
        ("libcrc32c", "depends=;softdep=pre: crc32c"),
        ("crc32c-intel", "alias=crc32c"),
        ("virtio_net", "depends=virtio-ring,virtio"),
        ("virtio_ring", "depends=virtio"),
        ("virtio", "depends="),
    ];
    let kernel = kernel(&folder, &modules, &[], "");
    assert_eq!(
        order(&kernel, &["erofs", "virtio-net", "virtio"]).unwrap(),
        ["crc32c_intel.ko", "libcrc32c.ko", "erofs.ko", "virtio.ko", "virtio_ring.ko", "virtio_net.ko"]
    );
}

#[test]
fn what_is_built_in_is_not_loaded_and_an_absent_soft_dependency_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let modules = [("erofs", "depends=libcrc32c"), ("overlay", "softdep=pre: nothing")];
    let kernel = kernel(&folder, &modules, &["libcrc32c"], "");
    assert_eq!(order(&kernel, &["erofs", "overlay"]).unwrap(), ["erofs.ko", "overlay.ko"]);
}

#[test]
fn missing_and_circular_modules_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = kernel(&folder, &[("a", "depends=b"), ("b", "depends=a"), ("c", "depends=d")], &[], "");
    assert_eq!(
        order(&kernel, &["c"]).unwrap_err().to_string(),
        "kernel `test` has no module `d`, which `c` depends on, and no such driver built in"
    );
    assert_eq!(
        order(&kernel, &["a"]).unwrap_err().to_string(),
        "modules depend on each other in a circle: a, b"
    );
}

/// What a machine without services needs beside what every machine does.
const NOTHING: Needs = Needs {
    overlay: false,
    user_namespaces: false,
    network_namespaces: false,
    seccomp: false,
    processor_time: false,
    processor_sets: false,
    disk_shares: false,
    vsock: false,
    watchdog: false,
};

/// All that a machine can need.
const EVERYTHING: Needs = Needs {
    overlay: true,
    user_namespaces: true,
    network_namespaces: true,
    seccomp: true,
    processor_time: true,
    processor_sets: true,
    disk_shares: true,
    vsock: true,
    watchdog: true,
};

/// Every option that a machine needs, as a kernel with everything built in has them.
fn all_options() -> String {
    let mut text = String::new();
    for option in requirement::options() {
        text += &format!("{option}=y\n");
    }
    text
}

#[test]
fn a_kernel_that_lacks_an_option_is_refused_by_the_options_name() {
    let folder = tempfile::tempdir().unwrap();
    let needs = EVERYTHING;
    let whole = kernel(&folder, &[], &[], &all_options());
    assert_eq!(whole.modules(needs, &[]).unwrap(), []);
    for option in requirement::options() {
        let without = all_options().replace(&format!("{option}=y\n"), "");
        let error = kernel(&folder, &[], &[], &without).modules(needs, &[]);
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with(&format!("kernel `test` lacks {option}")), "{message}");
    }
}

#[test]
fn processors_are_asked_of_the_kernel_only_where_they_are_divided() {
    let folder = tempfile::tempdir().unwrap();
    for option in ["CONFIG_CFS_BANDWIDTH", "CONFIG_CPUSETS"] {
        let without = all_options().replace(&format!("{option}=y\n"), "");
        assert!(kernel(&folder, &[], &[], &without).modules(NOTHING, &[]).is_ok(), "{option}");
    }
}

#[test]
fn every_watchdog_that_the_kernel_has_is_loaded_the_kernels_own_last() {
    let folder = tempfile::tempdir().unwrap();
    let modules = [
        ("softdog", "depends=watchdog"),
        ("watchdog", "depends="),
        ("iTCO_wdt", "depends=watchdog"),
        ("lpc_ich", "depends="),
        ("w83627hf_wdt", "depends=watchdog"),
    ];
    let needs = Needs { watchdog: true, ..NOTHING };
    let with = kernel(&folder, &modules, &[], &all_options());
    let loaded = |kernel: &Kernel, needs| {
        let modules = kernel.modules(needs, &[]).unwrap();
        modules.into_iter().map(|module| module.file).collect::<Vec<_>>()
    };
    assert_eq!(loaded(&with, needs), ["lpc_ich.ko", "watchdog.ko", "iTCO_wdt.ko", "softdog.ko"]);
    assert_eq!(loaded(&with, NOTHING), [""; 0]);
    assert_eq!(with.watchdogs(), ["iTCO_wdt", "softdog"]);
    let built_in = kernel(&folder, &[], &[], &(all_options() + "CONFIG_SOFT_WATCHDOG=y\n"));
    assert_eq!((loaded(&built_in, needs), built_in.watchdogs()), (vec![], vec!["softdog"]));
    let without = kernel(&folder, &[], &[], &all_options());
    assert_eq!((loaded(&without, needs), without.watchdogs()), (vec![], vec![]));
}

#[test]
fn an_option_that_is_a_module_loads_it_and_a_module_without_its_file_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let options = all_options().replace("CONFIG_EROFS_FS=y", "CONFIG_EROFS_FS=m");
    let with = kernel(&folder, &[("erofs", "depends=")], &[], &options);
    let modules = with.modules(NOTHING, &[]).unwrap();
    assert_eq!(modules.iter().map(|module| module.file.as_str()).collect::<Vec<_>>(), ["erofs.ko"]);
    let without = kernel(&folder, &[], &[], &options);
    let message = without.modules(NOTHING, &[]).unwrap_err().to_string();
    assert_eq!(
        message,
        "kernel `test` lacks CONFIG_EROFS_FS and has no module `erofs`, needed to mount image layers"
    );
}

#[test]
fn a_loop_device_is_needed_only_where_erofs_cannot_mount_files() {
    let folder = tempfile::tempdir().unwrap();
    let options = all_options().replace("CONFIG_BLK_DEV_LOOP=y\n", "");
    let needs = NOTHING;
    assert!(kernel(&folder, &[], &[], &options).modules(needs, &[]).is_err());
    let options = options + "CONFIG_EROFS_FS_BACKED_BY_FILE=y\n";
    assert!(kernel(&folder, &[], &[], &options).modules(needs, &[]).is_ok());
}

#[test]
fn a_kernel_that_cannot_map_layers_is_refused_where_services_have_users_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let needs = EVERYTHING;
    let of_release = |release: &str| {
        let options = format!("# Linux/x86 {release} Kernel Configuration\n{}", all_options());
        kernel(&folder, &[], &[], &options)
    };
    let error = of_release("5.10.99").modules(needs, &[]).unwrap_err();
    assert!(
        error.to_string().starts_with("kernel `test` is Linux 5.10, which cannot give layers to"),
        "{error}"
    );
    assert!(of_release("5.10.99").modules(Needs { user_namespaces: false, ..needs }, &[]).is_ok());
    for release in ["5.19.0", "6.1.192"] {
        assert!(of_release(release).modules(needs, &[]).is_ok(), "{release}");
    }
}

#[test]
fn what_is_not_known_of_a_kernel_is_not_called_missing() {
    let folder = tempfile::tempdir().unwrap();
    let unknown = kernel(&folder, &[], &["erofs"], "");
    let error = unknown.modules(Needs { overlay: true, ..NOTHING }, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kernel `test` has no module `virtio_pci`, needed for the devices of a virtual machine, and whether \
         CONFIG_VIRTIO_PCI is built in is not known"
    );
    assert_eq!(error.advice(), Some("put the kernel's configuration beside it as `config`"));
}

#[test]
fn modules_are_found_in_any_order_of_the_folder_with_updates_first() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["z/kernel/a.ko", "kernel/a.ko.xz", "updates/b.ko.zst", "kernel/b.ko", "kernel/c-d.ko.gz"] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    std::fs::write(folder.path().join("modules.order"), "").unwrap();
    let found = find_modules(folder.path()).unwrap();
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(name, path)| (name.as_str(), path.strip_prefix(folder.path()).unwrap().to_str().unwrap()))
        .collect();
    assert_eq!(found, [("a", "kernel/a.ko.xz"), ("b", "updates/b.ko.zst"), ("c_d", "kernel/c-d.ko.gz")]);
}

#[test]
fn layers_are_compressed_where_the_kernel_reads_it() {
    use crate::artifact::erofs::{Codec, Compression};
    use crate::config::{Compress, Layers};

    let folder = tempfile::tempdir().unwrap();
    let asked = |compression| Layers { compression, ..Layers::default() };
    let lz4 = Some(Compression::usual(Codec::Lz4));
    for (options, by_default, lz4_asked) in [
        ("# Linux/x86 6.1.192 Kernel Configuration\nCONFIG_EROFS_FS_ZIP=y\n", Some(lz4), Some(lz4)),
        ("# Linux/x86_64 5.17.0-rc1 Kernel Configuration\nCONFIG_EROFS_FS_ZIP=y\n", Some(lz4), Some(lz4)),
        ("# Linux/x86 5.10.0 Kernel Configuration\nCONFIG_EROFS_FS_ZIP=y\n", Some(None), None),
        ("# Linux/x86 6.1.192 Kernel Configuration\nCONFIG_EROFS_FS=m\n", Some(None), None),
        // Its age is not known.
        ("CONFIG_EROFS_FS_ZIP=y\n", Some(None), Some(lz4)),
        // A kernel whose configuration is not known gets what every kernel reads, or what its user vouches for.
        ("", Some(None), Some(lz4)),
    ] {
        let kernel = kernel(&folder, &[], &[], options);
        assert_eq!(kernel.compression(&asked(None)).ok(), by_default, "{options}");
        assert_eq!(kernel.compression(&asked(Some(Compress::Lz4))).ok(), lz4_asked, "{options}");
        assert_eq!(kernel.compression(&asked(Some(Compress::None))).unwrap(), None);
    }
    let without = kernel(&folder, &[], &[], "CONFIG_EROFS_FS=m\n");
    let said = without.compression(&asked(Some(Compress::Lz4))).unwrap_err().to_string();
    assert_eq!(said, "kernel `test` lacks CONFIG_EROFS_FS_ZIP, needed to read layers compressed by lz4");
    let old = kernel(&folder, &[], &[], "# Linux/x86 5.10.0 Kernel Configuration\nCONFIG_EROFS_FS_ZIP=y\n");
    let said = old.compression(&asked(Some(Compress::Lz4))).unwrap_err().to_string();
    assert_eq!(said, "kernel `test` is older than Linux 5.17, needed to read layers compressed by lz4");
    let zstd = "# Linux/x86 6.12.1 Kernel Configuration\nCONFIG_EROFS_FS_ZIP=y\n";
    let asked_zstd =
        |options: &str| kernel(&folder, &[], &[], options).compression(&asked(Some(Compress::Zstd)));
    let said = asked_zstd(zstd).unwrap_err().to_string();
    assert_eq!(
        said,
        "kernel `test` lacks CONFIG_EROFS_FS_ZIP_ZSTD, needed to read layers compressed by zstd"
    );
    let found = asked_zstd(&format!("{zstd}CONFIG_EROFS_FS_ZIP_ZSTD=y\n")).unwrap();
    assert_eq!(found, Some(Compression::usual(Codec::Zstd)));
    let with = kernel(&folder, &[], &[], "# Linux/x86 6.12.1 Kernel Configuration\nCONFIG_EROFS_FS_ZIP=y\n");
    let keys = Layers { level: Some(12), cluster: Some(4096), ..asked(None) };
    assert_eq!(with.compression(&keys).unwrap().unwrap().to_string(), "lz4, level 12, clusters of 4 KiB");
}

#[test]
fn no_module_makes_its_reader_panic() {
    let seeds = ["depends=a,b\0name=c\0", "softdep=pre: a b post: c\0alias=fs-x\0", ""].map(elf);
    crate::mutation::feed("modinfo", &seeds);
}

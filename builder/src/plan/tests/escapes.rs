//! Images that have led out of containers of other runtimes: each is refused, or means nothing.

use super::sample::{Item, Sample, base, defaults, layer, words};
use crate::oci::image::Process;

/// The machine's only service, as it is refused: its keys, its image's defaults, and what it has beside the base.
fn refused(keys: &str, process: Process, items: &[(&str, Item)]) -> String {
    Sample::of_service(keys, process, vec![base(), layer(items)]).refused()
}

#[test]
fn no_process_begins_in_what_its_runtime_has_open() {
    for number in 3..=20 {
        for folder in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/../../.."),
            format!("//proc//self/./fd/{number}"),
            format!("/link/{number}"),
        ] {
            let links = [("/link", Item::Link("/proc/self/fd"))];
            let process = Process { working_dir: folder.clone(), ..defaults() };
            let said = refused("", process, &links);
            assert!(said.starts_with("error: service.a (image `oci:a`): "), "{folder}: {said}");
        }
    }
}

#[test]
fn no_program_is_one_that_the_kernel_makes_up() {
    for program in [
        "/proc/self/exe",
        "/proc/1/exe",
        "/proc/self/fd/5",
        "/dev/fd/3",
        "/dev/shm/x",
        "/sys/../proc/self/exe",
    ] {
        let said = refused("", Process { entrypoint: words(&[program]), ..defaults() }, &[]);
        assert!(said.contains("which the kernel fills"), "{program}: {said}");
    }
}

/// What is mounted over in every container can be in an image as anything: nobody sees it.
#[test]
fn what_an_image_has_below_dev_proc_and_sys_means_nothing() {
    let odd = [
        ("/dev", Item::Folder(0o755, 0)),
        ("/dev/console", Item::Link("/etc/passwd")),
        ("/dev/null", Item::Link("/etc/passwd")),
        ("/dev/pts", Item::Link("/etc")),
        ("/proc", Item::Folder(0o555, 0)),
        ("/proc/kcore", Item::Link("/etc/passwd")),
        ("/proc/sys", Item::Link("/etc")),
        ("/sys", Item::Folder(0o555, 0)),
        ("/sys/firmware", Item::Link("/etc")),
    ];
    let with = Sample::of_service("", defaults(), vec![base(), layer(&odd)]).planned();
    let without = Sample::of_service("", defaults(), vec![base()]).planned();
    let container = |plan: &super::ImagePlan| plan.manifest.services[0].container.clone();
    let layers = container(&without).layers;
    assert_eq!(super::Container { layers, ..container(&with) }, container(&without));
}

/// Folders that containers' mounts stand in can be links, as `/var/run` often is: they are followed inside the image.
#[test]
fn a_link_in_the_place_of_a_folder_leads_nowhere_but_into_the_image() {
    for (name, target, expected) in [
        ("/run", "/srv", "/srv/app"),
        ("/run", "../../../../srv", "/srv/app"),
        ("/tmp", "srv/../../../srv/.", "/srv/app"),
    ] {
        let keys = format!("tmpfs = [\"{name}/app\"]");
        let link = [(name, Item::Link(target))];
        let plan = Sample::of_service(&keys, defaults(), vec![layer(&link), top_without_run()]).planned();
        let super::Mount::Tmpfs { target, .. } = &plan.manifest.services[0].container.mounts[0] else {
            panic!("no tmpfs")
        };
        assert_eq!(target, expected, "{name} to {target}");
    }
    for (name, target) in [
        ("/etc", "/proc"),
        ("/etc", "/nowhere"),
        ("/etc", "/etc"),
        ("/run", "/dev/shm"),
        ("/run", "/proc/self/cwd"),
        ("/tmp", "../../../sys/fs/cgroup"),
    ] {
        let keys = format!("volumes = [\"/srv:{name}/app\"]");
        let link = [(name, Item::Link(target))];
        let said = Sample::of_service(&keys, defaults(), vec![layer(&link), top_without_run()]).refused();
        assert!(said.contains(&format!("`{name}")), "{name} to {target}: {said}");
    }
}

/// Another image's upper half, which leaves links below it as they are.
fn top_without_run() -> Vec<u8> {
    layer(&[("/app", Item::Program), ("/srv", Item::Folder(0o755, 0))])
}

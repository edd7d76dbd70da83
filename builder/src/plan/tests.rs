//! What is planned for a machine, as text, as JSON and as claims.

mod escapes;
mod profile;
mod sample;
mod supervision;
mod users;

use manifest::{Container, Mount};

use super::*;
use crate::artifact::erofs::{self, Kind};
use crate::oci::image::Process;
use sample::{Item, Sample, base, defaults, file, image, layer, words};

/// The container of the machine's only service.
fn container(keys: &str, defaults: Process, layers: Vec<Vec<u8>>) -> Container {
    let mut services = Sample::of_service(keys, defaults, layers).planned().manifest.services;
    assert_eq!(services.len(), 1);
    services.remove(0).container
}

/// The layer that the builder made for the first service.
fn own_layer(plan: &ImagePlan) -> erofs::Image {
    let index = plan.manifest.services[0].container.layers[0];
    let path = format!("{}/{}.erofs", manifest::path::LAYERS, plan.manifest.layers[index]);
    let entry = plan.initramfs.iter().find(|entry| entry.path == path).unwrap();
    let Content::Bytes(bytes) = &entry.content else { panic!("{path} is no layer of the plan's own") };
    erofs::Image::from_bytes(bytes.clone()).unwrap()
}

/// A machine that has something of everything.
fn shop() -> Sample {
    let upper = || layer(&[("/app", Item::Program)]);
    let web = Process { user: "web".into(), working_dir: "/srv".into(), ..defaults() };
    let database = Process {
        stop_signal: "SIGINT".into(),
        volumes: [("/data".to_owned(), serde_json::Value::Null)].into(),
        ..defaults()
    };
    let config = r#"
name = "shop"
[kernel]
cmdline = "loglevel=7"
[oneshot.migrate]
image = "oci:database"
command = ["migrate"]
[service.web]
image = "oci:web"
ports = ["8080:80"]
environment = { LANG = "en" }
tmpfs = ["/var/run:size=1MiB,mode=0755"]
volumes = ["/srv/static:/static:ro", "/etc/web.toml:/etc/web.toml"]
devices = ["/dev/kvm"]
hostname = "front"
memory = "96MiB"
memory-reservation = "8MiB"
pids-limit = 64
cpus = 1.5
cpuset = "0-1,3"
oom-score-adj = -100
ulimits = { rtprio = 10, nofile = { soft = 1024, hard = 2048 } }
[service.database]
image = "oci:database"
read-only = true
stop-grace-period = "1m30s"
restart = "on-failure"
[[file]]
path = "/etc/web.toml"
contents = "port = 80\n"
[[file]]
path = "/srv/static/logo"
source = "logo"
mode = 0o444
uid = 33
"#;
    let images =
        vec![image("oci:web", web, vec![base(), upper()]), image("oci:database", database, vec![base()])];
    let sources = vec![file("/shop/logo", 4_321)];
    Sample { sources, ..Sample::new(config, images) }
}

#[test]
fn a_plan_reads_as_text() {
    insta::assert_snapshot!(shop().planned());
}

#[test]
fn a_plan_is_json_for_programs() {
    insta::assert_snapshot!(shop().planned().json());
}

#[test]
fn a_plan_names_what_gives_privileges_elsewhere() {
    let mut sample = shop();
    assert!(!sample.planned().to_string().contains("without effect"));
    let set_id = &mut sample.images[0].image.special.set_id;
    (set_id.count, set_id.first) = (21, vec!["/bin/su".to_owned()]);
    let text = sample.planned().to_string();
    let last = "\nwithout effect\n  oci:web: 21 set-id programs: /bin/su, …\n";
    assert!(text.ends_with(last), "{text}");
    assert_eq!(sample.planned().value()["special"]["oci:web"]["set_id"]["count"], 21);
}

#[test]
fn the_same_inputs_give_the_same_plan() {
    assert_eq!(shop().planned(), shop().planned());
    assert_eq!(shop().planned().json(), shop().planned().json());
}

#[test]
fn a_plan_depends_on_each_of_its_inputs() {
    let plain = shop().planned().json();
    let depends = |what: &str, change: &dyn Fn(&mut Sample)| {
        let mut sample = shop();
        change(&mut sample);
        assert_ne!(sample.planned().json(), plain, "the plan does not depend on {what}");
    };
    for (from, to) in [
        ("name = \"shop\"", "name = \"stop\""),
        ("loglevel=7", "loglevel=8"),
        ("[\"migrate\"]", "[\"migrate\", \"\"]"),
        ("[oneshot.migrate]\n", "[oneshot.migrate]\non-failure = \"ignore\"\n"),
        ("8080:80", "8081:80"),
        ("LANG = \"en\"", "LANG = \"de\""),
        ("size=1MiB", "size=2MiB"),
        ("mode=0755", "mode=0750"),
        ("/static:ro", "/static"),
        ("/dev/kvm", "/dev/fuse"),
        ("\"front\"", "\"back\""),
        ("read-only = true", "read-only = false"),
        ("1m30s", "1m31s"),
        ("on-failure\"", "never\""),
        ("port = 80", "port = 81"),
        ("mode = 0o444", "mode = 0o440"),
        ("uid = 33", "gid = 33"),
        ("[service.database]\n", "[service.database]\nuser = 7\n"),
        ("[service.database]\n", "[service.database]\nseccomp = \"unconfined\"\n"),
        ("[service.database]\n", "[service.database]\nworking-dir = \"/run\"\n"),
        ("[service.database]\n", "[service.database]\nentrypoint = [\"tool\"]\n"),
        ("[service.database]\n", "[service.database]\nstop-signal = \"SIGTERM\"\n"),
    ] {
        depends(to, &|sample| {
            assert!(sample.config.contains(from), "{from} is not in the config");
            sample.config = sample.config.replace(from, to);
        });
    }
    depends("the kernel's name", &|sample| sample.kernel.0.push('2'));
    depends("the kernel's file", &|sample| sample.kernel.1 = file("/kernel/other", 7_000_000));
    depends("the kernel's time", &|sample| sample.kernel.1.modified += 1);
    depends("a module", &|sample| sample.modules[0].bytes.push(0));
    depends("the list of modules", &|sample| sample.modules.clear());
    depends("init", &|sample| sample.init.size += 1);
    depends("init's time", &|sample| sample.init.modified += 1);
    depends("a file", &|sample| sample.sources[0].modified += 1);
    depends("a layer", &|sample| sample.images[1].image.layers[0].digest.replace_range(..1, "x"));
    depends("a layer's file", &|sample| sample.images[1].image.layers[0].file.size += 1);
    depends("an image's configuration", &|sample| sample.images[1].image.defaults.env.clear());
}

#[test]
fn layers_of_a_shared_base_are_stored_once() {
    let plan = shop().planned();
    let stored = plan.initramfs.iter().filter(|entry| entry.path.ends_with(".erofs")).count();
    // The base, the layer of the web image, and the mount points of three services that need different ones.
    assert_eq!((stored, plan.manifest.layers.len()), (4, 4));
    let base = Digest::of(&base()).hex();
    let users: Vec<&String> = plan.layer_users[&base].iter().collect();
    assert_eq!(users, ["oci:database", "oci:web"]);
    let lowest = |name: &str| {
        let service = plan.manifest.services.iter().find(|service| service.name.as_str() == name).unwrap();
        plan.manifest.layers[*service.container.layers.last().unwrap()].clone()
    };
    assert_eq!([lowest("migrate"), lowest("web"), lowest("database")], [base.clone(), base.clone(), base]);
}

/// overlayfs refuses a stack that has a layer twice, with ELOOP.
#[test]
fn a_layer_that_an_image_has_twice_is_mounted_once_where_it_is_uppermost() {
    let twice = layer(&[("/one", Item::File("1"))]);
    let between = layer(&[("/one", Item::File("2"))]);
    let layers = vec![base(), twice.clone(), between.clone(), twice.clone()];
    let plan = Sample::of_service("", defaults(), layers).planned();
    let stack: Vec<&String> = plan.manifest.services[0]
        .container
        .layers
        .iter()
        .map(|layer| &plan.manifest.layers[*layer])
        .collect();
    assert_eq!(stack, [&twice, &between, &base()].map(|layer| Digest::of(layer).hex()).each_ref());
}

#[test]
fn services_with_the_same_needs_share_one_layer_of_mount_points() {
    let service = |name: &str, target: &str| {
        format!("[service.{name}]\nimage = \"oci:{name}\"\ntmpfs = [\"{target}\"]\n")
    };
    let config = ["name = \"m\"\n", &service("a", "/x"), &service("b", "/x"), &service("c", "/y")].concat();
    let images = ["oci:a", "oci:b", "oci:c"].map(|reference| image(reference, defaults(), vec![base()]));
    let plan = Sample::new(&config, images.into()).planned();
    let own: Vec<usize> = plan.manifest.services.iter().map(|service| service.container.layers[0]).collect();
    assert_eq!(own[0], own[1]);
    assert_ne!(own[0], own[2]);
    assert_eq!(plan.manifest.layers.len(), 3, "two of mount points, and the base");
}

#[test]
fn an_image_that_has_all_it_needs_gets_no_further_layer() {
    assert_eq!(container("", defaults(), vec![base()]).layers, [0]);
    assert_eq!(container("tmpfs = [\"/run\"]", defaults(), vec![base()]).layers, [0]);
}

#[test]
fn an_empty_image_gets_every_mount_point() {
    let plan = Sample::of_service(
        "working-dir = \"/job/here\"",
        defaults(),
        vec![layer(&[("/app", Item::Program)])],
    )
    .planned();
    let own = own_layer(&plan);
    for folder in ["/dev", "/proc", "/sys", "/etc", "/job", "/job/here"] {
        assert_eq!(own.find(folder.as_bytes()).unwrap().unwrap().kind, Kind::Directory, "{folder}");
    }
    for empty in ["/etc/hosts", "/etc/resolv.conf"] {
        assert!(matches!(own.find(empty.as_bytes()).unwrap().unwrap().kind, Kind::File { .. }), "{empty}");
    }
}

#[test]
fn folders_above_a_mount_point_keep_their_owner_and_mode() {
    let plan = Sample::of_service("tmpfs = [\"/srv/new/deep\"]", defaults(), vec![base()]).planned();
    let own = own_layer(&plan);
    for (path, mode, uid) in [("/", 0o755, 0), ("/srv", 0o750, 33), ("/srv/new", 0o755, 0)] {
        let metadata = own.find(path.as_bytes()).unwrap().unwrap().metadata;
        assert_eq!((metadata.mode, metadata.uid), (mode, uid), "{path}");
    }
}

#[test]
fn a_volume_of_a_file_gets_a_file_to_be_mounted_on() {
    let keys =
        "volumes = [\"/srv/a:/new/a\", \"/srv/b:/new/b\"]\n[[file]]\npath = \"/srv/a\"\ncontents = \"\"";
    let own = own_layer(&Sample::of_service(keys, defaults(), vec![base()]).planned());
    assert!(matches!(own.find(b"/new/a").unwrap().unwrap().kind, Kind::File { size: 0 }));
    assert_eq!(own.find(b"/new/b").unwrap().unwrap().kind, Kind::Directory);
}

#[test]
fn links_of_the_image_are_followed_on_the_way_to_a_mount_point() {
    let container =
        container("tmpfs = [\"/var/run/app\"]\nworking-dir = \"/var/run\"", defaults(), vec![base()]);
    let (size, mode, read_only, no_exec) = (0, 0o1777, false, false);
    assert_eq!(
        container.mounts,
        [Mount::Tmpfs { target: "/run/app".into(), size, mode, read_only, no_exec }]
    );
    assert_eq!(container.cwd, "/run");
}

/// Each config or image, and what is said of it.
#[test]
fn what_cannot_be_a_containers_root_is_refused_with_its_reason() {
    let odd = || {
        layer(&[
            ("/etc", Item::Folder(0o755, 0)),
            ("/etc/loop", Item::Link("/etc/loop")),
            ("/etc/nowhere", Item::Link("/missing")),
            ("/fifo", Item::Fifo),
            ("/file", Item::File("")),
            ("/to-proc", Item::Link("/proc")),
        ])
    };
    let mut said = String::new();
    for keys in [
        "working-dir = \"/proc/self/fd/7\"",
        "working-dir = \"/dev\"",
        "working-dir = \"/to-proc/1\"",
        "working-dir = \"/file\"",
        "working-dir = \"/file/below\"",
        "working-dir = \"/etc/nowhere\"",
        "working-dir = \"/etc/loop\"",
        "working-dir = \"/run/inside\"\ntmpfs = [\"/run\"]",
        "tmpfs = [\"/to-proc/self\"]",
        "tmpfs = [\"/fifo\"]",
        "tmpfs = [\"/file\"]",
        "tmpfs = [\"/srv\"]\nvolumes = [\"/a:/srv/inside\"]",
        "tmpfs = [\"/run\"]\nvolumes = [\"/a:/var/run/inside\"]",
        "tmpfs = [\"/run\"]\nvolumes = [\"/a:/var/run\"]",
        "tmpfs = [\"/etc\"]",
        "volumes = [\"/a:/etc/resolv.conf\"]",
        "user = \"nobody\"",
        "user = \"web:nobody\"",
        "user = 2147483648",
        "entrypoint = []",
        "entrypoint = [\"\"]",
        "entrypoint = [\"/proc/self/exe\"]",
        "entrypoint = [\"../dev/shm/x\"]",
        "entrypoint = [\"/missing\"]",
        "entrypoint = [\"missing\"]",
        "entrypoint = [\"sh -c 'tool'\"]",
        "entrypoint = [\"/file\"]",
        "entrypoint = [\"/srv\"]",
        "entrypoint = [\"tool\"]\nenvironment = { PATH = \"/a:/b\" }",
    ] {
        let sample = Sample::of_service(keys, defaults(), vec![base(), odd()]);
        said += &format!("{keys}\n{}\n\n", sample.refused());
    }
    for (keys, process) in [
        ("working-dir = app", Process { working_dir: "app".into(), ..defaults() }),
        ("stop-signal = SIGFOO", Process { stop_signal: "SIGFOO".into(), ..defaults() }),
        ("env = NOVALUE", Process { env: words(&["NOVALUE"]), ..defaults() }),
        ("no command", Process { entrypoint: vec![], cmd: vec![], ..defaults() }),
        ("user = app", Process { user: "app".into(), ..defaults() }),
        ("entrypoint = /sys/x", Process { entrypoint: words(&["/sys/x"]), ..defaults() }),
    ] {
        said += &format!("image: {keys}\n{}\n\n", Sample::of_service("", process, vec![base()]).refused());
    }
    insta::assert_snapshot!(said);
}

#[test]
fn the_folders_that_the_kernel_fills_must_be_folders_of_the_image() {
    for top in ["/dev", "/proc", "/sys"] {
        for target in ["/etc", "/missing", ".."] {
            let images = vec![layer(&[
                ("/app", Item::Program),
                ("/etc", Item::Folder(0o755, 0)),
                (top, Item::Link(target)),
            ])];
            let said = Sample::of_service("", defaults(), images).refused();
            assert!(said.starts_with("error: service.a (image `oci:a`): `") && said.contains(top), "{said}");
        }
        let said = Sample::of_service(
            "",
            defaults(),
            vec![layer(&[("/app", Item::Program), (top, Item::File(""))])],
        )
        .refused();
        assert!(said.contains(&format!("`{top}` is a file in the image, and must be a folder")), "{said}");
    }
}

#[test]
fn the_problems_of_all_services_are_reported_at_once() {
    let service = |name: &str, key: &str| format!("[service.{name}]\nimage = \"oci:{name}\"\n{key}\n");
    let config = [
        "name = \"m\"\n",
        // One is found when the image is looked at, the other when the config is merged with it.
        &service("a", "working-dir = \"/etc/hosts\""),
        &service("b", "user = \"nobody\""),
        &service("c", ""),
    ];
    let images = ["oci:a", "oci:b", "oci:c"].map(|reference| image(reference, defaults(), vec![base()]));
    let said = Sample::new(&config.concat(), images.into()).refused();
    insta::assert_snapshot!(said, @r#"
    error: service.a (image `oci:a`): `/etc/hosts` is a file in the image, and must be a folder
    error: service.b (image `oci:b`): no user is called `nobody` in the image's /etc/passwd
    hint: `user` takes names of the image, and numbers such as "1000:1000"
    "#);
}

#[test]
fn program_and_arguments_are_merged_as_docker_does() {
    for (keys, entrypoint, cmd, expected) in [
        ("", &["/app"][..], &["serve"][..], &["/app", "serve"][..]),
        ("", &[], &["serve"], &["serve"]),
        ("", &["/app"], &[], &["/app"]),
        ("command = [\"x\"]", &["/app"], &["serve"], &["/app", "x"]),
        ("command = [\"tool\"]", &[], &["serve"], &["tool"]),
        ("command = []", &["/app"], &["serve"], &["/app"]),
        ("entrypoint = [\"/bin/tool\"]", &["/app"], &["serve"], &["/bin/tool"]),
        ("entrypoint = [\"/bin/tool\"]\ncommand = [\"x\"]", &["/app"], &["serve"], &["/bin/tool", "x"]),
        ("entrypoint = []\ncommand = [\"tool\"]", &["/app"], &["serve"], &["tool"]),
    ] {
        let process = Process { entrypoint: words(entrypoint), cmd: words(cmd), ..defaults() };
        let argv = container(keys, process, vec![base()]).argv;
        assert_eq!(argv, expected, "{keys:?} on {entrypoint:?} {cmd:?}");
    }
}

#[test]
fn a_program_may_stand_on_a_mount_or_behind_a_link_that_leads_there() {
    let link = || layer(&[("/linked", Item::Link("/data/app"))]);
    for keys in [
        "entrypoint = [\"/bin/tool\"]",
        "entrypoint = [\"bin/../bin/tool\"]",
        "entrypoint = [\"../app\"]\nworking-dir = \"/srv\"",
        "entrypoint = [\"/data/app\"]\nvolumes = [\"/srv/data:/data\"]",
        "entrypoint = [\"/linked\"]\nvolumes = [\"/srv/data:/data\"]",
        "entrypoint = [\"x\"]\nenvironment = { PATH = \"/missing:/opt/bin\" }\nvolumes = [\"/srv/opt:/opt\"]",
    ] {
        container(keys, defaults(), vec![base(), link()]);
    }
}

#[test]
fn the_environment_is_the_images_with_the_configs_over_it_and_dockers_defaults() {
    let image = words(&["PATH=/bin", "A=1", "B=", "A=2", "C=x=y"]);
    for (keys, user, env, expected) in [
        ("", "", image.clone(), &["PATH=/bin", "A=2", "B=", "C=x=y", "HOME=/root", "HOSTNAME=a"][..]),
        (
            "environment = { B = 7, D = \"\", HOME = \"/h\", A = true }\nhostname = \"h\"",
            "web",
            image,
            &["PATH=/bin", "A=true", "B=7", "C=x=y", "D=", "HOME=/h", "HOSTNAME=h"],
        ),
        (
            "",
            "web",
            vec![],
            &["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/srv", "HOSTNAME=a"],
        ),
    ] {
        let process = Process { env, user: user.into(), ..defaults() };
        assert_eq!(container(keys, process, vec![base()]).env, expected, "{keys}");
    }
}

#[test]
fn a_declared_volume_of_a_read_only_root_is_writable_unless_the_config_mounts_there() {
    let process = || Process {
        volumes: [
            ("/data".to_owned(), serde_json::json!({})),
            ("/var/run".to_owned(), serde_json::json!({})),
        ]
        .into(),
        ..defaults()
    };
    let targets = |keys: &str| {
        let mounts = container(keys, process(), vec![base()]).mounts;
        mounts.iter().map(|mount| format!("{mount:?}")).collect::<Vec<_>>().join("\n")
    };
    let access = "read_only: false, no_exec: false";
    let tmpfs = |target: &str| format!("Tmpfs {{ target: \"{target}\", size: 0, mode: 1023, {access} }}");
    assert_eq!(targets(""), "");
    assert_eq!(targets("read-only = true"), format!("{}\n{}", tmpfs("/data"), tmpfs("/run")));
    let own = "read-only = true\ntmpfs = [\"/data:size=1MiB,mode=0700\"]";
    let expected = format!("Tmpfs {{ target: \"/data\", size: 1048576, mode: 448, {access} }}");
    assert_eq!(targets(own), format!("{expected}\n{}", tmpfs("/run")));
    // The same place by another name.
    let linked = "read-only = true\nvolumes = [\"/srv/x:/run\"]";
    let bind = "Bind { source: \"/srv/x\", target: \"/run\", read_only: false, no_exec: false }";
    assert_eq!(targets(linked), format!("{}\n{bind}", tmpfs("/data")));
}

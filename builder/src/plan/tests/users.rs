//! Whose users the services of a plan have, and who owns the files that they see.

use manifest::Ids;

use super::super::{Entry, ImagePlan};
use super::sample::{Item, Sample, base, defaults, image, layer};
use crate::oci::image::Process;

const FIRST: u32 = 1 << 20;
const SECOND: u32 = FIRST + 65_536;

fn planned(config: &str) -> ImagePlan {
    let images = vec![image("oci:a", defaults(), vec![base()])];
    Sample::new(&format!("name = \"m\"\n{config}"), images).planned()
}

fn ids(plan: &ImagePlan) -> Vec<Ids> {
    plan.manifest.services.iter().map(|service| service.container.ids).collect()
}

fn entry<'a>(plan: &'a ImagePlan, path: &str) -> &'a Entry {
    plan.initramfs.iter().find(|entry| entry.path == path).unwrap()
}

#[test]
fn each_service_has_ids_of_its_own_unless_the_config_says_otherwise() {
    let plan = planned(
        "[service.a]\nimage = \"oci:a\"\n[service.b]\nimage = \"oci:a\"\nuserns = \"host\"\n\
         [service.c]\nimage = \"oci:a\"\nuserns = \"private\"\n",
    );
    assert_eq!(ids(&plan), [Ids::Own { first: FIRST }, Ids::Machine, Ids::Own { first: SECOND }]);
    let text = plan.to_string();
    assert!(text.contains("  users    1048576 to 1114111 of the machine\n"), "{text}");
    assert!(text.contains("  users    the machine's own\n"), "{text}");
    let loosened = "service.b.userns: its users are the machine's, its root the machine's root";
    let found: Vec<&str> = text.lines().filter(|line| line.contains(".userns")).map(str::trim).collect();
    assert_eq!(found, [loosened]);
}

#[test]
fn a_file_belongs_to_those_who_alone_see_it() {
    let plan = planned(
        "[service.a]\nimage = \"oci:a\"\nvolumes = [\"/srv/a:/x:ro\", \"/srv/both:/y:ro\"]\n\
         [service.b]\nimage = \"oci:a\"\nvolumes = [\"/srv/both/file:/z:ro\"]\n\
         [[file]]\npath = \"/srv/a/file\"\ncontents = \"\"\nuid = 5\ngid = 70000\n\
         [[file]]\npath = \"/srv/both/file\"\ncontents = \"\"\nuid = 5\n\
         [[file]]\npath = \"/srv/nobody\"\ncontents = \"\"\nuid = 5\n",
    );
    for (path, expected) in [
        ("/srv", (0, 0)),
        ("/srv/a", (FIRST, FIRST)),
        ("/srv/a/file", (FIRST + 5, 70_000)),
        ("/srv/both", (FIRST, FIRST)),
        ("/srv/both/file", (5, 0)),
        ("/srv/nobody", (5, 0)),
        ("/init", (0, 0)),
    ] {
        let entry = entry(&plan, path);
        assert_eq!((entry.uid, entry.gid), expected, "{path}");
    }
}

#[test]
fn a_file_that_services_with_the_same_users_see_belongs_to_these() {
    let plan = planned(
        "[oneshot.a]\nimage = \"oci:a\"\nvolumes = [\"/srv:/x\"]\n\
         [service.b]\nimage = \"oci:a\"\nvolumes = [\"/srv:/x:ro\"]\n\
         [[file]]\npath = \"/srv/file\"\ncontents = \"\"\n",
    );
    assert_eq!(ids(&plan), [Ids::Own { first: FIRST }; 2]);
    assert_eq!(entry(&plan, "/srv/file").uid, FIRST);
    assert_eq!(entry(&plan, "/srv").uid, FIRST);
    let text = plan.to_string();
    assert!(text.contains("  users    1048576 to 1114111 of the machine, shared with service.b\n"), "{text}");
    assert!(text.contains("  users    1048576 to 1114111 of the machine, shared with oneshot.a\n"), "{text}");
}

#[test]
fn a_user_that_has_no_number_inside_is_refused() {
    let of = |user: &str, keys: &str| {
        let process = Process { user: user.into(), ..defaults() };
        Sample::of_service(keys, process, vec![base()])
    };
    of("65535:65535", "").planned();
    of("65536", "userns = \"host\"").planned();
    for user in ["65536", "0:65536"] {
        assert_eq!(
            of(user, "").refused(),
            "error: service.a (image `oci:a`): user or group 65536 is beyond the 65536 that a service has of its own\n\
             hint: set `user` to smaller numbers, or `userns = \"host\"`"
        );
    }
}

/// Lines of hostile databases, the user, and who it is: its number, group and further groups, or what is said.
#[test]
fn whatever_an_images_databases_say_a_user_is_never_root_by_mistake() {
    type Expected = Result<(u32, u32, &'static [u32]), &'static str>;
    let rows: &[(&str, &str, &str, Expected)] = &[
        ("app:x:4294967295:4294967295::/:", "", "app", Err("user or group 4294967295 is none")),
        ("app:x:2147483648:1::/:", "", "app", Err("user or group 2147483648 is none")),
        ("app:x:1:1::/:", "more:x:4294967295:app", "app", Err("user or group 4294967295 is none")),
        ("app:x:1:1::/:", "more:x:4294967294:", "app:more", Err("user or group 4294967294 is none")),
        ("app:x:4294967296:0::/:", "", "app", Err("no user is called `app`")),
        ("app:x:-1:0::/:", "", "app", Err("no user is called `app`")),
        ("app:x::0::/:", "", "app", Err("no user is called `app`")),
        ("app:x:0x0:0::/:", "", "app", Err("no user is called `app`")),
        ("app\0:x:0:0::/:", "", "app", Err("no user is called `app`")),
        ("+::::::\n+app::0:0:::\n:x:0:0::/:", "", "app", Err("no user is called `app`")),
        // The first counts, as for libc.
        ("app:x:7:8::/:\napp:x:0:0::/:", "a:x:9:app\na:x:0:app,\n", "app", Ok((7, 8, &[0, 9]))),
        // A name of digits is no name, and a line for the number says only where it is at home.
        ("1000:x:0:0::/:", "1000:x:0:", "1000:1000", Ok((1000, 1000, &[]))),
        ("root:x:1000:0::/:", "", "0", Ok((0, 0, &[]))),
    ];
    for (passwd, group, user, expected) in rows {
        let databases = layer(&[
            ("/etc", Item::Folder(0o755, 0)),
            ("/etc/group", Item::File(group)),
            ("/etc/passwd", Item::File(passwd)),
        ]);
        let process = Process { user: (*user).to_owned(), ..defaults() };
        let sample = Sample::of_service("userns = \"host\"", process, vec![base(), databases]);
        match expected {
            Ok((uid, gid, groups)) => {
                let found = sample.planned().manifest.services.remove(0).container.user;
                assert_eq!((found.uid, found.gid, &found.groups[..]), (*uid, *gid, *groups), "{passwd:?}");
            }
            Err(why) => assert!(sample.refused().contains(why), "{passwd:?}: {}", sample.refused()),
        }
    }
}

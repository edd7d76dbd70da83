//! Whose users the services of a plan have, and who owns the files that they see.

use manifest::Ids;

use super::super::{Entry, ImagePlan};
use super::sample::{Sample, base, defaults, image};
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

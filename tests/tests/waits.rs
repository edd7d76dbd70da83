//! Waits for the machine: its network, its clock, ports and paths. Nobody starts before, at boot and later.

use std::fs;

use probe::hostile::DATA;
use tests::{Abi, Config, Line, caller, demo_image, eventually, folder};

/// `adjtimex`: that the clock is at most a millisecond wrong (ADJ_MAXERROR), and synchronised (ADJ_STATUS).
const ADJTIMEX: u64 = 159;
const MODES: u64 = 0x0004 | 0x0010;
const MAXIMUM_ERROR: u64 = 1000;
/// Words of `struct timex`.
const TIMEX: usize = 26;

const LOG: &str = "volumes = [\"/srv/log:/log\"]\n";

/// A service of busybox that notes its turn in `/log/order`, and goes on.
fn noting(name: &str, keys: &str) -> String {
    let image = demo_image("busybox");
    format!(
        "[service.{name}]\nimage = \"{image}\"\n{LOG}\
         command = [\"sh\", \"-c\", \"echo {name} >>/log/order; exec sleep 600\"]\n{keys}\n"
    )
}

/// A oneshot that sets the clock when there is a file `/srv/log/go`.
fn setter() -> String {
    let tools = folder("waits");
    let mut words = vec![ADJTIMEX, DATA, 0, 0, 0, 0, 0];
    words.extend([MODES, 0, 0, MAXIMUM_ERROR]);
    words.resize(7 + TIMEX, 0);
    let input: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
    let mut tables = String::new();
    for (name, mode, contents) in [("call", "0o755", caller(Abi::Native)), ("clock", "0o644", input)] {
        fs::write(tools.join(name), contents).unwrap_or_else(|error| panic!("{error}"));
        let source = tools.join(name);
        let source = source.display();
        tables += &format!("[[file]]\npath = \"/srv/tools/{name}\"\nmode = {mode}\nsource = \"{source}\"\n");
    }
    format!(
        "[oneshot.setter]\nimage = \"{}\"\nvolumes = [\"/srv/tools:/tools:ro\", \"/srv/log:/log\"]\n\
         command = [\"sh\", \"-c\", \"echo setter >>/log/order; /tools/call </tools/clock\"]\n\
         userns = \"host\"\ncap-add = [\"SYS_TIME\"]\nwait-for = [\"/srv/log/go\"]\n{tables}",
        demo_image("busybox")
    )
}

fn order(witness: &Line) -> Vec<String> {
    let text = if witness.exists("/log/order") { witness.read("/log/order") } else { String::new() };
    text.lines().map(str::to_owned).collect()
}

#[test]
fn services_start_when_the_machine_has_what_they_wait_for() {
    // A link that a service makes leads nowhere, however real its target is.
    let links = "[oneshot.links]\nimage = \"IMAGE\"\nvolumes = [\"/srv/log:/log\"]\n\
                 command = [\"ln\", \"-s\", \"/srv\", \"/log/link\"]\n";
    let late = |on_failure: &str| {
        format!(
            "wait-for = [{{ path = \"/srv/log/link/log\", timeout = \"2s\", on-failure = \"{on_failure}\" }}]\n\
                 depends-on = {{ links = \"completed\" }}"
        )
    };
    let mut machine = Config::new("waits")
        .with(&links.replace("IMAGE", &demo_image("busybox")))
        .with(&setter())
        .with(&noting("timed", "wait-for = [\"clock\"]"))
        .with(&noting("plugged", "wait-for = [\"/dev/virtio-ports/a\", \"/proc/1\"]"))
        .with(&noting("never", &late("degrade")))
        .with(&noting("after-never", "depends-on = [\"never\"]"))
        .with(&noting("anyway", &late("ignore")))
        .probe("a", LOG)
        .probe("b", "wait-for = [\"network\"]")
        .start();
    machine.probe("b").next_start();
    let a = machine.probe("a");
    let has = |name: &str| order(a).iter().any(|other| other == name);
    eventually("who waits for a port or for too long has started", || has("plugged") && has("anyway"));
    let console = || machine.console();
    eventually("who waits is named", || console().contains("`timed` waits for the clock to be set"));
    eventually("so is who does not start", || {
        console().contains("`never` is not started: it has waited too long for `/srv/log/link/log`")
            && console().contains("`after-never` is not started, because `never` has failed")
    });
    assert!(!has("setter") && !has("timed") && !has("never"), "{:?}", order(a));
    assert!(machine.reports().is_empty(), "not all have had their turn");

    a.write("/log/go", "").unwrap_or_else(|errno| panic!("error {errno}"));
    machine.wait_until_ready();
    let order = order(machine.probe("a"));
    let place = |name: &str| order.iter().position(|other| other == name);
    assert!(place("setter") < place("timed") && place("setter").is_some(), "{order:?}");
    assert_eq!(place("never"), None, "{order:?}");

    // Who starts again waits again.
    machine.plug(false);
    let (a, b) = (machine.probe("a"), machine.probe("b"));
    eventually("the cable is out", || a.read("/sys/class/net/eth0/operstate") == "down\n");
    let waits = || machine.console().matches("`b` waits for the network").count();
    // At boot it may have had to, or not.
    let waited = waits();
    b.exit(0);
    eventually("it waits", || waits() > waited);
    let before = a.identity().now_ns;
    machine.plug(true);
    assert!(b.next_start() > before, "it started without a network");
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
}

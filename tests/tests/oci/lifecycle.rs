//! The life of a container, as OCI's runtime specification tells it.

use serde_json::{Value, json};
use tests::{Line, eventually};

use super::shell;

/// A bundle below /tmp/bundles whose program is the one that crun's tests have, with these arguments.
fn bundle(line: &Line, name: &str, arguments: &[&str], change: impl FnOnce(&mut Value)) -> String {
    let folder = format!("/tmp/bundles/{name}");
    let made = shell(
        line,
        &format!(
            "mkdir -p {folder}/rootfs && cp /srv/suite/init {folder}/rootfs/init && : >{folder}/rootfs/marker"
        ),
    );
    assert_eq!(made, (Some(0), String::new()));
    let namespaces: Vec<Value> = ["mount", "pid", "ipc", "uts", "network", "cgroup"]
        .iter()
        .map(|kind| json!({ "type": kind }))
        .collect();
    let args = [&["/init"], arguments].concat();
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": name,
        "annotations": { "of": "a test" },
        "linux": { "namespaces": namespaces },
    });
    change(&mut config);
    line.write(&format!("{folder}/config.json"), &config.to_string()).unwrap();
    folder
}

fn oci(line: &Line, words: &str) -> (Option<i32>, String) {
    // By a file: a container keeps what the command has as its output, and a pipe would not end before it does.
    shell(
        line,
        &format!(
            "timeout 30 /srv/oci --root /run/oci {words} </dev/null >/tmp/said 2>&1; code=$?; cat /tmp/said; exit $code"
        ),
    )
}

fn succeeds(line: &Line, words: &str) -> String {
    let (code, said) = oci(line, words);
    assert_eq!(code, Some(0), "oci {words}: {said}");
    said
}

/// What a command says that has to fail.
fn fails(line: &Line, words: &str) -> String {
    let (code, said) = oci(line, words);
    assert_eq!(code, Some(1), "oci {words}: {said}");
    said.trim_end().to_owned()
}

fn state(line: &Line, id: &str) -> Value {
    serde_json::from_str(&succeeds(line, &format!("state {id}"))).unwrap()
}

pub fn check(line: &Line) {
    the_program_runs_when_it_is_started_and_not_before(line);
    a_container_that_runs_is_not_deleted_unless_by_force(line);
    a_created_container_can_be_deleted(line);
    a_program_that_is_not_there_is_a_failed_start(line);
    a_terminal_arrives_at_the_console_socket(line);
    what_has_no_words_is_refused_and_leaves_nothing(line);
}

fn the_program_runs_when_it_is_started_and_not_before(line: &Line) {
    let folder = bundle(line, "steps", &["write", "/marker", "it ran"], |_| {});
    let marker = format!("{folder}/rootfs/marker");
    assert_eq!(succeeds(line, &format!("create --bundle {folder} --pid-file {folder}/pid steps")), "");
    let state_now = state(line, "steps");
    let pid = state_now["pid"].as_i64().unwrap();
    let expected = json!({
        "ociVersion": "1.0.0",
        "id": "steps",
        "status": "created",
        "pid": pid,
        "bundle": folder,
        "annotations": { "of": "a test" },
    });
    assert_eq!(state_now, expected);
    assert_eq!(line.read(&format!("{folder}/pid")), pid.to_string());
    assert_eq!(line.read(&marker), "");
    // It is inside already: nothing of the machine's root is left to see.
    assert_eq!(line.list(&format!("/proc/{pid}/root")), ["dev", "init", "marker", "proc", "sys"]);
    let again = fails(line, &format!("create --bundle {folder} steps"));
    assert_eq!(again, "error: container `steps` exists already");

    assert_eq!(succeeds(line, "start steps"), "");
    eventually("the container has ended", || state(line, "steps")["status"] == "stopped");
    assert_eq!(line.read(&marker), "it ran");
    let ended = fails(line, "start steps");
    assert_eq!(ended, "error: container `steps` is stopped, and only a created one can be started");
    assert_eq!(fails(line, "kill steps"), "error: container `steps` is not running");
    assert_eq!(succeeds(line, "delete steps"), "");
    assert_eq!(fails(line, "state steps"), "error: container `steps` does not exist");
    assert!(!line.exists("/sys/fs/cgroup/steps"));
}

fn a_container_that_runs_is_not_deleted_unless_by_force(line: &Line) {
    let folder = bundle(line, "runs", &["pause"], |_| {});
    succeeds(line, &format!("run --bundle {folder} --detach runs"));
    assert_eq!(state(line, "runs")["status"], "running");
    let said = fails(line, "delete runs");
    assert_eq!(said, "error: container `runs` is running: kill it first, or delete it with --force");
    let inside = succeeds(line, "exec runs /init gethostname");
    assert_eq!(inside, "runs\n");
    // It joins everything that the container has, and gets no more than that has.
    let status = succeeds(line, "exec runs /init cat /proc/self/status");
    for row in ["NoNewPrivs:\t1", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NSpid:\t"] {
        assert!(status.contains(row), "{row} in {status}");
    }
    assert_eq!(succeeds(line, "exec --cwd /proc runs /init cwd"), "/proc\n");
    assert_eq!(
        oci(line, "exec runs /missing").1,
        "error: cannot run `/missing`: No such file or directory\n"
    );
    assert_eq!(oci(line, "exec --cwd /proc/self/fd/3 runs /init true").0, Some(1));
    succeeds(line, "kill runs KILL");
    eventually("the container has ended", || state(line, "runs")["status"] == "stopped");
    succeeds(line, "delete runs");

    succeeds(line, &format!("run --bundle {folder} --detach runs"));
    succeeds(line, "delete --force runs");
    assert_eq!(fails(line, "state runs"), "error: container `runs` does not exist");
    assert_eq!(succeeds(line, "delete --force runs"), "", "there is none any more");
}

fn a_created_container_can_be_deleted(line: &Line) {
    let folder = bundle(line, "unused", &["write", "/marker", "it ran"], |_| {});
    succeeds(line, &format!("create --bundle {folder} unused"));
    succeeds(line, "delete unused");
    assert_eq!(line.read(&format!("{folder}/rootfs/marker")), "");
    assert!(!line.exists("/sys/fs/cgroup/unused"));
}

fn a_program_that_is_not_there_is_a_failed_start(line: &Line) {
    let folder = bundle(line, "missing", &[], |config| config["process"]["args"] = json!(["nothing"]));
    succeeds(line, &format!("create --bundle {folder} missing"));
    assert_eq!(fails(line, "start missing"), "error: cannot run `nothing`: No such file or directory");
    eventually("the container has ended", || state(line, "missing")["status"] == "stopped");
    succeeds(line, "delete missing");
}

fn a_terminal_arrives_at_the_console_socket(line: &Line) {
    const LISTENER: &str = "\
import array, os, socket
server = socket.socket(socket.AF_UNIX)
server.bind('/tmp/console')
server.listen(1)
sent = server.accept()[0].recvmsg(64, socket.CMSG_SPACE(4))
terminal = array.array('i', sent[1][0][2])[0]
text = b''
while b'true' not in text:
    text += os.read(terminal, 64)
print(sent[0].decode(), os.isatty(terminal), text.decode())
";
    let folder =
        bundle(line, "terminal", &["isatty", "2"], |config| config["process"]["terminal"] = json!(true));
    let said = fails(line, &format!("create --bundle {folder} terminal"));
    assert_eq!(said, "error: process.terminal: use --console-socket");
    line.write("/tmp/listener.py", LISTENER).unwrap();
    let script =
        "python3 /tmp/listener.py >/tmp/listener.said 2>&1 & while [ ! -S /tmp/console ]; do sleep 0.1; done";
    assert_eq!(shell(line, &format!("({script}) >/dev/null 2>&1")).0, Some(0));
    succeeds(line, &format!("create --bundle {folder} --console-socket /tmp/console terminal"));
    succeeds(line, "start terminal");
    eventually("the listener has read", || line.read("/tmp/listener.said") == "/dev/pts/ptmx True true\n");
    succeeds(line, "delete --force terminal");
}

/// A sample; the command's own tests have more.
fn what_has_no_words_is_refused_and_leaves_nothing(line: &Line) {
    for (pointer, value, message) in [
        ("/hooks", json!({}), "hooks: nothing of the machine runs for a container"),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ERRNO" }),
            "linux.seccomp: profiles are compiled by `coracle`, and tested there",
        ),
        (
            "/linux/sysctl",
            json!({ "kernel.domainname": "x" }),
            "linux.sysctl: `kernel.domainname` is no setting of the container's own namespaces",
        ),
        (
            "/process/capabilities",
            json!({ "inheritable": ["CAP_CHOWN"] }),
            "process.capabilities.inheritable: user 0 has nothing inheritable in a container of Coracle",
        ),
    ] {
        let folder = bundle(line, "refused", &["true"], |config| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[key] = value;
        });
        assert_eq!(fails(line, &format!("create --bundle {folder} refused")), format!("error: {message}"));
        assert_eq!(fails(line, "state refused"), "error: container `refused` does not exist");
    }
}

//! Each node of a graph of six is killed at each stage of its start, and the whole comes back each time.

use tests::oracle::{OVERSEER, service, survived};
use tests::{Config, Model, Oracle, demo_image, eventually};

/// Who waits for whom to be ready; the last two are stopped and started with whom they wait for.
const GRAPH: [(&str, &str); 6] = [
    ("a", ""),
    ("b", "depends-on = { a = \"ready\" }"),
    ("c", "depends-on = { a = \"ready\" }"),
    ("d", "depends-on = { b = \"ready\", c = \"started\" }"),
    ("e", "depends-on = { d = { condition = \"ready\", restart-with = true } }"),
    ("f", "depends-on = { e = { condition = \"ready\", restart-with = true }, a = \"ready\" }"),
];

#[test]
fn a_graph_comes_back_whichever_node_is_killed_at_whichever_stage() {
    let image = demo_image("busybox");
    let script = "trap 'exit 0' TERM; sleep 0.2; echo >&3; while :; do sleep 60 & wait $!; done";
    let nodes: String = GRAPH
        .iter()
        .map(|(name, keys)| {
            format!(
                "[service.{name}]\nimage = \"{image}\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\nready = {{ fd = 3 }}\n\
                 network = \"none\"\n{keys}\n"
            )
        })
        .collect();
    let machine = Config::new("stages").with(&nodes).probe("overseer", OVERSEER).boot();
    let overseer = machine.probe("overseer");
    let mut oracle = Oracle::of(&machine, Model::default());
    oracle.count(&machine, overseer);
    let mut before = 0;
    for (name, _) in GRAPH {
        for stage in ["cloned", "executed"] {
            let starts = service(&machine, name).starts;
            let output = overseer.run(&["/probe", "ambush", name, stage]);
            let was_cloned: bool =
                serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{output:?}: {error}"));
            assert!(stage == "cloned" || !was_cloned, "{name} had not run its program");
            before += u32::from(was_cloned);
            eventually("it was started twice", || service(&machine, name).starts >= starts + 2);
            oracle.wait_until_quiet(&machine);
        }
        let ready = service(&machine, name);
        overseer.ask(&probe::Request::Signal { pid: ready.pid.unwrap(), signal: 9 });
        eventually("it was started again", || service(&machine, name).starts > ready.starts);
        oracle.judge_services(&machine);
    }
    // On a processor that is shared, the one who waits in ambush can be late.
    assert!(before > 0, "nobody was killed before exec");
    oracle.judge(&machine, overseer);
    drop(oracle);
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    survived("each node of a graph of six killed at each stage", "SIGKILL cloned, executed and ready", 18);
}

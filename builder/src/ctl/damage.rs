//! How the control channel's lines are read when damaged ones come, on both of its sides.

use manifest::control::{Answer, Request, Response};

use super::boot::Chart;
use super::metrics;
use super::status::Status;
use super::svg;
use super::top::Sample;
use crate::fuzz::Reader;

/// The readers.
pub const READERS: &[Reader] = &[
    Reader { name: "control-request", mend: |_| {}, read: read_requests },
    Reader { name: "control-answer", mend: |_| {}, read: show_answers },
];

/// As PID 1 reads what clients send.
fn read_requests(input: &[u8]) {
    for line in input.split(|&byte| byte == b'\n') {
        let Ok(request) = serde_json::from_slice::<Request>(line) else { continue };
        let written = serde_json::to_vec(&request).unwrap_or_default();
        assert!(serde_json::from_slice::<Request>(&written).is_ok_and(|again| again == request));
    }
}

/// As `coracle ctl` reads what a machine sends, and shows it in every way that it has.
fn show_answers(input: &[u8]) {
    let (mut machine, mut services) = (None, Vec::new());
    let (mut load, mut usages) = (None, Vec::new());
    let (mut boot, mut nodes) = (None, Vec::new());
    for line in input.split(|&byte| byte == b'\n') {
        match serde_json::from_slice(line).map(|response: Response| response.answer) {
            Ok(Answer::Machine(found)) => machine = Some(found),
            Ok(Answer::Service(service)) => services.push(service),
            Ok(Answer::Load(found)) => load = Some(found),
            Ok(Answer::Usage(usage)) => usages.push(usage),
            Ok(Answer::Boot(found)) => boot = Some(found),
            Ok(Answer::Node(node)) => nodes.push(node),
            Ok(_) | Err(_) => {}
        }
    }
    let status = machine.map(|machine| Status { machine, services });
    if let Some(status) = &status {
        shows_nothing_strange(&status.table());
        if let Some(load) = load {
            shows_nothing_strange(&metrics::text(&Sample { load, usages }, status));
        }
    }
    if let Some(boot) = boot {
        let chart = Chart::of(&boot, &nodes);
        shows_nothing_strange(&chart.text(80));
        shows_nothing_strange(&svg::picture(&chart));
    }
}

/// A machine that somebody has broken into cannot give orders to the terminal of whoever looks.
fn shows_nothing_strange(text: &str) {
    let strange = text.chars().find(|c| c.is_control() && *c != '\n');
    assert!(strange.is_none(), "{strange:?} is shown");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation;

    #[test]
    fn no_request_makes_the_machine_panic() {
        let seed = r#"{"id":1,"ask":"hello"}
{"id":2,"ask":{"logs":{"services":["web"],"tail":1,"follow":false}}}
{"id":3,"ask":{"order":{"service":"web","order":"restart"}}}
{"id":4,"ask":{"exec":{"service":"web","argv":["cat"],"env":["A=b"],"cwd":"/","terminal":{"rows":24,"columns":80}}}}
{"id":4,"ask":{"input":{"data":"aGVsbG8K"}}}
{"id":4,"ask":{"signal":{"number":2}}}
{"id":5,"ask":{"events":{"since":1,"follow":true}}}
{"id":6,"ask":{"power":{"power":"reboot"}}}
{"id":4,"ask":"cancel"}
"#;
        assert!(seed.lines().all(|line| serde_json::from_str::<Request>(line).is_ok()));
        mutation::feed("control-request", &[seed.as_bytes().to_vec()]);
    }

    #[test]
    fn no_answer_makes_the_client_panic_or_reaches_the_terminal_as_it_is() {
        let seed = r#"{"id":1,"answer":{"machine":{"name":"m","now":{"monotonic_ns":9,"unix_ms":1},"state":"ready","last_event":8}}}
{"id":1,"answer":{"service":{"name":"a","kind":"service","state":"backoff","pid":7,"since_ns":1,"starts_at_ns":20,"healthy":true,"starts":1,"last":{"cause":"exit","code":3,"signal":null,"text":"ended with \u001b[2J"},"says":"x\u0007","waits_for":["/dev/\u001b"],"log_bytes":1,"log_dropped":0}}}
{"id":2,"answer":{"load":{"now":{"monotonic_ns":9,"unix_ms":1},"memory_total":4,"memory_available":2,"processors":2,"user_us":1,"system_us":1,"idle_us":1,"iowait_us":0,"load_percent":[1,2,3],"init_memory":5}}}
{"id":2,"answer":{"usage":{"name":"a","user_us":1,"system_us":1,"memory":1,"memory_peak":2,"memory_limit":3,"processes":1,"memory_kills":0,"read_bytes":0,"written_bytes":0}}}
{"id":3,"answer":{"boot":{"kernel":"6.1\u001b","init_ns":5,"supervised_ns":6,"ready_ns":9,"previous":{"cause":"BUG: \u001b[2J","lines":"x\ny"}}}}
{"id":3,"answer":{"node":{"name":"a","kind":"oneshot","after":["b"],"queued_ns":6,"started_ns":7,"executed_ns":8,"ready_ns":null,"ended_ns":9,"end":{"cause":"exit","code":3,"signal":null,"text":"ended \u001b"}}}}
"#;
        assert!(seed.lines().all(|line| serde_json::from_str::<Response>(line).is_ok()));
        mutation::feed("control-answer", &[seed.as_bytes().to_vec()]);
    }
}

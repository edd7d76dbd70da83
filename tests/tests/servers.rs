//! Debian's servers, unmodified, asked from the host.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of a test")]

use std::time::Duration;

use tests::{Config, assert_answers, demo_image};

#[test]
fn four_servers_answer_from_the_host() {
    let service =
        |name: &str, keys: &str| format!("[service.{name}]\nimage = \"{}\"\n{keys}\n", demo_image(name));
    // Node has no handler for SIGTERM of its own, without which a container's first process never sees it.
    let script = "process.on('SIGTERM', () => process.exit()); \
                  require('http').createServer((_, answer) => answer.end('hello from node')).listen(3000)";
    let machine = Config::new("servers")
        .with(&service("nginx", ""))
        .with(&service("redis", ""))
        .with(&service("node", &format!("user = \"node\"\ncommand = [\"node\", \"-e\", \"{script}\"]")))
        .with(&service("postgresql", ""))
        .memory("1536MiB")
        .publish(80)
        .publish(6379)
        .publish(3000)
        .publish(5432)
        .boot();
    assert_answers(machine.port(80), b"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK");
    assert_answers(machine.port(6379), b"PING\r\n", "+PONG\r\n");
    assert_answers(machine.port(3000), b"GET / HTTP/1.0\r\n\r\n", "hello from node");
    assert_answers(machine.port(5432), &postgresql_query("postgres", "SELECT 6 * 7 AS answer"), "SELECT 1\0");
    let ended = machine.power_off();
    assert_eq!(ended.code, 0, "{}", ended.output);
    let took = ended.stop.unwrap();
    assert!(took < Duration::from_secs(8), "a grace period of 10 s ran out: {took:?}\n{}", ended.output);
}

/// PostgreSQL's protocol 3.0: a start-up message without a password, one simple query, and the end
/// ("Frontend/Backend Protocol", section "Message Formats").
fn postgresql_query(user: &str, query: &str) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len() + 4).unwrap().to_be_bytes();
    let start = [&196_608_u32.to_be_bytes()[..], format!("user\0{user}\0\0").as_bytes()].concat();
    let query = format!("{query}\0");
    let mut bytes = [&length(&start)[..], &start].concat();
    for (kind, body) in [(b'Q', query.as_bytes()), (b'X', &[][..])] {
        bytes.push(kind);
        bytes.extend(length(body));
        bytes.extend(body);
    }
    bytes
}

//! Claims about the client: a scripted server, and any server at all.

use proptest::prelude::*;

use super::super::packet::tests::{MAC, message};
use super::*;

const SERVER: [u8; 4] = [10, 0, 2, 2];
const ADDRESS: [u8; 4] = [10, 0, 2, 15];
const START: Duration = Duration::from_secs(3);

fn client() -> Client {
    Client::new(MAC, "lab".to_owned(), 42, START)
}

fn reply(client: &Client, kind: u8, lease: u32) -> Vec<u8> {
    let options: [(u8, &[u8]); 3] = [(54, &SERVER), (51, &lease.to_be_bytes()), (1, &[255, 255, 255, 0])];
    message(kind, client.transaction, ADDRESS, &options)
}

/// A client that has an address for `lease` seconds since `START`.
fn bound(lease: u32) -> Client {
    let mut client = client();
    client.tick(START);
    client.receive(&reply(&client, 2, lease), START);
    let actions = client.receive(&reply(&client, 5, lease), START);
    assert!(matches!(actions.as_slice(), [Action::Use(terms)] if terms.address.octets() == ADDRESS));
    client
}

fn sent_to(actions: &[Action]) -> Option<Ipv4Addr> {
    actions.iter().find_map(|action| match action {
        Action::Send(_, to) => Some(*to),
        _ => None,
    })
}

#[test]
fn an_offer_is_asked_for_and_an_ack_is_used() {
    let mut client = client();
    assert_eq!(sent_to(&client.tick(START)), Some(Ipv4Addr::BROADCAST));
    let asked = client.receive(&reply(&client, 2, 3600), START);
    assert_eq!(sent_to(&asked), Some(Ipv4Addr::BROADCAST));
    let used = client.receive(&reply(&client, 5, 3600), START);
    assert!(matches!(used.as_slice(), [Action::Use(_)]));
    assert_eq!(client.deadline(), Some(START + Duration::from_secs(1800)));
}

#[test]
fn a_silent_network_is_asked_ever_more_seldom() {
    let mut client = client();
    let mut times = vec![];
    for _ in 0..12 {
        let now = client.deadline().unwrap();
        assert_eq!(sent_to(&client.tick(now)), Some(Ipv4Addr::BROADCAST));
        times.push(now);
    }
    let pauses: Vec<f32> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f32()).collect();
    for (pause, expected) in pauses.iter().zip([1., 2., 4., 8., 16., 32., 64., 64., 64.]) {
        assert!((expected * 0.75..=expected * 1.25).contains(pause), "{pauses:?}");
    }
}

#[test]
fn an_offer_that_nobody_confirms_is_given_up() {
    let mut client = client();
    client.tick(START);
    client.receive(&reply(&client, 2, 3600), START);
    let offered = client.transaction;
    for _ in 0..REQUESTS {
        assert!(client.is_looking());
        client.tick(client.deadline().unwrap());
    }
    assert_eq!(client.state, State::Selecting);
    assert_ne!(client.transaction, offered);
}

#[test]
fn a_lease_is_renewed_at_half_and_rebound_at_seven_eighths_and_ends() {
    let mut client = bound(800);
    let mut to_server = vec![];
    let mut to_all = vec![];
    loop {
        let now = client.deadline().unwrap();
        let actions = client.tick(now);
        if actions.contains(&Action::Drop) {
            assert_eq!(now, START + Duration::from_secs(800));
            break;
        }
        match sent_to(&actions) {
            Some(Ipv4Addr::BROADCAST) => to_all.push(now),
            _ => to_server.push(now),
        }
    }
    assert_eq!(to_server.first(), Some(&(START + Duration::from_secs(400))));
    assert_eq!(to_all.first(), Some(&(START + Duration::from_secs(700))));
    assert!(client.is_looking());
}

#[test]
fn a_renewed_lease_counts_from_the_request() {
    let mut client = bound(800);
    let renewal = client.deadline().unwrap();
    client.tick(renewal);
    let late = renewal + Duration::from_millis(300);
    let actions = client.receive(&reply(&client, 5, 800), late);
    assert!(matches!(actions.as_slice(), [Action::Use(_)]));
    assert_eq!(client.deadline(), Some(renewal + Duration::from_secs(400)));
}

#[test]
fn a_refused_lease_is_dropped_and_not_asked_for_at_once() {
    let mut client = bound(800);
    let now = client.deadline().unwrap();
    client.tick(now);
    assert_eq!(client.receive(&reply(&client, 6, 0), now), [Action::Drop]);
    assert!(client.deadline().unwrap() > now);
}

#[test]
fn an_endless_lease_needs_nothing() {
    let client = bound(u32::MAX);
    assert_eq!(client.deadline(), None);
}

#[test]
fn what_is_meant_for_others_changes_nothing() {
    let mut client = client();
    client.tick(START);
    let mut foreign = reply(&client, 2, 3600);
    foreign[33] ^= 1;
    assert!(client.receive(&foreign, START).is_empty());
    let mut old = reply(&client, 2, 3600);
    old[7] ^= 1;
    assert!(client.receive(&old, START).is_empty());
    assert!(client.receive(&reply(&client, 5, 3600), START).is_empty(), "an ack that was not asked for");
}

#[derive(Debug, Clone)]
enum Fate {
    Reply { kind: u8, lease: u32, renew: u32, rebind: u32, address: [u8; 4] },
    Noise(Vec<u8>),
    Wait(u32),
    Deadline,
    Link,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let seconds = prop_oneof![0..100u32, any::<u32>()];
    let reply = (
        prop_oneof![Just(2u8), Just(5), Just(6)],
        seconds.clone(),
        seconds.clone(),
        seconds,
        any::<[u8; 4]>(),
    )
        .prop_map(|(kind, lease, renew, rebind, address)| Fate::Reply {
            kind,
            lease,
            renew,
            rebind,
            address,
        });
    let fate = prop_oneof![
        4 => reply,
        1 => prop::collection::vec(any::<u8>(), 0..400).prop_map(Fate::Noise),
        1 => (0..100_000u32).prop_map(Fate::Wait),
        3 => Just(Fate::Deadline),
        1 => Just(Fate::Link),
    ];
    prop::collection::vec(fate, 0..80)
}

proptest! {
    #[test]
    fn no_server_can_make_the_client_send_in_a_storm_or_hang(fates in fates()) {
        let mut client = client();
        let mut now = START;
        let mut has_address = false;
        for fate in fates {
            let actions = match fate {
                Fate::Reply { kind, lease, renew, rebind, address } => {
                    let [lease, renew, rebind] = [lease, renew, rebind].map(u32::to_be_bytes);
                    let options: [(u8, &[u8]); 4] =
                        [(54, &SERVER), (51, &lease), (58, &renew), (59, &rebind)];
                    client.receive(&message(kind, client.transaction, address, &options), now)
                }
                Fate::Noise(bytes) => client.receive(&bytes, now),
                Fate::Wait(ms) => {
                    now += Duration::from_millis(u64::from(ms));
                    client.tick(now)
                }
                Fate::Deadline => {
                    now = now.max(client.deadline().unwrap_or(now));
                    let actions = client.tick(now);
                    // Whatever was due leaves the next thing for later.
                    prop_assert!(client.deadline().is_none_or(|due| due > now));
                    actions
                }
                Fate::Link => {
                    if client.is_looking() {
                        client.look(now);
                    }
                    vec![]
                }
            };
            for action in actions {
                match action {
                    Action::Use(terms) => {
                        prop_assert!(is_usable(terms.address));
                        has_address = true;
                    }
                    Action::Drop => {
                        prop_assert!(has_address, "dropped what it did not have");
                        has_address = false;
                    }
                    Action::Send(bytes, _) => prop_assert!(bytes.len() < 600),
                }
            }
            prop_assert!(client.deadline().is_some() || has_address, "it sleeps without an address");
        }
    }
}

//! Claims about messages, and a small server's half of the encoding.

use proptest::prelude::*;

use super::*;

pub const MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// A server's message.
pub fn message(kind: u8, transaction: u32, address: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = vec![2, 1, 6, 0];
    out.extend(transaction.to_be_bytes());
    out.resize(16, 0);
    out.extend(address);
    out.resize(28, 0);
    out.extend(MAC);
    out.resize(HEADER, 0);
    out.extend(MAGIC);
    push(&mut out, option::KIND, &[kind]);
    for (code, value) in options {
        push(&mut out, *code, value);
    }
    out.push(option::END);
    out
}

#[test]
fn a_full_offer_is_understood() {
    let reply = Reply::decode(&message(
        2,
        7,
        [10, 0, 2, 15],
        &[
            (option::MASK, &[255, 255, 255, 0]),
            (option::ROUTER, &[10, 0, 2, 2]),
            (option::DNS, &[10, 0, 2, 3, 1, 1, 1, 1]),
            (option::DOMAIN, b"example.org"),
            (option::MTU, &1400u16.to_be_bytes()),
            (option::LEASE, &86_400u32.to_be_bytes()),
            (option::SERVER, &[10, 0, 2, 2]),
        ],
    ))
    .unwrap();
    assert_eq!((reply.kind, reply.transaction, reply.mac), (Kind::Offer, 7, MAC));
    assert_eq!(reply.server, Some(Ipv4Addr::new(10, 0, 2, 2)));
    let default = Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway: Ipv4Addr::new(10, 0, 2, 2) };
    assert_eq!(
        reply.terms,
        Terms {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            routes: vec![default],
            dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(1, 1, 1, 1)],
            search: vec!["example.org".to_owned()],
            mtu: Some(1400),
            lease: Some(Duration::from_secs(86_400)),
            renew: None,
            rebind: None,
        }
    );
}

#[test]
fn classless_routes_replace_the_router() {
    let reply = Reply::decode(&message(
        5,
        7,
        [10, 0, 2, 15],
        &[
            (option::ROUTER, &[10, 0, 2, 2]),
            (option::ROUTES, &[0, 10, 0, 2, 1, 17, 192, 168, 255, 10, 0, 2, 9]),
        ],
    ))
    .unwrap();
    let routes: Vec<_> =
        reply.terms.routes.iter().map(|r| (r.network.octets(), r.prefix, r.gateway.octets())).collect();
    assert_eq!(routes, [([0; 4], 0, [10, 0, 2, 1]), ([192, 168, 128, 0], 17, [10, 0, 2, 9])]);
}

#[test]
fn search_domains_are_unpacked_and_joined_from_parts() {
    // RFC 3397's own example, cut in two options.
    let whole = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04";
    let (one, two) = whole.split_at(9);
    let reply =
        Reply::decode(&message(5, 7, [1; 4], &[(option::SEARCH, one), (option::SEARCH, two)])).unwrap();
    assert_eq!(reply.terms.search, ["eng.apple.com", "marketing.apple.com"]);
}

#[test]
fn a_domain_cannot_add_lines_to_resolv_conf() {
    let reply = Reply::decode(&message(5, 7, [1; 4], &[(option::DOMAIN, b"a\nnameserver 6.6.6.6")])).unwrap();
    assert!(reply.terms.search.is_empty());
    assert!(domains(b"\x02a\n\x00\x01b\x00") == ["b"]);
}

#[test]
fn a_pointer_that_does_not_lead_back_is_no_name() {
    assert!(domains(b"\xc0\x00").is_empty());
    assert!(domains(b"\x01a\xc0\x02").is_empty());
}

#[test]
fn what_is_no_usable_reply_is_none() {
    let good = message(2, 7, [1; 4], &[]);
    assert!(Reply::decode(&good).is_some());
    assert!(Reply::decode(&good[..HEADER + 3]).is_none(), "cut off");
    assert!(Reply::decode(&message(1, 7, [1; 4], &[])).is_none(), "a client's kind");
    let holes = message(2, 7, [1; 4], &[(option::MASK, &[255, 0, 255, 0])]);
    assert!(Reply::decode(&holes).is_none(), "a mask with holes");
    let mut request = good;
    request[0] = 1;
    assert!(Reply::decode(&request).is_none(), "a client's message");
}

#[test]
fn options_may_overflow_into_the_fields_for_names() {
    let mut overloaded = message(2, 7, [1; 4], &[(option::OVERLOAD, &[3])]);
    overloaded[108..112].copy_from_slice(&[option::MTU, 2, 5, 220]);
    overloaded[44..50].copy_from_slice(&[option::SERVER, 4, 9, 9, 9, 9]);
    let reply = Reply::decode(&overloaded).unwrap();
    assert_eq!((reply.terms.mtu, reply.server), (Some(1500), Some(Ipv4Addr::new(9, 9, 9, 9))));
}

#[test]
fn a_request_names_the_offer_and_is_long_enough() {
    let ask = Ask::Request { address: Ipv4Addr::new(10, 0, 2, 15), server: Ipv4Addr::new(10, 0, 2, 2) };
    let bytes = Request { ask, transaction: 7, seconds: 3, mac: MAC, host_name: "lab" }.encode();
    assert!(bytes.len() >= SHORTEST);
    assert_eq!(&bytes[..12], [1, 1, 6, 0, 0, 0, 0, 7, 0, 3, 0x80, 0]);
    let options = &bytes[HEADER + 4..];
    assert_eq!(collect(options, option::KIND), [3]);
    assert_eq!(collect(options, option::REQUESTED), [10, 0, 2, 15]);
    assert_eq!(collect(options, option::SERVER), [10, 0, 2, 2]);
    assert_eq!(collect(options, option::HOST_NAME), b"lab");
}

proptest! {
    #[test]
    fn no_datagram_is_too_much_for_the_parser(
        head in prop::collection::vec(any::<u8>(), 0..300),
        options in prop::collection::vec(any::<u8>(), 0..LONGEST),
    ) {
        Reply::decode(&head);
        let mut bytes = message(2, 7, [1; 4], &[]);
        bytes.pop();
        bytes.extend(options);
        if let Some(reply) = Reply::decode(&bytes) {
            prop_assert!(reply.terms.routes.len() <= ROUTES_MAX);
            prop_assert!(reply.terms.dns.len() <= SERVERS_MAX);
            prop_assert!(reply.terms.search.len() <= DOMAINS_MAX);
            prop_assert!(reply.terms.prefix <= 32);
        }
    }
}

//! DHCP messages (RFC 2131, RFC 2132) to and from bytes. What comes from the network is bounded by the size
//! of one datagram, and can at most be no message.

use std::net::Ipv4Addr;
use std::time::Duration;

/// The port that clients listen on, and the one that servers do.
pub const CLIENT_PORT: u16 = 68;
/// See [`CLIENT_PORT`].
pub const SERVER_PORT: u16 = 67;
/// The longest message that we take, and say so (option 57): what one Ethernet frame carries.
pub const LONGEST: usize = 1472;

/// An Ethernet address.
pub type Mac = [u8; 6];

const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Before the magic number and the options.
const HEADER: usize = 236;
/// Shorter messages are padded: BOOTP relays of old drop them (RFC 1542 §2.1).
const SHORTEST: usize = 300;
const BROADCAST: u16 = 0x8000;
/// More of these in a message are not believed.
const SERVERS_MAX: usize = 3;
const ROUTES_MAX: usize = 32;
const DOMAINS_MAX: usize = 6;

mod option {
    pub const PAD: u8 = 0;
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN: u8 = 15;
    pub const MTU: u8 = 26;
    pub const REQUESTED: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const WANTED: u8 = 55;
    pub const LONGEST: u8 = 57;
    pub const T1: u8 = 58;
    pub const T2: u8 = 59;
    pub const CLIENT: u8 = 61;
    pub const SEARCH: u8 = 119;
    pub const ROUTES: u8 = 121;
    pub const END: u8 = 255;
}

/// What is asked for: what a [`Reply`] understands, and nothing else.
const WANTED: [u8; 9] = [
    option::MASK,
    // Before the routers, as RFC 3442 asks.
    option::ROUTES,
    option::ROUTER,
    option::DNS,
    option::DOMAIN,
    option::SEARCH,
    option::MTU,
    option::T1,
    option::T2,
];

/// A message of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// What for.
    pub ask: Ask,
    /// Repeated by the server.
    pub transaction: u32,
    /// Since when the client has been trying.
    pub seconds: u16,
    /// Ours.
    pub mac: Mac,
    /// The machine's name.
    pub host_name: &'a str,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Any offer.
    Discover,
    /// This offer.
    Request {
        /// The address offered.
        address: Ipv4Addr,
        /// By this server.
        server: Ipv4Addr,
    },
    /// More time for an address that is in use.
    Extend {
        /// The address.
        address: Ipv4Addr,
    },
}

/// What kind of reply it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A proposal.
    Offer,
    /// It is ours.
    Ack,
    /// It is not.
    Nak,
}

/// A message of a server, as far as anybody here wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Which.
    pub kind: Kind,
    /// Ours, or it is not for us.
    pub transaction: u32,
    /// Ours, or it is not for us.
    pub mac: Mac,
    /// The server, where it names itself.
    pub server: Option<Ipv4Addr>,
    /// What it gives.
    pub terms: Terms,
}

/// An address and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of its network; 24 where the server does not say.
    pub prefix: u8,
    /// Where packets to other networks go.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Domains in which a short name is looked for.
    pub search: Vec<String>,
    /// The interface's largest packet.
    pub mtu: Option<u16>,
    /// For how long; None where the server does not say, `Duration::MAX` for ever.
    pub lease: Option<Duration>,
    /// When to renew, after the beginning.
    pub renew: Option<Duration>,
    /// When to ask any server, after the beginning.
    pub rebind: Option<Duration>,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub network: Ipv4Addr,
    /// Its bits.
    pub prefix: u8,
    /// Through this router; 0.0.0.0 for none.
    pub gateway: Ipv4Addr,
}

impl Request<'_> {
    /// The datagram.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, mine) = match self.ask {
            Ask::Discover => (1, Ipv4Addr::UNSPECIFIED),
            Ask::Request { .. } => (3, Ipv4Addr::UNSPECIFIED),
            Ask::Extend { address } => (3, address),
        };
        let mut out = Vec::with_capacity(SHORTEST + self.host_name.len());
        // BOOTREQUEST, Ethernet, 6 bytes of address, no hops.
        out.extend([1, 1, 6, 0]);
        out.extend(self.transaction.to_be_bytes());
        out.extend(self.seconds.to_be_bytes());
        // Without an address the interface takes no datagram that is sent to one.
        out.extend(BROADCAST.to_be_bytes());
        out.extend(mine.octets());
        out.resize(28, 0);
        out.extend(self.mac);
        out.resize(HEADER, 0);
        out.extend(MAGIC);
        push(&mut out, option::KIND, &[kind]);
        push(&mut out, option::CLIENT, &[[1].as_slice(), &self.mac].concat());
        push(&mut out, option::HOST_NAME, self.host_name.as_bytes());
        push(&mut out, option::WANTED, &WANTED);
        push(&mut out, option::LONGEST, &u16::try_from(LONGEST).unwrap_or(u16::MAX).to_be_bytes());
        if let Ask::Request { address, server } = self.ask {
            push(&mut out, option::REQUESTED, &address.octets());
            push(&mut out, option::SERVER, &server.octets());
        }
        out.push(option::END);
        if out.len() < SHORTEST {
            out.resize(SHORTEST, 0);
        }
        out
    }
}

fn push(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    // Every value here is far shorter than what an option holds; a longer one would be left out.
    if let Ok(length) = u8::try_from(value.len()) {
        out.extend([code, length]);
        out.extend(value);
    }
}

impl Reply {
    /// Reads a datagram. None: not a reply that can be used, whatever else it is.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        // BOOTREPLY, for Ethernet.
        if !header.starts_with(&[2, 1, 6]) {
            return None;
        }
        let options = Options { main: rest.strip_prefix(&MAGIC)?, header };
        let kind = match options.get(option::KIND).as_slice() {
            [2] => Kind::Offer,
            [5] => Kind::Ack,
            [6] => Kind::Nak,
            _ => return None,
        };
        Some(Self {
            kind,
            transaction: u32::from_be_bytes(field(header, 4)?),
            mac: field(header, 28)?,
            server: address(&options.get(option::SERVER)),
            terms: options.terms(Ipv4Addr::from(field(header, 16)?))?,
        })
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The options of a message, wherever they are.
struct Options<'a> {
    main: &'a [u8],
    header: &'a [u8],
}

impl Options<'_> {
    /// All parts of an option, one after the other: that is what several of the same code mean (RFC 3396).
    fn get(&self, code: u8) -> Vec<u8> {
        let mut value = collect(self.main, code);
        // The option that says that there are more options in fields which hold file names otherwise.
        let more = collect(self.main, option::OVERLOAD).first().copied().unwrap_or(0);
        for (bit, range) in [(1, 108..HEADER), (2, 44..108)] {
            if more & bit != 0 {
                value.extend(collect(self.header.get(range).unwrap_or_default(), code));
            }
        }
        value
    }

    fn terms(&self, address: Ipv4Addr) -> Option<Terms> {
        let mut routes = classless_routes(&self.get(option::ROUTES));
        if routes.is_empty() {
            let default = |gateway| Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway };
            routes.extend(self::address(&self.get(option::ROUTER)).map(default));
        }
        let mut search = domains(&self.get(option::SEARCH));
        if search.is_empty() {
            search.extend(String::from_utf8(self.get(option::DOMAIN)).ok().filter(|name| is_domain(name)));
        }
        let mtu = field(&self.get(option::MTU), 0).map(u16::from_be_bytes);
        Some(Terms {
            address,
            prefix: prefix(&self.get(option::MASK))?,
            routes,
            dns: self
                .get(option::DNS)
                .as_chunks()
                .0
                .iter()
                .take(SERVERS_MAX)
                .map(|&a: &[u8; 4]| a.into())
                .collect(),
            search,
            // 576 is what every host must be able to receive (RFC 791): less is a mistake.
            mtu: mtu.filter(|&mtu| mtu >= 576),
            lease: time(&self.get(option::LEASE)),
            renew: time(&self.get(option::T1)),
            rebind: time(&self.get(option::T2)),
        })
    }
}

fn collect(mut rest: &[u8], code: u8) -> Vec<u8> {
    let mut value = Vec::new();
    while let Some((&this, after)) = rest.split_first() {
        match this {
            option::PAD => rest = after,
            option::END => break,
            _ => {
                let Some((&length, after)) = after.split_first() else { break };
                // One that is longer than the message ends it.
                let Some((this_value, after)) = after.split_at_checked(usize::from(length)) else { break };
                if this == code {
                    value.extend(this_value);
                }
                rest = after;
            }
        }
    }
    value
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    field::<4>(bytes, 0).map(Ipv4Addr::from).filter(|address| !address.is_unspecified())
}

fn time(bytes: &[u8]) -> Option<Duration> {
    let seconds = u32::from_be_bytes(field(bytes, 0)?);
    Some(if seconds == u32::MAX { Duration::MAX } else { Duration::from_secs(u64::from(seconds)) })
}

/// None for a mask that has holes.
fn prefix(mask: &[u8]) -> Option<u8> {
    let Some(mask) = field(mask, 0).map(u32::from_be_bytes) else { return Some(24) };
    let ones = mask.leading_ones();
    (ones + mask.trailing_zeros() == u32::BITS || mask == 0).then(|| u8::try_from(ones).ok()).flatten()
}

/// RFC 3442: the bits of the network, as many of its bytes as they need, the router.
fn classless_routes(mut bytes: &[u8]) -> Vec<Route> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = bytes.split_first()
        && routes.len() < ROUTES_MAX
    {
        let Some((network, rest)) = rest.split_at_checked(usize::from(prefix).div_ceil(8)) else { break };
        let Some((gateway, rest)) = rest.split_first_chunk::<4>() else { break };
        let mut octets = [0; 4];
        if prefix > 32 {
            break;
        }
        octets.iter_mut().zip(network).for_each(|(octet, &byte)| *octet = byte);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = Ipv4Addr::from(u32::from_be_bytes(octets) & mask);
        routes.push(Route { network, prefix, gateway: Ipv4Addr::from(*gateway) });
        bytes = rest;
    }
    routes
}

/// RFC 3397: names as in DNS messages, with pointers that may only lead back.
fn domains(bytes: &[u8]) -> Vec<String> {
    let mut domains = Vec::new();
    let mut at = 0;
    while at < bytes.len() && domains.len() < DOMAINS_MAX {
        let Some((name, next)) = domain(bytes, at) else { break };
        if is_domain(&name) {
            domains.push(name);
        }
        at = next;
    }
    domains
}

/// The name at `at`, and where the next one begins.
fn domain(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut next = None;
    loop {
        let length = *bytes.get(at)?;
        if length & 0xc0 == 0xc0 {
            let target = usize::from(u16::from_be_bytes([length & 0x3f, *bytes.get(at + 1)?]));
            next.get_or_insert(at + 2);
            // Only back, so that it ends.
            if target >= at {
                return None;
            }
            at = target;
            continue;
        }
        if length == 0 {
            return Some((name, next.unwrap_or(at + 1)));
        }
        let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(std::str::from_utf8(label).ok()?);
        if name.len() > 253 {
            return None;
        }
        at += 1 + usize::from(length);
    }
}

/// Whether it may stand in `resolv.conf`: nothing that could be another line or another word.
fn is_domain(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub mod tests;

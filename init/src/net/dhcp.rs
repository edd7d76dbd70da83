//! The DHCP client (RFC 2131) as a state machine: it knows no socket and reads no clock.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::packet::{Ask, Kind, Mac, Reply, Request, Terms};

/// The first pause before a message is repeated. RFC 2131 §4.1 has 4 seconds, for networks of its time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest such pause.
const RETRY_LAST: Duration = Duration::from_secs(64);
/// How often one offer is asked for before another one is looked for.
const REQUESTS: u32 = 4;
/// The pause between messages of a lease that runs out, at least. RFC 2131 §4.4.5 has 60 s; a lease may be
/// shorter.
const EXTEND_LEAST: Duration = Duration::from_secs(1);
const EXTEND_MOST: Duration = Duration::from_secs(60);
/// A lease that is shorter is taken for this long: the address would come and go.
const LEASE_LEAST: Duration = Duration::from_secs(10);

/// What the client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this to the servers' port of this address.
    Send(Vec<u8>, Ipv4Addr),
    /// Use this address from now on, in place of any other.
    Use(Terms),
    /// Use no address any more.
    Drop,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Looks for an offer.
    Selecting,
    /// Has asked for one.
    Requesting { terms: Terms, server: Ipv4Addr },
    /// Has an address; asks for more time when `renew_at` has come.
    Bound { lease: Lease },
    /// Has an address, and asks for more time: its server, later any.
    Extending { lease: Lease },
}

/// An address and until when it is ours. A lease without an end has no deadlines.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    terms: Terms,
    server: Ipv4Addr,
    renew_at: Option<Duration>,
    rebind_at: Option<Duration>,
    end: Option<Duration>,
}

/// A client for one interface.
#[derive(Debug, Clone)]
pub struct Client {
    mac: Mac,
    host_name: String,
    state: State,
    transaction: u32,
    /// Messages sent in this state.
    tries: u32,
    /// When the next one is due, or the state changes by itself.
    due: Option<Duration>,
    /// When the client began to look for an address.
    began: Duration,
    /// When the last message went: a lease counts from there (RFC 2131 §4.4.1).
    asked: Duration,
    random: u64,
}

impl Client {
    /// A client that sends its first message at the first [`tick`](Self::tick). `seed` spreads the machines
    /// of a network in time.
    pub fn new(mac: Mac, host_name: String, seed: u64, now: Duration) -> Self {
        let [a, b, c, d, e, f] = mac;
        let mut client = Self {
            mac,
            host_name,
            state: State::Selecting,
            transaction: 0,
            tries: 0,
            due: Some(now),
            began: now,
            asked: now,
            // Never zero, which the generator could not leave.
            random: (seed ^ u64::from_be_bytes([0, 0, a, b, c, d, e, f])) | 1,
        };
        client.look(now);
        client
    }

    /// When [`tick`](Self::tick) is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// Whether it looks for an address, so that a link that comes up is worth a message.
    pub fn is_looking(&self) -> bool {
        matches!(self.state, State::Selecting | State::Requesting { .. })
    }

    /// Begins to look for an address, at once.
    pub fn look(&mut self, now: Duration) {
        self.enter(State::Selecting, now);
        self.began = now;
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        match self.state.clone() {
            State::Selecting => self.ask(Ask::Discover, Ipv4Addr::BROADCAST, now),
            State::Requesting { .. } if self.tries >= REQUESTS => {
                self.look(now);
                self.ask(Ask::Discover, Ipv4Addr::BROADCAST, now)
            }
            State::Requesting { terms, server } => {
                self.ask(Ask::Request { address: terms.address, server }, Ipv4Addr::BROADCAST, now)
            }
            State::Bound { lease } => {
                self.enter(State::Extending { lease: lease.clone() }, now);
                self.extend(&lease, now)
            }
            State::Extending { lease } => self.extend(&lease, now),
        }
    }

    /// Asks for more time, its own server first; or gives the address up.
    fn extend(&mut self, lease: &Lease, now: Duration) -> Vec<Action> {
        if lease.end.is_some_and(|end| end <= now) {
            self.look(now);
            let mut actions = vec![Action::Drop];
            actions.extend(self.ask(Ask::Discover, Ipv4Addr::BROADCAST, now));
            return actions;
        }
        let rebinds = lease.rebind_at.is_some_and(|at| at <= now);
        let to = if rebinds { Ipv4Addr::BROADCAST } else { lease.server };
        let actions = self.ask(Ask::Extend { address: lease.terms.address }, to, now);
        // Half of what is left, as RFC 2131 §4.4.5 has it; never past the next deadline.
        let next = if rebinds { lease.end } else { lease.rebind_at };
        self.due = next.map(|next| {
            let pause = (next.saturating_sub(now) / 2).clamp(EXTEND_LEAST, EXTEND_MOST);
            (now + pause).min(next)
        });
        actions
    }

    /// Takes a datagram that came to the clients' port.
    pub fn receive(&mut self, datagram: &[u8], now: Duration) -> Vec<Action> {
        let Some(reply) = Reply::decode(datagram) else { return Vec::new() };
        if reply.transaction != self.transaction || reply.mac != self.mac || self.tries == 0 {
            return Vec::new();
        }
        match (&self.state, reply.kind) {
            (State::Selecting, Kind::Offer) => self.take_offer(reply, now),
            (State::Requesting { server, .. }, Kind::Ack) => {
                let server = *server;
                self.bind(reply, server, now)
            }
            (State::Extending { lease }, Kind::Ack) => {
                let server = lease.server;
                self.bind(reply, server, now)
            }
            (State::Requesting { .. }, Kind::Nak) => {
                self.look(now);
                // Not at once: a server that offers and refuses would be asked for ever.
                self.due = Some(now + self.jitter(RETRY_FIRST));
                Vec::new()
            }
            (State::Extending { .. }, Kind::Nak) => {
                self.look(now);
                self.due = Some(now + self.jitter(RETRY_FIRST));
                vec![Action::Drop]
            }
            _ => Vec::new(),
        }
    }

    fn take_offer(&mut self, reply: Reply, now: Duration) -> Vec<Action> {
        let Some(server) = reply.server else { return Vec::new() };
        if !is_usable(reply.terms.address) {
            return Vec::new();
        }
        let address = reply.terms.address;
        // The same transaction as the offer's: RFC 2131 §4.4.1.
        let transaction = self.transaction;
        self.enter(State::Requesting { terms: reply.terms, server }, now);
        self.transaction = transaction;
        self.ask(Ask::Request { address, server }, Ipv4Addr::BROADCAST, now)
    }

    fn bind(&mut self, reply: Reply, server: Ipv4Addr, now: Duration) -> Vec<Action> {
        let Some(length) = reply.terms.lease.filter(|_| is_usable(reply.terms.address)) else {
            return Vec::new();
        };
        let length = length.max(LEASE_LEAST);
        let after = |time: Duration| self.asked.checked_add(time);
        let forever = length == Duration::MAX;
        let whole = |wanted: Option<Duration>, usual: Duration, most: Duration| {
            wanted.filter(|&wanted| wanted <= most).unwrap_or(usual)
        };
        let rebind = whole(reply.terms.rebind, length / 8 * 7, length);
        let renew = whole(reply.terms.renew, length / 2, rebind).min(rebind);
        let lease = Lease {
            server: reply.server.unwrap_or(server),
            renew_at: if forever { None } else { after(renew) },
            rebind_at: if forever { None } else { after(rebind) },
            end: if forever { None } else { after(length) },
            terms: reply.terms.clone(),
        };
        // A server may set times that are over already.
        let due = lease.renew_at.map(|at| at.max(now + EXTEND_LEAST));
        self.enter(State::Bound { lease }, now);
        self.due = due;
        vec![Action::Use(reply.terms)]
    }

    fn enter(&mut self, state: State, now: Duration) {
        self.state = state;
        self.tries = 0;
        self.due = Some(now);
        let bytes = self.next_random().to_be_bytes();
        let [a, b, c, d, ..] = bytes;
        self.transaction = u32::from_be_bytes([a, b, c, d]);
    }

    /// Sends, and plans the next time.
    fn ask(&mut self, ask: Ask, to: Ipv4Addr, now: Duration) -> Vec<Action> {
        let factor = 1u32.checked_shl(self.tries).unwrap_or(u32::MAX);
        let pause = self.jitter(RETRY_FIRST.saturating_mul(factor).min(RETRY_LAST));
        self.tries = self.tries.saturating_add(1);
        self.due = Some(now + pause);
        self.asked = now;
        let seconds = u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX);
        let request = Request {
            ask,
            transaction: self.transaction,
            seconds,
            mac: self.mac,
            host_name: &self.host_name,
        };
        vec![Action::Send(request.encode(), to)]
    }

    /// Up to a quarter more or less.
    fn jitter(&mut self, pause: Duration) -> Duration {
        let thousandths = u32::try_from(self.next_random() % 500).unwrap_or(250);
        pause * (750 + thousandths) / 1000
    }

    /// xorshift64: even enough to spread machines, and the same every time for a test.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// An address that one host can have.
fn is_usable(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 224 && !address.is_loopback()
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;

//! The machine's network: the loopback, and an address for the first interface by DHCP.
//!
//! Nothing waits for it: it lives in the supervisor's loop, behind one descriptor and one deadline, and a
//! machine without a network is a machine like any other.

mod dhcp;
mod netlink;
mod packet;

use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use manifest::Manifest;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{setsockopt, sockopt};

use crate::clock::{self, nanoseconds};
use crate::error::{Error, Result};
use crate::log::Console;
use dhcp::{Action, Client};
use netlink::{Address, Changes, Netlink};
use packet::{CLIENT_PORT, LONGEST, Mac, SERVER_PORT, Terms};

/// The machine's name servers. Every container has this file in the place of its own.
pub const RESOLV_CONF: &str = "/run/coracle/resolv.conf";

/// `ARPHRD_ETHER` of linux/if_arp.h, as sysfs says it.
const ETHERNET: &str = "1";
/// How many datagrams are read before the services get their turn again.
const DATAGRAMS: usize = 16;

/// The network, in whatever stage it is.
pub struct Network {
    /// None in a machine without DHCP.
    dhcp: Option<Dhcp>,
}

struct Dhcp {
    host_name: String,
    netlink: Netlink,
    changes: Changes,
    /// Holds the descriptors that come and go, so that the supervisor has but one to wait for.
    epoll: Epoll,
    /// None until there is an interface.
    link: Option<Link>,
}

/// The interface, and the client on it.
struct Link {
    interface: Interface,
    socket: UdpSocket,
    client: Client,
    /// Whether a cable is in, as of the last look.
    carrier: bool,
    terms: Option<Terms>,
}

struct Interface {
    name: String,
    index: u32,
    mac: Mac,
}

/// Sets up the network of the calling process, which was just made: its loopback, and nothing else.
pub fn begin_own() -> nix::Result<()> {
    /// The first interface of every network.
    const LOOPBACK: u32 = 1;
    Netlink::open()?.set_up(LOOPBACK, None)?;
    // As in the machine's: a user needs no capability to serve port 80.
    let opened = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    opened.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

impl Network {
    /// Sets the loopback up, and begins to look for an interface if the machine is to have an address.
    pub fn begin(manifest: &Manifest, console: &mut Console) -> Result<Self> {
        // There from the beginning, because containers bind the file, and not what it will be.
        fs::write(RESOLV_CONF, "").map_err(|error| Error::io("make", RESOLV_CONF, &error))?;
        let failed = |errno| Error::new("prepare", "the network", errno);
        let netlink = Netlink::open().map_err(failed)?;
        let loopback = index_of("lo").unwrap_or(1);
        if let Err(errno) = netlink.set_up(loopback, None) {
            console.say(format_args!("{}", Error::new("set up", "lo", errno)));
        }
        if manifest.network == manifest::Network::None {
            return Ok(Self { dhcp: None });
        }
        let changes = Changes::watch().map_err(failed)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        epoll.add(&changes.socket, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        let host_name = manifest.name.as_str().to_owned();
        let mut dhcp = Dhcp { host_name, netlink, changes, epoll, link: None };
        dhcp.attend(clock::now(), console);
        Ok(Self { dhcp: Some(dhcp) })
    }

    /// What to wait for.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.dhcp.as_ref().map(|dhcp| dhcp.epoll.0.as_fd())
    }

    /// When [`attend`](Self::attend) is due even if nothing comes.
    pub fn deadline(&self) -> Option<Duration> {
        self.dhcp.as_ref()?.link.as_ref().filter(|link| link.carrier)?.client.deadline()
    }

    /// Whether there is an address, and a network to use it on.
    pub fn is_up(&self) -> bool {
        let link = self.dhcp.as_ref().and_then(|dhcp| dhcp.link.as_ref());
        link.is_some_and(|link| link.carrier && link.terms.is_some())
    }

    /// Does what is due and reads what has come, without ever waiting.
    pub fn attend(&mut self, now: Duration, console: &mut Console) {
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.attend(now, console);
        }
    }
}

impl Dhcp {
    fn attend(&mut self, now: Duration, console: &mut Console) {
        self.changes.drain();
        // An interface that was taken away takes its address, its routes and the use of the socket with it.
        self.link.take_if(|link| index_of(&link.interface.name) != Some(link.interface.index));
        if self.link.is_none()
            && let Some(interface) = first_interface()
        {
            match self.open(interface, now) {
                Ok(link) => self.link = Some(link),
                // Tried again when something about the interfaces changes.
                Err(error) => console.say(format_args!("{error}")),
            }
        }
        let Some(link) = &mut self.link else { return };
        let carrier = link.interface.has_carrier();
        if carrier && !link.carrier && link.client.is_looking() {
            link.client.look(now);
        }
        link.carrier = carrier;
        for _ in 0..DATAGRAMS {
            let mut datagram = [0; LONGEST];
            let Ok(length) = link.socket.recv(&mut datagram) else { break };
            let actions = link.client.receive(datagram.get(..length).unwrap_or_default(), now);
            link.perform(actions, &self.netlink, console);
        }
        if carrier {
            let actions = link.client.tick(now);
            link.perform(actions, &self.netlink, console);
        }
    }

    fn open(&self, interface: Interface, now: Duration) -> Result<Link> {
        let failed = |errno| Error::new("set up", interface.name.clone(), errno);
        let io_failed = |error: std::io::Error| Error::io("use DHCP on", interface.name.clone(), &error);
        self.netlink.set_up(interface.index, None).map_err(failed)?;
        let socket =
            UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).map_err(io_failed)?;
        socket.set_nonblocking(true).map_err(io_failed)?;
        socket.set_broadcast(true).map_err(io_failed)?;
        setsockopt(&socket, sockopt::BindToDevice, &interface.name.clone().into()).map_err(failed)?;
        self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(failed)?;
        let client = Client::new(interface.mac, self.host_name.clone(), nanoseconds(now), now);
        Ok(Link { interface, socket, client, carrier: false, terms: None })
    }
}

impl Link {
    fn perform(&mut self, actions: Vec<Action>, netlink: &Netlink, console: &mut Console) {
        for action in actions {
            let done = match action {
                // One that is lost is repeated.
                Action::Send(datagram, to) => {
                    drop(self.socket.send_to(&datagram, SocketAddrV4::new(to, SERVER_PORT)));
                    Ok(())
                }
                Action::Use(terms) => self.take(terms, netlink, console),
                Action::Drop => {
                    console.say(format_args!("{} has lost its address", self.interface.name));
                    self.give_up(netlink)
                }
            };
            if let Err(error) = done {
                console.say(format_args!("{error}"));
            }
        }
    }

    fn take(&mut self, terms: Terms, netlink: &Netlink, console: &mut Console) -> Result<()> {
        let unchanged = self.terms.as_ref().is_some_and(|old| {
            Terms { lease: old.lease, renew: old.renew, rebind: old.rebind, ..terms.clone() } == *old
        });
        if unchanged {
            return Ok(());
        }
        if self.terms.as_ref().is_some_and(|old| address(old) != address(&terms)) {
            self.give_up(netlink)?;
        }
        let index = self.interface.index;
        let failed = |errno| Error::new("configure", self.interface.name.clone(), errno);
        if terms.mtu.is_some() {
            netlink.set_up(index, terms.mtu).map_err(failed)?;
        }
        netlink.add_address(index, address(&terms)).map_err(failed)?;
        // Those that lead out through another router need the ones to that router.
        let mut routes = terms.routes.clone();
        routes.sort_by_key(|route| !route.gateway.is_unspecified());
        for route in routes {
            netlink.add_route(index, route).map_err(failed)?;
        }
        write_resolv_conf(&terms)?;
        console.say(format_args!("{} has {}/{}", self.interface.name, terms.address, terms.prefix));
        self.terms = Some(terms);
        Ok(())
    }

    fn give_up(&mut self, netlink: &Netlink) -> Result<()> {
        let Some(terms) = self.terms.take() else { return Ok(()) };
        netlink
            .remove_address(self.interface.index, address(&terms))
            .map_err(|errno| Error::new("take the address from", self.interface.name.clone(), errno))
    }
}

fn address(terms: &Terms) -> Address {
    Address { address: terms.address, prefix: terms.prefix }
}

/// In place, because the file itself is what containers have; the new text before the new length, so that a
/// reader sees lines that are whole.
fn write_resolv_conf(terms: &Terms) -> Result<()> {
    let failed = |error: std::io::Error| Error::io("write", RESOLV_CONF, &error);
    let text = resolv_conf(terms);
    let file = OpenOptions::new().write(true).open(RESOLV_CONF).map_err(failed)?;
    file.write_all_at(text.as_bytes(), 0).map_err(failed)?;
    file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX)).map_err(failed)
}

fn resolv_conf(terms: &Terms) -> String {
    let mut text = String::new();
    if !terms.search.is_empty() {
        text.push_str(&format!("search {}\n", terms.search.join(" ")));
    }
    for server in &terms.dns {
        // Writing to a String cannot fail.
        let (Ok(()) | Err(std::fmt::Error)) = writeln!(text, "nameserver {server}");
    }
    text
}

/// The Ethernet interface that came first.
fn first_interface() -> Option<Interface> {
    let names = fs::read_dir("/sys/class/net").ok()?.flatten();
    let interfaces = names.filter_map(|entry| Interface::look_up(entry.file_name().into_string().ok()?));
    interfaces.min_by_key(|interface| interface.index)
}

impl Interface {
    /// None for one that is no Ethernet, or has just gone.
    fn look_up(name: String) -> Option<Self> {
        if attribute(&name, "type")? != ETHERNET {
            return None;
        }
        let mac = parse_mac(&attribute(&name, "address")?)?;
        Some(Self { index: index_of(&name)?, mac, name })
    }

    /// Reading it fails while the interface is down.
    fn has_carrier(&self) -> bool {
        attribute(&self.name, "carrier").is_some_and(|carrier| carrier == "1")
    }
}

fn index_of(name: &str) -> Option<u32> {
    attribute(name, "ifindex")?.parse().ok()
}

fn attribute(interface: &str, attribute: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/{attribute}")).ok()?;
    Some(text.trim_end().to_owned())
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_has_six_bytes() {
        assert_eq!(parse_mac("52:54:00:12:34:56"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        for bad in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:00:12:34:xx"] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }

    #[test]
    fn resolv_conf_has_the_search_list_first() {
        let terms = Terms {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            routes: vec![],
            dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(9, 9, 9, 9)],
            search: vec!["a.example".to_owned(), "b.example".to_owned()],
            mtu: None,
            lease: None,
            renew: None,
            rebind: None,
        };
        assert_eq!(
            resolv_conf(&terms),
            "search a.example b.example\nnameserver 10.0.2.3\nnameserver 9.9.9.9\n"
        );
    }
}

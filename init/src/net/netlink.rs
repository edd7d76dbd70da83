//! The few messages of rtnetlink(7) that a machine with one address needs.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use nix::unistd::{read, write};

use super::packet::Route;

/// Who made a route: `RTPROT_DHCP` of linux/rtnetlink.h.
const RTPROT_DHCP: u8 = 16;

/// Requests to the kernel, each answered before the next.
pub struct Netlink {
    socket: OwnedFd,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: Ipv4Addr,
    /// Bits of its network.
    pub prefix: u8,
}

impl Netlink {
    /// For requests.
    pub fn open() -> nix::Result<Self> {
        open(0).map(|socket| Self { socket })
    }

    /// Sets an interface up, with packets of at most `mtu` bytes.
    pub fn set_up(&self, interface: u32, mtu: Option<u16>) -> nix::Result<()> {
        let up = u32::try_from(libc::IFF_UP).unwrap_or(1);
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        // struct ifinfomsg: family, padding, type, index, flags, which flags.
        message.put(&[0, 0, 0, 0]);
        message.put(&interface.to_ne_bytes());
        message.put(&up.to_ne_bytes());
        message.put(&up.to_ne_bytes());
        if let Some(mtu) = mtu {
            message.attribute(libc::IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        }
        self.request(message)
    }

    /// Gives an interface an address.
    pub fn add_address(&self, interface: u32, address: Address) -> nix::Result<()> {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.request(Self::address(libc::RTM_NEWADDR, flags, interface, address))
    }

    /// Takes an address from an interface, and its routes with it.
    pub fn remove_address(&self, interface: u32, address: Address) -> nix::Result<()> {
        self.request(Self::address(libc::RTM_DELADDR, 0, interface, address))
    }

    fn address(kind: u16, flags: i32, interface: u32, address: Address) -> Message {
        let mut message = Message::new(kind, flags);
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        message.put(&[IPV4, address.prefix, 0, libc::RT_SCOPE_UNIVERSE]);
        message.put(&interface.to_ne_bytes());
        message.attribute(libc::IFA_LOCAL, &address.address.octets());
        message.attribute(libc::IFA_ADDRESS, &address.address.octets());
        message
    }

    /// Adds a route, or puts it in the place of an equal one.
    pub fn add_route(&self, interface: u32, route: Route) -> nix::Result<()> {
        let direct = route.gateway.is_unspecified();
        let scope = if direct { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
        let mut message = Message::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE);
        // struct rtmsg: family, both prefixes, tos, table, protocol, scope, type, flags.
        message.put(&[IPV4, route.prefix, 0, 0, libc::RT_TABLE_MAIN, RTPROT_DHCP, scope, libc::RTN_UNICAST]);
        // Some clouds give an address of 32 bits and a router beside it: it is on the link because DHCP says
        // so.
        let flags = if direct { 0 } else { u32::from(ON_LINK) };
        message.put(&flags.to_ne_bytes());
        if route.prefix > 0 {
            message.attribute(libc::RTA_DST, &route.network.octets());
        }
        if !direct {
            message.attribute(libc::RTA_GATEWAY, &route.gateway.octets());
        }
        message.attribute(libc::RTA_OIF, &interface.to_ne_bytes());
        self.request(message)
    }

    /// The kernel handles a request while it is being sent, so the answer is there when that returns.
    fn request(&self, message: Message) -> nix::Result<()> {
        write(&self.socket, &message.finish())?;
        let mut answer = [0; 1024];
        let length = read(&self.socket, &mut answer)?;
        // struct nlmsghdr has 16 bytes, and in an NLMSG_ERROR the error follows, negated; 0 is the
        // acknowledgement.
        let code = answer.get(..length).and_then(|answer| answer.get(16..20)?.first_chunk());
        match code.map(|&code| i32::from_ne_bytes(code)) {
            Some(0) => Ok(()),
            Some(code) => Err(Errno::from_raw(code.saturating_neg())),
            None => Err(Errno::EBADMSG),
        }
    }
}

const IPV4: u8 = 2;
/// `RTNH_F_ONLINK`.
const ON_LINK: u8 = 4;

/// Tells that some interface has come, gone or changed. What exactly is looked up afterwards.
pub struct Changes {
    /// To wait for.
    pub socket: OwnedFd,
}

impl Changes {
    /// From now on.
    pub fn watch() -> nix::Result<Self> {
        let links = u32::try_from(libc::RTMGRP_LINK).map_err(|_| Errno::EINVAL)?;
        open(links).map(|socket| Self { socket })
    }

    /// Reads all there is. ENOBUFS, too many to be told, is a change like any other.
    pub fn drain(&self) {
        let mut message = [0; 4096];
        while matches!(read(&self.socket, &mut message), Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR)) {}
    }
}

fn open(groups: u32) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// A message under construction: a header whose length comes last, a fixed part, attributes.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or_default();
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        Self(bytes)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Every value here has four bytes, so nothing needs padding.
    fn attribute(&mut self, kind: u16, value: &[u8; 4]) {
        self.put(&8u16.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.splice(..4, length.to_ne_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_its_own_length_and_is_aligned() {
        let address = Address { address: Ipv4Addr::new(10, 0, 2, 15), prefix: 24 };
        let bytes = Netlink::address(libc::RTM_NEWADDR, 0, 2, address).finish();
        assert_eq!(bytes.len(), 16 + 8 + 2 * 8);
        assert_eq!(bytes[..4], 40u32.to_ne_bytes());
        assert_eq!(bytes[24..32], [8, 0, 2, 0, 10, 0, 2, 15]);
    }
}

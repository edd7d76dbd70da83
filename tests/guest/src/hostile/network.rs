//! Sockets of every kind, and whom they reach.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::time::Duration;

use super::attempt::{Attempt, Descriptor, PLANTED_SOCKET, VICTIM_PORT};
use super::{DATA, Probe};

const STREAM: u64 = 1;
const DATAGRAM: u64 = 2;
const RAW: u64 = 3;

const fn socket(name: &'static str, expected: &'static str, arguments: &'static [u64]) -> Probe {
    Probe::call(name, expected, 41, arguments, b"")
}

/// All of them.
#[rustfmt::skip]
pub(super) const SOCKETS: &[Probe] = &[
    socket("AF_UNIX", "allowed", &[1, STREAM, 0]),
    socket("AF_INET, TCP", "allowed", &[2, STREAM, 0]),
    socket("AF_INET6, UDP", "allowed", &[10, DATAGRAM, 0]),
    socket("AF_NETLINK, route", "allowed", &[16, RAW, 0]),
    socket("AF_NETLINK, audit", "EAFNOSUPPORT", &[16, RAW, 9]),
    socket("AF_NETLINK, netfilter", "EAFNOSUPPORT", &[16, RAW, 12]),
    socket("AF_NETLINK, kobject_uevent", "EAFNOSUPPORT", &[16, RAW, 15]),
    socket("AF_NETLINK, generic", "EAFNOSUPPORT", &[16, RAW, 16]),
    socket("AF_NETLINK, crypto", "EAFNOSUPPORT", &[16, RAW, 21]),
    socket("AF_INET, raw", "EPERM", &[2, RAW, 1]),
    socket("AF_INET6, raw", "EPERM", &[10, RAW, 58]),
    socket("AF_INET, ping", "EACCES", &[2, DATAGRAM, 1]),
    socket("AF_INET, SCTP", "EPROTONOSUPPORT", &[2, STREAM, 132]),
    socket("AF_INET, MPTCP", "allowed", &[2, STREAM, 262]),
    socket("AF_PACKET", "EAFNOSUPPORT", &[17, RAW, 0]),
    socket("AF_AX25", "EAFNOSUPPORT", &[3, DATAGRAM, 0]),
    socket("AF_APPLETALK", "EAFNOSUPPORT", &[5, DATAGRAM, 0]),
    socket("AF_KEY", "EAFNOSUPPORT", &[15, RAW, 2]),
    socket("AF_RDS", "EAFNOSUPPORT", &[21, 5, 0]),
    socket("AF_LLC", "EAFNOSUPPORT", &[26, STREAM, 0]),
    socket("AF_CAN", "EAFNOSUPPORT", &[29, RAW, 1]),
    socket("AF_TIPC", "EAFNOSUPPORT", &[30, 5, 0]),
    socket("AF_BLUETOOTH", "EAFNOSUPPORT", &[31, RAW, 1]),
    socket("AF_ALG", "EAFNOSUPPORT", &[38, 5, 0]),
    socket("AF_NFC", "EAFNOSUPPORT", &[39, RAW, 0]),
    socket("AF_VSOCK", "EAFNOSUPPORT", &[40, STREAM, 0]),
    socket("AF_KCM", "EAFNOSUPPORT", &[41, DATAGRAM, 0]),
    socket("AF_SMC", "EAFNOSUPPORT", &[43, STREAM, 0]),
    socket("AF_XDP", "EAFNOSUPPORT", &[44, RAW, 0]),
    Probe::new("listen on port 80", "allowed", Attempt::Do(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 80)).map(|_| true))),
    Probe::new("connect to another service's port", "allowed", Attempt::Do(foreign_port)),
    Probe::new("connect to another service's abstract socket", "allowed", Attempt::Do(abstract_socket)),
    Probe::new("see another service's abstract socket", "allowed", Attempt::Do(see_socket)),
    Probe::new("have a route to 169.254.169.254", "allowed", Attempt::Do(metadata)),
    // SIOCSIFFLAGS for `lo`, with the flags that it has; and SIOCSIFMTU
    Probe::with("set an interface's flags", "EPERM", 16, &[2, 0x8914, DATA], b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x49\0", Descriptor::Socket),
    Probe::with("set an interface's MTU", "EPERM", 16, &[2, 0x8922, DATA], b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0", Descriptor::Socket),
    // SO_MARK and SO_BINDTODEVICE, of SOL_SOCKET
    Probe::with("mark packets", "EPERM", 54, &[2, 1, 36, DATA, 4], b"\x01\0\0\0", Descriptor::Socket),
    // IP_TRANSPARENT, of SOL_IP
    Probe::with("have packets of others", "EPERM", 54, &[2, 0, 19, DATA, 4], b"\x01\0\0\0", Descriptor::Socket),
    // IPT_SO_GET_INFO, of SOL_IP: it would load a module
    Probe::with("read the packet filter", "ENOPROTOOPT", 55, &[2, 0, 64, DATA, DATA + 128], b"filter\0", Descriptor::Socket),
];

fn foreign_port() -> io::Result<bool> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, VICTIM_PORT));
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).map(|_| true)
}

/// The victim's, which is a socket of the network namespace.
fn abstract_socket() -> io::Result<bool> {
    UnixStream::connect_addr(&UnixAddress::from_abstract_name(PLANTED_SOCKET)?).map(|_| true)
}

fn see_socket() -> io::Result<bool> {
    fs::read_to_string("/proc/net/unix").map(|text| text.contains(PLANTED_SOCKET))
}

/// Nothing is sent: to connect such a socket is to look for a route.
fn metadata() -> io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(169, 254, 169, 254), 80)).map(|()| true)
}

//! What is said, sent to a syslog server: RFC 5426 over UDP, RFC 6587 over TCP.
//!
//! Nothing here waits. What the network does not take is told later from the rings, and what they have dropped by then is
//! counted and told as well.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use manifest::{Syslog as Server, Transport};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrStorage, connect, getsockopt, recv, send,
    setsockopt, shutdown, socket, sockopt,
};

use super::console::OWN_NAME;
use super::feed::{Feed, Said, Voice};
use super::message::{INFORMATIONAL, Message, WARNING};
use super::outbox::Outbox;
use super::{Line, Timestamp};
use crate::clock;

/// The pause before the second attempt to reach a server; each next one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A connection that has lasted so long is no attempt any more. A server can take connections and end them at once, and
/// over UDP the answer that nobody is there comes after the message.
const LASTING: Duration = Duration::from_secs(10);
/// How long a server is not reached until that is said: a network needs its time after the boot.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many milliseconds sent bytes may stay unconfirmed until the connection counts as lost.
const UNCONFIRMED: u32 = 60_000;
/// How many datagrams are sent before services get their turn again.
const DATAGRAMS: usize = 64;

/// The way to a server.
pub struct Syslog {
    server: Server,
    host: String,
    feed: Feed,
    outbox: Outbox,
    /// Whether there is more than the outbox had room for.
    has_more: bool,
    link: Link,
    /// The next pause between attempts.
    pause: Duration,
    /// Since when the server is not reached for long enough, and whether that was said.
    failing: Option<(Duration, bool)>,
    /// Holds the socket that comes and goes, so that the supervisor has but one to wait for.
    epoll: Epoll,
    /// What is waited for on the socket.
    interest: EpollFlags,
}

enum Link {
    /// Not connected, and not tried before then.
    Down(Duration),
    Connecting(OwnedFd),
    /// Connected since then.
    Up(OwnedFd, Duration),
}

impl Syslog {
    /// The way of the machine `host` to `server`, not tried yet.
    pub fn new(server: Server, host: &str) -> nix::Result<Self> {
        Ok(Self {
            server,
            host: host.to_owned(),
            feed: Feed::default(),
            outbox: Outbox::default(),
            has_more: false,
            link: Link::Down(Duration::ZERO),
            pause: FIRST_PAUSE,
            failing: None,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            interest: EpollFlags::empty(),
        })
    }

    /// What to wait for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// When [`attend`](Self::attend) is due even if nothing comes.
    pub fn deadline(&self) -> Option<Duration> {
        match self.link {
            Link::Down(until) => self.is_waiting().then_some(until),
            Link::Connecting(_) | Link::Up(..) => None,
        }
    }

    /// Whether something is to be sent.
    fn is_waiting(&self) -> bool {
        self.has_more || !self.outbox.is_empty()
    }

    /// Sends what `voices` have said, as far as it goes. Returns what is to be said about that.
    pub fn attend<'a>(
        &mut self,
        now: Duration,
        voices: impl Fn(usize) -> Option<Voice<'a>>,
    ) -> Option<String> {
        self.fill(now, voices);
        let done = self.connect(now).and_then(|()| self.look(now)).and_then(|()| self.send());
        let news = done.err().and_then(|errno| self.fail(errno, now));
        self.watch();
        news
    }

    /// Sends what is left, and waits until the server has it, but no longer than `patience`.
    pub fn finish<'a>(&mut self, patience: Duration, voices: impl Fn(usize) -> Option<Voice<'a>>) {
        let deadline = clock::now() + patience;
        loop {
            let now = clock::now();
            // Nobody is told any more how it goes.
            drop(self.attend(now, &voices));
            match &self.link {
                Link::Down(_) => return,
                Link::Up(..) if self.is_waiting() => {}
                // What the kernel has of it is sent, as far as it knows.
                Link::Up(..) if self.server.transport == Transport::Udp => return,
                // A server ends a connection when it has read it to the end: then it has everything. The second time,
                // the kernel takes no notice.
                Link::Up(socket, _) => {
                    let (Ok(()) | Err(_)) = shutdown(socket.as_raw_fd(), Shutdown::Write);
                }
                Link::Connecting(_) => {}
            }
            let left = deadline.saturating_sub(now);
            let timeout = EpollTimeout::try_from(left).unwrap_or(EpollTimeout::ZERO);
            if left.is_zero() || self.epoll.wait(&mut [EpollEvent::empty()], timeout).is_err() {
                return;
            }
        }
    }

    /// Adds messages to the outbox while there is room.
    fn fill<'a>(&mut self, now: Duration, voices: impl Fn(usize) -> Option<Voice<'a>>) {
        let Self { server, host, feed, outbox, .. } = self;
        // A clock that was set since tells earlier times right as well.
        let start = clock::of_day().saturating_sub(now);
        self.has_more = true;
        while outbox.has_room() {
            let Some(Said { name, entry }) = feed.next(&voices) else {
                self.has_more = false;
                return;
            };
            let mut add = |priority, name: &str, pid, text: &dyn std::fmt::Display| {
                let message =
                    Message { priority, time: Timestamp(start + entry.time), host, name, pid, text };
                outbox.add(|bytes| match server.transport {
                    Transport::Udp => message.write(bytes),
                    Transport::Tcp => message.write_framed(bytes),
                });
            };
            if entry.dropped > 0 {
                add(WARNING, OWN_NAME, 1, &format_args!("{} lines of `{name}` are missing", entry.dropped));
            }
            add(INFORMATIONAL, name, entry.pid, &Line(&entry.text));
        }
    }

    /// Begins to connect, if it is time to and there is something to send.
    fn connect(&mut self, now: Duration) -> nix::Result<()> {
        let Link::Down(until) = self.link else { return Ok(()) };
        if until > now || !self.is_waiting() {
            return Ok(());
        }
        let address = SockaddrStorage::from(self.server.address);
        let family = if self.server.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let kind = match self.server.transport {
            Transport::Udp => SockType::Datagram,
            Transport::Tcp => SockType::Stream,
        };
        let socket = socket(family, kind, flags, None)?;
        if kind == SockType::Stream {
            setsockopt(&socket, sockopt::TcpUserTimeout, &UNCONFIRMED)?;
        }
        let is_connected = match connect(socket.as_raw_fd(), &address) {
            Ok(()) => true,
            Err(Errno::EINPROGRESS) => false,
            Err(errno) => return Err(errno),
        };
        self.interest = EpollFlags::empty();
        self.epoll.add(&socket, EpollEvent::new(self.interest, 0))?;
        self.link = if is_connected { Link::Up(socket, now) } else { Link::Connecting(socket) };
        Ok(())
    }

    /// Takes note of what has become of the connection.
    fn look(&mut self, now: Duration) -> nix::Result<()> {
        match std::mem::replace(&mut self.link, Link::Down(now)) {
            Link::Connecting(socket) => {
                let mut events = [EpollEvent::empty()];
                let count = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
                let failure = getsockopt(&socket, sockopt::SocketError)?;
                // No event: it is still underway.
                self.link = if count == 0 { Link::Connecting(socket) } else { Link::Up(socket, now) };
                if failure == 0 { Ok(()) } else { Err(Errno::from_raw(failure)) }
            }
            Link::Up(socket, since) => {
                let heard = listen(&socket, self.server.transport);
                self.link = Link::Up(socket, since);
                heard
            }
            down @ Link::Down(_) => {
                self.link = down;
                Ok(())
            }
        }
    }

    fn send(&mut self) -> nix::Result<()> {
        let Link::Up(socket, _) = &self.link else { return Ok(()) };
        let is_stream = self.server.transport == Transport::Tcp;
        for _ in 0..DATAGRAMS {
            let message = if is_stream { Some(self.outbox.rest()) } else { self.outbox.message() };
            let Some(bytes) = message.filter(|bytes| !bytes.is_empty()) else { break };
            match send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(length) => self.outbox.take(length),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Lets go of the connection, and says so if it is one failure too many.
    fn fail(&mut self, errno: Errno, now: Duration) -> Option<String> {
        if let Link::Connecting(socket) | Link::Up(socket, _) = &self.link {
            // Explicitly, because a child on its way to exec may hold a copy. Its failure would be that it is not there.
            let (Ok(()) | Err(_)) = self.epoll.delete(socket);
        }
        if matches!(self.link, Link::Up(_, since) if now.saturating_sub(since) >= LASTING) {
            self.pause = FIRST_PAUSE;
            self.failing = None;
        }
        self.link = Link::Down(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.outbox.rewind();
        let (since, is_told) = self.failing.get_or_insert((now, false));
        if *is_told || now.saturating_sub(*since) < PATIENCE {
            return None;
        }
        *is_told = true;
        Some(format!(
            "cannot reach the syslog server `{}`, and goes on trying: {}",
            self.server,
            errno.desc()
        ))
    }

    /// Waits for what can happen next, and for nothing else.
    fn watch(&mut self) {
        let (socket, interest) = match &self.link {
            Link::Down(_) => return,
            Link::Connecting(socket) => (socket, EpollFlags::EPOLLOUT),
            Link::Up(socket, _) if self.is_waiting() => (socket, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT),
            Link::Up(socket, _) => (socket, EpollFlags::EPOLLIN),
        };
        if interest != self.interest && self.epoll.modify(socket, &mut EpollEvent::new(interest, 0)).is_ok() {
            self.interest = interest;
        }
    }
}

/// Reads what a server says, which is of no interest, unless it is the end.
fn listen(socket: &OwnedFd, transport: Transport) -> nix::Result<()> {
    let mut buffer = [0; 512];
    for _ in 0..DATAGRAMS {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) if transport == Transport::Tcp => return Err(Errno::EPIPE),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

    use super::super::ring::Ring;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Machine {
        rings: Vec<(&'static str, Ring)>,
        syslog: Syslog,
    }

    impl Machine {
        fn new(transport: Transport, address: SocketAddr) -> Self {
            let rings = ["coracle", "web", "db"].map(|name| (name, Ring::new(4096))).into();
            Self { rings, syslog: Syslog::new(Server { transport, address }, "shop").unwrap() }
        }

        fn say(&mut self, number: usize, text: &str) {
            self.rings[number].1.append(clock::now(), text.as_bytes());
        }

        fn attend(&mut self, now: Duration) -> Option<String> {
            let Self { rings, syslog } = self;
            syslog.attend(now, |number| rings.get(number).map(|(name, ring)| Voice { name, ring }))
        }

        fn attend_until(&mut self, mut is_done: impl FnMut() -> bool) {
            let begun = clock::now();
            while !is_done() {
                assert!(clock::now() - begun < 20 * SECOND, "too long");
                assert_eq!(self.attend(clock::now()), None);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Name, process and text.
    fn parsed(message: &str) -> (String, String, String) {
        let words: Vec<&str> = message.splitn(8, ' ').collect();
        let [_, _, "shop", name, pid, "-", "-", text] = words[..] else { panic!("{message}") };
        (name.to_owned(), pid.to_owned(), text.to_owned())
    }

    fn texts(messages: &[String]) -> Vec<String> {
        messages.iter().map(|message| parsed(message).2).collect()
    }

    #[test]
    fn each_line_is_a_datagram() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_nonblocking(true).unwrap();
        let mut machine = Machine::new(Transport::Udp, server.local_addr().unwrap());
        machine.rings[1].1.begin_run(7);
        machine.say(1, "one\ntwo\nunfin");
        machine.say(2, "1\n");
        let mut messages = vec![];
        let receive = |messages: &mut Vec<String>| {
            let mut buffer = [0; 2000];
            while let Ok(length) = server.recv(&mut buffer) {
                messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            messages.len()
        };
        machine.attend_until(|| receive(&mut messages) == 3);
        machine.say(1, "ished\n");
        machine.attend_until(|| receive(&mut messages) == 4);
        assert_eq!(texts(&messages), ["one", "1", "two", "unfinished"]);
        assert_eq!(parsed(&messages[0]), ("web".into(), "7".into(), "one".into()));
        assert!(machine.syslog.deadline().is_none() && !machine.syslog.is_waiting());
    }

    /// The messages that have come by a connection.
    fn unframed(stream: &[u8]) -> Vec<String> {
        let (mut rest, mut messages) = (stream, vec![]);
        while let Some(at) = rest.iter().position(|&byte| byte == b' ') {
            let length: usize = std::str::from_utf8(&rest[..at]).unwrap().parse().unwrap();
            let Some(message) = rest.get(at + 1..at + 1 + length) else { break };
            messages.push(String::from_utf8(message.to_vec()).unwrap());
            rest = &rest[at + 1 + length..];
        }
        messages
    }

    fn read(stream: &mut TcpStream, all: &mut Vec<u8>) {
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            all.extend(&buffer[..length]);
        }
    }

    #[test]
    fn a_server_that_comes_back_gets_whole_messages_and_the_number_of_what_is_missing() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_nonblocking(true).unwrap();
        let mut machine = Machine::new(Transport::Tcp, server.local_addr().unwrap());
        machine.say(1, "one\n");
        let mut stream = None;
        machine.attend_until(|| {
            stream = server.accept().ok();
            stream.is_some()
        });
        let (mut stream, _) = stream.unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut all = vec![];
        machine.attend_until(|| {
            read(&mut stream, &mut all);
            unframed(&all).len() == 1
        });
        // What it says is of no interest. Nobody reads, so that the socket fills up and the ring overflows.
        stream.write_all(b"hello").unwrap();
        let line = "x".repeat(99) + "\n";
        let mut rounds_since_full = 0;
        while rounds_since_full < 100 {
            (0..400).for_each(|_| machine.say(2, &line));
            assert_eq!(machine.attend(clock::now()), None);
            rounds_since_full += usize::from(!machine.syslog.outbox.is_empty());
        }
        machine.say(1, "still heard\n");
        drop(stream);
        let mut stream = None;
        machine.attend_until(|| {
            stream = server.accept().ok();
            stream.is_some()
        });
        let (mut stream, _) = stream.unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut all = vec![];
        machine.attend_until(|| {
            read(&mut stream, &mut all);
            texts(&unframed(&all)).iter().any(|text| text == "still heard")
        });
        let texts = texts(&unframed(&all));
        assert!(texts.iter().any(|text| text.ends_with("lines of `db` are missing")), "{texts:?}");
    }

    #[test]
    fn the_last_words_are_waited_for() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut machine = Machine::new(Transport::Tcp, server.local_addr().unwrap());
        (0..30).for_each(|number| machine.say(1, &format!("{number}\n")));
        let reader = std::thread::spawn(move || {
            let mut all = vec![];
            server.accept().unwrap().0.read_to_end(&mut all).unwrap();
            unframed(&all)
        });
        let Machine { rings, syslog } = &mut machine;
        syslog.finish(20 * SECOND, |number| rings.get(number).map(|(name, ring)| Voice { name, ring }));
        assert_eq!(reader.join().unwrap().len(), 30);
    }

    #[test]
    fn a_server_that_is_not_there_is_asked_ever_less_often_and_said_once() {
        // Bound and not listening: nobody else gets the port meanwhile.
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut machine = Machine::new(Transport::Tcp, bound.local_addr().unwrap());
        machine.say(1, "one\n");
        let (mut now, mut attempts, mut said) = (clock::now(), vec![], vec![]);
        let begun = now;
        while now < begun + 300 * SECOND {
            // The kernel refuses at once or a moment later.
            for _ in 0..20 {
                said.extend(machine.attend(now));
            }
            let deadline = machine.syslog.deadline().unwrap();
            assert!(deadline > now);
            attempts.push(deadline - now);
            now = deadline;
        }
        assert!(attempts.len() < 20, "{attempts:?}");
        assert!(attempts.is_sorted() && attempts[0] == FIRST_PAUSE, "{attempts:?}");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].ends_with("Connection refused"), "{said:?}");
    }

    #[test]
    fn nothing_is_tried_while_there_is_nothing_to_send() {
        let mut machine = Machine::new(Transport::Udp, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        machine.say(1, "unfinished");
        assert_eq!(machine.attend(clock::now()), None);
        assert!(machine.syslog.deadline().is_none());
        assert!(matches!(machine.syslog.link, Link::Down(_)));
    }
}

//! TCP listeners: one socket per reactor on one port (SO_REUSEPORT), which nobody else may share.
//!
//! SO_REUSEPORT alone would let a second server of the same user bind the same port unnoticed, and share its
//! connections. So the first socket of an address is bound *without* it, which fails if anybody listens there, and
//! given it only then, so that the others can join; nothing is closed in between. That leaves another server that has
//! bound but doesn't listen yet, because it still loads its application: with SO_REUSEADDR (needed to bind over
//! connections in TIME-WAIT) two such sockets may both be bound. Therefore the first socket's SO_REUSEPORT is off
//! again while it starts to listen: the kernel serialises listen(2) on a port, and whoever comes second meets a
//! listening socket it can't share with, and fails.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{Bound, code, holder, machine_name};
use crate::config::Address;
use crate::limits::LISTEN_BACKLOG;

/// Binds as many sockets as there are reactors.
pub(super) fn bind(host: &str, port: u16, reactors: usize) -> Result<Bound, String> {
    let mut first_fault = None;
    for candidate in candidates(host, port)? {
        match bind_all(candidate, reactors) {
            Ok((local, sockets)) => return Ok(bound(host, local, sockets)),
            // This machine doesn't have that address, but perhaps the next one.
            Err(error) if matches!(code(&error), libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => {
                first_fault.get_or_insert(error);
            }
            Err(error) => return Err(sentence(host, port, &error)),
        }
    }
    Err(match first_fault {
        Some(error) => sentence(host, port, &error),
        None => format!("{}: the host name has no address; check its spelling", flag(host, port)),
    })
}

/// Starts to listen on all sockets of one address.
pub(super) fn listen(host: &str, port: u16, sockets: &[OwnedFd]) -> Result<(), String> {
    let listen_all = || {
        for (index, socket) in sockets.iter().enumerate() {
            let socket = SockRef::from(socket);
            let exclusive = index == 0 && sockets.len() > 1;
            if exclusive {
                socket.set_reuse_port(false)?;
            }
            socket.listen(LISTEN_BACKLOG)?;
            if exclusive {
                socket.set_reuse_port(true)?;
            }
        }
        Ok(())
    };
    listen_all().map_err(|error| sentence(host, port, &error))
}

/// An IP address as it stands in a URL and in `SERVER_NAME` (RFC 3875 §4.1.14).
pub(super) fn host_in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The addresses to try, in order.
fn candidates(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]);
    }
    let resolved = (host, port).to_socket_addrs().map_err(|error| {
        format!(
            "{}: the host name can't be resolved ({error}); give an IP address, or check the name",
            flag(host, port)
        )
    })?;
    Ok(ipv4_first(resolved))
}

/// The resolver's order otherwise.
fn ipv4_first(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses
}

/// Binds `count` sockets to one address and port. Port 0 becomes a port that is the same for all.
fn bind_all(address: SocketAddr, count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    let first = open(address)?;
    first.bind(&SockAddr::from(address))?;
    let local = first.local_addr()?;
    let mut sockets = Vec::with_capacity(count);
    if count > 1 {
        first.set_reuse_port(true)?;
    }
    sockets.push(OwnedFd::from(first));
    while sockets.len() < count {
        let socket = open(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&local)?;
        sockets.push(OwnedFd::from(socket));
    }
    Ok((local.as_socket().unwrap_or(address), sockets))
}

/// A non-blocking, close-on-exec socket. Accepted connections inherit TCP_NODELAY from it.
fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // Whatever net.ipv6.bindv6only says: all interfaces means IPv4 too.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn bound(host: &str, local: SocketAddr, sockets: Vec<OwnedFd>) -> Bound {
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let server_name = match local.ip() {
        address if address.is_unspecified() => machine_name(),
        address if literal => host_in_url(address),
        _ => host.to_owned(),
    };
    Bound {
        address: Address::Tcp { host: local.ip().to_string(), port: local.port() },
        description: format!("http://{local}"),
        server_name,
        server_port: local.port().to_string(),
        sockets,
        inherited: false,
        file: None,
    }
}

fn flag(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("--http-socket [{host}]:{port}")
    } else {
        format!("--http-socket {host}:{port}")
    }
}

fn sentence(host: &str, port: u16, error: &io::Error) -> String {
    let flag = flag(host, port);
    match code(error) {
        libc::EADDRINUSE if port == 0 => {
            format!("{flag}: no port is free; widen net.ipv4.ip_local_port_range or name a port")
        }
        libc::EADDRINUSE => {
            let holder = holder::of_port(port).unwrap_or_else(|| "another program".to_owned());
            format!("{flag}: the port is taken by {holder}; stop that, or choose another port")
        }
        libc::EACCES | libc::EPERM if port != 0 => format!(
            "{flag}: no permission to use port {port}; choose a port above 1023, let systemd pass the socket, or allow \
             it with `setcap cap_net_bind_service=+ep` on the Python executable"
        ),
        libc::EADDRNOTAVAIL => {
            format!(
                "{flag}: no interface of this machine has that address; leave the host out to listen on all interfaces"
            )
        }
        libc::EAFNOSUPPORT => format!("{flag}: this machine has no IPv6; give an IPv4 address"),
        libc::EMFILE | libc::ENFILE => {
            format!("{flag}: no file descriptor is left; raise the limit with `ulimit -n`, or ask for fewer --reactors")
        }
        _ => format!("{flag}: can't listen there ({error}); choose another address"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    fn port_of(bound: &Bound) -> u16 {
        match bound.address {
            Address::Tcp { port, .. } => port,
            _ => panic!("{bound:?}"),
        }
    }

    fn start(bound: &Bound) -> Result<(), String> {
        super::super::listen(std::slice::from_ref(bound))
    }

    #[test]
    fn every_reactor_gets_a_socket_and_a_share_of_the_connections() {
        let bound = bind("127.0.0.1", 0, 4).unwrap();
        let port = port_of(&bound);
        assert_ne!(port, 0);
        assert_eq!(bound.description, format!("http://127.0.0.1:{port}"));
        assert_eq!((bound.server_name.as_str(), &bound.server_port), ("127.0.0.1", &port.to_string()));
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it is bound, but doesn't listen yet");
        start(&bound).unwrap();
        let clients: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        let sockets: Vec<SockRef> = bound.sockets.iter().map(SockRef::from).collect();
        assert!(sockets.iter().all(|socket| socket.nonblocking().unwrap() && socket.reuse_port().unwrap()));
        let mut accepted = [0; 4];
        // A connection may show up a little later than its client sees it established.
        while accepted.iter().sum::<usize>() < clients.len() {
            for (socket, count) in sockets.iter().zip(&mut accepted) {
                while let Ok((connection, _)) = socket.accept() {
                    assert!(connection.tcp_nodelay().unwrap(), "connections inherit TCP_NODELAY");
                    *count += 1;
                }
            }
        }
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    }

    #[test]
    fn a_taken_port_is_found_although_ports_are_shared() {
        let check = |reactors| {
            let first = bind("127.0.0.1", 0, reactors).unwrap();
            start(&first).unwrap();
            let error = bind("127.0.0.1", port_of(&first), reactors).unwrap_err();
            assert!(
                error.contains(&format!("--http-socket 127.0.0.1:{}: the port is taken", port_of(&first))),
                "{error}"
            );
        };
        check(1);
        check(3);
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(bind("127.0.0.1", stranger.local_addr().unwrap().port(), 2).is_err());
        assert!(bind("", stranger.local_addr().unwrap().port(), 2).is_err(), "nor under a wildcard");
    }

    #[test]
    fn of_two_that_are_bound_only_one_can_listen() {
        let check = |reactors| {
            let first = bind("127.0.0.1", 0, reactors).unwrap();
            let second = bind("127.0.0.1", port_of(&first), reactors).unwrap();
            start(&second).unwrap();
            let error = start(&first).unwrap_err();
            assert!(error.contains("the port is taken"), "{error}");
        };
        check(1);
        check(3);
    }

    #[test]
    fn a_port_in_time_wait_can_be_bound_again() {
        let first = bind("127.0.0.1", 0, 2).unwrap();
        start(&first).unwrap();
        let port = port_of(&first);
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // The server closes first: its side goes through TIME-WAIT.
        let accept = || first.sockets.iter().find_map(|socket| SockRef::from(socket).accept().ok());
        drop(std::iter::repeat_with(accept).flatten().next());
        drop(client);
        drop(first);
        let second = bind("127.0.0.1", port, 2).unwrap();
        start(&second).unwrap();
    }

    #[test]
    fn an_empty_host_is_all_interfaces_of_both_families() {
        let bound = bind("", 0, 2).unwrap();
        let port = port_of(&bound);
        start(&bound).unwrap();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        let Address::Tcp { host, .. } = &bound.address else { panic!("{bound:?}") };
        match host.as_str() {
            "::" => drop(TcpStream::connect(("::1", port)).unwrap()),
            other => assert_eq!(other, "0.0.0.0", "without IPv6"),
        }
        assert!(!bound.server_name.is_empty() && !bound.server_name.contains("::"), "{bound:?}");
    }

    #[test]
    fn names_are_resolved_and_ipv4_is_preferred() {
        let bound = bind("localhost", 0, 1).unwrap();
        assert_eq!(bound.address, Address::Tcp { host: "127.0.0.1".to_owned(), port: port_of(&bound) });
        assert_eq!(bound.server_name, "localhost");
        let resolved = ["[::1]:1", "192.0.2.2:1", "192.0.2.1:1"].map(|text| text.parse().unwrap());
        assert_eq!(ipv4_first(resolved.into_iter()), [resolved[1], resolved[2], resolved[0]]);
        assert!(!SockRef::from(&bound.sockets[0]).reuse_port().unwrap(), "one reactor shares with nobody");
        assert!(bound.sockets[0].as_raw_fd() > 2);
    }

    #[test]
    fn faults_are_named_with_a_remedy() {
        let check = |host, port, number, expected: &[&str]| {
            let sentence = sentence(host, port, &io::Error::from_raw_os_error(number));
            assert!(expected.iter().all(|part| sentence.contains(part)), "{sentence}");
        };
        check(
            "",
            80,
            libc::EACCES,
            &["--http-socket :80: no permission to use port 80", "above 1023", "setcap", "systemd"],
        );
        check("::1", 8000, libc::EADDRNOTAVAIL, &["--http-socket [::1]:8000: no interface"]);
        check("::1", 8000, libc::EAFNOSUPPORT, &["no IPv6"]);
        check("h", 0, libc::EADDRINUSE, &["no port is free"]);
        check("h", 8000, libc::EMFILE, &["ulimit -n"]);
        check("h", 8000, libc::ENOBUFS, &["can't listen there", "choose another"]);
        // TEST-NET-1 (RFC 5737) is nobody's.
        let error = bind("192.0.2.1", 0, 2).unwrap_err();
        assert!(error.contains("no interface of this machine"), "{error}");
        let error = bind("no such host", 8000, 2).unwrap_err();
        assert!(error.contains("--http-socket no such host:8000: the host name can't be resolved"), "{error}");
    }
}

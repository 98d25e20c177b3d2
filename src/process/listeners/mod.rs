//! Every listening socket of the server: bound here, owned here, lent to the reactors.
//!
//! Binding and listening are two steps, so that a taken port is found before the application is loaded and no
//! connection is promised before it is. Nothing here accepts, and nothing here knows HTTP.

mod holder;
mod tcp;
mod unix;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use socket2::{Socket, Type};

use crate::config::Address;
use crate::limits::LISTEN_BACKLOG;
use crate::reactor::inherit;

/// systemd's first passed descriptor (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const PASSED_DESCRIPTORS_START: RawFd = 3;

/// One address with its sockets. A Unix socket's file is unlinked when this is dropped by the process that bound it.
#[derive(Debug)]
pub struct Bound {
    /// Where it is bound: a resolved IP address and the real port, or what was asked for.
    pub address: Address,
    /// For people: `http://127.0.0.1:8000`, `unix:/run/site.sock`, `http://127.0.0.1:8000 (fd 3)`.
    pub description: String,
    /// `SERVER_NAME`: the host as given, or the machine's name where the address has none. Never empty (PEP 3333).
    pub server_name: String,
    /// `SERVER_PORT`; `80` where the address has none. Never empty (PEP 3333).
    pub server_port: String,
    /// One per reactor for TCP (SO_REUSEPORT); exactly one, shared, for Unix sockets and inherited descriptors.
    pub sockets: Vec<OwnedFd>,
    /// Whether somebody else called listen(2) before the server started.
    inherited: bool,
    /// What is left to remove.
    file: Option<unix::SocketFile>,
}

impl Bound {
    /// The socket that this reactor accepts on.
    pub fn socket_for(&self, reactor: usize) -> BorrowedFd<'_> {
        self.sockets[reactor % self.sockets.len()].as_fd()
    }

    /// Gives the file of a Unix socket, if there is one, to the user that the server will be.
    ///
    /// # Errors
    /// One sentence.
    pub fn give(&self, uid: u32, gid: u32) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        file.give(uid, gid).map_err(|error| {
            format!(
                "--http-socket {}: the socket can't be given to user {uid}, group {gid} ({error})",
                self.description
            )
        })
    }

    /// Unlinks the file of a Unix socket, if it is still the one that was bound here. Dropping does the same.
    pub fn cleanup(&mut self) {
        self.file = None;
    }
}

/// What [`bind`] made.
#[derive(Debug, Default)]
pub struct Listeners {
    /// In the order asked for.
    pub bound: Vec<Bound>,
    /// Sentences for the error log.
    pub warnings: Vec<String>,
}

/// Binds all addresses. `explicit` tells whether an operator asked for them or they are the default. `environment`
/// looks up LISTEN_PID and LISTEN_FDS: descriptors passed by systemd take the place of all addresses
/// (sd_listen_fds(3)).
///
/// A host name is resolved, and the first of its addresses that this machine has is bound, IPv4 before IPv6 as Go and
/// wsgo do. An empty host is `[::]` for IPv4 and IPv6 alike, or `0.0.0.0` where there is no IPv6.
///
/// # Errors
/// One sentence that names the address, the fault and the remedy.
pub fn bind(
    addresses: &[Address],
    explicit: bool,
    reactors: usize,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Listeners, String> {
    assert!(reactors > 0, "a server has a reactor");
    let mut listeners = Listeners::default();
    let passed = passed_descriptors(environment)?;
    let from_systemd = !passed.is_empty();
    let (addresses, warning) = in_force(addresses, explicit, &passed);
    listeners.warnings.extend(warning);
    let mut bound: Vec<Option<Bound>> = Vec::new();
    bound.resize_with(addresses.len(), || None);
    // Inherited descriptors come first: a socket opened here could get the number of one that wasn't passed after all.
    for (place, address) in bound.iter_mut().zip(addresses) {
        if let Address::Descriptor(descriptor) = *address {
            *place = Some(inherited(descriptor, from_systemd)?);
        }
    }
    for (place, address) in bound.iter_mut().zip(addresses) {
        match address {
            Address::Descriptor(_) => {}
            Address::Tcp { host, port } => *place = Some(tcp::bind(host, *port, reactors)?),
            Address::Unix(path) => *place = Some(unix::bind(path)?),
        }
    }
    listeners.bound = bound.into_iter().flatten().collect();
    listeners.warnings.extend(std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok().and_then(backlog_warning));
    Ok(listeners)
}

/// Lets connections in. Separate from [`bind`], so that the application is loaded in between.
///
/// # Errors
/// One sentence, when another server took an address between the two steps, or an address was asked for twice.
pub fn listen(bound: &[Bound]) -> Result<(), String> {
    for bound in bound.iter().filter(|bound| !bound.inherited) {
        match &bound.address {
            Address::Tcp { host, port } => tcp::listen(host, *port, &bound.sockets)?,
            Address::Unix(path) => unix::listen(path, &bound.sockets)?,
            Address::Descriptor(_) => unreachable!("inherited sockets are left out above"),
        }
    }
    Ok(())
}

/// The descriptors that systemd passed to this very process, as addresses; none if LISTEN_PID names another.
/// LISTEN_FDNAMES is for services that tell their sockets apart; here they are all the same.
fn passed_descriptors(environment: impl Fn(&str) -> Option<String>) -> Result<Vec<Address>, String> {
    let ours = environment("LISTEN_PID").is_some_and(|pid| pid.trim() == std::process::id().to_string());
    let Some(count) = environment("LISTEN_FDS").filter(|_| ours) else { return Ok(Vec::new()) };
    match count.trim().parse::<u16>() {
        Ok(count) => Ok((0..RawFd::from(count)).map(|n| Address::Descriptor(PASSED_DESCRIPTORS_START + n)).collect()),
        Err(_) => Err(format!("LISTEN_FDS={count}: not a number of sockets; systemd sets it, so leave it unset")),
    }
}

/// What systemd passes wins over what was asked for, as in gunicorn; that is told.
fn in_force<'a>(asked: &'a [Address], explicit: bool, passed: &'a [Address]) -> (&'a [Address], Option<String>) {
    if passed.is_empty() {
        return (asked, None);
    }
    let warning = explicit.then(|| {
        format!(
            "LISTEN_FDS passes {} socket(s) to listen on, so --http-socket is ignored; leave one of them out",
            passed.len()
        )
    });
    (passed, warning)
}

/// Takes over a listening stream socket that the process was started with.
fn inherited(descriptor: RawFd, from_systemd: bool) -> Result<Bound, String> {
    let fault = |fault: &str| {
        if from_systemd {
            format!(
                "LISTEN_FDS, descriptor {descriptor}: {fault}; check ListenStream= and Accept=no in the .socket unit"
            )
        } else {
            format!("--http-socket fd:{descriptor}: {fault}; pass a listening stream socket under that number")
        }
    };
    let socket = match inherit::copy(descriptor) {
        Ok(copy) => Socket::from(copy),
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
            return Err(fault("no descriptor of that number is open"));
        }
        Err(error) => return Err(fault(&error.to_string())),
    };
    match socket.r#type() {
        Ok(Type::STREAM) => {}
        Ok(_) => return Err(fault("it is a socket, but not a stream socket")),
        Err(_) => return Err(fault("it isn't a socket")),
    }
    if !socket.is_listener().map_err(|error| fault(&error.to_string()))? {
        return Err(fault("nobody called listen(2) on that socket"));
    }
    socket.set_nonblocking(true).map_err(|error| fault(&error.to_string()))?;
    let local = socket.local_addr().map_err(|error| fault(&error.to_string()))?;
    let (description, server_name, server_port) = match local.as_socket() {
        Some(local) => {
            socket.set_tcp_nodelay(true).map_err(|error| fault(&error.to_string()))?;
            let name = if local.ip().is_unspecified() { machine_name() } else { tcp::host_in_url(local.ip()) };
            (format!("http://{local}"), name, local.port().to_string())
        }
        None => (format!("unix:{}", unix::display(&local)), machine_name(), "80".to_owned()),
    };
    Ok(Bound {
        address: Address::Descriptor(descriptor),
        description: format!("{description} (fd {descriptor})"),
        server_name,
        server_port,
        sockets: vec![OwnedFd::from(socket)],
        inherited: true,
        file: None,
    })
}

/// What this machine calls itself, for addresses that don't say.
fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() || name == "(none)" { "localhost".to_owned() } else { name.to_owned() }
}

/// The kernel lowers a backlog silently: say so.
fn backlog_warning(somaxconn: String) -> Option<String> {
    let allowed: i64 = somaxconn.trim().parse().ok()?;
    (allowed < i64::from(LISTEN_BACKLOG)).then(|| {
        format!(
            "only {allowed} connections can wait to be accepted, because net.core.somaxconn is {allowed}; \
             for bursts of connections raise it with `sysctl -w net.core.somaxconn={LISTEN_BACKLOG}`"
        )
    })
}

/// The number of an error, 0 if it has none.
fn code(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// A path as it was given on the command line.
fn unix_flag(path: &Path) -> String {
    format!("--http-socket unix:{}", path.display())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use socket2::SockRef;

    use super::*;

    fn no_environment(_: &str) -> Option<String> {
        None
    }

    fn passed(pid: u32, count: &str) -> impl Fn(&str) -> Option<String> {
        let count = count.to_owned();
        move |name| match name {
            "LISTEN_PID" => Some(pid.to_string()),
            "LISTEN_FDS" => Some(count.clone()),
            _ => None,
        }
    }

    #[test]
    fn descriptors_of_systemd_are_for_the_process_it_names() {
        let ours = std::process::id();
        let check =
            |pid, count, expected: Result<&[i32], &str>| match (passed_descriptors(passed(pid, count)), expected) {
                (Ok(found), Ok(expected)) => {
                    let expected: Vec<Address> = expected.iter().map(|&n| Address::Descriptor(n)).collect();
                    assert_eq!(found, expected);
                }
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            };
        check(ours, "1", Ok(&[3]));
        check(ours, "3", Ok(&[3, 4, 5]));
        check(ours, "0", Ok(&[]));
        check(ours + 1, "2", Ok(&[]));
        check(ours, "-1", Err("LISTEN_FDS=-1"));
        check(ours, "99999999999", Err("LISTEN_FDS=99999999999"));
        assert_eq!(passed_descriptors(no_environment), Ok(Vec::new()));
    }

    #[test]
    fn an_inherited_listener_is_taken_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let address = Address::Descriptor(listener.as_raw_fd());
        let listeners = bind(std::slice::from_ref(&address), true, 4, no_environment).unwrap();
        let [bound] = &listeners.bound[..] else { panic!("{listeners:?}") };
        assert_eq!(bound.address, address);
        assert_eq!(bound.description, format!("http://{local} (fd {})", listener.as_raw_fd()));
        assert_eq!((bound.server_name.as_str(), &bound.server_port), ("127.0.0.1", &local.port().to_string()));
        assert_eq!(bound.sockets.len(), 1);
        assert_eq!(bound.socket_for(0).as_raw_fd(), bound.socket_for(3).as_raw_fd());
        let socket = SockRef::from(&bound.sockets[0]);
        assert!(socket.nonblocking().unwrap());
        assert!(socket.tcp_nodelay().unwrap());
        listen(&listeners.bound).unwrap();
        let _client = TcpStream::connect(local).unwrap();
        socket.set_nonblocking(false).unwrap();
        assert!(socket.accept().is_ok());
    }

    #[test]
    fn other_descriptors_are_refused_with_a_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let check = |descriptor: RawFd, expected: &str| {
            let error = bind(&[Address::Descriptor(descriptor)], true, 1, no_environment).unwrap_err();
            assert!(error.contains(&format!("fd:{descriptor}")) && error.contains(expected), "{error}");
        };
        check(1_000_000, "no descriptor of that number");
        check(-1, "no descriptor of that number");
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        check(datagrams.as_raw_fd(), "not a stream socket");
        let file = std::fs::File::create(directory.path().join("file")).unwrap();
        check(file.as_raw_fd(), "isn't a socket");
        let silent = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        check(silent.as_raw_fd(), "nobody called listen(2)");
        let listener = UnixListener::bind(directory.path().join("a.sock")).unwrap();
        let bound = bind(&[Address::Descriptor(listener.as_raw_fd())], true, 1, no_environment).unwrap();
        assert!(bound.bound[0].description.starts_with("unix:/"), "{bound:?}");
        assert_eq!(bound.bound[0].server_port, "80");
    }

    #[test]
    fn passed_descriptors_override_with_a_warning() {
        let any = [Address::Tcp { host: "127.0.0.1".to_owned(), port: 0 }];
        let passed_one = [Address::Descriptor(3)];
        let (addresses, warning) = in_force(&any, true, &passed_one);
        assert_eq!(addresses, passed_one);
        assert!(warning.is_some_and(|warning| warning.contains("--http-socket is ignored")));
        assert_eq!(in_force(&any, false, &passed_one), (&passed_one[..], None), "a default isn't worth a word");
        assert_eq!(in_force(&any, true, &[]), (&any[..], None));
        let of_another = bind(&any, false, 1, passed(std::process::id() + 1, "1")).unwrap();
        assert!(matches!(of_another.bound[0].address, Address::Tcp { .. }), "{of_another:?}");
    }

    #[test]
    fn a_lowered_backlog_is_told() {
        let check = |somaxconn: &str, expected| {
            assert_eq!(backlog_warning(somaxconn.to_owned()).is_some(), expected, "{somaxconn}");
        };
        check("128\n", true);
        check("4095\n", true);
        check("4096\n", false);
        check("65535\n", false);
        check("nonsense", false);
    }

    #[test]
    fn addresses_keep_their_order_and_the_last_is_cleaned_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s.sock");
        let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [
            Address::Unix(path.clone()),
            Address::Tcp { host: "127.0.0.1".to_owned(), port: 0 },
            Address::Descriptor(inherited.as_raw_fd()),
        ];
        let mut listeners = bind(&addresses, true, 2, no_environment).unwrap();
        let counts: Vec<usize> = listeners.bound.iter().map(|bound| bound.sockets.len()).collect();
        assert_eq!(counts, [1, 2, 1]);
        listen(&listeners.bound).unwrap();
        assert!(path.exists());
        listeners.bound[0].cleanup();
        assert!(!path.exists());
    }
}

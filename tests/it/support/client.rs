//! A client that sends any bytes it is told to, and reads responses without forgiving anything.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::{PATIENCE, shown};

/// Bytes of a response head after which it is taken to be endless.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// One connection to a server.
pub struct Client {
    socket: Socket,
    /// Received and not looked at yet.
    received: Vec<u8>,
}

/// How the end of a response was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It can't have a body: HEAD, 1xx, 204, 304.
    NoBody,
    /// Content-Length.
    Length,
    /// The last chunk.
    LastChunk,
    /// The end of the connection.
    Close,
}

/// A response head.
#[derive(Clone, Debug)]
pub struct Head {
    /// All of it, through the empty line.
    pub bytes: Vec<u8>,
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// Name and value of each field, bytes as latin-1.
    pub fields: Vec<(String, String)>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its head.
    pub head: Head,
    /// Its body without framing.
    pub body: Vec<u8>,
    /// The chunks it came in.
    pub chunks: Vec<Vec<u8>>,
    /// How its end was told.
    pub ending: Ending,
}

/// Why there is no whole response: what is wrong, the head if there was one, and the body up to there.
#[derive(Debug)]
pub struct Broken {
    /// What is wrong.
    pub fault: String,
    /// The head.
    pub head: Option<Head>,
    /// The body so far.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects to a TCP address.
    pub fn connect(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.connect(&address.into()).unwrap_or_else(|error| panic!("can't connect to {address}: {error}"));
        socket.set_tcp_nodelay(true).expect("a TCP socket");
        Self::new(socket)
    }

    /// Connects with a receive buffer of about `bytes`, so that a stopped reader stops the server soon.
    pub fn connect_narrow(address: SocketAddr, bytes: usize) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("before connecting it can be chosen");
        socket.connect(&address.into()).unwrap_or_else(|error| panic!("can't connect to {address}: {error}"));
        Self::new(socket)
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        socket
            .connect(&SockAddr::unix(path).expect("a short path"))
            .unwrap_or_else(|error| panic!("can't connect to {}: {error}", path.display()));
        Self::new(socket)
    }

    fn new(socket: Socket) -> Self {
        let client = Self { socket, received: Vec::new() };
        client.patience(PATIENCE);
        client
    }

    /// The same connection for another thread that only sends.
    pub fn clone_socket(&self) -> Self {
        Self { socket: self.socket.try_clone().expect("descriptors are left"), received: Vec::new() }
    }

    /// Changes how long one read or write may take.
    pub fn patience(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).expect("not zero");
        self.socket.set_write_timeout(Some(patience)).expect("not zero");
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.socket.write_all(bytes).unwrap_or_else(|error| panic!("can't send {}: {error}", shown(bytes)));
    }

    /// Sends `bytes` to a server that may have answered and gone; whether it took all of them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.socket.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a GET request for `target` that keeps the connection.
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response()
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        self.socket.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    /// Receives some more; 0 at the orderly end.
    fn receive(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(length) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    return Ok(length);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Exactly these bytes come next.
    pub fn expect_bytes(&mut self, expected: &[u8]) {
        while self.received.len() < expected.len() {
            match self.receive() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => panic!("{error} after {}", shown(&self.received)),
            }
        }
        let length = expected.len().min(self.received.len());
        let got: Vec<u8> = self.received.drain(..length).collect();
        assert_eq!(shown(&got), shown(expected));
    }

    /// The server ends the connection, in order or by a reset, and says nothing more.
    pub fn expect_closed(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "nothing more should come, but {} did", shown(&rest));
    }

    /// Everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.receive() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("the connection isn't closed: {error} after {}", shown(&self.received)),
            }
        }
        std::mem::take(&mut self.received)
    }

    /// Whether something has come, or comes while its patience lasts.
    pub fn hears(&mut self) -> bool {
        !self.received.is_empty() || self.receive().is_ok_and(|length| length > 0)
    }

    /// Nothing has come that wasn't read.
    pub fn expect_quiet(&self) {
        assert!(self.received.is_empty(), "{} came unasked", shown(&self.received));
    }

    /// The response to a request that wasn't a HEAD.
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// The response to a request with `method`.
    pub fn response_to(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|broken| panic!("no response: {broken:?}"))
    }

    /// The response to a request with `method`, or what is wrong with it.
    pub fn try_response(&mut self, method: &str) -> Result<Response, Box<Broken>> {
        let head = self.try_head().map_err(|fault| Box::new(Broken { fault, head: None, body: Vec::new() }))?;
        let mut response = Response { head, body: Vec::new(), chunks: Vec::new(), ending: Ending::NoBody };
        match self.read_body(&mut response, method == "HEAD") {
            Ok(()) => Ok(response),
            Err(fault) => Err(Box::new(Broken { fault, head: Some(response.head), body: response.body })),
        }
    }

    /// The head of the next response; its body stays to be read.
    pub fn head(&mut self) -> Head {
        self.try_head().unwrap_or_else(|fault| panic!("no response head: {fault}"))
    }

    fn try_head(&mut self) -> Result<Head, String> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.received.len() > HEAD_BYTES_MAX {
                return Err("the head has no end".into());
            }
            self.more("inside the head")?;
        };
        let bytes: Vec<u8> = self.received.drain(..end).collect();
        Head::parse(bytes)
    }

    /// Receives at least a byte.
    fn more(&mut self, place: &str) -> Result<(), String> {
        match self.receive() {
            Ok(0) => Err(format!("closed {place}, after {}", shown(&self.received))),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error} {place}, after {}", shown(&self.received))),
        }
    }

    fn read_body(&mut self, response: &mut Response, head_only: bool) -> Result<(), String> {
        response.ending = response.head.ending(head_only)?;
        match response.ending {
            Ending::NoBody => {}
            Ending::Length => {
                let length: usize = response.head.field("content-length").parse().map_err(|_| "too long a body")?;
                while response.body.len() < length {
                    if self.received.is_empty() {
                        self.more("inside the body")?;
                    }
                    let taken = self.received.len().min(length - response.body.len());
                    response.body.extend(self.received.drain(..taken));
                }
            }
            Ending::LastChunk => {
                while let Some(chunk) = self.try_chunk()? {
                    response.body.extend_from_slice(&chunk);
                    response.chunks.push(chunk);
                }
            }
            Ending::Close => {
                while self.receive().map_err(|error| format!("{error} inside the body"))? > 0 {}
                response.body = std::mem::take(&mut self.received);
            }
        }
        Ok(())
    }

    /// The next chunk; `None` for the last.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        self.try_chunk().unwrap_or_else(|fault| panic!("no chunk: {fault}"))
    }

    fn try_chunk(&mut self) -> Result<Option<Vec<u8>>, String> {
        let line = loop {
            if let Some(at) = self.received.windows(2).position(|window| window == b"\r\n") {
                break self.received.drain(..at + 2).collect::<Vec<u8>>();
            }
            self.more("inside a chunk-size line")?;
        };
        let digits = &line[..line.len() - 2];
        let is_size = !digits.is_empty() && digits.len() <= 8 && digits.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(digits).ok().filter(|_| is_size);
        let size = size.and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or_else(|| format!("chunk-size line {}", shown(&line)))?;
        while self.received.len() < size + 2 {
            self.more("inside a chunk")?;
        }
        let chunk: Vec<u8> = self.received.drain(..size).collect();
        let end: Vec<u8> = self.received.drain(..2).collect();
        if end != b"\r\n" {
            return Err(format!("{} behind a chunk", shown(&end)));
        }
        Ok((size > 0).then_some(chunk))
    }
}

impl Head {
    /// RFC 9112 §4, §5, as a sender must write them.
    fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let text: String = bytes[..bytes.len() - 4].iter().map(|&byte| char::from(byte)).collect();
        let mut lines = text.split("\r\n");
        let line = lines.next().expect("split gives at least one");
        let fault = || format!("status line {line:?}");
        let rest = line.strip_prefix("HTTP/1.1 ").ok_or_else(fault)?;
        let (code, reason) = rest.split_once(' ').ok_or_else(fault)?;
        let status =
            code.parse().ok().filter(|status| code.len() == 3 && (100..1000).contains(status)).ok_or_else(fault)?;
        let fields = lines.map(parse_field).collect::<Result<Vec<_>, _>>()?;
        let head = Self { status, reason: reason.to_owned(), fields, bytes };
        head.check()?;
        Ok(head)
    }

    fn check(&self) -> Result<(), String> {
        for name in ["content-length", "transfer-encoding", "date", "server", "content-type", "connection"] {
            if self.all(name).len() > 1 {
                return Err(format!("{name} twice"));
            }
        }
        if self.has("content-length") && self.has("transfer-encoding") {
            return Err("both Content-Length and Transfer-Encoding".into());
        }
        if self.status >= 200 && !is_date(self.field("date")) {
            return Err(format!("Date {:?}", self.field("date")));
        }
        Ok(())
    }

    /// RFC 9112 §6.3.
    fn ending(&self, head_only: bool) -> Result<Ending, String> {
        if head_only || self.status < 200 || matches!(self.status, 204 | 304) {
            return Ok(Ending::NoBody);
        }
        match (self.all("transfer-encoding").as_slice(), self.all("content-length").as_slice()) {
            (["chunked"], []) => Ok(Ending::LastChunk),
            ([], [length]) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Ending::Length)
            }
            ([], []) if self.closes() => Ok(Ending::Close),
            other => Err(format!("a body in no known framing: {other:?}")),
        }
    }

    /// Values of all fields of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|field| field.1.as_str()).collect()
    }

    /// The value of the first field of this name; empty if there is none.
    pub fn field(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }

    /// Whether there is a field of this name.
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether it says `Connection: close`.
    pub fn closes(&self) -> bool {
        self.field("connection") == "close"
    }

    /// The head with its Date replaced by `DATE`.
    pub fn masked(&self) -> String {
        let text: String = self.bytes.iter().map(|&byte| char::from(byte)).collect();
        match self.field("date") {
            "" => text,
            date => text.replace(date, "DATE"),
        }
    }
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The value of the first field of this name; empty if there is none.
    pub fn field(&self, name: &str) -> &str {
        self.head.field(name)
    }

    /// The body as text, bytes as latin-1.
    pub fn text(&self) -> String {
        self.body.iter().map(|&byte| char::from(byte)).collect()
    }

    /// Is a 200 with this body.
    pub fn expect(&self, body: impl AsRef<[u8]>) {
        assert_eq!((self.status(), shown(&self.body)), (200, shown(body.as_ref())));
        assert!(self.body == body.as_ref(), "the body differs behind its start");
    }

    /// Is a refusal: this status, a sentence as plain text, `Connection: close`.
    pub fn expect_refusal(&self, status: u16) {
        assert_eq!(self.status(), status, "{}", self.text());
        assert!(self.head.closes(), "a refusal ends the connection: {}", self.head.masked());
        assert!(self.field("content-type").starts_with("text/plain"), "{}", self.head.masked());
        assert!(self.body.ends_with(b"\n"), "a sentence with its line end: {}", shown(&self.body));
    }
}

fn parse_field(line: &str) -> Result<(String, String), String> {
    let fault = || format!("field line {line:?}");
    let (name, value) = line.split_once(": ").ok_or_else(fault)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_token);
    let is_value = value.trim() == value && !value.chars().any(|char| char.is_ascii_control() && char != '\t');
    if is_name && is_value { Ok((name.to_owned(), value.to_owned())) } else { Err(fault()) }
}

/// Whether `text` is in the form of `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn is_date(text: &str) -> bool {
    const FORM: &[u8] = b"Aaa, 00 Aaa 0000 00:00:00 GMT";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_uppercase(),
            b'a' => byte.is_ascii_lowercase(),
            other => byte == *other,
        })
}
